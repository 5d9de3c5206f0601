//! What a camera's usual sounds do to the scores: where something keeps looking a little like crying, more is asked of
//! a frame; where even the usual frame is far from it, as over a noise machine, less. Two numbers per camera, in
//! log-odds, within narrow bounds, so that clear crying is announced whatever went before. The constants are of the
//! scale of calibrated scores; how they were found is in the model card.

use std::collections::VecDeque;

/// What looks like crying now and then asks for more: this share of what its log-odds are over [`FROM`], up to
/// [`MOST`]. It is known within seconds (time constants) and forgotten slowly: a dog that barks will bark again.
const FROM: f32 = -5.4;
const SHARE: f32 = 0.4;
const MOST: f32 = 2.6;
const RISE_S: f32 = 3.5;
const FALL_S: f32 = 40.0;
/// Where even the usual frame is far from crying, less is asked: as much as the middle (median) of the log-odds is below
/// this, down to [`LEAST`].
const MIDDLE: f32 = -7.2;
const LEAST: f32 = -1.4;
/// How fast the estimate of the middle moves towards what is heard, log-odds per second: by the sign alone, so that it
/// stays where half of the frames lie above it.
const MIDDLE_PER_S: f32 = 0.75;
/// Frames are judged by what was heard until this long before them, or a cry would stand in its own way.
const LAG_US: i64 = 500_000;
/// After an event, by how much more is asked: if it was none, its cause may still be there.
const AFTER_EVENT: f32 = 2.5;
/// What looks like crying by itself for so many seconds, fading with this time constant, is no usual sound: a baby whose
/// first bouts were not clear enough must not be what the bar is raised by.
const PERSISTENT_S: f32 = 1.5;
const FADE_S: f32 = 30.0;
/// Frames of [`LAG_US`] that are kept at most, however short they are.
const MAX_RECENT: usize = 100;

/// How much more than usual is asked of a camera's frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Background {
    /// In force, log-odds: what is asked more, and (below 0) what is asked less.
    more: f32,
    less: f32,
    /// What would be asked more if no frame since then had been crying.
    peaks: f32,
    /// The middle of the log-odds, over [`MIDDLE`].
    middle: f32,
    /// Log-odds and length of the newest frames.
    recent: VecDeque<(f32, i64)>,
    recent_us: i64,
    /// Seconds of what looked like crying by itself.
    persistent_s: f32,
}

impl Background {
    /// Takes the log-odds of one more frame in; what is in force stays as it is while `held`. `clear`: how much the
    /// frame looks like crying by itself, 0 to 1.
    pub(super) fn hear(&mut self, log_odds: f32, us: i64, clear: f32, held: bool) {
        let seconds = us as f32 / 1e6;
        self.persistent_s = self.persistent_s * (-seconds / FADE_S).exp() + clear * seconds;
        self.recent.push_back((log_odds, us));
        self.recent_us = self.recent_us.saturating_add(us);
        while self.recent_us > LAG_US || self.recent.len() > MAX_RECENT {
            let Some((z, us)) = self.recent.pop_front() else { break };
            self.recent_us = self.recent_us.saturating_sub(us);
            let seconds = us as f32 / 1e6;
            let towards = SHARE * (z - FROM) - self.peaks;
            let constant_s = if towards > 0.0 { RISE_S } else { FALL_S };
            self.peaks = (self.peaks + (1.0 - (-seconds / constant_s).exp()) * towards).clamp(0.0, MOST);
            let step = MIDDLE_PER_S * seconds;
            self.middle += (z - MIDDLE - self.middle).clamp(-step, step);
        }
        if !held {
            self.release();
        }
    }

    /// What looked like crying was none.
    pub(super) fn release(&mut self) {
        self.more = self.peaks;
        self.less = self.middle.clamp(LEAST, 0.0);
    }

    /// An event that was announced is over: its frames are no background.
    pub(super) fn after_event(&mut self) {
        self.more = (self.more + AFTER_EVENT).min(MOST);
        self.peaks = self.more;
        self.recent.clear();
        self.recent_us = 0;
        self.persistent_s = 0.0;
    }

