//! One measurement: a fresh farm, a fresh system before it, a stretch of time, and everything that is counted over it.

use std::{
    collections::{BTreeMap, HashMap},
    thread::sleep,
    time::{Duration, Instant},
};

use nursery_shared::timestamp;
use serde::{Deserialize, Serialize};

use super::{
    alerts::{self, Alerts, Clocks, Decision},
    machine,
    mix::Mix,
    nursery,
    system::{self, Camera, Counters, Rivals, Setup, System, Which, role_of},
    usage::Accounts,
};
use crate::{
    farm::{
        CameraFarm, Kind,
        ledger::{Counts, Entry},
    },
    processes::Process,
    receiver::Receiver,
    slot::Slot,
};

/// How long alerts of the last cries are waited for.
const GRACE: Duration = Duration::from_secs(12);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    pub which: Which,
    pub cameras: u32,
    pub mix: Mix,
    pub warm_up: Duration,
    pub lasting: Duration,
    /// nursery: with its page.
    pub web: bool,
    pub rivals: Rivals,
}

/// How soon all cameras were heard and scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    pub live: usize,
    /// From the start of the program; `None` where not all of them were within the time given.
    pub after_s: Option<f64>,
    /// Why there will be no more.
    pub failed: Option<String>,
}

/// The farm during a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FarmFigures {
    pub cpu_s: f64,
    pub counts: Counts,
    /// Bounds, milliseconds: how late packets were sent.
    pub late_p50_ms: f64,
    pub late_p99_ms: f64,
    pub late_max_ms: f64,
    pub nice: i32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub system: Which,
    pub round: u32,
    pub at: String,
    pub cameras: u32,
    pub mix: String,
    pub readiness: Readiness,
    /// The stretch of time; 0 where nothing was measured since not all cameras were live.
    pub seconds: f64,
    /// Seconds of processor, by role.
    pub cpu_s: BTreeMap<String, f64>,
    pub processes: BTreeMap<String, usize>,
    /// Proportional memory at the end of it, bytes, by role.
    pub memory: BTreeMap<String, u64>,
    /// Processes whose memory could not be seen, and is missing there.
    pub memory_unseen: usize,
    pub counters: Counters,
    /// Seconds of audio that the cameras sent.
    pub sent_s: f64,
    /// Last sample of a window to its scores, p50 and p99 in milliseconds, by the system's own account.
    pub window_latency_ms: Option<(f64, f64)>,
    pub alerts: Alerts,
    pub farm: FarmFigures,
    /// Of all processors: busy, and busy with neither the farm nor the system.
    pub machine_busy: f64,
    pub others_busy: f64,
    pub memory_available: u64,
}

impl Measurement {
    /// Seconds of processor for an hour of a camera, all roles.
    pub fn cpu_per_camera_hour(&self) -> f64 {
        self.cpu_s.values().sum::<f64>() / f64::from(self.cameras) / self.seconds * 3600.0
    }

    /// Bytes of proportional memory per camera, all roles.
    pub fn memory_per_camera(&self) -> f64 {
        self.memory.values().sum::<u64>() as f64 / f64::from(self.cameras)
    }

    /// Audio that was scored, of what was sent.
    pub fn scored_share(&self) -> f64 {
        self.counters.scored_s / self.sent_s
    }

    /// More than one in a hundred windows was scored more than half a second after its last sample.
    fn is_late(&self) -> bool {
        let counted = self.counters.late.is_some_and(|late| late * 100 > self.counters.windows);
        counted || self.window_latency_ms.is_some_and(|(_, p99)| p99 > 500.0)
    }

