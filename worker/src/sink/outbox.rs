//! Which delivery is tried when: per receiver and camera one after the other, receivers and cameras independent
//! of each other, retries with growing, jittered waits for as long as it takes. What several cameras have in common
//! has a lane of its own, and what is owed for one of them before or after it goes before or after it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use nursery_shared::message::Record;

use super::store::Pending;

/// Wait after the first failure; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Attempts under way at once, per receiver.
const PER_RECEIVER: usize = 8;

/// The oldest delivery that is owed to one receiver for one camera.
#[derive(Debug)]
struct Lane {
    pending: Pending,
    failures: u32,
    due: Instant,
    in_flight: bool,
}

/// What one receiver is owed.
#[derive(Debug, Default)]
struct Receiver {
    lanes: BTreeMap<String, Lane>,
    failing_since_us: Option<i64>,
    last_error: Option<String>,
}

impl Lane {
    /// Nothing older is owed for any of its cameras.
    fn may_go(&self, first: &HashMap<String, i64>) -> bool {
        Record::cameras_in(&self.pending.camera)
            .all(|camera| first.get(camera).is_none_or(|delivery| *delivery >= self.pending.delivery))
    }
}

impl Receiver {
    /// The oldest delivery that is owed for each camera.
    fn first_of_cameras(&self) -> HashMap<String, i64> {
        let mut first = HashMap::new();
        for lane in self.lanes.values() {
            for camera in Record::cameras_in(&lane.pending.camera) {
                let oldest = first.entry(camera.to_owned()).or_insert(lane.pending.delivery);
                *oldest = lane.pending.delivery.min(*oldest);
            }
        }
        first
    }
}

/// All lanes of all receivers.
#[derive(Debug)]
pub struct Outbox {
    receivers: BTreeMap<String, Receiver>,
    rng: fastrand::Rng,
}

impl Outbox {
    /// Nobody is owed anything yet; `seed` draws the jitter of waits.
    pub fn new(seed: u64) -> Self {
        Self { receivers: BTreeMap::new(), rng: fastrand::Rng::with_seed(seed) }
    }

    /// From now on these receivers are served; lanes of others are forgotten (their rows stay in the store).
    pub fn set_receivers(&mut self, ids: &[String]) {
        self.receivers.retain(|id, _| ids.contains(id));
        for id in ids {
            self.receivers.entry(id.clone()).or_default();
        }
    }

    /// The oldest delivery of a camera is this; ignored where the lane has an older one.
    pub fn offer(&mut self, receiver: &str, pending: Pending, now: Instant) {
        if let Some(receiver) = self.receivers.get_mut(receiver) {
            receiver.lanes.entry(pending.camera.clone()).or_insert(Lane {
                pending,
                failures: 0,
                due: now,
                in_flight: false,
            });
        }
    }

    /// A receiver has nothing waiting for this camera, so that the store should be asked for its next.
    pub fn has_lane(&self, receiver: &str, camera: &str) -> bool {
        self.receivers.get(receiver).is_some_and(|r| r.lanes.contains_key(camera))
    }

    /// What is to be tried now: receiver and delivery. The oldest first.
    pub fn due(&mut self, now: Instant) -> Vec<(String, Pending)> {
        let mut due = Vec::new();
        for (id, receiver) in &mut self.receivers {
            let busy = receiver.lanes.values().filter(|l| l.in_flight).count();
            let first = receiver.first_of_cameras();
            let mut ready: Vec<&mut Lane> = receiver
                .lanes
                .values_mut()
                .filter(|l| !l.in_flight && l.due <= now && l.may_go(&first))
                .collect();
            ready.sort_by_key(|l| l.pending.delivery);
            for lane in ready.into_iter().take(PER_RECEIVER.saturating_sub(busy)) {
                lane.in_flight = true;
                due.push((id.clone(), lane.pending.clone()));
            }
        }
        due
    }

