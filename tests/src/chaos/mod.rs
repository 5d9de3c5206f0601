//! Violence: a real service on real cameras with a real receiver, in which everything is killed, stopped, starved,
//! lied to and cut off, while babies cry on a schedule. A ledger of what was played is held against what the receiver
//! got; see [`ledger`] for what is owed. Who hurts what is drawn from a seed, so that a run can be repeated as far as the
//! machine does.
//!
//! The host's clock is not touched: it belongs to everybody on the machine, and there is no clean way to give whole
//! processes another one. Clocks that jump are simulated instead (`crate::simulation`).

mod baby;
mod clips;
mod disasters;
mod disk;
mod fault;
mod impostors;
mod ledger;
mod operator;
mod outside;
mod report;
mod stage;
mod vitals;
mod watcher;
mod workers;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nursery_shared::postmortem::{DIRECTORY, MAX_FILES};
use serde_json::{Value, json};

use crate::{
    http::free_port,
    processes::Process,
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    temp_dir::TempDir,
    wait,
};
use baby::{Baton, Phase};
use disk::Disk;
use fault::Disaster;
pub use impostors::Impostors;
pub use report::{Entry, Report};
use stage::{RECOVERY, ROLES, Stage};
use vitals::{Life, Vitals};

/// `detection.offline_after_s` of these services.
const OFFLINE_AFTER: Duration = Duration::from_secs(5);
/// What a supervisor is given before it is looked at for the first time.
const WARM_UP: Duration = Duration::from_secs(10);
/// In this part of a run the supervisor may be killed; the rest of it one supervisor has to live through.
const KILLED_WITHIN: f64 = 0.35;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long there are new faults; the run takes a minute or two more.
    pub lasting: Duration,
    pub cameras: usize,
    pub seed: u64,
    /// Between two faults that concern everything, at the most.
    pub disaster_every: Duration,
    /// Stop the supervisor for so long once, in the middle of the run.
    pub standstill: Option<Duration>,
    /// Reloads that an operator makes meanwhile.
    pub reloads: u32,
    /// Mebibytes of `supervision.worker_memory_mb`, and so what hostile workers eat.
    pub worker_memory_mb: u64,
}

fn configuration(options: &Options, names: &[String], cameras: &[RtspCamera], receiver: &Receiver) -> Value {
    let list = names.iter().zip(cameras).map(|(name, device)| camera(name, device.url()));
    let mut config = config(list, [receiver.alert()]);
    config["inference"]["workers"] = json!(2);
    config["detection"] =
        json!({"end_after_s": 2, "cooldown_s": 0, "offline_after_s": OFFLINE_AFTER.as_secs()});
    // Nobody is to notice what becomes of it.
    config["web"] = json!({"listen": format!("127.0.0.1:{}", free_port())});
    config["clips"] = json!({"keep_mb": clips::KEEP_MB});
    config["supervision"] = json!({"healthy_after_s": 1, "worker_memory_mb": options.worker_memory_mb});
    config
}

