//! What listens to a camera is killed, or stopped as by a debugger, a full disk or a bug: how long until the camera is listened
//! to again, as the camera sees it.

use std::{
    collections::{BTreeSet, HashSet},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::timestamp;
use serde::{Deserialize, Serialize};

use super::{
    measure::{Plan, Stage, patience},
    system::Which,
};
use crate::{
    farm::{Kind, ledger::Entry},
    processes::Process,
};

/// Who is not listened to again within this time is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two of them.
const REST: Duration = Duration::from_secs(2);
/// So many processes are killed, and so many stopped.
const EACH: usize = 5;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub system: Which,
    pub round: u32,
    pub cameras: u32,
    /// Seconds from the signal to the camera's next client; `None`: not within a minute.
    pub killed: Vec<Option<f64>>,
    pub stopped: Vec<Option<f64>>,
}

/// Measures once.
pub fn recovery(plan: &Plan, round: u32) -> Result<Recovery, String> {
    let stage = Stage::set(plan, patience(plan.cameras))?;
    let mut recovery = Recovery {
        system: plan.which,
        round,
        cameras: plan.cameras,
        killed: Vec::new(),
        stopped: Vec::new(),
    };
    let mut outcome = Ok(());
    if stage.readiness.after_s.is_some() {
        sleep(plan.warm_up);
        let mut hit = HashSet::new();
        outcome = killed(&stage, &mut hit, &mut recovery.killed)
            .and_then(|()| stopped(&stage, &mut hit, &mut recovery.stopped));
    } else {
        outcome =
            outcome.and_then(|()| Err(format!("{} of {} cameras live", stage.readiness.live, plan.cameras)));
    }
    let Stage { farm, system, .. } = stage;
    system.stop();
    farm.finish();
    outcome.map(|()| recovery)
}

/// One after the other: their ends are told apart by their times.
fn killed(stage: &Stage, hit: &mut HashSet<Process>, delays: &mut Vec<Option<f64>>) -> Result<(), String> {
    for _ in 0..EACH {
        let from = strike(stage, hit, 1, Signal::SIGKILL)?;
        delays.extend(wait(stage, from, 1));
        sleep(REST);
    }
    Ok(())
}

/// At once, since some are never found.
fn stopped(stage: &Stage, hit: &mut HashSet<Process>, delays: &mut Vec<Option<f64>>) -> Result<(), String> {
    let from = strike(stage, hit, EACH, Signal::SIGSTOP)?;
    delays.extend(wait(stage, from, EACH));
    Ok(())
}

/// Sends a signal to so many processes that listen to a camera and have not been hit yet; returns when.
fn strike(stage: &Stage, hit: &mut HashSet<Process>, count: usize, signal: Signal) -> Result<i64, String> {
    let (root, roles) = (stage.system.root(), stage.system.roles());
    let listens = |process: &Process| match roles.get(&process.pid) {
        Some(role) => role == "capture",
        None => String::from_utf8_lossy(&process.arguments()).contains("rtsp://"),
    };
    let victims: Vec<Process> =
        root.descendants().into_iter().filter(|p| !hit.contains(p) && listens(p)).take(count).collect();
    if victims.len() < count {
        return Err(format!(
            "{count} processes that listen to cameras are needed, there are {}: more --cameras",
            victims.len()
        ));
    }
    let from = timestamp::now_us();
    for victim in victims {
        victim.signal(signal);
        hit.insert(victim);
    }
    Ok(from)
}

/// Seconds until each of so many cameras whose clients have gone since then has a client again.
fn wait(stage: &Stage, from_us: i64, count: usize) -> Vec<Option<f64>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let back = back(&stage.farm.ledger(), from_us);
        if back.len() >= count || Instant::now() > until {
            let found = back.into_iter().map(Some).chain(std::iter::repeat(None));
            return found.take(count).collect();
        }
        sleep(Duration::from_millis(20));
    }
}

/// Of the cameras whose clients have gone since then, and have new ones: after how many seconds.
fn back(ledger: &[Entry], from_us: i64) -> Vec<f64> {
    let mut gone: BTreeSet<(Kind, u32)> = BTreeSet::new();
    let mut delays = Vec::new();
    for entry in ledger {
        match entry {
            Entry::Ended { kind, camera, at_us, .. } if *at_us >= from_us => {
                gone.insert((*kind, *camera));
            }
            Entry::Started { kind, camera, at_us, .. } if gone.remove(&(*kind, *camera)) => {
                delays.push((at_us - from_us) as f64 / 1e6);
            }
            _ => {}
        }
    }
    delays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_gone_and_is_back_is_counted_from_the_signal_on() {
        let started =
            |camera, at_us| Entry::Started { session: 0, kind: Kind::Pcmu, camera, at_us, crying: false };
        let ended = |camera, at_us| {
            let counts = Default::default();
            Entry::Ended { session: 0, kind: Kind::Pcmu, camera, at_us, counts }
        };
        let ledger = [
            started(1, 0),
            ended(1, 900_000),
            started(1, 1_100_000),
            ended(2, 1_000_500),
            ended(3, 1_500_000),
            started(3, 3_500_000),
        ];
        assert_eq!(back(&ledger, 1_000_000), [2.5]);
    }
}
