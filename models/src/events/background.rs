//! What a camera's usual sounds do to the scores: where they keep looking a little like crying, more is asked of a
//! frame; where nothing does, as over a noise machine, less. One number per camera, in log-odds, within narrow bounds,
//! so that clear crying is announced whatever went before.

use std::collections::VecDeque;

/// Log-odds of usual sounds that ask neither for more nor for less.
const NEUTRAL: f32 = -4.0;
/// By how much less than usual may be asked of a frame, and by how much more.
const BOUNDS: (f32, f32) = (-1.5, 2.0);
/// Seconds in which more is asked, and less (time constants): a dog that barks is soon known, and for a minute.
const RISE_S: f32 = 2.5;
const FALL_S: f32 = 50.0;
/// Frames are judged by what was heard until this long before them, or a cry would stand in its own way.
const LAG_US: i64 = 500_000;
/// After an event, by how much more is asked: if it was none, its cause may still be there.
const AFTER_EVENT: f32 = 2.0;
/// What looks like crying by itself for so many seconds, fading with this time constant, is no usual sound: a baby whose
/// first bouts were not clear enough must not be what the bar is raised by.
const PERSISTENT_S: f32 = 1.5;
const FADE_S: f32 = 30.0;
/// Frames of [`LAG_US`] that are kept at most, however short they are.
const MAX_RECENT: usize = 100;

/// How much more than usual is asked of a camera's frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Background {
    /// In force, log-odds.
    asked: f32,
    /// What would be in force if no frame since then had been crying.
    otherwise: f32,
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
            let towards = z - NEUTRAL - self.otherwise;
            let constant_s = if towards > 0.0 { RISE_S } else { FALL_S };
            let share = 1.0 - (-(us as f32 / 1e6) / constant_s).exp();
            self.otherwise = (self.otherwise + share * towards).clamp(BOUNDS.0, BOUNDS.1);
        }
        if !held {
            self.asked = self.otherwise;
        }
    }

    /// What looked like crying was none.
    pub(super) fn release(&mut self) {
        self.asked = self.otherwise;
    }

    /// An event that was announced is over: its frames are no background.
    pub(super) fn after_event(&mut self) {
        self.asked = (self.asked + AFTER_EVENT).min(BOUNDS.1);
        self.otherwise = self.asked;
        self.recent.clear();
        self.recent_us = 0;
        self.persistent_s = 0.0;
    }

    /// Log-odds of a frame, judged before this background.
    pub(super) fn judge(&self, log_odds: f32) -> f32 {
        let persists = self.persistent_s >= PERSISTENT_S;
        log_odds - if persists { self.asked.min(0.0) } else { self.asked }
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
        // Five seconds of it are known: 3 (1 - e^-2), and no more than 2.
        assert!((b.judge(0.0) + 2.0).abs() < 1e-6, "{b:?}");
        hear(&mut b, -9.0, 20.0);
        assert!((-1.0..0.5).contains(&b.judge(0.0)), "not forgotten at once: {b:?}");
        hear(&mut b, -9.0, 120.0);
        assert!((b.judge(0.0) - 1.5).abs() < 1e-6, "{b:?}");
    }

    #[test]
    fn what_is_in_force_is_held_and_comes_from_before_the_lag() {
        let mut b = Background::default();
        for _ in 0..10 {
            b.hear(3.0, FRAME_US, 0.0, false);
        }
        assert_eq!(b.judge(3.0), 3.0, "half a second");
        for _ in 0..100 {
            b.hear(3.0, FRAME_US, 0.0, true);
        }
        assert_eq!(b.judge(3.0), 3.0, "held");
        let mut event = b.clone();
        b.release();
        assert_eq!(b.judge(3.0), 1.0);
        event.after_event();
        assert_eq!(event.judge(3.0), 1.0);
        event.after_event();
        assert_eq!(event.judge(3.0), 1.0, "bounded");
    }

    #[test]
    fn what_looks_like_crying_for_long_is_no_usual_sound() {
        let mut b = Background::default();
        let mut asked = Vec::new();
        for _ in 0..40 {
            b.hear(0.8, FRAME_US, 0.8, false);
            asked.push(-b.judge(0.0));
        }
        assert!(asked[20] > 0.5 && asked[36] > 1.0, "{asked:?}");
        assert_eq!(asked[38], 0.0, "after 1.5 s of it: {asked:?}");
        b.after_event();
        assert_eq!(b.judge(0.0), -2.0, "and begins anew after an event");
    }

    #[test]
    fn frames_of_any_length_and_odds_leave_it_bounded() {
        let mut b = Background::default();
        for (z, us) in [(f32::MAX, 1), (f32::MIN, i64::MAX), (0.0, i64::MAX), (16.0, 0), (-16.0, 1)] {
            for _ in 0..300 {
                b.hear(z, us, 1.0, false);
            }
            assert!((-2.0..=1.5).contains(&b.judge(0.0)) && b.recent.len() <= MAX_RECENT, "{z} {us}");
        }
    }
}