    /// When [`due`](Self::due) is worth asking again, if nothing else happens.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = |r: &Receiver| {
            // At its limit a receiver is next looked at when an attempt ends.
            let busy = r.lanes.values().filter(|l| l.in_flight).count();
            let first = r.first_of_cameras();
            let lanes = r.lanes.values().filter(|l| !l.in_flight && busy < PER_RECEIVER && l.may_go(&first));
            lanes.map(|l| l.due).min()
        };
        self.receivers.values().filter_map(waiting).min()
    }

    /// A delivery is done with (confirmed, or never to be): its lane is free for the camera's next.
    pub fn done(&mut self, receiver: &str, camera: &str) {
        if let Some(receiver) = self.receivers.get_mut(receiver) {
            receiver.lanes.remove(camera);
            receiver.failing_since_us = None;
            receiver.last_error = None;
        }
    }

    /// An attempt failed: another one later.
    pub fn failed(
        &mut self,
        receiver: &str,
        camera: &str,
        error: String,
        now: Instant,
        now_us: i64,
    ) -> Duration {
        let Some(receiver) = self.receivers.get_mut(receiver) else { return LONGEST };
        receiver.failing_since_us.get_or_insert(now_us);
        receiver.last_error = Some(error);
        let Some(lane) = receiver.lanes.get_mut(camera) else { return LONGEST };
        let full = FIRST.saturating_mul(1 << lane.failures.min(10)).min(LONGEST);
        let wait = full.mul_f64(0.5 + 0.5 * self.rng.f64());
        lane.failures = lane.failures.saturating_add(1);
        lane.in_flight = false;
        lane.due = now + wait;
        wait
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.receivers.values().flat_map(|r| r.lanes.values()).filter(|l| l.in_flight).count()
    }

    /// Since when the receiver that has been failing for longest has been, and the newest failure's words.
    pub fn failing(&self) -> (Option<i64>, Option<String>) {
        let oldest = self.receivers.values().filter(|r| r.failing_since_us.is_some());
        oldest
            .min_by_key(|r| r.failing_since_us)
            .map_or((None, None), |r| (r.failing_since_us, r.last_error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(delivery: i64, camera: &str) -> Pending {
        Pending { delivery, camera: camera.into(), message_id: format!("m{delivery}"), body: String::new() }
    }

    fn outbox() -> Outbox {
        let mut outbox = Outbox::new(1);
        outbox.set_receivers(&["r".into(), "s".into()]);
        outbox
    }

    #[test]
    fn a_camera_has_one_delivery_under_way_and_cameras_do_not_wait_for_each_other() {
        let (mut outbox, now) = (outbox(), Instant::now());
        outbox.offer("r", pending(1, "a"), now);
        outbox.offer("r", pending(2, "a"), now);
        outbox.offer("r", pending(3, "b"), now);
        let due: Vec<i64> = outbox.due(now).into_iter().map(|(_, p)| p.delivery).collect();
        assert_eq!(due, [1, 3]);
        assert!(outbox.due(now).is_empty());
        outbox.done("r", "a");
        assert!(!outbox.has_lane("r", "a") && outbox.has_lane("r", "b"));
    }

    #[test]
    fn what_cameras_have_in_common_keeps_its_place_among_what_is_owed_for_each() {
        let (mut outbox, now) = (outbox(), Instant::now());
        let due = |outbox: &mut Outbox| -> Vec<i64> {
            outbox.due(now).into_iter().map(|(_, p)| p.delivery).collect()
        };
        outbox.offer("r", pending(1, "a"), now);
        outbox.offer("r", pending(2, "a, b"), now);
        outbox.offer("r", pending(3, "b"), now);
        outbox.offer("r", pending(4, "c"), now);
        assert_eq!(due(&mut outbox), [1, 4]);
        assert_eq!(outbox.next_due(), None, "the others wait for these");
        outbox.done("r", "a");
        outbox.offer("r", pending(5, "a"), now);
        assert_eq!(due(&mut outbox), [2]);
        outbox.done("r", "a, b");
        assert_eq!(due(&mut outbox), [3, 5]);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_never_give_up() {
        let (mut outbox, mut now) = (outbox(), Instant::now());
        outbox.offer("r", pending(1, "a"), now);
        let mut longest = Duration::ZERO;
        for i in 0..50 {
            assert_eq!(outbox.due(now).len(), 1, "attempt {i}");
            let wait = outbox.failed("r", "a", "no".into(), now, i);
            assert!(outbox.due(now).is_empty());
            longest = longest.max(wait);
            now += wait;
            assert_eq!(outbox.next_due(), Some(now));
        }
        assert!(longest > LONGEST / 2 && longest <= LONGEST);
        assert_eq!(outbox.failing(), (Some(0), Some("no".into())));
        outbox.done("r", "a");
        assert_eq!(outbox.failing(), (None, None));
    }

    #[test]
    fn one_receiver_does_not_get_more_attempts_at_once_than_allowed_and_holds_up_no_other() {
        let (mut outbox, now) = (outbox(), Instant::now());
        for i in 0..20 {
            outbox.offer("r", pending(i, &format!("c{i}")), now);
        }
        outbox.offer("s", pending(99, "c0"), now);
        let due = outbox.due(now);
        assert_eq!(due.iter().filter(|(r, _)| r == "r").count(), PER_RECEIVER);
        assert_eq!(due.iter().filter(|(r, _)| r == "s").count(), 1);
        assert_eq!(outbox.in_flight(), PER_RECEIVER + 1);
        assert_eq!(outbox.next_due(), None, "waiting for the ones under way, without a busy loop");
    }
}
