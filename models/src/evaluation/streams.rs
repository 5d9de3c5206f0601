//! Recordings heard one after the other, without a break, as a camera hears what happens: what the event logic remembers
//! of one is what it judges the next one by. A bar that pays in single recordings may cost here.

use super::listening::{Listened, detections};
use super::score::{ALL, EventBased, event_based_of};
use super::truth::QUIET;
use crate::detector::ModelInfo;
use crate::events::EventParams;

/// Recordings that are heard one after the other.
pub const TOGETHER: usize = 20;

/// Event-based figures by condition, and of [`ALL`] last, where [`TOGETHER`] recordings of a condition at a time, in
/// their order, are one stream. Quiet nights are long enough as they are. Empty where nothing else was heard.
pub fn in_streams(heard: &[Listened], info: &ModelInfo, params: EventParams) -> Vec<(String, EventBased)> {
    let mut conditions: Vec<&str> = heard.iter().map(|l| l.truth.condition.as_str()).collect();
    conditions.sort_unstable();
    conditions.dedup();
    conditions.retain(|c| *c != QUIET);
    let (mut all, mut sum) = (Vec::new(), EventBased::default());
    for condition in conditions {
        let of: Vec<&Listened> = heard.iter().filter(|l| l.truth.condition == condition).collect();
        let mut figures = EventBased::default();
        for stream in of.chunks(TOGETHER) {
            figures.add(&of_stream(stream, info, params));
        }
        sum.add(&figures);
        all.push((condition.to_owned(), figures));
    }
    if !all.is_empty() {
        all.push((ALL.to_owned(), sum));
    }
    all
}

fn of_stream(stream: &[&Listened], info: &ModelInfo, params: EventParams) -> EventBased {
    let (mut frames, mut onsets) = (Vec::new(), Vec::new());
    let frame_s = info.frame_step as f64 / f64::from(info.sample_rate);
    for listened in stream {
        let starts_s = frames.len() as f64 * frame_s;
        onsets.extend(listened.truth.cry.as_ref().map(|c| starts_s + c.onset_s));
        frames.extend_from_slice(&listened.frames);
    }
    let detected = detections(&frames, frames.len() * info.frame_step, info, params);
    let detected: Vec<f64> = detected.iter().map(|d| d.onset_s).collect();
    event_based_of(&onsets, &detected)
}

#[cfg(test)]
mod tests {
    use super::super::listening::tests::info;
    use super::super::truth::{Cry, DCASE, Truth};
    use super::*;
    use crate::train::calibrate::EVENTS;

    /// Ten seconds at this probability, but for 1.5 s at another from second 4 on, which are a cry or not.
    fn recording(condition: &str, usual: f32, peak: f32, is_cry: bool) -> Listened {
        let frames = (0..200).map(|i| if (80..110).contains(&i) { peak } else { usual }).collect();
        let cry =
            Cry { onset_s: 4.0, offset_s: 5.5, ebr_db: 0.0, path: String::new(), source: String::new() };
        let truth = Truth { condition: condition.into(), cry: is_cry.then_some(cry), ..Truth::default() };
        Listened { truth, samples: 160_000, frames }
    }

    #[test]
    fn what_a_stream_holds_is_found_at_its_place_and_in_no_other_stream() {
        let mut heard: Vec<Listened> = (0..45).map(|i| recording(DCASE, 0.001, 0.99, i % 2 == 0)).collect();
        heard.push(recording(QUIET, 0.001, 0.99, false));
        let figures = in_streams(&heard, &info(), EVENTS);
        let expected = EventBased { events: 23, hits: 23, insertions: 22 };
        assert_eq!(figures, [(DCASE.to_owned(), expected), (ALL.to_owned(), expected)]);
        assert!(in_streams(&heard[45..], &info(), EVENTS).is_empty());
    }

    #[test]
    fn what_one_recording_is_full_of_is_remembered_in_the_next() {
        // Alone, this much is announced.
        let cry = recording(DCASE, 0.01, 0.7, true);
        assert_eq!(in_streams(std::slice::from_ref(&cry), &info(), EVENTS)[0].1.hits, 1);
        // After ten seconds in which everything looks like crying a little, it is not.
        let stream = [recording(DCASE, 0.3, 0.3, false), cry];
        assert_eq!(in_streams(&stream, &info(), EVENTS)[0].1, EventBased { events: 1, ..Default::default() });
        let fixed = EventParams { adaptive: false, ..EVENTS };
        assert_eq!(in_streams(&stream, &info(), fixed)[0].1.hits, 1);
    }
}
