//! From frame probabilities to events: a bar that follows the camera's usual sounds, hysteresis, accumulated crying
//! before an event is announced, gaps on the breath bridged, an end after silence, a cooldown. Pure: no clock, no IO;
//! all that must not be forgotten can be stored and restored.

mod background;
mod last_minute;

use serde::{Deserialize, Deserializer, Serialize, de};

use background::Background;
use last_minute::LastMinute;

/// Babies cry in bursts of about a second and breathe in between; gaps up to this long do not break a run of
/// crying that is not announced yet.
const BRIDGE_US: i64 = 1_000_000;
/// What has lasted this long may be a cry with a breath after it. Less is a stray frame or two, over which only
/// [`FLICKER_US`] are bridged; otherwise a click shortly before a cry would pass for its onset.
const BURST_US: i64 = 150_000;
/// Pauses up to this long are the score's flicker in a cry that has just begun, or is faint.
const FLICKER_US: i64 = 150_000;
/// Where frames are missing for longer than this (restart, lost windows), an open event ends at its last cry
/// when frames come again.
const MAX_GAP_US: i64 = 30_000_000;
/// What begins within this long of a recording's start may have begun before it, and nobody heard how. Before it is
/// announced there must be this much of it, where any minimum is asked for: the creak of a door at the start of a file
/// is gone by then, and a cry goes on. A service does not ask for it: who comes back in the middle of a cry must not
/// lose time, and a process that starts again is no start of the camera's.
const CUT_US: i64 = 500_000;
const CUT_ASKS_US: i64 = 500_000;
/// While crying goes on, frames count from this share of the threshold's odds on (hysteresis): with a threshold
/// of 0.5, from 0.375 on. A share of the odds and not of the probability, so that another threshold is the same as
/// other log-odds, whatever it is.
const RELEASE: f32 = 0.6;
/// Probabilities are told apart down to this far from 0 and 1.
const CERTAIN: f32 = 1e-7;

/// A network is sure of a cry only after it has heard some of it. Frames count as its beginning from this share of
/// the threshold's odds on: with a threshold of 0.5, from about 0.05 on.
const LEAD: f32 = 0.05;
/// The longest beginning.
const LEAD_US: i64 = 2_000_000;

/// When probabilities are an event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EventParams {
    /// Probability from which a frame counts as crying.
    #[serde(deserialize_with = "probability")]
    pub threshold: f32,
    /// Seconds of crying, gaps on the breath bridged but not counted, before an event is announced. Frames at the
    /// threshold count for nothing, those at e times its odds or more (0.73 for a threshold of 0.5) for all of their
    /// length, those between for their share: what is clear is announced soon, what is not has to last.
    pub min_duration_s: f64,
    /// Seconds without crying after which an event has ended.
    pub end_after_s: f64,
    /// Seconds after an announced event's end in which new crying is not announced. Crying that still goes on,
    /// or begins again, after that is announced as an event of its own.
    pub cooldown_s: f64,
    /// Seconds of crying within the last minute before an event is announced, besides `min_duration_s` of it in
    /// one run; 0 asks for none.
    #[serde(default)]
    pub sustained_s: f64,
    /// Ask more of frames where the usual sounds look a little like crying, and less where nothing does, within
    /// narrow bounds.
    #[serde(default = "yes")]
    pub adaptive: bool,
}

fn yes() -> bool {
    true
}

/// A store may hold anything; what is no probability could not even be stored again.
fn probability<'de, D: Deserializer<'de>>(d: D) -> Result<f32, D::Error> {
    let value = f32::deserialize(d)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(de::Error::custom("no probability")) }
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    let us = i64::deserialize(d)?;
    if us >= 0 { Ok(us) } else { Err(de::Error::custom("less than no time")) }
}

/// Log-odds of a probability; NaN is none.
fn log_odds(probability: f32) -> f32 {
    let p = if probability.is_nan() { 0.0 } else { probability.clamp(CERTAIN, 1.0 - CERTAIN) };
    let p = p.max(CERTAIN);
    (p / (1.0 - p)).ln()
}

impl EventParams {
    /// Probability from which a frame counts as crying while crying goes on.
    fn release(&self) -> f32 {
        self.share(RELEASE)
    }

    /// How much of a frame with these log-odds counts: none at the threshold, all of it at e times its odds.
    fn clearness(&self, heard: f32) -> f32 {
        (heard - log_odds(self.threshold)).clamp(0.0, 1.0)
    }

