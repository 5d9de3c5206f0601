//! Files of clips on their way from the sink to `web`: one question at a time, which costs the sink a look at its store and
//! the opening of a file.

use nursery_shared::{
    clip::{Found, is_event_id},
    config::CameraConfig,
    message::ToWorker,
};

use super::Policy;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Clips {
    /// What waits for its turn, with the number that `web` gave it.
    waiting: Option<(u64, String)>,
    /// What the sink was asked: our number, and that of `web`.
    asked: Option<(u64, u64)>,
    next_number: u64,
}

/// How long after its onset an event may be announced, and how long before it the last key frame may have been.
const ANNOUNCED_S: f64 = 12.0;
const KEY_FRAME_S: f64 = 10.0;
/// Of motion that is announced later still, clips begin later: what is remembered has its bounds.
const MOTION_S: f64 = 60.0;

impl Policy {
    /// How much of the media capture processes remember, seconds: enough for clips to begin before their events.
    pub(super) fn remember_s(&self) -> u32 {
        let clips = self.config.clips;
        if !clips.is_on(self.config.web.is_some()) {
            return 0;
        }
        let announced = |camera: &CameraConfig| {
            let detection = self.config.detection.for_camera(camera);
            // Motion is announced with the first picture after it has lasted for long enough.
            let motion = detection.motion.map_or(0.0, |rule| {
                rule.min_duration_s + camera.pictures.map_or(0.0, |pictures| pictures.every_s)
            });
            detection.sustained_s.max(motion.min(MOTION_S))
        };
        let announced = self.config.cameras.iter().map(announced).fold(0.0, f64::max);
        (clips.before_s + announced + ANNOUNCED_S + KEY_FRAME_S).ceil() as u32
    }

    /// Goes over to another configuration.
    pub(super) fn reload_clips(&mut self, before: u32) {
        let seconds = self.remember_s();
        if seconds == before {
            return;
        }
        let slots: Vec<u32> = self.cameras.values().map(|c| c.slot).collect();
        for slot in slots {
            if self.runs(slot) {
                self.send(slot, ToWorker::Remember { seconds });
            }
        }
    }

    pub(super) fn on_want_clip(&mut self, ticket: u64, event_id: String) -> Result<(), String> {
        if !is_event_id(&event_id) {
            return Err("asked for a clip of no event".into());
        }
        self.clips.waiting = Some((ticket, event_id));
        self.ask_for_clip();
        Ok(())
    }

    fn ask_for_clip(&mut self) {
        if self.clips.asked.is_some() {
            return;
        }
        let Some((ticket, event_id)) = self.clips.waiting.take() else { return };
        if !self.runs(self.sink) {
            let found = Found::Failed("the store is not within reach at the moment".into());
            return self.tell_web(ToWorker::ClipOf { ticket, found });
        }
        let number = self.clips.next_number;
        self.clips.next_number += 1;
        self.clips.asked = Some((number, ticket));
        self.send(self.sink, ToWorker::WantClip { number, event_id });
    }

    pub(super) fn on_clip_of(&mut self, number: u64, found: Found) -> Result<(), String> {
        match self.clips.asked.take_if(|(asked, _)| *asked == number) {
            Some((_, ticket)) => self.tell_web(ToWorker::ClipOf { ticket, found }),
            // Whoever asked is gone.
            None if number < self.clips.next_number => {}
            None => return Err(format!("answered for clip {number}, which it was never asked for")),
        }
        self.ask_for_clip();
        Ok(())
    }

    /// Nobody waits any more.
    pub(super) fn clip_seekers_lost(&mut self) {
        self.clips.waiting = None;
        self.clips.asked = None;
    }

    /// The sink is gone, with what it was asked.
    pub(super) fn clip_answers_lost(&mut self) {
        if let Some((_, ticket)) = self.clips.asked.take() {
            let found = Found::Failed("the store is not within reach at the moment".into());
            self.tell_web(ToWorker::ClipOf { ticket, found });
        }
        self.ask_for_clip();
    }
}
