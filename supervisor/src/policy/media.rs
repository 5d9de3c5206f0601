//! Who gets a camera's encoded media: viewers through `web`, files of clips that the sink made. The policy only brings
//! them together; the media itself never comes by.

use std::{collections::BTreeMap, time::Duration};

use nursery_shared::{media::ClipReport, message::ToWorker};

use super::{Action, Key, Policy, Time, worker::State};

/// Shortest time between two sockets to the same camera.
const CONNECTIONS: Duration = Duration::from_millis(200);
/// Most clips of one camera that may be open: one of a cry and one of motion, and those that are being ended.
const MOST_CLIPS: usize = 8;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Media {
    /// When each camera was given a socket last, by slot.
    connected_at: BTreeMap<u32, Time>,
    /// The slot of the capture process that writes a clip.
    clips: BTreeMap<i64, u32>,
}

impl Policy {
    /// There is a camera of this name.
    pub fn has_camera(&self, name: &str) -> bool {
        self.cameras.values().any(|c| c.config.name == name && !c.removed)
    }

    /// The capture process of a camera, once it works.
    ///
    /// # Errors
    /// One line that tells why there is none.
    pub fn capturing(&self, camera: &str) -> Result<Key, String> {
        let found = self.cameras.values().find(|c| c.config.name == camera && !c.removed);
        let Some(camera) = found else { return Err("there is no camera of this name".into()) };
        match self.workers.get(&camera.slot) {
            Some(worker) if worker.state == State::Running && !worker.ended => {
                Ok(Key { slot: camera.slot, generation: worker.generation })
            }
            Some(worker) if worker.ended => Err("its recording has come to its end".into()),
            _ => Err("its capture process does not run at the moment".into()),
        }
    }

    pub(super) fn on_want_media(&mut self, viewer: Key, ticket: u64, camera: &str) {
        let now = self.now;
        let soon = |at: &Time| now.since(*at) < CONNECTIONS;
        let found = match self.capturing(camera) {
            Ok(key) if self.media.connected_at.get(&key.slot).is_some_and(soon) => {
                Err("its media was asked for a moment ago".into())
            }
            found => found,
        };
        match found {
            Ok(camera) => {
                self.media.connected_at.retain(|_, at| soon(at));
                self.media.connected_at.insert(camera.slot, now);
                self.actions.push(Action::Connect { camera, viewer, ticket });
            }
            Err(why) => self.send(viewer.slot, ToWorker::MediaOf { ticket, why_not: Some(why) }),
        }
    }

    pub(super) fn on_open_clip(
        &mut self,
        clip: i64,
        camera: &str,
        from_us: i64,
        max_bytes: u64,
    ) -> Result<(), String> {
        if self.media.clips.contains_key(&clip) {
            return Err(format!("opened clip {clip} twice"));
        }
        let found = match self.capturing(camera) {
            Ok(key) if self.media.clips.values().filter(|slot| **slot == key.slot).count() >= MOST_CLIPS => {
                Err(format!("{MOST_CLIPS} clips of this camera are open"))
            }
            found => found,
        };
        match found {
            Ok(key) => {
                self.media.clips.insert(clip, key.slot);
                self.send(key.slot, ToWorker::OpenClip { clip, from_us, max_bytes });
            }
            Err(why) => self.tell_of_lost_clip(clip, why),
        }
        Ok(())
    }

    pub(super) fn on_close_clip(&mut self, clip: i64, camera: &str, until_us: i64) {
        // Where it is not open any more the sink was told so.
        let writer = self.media.clips.get(&clip).copied();
        if let (Some(slot), Ok(key)) = (writer, self.capturing(camera))
            && slot == key.slot
        {
            self.send(slot, ToWorker::CloseClip { clip, until_us });
        }
    }

    pub(super) fn on_clip_closed(&mut self, slot: u32, clip: i64, report: ClipReport) {
        // Another may have been opened for a sink that is gone: nobody waits for it.
        if self.media.clips.get(&clip) == Some(&slot) {
            self.media.clips.remove(&clip);
            let error = report.error.map(|e| super::presentable(&e));
            self.tell_sink_of_clip(clip, ClipReport { error, ..report });
        }
    }

    /// A capture process is gone: what it wrote ends there.
    pub(super) fn clips_lost(&mut self, slot: u32) {
        let lost: Vec<i64> = self.media.clips.iter().filter(|(_, s)| **s == slot).map(|(c, _)| *c).collect();
        for clip in lost {
            self.media.clips.remove(&clip);
            self.tell_of_lost_clip(clip, "its capture process ended".into());
        }
    }

    /// The sink is gone: the next one takes the files as it finds them, so they end now.
    pub(super) fn clips_orphaned(&mut self) {
        for (clip, slot) in std::mem::take(&mut self.media.clips) {
            if self.workers.get(&slot).is_some_and(|w| w.state == State::Running) {
                self.send(slot, ToWorker::CloseClip { clip, until_us: 0 });
            }
        }
    }

    fn tell_of_lost_clip(&mut self, clip: i64, why: String) {
        let report = ClipReport { from_us: 0, until_us: 0, bytes: 0, video: false, error: Some(why) };
        self.tell_sink_of_clip(clip, report);
    }

    fn tell_sink_of_clip(&mut self, clip: i64, report: ClipReport) {
        let running = self.workers.get(&self.sink).is_some_and(|w| w.state == State::Running);
        if running {
            self.send(self.sink, ToWorker::ClipClosed { clip, report });
        }
    }
}