    /// Probability that has this share of the threshold's odds.
    fn share(&self, of_odds: f32) -> f32 {
        let t = self.threshold;
        of_odds * t / (1.0 - t + of_odds * t)
    }
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Transition {
    /// An event is announced. `onset_us` is where its first crying frame begins, or the unbroken run of lesser
    /// signs of it that leads there, `decided_us` the end of the frame that decided, `score` the highest probability so far, `sustained_us` the sum of the crying frames of
    /// the minute before `decided_us`.
    Started { onset_us: i64, decided_us: i64, score: f32, sustained_us: i64 },
    /// It has ended: `offset_us` is the end of its last crying frame, `crying_us` the sum of its crying frames,
    /// `sustained_us` that of the minute before `offset_us`, whether they belong to this event or to another.
    Ended { onset_us: i64, offset_us: i64, peak_score: f32, crying_us: i64, sustained_us: i64 },
}

/// A run of crying, announced or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Run {
    onset_us: i64,
    /// End of the last crying frame.
    last_us: i64,
    #[serde(deserialize_with = "duration")]
    crying_us: i64,
    /// Of it, what counts towards an announcement.
    #[serde(default, deserialize_with = "duration")]
    clear_us: i64,
    #[serde(deserialize_with = "probability")]
    peak: f32,
    announced: bool,
}

impl Run {
    /// The pause after which what comes next is not of this run; `led` where there are lesser signs of crying in it.
    fn patience_us(&self, params: &EventParams, led: bool) -> i64 {
        // A cry during a cooldown lasts, like an announced one, over pauses; otherwise a cry that goes on and
        // on would begin anew with every breath and never be announced.
        if self.announced || self.clear_us >= us(params.min_duration_s) {
            us(params.end_after_s)
        } else if led || self.crying_us >= BURST_US {
            BRIDGE_US
        } else {
            FLICKER_US
        }
    }
}

/// State of one camera's event logic. All times are microseconds of one clock, usually since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLogic {
    params: EventParams,
    /// End of the newest frame that was seen; older ones are ignored, so replays change nothing.
    seen_us: Option<i64>,
    run: Option<Run>,
    /// Start and end of the newest stretch of signs of crying, strong or not.
    #[serde(default)]
    lead: Option<(i64, i64)>,
    /// No announcement before this.
    quiet_until_us: Option<i64>,
    /// Crying frames, whatever became of them.
    #[serde(default)]
    last_minute: LastMinute,
    /// Not stored: whoever restarts knows no camera's usual sounds, and learns them again.
    #[serde(skip)]
    background: Background,
    /// Start of a recording, known from its first frame on. Not stored, since no service has any.
    #[serde(skip)]
    recording: Option<Option<i64>>,
}

