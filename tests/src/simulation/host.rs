//! What befalls all at once: the host and its clocks, the disk, the supervisor itself, and operators with their
//! wishes.

use std::{path::Path, time::Duration};

use nursery_shared::{
    config::{self, AlertReach, Config, SourceText, Transport},
    control::PoolSize,
    message::{ModelShape, Role, ToWorker},
    status::WorkerState,
};
use nursery_supervisor::policy::Action;
use serde_json::json;

use super::{
    faults::Fault,
    models::{MODELS, Model},
    world::{Due, World, millis},
};

/// Wall-clock time of the beginning, microseconds since 1970.
pub const EPOCH_US: i64 = 1_800_000_000_000_000;

/// The configuration that a seed begins with.
pub fn configuration(rng: &mut fastrand::Rng, isolation: bool) -> Config {
    let count = if isolation { 3 } else { rng.usize(1..5) };
    let cameras: Vec<_> =
        (0..count).map(|n| json!({"name": format!("c{n}"), "source": "synthetic:cry"})).collect();
    let alerts: Vec<_> = (0..rng.usize(0..4)).map(receiver).collect();
    let healthy = [0.5, 2.0, 10.0, 60.0][rng.usize(..4)];
    let workers = if isolation {
        json!(3)
    } else {
        [json!(1), json!(2), json!(3), json!("auto")][rng.usize(..4)].clone()
    };
    let (max_batch, offline) = ([1, 2, 16][rng.usize(..3)], [5, 10, 30][rng.usize(..3)]);
    let text = json!({
        "cameras": cameras,
        "alerts": alerts,
        "inference": {"workers": workers, "max_batch": max_batch},
        "detection": {"min_duration_s": 0.1, "end_after_s": 0.5, "cooldown_s": 0, "adaptive": false,
                      "offline_after_s": offline},
        "supervision": {"healthy_after_s": healthy},
    });
    let mut config = config::from_json(&text.to_string(), Path::new(".")).expect("a valid configuration");
    if !isolation
        && rng.u8(..3) == 0
        && let Some(last) = config.cameras.last_mut()
    {
        last.source = SourceText::new("file:recording.wav");
        last.realtime = false;
    }
    config
}

fn receiver(n: usize) -> serde_json::Value {
    json!({"type": "webhook", "url": format!("http://r{n}.example/")})
}

impl World {
    /// The receivers that are configured now.
    pub fn receivers(&self) -> Vec<String> {
        self.config.alerts.iter().filter_map(|a| a.url.as_ref()).map(|u| u.expose().to_owned()).collect()
    }

    pub(super) fn host_fault(&mut self) {
        if self.calm {
            return;
        }
        let heat = self.intensity.host;
        let isolation = self.options.isolation;
        let wait = self.millis_of("host", 300..6_000);
        if heat > 0.0 {
            // Compared runs must not differ in who was late: every standstill is a long one.
            let shortest = if isolation { 30_000 } else { 50 };
            let longest =
                if isolation { 90_000 } else { [3_000, 9_000, 70_000][self.stream("host").usize(..3)] };
            let time = self.millis_of("host", shortest..longest);
            match self.stream("host").u8(..if isolation { 2 } else { 9 }) {
                0..=2 => {
                    self.fault(Fault::HostSuspended, "host");
                    self.agenda.postpone(time);
                    self.now = self.now + time;
                    self.stood_still_at = self.now;
                }
                3..=5 => {
                    self.fault(Fault::SupervisorStopped, "supervisor");
                    self.stopped = true;
                    self.plan(time, Due::Resume);
                    self.stood_still_at = self.now + time;
                }
                6..=7 => {
                    self.fault(Fault::ClockJumps, "host");
                    let hour = 3_600_000_000;
                    let earliest = if self.goes_back { -hour } else { 0 };
                    self.wall_offset += self.stream("host").i64(earliest..hour);
                }
                _ if self.stream("host").u8(..4) == 0 => self.kill_supervisor(),
                _ => {}
            }
        }
        let wait = if self.stopped { wait + Duration::from_secs(70) } else { wait };
        self.plan(wait.div_f64(heat.max(0.3)), Due::Host);
    }

