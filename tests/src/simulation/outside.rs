//! Simulated receivers of alerts: they answer, refuse, hang, or get a message whose sender never learns of it.

use std::time::Duration;

use nursery_supervisor::policy::Key;
use nursery_worker::sink::{receiver::Attempt, store::Pending};

use super::{
    faults::Fault,
    world::{Due, World, millis},
};

/// A request on its way.
pub struct Request {
    pub sender: Key,
    pub receiver: String,
    pub pending: Pending,
    /// It arrives.
    pub arrives: bool,
    /// Its sender learns that it did.
    pub answered: bool,
}

impl std::fmt::Debug for Request {
    // Without ids, which are others in every run.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { receiver, pending, arrives, answered, .. } = self;
        write!(f, "Request({} of {} to {receiver}, ", pending.delivery, pending.camera)?;
        write!(f, "arrives {arrives}, answered {answered})")
    }
}

impl World {
    /// The sink makes an attempt.
    pub(super) fn attempt(&mut self, sender: Key, receiver: String, pending: Pending) {
        let heat = if self.calm { 0.0 } else { self.intensity.receivers };
        let down = !self.calm && self.receiver_down(&receiver);
        let rng = self.stream(&receiver);
        let (roll, mut delay) = (rng.f64(), millis(rng.u64(2..80)));
        let (mut arrives, mut answered) = (true, true);
        if down || roll < 0.12 * heat {
            self.fault(Fault::ReceiverRefuses, &receiver);
            (arrives, answered) = (false, false);
        } else if roll < 0.15 * heat {
            self.fault(Fault::ReceiverHangs, &receiver);
            (arrives, answered, delay) = (false, false, Duration::from_secs(10));
        } else if roll < 0.25 * heat {
            self.fault(Fault::ReceiverAnswerLost, &receiver);
            answered = false;
        }
        self.plan(delay, Due::Request(Box::new(Request { sender, receiver, pending, arrives, answered })));
    }

    /// Down for four seconds of every nine, while receivers fail at all.
    fn receiver_down(&self, receiver: &str) -> bool {
        let phase = receiver.bytes().map(u64::from).sum::<u64>() * 1_700_000;
        self.intensity.receivers > 0.0 && (self.now.0 + phase) % 9_000_000 < 4_000_000
    }

    /// A request ends: it arrives whether or not its sender still lives.
    pub(super) fn request_ends(&mut self, request: Request) {
        let Request { sender, receiver, pending, arrives, answered } = request;
        if arrives {
            let received = self.disk.borrow_mut().alerts.received(
                &receiver,
                &pending.camera,
                &pending.message_id,
                &pending.body,
            );
            if let Err(broken) = received {
                self.violated(broken);
            }
        }
        let outcome = if answered { Attempt::Delivered } else { Attempt::Failed("no".into()) };
        self.attempted(sender, &receiver, pending.delivery, &pending.camera, outcome);
    }
}
