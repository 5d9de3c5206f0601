//! Time: who is overdue, which cameras have been silent for too long, and what to do when it was the
//! supervisor itself that was late.

use std::time::Duration;

use nursery_shared::message::{Lost, Record, RecordKind, Role, StreamState};

use super::{
    Level, Policy, Time,
    camera::Camera,
    worker::{State, Worker},
};

/// A pass that comes later than this after its deadline shows that the host, or this process, stood still.
const LATE: Duration = Duration::from_secs(2);
/// Workers that are silent for this long, and fell silent within [`AT_ONCE`] of each other, have one cause outside of
/// them: everybody reports every second.
const ALL_SILENT: Duration = Duration::from_secs(3);
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// Cameras that are lost within this time (or a quarter of what is allowed, where that is shorter) are told together,
/// and at the most so many: a record must fit a frame.
const TOGETHER: Duration = Duration::from_secs(2);
const MOST_TOGETHER: usize = 64;
/// The deadline is never further away, so that standing still for any longer is noticed.
const LOOK: Duration = Duration::from_secs(1);
/// One that is less late, but later than this, is not worth a word; but nobody could be heard in the meantime.
const SLIGHTLY_LATE: Duration = Duration::from_millis(100);
/// What whoever is due then gets to say something: more than the time between two reports.
const GRACE: Duration = Duration::from_millis(1500);

impl Policy {
    pub(super) fn earliest_deadline(&mut self) -> Option<Time> {
        let quiet_until = self.nobody_is_due_before();
        let many = if quiet_until > self.now {
            Some(quiet_until)
        } else {
            let workers = self.workers.values().filter_map(Worker::deadline);
            workers.chain(self.offline_deadline()).min()
        };
        let rest = [
            self.stop_deadline(),
            self.pool_deadline(),
            self.stagger_deadline(),
            self.heartbeat_deadline(),
            self.web_deadline(),
            self.light_deadline(),
            self.gathers_until,
        ];
        rest.into_iter().flatten().chain(many).chain([self.now + LOOK]).min()
    }

    /// A time before which no worker is overdue and no camera has been silent for too long. Looked for among all of them
    /// only where that can have changed: almost everything that happens only puts off what is due.
    fn nobody_is_due_before(&mut self) -> Time {
        if let Some(known) = self.quiet_until.filter(|known| *known > self.now) {
            if cfg!(any(test, debug_assertions)) {
                assert!(self.first_due() >= known, "somebody is due before {known:?}");
            }
            return known;
        }
        *self.quiet_until.insert(self.first_due())
    }

