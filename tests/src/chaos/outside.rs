//! What cameras and receivers do wrong for a while, and how soon the service has got over it.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    OFFLINE_AFTER,
    fault::{Refusal, Trouble},
    report::Entry,
    stage::{RECOVERY, Stage},
};
use crate::{receiver::Answer, rtsp_camera::Fault};

/// Audio that was sent and may not have been told yet.
const UNTOLD: Duration = Duration::from_millis(500);
/// A camera that is not heard for this much longer than it may is an alert. Half of it is promised; the rest is for a
/// busy host.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Lets cameras misbehave, one at a time, while there is time.
pub fn trouble_cameras(stage: &Stage, mut random: fastrand::Rng) {
    let first = random.usize(..100);
    for n in first.. {
        stage.pause(Duration::from_millis(random.u64(500..3000)));
        let _busy = stage.calm.read().unwrap();
        if !stage.goes_on() {
            return;
        }
        let camera = random.usize(..stage.cameras.len());
        let name = &stage.names[camera];
        let well = stage
            .status()
            .is_some_and(|s| s.cameras.iter().any(|c| c.name == *name && c.last_error.is_none()));
        let Some(_hurting) = stage.hurt(&[name, &format!("capture:{name}")]).filter(|_| well) else {
            continue;
        };
        let trouble = Trouble::nth(n);
        let silent = matches!(trouble, Trouble::Gone | Trouble::Fault(Fault::StallMedia | Fault::Freeze));
        let lasting = match silent && random.u8(..3) == 0 {
            true => OFFLINE_AFTER + TOLD_WITHIN,
            false => Duration::from_millis(random.u64(1000..7000)),
        };
        one(stage, camera, trouble, lasting, silent && lasting > OFFLINE_AFTER + TOLD_WITHIN / 2);
    }
}

fn one(stage: &Stage, camera: usize, trouble: Trouble, lasting: Duration, is_outage: bool) {
    let begun = Instant::now();
    let name = &stage.names[camera];
    // Then it is not silence that is heard.
    let noise = matches!(trouble, Trouble::Fault(Fault::CorruptMedia | Fault::GarbageStream));
    let deaf = stage.ledger.deaf(camera, UNTOLD, noise, &trouble.name());
    let outage = is_outage.then(|| stage.ledger.outage_begins(camera));
    let device = &stage.cameras[camera];
    match trouble {
        Trouble::Gone => device.go_away(),
        Trouble::HangUp => device.hang_up(),
        Trouble::Fault(fault) => {
            device.set_fault(fault);
            if trouble.needs_a_new_session() {
                device.hang_up();
            }
        }
    }
    if trouble != Trouble::HangUp {
        sleep(lasting);
    }
    match trouble {
        Trouble::Gone => device.come_back(),
        Trouble::HangUp => {}
        Trouble::Fault(_) => {
            device.set_fault(Fault::None);
            if trouble.needs_a_new_session() {
                // A camera that drips goes on with it otherwise.
                device.hang_up();
            }
        }
    }
    if let Some(outage) = outage {
        stage.ledger.outage_ends(outage);
    }
    let over = Instant::now();
    let mut entry = Entry { kind: trouble.name(), target: name.clone(), ..Entry::default() };
    if stage.wait_heard(camera, RECOVERY) {
        stage.ledger.hears_again(deaf);
        entry.back_ms = Some(over.elapsed().as_secs_f64() * 1000.0);
    } else {
        let shown = stage.status().and_then(|s| s.cameras.into_iter().find(|c| c.name == *name));
        stage.violations.add(format!("{}: {name} is not heard again: {shown:?}", trouble.name()));
    }
    entry.took_s = begun.elapsed().as_secs_f64();
    stage.note(entry);
}

/// Lets the receiver refuse now and then, while there is time.
pub fn trouble_receiver(stage: &Stage, mut random: fastrand::Rng) {
    let first = random.usize(..100);
    for n in first.. {
        stage.pause(Duration::from_millis(random.u64(3000..15_000)));
        let _busy = stage.calm.read().unwrap();
        if !stage.goes_on() {
            return;
        }
        let begun = Instant::now();
        let refusal = Refusal::nth(n);
        match refusal {
            Refusal::Answer(answer) => stage.receiver.set_answer(answer),
            Refusal::Down => stage.receiver.go_down(),
        }
        sleep(Duration::from_millis(random.u64(2000..9000)));
        match refusal {
            Refusal::Answer(_) => stage.receiver.set_answer(Answer::Status(204)),
            Refusal::Down => stage.receiver.come_up(),
        }
        let over = Instant::now();
        let mut entry =
            Entry { kind: refusal.name().into(), target: "the receiver".into(), ..Entry::default() };
        match stage.watch(RECOVERY, |s| (s.alerts.pending == 0).then_some(())) {
            Some(()) => entry.back_ms = Some(over.elapsed().as_secs_f64() * 1000.0),
            None => stage.violations.add(format!("{}: alerts are still pending", refusal.name())),
        }
        entry.took_s = begun.elapsed().as_secs_f64();
        stage.note(entry);
    }
}
