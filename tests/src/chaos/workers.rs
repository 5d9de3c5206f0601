//! What is done to worker processes, and how soon they work again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{
    control::{Reply, Request},
    message::Role,
    status::{Status, WorkerState},
    timestamp,
};

use super::{
    fault::Blow,
    report::Entry,
    stage::{RECOVERY, Stage, camera_of, worker},
};
use crate::{
    processes::Process,
    service::{self, has_progressed},
};

/// A worker that has been ready for longer than `supervision.healthy_after_s` is restarted like one that fails for the
/// first time.
const HEALTHY: f64 = 2.0;
/// An inference process that has work has done some of it within this.
const AT_WORK: f64 = 1.0;
/// How long the first work of a new inference process is waited for: it may be that there is none for it.
const IDLE: Duration = Duration::from_secs(10);
/// What is done to a capture process may cost what it had heard and not told yet.
const UNTOLD: Duration = Duration::from_millis(500);
/// From SIGSTOP to the death of a worker that hangs: the longest deadline (10 s), a second more, and patience for a
/// busy host, on which deadlines are put off by what the supervisor itself was late.
const FOUND: Duration = Duration::from_secs(40);
/// How often is looked whether a process still lives.
const LOOK: Duration = Duration::from_millis(1);

/// Hurts workers of one role, one at a time, while there is time.
pub fn hurt_role(stage: &Stage, role: Role, mut random: fastrand::Rng) {
    while stage.goes_on() {
        stage.pause(Duration::from_millis(random.u64(500..4000)));
        let _busy = stage.calm.read().unwrap();
        if !stage.goes_on() {
            return;
        }
        let Some(status) = stage.status() else { continue };
        let mut fit: Vec<_> = status
            .workers
            .iter()
            .filter(|w| w.role == role && w.state == WorkerState::Running && has_progressed(w))
            .filter(|w| w.uptime_s > HEALTHY)
            // Who stands in for others is gone as soon as they are back.
            .filter(|w| !w.name.contains("stand-in"))
            // An inference process that the others leave nothing to do owes nothing, and is not missed.
            .filter(|w| role != Role::Infer || w.progress_age_s.is_some_and(|age| age < AT_WORK))
            .collect();
        random.shuffle(&mut fit);
        let claimed = fit.into_iter().find_map(|w| {
            let names = [Some(w.name.as_str()), camera_of(&w.name)];
            let names: Vec<&str> = names.into_iter().flatten().collect();
            Some((w.name.clone(), w.restarts, Process::of(w.pid?)?, stage.hurt(&names)?))
        });
        if let Some((name, restarts, process, _hurting)) = claimed {
            Strike { stage, role, name, restarts, begun: Instant::now() }.carry_out(
                Blow::draw(role, &mut random),
                process,
                &mut random,
            );
        }
    }
}

/// One of them.
struct Strike<'a> {
    stage: &'a Stage,
    role: Role,
    name: String,
    /// Restarts before it.
    restarts: u64,
    begun: Instant,
}

/// Milliseconds since then.
fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

