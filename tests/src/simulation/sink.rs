//! Simulated sink processes: the real judgement ([`Keeper`]: storing, acknowledging, event logic, deliveries) in a
//! working loop that dies at the worst moments.

use std::{
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use nursery_shared::message::{FromWorker, Record, Role, SinkConfig};
use nursery_supervisor::policy::{Exit, Key, Time};
use nursery_worker::sink::{
    keeper::{Keeper, Now},
    receiver::Attempt,
};

use super::{
    disk::SimStore,
    faults::Fault,
    process::{Act, Body},
    world::{Due, World},
};

/// The working state of a sink process.
#[derive(Default)]
pub struct Sink {
    keeper: Option<Keeper<SimStore>>,
    inbox: VecDeque<(u64, Record)>,
    /// When the working loop goes round next.
    next_pass: Option<Time>,
}

impl Sink {
    /// It owes storing, or attempts are under way.
    pub fn is_busy(&self) -> bool {
        !self.inbox.is_empty() || self.keeper.as_ref().is_some_and(|k| !k.is_settled())
    }
}

impl World {
    fn sink(&mut self, key: Key) -> Option<&mut Sink> {
        match &mut self.working(key)?.body {
            Body::Sink(sink) => Some(sink),
            _ => None,
        }
    }

    fn keeper(&mut self, key: Key) -> Option<&mut Keeper<SimStore>> {
        self.sink(key)?.keeper.as_mut()
    }

    fn both_clocks(&self) -> Now {
        Now { instant: self.epoch + Duration::from_micros(self.now.0), wall_us: self.wall_us() }
    }

    fn to_virtual(&self, instant: Instant) -> Time {
        Time(instant.saturating_duration_since(self.epoch).as_micros() as u64)
    }

    pub(super) fn configure_sink(&mut self, key: Key, config: SinkConfig) {
        let now = self.both_clocks();
        self.disk.borrow_mut().alerts.configured(&config);
        let begins = self.sink(key).is_some_and(|s| s.keeper.is_none());
        if begins {
            let seed = self.seed;
            let opened = SimStore::open(&self.disk).and_then(|store| Keeper::new(store, seed, now));
            match (opened, self.sink(key)) {
                (Ok(keeper), Some(sink)) => sink.keeper = Some(keeper),
                (Err(e), _) => self.violated(format!("the store cannot be opened: {e}")),
                _ => {}
            }
        }
        let ids =
            config.alerts.iter().filter_map(|a| a.url.as_ref()).map(|u| u.expose().to_owned()).collect();
        if let Some(keeper) = self.keeper(key) {
            keeper.configure(config.run, config.detection, config.cameras, ids, now);
        }
        if begins {
            self.plan(Duration::from_millis(20), Due::Act(key, Act::Ready));
        }
        self.pass_by(key, self.now + Duration::from_millis(25));
    }

    pub(super) fn take_record(&mut self, key: Key, seq: u64, record: Record) {
        if let Some(sink) = self.sink(key) {
            sink.inbox.push_back((seq, record));
            self.pass_by(key, self.now + Duration::from_millis(2));
        }
    }

    /// The working loop goes round at `at`, if not before.
    fn pass_by(&mut self, key: Key, at: Time) {
        let now = self.now;
        if let Some(sink) = self.sink(key)
            && sink.next_pass.is_none_or(|t| t > at || t <= now)
        {
            sink.next_pass = Some(at);
            self.agenda.plan(at, Due::Act(key, Act::Pass));
        }
    }

    pub(super) fn sink_pass(&mut self, key: Key) {
        let at = self.now;
        let Some(process) = self.working(key) else { return };
        let (name, ready) = (Rc::clone(&process.name), process.ready);
        let Some(sink) = self.sink(key) else { return };
        if !ready || sink.next_pass.is_some_and(|t| t > at) {
            return;
        }
        sink.next_pass = None;
        let Some(keeper) = &mut sink.keeper else { return };
        while keeper.has_room()
            && let Some((seq, record)) = sink.inbox.pop_front()
        {
            keeper.take(seq, record);
        }
        let busy = !keeper.is_settled();
        if busy && self.befalls(&name, Role::Sink, 0.02) {
            self.fault(Fault::DiesBeforeStoring, &name);
            return self.die(key, Exit::Signal(9));
        }
        let now = self.both_clocks();
        let said = self.keeper(key).map(|k| k.store_waiting(now)).unwrap_or_default();
        let failures = std::mem::take(&mut self.disk.borrow_mut().failures);
        (0..failures).for_each(|_| self.fault(Fault::StoreFails, &name));
        let acknowledged = said.iter().find_map(|m| match m {
            FromWorker::Ack { up_to } => Some(*up_to),
            _ => None,
        });
        if let Some(up_to) = acknowledged {
            self.truth.stored(up_to);
            if self.befalls(&name, Role::Sink, 0.02) {
                self.fault(Fault::DiesBeforeAcknowledging, &name);
                return self.die(key, Exit::Signal(9));
            }
        }
        said.into_iter().for_each(|message| self.say(key, message));
        if let Some(up_to) = acknowledged {
            if self.befalls(&name, Role::Sink, 0.03) {
                self.fault(Fault::AcknowledgesTwice, &name);
                self.say(key, FromWorker::Ack { up_to });
            }
            if self.befalls(&name, Role::Sink, 0.005) {
                self.fault(Fault::AcknowledgesAhead, &name);
                self.blame(key);
                self.say(key, FromWorker::Ack { up_to: up_to + 1_000_000 });
            }
        }
        self.deliver_due(key, now);
        let draining = self.working(key).is_some_and(|p| p.draining);
        let Some(keeper) = self.keeper(key) else { return };
        let reports = if keeper.must_report(now) { keeper.report(now) } else { Vec::new() };
        keeper.purge_if_due(now);
        keeper.tend_curves(now);
        let next = keeper.next_deadline(!draining);
        reports.into_iter().for_each(|message| self.say(key, message));
        let more = self
            .sink(key)
            .is_some_and(|s| !s.inbox.is_empty() && s.keeper.as_ref().is_some_and(|k| k.has_room()));
        let soonest = at + Duration::from_millis(1);
        let next = if more { soonest } else { self.to_virtual(next).max(soonest) };
        self.pass_by(key, next);
        self.may_leave(key);
    }

    fn deliver_due(&mut self, key: Key, now: Now) {
        if self.working(key).is_none_or(|p| p.draining) {
            return;
        }
        let due = self.keeper(key).map(|k| k.due(now)).unwrap_or_default();
        for (receiver, pending) in due {
            self.attempt(key, receiver, pending);
        }
    }

    /// An attempt of this process has ended.
    pub(super) fn attempted(
        &mut self,
        key: Key,
        receiver: &str,
        delivery: i64,
        camera: &str,
        outcome: Attempt,
    ) {
        let now = self.both_clocks();
        if let Some(keeper) = self.keeper(key) {
            // A failure is tried again by the outbox itself.
            let _ = keeper.attempted(receiver, delivery, camera, outcome, now);
            self.pass_by(key, self.now);
        }
    }
}