    /// SIGKILL; its workers die with it, and another one begins with the same disk.
    fn kill_supervisor(&mut self) {
        self.fault(Fault::SupervisorKilled, "supervisor");
        let Ok(store) = super::disk::SimStore::open(&self.disk) else { return };
        let states = nursery_worker::sink::store::Storage::cameras(&store).unwrap_or_default();
        drop(store);
        self.disk.borrow_mut().alerts.begin_anew(states);
        self.begin_supervisor();
    }

    pub(super) fn disk_fills(&mut self, full: bool) {
        let full = full && !self.calm && self.intensity.sink > 0.0;
        self.disk.borrow_mut().full = full;
        let wait =
            if full { self.millis_of("disk", 50..4_000) } else { self.millis_of("disk", 1_000..12_000) };
        self.plan(wait, Due::DiskFull(!full));
    }

    pub(super) fn operator_acts(&mut self) {
        if self.calm {
            return;
        }
        let heat = self.intensity.operator;
        if heat > 0.0 && !self.stopped {
            match self.stream("operator").u8(..7) {
                0 | 1 => self.restart_somebody(),
                2 => self.scale(),
                3 => self.other_model(),
                _ => self.reload(),
            }
        }
        let wait = self.millis_of("operator", 300..8_000);
        self.plan(wait.div_f64(heat.max(0.3)), Due::Operator);
    }

    /// Whoever waits to be started, or rests, and is asked for is started at once.
    fn at_once(&mut self, asked: impl Fn(&str, Role) -> bool) {
        let slots: Vec<u32> = self
            .policy
            .slots()
            .filter(|s| s.wanted && !s.stand_in && asked(s.name, s.role))
            .filter(|s| matches!(s.state, WorkerState::Backoff | WorkerState::Stopped))
            .map(|s| s.number)
            .collect();
        let now = self.now;
        slots.into_iter().for_each(|slot| self.law.at_once(slot, now));
    }

    fn restart_somebody(&mut self) {
        let names = ["sink", "infer", "capture", "all", "infer:0", "c0", "c1", "capture:c2", "nobody"];
        let name = names[self.stream("operator").usize(..names.len())];
        self.fault(Fault::Restart, name);
        let capture = format!("capture:{name}");
        if matches!(name, "all" | "capture") {
            let cameras = self.policy.slots().filter(|s| s.role == Role::Capture).map(|s| s.number);
            self.to_be_restarted = cameras.collect();
        }
        self.at_once(|n, role| n == name || n == capture || role.as_str() == name || name == "all");
        let (now, wall_us) = (self.now, self.wall_us());
        let (_, actions) = self.policy.restart(now, wall_us, name);
        let accounts = self.policy.accounts();
        self.perform_and_audit(actions, &accounts);
    }

    fn scale(&mut self) {
        let size = match self.stream("operator").u32(..5) {
            0 => PoolSize::Auto,
            n => PoolSize::Fixed(n),
        };
        self.fault(Fault::Scale, "operator");
        let (now, wall_us) = (self.now, self.wall_us());
        let (_, actions) = self.policy.scale(now, wall_us, size);
        let accounts = self.policy.accounts();
        self.perform_and_audit(actions, &accounts);
        let wanted = self.policy.slots().filter(|s| s.wanted && s.role == Role::Infer && !s.stand_in).count();
        if let PoolSize::Fixed(n) = size
            && wanted != n as usize
        {
            self.violated(format!("{wanted} inference processes are wanted instead of {n}"));
        }
    }