impl Strike<'_> {
    fn entry(&self, blow: Blow) -> Entry {
        Entry { kind: blow.name(), target: self.name.clone(), role: Some(self.role), ..Entry::default() }
    }

    fn note(&self, mut entry: Entry) {
        entry.took_s = self.begun.elapsed().as_secs_f64();
        self.stage.note(entry);
    }

    fn broken(&self, blow: Blow, what: &str) {
        let shown = self.stage.status().and_then(|s| worker(&s, &self.name).cloned());
        self.stage.violations.add(format!("{} of {}: {what}: {shown:?}", blow.name(), self.name));
    }

    fn carry_out(&self, blow: Blow, process: Process, random: &mut fastrand::Rng) {
        if blow == Blow::Pause {
            return self.pause(process, random);
        }
        let camera = camera_of(&self.name).and_then(|name| self.stage.names.iter().position(|n| n == name));
        let deaf = camera.map(|camera| self.stage.ledger.deaf(camera, UNTOLD, false, &blow.name()));
        let mut entry = self.entry(blow);
        match self.kill(blow, process, &mut entry).and_then(|deaths| self.recovers(deaths, &mut entry)) {
            Ok(()) => self.note(entry),
            Err(what) => {
                self.broken(blow, what);
                self.note(entry);
            }
        }
        if let (Some(camera), Some(deaf)) = (camera, deaf) {
            if self.stage.wait_heard(camera, RECOVERY) {
                self.stage.ledger.hears_again(deaf);
            } else {
                self.broken(blow, "its camera is not heard again");
            }
        }
    }

    /// Brings the blow about, up to the death of the process that has to be replaced; returns how many have died.
    fn kill(&self, blow: Blow, process: Process, entry: &mut Entry) -> Result<u64, &'static str> {
        match blow {
            Blow::Kill => {
                process.signal(Signal::SIGKILL);
                dead(process, RECOVERY).ok_or("SIGKILL does not kill it")?;
                Ok(1)
            }
            Blow::Segfault => {
                let end = Instant::now() + RECOVERY;
                while process.signal(Signal::SIGSEGV) && Instant::now() < end {
                    sleep(LOOK);
                }
                dead(process, Duration::ZERO).ok_or("SIGSEGV does not kill it")?;
                Ok(1)
            }
            Blow::Stop => {
                let start = Instant::now();
                process.signal(Signal::SIGSTOP);
                let found = dead(process, FOUND);
                entry.killed_ms = Some(ms(start));
                match found {
                    Some(()) => {
                        entry.overrun_ms = self.overrun();
                        Ok(1)
                    }
                    None => {
                        process.signal(Signal::SIGCONT);
                        Err("it hangs and is not killed")
                    }
                }
            }
            Blow::Impostor(mode) => {
                let impostors = &self.stage.impostors;
                impostors.order(self.role, mode);
                process.signal(Signal::SIGKILL);
                dead(process, RECOVERY).ok_or("SIGKILL does not kill it")?;
                let impostor = self.impostor(process);
                // Whatever happens: no other fault is to meet one.
                impostors.cancel(self.role);
                // It may be dead before it is seen.
                if let Some(impostor) = impostor.ok_or("nothing was started in its place")? {
                    let start = Instant::now();
                    dead(impostor, FOUND).ok_or("the hostile one is left alive")?;
                    entry.killed_ms = Some(ms(start));
                }
                Ok(2)
            }
            Blow::Pause => Ok(1),
        }
    }

    /// By how much more than its deadline the process that was just killed had been silent.
    fn overrun(&self) -> Option<f64> {
        let silent = self.stage.watch(IDLE, |_| {
            let ask = |request: &Request| service::ask(&self.stage.socket, request).ok();
            let Reply::Postmortems { kept, .. } = ask(&Request::Postmortems {})? else { return None };
            let newest =
                kept.into_iter().filter(|s| s.worker == self.name).max_by(|a, b| a.time.cmp(&b.time))?;
            // An earlier one of the same worker: this one is not written yet.
            let at_us = timestamp::parse_since(&newest.time).ok()?;
            let since = Duration::from_micros(timestamp::now_us().saturating_sub(at_us).unsigned_abs());
            if since > self.begun.elapsed() {
                return None;
            }
            match ask(&Request::Postmortem { id: newest.id })? {
                Reply::Postmortem { postmortem } => Some(postmortem.silent_s),
                _ => None,
            }
        })?;
        let deadline = match self.role {
            Role::Capture | Role::Web | Role::Light => 5.0,
            Role::Infer => 4.0,
            Role::Sink => 10.0,
        };
        Some((silent - deadline) * 1000.0)
    }

    /// The hostile process that took the order, if it still lives.
    fn impostor(&self, old: Process) -> Option<Option<Process>> {
        self.stage.watch(RECOVERY, |status| {
            let found = worker(status, &self.name)?;
            if !self.stage.impostors.is_taken(self.role) {
                return None;
            }
            match found.restarts.saturating_sub(self.restarts) {
                0 => None,
                1 => found.pid.filter(|pid| *pid != old.pid).map(Process::of),
                _ => Some(None),
            }
        })
    }

    /// Waits until a worker works again after so many deaths, the last of which was just seen.
    fn recovers(&self, deaths: u64, entry: &mut Entry) -> Result<(), &'static str> {
        let start = Instant::now();
        let other = |status: &Status| {
            let found = worker(status, &self.name)?;
            let new = found.restarts >= self.restarts + deaths && found.state == WorkerState::Running;
            new.then(|| found.clone())
        };
        self.stage.watch(RECOVERY, other).ok_or("it is not replaced")?;
        entry.running_ms = Some(ms(start));
        let working = |status: &Status| other(status).filter(has_progressed);
        let infer = self.role == Role::Infer;
        match self.stage.watch(if infer { IDLE } else { RECOVERY }, working) {
            Some(_) => entry.working_ms = Some(ms(start)),
            None if infer => {}
            None => return Err("its replacement does not work"),
        }
        if entry.kind.ends_with("eat-memory")
            && let Some(exit) = self.stage.status().and_then(|s| worker(&s, &self.name)?.last_exit.clone())
            && exit == "exit status 77"
        {
            return Err("it could take as much memory as it liked");
        }
        Ok(())
    }

    /// Stops a worker and lets it go on before anybody has a reason to miss it.
    fn pause(&self, process: Process, random: &mut fastrand::Rng) {
        let start = Instant::now();
        process.signal(Signal::SIGSTOP);
        sleep(Duration::from_millis(random.u64(100..1500)));
        process.signal(Signal::SIGCONT);
        let stood = start.elapsed();
        // It goes on working, with the next window or report.
        let before = self.stage.status().and_then(|s| Some(worker(&s, &self.name)?.progress));
        let goes_on = self.stage.watch(RECOVERY, |status| {
            let found = worker(status, &self.name)?;
            (found.pid != Some(process.pid) || Some(found.progress) > before).then_some(found.pid)
        });
        let mut entry = self.entry(Blow::Pause);
        entry.working_ms = Some(ms(start + stood));
        // A host so busy that this thread slept for longer than it wanted is no fault of the service.
        if goes_on != Some(Some(process.pid)) && stood < Duration::from_secs(3) {
            self.broken(Blow::Pause, &format!("not left alone after {stood:?}"));
        }
        self.note(entry);
    }
}

/// Waits for a death.
fn dead(process: Process, within: Duration) -> Option<()> {
    let end = Instant::now() + within;
    while process.is_alive() {
        if Instant::now() >= end {
            return None;
        }
        sleep(LOOK);
    }
    Some(())
}
