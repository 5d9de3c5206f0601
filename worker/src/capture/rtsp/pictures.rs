//! Whether a session asks for pictures: when somebody wants them, and never where they have cost hearing before.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nursery_shared::config::VideoUse;
use tokio::time::Instant;

use crate::capture::source::Wishes;

/// How long pictures are not asked for after that failed, at first and at the most.
const PENALTY: Duration = Duration::from_secs(30);
const WORST_PENALTY: Duration = Duration::from_secs(600);
/// A session with pictures that lives so long is a good one.
const GOOD: Duration = Duration::from_secs(60);
/// How long pictures go on that nobody wants any more: who looks away often looks again.
const LINGER: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    /// Since when a session with pictures has been tried or played.
    trying: Option<Instant>,
    banned_until: Option<Instant>,
    penalty: Option<Duration>,
    why: Option<String>,
    unwanted_since: Option<Instant>,
}

/// What is known of a camera's pictures across sessions.
pub struct Pictures {
    use_: VideoUse,
    state: Mutex<State>,
}

impl Pictures {
    pub fn new(use_: VideoUse) -> Self {
        Self { use_, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They shall be there.
    pub fn wanted(&self, wishes: Wishes) -> bool {
        match self.use_ {
            VideoUse::Always => true,
            VideoUse::OnDemand => wishes.video,
            VideoUse::Never => false,
        }
    }

    /// They shall be there, and nothing speaks against asking for them.
    pub fn due(&self, wishes: Wishes, now: Instant) -> bool {
        self.wanted(wishes) && self.lock().banned_until.is_none_or(|t| t <= now)
    }

    /// Those that play are of no use any more. To be asked regularly.
    pub fn superfluous(&self, wishes: Wishes, now: Instant) -> bool {
        let mut state = self.lock();
        if self.wanted(wishes) {
            state.unwanted_since = None;
            return false;
        }
        now.duration_since(*state.unwanted_since.get_or_insert(now)) >= LINGER
    }

    /// Why there are none although somebody wants them; `None` where they are still to come.
    pub fn why_not(&self, wishes: Wishes, now: Instant) -> Option<String> {
        if wishes.video && self.use_ == VideoUse::Never {
            return Some("this camera's \"video\" is \"never\"".into());
        }
        let state = self.lock();
        state.banned_until.is_some_and(|t| t > now).then(|| state.why.clone()).flatten()
    }

    /// A session with pictures begins.
    pub fn begin(&self, now: Instant) {
        self.lock().trying = Some(now);
    }

    /// It ended because it was to end.
    pub fn ended_well(&self) {
        self.lock().trying = None;
    }

    /// A session ended, or did not come about, or something in it panicked: where it had pictures they were the reason,
    /// for all that is known, unless it had been good for long.
    pub fn failed(&self, why: &str, now: Instant) {
        let mut state = self.lock();
        let Some(began) = state.trying.take() else { return };
        if now.duration_since(began) >= GOOD {
            state.penalty = None;
            return;
        }
        let penalty = state.penalty.map_or(PENALTY, |p| (p * 2).min(WORST_PENALTY));
        state.penalty = Some(penalty);
        state.banned_until = Some(now + penalty);
        state.why = Some(format!("{why}; pictures are asked for again in {} s", penalty.as_secs()));
    }
}

/// When a session without pictures is asked for in the place of one whose pictures nobody wants any more. That costs the
/// camera some bytes, and hearing nothing: there is no hurry.
#[derive(Default)]
pub struct Without {
    next: Option<Instant>,
    wait: Option<Duration>,
}

impl Without {
    /// It may be asked for.
    pub fn due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// It did not come about.
    pub fn failed(&mut self, now: Instant) {
        let wait = self.wait.map_or(PENALTY, |wait| (wait * 2).min(WORST_PENALTY));
        self.wait = Some(wait);
        self.next = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOOKED_AT: Wishes = Wishes { media: true, video: true, live: true };

    #[test]
    fn pictures_that_cost_hearing_are_asked_for_less_and_less_often() {
        let pictures = Pictures::new(VideoUse::OnDemand);
        let mut now = Instant::now();
        assert!(!pictures.due(Wishes::default(), now));
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(pictures.due(LOOKED_AT, now));
            pictures.begin(now);
            pictures.failed("the camera refused", now);
            assert!(pictures.why_not(LOOKED_AT, now).unwrap().starts_with("the camera refused; "));
            let began = now;
            while !pictures.due(LOOKED_AT, now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - began).as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(pictures.why_not(LOOKED_AT, now), None);
        // One that was good for long is held against nobody.
        pictures.begin(now);
        pictures.failed("the camera went away", now + GOOD);
        assert!(pictures.due(LOOKED_AT, now + GOOD));
    }

    #[test]
    fn pictures_go_on_for_a_while_when_nobody_looks() {
        let pictures = Pictures::new(VideoUse::OnDemand);
        let start = Instant::now();
        let unwanted = |wishes, after| pictures.superfluous(wishes, start + after);
        assert!(!unwanted(LOOKED_AT, Duration::ZERO));
        assert!(!unwanted(Wishes::default(), Duration::ZERO));
        assert!(!unwanted(LOOKED_AT, LINGER / 2));
        assert!(!unwanted(Wishes::default(), LINGER));
        assert!(unwanted(Wishes::default(), LINGER * 2));
    }

    #[test]
    fn a_session_without_pictures_that_is_refused_is_asked_for_less_and_less_often() {
        let (mut without, mut now) = (Without::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(without.due(now));
            without.failed(now);
            let began = now;
            while !without.due(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - began).as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600]);
    }

    #[test]
    fn some_cameras_pictures_are_never_or_always_wanted() {
        let now = Instant::now();
        assert!(Pictures::new(VideoUse::Always).wanted(Wishes::default()));
        let never = Pictures::new(VideoUse::Never);
        assert!(!never.wanted(LOOKED_AT));
        assert!(never.why_not(LOOKED_AT, now).unwrap().contains("never"));
        assert_eq!(never.why_not(Wishes::default(), now), None);
    }
}
