//! An operator who reloads again and again while everything is hurt: cameras, receivers, settings and the pool come, go
//! and change, and whoever is not concerned must keep his process.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use nursery_shared::{
    changes::Changes,
    control::{Reply, Request},
    message::Role,
    status::{CameraState, Status, WorkerState},
};
use serde_json::{Value, json};

use super::{
    report::Entry,
    stage::{RECOVERY, Stage, worker},
};
use crate::service;

/// What is done to a capture process may cost what it had heard and not told yet.
const UNTOLD: Duration = Duration::from_millis(500);
/// The camera that comes and goes; nobody cries before it.
const EXTRA: &str = "extra";

/// What the next configuration has that the usual one has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    ExtraCamera,
    ChangedCamera(usize),
    Threads,
    LargerPool,
    MaxBatch,
    Detection,
    AnotherReceiver,
    ReceiverThatReachesFurther,
    ReceiverWithAnotherLimit,
    ManyThings,
    /// Nothing of it may be taken up.
    BadFile,
}

impl Change {
    fn nth(n: usize, cameras: usize) -> Self {
        use Change::*;
        let all = [
            ExtraCamera,
            ChangedCamera(n % cameras),
            Threads,
            LargerPool,
            MaxBatch,
            BadFile,
            Detection,
            AnotherReceiver,
            ReceiverThatReachesFurther,
            ReceiverWithAnotherLimit,
            ManyThings,
        ];
        all[n % all.len()]
    }

    fn name(self) -> &'static str {
        match self {
            Change::ExtraCamera => "reload: a camera more",
            Change::ChangedCamera(_) => "reload: a camera changed",
            Change::Threads => "reload: inference.threads",
            Change::LargerPool => "reload: a larger pool",
            Change::MaxBatch => "reload: inference.max_batch",
            Change::Detection => "reload: detection",
            Change::AnotherReceiver => "reload: a receiver more",
            Change::ReceiverThatReachesFurther => "reload: a receiver that reaches further",
            Change::ReceiverWithAnotherLimit => "reload: a receiver changed",
            Change::ManyThings => "reload: many things",
            Change::BadFile => "reload: a bad file",
        }
    }

    /// Workers, and the cameras they are of, whose processes it may replace.
    fn concerns(self, stage: &Stage) -> Vec<String> {
        match self {
            Change::ChangedCamera(n) => {
                let name = &stage.names[n];
                vec![name.clone(), format!("capture:{name}")]
            }
            Change::Threads => vec!["infer:0".into(), "infer:1".into()],
            Change::ReceiverThatReachesFurther => vec!["sink".into()],
            _ => Vec::new(),
        }
    }

    /// The usual configuration with this change.
    fn of(self, usual: &Value) -> Value {
        let mut config = usual.clone();
        match self {
            Change::ExtraCamera => add(&mut config["cameras"], service::camera(EXTRA, "synthetic:noise")),
            Change::ChangedCamera(n) => config["cameras"][n]["noise_gate"] = json!(true),
            Change::Threads => config["inference"]["threads"] = json!(2),
            Change::LargerPool => config["inference"]["workers"] = json!(3),
            Change::MaxBatch => config["inference"]["max_batch"] = json!(2),
            Change::Detection => config["detection"]["sustained_s"] = json!(0.1),
            Change::AnotherReceiver => add(&mut config["alerts"], json!({"type": "log"})),
            Change::ReceiverThatReachesFurther => {
                add(&mut config["alerts"], json!({"type": "exec", "command": "true"}));
            }
            Change::ReceiverWithAnotherLimit => config["alerts"][0]["timeout_s"] = json!(7),
            Change::ManyThings => {
                for one in
                    [Change::ExtraCamera, Change::LargerPool, Change::MaxBatch, Change::AnotherReceiver]
                {
                    config = one.of(&config);
                }
            }
            Change::BadFile => config["inference"]["max_batch"] = json!(0),
        }
        config
    }

    /// It is in force: nobody is on his way any more.
    fn is_in_force(self, status: &Status, before: &BTreeMap<String, u32>, replaced: bool) -> bool {
        let pool = |n: usize| {
            let infer: Vec<_> = status.workers.iter().filter(|w| w.role == Role::Infer).collect();
            infer.len() == n && infer.iter().all(|w| w.state == WorkerState::Running)
        };
        let extra = || status.cameras.iter().find(|c| c.name == EXTRA);
        let with_extra = || match replaced {
            true => extra().is_some_and(|c| c.state == CameraState::Live),
            false => extra().is_none() && worker(status, "capture:extra").is_none(),
        };
        let renewed = |names: &[&str]| {
            names.iter().all(|name| {
                let now =
                    worker(status, name).filter(|w| w.state == WorkerState::Running).and_then(|w| w.pid);
                now.is_some() && now != before.get(*name).copied()
            })
        };
        match self {
            Change::ExtraCamera => with_extra(),
            Change::LargerPool => pool(if replaced { 3 } else { 2 }),
            Change::ManyThings => with_extra() && pool(if replaced { 3 } else { 2 }),
            Change::Threads => pool(2) && renewed(&["infer:0", "infer:1"]),
            Change::ReceiverThatReachesFurther => renewed(&["sink"]),
            _ => true,
        }
    }
}

fn add(list: &mut Value, one: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(one);
    }
}