    /// Why this was not bearable; nothing where it was.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(failed) = &self.readiness.failed {
            complaints.push(failed.clone());
        }
        if self.readiness.after_s.is_none() {
            complaints.push(format!("{} of {} cameras live", self.readiness.live, self.cameras));
        }
        if self.seconds == 0.0 {
            return complaints;
        }
        if self.counters.restarts > 0 {
            complaints.push(format!("{} processes died", self.counters.restarts));
        }
        if self.counters.dropped > 0 {
            complaints.push(format!("{} windows dropped", self.counters.dropped));
        }
        if self.is_late() {
            complaints.push("over 1 % of the windows scored more than 0.5 s late".into());
        }
        // Windows that are under way at the beginning and the end make up for each other but for a few.
        if self.scored_share() < 0.97 {
            complaints.push(format!("{:.1} % of the audio scored", self.scored_share() * 100.0));
        }
        let unread = self.farm.counts.dropped;
        if unread > 0 {
            complaints.push(format!("{unread} packets not taken from the cameras"));
        }
        if self.alerts.missed > 0 {
            complaints.push(format!("{} of {} cries missed", self.alerts.missed, self.alerts.cries));
        }
        complaints
    }

    /// Why it is not the system's doing, if so.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.farm.counts.late * 1000 > self.farm.counts.packets || self.farm.counts.skipped > 0 {
            let (late, skipped) = (self.farm.counts.late, self.farm.counts.skipped);
            doubts.push(format!("the farm was late with {late} packets and left out {skipped}"));
        }
        if self.memory_unseen > 0 {
            doubts.push(format!("the memory of {} processes is seen by root alone", self.memory_unseen));
        }
        if self.others_busy > 0.05 {
            doubts.push(format!("others took {:.0} % of the machine", self.others_busy * 100.0));
        }
        doubts
    }
}

/// The farm and what is before it, ready to be measured.
pub struct Stage {
    pub farm: CameraFarm,
    pub receiver: Receiver,
    pub system: Box<dyn System>,
    pub readiness: Readiness,
    names: HashMap<(Kind, u32), String>,
    clocks: Clocks,
    _slot: Slot,
}

/// The farm's totals at a moment.
struct FarmState {
    counts: Counts,
    lateness: crate::farm::Lateness,
    cpu_s: f64,
}

impl Stage {
    /// Starts the farm and the system, and waits until all cameras are heard and scored, or `patience` is over.
    pub fn set(plan: &Plan, patience: Duration) -> Result<Self, String> {
        // Whoever waits for his turn is not slow.
        let slot = Slot::take();
        let farm = CameraFarm::start(&plan.mix.kinds());
        let receiver = Receiver::start();
        let mut names = HashMap::new();
        let cameras: Vec<Camera> = (0..plan.cameras)
            .map(|n| {
                let (kind, name) = (plan.mix.kind(n), format!("cam-{n:03}"));
                names.insert((kind, n), name.clone());
                Camera { name, url: farm.url(kind, n) }
            })
            .collect();
        let setup = Setup {
            which: plan.which,
            cameras: &cameras,
            receiver: &receiver,
            rivals: &plan.rivals,
            web: plan.web,
            slot: &slot,
        };
        let (clocks, start) = (Clocks::read(), Instant::now());
        let mut system = system::start(&setup)?;
        // To look costs something as well, more with more cameras.
        let every = Duration::from_millis(50 + u64::from(plan.cameras));
        let readiness = loop {
            let failed = system.failed();
            let live = if failed.is_none() { system.live() } else { 0 };
            let after = start.elapsed();
            if live == cameras.len() {
                break Readiness { live, after_s: Some(after.as_secs_f64()), failed };
            }
            if failed.is_some() || after > patience {
                break Readiness { live, after_s: None, failed };
            }
            sleep(every);
        };
        Ok(Self { farm, receiver, system, readiness, names, clocks, _slot: slot })
    }

    /// The system's processes now.
    pub fn accounts(&self) -> Accounts {
        let (root, known) = (self.system.root(), self.system.roles());
        Accounts::of(root, |process| role_of(process, root, &known))
    }

    fn farm_state(&self) -> FarmState {
        match self.farm.totals() {
            Some(Entry::Totals { counts, lateness, cpu_s, .. }) => FarmState { counts, lateness, cpu_s },
            _ => FarmState { counts: Counts::default(), lateness: Default::default(), cpu_s: 0.0 },
        }
    }
}

/// Time that is given to so many cameras to be live.
pub fn patience(cameras: u32) -> Duration {
    Duration::from_secs(45) + Duration::from_millis(750) * cameras
}

