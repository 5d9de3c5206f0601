//! Finds isolated cry events in recordings that hold more than that, by their energy and their pitch.

use super::percentile;
use realfft::RealFftPlanner;
use std::ops::Range;

/// Samples of an energy frame, 20 ms.
const FRAME: usize = 320;
/// Frames of the shortest and the longest event, 1 s and 5 s.
const LENGTHS: (usize, usize) = (50, 250);
/// Frames by which loud stretches must be apart to be two events, 0.4 s.
const GAP: usize = 20;
/// dB by which an event's ends may be softer than the threshold that found it.
const ENDS: f64 = 4.0;
/// Samples of a pitch frame, 60 ms.
const PITCH_FRAME: usize = 960;
/// Periods of 1100 to 250 Hz, in samples.
const PERIODS: Range<usize> = 14..65;
/// Long enough for the autocorrelation at all of [`PERIODS`] not to wrap.
const PITCH_FFT: usize = 1_024;
/// Share of an event's frames that must have a clear pitch.
const PITCHED: f64 = 0.2;

/// Isolated cries of 1 to 5 s in a clip (16 kHz), as ranges of samples. The threshold lies half-way in dB between
/// the noise floor (10th percentile of the frames) and the loud level (95th), but at most 18 dB below the latter;
/// gaps below 0.4 s are bridged; the ends reach out to where the level falls 4 dB below the threshold. Longer
/// stretches are cut at their softest frame between 2 and 5 s. What has a pitch of 250 to 1100 Hz in less than a
/// fifth of its frames is somebody else and left out.
pub fn cries(x: &[f32], planner: &mut RealFftPlanner<f64>) -> Vec<Range<usize>> {
    let mut found = loud_stretches(x);
    found.retain(|range| pitched_share(&x[range.clone()], planner) >= PITCHED);
    found
}

fn loud_stretches(x: &[f32]) -> Vec<Range<usize>> {
    let levels = levels(x);
    let n = levels.len();
    if n < 25 {
        return Vec::new();
    }
    let (low, high) = (percentile(&levels, 10.0), percentile(&levels, 95.0));
    if high < -45.0 {
        return Vec::new();
    }
    let threshold = if high - low >= 9.0 { (high - 18.0).max((low + high) / 2.0) } else { low - 3.0 };
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for run in levels
        .iter()
        .enumerate()
        .collect::<Vec<_>>()
        .chunk_by(|a, b| (*a.1 > threshold) == (*b.1 > threshold))
    {
        let (start, end) = (run[0].0, run[0].0 + run.len());
        if *run[0].1 <= threshold || run.len() < 5 {
            continue;
        }
        match stretches.last_mut() {
            Some(last) if start - last.1 < GAP => last.1 = end,
            _ => stretches.push((start, end)),
        }
    }
    let mut events = Vec::new();
    for (mut a, mut b) in stretches.into_iter().filter(|(a, b)| b - a >= 12) {
        while a > 0 && levels[a - 1] > threshold - ENDS && levels[a - 1] < levels[a] + 1.0 {
            a -= 1;
        }
        while b < n && levels[b] > threshold - ENDS && levels[b] < levels[b - 1] + 1.0 {
            b += 1;
        }
        while b - a > LENGTHS.1 {
            let places = a + 100..a + LENGTHS.1;
            let cut = places.min_by(|&i, &j| levels[i].total_cmp(&levels[j])).unwrap_or(a + 100);
            events.push((a, cut));
            a = cut;
            while a < b && levels[a] < threshold {
                a += 1;
            }
        }
        events.push((a, b));
    }
    let fits = |(a, b): &(usize, usize)| (LENGTHS.0..=LENGTHS.1).contains(&(b - a));
    events.into_iter().filter(fits).map(|(a, b)| a * FRAME..b * FRAME).collect()
}

/// Levels of the frames in dB, averaged over five.
fn levels(x: &[f32]) -> Vec<f64> {
    let db = |frame: &[f32]| 20.0 * (mean_square(frame.iter().map(|&x| f64::from(x))).sqrt() + 1e-7).log10();
    let raw: Vec<f64> = x.chunks_exact(FRAME).map(db).collect();
    let last = raw.len().saturating_sub(1);
    let around = |i: usize| (0..5).map(|k| raw[(i + k).saturating_sub(2).min(last)]).sum::<f64>() / 5.0;
    (0..raw.len()).map(around).collect()
}

fn mean_square(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = x.len().max(1);
    x.map(|x| x * x).sum::<f64>() / n as f64
}