/// Runs from the first start to the last stop, and reports. The calling thread gets file systems of its own where the
/// system allows that.
pub fn run(options: &Options) -> Report {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let names: Vec<String> = (0..options.cameras).map(|n| format!("c{n}")).collect();
    let codecs = [Codec::L16, Codec::Pcmu, Codec::Pcma];
    let cameras: Vec<RtspCamera> =
        (0..options.cameras).map(|n| RtspCamera::start(codecs[n % codecs.len()])).collect();
    let receiver = Receiver::start();
    let config = configuration(options, &names, &cameras, &receiver);

    let dir = TempDir::new();
    let (state, impostors) = (dir.join("state"), Impostors::new(dir.path()));
    fs::create_dir(&state).expect("make the state directory");
    let mut notes = Vec::new();
    let disk = Disk::mount(&state)
        .inspect_err(|e| {
            notes.push(format!("no faults of the disk: it cannot have one of its own here ({e})"))
        })
        .ok();
    let mut service = Service::start_in(dir, &config, impostors.worker());
    service.wait_live(&names.iter().map(String::as_str).collect::<Vec<_>>());

    let config_path = service.config_path();
    let (socket, supervisor) = (service.socket(), service.process());
    let stage = Stage::new(names, cameras, receiver, impostors, socket, supervisor, options.lasting);
    let mut run = Run {
        options,
        stage: &stage,
        disk: disk.as_ref(),
        lives: Vec::new(),
        life: None,
        born: Instant::now(),
    };
    let (baton, over) = (Baton::default(), AtomicBool::new(false));
    let kept = clips::directory(&state);
    let (extremes, most_bytes, reader) = std::thread::scope(|scope| {
        let keeping = scope.spawn(|| clips::watch(&kept, &over, &stage.violations));
        let reading = scope.spawn(|| clips::Reader::new().follow(&kept, &over));
        let watching = scope.spawn(|| watcher::watch(&stage, &over));
        let playing = {
            let random = random.fork();
            scope.spawn(|| baby::play(&stage, &stage.ledger, &baton, random))
        };
        let mut lanes = Vec::new();
        for role in ROLES {
            let (stage, random) = (&stage, random.fork());
            lanes.push(scope.spawn(move || workers::hurt_role(stage, role, random)));
        }
        let (a, b, stage) = (random.fork(), random.fork(), &stage);
        if options.reloads > 0 {
            let (random, path, usual) = (random.fork(), &config_path, &config);
            lanes.push(scope.spawn(move || {
                operator::reload_again_and_again(stage, path, usual, options.reloads, random);
            }));
        }
        lanes.push(scope.spawn(move || outside::trouble_cameras(stage, a)));
        lanes.push(scope.spawn(move || outside::trouble_receiver(stage, b)));
        // Whoever panics here must not leave the others at work for ever.
        let struck = AssertUnwindSafe(|| run.disasters(&mut service, &mut random));
        if let Err(panic) = catch_unwind(struck) {
            over.store(true, Ordering::SeqCst);
            baton.pass(Phase::Encore);
            resume_unwind(panic);
        }
        for lane in lanes {
            if lane.join().is_err() {
                stage.violations.add("the run itself is broken: a thread of it panicked".into());
            }
        }
        baton.pass(Phase::Quiet);
        if let Err(ill) = stage.wait_well(RECOVERY) {
            stage.violations.add(format!("not well after the last fault: {ill}"));
        }
        baton.pass(Phase::Encore);
        if playing.join().is_err() {
            stage.violations.add("the run itself is broken: no baby cries any more".into());
        }
        over.store(true, Ordering::SeqCst);
        let Ok(reader) = reading.join() else {
            stage.violations.add("the run itself is broken: nobody reads the clips any more".into());
            return (Default::default(), 0, clips::Reader::new());
        };
        (watching.join().unwrap_or_default(), keeping.join().unwrap_or_default(), reader)
    });
    run.settle();
    run.bury();
    let lives = std::mem::take(&mut run.lives);
    let postmortems = fs::read_dir(state.join(DIRECTORY)).map_or(0, Iterator::count);
    let stored = fs::read_dir(&state).into_iter().flatten().flatten();
    let damaged = stored.filter(|file| file.file_name().to_string_lossy().contains("damaged")).count();
    let seconds = stage.begun.elapsed().as_secs_f64();
    if !service.stop().status.success() {
        stage.violations.add("the service did not stop as it should".into());
    }
    let (clips, unplayable) = reader.finish(&kept, most_bytes);
    // Before the disk below it.
    drop(service);
    drop(disk);

    let ledger = stage.ledger.judge(&stage.names, &stage.receiver.requests());
    let mut violations = stage.violations.all();
    violations.extend(ledger.lost.iter().map(|what| format!("lost: {what}")));
    violations.extend(ledger.wrong.iter().cloned());
    violations.extend(unplayable);
    violations.extend(lives.iter().flat_map(|life| life.growth(options.cameras)));
    // On a host that gives a worker no time for seconds a deadline may pass without anybody's fault; nobody dies of that.
    let innocent = extremes.unprovoked.iter().filter(|how| !how.contains("killed: hung"));
    violations.extend(innocent.map(|who| format!("died although nothing was done to it: {who}")));
    if damaged > 0 {
        violations.push(format!("the store was taken for damaged {damaged} times"));
    }
    if postmortems > MAX_FILES {
        violations.push(format!("{postmortems} post-mortems, at most {MAX_FILES} are kept"));
    }
    let faults = std::mem::take(&mut *stage.entries.lock().unwrap());
    Report {
        seed: options.seed,
        seconds,
        cameras: options.cameras,
        faults,
        ledger,
        supervisors: lives,
        extremes,
        clips,
        postmortems,
        notes,
        violations,
    }
}