    /// Log-odds of a frame, judged before this background.
    pub(super) fn judge(&self, log_odds: f32) -> f32 {
        let asked = self.more + self.less;
        log_odds - if self.persistent_s >= PERSISTENT_S { asked.min(0.0) } else { asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_US: i64 = 50_000;

    fn hear(background: &mut Background, log_odds: f32, seconds: f64) {
        for _ in 0..(seconds * 20.0) as usize {
            background.hear(log_odds, FRAME_US, 0.0, false);
        }
    }

    #[test]
    fn more_is_asked_after_what_looks_like_crying_and_less_after_long_quiet() {
        let mut b = Background::default();
        assert_eq!(b.judge(0.5), 0.5);
        hear(&mut b, -1.0, 5.5);
        // Five seconds of it are known: 0.4 of 4.4, (1 - e^-1.4) of it.
        assert!((b.judge(0.0) + 1.34).abs() < 0.01, "{b:?}");
        hear(&mut b, 16.0, 5.5);
        assert!((b.judge(0.0) + MOST).abs() < 1e-6, "{b:?}");
        hear(&mut b, -9.0, 10.0);
        assert!((-2.0..-1.0).contains(&b.judge(0.0)), "not forgotten at once: {b:?}");
        hear(&mut b, -9.0, 120.0);
        assert!((b.judge(0.0) + LEAST).abs() < 1e-6, "{b:?}");
    }

    #[test]
    fn the_middle_is_where_half_of_the_frames_lie_above() {
        let mut b = Background::default();
        for i in 0..2_000 {
            // A third of the time something barks; the rest is quiet, but not the same.
            let z = if i % 60 < 20 { -1.0 } else { -8.0 - (i % 7) as f32 * 0.1 };
            b.hear(z, FRAME_US, 0.0, false);
        }
        assert!((-9.0..-7.6).contains(&(b.middle + MIDDLE)), "{b:?}");
        assert!(b.more > 0.9 && b.less < -0.4, "both are known: {b:?}");
    }

    #[test]
    fn what_is_in_force_is_held_and_comes_from_before_the_lag() {
        let mut b = Background::default();
        for _ in 0..10 {
            b.hear(3.0, FRAME_US, 0.0, false);
        }
        assert_eq!(b.judge(3.0), 3.0, "half a second");
        for _ in 0..300 {
            b.hear(5.0, FRAME_US, 0.0, true);
        }
        assert_eq!(b.judge(3.0), 3.0, "held");
        let mut event = b.clone();
        b.release();
        assert_eq!(b.judge(3.0), 3.0 - MOST);
        event.after_event();
        assert_eq!(event.judge(3.0), 3.0 - AFTER_EVENT);
        event.after_event();
        assert_eq!(event.judge(3.0), 3.0 - MOST, "bounded");
    }

    #[test]
    fn what_looks_like_crying_for_long_is_no_usual_sound() {
        let mut b = Background::default();
        let mut asked = Vec::new();
        for _ in 0..40 {
            b.hear(0.8, FRAME_US, 0.8, false);
            asked.push(-b.judge(0.0));
        }
        assert!(asked[20] > 0.3 && asked[36] > 0.7, "{asked:?}");
        assert_eq!(asked[38], 0.0, "after 1.5 s of it: {asked:?}");
        b.after_event();
        assert_eq!(b.judge(0.0), -MOST, "and begins anew after an event");
    }

    #[test]
    fn frames_of_any_length_and_odds_leave_it_bounded() {
        let mut b = Background::default();
        for (z, us) in [(f32::MAX, 1), (f32::MIN, i64::MAX), (0.0, i64::MAX), (16.0, 0), (-16.0, 1)] {
            for _ in 0..300 {
                b.hear(z, us, 1.0, false);
            }
            assert!((-MOST..=-LEAST).contains(&b.judge(0.0)) && b.recent.len() <= MAX_RECENT, "{z} {us}");
        }
    }
}
