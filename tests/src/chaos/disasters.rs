//! What concerns the whole service: the supervisor itself and its disk. Nothing else is hurt meanwhile.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    disk::Disk,
    fault::Disaster,
    report::Entry,
    stage::{RECOVERY, Stage, worker},
};
use crate::{processes::Process, service::Service};

/// What was heard and not stored yet dies with the supervisor.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// What waits for a supervisor that stands still no longer than this is not dropped.
const KEPT: Duration = Duration::from_secs(5);
/// After a standstill everybody who is going to be blamed is, within this: the longest deadline and an examination.
const BLAMED: Duration = Duration::from_secs(12);

/// Brings one about and waits until everything is well again.
pub fn strike(
    stage: &Stage,
    service: &mut Service,
    disk: Option<&Disk>,
    disaster: Disaster,
    random: &mut fastrand::Rng,
) {
    // Waits until what was begun is over, and keeps what is to come from beginning.
    let _alone = stage.calm.write().unwrap();
    if let Err(ill) = stage.wait_well(RECOVERY) {
        return stage.violations.add(format!("not well before {}: {ill}", disaster.name()));
    }
    let begun = Instant::now();
    let mut entry = Entry { kind: disaster.name(), target: "the service".into(), ..Entry::default() };
    let over = match (disaster, disk) {
        (Disaster::SupervisorKilled, _) => supervisor_killed(stage, service),
        (Disaster::SupervisorStopped(time), _) => supervisor_stopped(stage, service, time),
        (Disaster::DiskFull { and_sink }, Some(disk)) => {
            disk.fill();
            if and_sink {
                kill_sink(stage);
            }
            sleep(Duration::from_millis(random.u64(2000..8000)));
            disk.empty();
            Instant::now()
        }
        (Disaster::ReadOnly, Some(disk)) => {
            disk.freeze();
            kill_sink(stage);
            sleep(Duration::from_millis(random.u64(2000..6000)));
            disk.thaw();
            // One that was started meanwhile may have its files open for reading.
            Instant::now()
        }
        (_, None) => return,
    };
    match stage.wait_well(RECOVERY) {
        Ok(()) => entry.back_ms = Some(over.elapsed().as_secs_f64() * 1000.0),
        Err(ill) => stage.violations.add(format!("{}: not well again: {ill}", disaster.name())),
    }
    entry.took_s = begun.elapsed().as_secs_f64();
    stage.note(entry);
}

fn kill_sink(stage: &Stage) {
    if let Some(sink) = stage.status().and_then(|s| Process::of(worker(&s, "sink")?.pid?)) {
        sink.signal(Signal::SIGKILL);
    }
}

fn supervisor_killed(stage: &Stage, service: &mut Service) -> Instant {
    let deaf: Vec<usize> = (0..stage.cameras.len())
        .map(|camera| stage.ledger.deaf(camera, IN_FLIGHT, true, "supervisor: SIGKILL"))
        .collect();
    // Sees to it that nobody outlives it.
    service.kill();
    let over = Instant::now();
    service.start_again();
    *stage.supervisor.lock().unwrap() = service.process();
    for (camera, deaf) in deaf.into_iter().enumerate() {
        if stage.wait_heard(camera, RECOVERY) {
            stage.ledger.hears_again(deaf);
        }
    }
    over
}

/// Name and process of each worker.
fn processes(stage: &Stage) -> BTreeMap<String, Option<u32>> {
    let status = stage.status();
    status.into_iter().flat_map(|s| s.workers).map(|w| (w.name, w.pid)).collect()
}

fn supervisor_stopped(stage: &Stage, service: &Service, time: Duration) -> Instant {
    let before = processes(stage);
    // Capture processes keep what nobody takes from them, up to a bound; what is beyond it is dropped and counted.
    let cameras = if time > KEPT { 0..stage.cameras.len() } else { 0..0 };
    let deaf: Vec<(usize, usize)> = cameras
        .map(|camera| {
            (camera, stage.ledger.deaf(camera, Duration::ZERO, true, "supervisor: SIGSTOP for long"))
        })
        .collect();
    service.signal(Signal::SIGSTOP);
    sleep(time);
    service.signal(Signal::SIGCONT);
    let over = Instant::now();
    for (camera, deaf) in deaf {
        if stage.wait_heard(camera, RECOVERY) {
            stage.ledger.hears_again(deaf);
        }
    }
    if stage.wait_well(RECOVERY).is_ok() {
        let well = Instant::now();
        // Whoever is blamed for the standstill, is blamed after its deadline.
        sleep(BLAMED.min(time * 4));
        let after = processes(stage);
        if before != after {
            stage.violations.add(format!(
                "the supervisor stood still for {time:?} and workers were restarted for it: {before:?}, {after:?}"
            ));
        }
        // What was waited for to make sure is no part of the recovery.
        return over + well.elapsed();
    }
    over
}