fn us(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

impl EventLogic {
    /// Nothing heard yet.
    pub fn new(params: EventParams) -> Self {
        Self {
            params,
            seen_us: None,
            run: None,
            lead: None,
            quiet_until_us: None,
            last_minute: LastMinute::default(),
            background: Background::default(),
            recording: None,
        }
    }

    /// Nothing heard yet of a recording, whose first sounds may be the end of something.
    pub fn of_recording(params: EventParams) -> Self {
        Self { recording: Some(None), ..Self::new(params) }
    }

    /// Other settings from the next frame on; an event that is open stays open.
    pub fn set_params(&mut self, params: EventParams) {
        self.params = params;
    }

    /// The settings in force.
    pub fn params(&self) -> &EventParams {
        &self.params
    }

    /// End of the newest frame that was taken in.
    pub fn seen_us(&self) -> Option<i64> {
        self.seen_us
    }

    /// Both would go on in the same way, whatever frames they saw last: what `self` lost by going back to
    /// `other` is only time, which the next frame tells again, and what the usual sounds are.
    pub fn is_same_but_for_time(&self, other: &Self) -> bool {
        let timeless =
            |logic: &Self| Self { seen_us: None, background: Background::default(), ..logic.clone() };
        timeless(self) == timeless(other)
    }

    /// Nothing is open, nothing is beginning, no cooldown runs at `now_us` and the minute before it was quiet: a
    /// restart forgets nothing but the time of the last frame.
    pub fn is_idle(&self, now_us: i64) -> bool {
        self.run.is_none()
            && self.lead.is_none()
            && self.quiet_until_us.is_none_or(|t| t <= now_us)
            && self.last_minute.heard_us(now_us) == 0
    }

    /// An event was announced and has not ended.
    pub fn is_open(&self) -> bool {
        self.run.is_some_and(|r| r.announced)
    }

    /// Takes one frame in: its start, its length and the probability of crying (NaN counts as 0). Frames that
    /// begin before the end of one that was seen already are ignored. Returns the probability by which it was judged,
    /// with `adaptive` before the camera's usual sounds; an ignored one's is its own.
    pub fn push(&mut self, start_us: i64, step_us: u32, probability: f32, out: &mut Vec<Transition>) -> f32 {
        let end_us = start_us.saturating_add(i64::from(step_us));
        // Rounding of window times may make neighbours overlap by a little.
        let slack = i64::from(step_us) / 2;
        if self.seen_us.is_some_and(|seen| start_us.saturating_add(slack) < seen) {
            return probability;
        }
        let start_us = self.seen_us.map_or(start_us, |seen| start_us.max(seen));
        if start_us >= end_us {
            return probability;
        }
        let gap = self.seen_us.map_or(0, |seen| start_us.saturating_sub(seen));
        if let Some(began) = &mut self.recording {
            began.get_or_insert(start_us);
        }
        self.seen_us = Some(end_us);
        if gap > MAX_GAP_US {
            self.close(out);
        }
        let (heard, step) = (log_odds(probability), end_us.saturating_sub(start_us));
        let clear = self.params.clearness(heard);
        self.background.hear(heard, step, clear, self.run.is_some());
        // What was not heard is no silence for an event; but it joins nothing to one either.
        let led = |lead: Option<(i64, i64)>| {
            gap <= FLICKER_US && lead.is_some_and(|(_, end)| start_us.saturating_sub(end) <= FLICKER_US)
        };
        let (params, led) = (self.params, led(self.lead));
        let over =
            |r: &mut Run| !r.announced && start_us.saturating_sub(r.last_us) > r.patience_us(&params, led);
        if self.run.take_if(over).is_some() {
            self.background.release();
        }
        let probability = self.judged(probability, heard);
        self.lead(start_us, end_us, probability);
        let crying_before = self.run.is_some_and(|r| start_us.saturating_sub(r.last_us) <= BRIDGE_US);
        let bar = if crying_before { self.params.release() } else { self.params.threshold };
        if probability >= bar {
            self.crying(start_us, end_us, probability, out);
        } else {
            self.quiet(end_us, out);
        }
        probability
    }

    /// A frame's probability of crying before this camera's usual sounds.
    fn judged(&self, probability: f32, heard: f32) -> f32 {
        if self.params.adaptive { 1.0 / (1.0 + (-self.background.judge(heard)).exp()) } else { probability }
    }

    /// Keeps the stretch of signs of crying up to date.
    fn lead(&mut self, start_us: i64, end_us: i64, probability: f32) {
        self.lead.take_if(|(_, end)| start_us.saturating_sub(*end) > FLICKER_US);
        if probability >= self.params.share(LEAD) {
            let from = self.lead.map_or(start_us, |(from, _)| from);
            self.lead = Some((from, end_us));
        }
    }

    fn crying(&mut self, start_us: i64, end_us: i64, probability: f32, out: &mut Vec<Transition>) {
        let probability = probability.min(1.0);
        self.last_minute.add(start_us, end_us);
        let earliest = start_us.saturating_sub(LEAD_US);
        let run = self.run.get_or_insert(Run {
            onset_us: self.lead.map_or(start_us, |(from, _)| from.clamp(earliest, start_us)),
            last_us: end_us,
            crying_us: 0,
            clear_us: 0,
            peak: 0.0,
            announced: false,
        });
        run.last_us = end_us;
        let us_long = end_us.saturating_sub(start_us);
        run.crying_us = run.crying_us.saturating_add(us_long);
        let clear = self.params.clearness(log_odds(probability));
        run.clear_us = run.clear_us.saturating_add((us_long as f64 * f64::from(clear)).round() as i64);
        run.peak = run.peak.max(probability);
        let quiet = self.quiet_until_us.is_some_and(|t| end_us < t);
        let began_us = self.recording.flatten();
        let cut = began_us.is_some_and(|began| run.onset_us.saturating_sub(began) < CUT_US);
        let least_us = us(self.params.min_duration_s);
        let asked_us = if cut && least_us > 0 { least_us.max(CUT_ASKS_US) } else { least_us };
        if run.announced || quiet || run.clear_us < asked_us {
            return;
        }
        let sustained_us = self.last_minute.heard_us(end_us);
        if sustained_us >= us(self.params.sustained_s) {
            run.announced = true;
            let (onset_us, score) = (run.onset_us, run.peak);
            out.push(Transition::Started { onset_us, decided_us: end_us, score, sustained_us });
        }
    }

    fn quiet(&mut self, end_us: i64, out: &mut Vec<Transition>) {
        let over = |run: Run| {
            end_us.saturating_sub(run.last_us) >= run.patience_us(&self.params, self.lead.is_some())
        };
        if self.run.is_some_and(over) {
            self.close(out);
        }
    }

    /// The stream ended at `at_us`, or will not be heard for long: an open event ends at its last cry, and not
    /// after the stream.
    pub fn finish(&mut self, at_us: i64, out: &mut Vec<Transition>) {
        if let Some(run) = &mut self.run {
            run.last_us = run.last_us.min(at_us.max(run.onset_us.saturating_add(1)));
        }
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<Transition>) {
        let Some(run) = self.run.take().filter(|r| r.announced) else {
            self.background.release();
            return;
        };
        self.background.after_event();
        // What leads to the next event comes after this one.
        self.lead = None;
        self.quiet_until_us = Some(run.last_us.saturating_add(us(self.params.cooldown_s)));
        out.push(Transition::Ended {
            onset_us: run.onset_us,
            offset_us: run.last_us,
            peak_score: run.peak,
            crying_us: run.crying_us,
            sustained_us: self.last_minute.heard_us(run.last_us),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    const STEP: u32 = 40_000;

    fn params() -> EventParams {
        EventParams {
            threshold: 0.5,
            min_duration_s: 0.6,
            end_after_s: 5.0,
            cooldown_s: 60.0,
            sustained_s: 0.0,
            adaptive: false,
        }
    }

    /// Feeds stretches of (seconds, probability) and returns what changed.
    fn feed(logic: &mut EventLogic, at_us: &mut i64, stretches: &[(f64, f32)]) -> Vec<Transition> {
        let mut out = Vec::new();
        for (seconds, p) in stretches {
            for _ in 0..(seconds * 1e6 / f64::from(STEP)).round() as usize {
                logic.push(*at_us, STEP, *p, &mut out);
                *at_us += i64::from(STEP);
            }
        }
        out
    }

    fn run(stretches: &[(f64, f32)]) -> Vec<Transition> {
        feed(&mut EventLogic::new(params()), &mut 0, stretches)
    }

    #[test]
    fn a_stored_state_with_what_is_no_probability_or_no_duration_is_refused() {
        let mut logic = EventLogic::new(params());
        feed(&mut logic, &mut 0, &[(1.0, 0.9)]);
        let good = serde_json::to_value(&logic).unwrap();
        assert!(serde_json::from_value::<EventLogic>(good.clone()).is_ok());
        for (part, key) in [("params", "threshold"), ("run", "peak")] {
            for bad in [1e300, 1e23, 255.0, -0.5] {
                let mut state = good.clone();
                state[part][key] = bad.into();
                assert!(serde_json::from_value::<EventLogic>(state).is_err(), "{key} {bad}");
            }
        }
        for key in ["crying_us", "clear_us"] {
            let mut state = good.clone();
            state["run"][key] = i64::MIN.into();
            assert!(serde_json::from_value::<EventLogic>(state).is_err(), "{key}");
        }
    }

    #[test]
    fn a_cry_is_announced_after_its_minimum_and_ends_after_silence() {
        let out = run(&[(2.0, 0.0), (3.0, 0.9), (6.0, 0.01)]);
        assert_eq!(
            out,
            [
                Transition::Started {
                    onset_us: 2_000_000,
                    decided_us: 2_600_000,
                    score: 0.9,
                    sustained_us: 600_000
                },
                Transition::Ended {
                    onset_us: 2_000_000,
                    offset_us: 5_000_000,
                    peak_score: 0.9,
                    crying_us: 3_000_000,
                    sustained_us: 3_000_000,
                },
            ]
        );
    }

    #[test]
    fn a_click_is_no_event_and_clicks_apart_do_not_add_up() {
        assert_eq!(run(&[(0.4, 0.9), (5.0, 0.0)]), []);
        assert_eq!(run(&[(0.4, 0.9), (1.0, 0.0)].repeat(10)), []);
    }

    #[test]
    fn of_what_begins_with_a_recording_more_is_asked() {
        let params = EventParams { min_duration_s: 0.3, ..params() };
        let decided = |mut logic: EventLogic, stretches: &[(f64, f32)]| {
            let out = feed(&mut logic, &mut 0, stretches);
            out.iter().find_map(|t| match t {
                Transition::Started { onset_us, decided_us, .. } => Some((*onset_us, *decided_us)),
                Transition::Ended { .. } => None,
            })
        };
        let of_recording = |stretches: &[(f64, f32)]| decided(EventLogic::of_recording(params), stretches);
        assert_eq!(of_recording(&[(0.4, 0.9), (2.0, 0.0)]), None);
        assert_eq!(of_recording(&[(1.0, 0.9)]), Some((0, 520_000)));
        // Heard from its beginning.
        assert_eq!(of_recording(&[(0.6, 0.0), (0.4, 0.9)]), Some((600_000, 920_000)));
        // A service's cameras, and who asks for no minimum at all.
        assert_eq!(decided(EventLogic::new(params), &[(0.4, 0.9)]), Some((0, 320_000)));
        let none = EventParams { min_duration_s: 0.0, ..params };
        assert_eq!(decided(EventLogic::of_recording(none), &[(0.4, 0.9)]), Some((0, 40_000)));
    }

    #[test]
    fn bursts_on_the_breath_are_one_event() {
        let bursts = [(0.4, 0.9), (0.5, 0.01)].repeat(10);
        let out = run(&[&bursts[..], &[(6.0, 0.0)]].concat());
        assert!(
            matches!(out[..], [Transition::Started { onset_us: 0, .. }, Transition::Ended { .. }]),
            "{out:?}"
        );
    }

    #[test]
    fn a_click_before_a_cry_is_not_its_onset_and_a_short_cry_before_a_breath_is() {
        let onset = |stretches: &[(f64, f32)]| match run(stretches)[..] {
            [Transition::Started { onset_us, decided_us, .. }] => (onset_us, decided_us),
            ref other => panic!("{other:?}"),
        };
        // One frame or three, half a second before.
        assert_eq!(onset(&[(0.04, 0.9), (0.52, 0.01), (1.0, 0.9)]), (560_000, 1_160_000));
        assert_eq!(onset(&[(0.12, 0.9), (0.52, 0.01), (1.0, 0.9)]), (640_000, 1_240_000));
        // Several of them lead back no further.
        let clicks = [(0.04, 0.9), (0.44, 0.01)].repeat(5);
        assert_eq!(onset(&[&clicks[..], &[(1.0, 0.9)]].concat()), (2_400_000, 3_000_000));
        // Nor do they lower the bar for what follows: its lesser signs only lead to it.
        let weak = onset(&[(0.04, 0.9), (0.32, 0.01), (0.2, 0.4), (1.0, 0.9)]);
        assert_eq!(weak, (360_000, 1_160_000));
        assert_eq!(onset(&[(0.2, 0.9), (0.52, 0.01), (1.0, 0.9)]), (0, 1_120_000));
        assert_eq!(onset(&[(0.04, 0.9), (0.12, 0.01), (1.0, 0.9)]), (0, 720_000), "flicker at the onset");
    }

    #[test]
    fn lesser_signs_lead_back_to_the_onset_but_announce_nothing() {
        assert_eq!(run(&[(30.0, 0.2)]), []);
        let onset = |stretches: &[(f64, f32)]| match run(stretches)[..] {
            [Transition::Started { onset_us, decided_us, .. }] => (onset_us, decided_us),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(onset(&[(1.0, 0.01), (0.8, 0.2), (1.0, 0.9)]), (1_000_000, 2_400_000));
        assert_eq!(onset(&[(1.0, 0.2), (0.4, 0.01), (1.0, 0.9)]).0, 1_400_000, "not over a pause");
        assert_eq!(onset(&[(8.0, 0.2), (1.0, 0.9)]).0, 6_000_000, "not for ever");
        // A hesitating score is one cry.
        assert_eq!(onset(&[(0.12, 0.9), (0.4, 0.2), (1.0, 0.9)]), (0, 1_000_000));
        // What trails after one event does not lead to the next.
        let (mut logic, mut t) = (EventLogic::new(EventParams { cooldown_s: 0.0, ..params() }), 0);
        feed(&mut logic, &mut t, &[(1.0, 0.9), (4.8, 0.2)]);
        let out = feed(&mut logic, &mut t, &[(0.4, 0.2), (1.0, 0.9)]);
        let [Transition::Ended { offset_us, .. }, Transition::Started { onset_us, .. }] = out[..] else {
            panic!("{out:?}")
        };
        assert_eq!((offset_us, onset_us), (1_000_000, 6_000_000));
    }

    #[test]
    fn a_short_run_is_not_joined_to_what_comes_after_lost_frames() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(0.4, 0.9)]);
        t += 20_000_000;
        let onset = t;
        let out = feed(&mut logic, &mut t, &[(0.8, 0.9)]);
        assert!(matches!(out[..], [Transition::Started { onset_us, .. }] if onset_us == onset), "{out:?}");
    }

    #[test]
    fn hysteresis_is_the_same_distance_in_log_odds_at_every_threshold() {
        let log_odds = |p: f32| (p / (1.0 - p)).ln();
        for threshold in [1e-6, 0.1, 0.25, 0.5, 0.8, 0.99] {
            let release = EventParams { threshold, ..params() }.release();
            assert!((log_odds(threshold) - log_odds(release) - (1.0f32 / 0.6).ln()).abs() < 1e-3);
        }
        assert!((params().release() - 0.375).abs() < 1e-6);
    }

    #[test]
    fn the_last_minutes_crying_is_told_with_start_and_end() {
        let (mut logic, mut t) = (EventLogic::new(EventParams { cooldown_s: 0.0, ..params() }), 0);
        let sustained = |out: Vec<Transition>| -> Vec<i64> {
            let us = out.iter().map(|transition| match transition {
                Transition::Started { sustained_us, .. } | Transition::Ended { sustained_us, .. } => {
                    *sustained_us
                }
            });
            us.collect()
        };
        assert_eq!(sustained(feed(&mut logic, &mut t, &[(4.0, 0.9), (6.0, 0.0)])), [600_000, 4_000_000]);
        assert_eq!(sustained(feed(&mut logic, &mut t, &[(2.0, 0.9), (8.0, 0.0)])), [4_600_000, 6_000_000]);
        // Not at the end's announcement, half an hour of patience later, but at the end.
        logic.set_params(EventParams { end_after_s: 1800.0, ..*logic.params() });
        assert_eq!(
            sustained(feed(&mut logic, &mut t, &[(1.0, 0.9), (1801.0, 0.0), (1.0, 0.9)])),
            [6_600_000, 7_000_000, 600_000]
        );
    }

    #[test]
    fn what_was_not_heard_or_is_told_again_is_not_counted_as_crying() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(2.0, 0.9)]);
        feed(&mut logic, &mut 0, &[(2.0, 0.9)]);
        t += 20_000_000;
        feed(&mut logic, &mut t, &[(1.0, 0.9)]);
        // Neighbours that overlap by less than half a frame are counted once.
        for start in [t - 10_000, t + 25_000] {
            logic.push(start, STEP, 0.9, &mut Vec::new());
        }
        assert_eq!(logic.last_minute.heard_us(t + 65_000), 3_065_000);
    }

    #[test]
    fn lasting_crying_alone_is_announced_where_that_is_wanted() {
        let wanted = EventParams { sustained_s: 10.0, cooldown_s: 0.0, ..params() };
        let breath = [(0.8, 0.9), (0.4, 0.01)];
        let (mut logic, mut t) = (EventLogic::new(wanted), 0);
        assert_eq!(feed(&mut logic, &mut t, &[&breath.repeat(12)[..], &[(8.0, 0.0)]].concat()), [], "9.6 s");
        assert!(!logic.is_idle(t));
        feed(&mut logic, &mut t, &[(60.0, 0.0)]);
        assert!(logic.is_idle(t), "it is forgotten after a minute");
        let onset = t;
        let out = feed(&mut logic, &mut t, &breath.repeat(14));
        let Some(Transition::Started { onset_us, decided_us, sustained_us, .. }) = out.first() else {
            panic!()
        };
        assert_eq!((*onset_us, *sustained_us), (onset, 10_000_000));
        assert_eq!(
            *decided_us,
            onset + 12 * 1_200_000 + 400_000,
            "with the last crying frame that was missing"
        );
        // Bouts apart add up within the minute; each must be long enough to be an event.
        let (mut logic, mut t) = (EventLogic::new(wanted), 0);
        assert_eq!(feed(&mut logic, &mut t, &[(6.0, 0.9), (20.0, 0.0)]), []);
        let onset = t;
        let out = feed(&mut logic, &mut t, &[(6.0, 0.9)]);
        assert!(
            matches!(out[..], [Transition::Started { onset_us, decided_us, .. }]
                if onset_us == onset && decided_us == onset + 4_000_000),
            "{out:?}"
        );
        let (mut logic, mut t) = (EventLogic::new(wanted), 0);
        assert_eq!(feed(&mut logic, &mut t, &[(0.4, 0.9), (1.2, 0.0)].repeat(50)), [], "clicks");
    }

    #[test]
    fn while_crying_goes_on_weaker_frames_count_and_weak_ones_alone_do_not() {
        assert_eq!(run(&[(5.0, 0.4)]), []);
        let out = run(&[(0.4, 0.9), (1.6, 0.4), (0.2, 0.9)]);
        assert!(matches!(out[..], [Transition::Started { onset_us: 0, .. }]), "{out:?}");
        assert_eq!(run(&[(0.4, 0.9), (1.6, 0.3), (0.2, 0.9)]), [], "not of that run");
    }

    #[test]
    fn what_is_clear_is_announced_sooner_than_what_is_not() {
        let decided = |p: f32| match run(&[(8.0, p)])[..] {
            [Transition::Started { onset_us: 0, decided_us, .. }] => decided_us,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(decided(0.99), 600_000);
        assert_eq!(decided(0.74), 600_000);
        // Log-odds of 0.405: a second and a half.
        assert_eq!(decided(0.6), 1_480_000);
        assert_eq!(run(&[(600.0, 0.5)]), []);
    }

    fn adaptive() -> EventLogic {
        EventLogic::new(EventParams { adaptive: true, ..params() })
    }

    #[test]
    fn crying_that_goes_on_is_announced_although_its_first_bouts_raised_the_bar() {
        let (mut logic, mut t) = (adaptive(), 0);
        feed(&mut logic, &mut t, &[(4.0, 0.3)]);
        // Clear by itself for a quarter of a second at a time: never enough in one run, and all between raises the bar.
        let bout = [(0.24, 0.85), (0.4, 0.4), (0.24, 0.7), (0.6, 0.3)];
        let told = feed(&mut logic, &mut t, &bout.repeat(12));
        assert!(told.iter().any(|t| matches!(t, Transition::Started { .. })), "{told:?}");
    }

    #[test]
    fn after_long_quiet_a_fainter_cry_is_announced_and_among_cry_like_sounds_only_a_clear_one() {
        let starts = |before: &[(f64, f32)], p: f32| {
            let (mut logic, mut t) = (adaptive(), 0);
            assert_eq!(feed(&mut logic, &mut t, before), []);
            feed(&mut logic, &mut t, &[(1.0, p)]).len()
        };
        assert_eq!(starts(&[], 0.5), 0);
        assert_eq!(starts(&[(300.0, 0.0002)], 0.5), 1, "a noise machine");
        assert_eq!(starts(&[(300.0, 0.0002)], 0.1), 0, "there are bounds");
        let squeaks = [(0.2, 0.55), (1.5, 0.1)].repeat(10);
        assert_eq!(starts(&[], 0.8), 1);
        assert_eq!(starts(&squeaks, 0.8), 0);
        assert_eq!(starts(&squeaks, 0.97), 1, "there are bounds");
        let fixed = &mut EventLogic::new(params());
        feed(fixed, &mut 0, &squeaks);
        assert_eq!(feed(fixed, &mut 60_000_000, &[(3.0, 0.8)]).len(), 1);
    }

    #[test]
    fn crying_is_not_its_own_background() {
        let (mut logic, mut t) = (adaptive(), 0);
        feed(&mut logic, &mut t, &[(30.0, 0.001)]);
        let bursts = [(1.0, 0.7), (0.8, 0.02)].repeat(300);
        let out = feed(&mut logic, &mut t, &bursts);
        assert!(matches!(out[..], [Transition::Started { .. }]), "{out:?}");
        assert!(logic.is_open());
        // After it more is asked, for a while.
        assert!(matches!(feed(&mut logic, &mut t, &[(70.0, 0.001)])[..], [Transition::Ended { .. }]));
        assert_eq!(feed(&mut logic, &mut t, &[(3.0, 0.7)]).len(), 1);
    }

    #[test]
    fn a_cooldown_keeps_quiet_and_hides_nothing_that_lasts() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        assert_eq!(feed(&mut logic, &mut t, &[(1.0, 0.9), (6.0, 0.0)]).len(), 2);
        assert_eq!(feed(&mut logic, &mut t, &[(2.0, 0.9), (6.0, 0.0)]), [], "in the cooldown");
        let onset = t;
        let out = feed(&mut logic, &mut t, &[(0.8, 0.9), (0.8, 0.0)].repeat(60));
        let Transition::Started { onset_us, decided_us, .. } = out[0] else { panic!("{out:?}") };
        assert_eq!(onset_us, onset, "the event begins where the crying began");
        assert!(decided_us >= 61_000_000, "announced when the cooldown was over");
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn replayed_frames_change_nothing() {
        let mut logic = EventLogic::new(params());
        feed(&mut logic, &mut 0, &[(1.0, 0.9)]);
        let before = logic.clone();
        assert_eq!(feed(&mut logic, &mut 0, &[(1.0, 0.9)]), []);
        assert_eq!(logic, before);
    }

    #[test]
    fn missing_frames_are_no_silence_but_a_long_gap_ends_an_event() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(1.0, 0.9)]);
        t += 20_000_000;
        assert_eq!(feed(&mut logic, &mut t, &[(0.48, 0.9)]), [], "it goes on");
        t += 31_000_000;
        let out = feed(&mut logic, &mut t, &[(0.5, 0.0)]);
        assert!(matches!(out[..], [Transition::Ended { offset_us: 21_480_000, .. }]), "{out:?}");
    }

    #[test]
    fn the_state_survives_storage() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(1.0, 0.9)]);
        let mut restored: EventLogic = serde_json::from_str(&serde_json::to_string(&logic).unwrap()).unwrap();
        assert!(restored.is_same_but_for_time(&logic));
        assert_eq!(restored.last_minute.heard_us(t), 1_000_000);
        let out = feed(&mut restored, &mut t, &[(6.0, 0.0)]);
        assert!(matches!(out[..], [Transition::Ended { onset_us: 0, .. }]), "not announced twice: {out:?}");
    }

    #[test]
    fn a_state_that_was_stored_before_there_was_a_last_minute_is_understood() {
        let stored = r#"{"params": {"threshold": 0.5, "min_duration_s": 0.6, "end_after_s": 5.0, "cooldown_s": 60.0},
            "seen_us": 1000000, "quiet_until_us": null, "run": {"onset_us": 0, "last_us": 1000000,
            "crying_us": 1000000, "peak": 0.9, "announced": true}}"#;
        let mut logic: EventLogic = serde_json::from_str(stored).unwrap();
        assert_eq!(logic.params(), &EventParams { adaptive: true, ..params() });
        let out = feed(&mut logic, &mut 1_000_000, &[(1.0, 0.9), (6.0, 0.0)]);
        assert!(
            matches!(out[..], [Transition::Ended { onset_us: 0, sustained_us: 1_000_000, .. }]),
            "{out:?}"
        );
    }

    #[test]
    fn whatever_comes_events_alternate_and_have_sane_times() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut logic = EventLogic::new(EventParams {
                threshold: rng.random_range(0.1..0.9),
                min_duration_s: rng.random_range(0.0..2.0),
                end_after_s: rng.random_range(0.1..6.0),
                cooldown_s: rng.random_range(0.0..20.0),
                sustained_s: if rng.random_bool(0.3) { rng.random_range(0.0..30.0) } else { 0.0 },
                adaptive: rng.random_bool(0.5),
            });
            let (mut t, mut out) = (rng.random_range(-10..10_000_000), Vec::new());
            for _ in 0..2000 {
                let p = match rng.random_range(0..20) {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2..8 => 0.95,
                    _ => rng.random_range(0.0..0.5),
                };
                logic.push(t, STEP, p, &mut out);
                t += match rng.random_range(0..100) {
                    0 => rng.random_range(-5_000_000..50_000_000),
                    1 => 0,
                    _ => i64::from(STEP),
                };
            }
            logic.finish(i64::MAX, &mut out);
            let mut open = None;
            for transition in out {
                match transition {
                    Transition::Started { onset_us, decided_us, score, sustained_us } => {
                        assert!(open.is_none(), "seed {seed}");
                        let wanted = us(logic.params().sustained_s).max(1);
                        assert!((wanted..=60_000_000).contains(&sustained_us), "seed {seed}");
                        assert!(decided_us > onset_us && (0.0..=1.0).contains(&score), "seed {seed}");
                        open = Some(onset_us);
                    }
                    Transition::Ended { onset_us, offset_us, peak_score, sustained_us, .. } => {
                        assert!((1..=60_000_000).contains(&sustained_us), "seed {seed}");
                        assert_eq!(open.take(), Some(onset_us), "seed {seed}");
                        assert!(offset_us > onset_us && (0.0..=1.0).contains(&peak_score), "seed {seed}");
                    }
                }
            }
            assert!(open.is_none() && !logic.is_open(), "seed {seed}");
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut logic = EventLogic::new(params());
        let mut out = Vec::new();
        for t in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
            logic.push(t, u32::MAX, 0.9, &mut out);
        }
        logic.finish(i64::MAX, &mut out);
    }
}