/// The main thread's part.
struct Run<'a> {
    options: &'a Options,
    stage: &'a Stage,
    disk: Option<&'a Disk>,
    lives: Vec<Life>,
    /// Process, first look, and when that was.
    life: Option<(Process, Vitals, Instant)>,
    /// When the present supervisor was started.
    born: Instant,
}

impl Run<'_> {
    /// Brings disasters about while there is time.
    fn disasters(&mut self, service: &mut Service, random: &mut fastrand::Rng) {
        let (mut n, first) = (0, random.usize(..100));
        let every = self.options.disaster_every.as_millis() as u64;
        let mut standstill = self.options.standstill;
        while self.stage.goes_on() {
            let next = Instant::now() + Duration::from_millis(random.u64(every / 2..=every));
            while self.stage.goes_on() && Instant::now() < next {
                self.stage.pause(Duration::from_secs(1));
                self.look();
            }
            if !self.stage.goes_on() {
                return;
            }
            let passed = self.stage.begun.elapsed().as_secs_f64() / self.options.lasting.as_secs_f64();
            let mut disaster = match n {
                // Each run kills its supervisor.
                0 => Disaster::SupervisorKilled,
                _ => Disaster::nth(first + n, self.disk.is_some(), random),
            };
            n += 1;
            if let Some(time) = standstill.filter(|_| passed > 0.5) {
                standstill = None;
                disaster = Disaster::SupervisorStopped(time);
            }
            if disaster == Disaster::SupervisorKilled {
                if n > 1 && passed > KILLED_WITHIN {
                    continue;
                }
                self.bury();
            }
            disasters::strike(self.stage, service, self.disk, disaster, random);
            if disaster == Disaster::SupervisorKilled {
                self.born = Instant::now();
            }
        }
    }

    /// The first look at a supervisor that has warmed up.
    fn look(&mut self) {
        if self.life.is_none() && self.born.elapsed() > WARM_UP {
            let _alone = self.stage.calm.write().unwrap();
            if self.stage.wait_well(RECOVERY).is_ok() {
                let process = *self.stage.supervisor.lock().unwrap();
                self.life = Some((process, Vitals::of(process), Instant::now()));
            }
        }
    }

    /// The last look at a supervisor.
    fn bury(&mut self) {
        let Some((process, start, since)) = self.life.take() else { return };
        let _alone = self.stage.calm.write().unwrap();
        if self.stage.wait_well(RECOVERY).is_ok() {
            let end = Vitals::of(process);
            let seconds = since.elapsed().as_secs_f64();
            self.lives.push(Life { pid: process.pid, seconds, start, end });
        }
    }

    /// Waits until everything that was heard has been told.
    fn settle(&self) {
        let told = |stage: &Stage| {
            let verdict = stage.ledger.judge(&stage.names, &stage.receiver.requests());
            verdict.lost.is_empty().then_some(())
        };
        if let Err(ill) = self.stage.wait_well(RECOVERY) {
            self.stage.violations.add(format!("not well at the end: {ill}"));
        }
        // Where something is lost for good, it is said by the judgement after this.
        let _ = wait::poll(Duration::from_secs(60), || told(self.stage));
        let idle = |s: &nursery_shared::status::Status| (s.alerts.pending == 0).then_some(());
        if self.stage.watch(RECOVERY, idle).is_none() {
            self.stage.violations.add("alerts are still pending at the end".into());
        }
    }
}