/// The processes that run now, by worker.
fn pids(status: &Status) -> BTreeMap<String, u32> {
    let running = status.workers.iter().filter(|w| w.state == WorkerState::Running);
    running.filter_map(|w| Some((w.name.clone(), w.pid?))).collect()
}

/// Reloads so many times, there and back, while there is time.
pub fn reload_again_and_again(
    stage: &Stage,
    config: &Path,
    usual: &Value,
    reloads: u32,
    mut random: fastrand::Rng,
) {
    let pairs = reloads.div_ceil(2);
    if pairs == 0 {
        return;
    }
    // A reload takes a while itself, and what it wants may be hurt just then.
    let between = stage.end.saturating_duration_since(Instant::now()) / pairs / 2;
    let first = random.usize(..100);
    let mut done = 0;
    for n in first.. {
        stage.pause(between.mul_f64(0.2 + 0.8 * random.f64()));
        let _busy = stage.calm.read().unwrap();
        if !stage.goes_on() || done == pairs {
            return;
        }
        let change = Change::nth(n, stage.names.len());
        let concerned = change.concerns(stage);
        let names: Vec<&str> = concerned.iter().map(String::as_str).collect();
        let Some(_hurting) = stage.hurt(&names) else { continue };
        let operator = Operator { stage, config, change };
        operator.reload(&change.of(usual), true);
        operator.reload(usual, false);
        done += 1;
    }
}

struct Operator<'a> {
    stage: &'a Stage,
    config: &'a Path,
    change: Change,
}

impl Operator<'_> {
    fn broken(&self, what: &str) {
        self.stage.violations.add(format!("{}: {what}", self.change.name()));
    }

    /// Puts a configuration in place and has it taken up; `there`: the changed one.
    fn reload(&self, config: &Value, there: bool) {
        let (stage, begun) = (self.stage, Instant::now());
        let Some(status) = stage.status() else { return self.broken("the service does not answer") };
        let before = pids(&status);
        let hurt: Vec<&String> = before.keys().filter(|name| stage.is_hurt(name)).collect();
        let camera = match self.change {
            Change::ChangedCamera(n) => Some((n, stage.ledger.deaf(n, UNTOLD, false, self.change.name()))),
            _ => None,
        };
        service::put_config(self.config, config);
        let bad = there && self.change == Change::BadFile;
        match service::ask(&stage.socket, &Request::Reload {}) {
            Ok(Reply::Reloaded { changes }) if !bad => self.judge(&changes),
            Ok(Reply::Refused { message }) if bad && message.contains("inference.max_batch") => {}
            other => self.broken(&format!("answered by {other:?}")),
        }
        let in_force =
            |status: &Status| self.change.is_in_force(status, &before, there).then(|| pids(status));
        let Some(after) = stage.watch(RECOVERY, in_force) else {
            return self.broken(&format!("not in force after {RECOVERY:?}: {:?}", stage.status()));
        };
        if let Some((camera, deaf)) = camera {
            if stage.wait_heard(camera, RECOVERY) {
                stage.ledger.hears_again(deaf);
            } else {
                self.broken("its camera is not heard again");
            }
        }
        let mut entry = Entry {
            kind: self.change.name().into(),
            target: match self.change.concerns(stage) {
                whole if whole.is_empty() => "the configuration".into(),
                whom => whom.join(", "),
            },
            back_ms: Some(begun.elapsed().as_secs_f64() * 1000.0),
            ..Entry::default()
        };
        let concerned = self.change.concerns(stage);
        let leaves = |name: &str| name == "capture:extra" || name == "infer:2" || name.contains("stand-in");
        for (name, pid) in &before {
            let excused = hurt.contains(&name) || stage.is_hurt(name);
            if after.get(name) != Some(pid) && !excused && !concerned.contains(name) && !leaves(name) {
                self.broken(&format!("{name} had process {pid} and has {:?} now", after.get(name)));
            }
        }
        entry.took_s = begun.elapsed().as_secs_f64();
        stage.note(entry);
    }

    /// The answer names what it should.
    fn judge(&self, changes: &Changes) {
        let named = match self.change {
            Change::ExtraCamera => changes.cameras.added.len() + changes.cameras.removed.len() == 1,
            Change::ChangedCamera(n) => changes.cameras.changed == [self.stage.names[n].clone()],
            Change::AnotherReceiver | Change::ReceiverThatReachesFurther => {
                changes.receivers.added.len() + changes.receivers.removed.len() == 1
            }
            Change::ReceiverWithAnotherLimit => changes.receivers.changed.len() == 1,
            Change::BadFile => changes.is_empty(),
            Change::Threads | Change::LargerPool | Change::MaxBatch | Change::Detection => {
                changes.settings.len() == 1
            }
            Change::ManyThings => changes.settings.len() == 2,
        };
        if !named {
            self.broken(&format!("the answer is {changes:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_comes_and_all_but_one_make_a_configuration_that_is_accepted() {
        let usual = service::config([service::camera("c0", "synthetic:noise")], [json!({"type": "log"})]);
        let mut usual = usual;
        usual["alerts"] = json!([{"type": "webhook", "url": "http://127.0.0.1:9/x"}]);
        let mut refused = Vec::new();
        for n in 0..11 {
            let change = Change::nth(n, 1);
            let text = change.of(&usual).to_string();
            assert_ne!(text, usual.to_string(), "{change:?}");
            if nursery_shared::config::from_json(&text, Path::new(".")).is_err() {
                refused.push(change);
            }
        }
        assert_eq!(refused, [Change::BadFile]);
    }
}