    fn reload(&mut self) {
        self.fault(Fault::Reload, "operator");
        let mut config = self.config.clone();
        let roll = self.stream("operator").u8(..10);
        let nth = self.stream("operator").usize(..config.cameras.len());
        match roll {
            0..=2 => {
                let free =
                    (0..6).map(|n| format!("c{n}")).find(|n| config.cameras.iter().all(|c| c.name != *n));
                if let (Some(name), Some(like)) = (free, config.cameras.first().cloned()) {
                    let source = SourceText::new("synthetic:cry");
                    config.cameras.push(config::CameraConfig { name, source, realtime: true, ..like });
                }
            }
            3 | 4 if config.cameras.len() > 1 => {
                config.cameras.remove(nth);
            }
            5 => {
                let camera = &mut config.cameras[nth];
                camera.transport =
                    if camera.transport == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
                let name = format!("capture:{}", camera.name);
                self.at_once(|n, _| n == name);
            }
            6 => config.inference.threads = 3 - config.inference.threads,
            7 => {
                config.inference.max_batch = [1, 2, 16][self.stream("operator").usize(..3)];
                self.truth.batches(config.inference.max_batch as usize);
            }
            _ => {
                let n = self.stream("operator").usize(0..4);
                let text = json!({"cameras": [{"name": "x", "source": "synthetic:cry"}],
                                  "alerts": (0..n).map(receiver).collect::<Vec<_>>()});
                let other = config::from_json(&text.to_string(), Path::new("."));
                config.alerts = other.expect("a valid configuration").alerts;
            }
        }
        self.go_over_to(config, None);
        for camera in &self.config.cameras {
            let name = format!("capture:{}", camera.name);
            let wanted = self.policy.slots().filter(|s| s.wanted && s.name == name).count();
            if wanted != 1 {
                let text = format!("{name} is wanted {wanted} times");
                return self.violated(text);
            }
        }
    }

    /// A reload with another model; some of them nobody can load.
    fn other_model(&mut self) {
        self.fault(Fault::NewModel, "operator");
        let model = Model::nth(self.stream("operator").u32(..MODELS));
        let mut config = self.config.clone();
        config.inference.model = model.path();
        let shape = model.shape(self.hop_us);
        self.go_over_to(config, Some(shape));
    }

    /// A reload, which tells nobody to go whose part of the configuration did not change.
    fn go_over_to(&mut self, config: Config, model: Option<ModelShape>) {
        let reach = |c: &Config| AlertReach::of(&c.alerts, c.heartbeat.as_ref());
        let old = std::mem::replace(&mut self.config, config.clone());
        let mut concerned: Vec<String> = old
            .cameras
            .iter()
            .filter(|c| !self.config.cameras.contains(c))
            .map(|c| format!("capture:{}", c.name))
            .collect();
        if reach(&old) != reach(&self.config) {
            concerned.push("sink".into());
        }
        let (now, wall_us) = (self.now, self.wall_us());
        let (_, actions) = self.policy.reload(now, wall_us, config, model);
        for action in &actions {
            let Action::Send { key, message } = action else { continue };
            let Some(process) = self.processes.get(&key.slot).filter(|_| **message == ToWorker::Drain) else {
                continue;
            };
            let stands_in = process.name.contains("stand-in");
            if !stands_in && !concerned.iter().any(|name| **name == *process.name) && !self.in_turn(key.slot)
            {
                let text = format!("a reload that does not concern {} ends its process", process.name);
                return self.violated(text);
            }
        }
        let accounts = self.policy.accounts();
        self.perform_and_audit(actions, &accounts);
    }

    /// Its turn may have come just now in a renewal or restart that was asked for before.
    fn in_turn(&self, slot: u32) -> bool {
        self.to_be_restarted.contains(&slot)
            || self.policy.slots().any(|s| s.number == slot && s.role == Role::Infer)
    }

    /// From here on nothing goes wrong.
    pub fn become_calm(&mut self) {
        self.calm = true;
        self.disk.borrow_mut().full = false;
        self.plan(millis(0), Due::DiskFull(false));
    }
}