/// Share of the frames of 60 ms, every 20 ms, that have a clear pitch of 250 to 1100 Hz and are within 20 dB of the
/// loud level.
fn pitched_share(x: &[f32], planner: &mut RealFftPlanner<f64>) -> f64 {
    if x.len() < PITCH_FRAME {
        return 0.0;
    }
    let hann = |i: usize| {
        let turn = std::f64::consts::TAU * i as f64 / (PITCH_FRAME - 1) as f64;
        0.5 - 0.5 * turn.cos()
    };
    let window: Vec<f64> = (0..PITCH_FRAME).map(hann).collect();
    let own = autocorrelation(&window, planner);
    let mut frames = Vec::new();
    for start in (0..=x.len() - PITCH_FRAME).step_by(FRAME) {
        let mut frame: Vec<f64> = x[start..start + PITCH_FRAME].iter().map(|&x| f64::from(x)).collect();
        let mean = frame.iter().sum::<f64>() / PITCH_FRAME as f64;
        frame.iter_mut().for_each(|x| *x -= mean);
        let level = 20.0 * (mean_square(frame.iter().copied()).sqrt() + 1e-9).log10();
        frame.iter_mut().zip(&window).for_each(|(x, w)| *x *= w);
        let correlation = autocorrelation(&frame, planner);
        // Divided by the window's own, so that long periods are not at a disadvantage.
        let clarity = PERIODS
            .map(|lag| correlation[lag] / correlation[0].max(1e-12) / (own[lag] / own[0]).max(1e-3))
            .fold(0.0, f64::max);
        frames.push((level, clarity));
    }
    let levels: Vec<f64> = frames.iter().map(|f| f.0).collect();
    let bar = percentile(&levels, 95.0) - 20.0;
    frames.iter().filter(|(level, clarity)| *level > bar && *clarity > 0.5).count() as f64
        / frames.len() as f64
}

/// Autocorrelation of a frame of [`PITCH_FRAME`] samples at lags up to the longest of [`PERIODS`]; others wrap.
fn autocorrelation(frame: &[f64], planner: &mut RealFftPlanner<f64>) -> Vec<f64> {
    let mut padded = frame.to_vec();
    padded.resize(PITCH_FFT, 0.0);
    let forward = planner.plan_fft_forward(PITCH_FFT);
    let mut spectrum = forward.make_output_vec();
    // The buffers have the plans' lengths and real ends, so neither transform can fail.
    let _ = forward.process(&mut padded, &mut spectrum);
    spectrum.iter_mut().for_each(|s| *s = s.norm_sqr().into());
    let _ = planner.plan_fft_inverse(PITCH_FFT).process(&mut spectrum, &mut padded);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of silence with hiss, then a tone of `hz` for `seconds`, then a second of hiss.
    fn clip(hz: f32, seconds: f32) -> Vec<f32> {
        let n = (seconds * 16_000.0) as usize;
        let mut hiss = 1u32;
        (0..8_000 + n + 16_000)
            .map(|i| {
                hiss = hiss.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = ((hiss >> 9) as f32 / (1u32 << 22) as f32 - 1.0) * 1e-3;
                let tone = (i as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * 0.3;
                noise + if (8_000..8_000 + n).contains(&i) { tone } else { 0.0 }
            })
            .collect()
    }

    #[test]
    fn a_tone_between_silences_is_cut_where_it_begins_and_ends() {
        let found = cries(&clip(450.0, 2.0), &mut RealFftPlanner::new());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].start.abs_diff(8_000) <= 3 * FRAME, "{found:?}");
        assert!(found[0].end.abs_diff(40_000) <= 3 * FRAME, "{found:?}");
    }

    #[test]
    fn what_has_no_pitch_is_left_out() {
        let mut rustling = clip(450.0, 0.0);
        let loud: Vec<f32> = rustling[..16_000].iter().map(|x| x * 300.0).collect();
        rustling.splice(8_000..8_000, loud);
        assert_eq!(loud_stretches(&rustling).len(), 1);
        assert!(cries(&rustling, &mut RealFftPlanner::new()).is_empty());
    }

    #[test]
    fn short_and_silent_clips_hold_no_event() {
        let mut planner = RealFftPlanner::new();
        assert!(cries(&clip(450.0, 0.6), &mut planner).is_empty());
        assert!(cries(&[], &mut planner).is_empty());
        assert!(cries(&vec![0.0; 80_000], &mut planner).is_empty());
    }

    #[test]
    fn long_crying_is_cut_into_events_of_at_most_five_seconds() {
        let found = cries(&clip(450.0, 13.0), &mut RealFftPlanner::new());
        assert!(found.len() >= 3, "{found:?}");
        assert!(found.iter().all(|r| (16_000..=80_000).contains(&r.len())), "{found:?}");
        assert!(found.windows(2).all(|w| w[0].end <= w[1].start));
    }
}