    fn first_due(&self) -> Time {
        let limit = self.offline_limit();
        let workers = self.workers.values().filter_map(Worker::deadline);
        let cameras = self.cameras.values().filter_map(|c| c.offline_deadline(limit));
        workers.chain(cameras).min().unwrap_or(Time(u64::MAX))
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
        self.start_deadlines_anew();
        // Only the time in which nobody could have told us does not count: a host that keeps standing still must not
        // put off for ever that a camera is not heard.
        for camera in self.cameras.values_mut() {
            camera.heard_at = (camera.heard_at + late).min(now);
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

    fn start_deadlines_anew(&mut self) {
        let now = self.now;
        for worker in self.workers.values_mut() {
            worker.heard_at = now;
            if worker.stop_deadline.is_some() {
                worker.draining(now);
            }
        }
    }

    /// Everybody who owes something fell silent at once: for how long, if so and if it is the first time since
    /// anybody was heard.
    fn all_silent(&self) -> Option<Duration> {
        if self.forgave_silence {
            return None;
        }
        let owing = self.workers.values().filter(|w| w.state == State::Running && w.deadline().is_some());
        let mut heard: Vec<Time> = owing.map(|w| w.heard_at).collect();
        heard.sort_unstable();
        let (first, last) = (*heard.first()?, *heard.last()?);
        // Not by one who has died since, either.
        let silent = self.now.since(last.max(self.heard_at));
        (heard.len() >= 2 && last.since(first) <= AT_ONCE && silent >= ALL_SILENT).then_some(silent)
    }

    /// Swapping, a frozen group of processes or a debugger may stop all workers and not the supervisor: nobody is
    /// restarted for it the first time. Whoever is still silent when the new deadlines end, is.
    fn forgive_if_all_are_silent(&mut self) {
        let now = self.now;
        let hung = |w: &Worker| w.state == State::Running && w.deadline().is_some_and(|d| d <= now);
        if !self.workers.values().any(hung) {
            return;
        }
        let Some(silent) = self.all_silent() else { return };
        self.forgave_silence = true;
        self.start_deadlines_anew();
        self.log(
            Level::Warn,
            format!(
                "all workers fell silent at once, {:.1} s ago (swapping, a frozen cgroup or a debugger): all deadlines \
                 start anew, nobody is restarted",
                silent.as_secs_f64()
            ),
        );
    }

    /// Starts whose time has come, and, to `judge`, acts on everything else that is due.
    pub(super) fn expire(&mut self, judge: bool) {
        let now = self.now;
        if self.nobody_is_due_before() > now {
            return;
        }
        if judge {
            self.forgive_if_all_are_silent();
        }
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
                (State::Starting, _) => self.examine(slot, "not ready in time after its start".into()),
                (State::Stopping, _) => self.overdue_in_stopping(slot),
                (_, Role::Infer) => self.examine(slot, "hung: no scores for the batch in hand".into()),
                (_, _) => self.examine(slot, "hung: no progress".into()),
            }
        }
        if !judge {
            return;
        }
        self.declare_offline();
    }

    /// When cameras will have been silent for too long. The first wait for those that are about to be, since a switch
    /// that fails takes many along; but not for long.
    fn offline_deadline(&self) -> Option<Time> {
        let limit = self.offline_limit();
        let due = || self.cameras.values().filter_map(|c| c.offline_deadline(limit));
        let first = due().min()?;
        let together = TOGETHER.min(limit / 4);
        due().filter(|d| *d <= first + together).max()
    }

    /// Says which cameras have been silent for too long.
    fn declare_offline(&mut self) {
        let (now, limit) = (self.now, self.offline_limit());
        if self.offline_deadline().is_none_or(|d| d > now) {
            return;
        }
        let is_lost = |c: &Camera| c.offline_deadline(limit).is_some_and(|d| d <= now);
        let lost: Vec<u32> = self.cameras.iter().filter(|(_, c)| is_lost(c)).map(|(id, _)| *id).collect();
        for some in lost.chunks(MOST_TOGETHER) {
            let lost: Vec<Lost> = some.iter().filter_map(|id| self.lose(*id, limit)).collect();
            let names: Vec<&str> = lost.iter().map(|l| l.camera.as_str()).collect();
            self.ledger.push(Record { camera: Record::name_of(&names), what: RecordKind::Offline(lost) });
        }
    }

    fn lose(&mut self, id: u32, limit: Duration) -> Option<Lost> {
        let (now, wall_us) = (self.now, self.wall_us);
        let camera = self.cameras.get_mut(&id)?;
        camera.told_online = Some(false);
        let silence = camera.last_audio.map_or(now.since(camera.heard_at), |t| now.since(t));
        let reason = camera.error.clone().unwrap_or_else(|| match camera.stream {
            StreamState::Connecting => format!("no connection for {} s", limit.as_secs()),
            StreamState::Live if camera.mute => format!(
                "only digital silence for {} s: is the microphone muted? (if that is its noise gate: noise_gate)",
                limit.as_secs()
            ),
            _ => format!("no audio for {} s", limit.as_secs()),
        });
        let name = camera.config.name.clone();
        let since_us = wall_us - i64::try_from(silence.as_micros()).unwrap_or(0);
        self.log(Level::Warn, format!("capture:{name}: camera offline: {reason}"));
        Some(Lost { camera: name, since_us, reason })
    }
}