/// Measures once.
pub fn measure(plan: &Plan, round: u32) -> Result<Measurement, String> {
    let at = timestamp::rfc3339(timestamp::now_us());
    let stage = Stage::set(plan, patience(plan.cameras))?;
    let mut measured = Measurement {
        system: plan.which,
        round,
        at,
        cameras: plan.cameras,
        mix: plan.mix.to_string(),
        readiness: stage.readiness.clone(),
        seconds: 0.0,
        cpu_s: BTreeMap::new(),
        processes: BTreeMap::new(),
        memory: BTreeMap::new(),
        memory_unseen: 0,
        counters: Counters::default(),
        sent_s: 0.0,
        window_latency_ms: None,
        alerts: Alerts::default(),
        farm: FarmFigures {
            cpu_s: 0.0,
            counts: Counts::default(),
            late_p50_ms: 0.0,
            late_p99_ms: 0.0,
            late_max_ms: 0.0,
            nice: stage.farm.nice(),
        },
        machine_busy: 0.0,
        others_busy: 0.0,
        memory_available: 0,
    };
    if stage.readiness.after_s.is_some() {
        sleep(plan.warm_up);
        watch(&stage, plan, &mut measured);
    }
    let Stage { farm, system, .. } = stage;
    system.stop();
    farm.finish();
    Ok(measured)
}

/// Counters, and the time to which they belong: rivals tell them every other second.
fn counters(system: &dyn System) -> (Counters, Instant) {
    let first = system.counters().unwrap_or_default();
    if system.window_latency_ms().is_some() {
        return (first, Instant::now());
    }
    let until = Instant::now() + Duration::from_secs(4);
    loop {
        let now = system.counters().unwrap_or_default();
        if now != first || Instant::now() > until {
            return (now, Instant::now());
        }
        sleep(Duration::from_millis(5));
    }
}

fn watch(stage: &Stage, plan: &Plan, measured: &mut Measurement) {
    let (earlier, told_at) = counters(stage.system.as_ref());
    let (start, from_us) = (Instant::now(), timestamp::now_us());
    let (accounts, farm, busy) = (stage.accounts(), stage.farm_state(), machine::seconds());
    let own = own_seconds();
    sleep(plan.lasting.saturating_sub(start.elapsed()));
    let (farm_after, busy_after) = (stage.farm_state(), machine::seconds());
    let (accounts_after, to_us, span) = (stage.accounts(), timestamp::now_us(), start.elapsed());
    let own_after = own_seconds();
    let (later, told_after) = counters(stage.system.as_ref());
    let memory = accounts_after.memory();
    (measured.memory, measured.memory_unseen) = (memory.by_role, memory.closed);
    measured.memory_available = machine::meminfo("MemAvailable");
    measured.seconds = span.as_secs_f64();
    measured.cpu_s = accounts_after.since(&accounts);
    measured.processes = accounts_after.processes();
    measured.counters = Counters {
        windows: later.windows.saturating_sub(earlier.windows),
        dropped: later.dropped.saturating_sub(earlier.dropped),
        late: later.late.map(|late| late.saturating_sub(earlier.late.unwrap_or(0))),
        scored_s: later.scored_s - earlier.scored_s,
        restarts: later.restarts - earlier.restarts,
    };
    measured.sent_s = (told_after - told_at).as_secs_f64() * f64::from(plan.cameras);
    measured.window_latency_ms = stage.system.window_latency_ms();
    let lateness = farm_after.lateness.since(&farm.lateness);
    measured.farm = FarmFigures {
        cpu_s: farm_after.cpu_s - farm.cpu_s,
        counts: farm_after.counts.since(&farm.counts),
        late_p50_ms: lateness.quantile_us(0.5) as f64 / 1000.0,
        late_p99_ms: lateness.quantile_us(0.99) as f64 / 1000.0,
        late_max_ms: lateness.worst_us as f64 / 1000.0,
        nice: stage.farm.nice(),
    };
    let (busy_s, all_s) = (busy_after.0 - busy.0, (busy_after.1 - busy.1).max(0.01));
    measured.machine_busy = busy_s / all_s;
    let known = measured.cpu_s.values().sum::<f64>() + measured.farm.cpu_s + own_after - own;
    measured.others_busy = ((busy_s - known) / all_s).max(0.0);
    sleep(GRACE);
    let shape = nursery::shape();
    let decision = match plan.which {
        Which::Nursery => Decision::ByFrame(&shape),
        _ => Decision::Stated,
    };
    let (ledger, span) = (stage.farm.ledger(), (from_us, to_us));
    measured.alerts =
        alerts::judge(plan.which, &stage.names, &ledger, &stage.receiver, &stage.clocks, &decision, span);
}

/// Seconds of processor of this program.
fn own_seconds() -> f64 {
    let Some(this) = Process::of(std::process::id()) else { return 0.0 };
    Accounts::alone(this)
}
