//! Time: who is overdue, which cameras have been silent for too long, and what to do when it was the
//! supervisor itself that was late.

use std::time::Duration;

use nursery_shared::message::{Record, RecordKind, Role, StreamState};

use super::{Level, Policy, Time, worker::State};

/// A pass that comes later than this after its deadline shows that the host, or this process, stood still.
const LATE: Duration = Duration::from_secs(2);
/// The deadline is never further away, so that standing still for any longer is noticed.
const LOOK: Duration = Duration::from_secs(1);
/// One that is less late, but later than this, is not worth a word; but nobody could be heard in the meantime.
const SLIGHTLY_LATE: Duration = Duration::from_millis(100);
/// What whoever is due then gets to say something: more than the time between two reports.
const GRACE: Duration = Duration::from_millis(1500);

impl Policy {
    pub(super) fn earliest_deadline(&self) -> Option<Time> {
        let limit = self.offline_limit();
        let workers = self.workers.values().filter_map(|w| w.deadline());
        let cameras = self.cameras.values().filter_map(|c| c.offline_deadline(limit));
        let rest = [self.stop_deadline(), self.pool_deadline()];
        workers.chain(cameras).chain(rest.into_iter().flatten()).chain([self.now + LOOK]).min()
    }

    fn offline_limit(&self) -> Duration {
        Duration::from_secs_f64(self.config.detection.offline_after_s)
    }

    /// A suspended host, a debugger or swapping makes everybody look hung at once: nobody is to blame, and all
    /// deadlines start anew.
    pub(super) fn forgive_if_late(&mut self) {
        let now = self.now;
        let Some(late) = self.armed.map(|d| now.since(d)).filter(|late| *late > SLIGHTLY_LATE) else {
            return;
        };
        self.armed = None;
        if late <= LATE {
            self.workers.values_mut().for_each(|worker| worker.postpone(now + GRACE));
            return;
        }
        for worker in self.workers.values_mut() {
            worker.heard_at = now;
            if worker.stop_deadline.is_some() {
                worker.draining(now);
            }
        }
        for camera in self.cameras.values_mut() {
            camera.heard_at = now;
        }
        self.log(
            Level::Warn,
            format!(
                "the supervisor itself stood still for {:.1} s (suspended host, debugger or overload): \
                 all deadlines start anew, nobody is restarted",
                late.as_secs_f64()
            ),
        );
    }

    /// Starts whose time has come, and, to `judge`, acts on everything else that is due.
    pub(super) fn expire(&mut self, judge: bool) {
        let now = self.now;
        let due: Vec<(u32, State, Role)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.deadline().is_some_and(|d| d <= now))
            .filter(|(_, w)| judge || matches!(w.state, State::Backoff { .. }))
            .map(|(slot, w)| (*slot, w.state, w.role))
            .collect();
        for (slot, state, role) in due {
            match (state, role) {
                (State::Backoff { .. }, _) => self.start(slot),
                (State::Starting, _) => self.kill(slot, "not ready in time after its start".into()),
                (State::Stopping, _) => self.kill(slot, "did not stop in time".into()),
                (_, Role::Infer) => self.kill(slot, "hung: no scores for the batch in hand".into()),
                (_, _) => self.kill(slot, "hung: no progress".into()),
            }
        }
        if !judge {
            return;
        }
        let limit = self.offline_limit();
        let silent: Vec<u32> = self
            .cameras
            .iter()
            .filter(|(_, c)| c.offline_deadline(limit).is_some_and(|d| d <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.declare_offline(id, limit);
        }
    }

    fn declare_offline(&mut self, id: u32, limit: Duration) {
        let (now, wall_us) = (self.now, self.wall_us);
        let Some(camera) = self.cameras.get_mut(&id) else { return };
        camera.told_online = Some(false);
        let silence = camera.last_audio.map_or(now.since(camera.heard_at), |t| now.since(t));
        let reason = camera.error.clone().unwrap_or_else(|| match camera.stream {
            StreamState::Connecting => format!("no connection for {} s", limit.as_secs()),
            _ => format!("no audio for {} s", limit.as_secs()),
        });
        let name = camera.config.name.clone();
        let since_us = wall_us - i64::try_from(silence.as_micros()).unwrap_or(0);
        self.log(Level::Warn, format!("capture:{name}: camera offline: {reason}"));
        self.ledger.push(Record { camera: name, what: RecordKind::Offline { since_us, reason } });
    }
}
