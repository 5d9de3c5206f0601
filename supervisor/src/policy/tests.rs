//! The policy under a virtual clock: a small world of workers that do what each test makes them do.

mod changes;
mod clips;
mod light;
mod load;
mod media;
mod web;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use nursery_shared::{
    config,
    message::{CapturedWindow, SetAside, WindowJob, WindowScores},
    model_state::ModelState,
    pcm::Pcm,
    status::{CameraState, WorkerState},
};

use super::*;

/// A quarter of a second, as in models of ours.
const WINDOW: usize = 4000;

/// Everything that the policy believes to be outside of it.
struct World {
    policy: Policy,
    now: Time,
    /// Running processes by name: their key and what they were sent.
    running: BTreeMap<String, (Key, Vec<ToWorker>)>,
    spawned_at: BTreeMap<String, Vec<Time>>,
    reading: BTreeMap<String, bool>,
    log: Vec<String>,
    post_mortems: Vec<PostMortem>,
    /// When the state was shown to the page.
    looks: Vec<Time>,
    /// Who was given a camera's media.
    connected: Vec<(String, u64)>,
    /// Those that hang: examinations never end by themselves.
    slow_examiner: bool,
    finished: bool,
    /// Start workers by themselves, as real ones do.
    obedient: bool,
    /// What is in model files; `None`: something that kills whoever loads it. Those that are missing here are the
    /// model that is expected.
    models: BTreeMap<Option<String>, Option<ModelShape>>,
}

fn model() -> ModelShape {
    let window = WINDOW as u32;
    ModelShape { id: "t".into(), window, hop: window, lookahead: 0, frame_step: 1000, state_bytes: 8 }
}

/// Windows of a camera that may wait.
fn queue() -> u64 {
    QueueLimits::of(&model()).full as u64
}

/// What a model remembers that has heard these windows since the stream began; empty where it begins.
fn remembered(windows: &[u64]) -> Vec<u8> {
    let fold = |state: u64, id: &u64| (state ^ (id + 1)).wrapping_mul(0x0100_0000_01b3);
    match windows {
        [] => Vec::new(),
        _ => windows.iter().fold(0, fold).to_le_bytes().into(),
    }
}

/// What it remembers after one more window.
fn one_more(job: &WindowJob) -> ModelState {
    let before = job.state.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let after = (before ^ (job.id + 1)).wrapping_mul(0x0100_0000_01b3);
    after.to_le_bytes().to_vec().into()
}

fn setup(cameras: &[&str], pool: u32) -> Setup {
    let cameras: Vec<_> =
        cameras.iter().map(|n| serde_json::json!({"name": n, "source": "synthetic:cry"})).collect();
    let text = serde_json::json!({"cameras": cameras, "inference": {"workers": pool}}).to_string();
    Setup {
        config: config::from_json(&text, Path::new(".")).unwrap(),
        pool_override: None,
        model: model(),
        state_dir: "/nowhere".into(),
        cores: 2,
        seed: 7,
    }
}

impl World {
    fn new(setup: Setup) -> Self {
        let mut world = Self::empty(setup);
        world.event(Event::Tick);
        world
    }

    /// Nobody was started yet.
    fn empty(setup: Setup) -> Self {
        Self {
            policy: Policy::new(setup, Time(1_000_000), 1_000_000),
            now: Time(1_000_000),
            running: BTreeMap::new(),
            spawned_at: BTreeMap::new(),
            reading: BTreeMap::new(),
            log: Vec::new(),
            post_mortems: Vec::new(),
            looks: Vec::new(),
            connected: Vec::new(),
            slow_examiner: false,
            finished: false,
            obedient: true,
            models: BTreeMap::new(),
        }
    }

    fn event(&mut self, event: Event) {
        let actions = self.policy.handle(self.now, self.now.0 as i64, event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { key, role, name } => {
                    assert!(!self.running.contains_key(&name), "{name} runs twice");
                    self.running.insert(name.clone(), (key, Vec::new()));
                    self.spawned_at.entry(name.clone()).or_default().push(self.now);
                    self.reading.insert(name.clone(), true);
                    self.event(Event::Spawned { key, pid: key.slot * 1000 + key.generation });
                    if self.obedient {
                        self.say(
                            &name,
                            FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role },
                        );
                        if role != Role::Infer || self.loads(&name) {
                            self.say(&name, FromWorker::Ready);
                        }
                    }
                }
                Action::Send { key, message } => {
                    let (_, (_, inbox)) = self
                        .running
                        .iter_mut()
                        .find(|(_, (k, _))| *k == key)
                        .expect("messages go to running processes only");
                    inbox.push(*message);
                }
                Action::Examine { key } => {
                    self.name_of(key);
                    if !self.slow_examiner {
                        self.event(Event::Examined { key });
                    }
                }
                Action::PostMortem { post_mortem, .. } => self.post_mortems.push(*post_mortem),
                Action::Kill { key } => {
                    let name = self.name_of(key);
                    self.exit(&name, Exit::Signal(9));
                }
                Action::SetReading { key, reading } => {
                    let name = self.name_of(key);
                    self.reading.insert(name, reading);
                }
                Action::Log { text, .. } => self.log.push(text),
                Action::Show { .. } => {}
                Action::ShowStatus { key } => {
                    self.name_of(key);
                    self.looks.push(self.now);
                }
                Action::Connect { camera, viewer, ticket } => {
                    assert!(["web", "light"].contains(&&*self.name_of(viewer)));
                    let camera = self.name_of(camera);
                    self.connected.push((camera, ticket));
                }
                Action::Finished => self.finished = true,
            }
        }
    }

    /// An inference process reads its model file; false where it died of that.
    fn loads(&mut self, name: &str) -> bool {
        match self.models.get(&self.told_to_load(name)) {
            Some(Some(shape)) => {
                let shape = shape.clone();
                self.say(name, FromWorker::Loaded(shape));
                self.running.contains_key(name)
            }
            Some(None) => {
                self.exit(name, Exit::Code(1));
                false
            }
            None => true,
        }
    }

    /// The model file that an inference process was told to load.
    fn told_to_load(&self, name: &str) -> Option<String> {
        let inbox = self.running.get(name).map(|(_, inbox)| inbox.as_slice()).unwrap_or_default();
        inbox.iter().find_map(|m| match m {
            ToWorker::ConfigureInfer { model, .. } => model.clone(),
            _ => None,
        })
    }

    fn name_of(&self, key: Key) -> String {
        self.running.iter().find(|(_, (k, _))| *k == key).map(|(n, _)| n.clone()).expect("a running process")
    }

    fn say(&mut self, name: &str, message: FromWorker) {
        let key = self.running[name].0;
        self.event(Event::Message { key, message });
    }

    fn exit(&mut self, name: &str, exit: Exit) {
        let (key, _) = self.running.remove(name).expect("a running process");
        self.event(Event::Exited { key, exit });
    }

    fn window(&mut self, camera: &str) {
        self.window_until(camera, self.now.0 as i64);
    }

    /// A window whose last sample was recorded at `end_us`.
    fn window_until(&mut self, camera: &str, end_us: i64) {
        let pcm = Pcm::from_f32(&[0.0; WINDOW]);
        let window = CapturedWindow { end_us, arrived_us: self.now.0, level_dbfs: -50.0, mute: false, pcm };
        self.say(&format!("capture:{camera}"), FromWorker::Window(window));
    }

    /// The batch that an inference process has in hand and scores first.
    fn batch(&self, name: &str) -> Option<(u64, Vec<u64>)> {
        let (batch, jobs) = self.jobs(name)?;
        Some((batch, jobs.iter().map(|w| w.id).collect()))
    }

    /// The same as it was sent.
    fn jobs(&self, name: &str) -> Option<(u64, &[WindowJob])> {
        let (key, inbox) = self.running.get(name)?;
        let first = self.policy.workers[&key.slot].batches.front()?.id;
        inbox.iter().rev().find_map(|m| match m {
            ToWorker::Batch { batch, windows } if *batch == first => Some((*batch, windows.as_slice())),
            _ => None,
        })
    }

    /// The state that went with the only window in an inference process's hands.
    fn state_sent(&self, name: &str) -> &[u8] {
        match self.jobs(name) {
            Some((_, [job])) => job.state.as_bytes(),
            other => panic!("{other:?}"),
        }
    }

    fn score(&mut self, name: &str) {
        let (batch, jobs) = self.jobs(name).expect("a batch");
        let windows = jobs
            .iter()
            .map(|job| WindowScores { id: job.id, scores: vec![0.1; 4], state: one_more(job) })
            .collect();
        self.say(name, FromWorker::Scores { batch, windows });
    }

    /// Sequence numbers and records that the present sink was sent.
    fn records(&self) -> Vec<(u64, Record)> {
        let Some((_, inbox)) = self.running.get("sink") else { return Vec::new() };
        inbox
            .iter()
            .filter_map(|m| match m {
                ToWorker::Record { seq, record } => Some((*seq, record.clone())),
                _ => None,
            })
            .collect()
    }

    /// Lets time pass from deadline to deadline; everybody who runs reports twice a second.
    fn pass(&mut self, time: Duration, silent: &[&str]) {
        let end = self.now + time;
        while self.now < end {
            let step = self.now + Duration::from_millis(500);
            self.now = self.policy.next_deadline().unwrap_or(step).max(self.now).min(step).min(end);
            self.event(Event::Tick);
            let names: Vec<String> = self.running.keys().cloned().collect();
            for name in names.iter().filter(|n| !silent.contains(&n.as_str())) {
                if self.running.contains_key(name) && !name.starts_with("infer") {
                    let done = self.now.0;
                    self.say(name, FromWorker::Progress { done });
                }
            }
        }
    }

    fn live(&mut self, camera: &str) {
        let report = CameraReport {
            state: StreamState::Live,
            error: None,
            level_dbfs: Some(-40.0),
            last_audio_us: Some(self.now.0),
            dropped: 0,
            corrupt: 0,
            connects: 1,
        };
        self.say(&format!("capture:{camera}"), FromWorker::Camera(report));
    }

    fn status(&self) -> nursery_shared::status::Status {
        self.policy.status(self.now)
    }
}

#[test]
fn everything_that_is_configured_is_started_once() {
    let world = World::new(setup(&["a", "b"], 2));
    let names: Vec<&str> = world.running.keys().map(String::as_str).collect();
    assert_eq!(names, ["capture:a", "capture:b", "infer:0", "infer:1", "sink"]);
    assert!(world.status().workers.iter().all(|w| w.state == WorkerState::Running));
}

#[test]
fn restarts_back_off_and_are_never_given_up() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..30 {
        world.exit("capture:a", Exit::Signal(11));
        world.pass(Duration::from_secs(31), &[]);
        assert!(world.running.contains_key("capture:a"), "restarted within the longest wait");
    }
    let spawns = &world.spawned_at["capture:a"];
    assert_eq!(spawns.len(), 31);
    let status = world.status();
    let worker = status.workers.iter().find(|w| w.name == "capture:a").unwrap();
    assert_eq!((worker.restarts, worker.last_exit.as_deref()), (30, Some("signal 11")));
}

#[test]
fn the_progress_of_a_dead_process_is_not_that_of_its_replacement() {
    let mut world = World::new(setup(&["a"], 1));
    world.say("sink", FromWorker::Progress { done: 7 });
    world.exit("sink", Exit::Signal(9));
    world.obedient = false;
    world.pass(Duration::from_secs(1), &["sink"]);
    let status = world.status();
    let sink = status.workers.iter().find(|w| w.name == "sink").unwrap();
    assert_eq!((sink.progress, sink.progress_age_s, sink.restarts), (0, None, 1));
}

#[test]
fn a_worker_that_dies_at_once_is_not_restarted_in_a_tight_loop() {
    let mut world = World::new(setup(&["a"], 1));
    world.obedient = false;
    world.exit("capture:a", Exit::Code(1));
    let end = world.now + Duration::from_secs(600);
    while world.now < end {
        world.pass(Duration::from_millis(50), &[]);
        if world.running.contains_key("capture:a") {
            world.exit("capture:a", Exit::Code(1));
        }
    }
    let count = world.spawned_at["capture:a"].len();
    assert!((20..60).contains(&count), "{count} starts in ten minutes");
}

#[test]
fn a_worker_that_was_healthy_for_a_minute_starts_with_the_shortest_wait() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..8 {
        world.exit("capture:a", Exit::Signal(9));
        world.pass(Duration::from_secs(31), &[]);
    }
    world.pass(Duration::from_secs(61), &[]);
    let died = world.now;
    world.exit("capture:a", Exit::Signal(9));
    world.pass(Duration::from_secs(1), &[]);
    let again = world.spawned_at["capture:a"].last().unwrap().since(died);
    assert!(again <= Duration::from_millis(100), "{again:?}");
}

#[test]
fn whoever_owes_and_does_not_progress_is_killed_and_nobody_else() {
    for hung in ["capture:a", "sink"] {
        let mut world = World::new(setup(&["a", "b"], 1));
        world.pass(Duration::from_secs(30), &[hung]);
        for (name, starts) in &world.spawned_at {
            assert_eq!(starts.len() > 1, name == hung, "{name} while {hung} hangs");
        }
        let status = world.status();
        let exit = status.workers.iter().find(|w| w.name == hung).unwrap().last_exit.clone().unwrap();
        assert!(exit.contains("hung"), "{exit}");
    }
}

#[test]
fn a_worker_that_hangs_is_looked_into_first_and_killed_within_a_second_whatever_the_examiner_does() {
    let mut world = World::new(setup(&["a"], 1));
    world.slow_examiner = true;
    world.window("a");
    let given = world.now;
    world.pass(Duration::from_millis(4300), &[]);
    assert!(world.running.contains_key("infer:0") && world.log.iter().any(|l| l.contains("looked into")));
    assert_eq!(world.status().workers[1].state, WorkerState::Stopping);
    while world.post_mortems.is_empty() {
        world.pass(Duration::from_millis(20), &[]);
        assert!(world.now.since(given) < Duration::from_secs(5), "{:?}", world.log);
    }
    let p = &world.post_mortems[0];
    assert_eq!((p.worker.as_str(), p.camera.as_deref(), p.signal), ("infer:0", None, Some(9)));
    assert_eq!(p.reason, "killed: hung: no scores for the batch in hand");
    assert_eq!((p.owed.len(), p.owed[0].window, p.owed[0].camera.as_str()), (1, 0, "a"));
    assert!((4.0..5.0).contains(&p.silent_s), "{}", p.silent_s);
    assert!(world.log.iter().any(|l| l.contains("restart in") && l.contains(&p.id)), "{:?}", world.log);
    // Its window is not lost, and an answer of the examiner that comes too late hits nobody.
    world.pass(Duration::from_millis(200), &[]);
    let (key, _) = world.running["infer:0"];
    world.event(Event::Examined { key: Key { generation: key.generation - 1, ..key } });
    world.event(Event::Examined { key });
    world.score("infer:0");
    assert_eq!((world.status().inference.scored, world.post_mortems.len()), (1, 1));
}

#[test]
fn every_death_by_itself_leaves_a_post_mortem_under_a_name_of_its_own() {
    let mut world = World::new(setup(&["a"], 1));
    world.exit("sink", Exit::Signal(11));
    world.exit("capture:a", Exit::Code(1));
    world.exit("infer:0", Exit::Code(0));
    world.pass(Duration::from_secs(1), &[]);
    world.say("capture:a", FromWorker::Ack { up_to: 0 });
    let told: Vec<_> = world.post_mortems.iter().map(|p| (p.worker.as_str(), p.reason.as_str())).collect();
    let lie = "killed: said something that is not for role capture to say";
    assert_eq!(
        told,
        [
            ("sink", "signal 11"),
            ("capture:a", "exit status 1"),
            ("infer:0", "exit status 0"),
            ("capture:a", lie)
        ]
    );
    assert_eq!(world.post_mortems[1].camera.as_deref(), Some("a"));
    let ids: BTreeSet<_> = world.post_mortems.iter().map(|p| p.id.clone()).collect();
    assert_eq!(ids.len(), 4);
    for id in ids {
        assert!(nursery_shared::postmortem::is_id(&id));
        assert_eq!(world.log.iter().filter(|l| l.contains(&id)).count(), 1, "{id}");
    }
}

#[test]
fn deaths_that_were_asked_for_leave_no_post_mortem() {
    let mut world = World::new(setup(&["a", "b"], 2));
    let (now, us) = (world.now, world.now.0 as i64);
    let (_, actions) = world.policy.scale(now, us, PoolSize::Fixed(1));
    world.perform(actions);
    world.exit("infer:1", Exit::Code(0));
    let (_, actions) = world.policy.restart(now, us, "sink");
    world.perform(actions);
    world.exit("sink", Exit::Code(0));
    let (_, actions) = world.policy.reload(now, us, setup(&["a"], 1).config, None);
    world.perform(actions);
    world.exit("capture:b", Exit::Code(0));
    let actions = world.policy.stop(now, us);
    world.perform(actions);
    // Everybody is told to end at once: the terminal was closed, or a service manager is impatient.
    for name in ["capture:a", "infer:0", "sink"] {
        if world.running.contains_key(name) {
            world.exit(name, Exit::Signal(15));
        }
    }
    assert_eq!(world.post_mortems, []);
    // One that crashes instead of draining was not asked to do that.
    let mut world = World::new(setup(&["a"], 1));
    let (_, actions) = world.policy.restart(world.now, world.now.0 as i64, "sink");
    world.perform(actions);
    world.exit("sink", Exit::Signal(6));
    assert_eq!(world.post_mortems.len(), 1);
}

#[test]
fn an_idle_inference_process_owes_nothing_and_one_with_a_batch_does() {
    let mut world = World::new(setup(&["a"], 1));
    world.pass(Duration::from_secs(600), &[]);
    assert_eq!(world.spawned_at["infer:0"].len(), 1);
    world.window("a");
    world.pass(Duration::from_secs(6), &[]);
    assert_eq!(world.spawned_at["infer:0"].len(), 2);
}

#[test]
fn idle_inference_processes_take_turns_so_that_one_that_hangs_is_found() {
    let mut world = World::new(setup(&["a"], 3));
    let pool = ["infer:0", "infer:1", "infer:2"];
    let mut turns = Vec::new();
    for _ in 0..6 {
        world.window("a");
        let served = pool.into_iter().find(|name| world.batch(name).is_some()).unwrap();
        world.pass(Duration::from_millis(1), &[]);
        world.score(served);
        turns.push(served);
    }
    assert!(pool.iter().all(|name| turns.iter().filter(|t| *t == name).count() == 2), "{turns:?}");
}

#[test]
fn one_window_per_camera_is_scored_at_a_time_and_in_order() {
    let mut world = World::new(setup(&["a", "b"], 2));
    for _ in 0..3 {
        world.window("a");
    }
    assert_eq!(world.batch("infer:0").unwrap().1, [0]);
    assert!(world.batch("infer:1").is_none(), "a's second window waits for its first");
    world.window("b");
    assert_eq!(world.batch("infer:1").unwrap().1, [3]);
    world.score("infer:0");
    assert_eq!(world.batch("infer:0").unwrap().1, [1]);
    assert_eq!(world.status().inference.scored, 1);
}

#[test]
fn waiting_windows_are_shared_out_evenly_and_fairly() {
    // Few enough that they do not wait for each other.
    let names: Vec<String> = (0..7).map(|i| format!("c{i}")).collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(setup(&refs, 2));
    for _ in 0..2 {
        for name in &refs {
            world.window(name);
        }
    }
    // The first two windows went out alone; the rest waits.
    world.score("infer:0");
    let first: BTreeSet<u64> = world.batch("infer:0").unwrap().1.into_iter().collect();
    assert_eq!(first, (2..7).chain([7]).collect(), "everybody's oldest, one each");
}

#[test]
fn the_oldest_window_gives_way_and_is_counted() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..40 {
        world.window("a");
    }
    let camera = &world.status().cameras[0];
    assert_eq!((camera.windows, camera.dropped), (40, 40 - 1 - queue()));
    world.score("infer:0");
    assert_eq!(world.batch("infer:0").unwrap().1, [40 - queue()]);
}

#[test]
fn a_recording_is_held_back_instead_of_dropped() {
    let dir = std::env::temp_dir().join(format!("nursery-policy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("x.wav"), b"").unwrap();
    let mut s = setup(&["a"], 1);
    let text = r#"[{"name": "a", "source": "file:x.wav", "realtime": false}]"#;
    s.config.cameras = config::from_json(text, &dir).unwrap().cameras;
    std::fs::remove_dir_all(&dir).unwrap();
    let mut world = World::new(s);
    let mut sent = 0;
    while world.reading["capture:a"] {
        world.window("a");
        sent += 1;
        assert!(sent < 100);
    }
    while !world.reading["capture:a"] {
        world.score("infer:0");
    }
    let camera = &world.status().cameras[0];
    assert_eq!((camera.windows, camera.dropped), (sent, 0));
}

#[test]
fn a_window_of_a_process_that_died_goes_to_another_and_after_the_second_death_aside() {
    let mut world = World::new(setup(&["a", "b"], 1));
    world.window("a");
    world.window("b");
    world.window("a");
    world.exit("infer:0", Exit::Signal(9));
    world.pass(Duration::from_millis(200), &[]);
    let (_, ids) = world.batch("infer:0").unwrap();
    assert!(ids == [1] || ids == [0], "a suspect goes alone: {ids:?}");
    while world.batch("infer:0").unwrap().1 != [0] {
        world.score("infer:0");
    }
    world.exit("infer:0", Exit::Signal(11));
    world.pass(Duration::from_secs(1), &[]);
    assert_eq!(world.status().inference.quarantined, 1);
    assert!(world.log.iter().any(|l| l.contains("set aside") && l.contains("camera a")));
    while world.status().inference.queued + world.status().inference.in_flight > 0 {
        world.score("infer:0");
    }
    let status = world.status();
    assert_eq!(status.inference.scored + status.inference.quarantined, 3, "nothing lost");
    let aside: Vec<SetAside> = world
        .records()
        .into_iter()
        .filter_map(|(_, r)| if let RecordKind::SetAside(window) = r.what { Some(window) } else { None })
        .collect();
    assert_eq!((aside.len(), aside[0].window, aside[0].pcm.len()), (1, 0, WINDOW));
    assert_eq!(aside[0].deaths, ["infer:0: signal 9", "infer:0: signal 11"]);
    // Every scored window became a record.
    let scores = world.records().iter().filter(|(_, r)| matches!(r.what, RecordKind::Scores { .. })).count();
    assert_eq!(scores as u64, status.inference.scored);
}

#[test]
fn a_new_sink_gets_every_record_that_was_not_acknowledged() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..5 {
        world.window("a");
        world.score("infer:0");
    }
    let before = world.records();
    assert_eq!(before.len(), 6, "online, then five scores");
    world.say("sink", FromWorker::Ack { up_to: 2 });
    world.exit("sink", Exit::Signal(9));
    world.window("a");
    world.score("infer:0");
    world.pass(Duration::from_secs(1), &[]);
    let after = world.records();
    assert_eq!(after[..3], before[3..]);
    assert_eq!(after.len(), 4);
}

#[test]
fn lies_cost_the_liar_its_life_and_nobody_elses() {
    let lies: [(&str, FromWorker); 7] = [
        ("sink", FromWorker::Ack { up_to: 99 }),
        ("capture:a", FromWorker::Ack { up_to: 0 }),
        ("infer:0", FromWorker::Scores { batch: 5, windows: vec![] }),
        ("infer:0", FromWorker::Ready),
        ("sink", FromWorker::Hello { protocol: 1, version: VERSION.into(), role: Role::Sink }),
        (
            "capture:a",
            FromWorker::Window(CapturedWindow {
                end_us: i64::MIN,
                arrived_us: u64::MAX,
                level_dbfs: f32::NAN,
                mute: false,
                pcm: Pcm::from_f32(&[0.0; 3]),
            }),
        ),
        ("capture:a", FromWorker::Event { json: "{}".into() }),
    ];
    for (name, lie) in lies {
        let mut world = World::new(setup(&["a", "b"], 1));
        world.say(name, lie.clone());
        let gone: Vec<&String> =
            world.spawned_at.keys().filter(|n| !world.running.contains_key(*n)).collect();
        assert_eq!(gone, [name], "{lie:?}");
        world.pass(Duration::from_secs(1), &[]);
        assert!(world.running.contains_key(name), "and is replaced");
    }
}

#[test]
fn scores_that_do_not_fit_cost_the_process_and_not_the_window() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    let (batch, _) = world.batch("infer:0").unwrap();
    let windows = vec![WindowScores { id: 0, scores: vec![f32::NAN], state: vec![0; 8].into() }];
    world.say("infer:0", FromWorker::Scores { batch, windows });
    assert!(!world.running.contains_key("infer:0"));
    world.pass(Duration::from_secs(1), &[]);
    world.score("infer:0");
    assert_eq!(world.status().inference.scored, 1);
}

#[test]
fn a_state_that_is_not_the_models_costs_the_process_and_not_the_window() {
    for wrong in [0, 7, 9, 1 << 20] {
        let mut world = World::new(setup(&["a"], 1));
        world.window("a");
        world.score("infer:0");
        world.window("a");
        let (batch, _) = world.batch("infer:0").unwrap();
        let windows = vec![WindowScores { id: 1, scores: vec![0.5; 4], state: vec![0; wrong].into() }];
        world.say("infer:0", FromWorker::Scores { batch, windows });
        assert!(!world.running.contains_key("infer:0"), "{wrong} bytes");
        assert!(world.log.iter().any(|l| l.contains(&format!("{wrong} bytes"))), "{:?}", world.log);
        world.pass(Duration::from_secs(1), &[]);
        assert_eq!(world.state_sent("infer:0"), remembered(&[0]));
        world.score("infer:0");
        assert_eq!(world.status().inference.scored, 2);
    }
}

#[test]
fn what_the_model_remembers_travels_with_its_camera_from_window_to_window() {
    let mut world = World::new(setup(&["a", "b"], 2));
    for name in ["a", "b", "a", "a", "b"] {
        world.window(name);
    }
    let holder = |world: &World, id: u64| -> &'static str {
        let holds = |n: &&str| world.batch(n).is_some_and(|(_, ids)| ids == [id]);
        ["infer:0", "infer:1"].into_iter().find(holds).expect("the window is in somebody's hands")
    };
    // b's first window is scored before a's, so that the cameras change places between the processes.
    for (id, heard) in [(1, &[][..]), (0, &[]), (2, &[0]), (4, &[1]), (3, &[0, 2])] {
        let name = holder(&world, id);
        assert_eq!(world.state_sent(name), remembered(heard), "window {id}");
        world.score(name);
    }
    assert_eq!(world.status().inference.scored, 5);
}

#[test]
fn a_window_whose_process_died_is_sent_again_with_the_same_state() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..3 {
        world.window("a");
        world.score("infer:0");
        world.pass(Duration::from_millis(250), &[]);
    }
    world.window("a");
    world.window("a");
    let sent = world.jobs("infer:0").unwrap().1.to_vec();
    assert_eq!(sent[0].state.as_bytes(), remembered(&[0, 1, 2]));
    world.exit("infer:0", Exit::Signal(9));
    world.pass(Duration::from_secs(1), &[]);
    assert_eq!(world.jobs("infer:0").unwrap().1, sent, "as if nothing had happened");
    world.score("infer:0");
    assert_eq!(world.state_sent("infer:0"), remembered(&[0, 1, 2, 3]));
}

#[test]
fn a_window_that_is_set_aside_leaves_the_state_as_it_was() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    world.score("infer:0");
    world.window("a");
    world.window("a");
    for _ in 0..2 {
        world.exit("infer:0", Exit::Signal(11));
        world.pass(Duration::from_secs(1), &[]);
    }
    assert_eq!(world.status().inference.quarantined, 1);
    assert_eq!(world.batch("infer:0").unwrap().1, [2]);
    assert_eq!(world.state_sent("infer:0"), remembered(&[0]));
}

#[test]
fn a_short_gap_keeps_the_state_and_a_long_one_begins_anew() {
    let hop = 250_000;
    for (gap, kept) in [(0, true), (30_000_000, true), (30_000_001, false), (3_600_000_000, false)] {
        for direction in [1, -1] {
            let mut world = World::new(setup(&["a"], 1));
            let end = 1_700_000_000_000_000;
            world.window_until("a", end);
            world.score("infer:0");
            world.window_until("a", end + hop + direction * gap);
            let expected = if kept { remembered(&[0]) } else { Vec::new() };
            assert_eq!(world.state_sent("infer:0"), expected, "{gap} us, direction {direction}");
        }
    }
    // The same where the windows in between were dropped here.
    for (dropped, kept) in [(120, true), (121, false)] {
        let mut world = World::new(setup(&["a"], 1));
        for n in 0..queue() + 1 + dropped {
            world.window_until("a", n as i64 * hop);
        }
        assert_eq!(world.status().cameras[0].dropped, dropped);
        world.score("infer:0");
        let expected = if kept { remembered(&[0]) } else { Vec::new() };
        assert_eq!(world.state_sent("infer:0"), expected, "{dropped} windows dropped");
    }
}

#[test]
fn a_new_capture_process_goes_on_with_what_the_model_remembers_of_the_camera() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    world.score("infer:0");
    world.window("a");
    assert_eq!(world.state_sent("infer:0"), remembered(&[0]));
    // The old process's window is still being scored when the new one is heard.
    world.exit("capture:a", Exit::Signal(9));
    world.pass(Duration::from_millis(200), &[]);
    world.window("a");
    world.score("infer:0");
    assert_eq!(
        (world.batch("infer:0").unwrap().1, world.state_sent("infer:0")),
        (vec![2], &remembered(&[0, 1])[..])
    );
}

#[test]
fn windows_of_many_cameras_wait_a_moment_for_each_other_and_not_for_longer() {
    let names: Vec<String> = (0..9).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(setup(&names, 2));
    names.iter().for_each(|name| world.live(name));
    let in_hand =
        |world: &World| ["infer:0", "infer:1"].map(|n| world.batch(n).map_or(0, |(_, ids)| ids.len()));
    let start = world.now;
    names[..3].iter().for_each(|name| world.window(name));
    assert_eq!(in_hand(&world), [0, 0]);
    let due = world.policy.next_deadline().unwrap();
    assert!(due <= start + Duration::from_millis(20), "{due:?} after {start:?}");
    world.pass(Duration::from_millis(20), &[]);
    assert_eq!(in_hand(&world).iter().sum::<usize>(), 3);
    assert_eq!(in_hand(&world).iter().max(), Some(&3), "one process is woken, not two");
    // Those that came while everybody was busy have waited already.
    names[3..].iter().for_each(|name| world.window(name));
    world.pass(Duration::from_millis(20), &[]);
    assert_eq!(in_hand(&world).iter().sum::<usize>(), 9);

    let mut few = World::new(setup(&names[..7], 2));
    few.live("c0");
    few.window("c0");
    assert_eq!(in_hand(&few).iter().sum::<usize>(), 1, "nothing to wait for");
}

#[test]
fn a_full_batch_waits_for_nobody() {
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(setup(&names, 1));
    let most = world.policy.config.inference.max_batch as usize;
    names[..most - 1].iter().for_each(|name| world.window(name));
    assert!(world.batch("infer:0").is_none());
    world.window(names[most]);
    assert_eq!(world.batch("infer:0").map(|(_, ids)| ids.len()), Some(most));
}

#[test]
fn where_much_waits_the_next_batch_is_in_hand_already_and_a_death_is_not_blamed_on_it() {
    let names: Vec<String> = (0..48).map(|n| format!("c{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(setup(&names, 1));
    let most = world.policy.config.inference.max_batch as usize;
    let in_hand = |world: &World| {
        let key = world.running["infer:0"].0;
        let batches = &world.policy.workers[&key.slot].batches;
        batches.iter().map(|b| b.windows.len()).collect::<Vec<_>>()
    };
    names[..most].iter().for_each(|name| world.window(name));
    names[most..2 * most - 1].iter().for_each(|name| world.window(name));
    assert_eq!(in_hand(&world), [most], "less than a batch waits for whoever is free first");
    names[2 * most - 1..].iter().for_each(|name| world.window(name));
    assert_eq!(in_hand(&world), [most, most], "and no more than one waits in its hands");
    let first: BTreeSet<u64> = world.batch("infer:0").unwrap().1.into_iter().collect();
    world.exit("infer:0", Exit::Signal(11));
    world.pass(Duration::from_secs(1), &[]);
    // Those of the first go alone.
    let mut alone = BTreeSet::new();
    let mut scored = 0;
    while let Some((_, ids)) = world.batch("infer:0") {
        if first.contains(&ids[0]) {
            assert_eq!((ids.len(), in_hand(&world).len()), (1, 1), "with nothing behind it");
            alone.insert(ids[0]);
        }
        scored += ids.len();
        world.score("infer:0");
        world.pass(Duration::from_millis(30), &[]);
    }
    assert_eq!((alone, scored), (first, names.len()));
    assert_eq!(world.status().inference.scored, names.len() as u64);

    // It has answered the first and hangs with the second: that one's deadline is its own.
    names[..2 * most].iter().for_each(|name| world.window(name));
    assert_eq!(in_hand(&world), [most, most]);
    world.pass(Duration::from_secs(3), &[]);
    world.score("infer:0");
    world.pass(Duration::from_secs(3), &[]);
    assert_eq!(in_hand(&world), [most], "not overdue yet");
    world.pass(Duration::from_secs(2), &[]);
    assert_eq!(world.status().workers.iter().find(|w| w.name == "infer:0").unwrap().restarts, 2);
}

#[test]
fn in_an_overload_what_is_scored_is_of_now_and_afterwards_windows_may_wait_again() {
    let mut world = World::new(setup(&["a", "b"], 1));
    ["a", "b"].iter().for_each(|name| world.live(name));
    let short = world.policy.queue_limits.short as u64;
    assert!((2..queue()).contains(&short));
    // Four windows a second of each camera; one window of all is scored in a second.
    let mut waited = Vec::new();
    for second in 0..40 {
        for _ in 0..4 {
            ["a", "b"].iter().for_each(|name| world.window(name));
            world.pass(Duration::from_millis(250), &["infer:0"]);
        }
        let arrived = |world: &World| {
            let key = world.running["infer:0"].0;
            world.policy.workers[&key.slot].batches[0].windows[0].1.window.arrived_us
        };
        world.score("infer:0");
        waited.push((second, world.now.since(Time(arrived(&world)))));
    }
    let of = |from: usize| waited[from..].iter().map(|(_, waited)| *waited).max().unwrap();
    assert!(waited[15].1 > Duration::from_secs(4), "a backlog, as if somebody hung: {waited:?}");
    assert!(of(30) <= Duration::from_millis(1_500), "{waited:?}");
    let status = world.status();
    let dropped: u64 = status.cameras.iter().map(|c| c.dropped).sum();
    assert_eq!(status.inference.scored + status.inference.queued + status.inference.in_flight + dropped, 320);
    assert!(status.cameras.iter().all(|c| c.dropped > 50), "evenly: {:?}", status.cameras);
    assert!(world.records().iter().any(|(_, r)| matches!(r.what, RecordKind::Overloaded(_))));

    while world.batch("infer:0").is_some() {
        world.score("infer:0");
    }
    world.pass(Duration::from_secs(50), &[]);
    assert!(world.records().iter().any(|(_, r)| matches!(r.what, RecordKind::Relieved { .. })));
    (0..=queue()).for_each(|_| world.window("a"));
    assert_eq!(world.status().inference.queued, queue(), "as many as before may wait");
}

#[test]
fn a_camera_that_sends_more_than_it_should_costs_the_others_no_places() {
    let mut world = World::new(setup(&["bad", "good"], 1));
    ["bad", "good"].iter().for_each(|name| world.live(name));
    for _ in 0..120 {
        (0..20).for_each(|_| world.window("bad"));
        world.window("good");
        while world.batch("infer:0").is_some() && world.status().inference.queued > queue() / 2 {
            world.score("infer:0");
        }
        world.pass(Duration::from_millis(250), &["infer:0"]);
    }
    let dropped = |world: &World| world.status().cameras.iter().map(|c| c.dropped).collect::<Vec<_>>();
    let before = dropped(&world);
    assert!(before[0] > 100 && before[1] == 0, "{before:?}");
    while world.batch("infer:0").is_some() {
        world.score("infer:0");
    }
    // Now somebody hangs, and nobody scores for a while.
    (0..queue()).for_each(|_| world.window("good"));
    assert_eq!(dropped(&world)[1], 0);
    (0..queue()).for_each(|_| world.window("bad"));
    assert!(dropped(&world)[0] > before[0], "its own queue is short");
}

#[test]
fn batches_are_cut_so_that_states_fit_a_frame_both_ways() {
    use nursery_shared::{
        config::MAX_BATCH,
        frame::{MAX_FROM_WORKER, MAX_TO_WORKER, encode_frame},
        model_state::MAX_STATE,
    };
    let names: Vec<String> = (0..40).map(|i| format!("c{i}")).collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    for (window, state, expected) in
        [(WINDOW, 8, MAX_BATCH as usize), (WINDOW, 25_000, 20), (160_000, MAX_STATE, 1)]
    {
        let mut s = setup(&refs, 1);
        s.config.inference.max_batch = MAX_BATCH;
        s.model = ModelShape {
            window: window as u32,
            hop: window as u32,
            frame_step: (window / 5) as u32,
            state_bytes: state as u32,
            ..model()
        };
        let mut world = World::new(s);
        let answer = |world: &World| {
            let (batch, jobs) = world.jobs("infer:0").unwrap();
            let scores = |job: &WindowJob| WindowScores {
                id: job.id,
                scores: vec![0.1; 5],
                state: vec![7; state].into(),
            };
            FromWorker::Scores { batch, windows: jobs.iter().map(scores).collect() }
        };
        let mut largest = 0;
        for round in 0..2 {
            for name in &refs {
                let pcm = Pcm::from_f32(&vec![0.0; window]);
                let window = CapturedWindow {
                    end_us: round,
                    arrived_us: world.now.0,
                    level_dbfs: -50.0,
                    mute: false,
                    pcm,
                };
                world.say(&format!("capture:{name}"), FromWorker::Window(window));
            }
            loop {
                world.pass(Duration::from_millis(20), &["infer:0"]);
                let Some((batch, jobs)) = world.jobs("infer:0") else { break };
                let message = ToWorker::Batch { batch, windows: jobs.to_vec() };
                encode_frame(&message, MAX_TO_WORKER, &mut Vec::new()).unwrap();
                largest = largest.max(jobs.len());
                let answer = answer(&world);
                encode_frame(&answer, MAX_FROM_WORKER, &mut Vec::new()).unwrap();
                world.say("infer:0", answer);
            }
        }
        assert_eq!(largest, expected, "state of {state} bytes");
        assert_eq!(world.status().inference.scored, 80);
    }
}

#[test]
fn another_version_of_the_worker_is_refused_by_name() {
    let mut world = World::new(setup(&["a"], 1));
    world.obedient = false;
    world.exit("sink", Exit::Code(1));
    world.pass(Duration::from_secs(1), &[]);
    world.say("sink", FromWorker::Hello { protocol: PROTOCOL, version: "9.9".into(), role: Role::Sink });
    let status = world.status();
    let exit = status.workers.iter().find(|w| w.name == "sink").unwrap().last_exit.clone().unwrap();
    assert!(exit.contains("version 9.9") && exit.contains(VERSION), "{exit}");
}

#[test]
fn a_camera_that_is_not_heard_is_offline_and_online_again() {
    let mut world = World::new(setup(&["a", "b"], 1));
    world.live("a");
    for _ in 0..70 {
        world.pass(Duration::from_millis(500), &[]);
        world.live("a");
    }
    let kinds = |world: &World, name: &str| -> Vec<String> {
        world
            .records()
            .into_iter()
            .filter(|(_, r)| Record::cameras_in(&r.camera).any(|camera| camera == name))
            .map(|(_, r)| format!("{:?}", r.what).split([' ', '{', '(']).next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds(&world, "a"), ["Online"]);
    assert_eq!(kinds(&world, "b"), ["Offline"]);
    assert_eq!(world.status().cameras[1].state, CameraState::Offline);
    world.live("b");
    assert_eq!(kinds(&world, "b"), ["Offline", "Online"]);
    assert_eq!(world.status().cameras[1].state, CameraState::Live);
    world.pass(Duration::from_secs(31), &[]);
    assert_eq!(kinds(&world, "b"), ["Offline", "Online", "Offline"]);
}

#[test]
fn cameras_that_are_lost_at_about_the_same_time_are_told_together() {
    let mut world = World::new(setup(&["a", "b", "c", "d"], 1));
    for name in ["a", "b", "c", "d"] {
        world.live(name);
        world.pass(Duration::from_millis(700), &[]);
    }
    let hear = |world: &mut World, names: &[&str], seconds: u64| {
        for _ in 0..seconds {
            names.iter().for_each(|name| world.live(name));
            world.pass(Duration::from_secs(1), &[]);
        }
    };
    let told = |world: &World| -> Vec<(Vec<String>, u64)> {
        let lost = |r: &Record| match &r.what {
            RecordKind::Offline(lost) => {
                let names = lost.iter().map(|l| l.camera.clone()).collect::<Vec<_>>();
                assert_eq!(r.camera, names.join(", "));
                Some((names, lost.iter().map(|l| l.since_us).min().unwrap() as u64))
            }
            _ => None,
        };
        world.records().iter().filter_map(|(_, r)| lost(r)).collect()
    };
    // c, heard 0.7 s after b, and d, which goes on, keep a and b from nothing.
    hear(&mut world, &["d"], 40);
    let first = told(&world);
    assert_eq!(first.iter().map(|(names, _)| names.len()).collect::<Vec<_>>(), [3], "{:?}", world.log);
    hear(&mut world, &["a", "b", "d"], 5);
    hear(&mut world, &["d"], 20);
    // One alone waits for nobody.
    hear(&mut world, &["a", "d"], 5);
    hear(&mut world, &["d"], 60);
    let names: Vec<String> = told(&world).iter().map(|(names, _)| names.join("+")).collect();
    assert_eq!(names, ["a+b+c", "b", "a"]);
}

#[test]
fn a_muted_microphone_is_a_camera_that_is_not_heard() {
    let mut world = World::new(setup(&["a"], 1));
    world.live("a");
    let hear = |world: &mut World, mute: bool, seconds: u64| {
        for _ in 0..seconds * 2 {
            let pcm = Pcm::from_f32(&[0.0; WINDOW]);
            let (end_us, arrived_us) = (world.now.0 as i64, world.now.0);
            let window = CapturedWindow { end_us, arrived_us, level_dbfs: -120.0, mute, pcm };
            world.say("capture:a", FromWorker::Window(window));
            world.score("infer:0");
            world.pass(Duration::from_millis(500), &[]);
        }
    };
    let outages = |world: &World| -> Vec<String> {
        let offline = |r: &Record| match &r.what {
            RecordKind::Offline(lost) => Some(lost[0].reason.clone()),
            RecordKind::Online { .. } => Some("online".into()),
            _ => None,
        };
        world.records().iter().filter_map(|(_, r)| offline(r)).collect()
    };
    hear(&mut world, false, 5);
    hear(&mut world, true, 29);
    assert_eq!(outages(&world), ["online"]);
    hear(&mut world, true, 3);
    let told = outages(&world);
    assert!(told.len() == 2 && told[1].contains("digital silence"), "{told:?}");
    hear(&mut world, true, 60);
    assert_eq!(outages(&world).len(), 2, "said once");
    hear(&mut world, false, 1);
    assert_eq!(outages(&world)[2..], ["online"]);
}

#[test]
fn the_heartbeat_beats_while_everything_listens_and_at_no_other_time() {
    let mut with = setup(&["a", "b"], 1);
    with.config.heartbeat = Some(nursery_shared::secret::Secret::new("http://h/"));
    let mut world = World::new(with);
    let beats = |world: &World| {
        let sent = world.running.get("sink").map(|(_, inbox)| inbox.as_slice()).unwrap_or_default();
        sent.iter().filter(|m| matches!(m, ToWorker::Heartbeat)).count()
    };
    let listen = |world: &mut World, cameras: &[&str], seconds: u64| {
        for _ in 0..seconds * 2 {
            for camera in cameras {
                world.window(camera);
                world.score("infer:0");
            }
            world.pass(Duration::from_millis(500), &[]);
        }
    };
    listen(&mut world, &["a"], 20);
    assert_eq!(beats(&world), 0, "b was not heard yet");
    listen(&mut world, &["a", "b"], 185);
    assert_eq!(beats(&world), 4, "at once, then every minute");
    listen(&mut world, &["a"], 200);
    assert!(beats(&world) <= 5, "b is not heard any more");
    listen(&mut world, &["a", "b"], 5);
    let before = beats(&world);
    assert!(before >= 5, "and again");
    for _ in 0..200 {
        world.window("a");
        world.window("b");
        world.pass(Duration::from_secs(1), &["infer:0"]);
    }
    assert_eq!(beats(&world), before, "nothing is scored");
}

#[test]
fn when_all_fall_silent_at_once_nobody_is_restarted_at_first() {
    let mut world = World::new(setup(&["a", "b", "c"], 1));
    world.pass(Duration::from_secs(20), &[]);
    let all = ["capture:a", "capture:b", "capture:c", "sink", "infer:0"];
    world.pass(Duration::from_secs(8), &all);
    assert!(world.spawned_at.values().all(|s| s.len() == 1), "{:?}", world.log);
    assert_eq!(world.log.iter().filter(|l| l.contains("all workers fell silent")).count(), 1);
    world.pass(Duration::from_secs(60), &[]);
    assert!(world.spawned_at.values().all(|s| s.len() == 1), "they went on");
    // Those that do not are restarted with the next deadline.
    world.pass(Duration::from_secs(12), &all);
    let starts = |world: &World, name: &str| world.spawned_at[name].len();
    assert!(["capture:a", "capture:b", "capture:c"].iter().all(|n| starts(&world, n) > 1), "{:?}", world.log);
}

#[test]
fn who_was_heard_and_died_since_shows_that_not_all_are_stopped() {
    let mut world = World::new(setup(&["a", "b", "c"], 1));
    world.pass(Duration::from_secs(20), &[]);
    let most = ["capture:a", "capture:b", "sink", "infer:0"];
    world.pass(Duration::from_millis(4_000), &most);
    world.exit("capture:c", Exit::Signal(9));
    world.pass(Duration::from_secs(3), &["capture:a", "capture:b", "capture:c", "sink", "infer:0"]);
    assert!(world.log.iter().any(|l| l.contains("capture:a: hung")), "{:?}", world.log);
    assert!(!world.log.iter().any(|l| l.contains("all workers fell silent")), "{:?}", world.log);
}

#[test]
fn a_host_that_keeps_standing_still_does_not_hide_that_a_camera_is_not_heard() {
    let mut world = World::new(setup(&["a"], 1));
    for _ in 0..200 {
        world.pass(Duration::from_secs(4), &[]);
        world.policy.next_deadline();
        world.now = world.now + Duration::from_secs(10);
    }
    let told = world.records();
    assert!(told.iter().any(|(_, r)| matches!(r.what, RecordKind::Offline(_))), "{:?}", world.log);
}

#[test]
fn a_supervisor_that_stood_still_blames_nobody() {
    let mut world = World::new(setup(&["a", "b"], 2));
    world.live("a");
    world.window("a");
    world.policy.next_deadline();
    world.now = world.now + Duration::from_secs(3600);
    world.event(Event::Tick);
    world.pass(Duration::from_secs(3), &[]);
    assert!(world.spawned_at.values().all(|s| s.len() == 1), "{:?}", world.log);
    assert_eq!(world.log.iter().filter(|l| l.contains("stood still")).count(), 1);
    assert_ne!(world.status().cameras[0].state, CameraState::Offline);
}

#[test]
fn an_answer_that_was_not_read_yet_is_held_against_nobody() {
    let mut world = World::new(setup(&["a", "b"], 1));
    let captures = ["capture:a", "capture:b"];
    world.pass(Duration::from_millis(4_900), &captures);
    world.policy.next_deadline();
    // Both reports have come when the deadline of both is reached; one is read first.
    world.now = world.now + Duration::from_millis(150);
    for name in captures {
        world.say(name, FromWorker::Progress { done: 1 });
    }
    world.event(Event::Tick);
    assert!(world.spawned_at.values().all(|starts| starts.len() == 1), "{:?}", world.log);
    world.pass(Duration::from_secs(8), &["capture:a"]);
    assert_eq!(world.spawned_at["capture:a"].len(), 2, "one that hangs is still found");
}

#[test]
fn a_standstill_of_any_length_blames_nobody() {
    for millis in [300, 1_500, 3_000, 4_400, 4_900, 5_000, 5_100, 6_500, 9_000, 60_000] {
        let mut world = World::new(setup(&["a", "b"], 1));
        world.window("a");
        world.pass(Duration::from_secs(1), &[]);
        world.policy.next_deadline();
        world.now = world.now + Duration::from_millis(millis);
        world.event(Event::Tick);
        world.score("infer:0");
        world.pass(Duration::from_secs(3), &[]);
        assert!(world.spawned_at.values().all(|starts| starts.len() == 1), "{millis} ms: {:?}", world.log);
    }
}

#[test]
fn scaling_and_reloading_touch_no_other_process() {
    let mut world = World::new(setup(&["a", "b"], 2));
    let keys = |world: &World| -> BTreeMap<String, Key> {
        world.running.iter().map(|(n, (k, _))| (n.clone(), *k)).collect()
    };
    let before = keys(&world);
    let (now, us) = (world.now, world.now.0 as i64);
    let (result, actions) = world.policy.scale(now, us, PoolSize::Fixed(4));
    world.perform(actions);
    assert!(result.unwrap().contains('4'));
    let after = keys(&world);
    assert_eq!(after.len(), before.len() + 2);
    assert!(before.iter().all(|(n, k)| after.get(n) == Some(k)));

    let mut config = setup(&["b", "c"], 2).config;
    config.detection.threshold = 0.7;
    let (result, actions) = world.policy.reload(now, us, config, None);
    world.perform(actions);
    let changes = result.unwrap();
    let cameras = (changes.cameras.added, changes.cameras.removed, changes.cameras.changed);
    assert_eq!(cameras, (vec!["c".to_owned()], vec!["a".to_owned()], vec![]));
    assert_eq!((changes.settings, changes.restarted), (vec!["detection.threshold".to_owned()], vec![]));
    assert_eq!(world.running["capture:a"].1.last(), Some(&ToWorker::Drain));
    world.exit("capture:a", Exit::Code(0));
    world.pass(Duration::from_secs(1), &[]);
    let names: Vec<String> = world.status().cameras.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["b", "c"]);
    let last = keys(&world);
    assert!(last.contains_key("capture:c") && !last.contains_key("capture:a"));
    assert!(after.iter().all(|(n, k)| n == "capture:a" || last.get(n) == Some(k)));
    assert!(world.running["sink"].1.iter().filter(|m| matches!(m, ToWorker::ConfigureSink(_))).count() == 2);
}

#[test]
fn a_cage_is_told_once_and_before_the_worker_is_ready_and_what_is_missing_is_logged_once_per_role() {
    let mut world = World::new(setup(&["a", "b"], 1));
    assert!(world.status().workers.iter().all(|w| w.cage.is_none()));
    world.obedient = false;
    let mut cage = Cage::default();
    cage.note(Guard::NoCapabilities, Ok(()));
    cage.note(Guard::Files, Err("no Landlock".into()));
    cage.note(Guard::OwnUser, Err("not root".into()));
    for name in ["capture:a", "capture:b"] {
        world.exit(name, Exit::Signal(9));
        world.pass(Duration::from_secs(1), &[name]);
        let role = Role::Capture;
        world.say(name, FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role });
        world.say(name, FromWorker::Caged(cage.clone()));
        world.say(name, FromWorker::Ready);
        let shown = world.status().workers.into_iter().find(|w| w.name == name).unwrap();
        assert_eq!(shown.cage.as_ref(), Some(&cage));
    }
    let told: Vec<_> = world.log.iter().filter(|l| l.contains("its cage is incomplete")).collect();
    assert!(told.len() == 1 && told[0].contains("files: no Landlock"), "{told:?}");
    // Who has read foreign bytes is not believed.
    world.say("capture:a", FromWorker::Caged(cage));
    assert!(!world.running.contains_key("capture:a"), "{:?}", world.log);
}

#[test]
fn alerts_that_reach_further_restart_the_sink_and_others_do_not() {
    let with = |url: &str| {
        let mut config = setup(&["a"], 1).config;
        let alert = serde_json::json!({"type": "webhook", "url": url});
        config.alerts = vec![serde_json::from_value(alert).unwrap()];
        config
    };
    let mut world = World::new(setup(&["a"], 1));
    let mut drained = |config| {
        let (_, actions) = world.policy.reload(world.now, world.now.0 as i64, config, None);
        world.perform(actions);
        let last = world.running["sink"].1.last() == Some(&ToWorker::Drain);
        if last {
            world.exit("sink", Exit::Code(0));
            world.pass(Duration::from_secs(1), &[]);
        }
        last
    };
    assert!(drained(with("http://192.0.2.1:9000/a")));
    assert!(!drained(with("http://192.0.2.1:9000/b")), "the same port");
    assert!(drained(with("http://192.0.2.1:9001/b")));
    assert!(drained(with("http://receiver.example:9001/b")), "a name");
}

#[test]
fn a_sink_that_was_starting_during_a_reload_gets_the_new_configuration() {
    let mut world = World::new(setup(&["a"], 1));
    world.obedient = false;
    world.exit("sink", Exit::Signal(9));
    world.pass(Duration::from_millis(200), &["sink"]);
    let role = Role::Sink;
    world.say("sink", FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role });
    let mut config = setup(&["a"], 1).config;
    config.detection.threshold = 0.7;
    let (_, actions) = world.policy.reload(world.now, world.now.0 as i64, config, None);
    world.perform(actions);
    world.say("sink", FromWorker::Ready);
    let told = world.running["sink"].1.iter().rev().find_map(|m| match m {
        ToWorker::ConfigureSink(config) => Some(config.detection.threshold),
        _ => None,
    });
    assert_eq!(told, Some(0.7));
}

#[test]
fn a_pool_that_shrinks_finishes_what_it_has_in_hand() {
    let mut world = World::new(setup(&["a", "b"], 2));
    world.window("a");
    world.window("b");
    let (now, us) = (world.now, world.now.0 as i64);
    let (_, actions) = world.policy.scale(now, us, PoolSize::Fixed(1));
    world.perform(actions);
    assert_eq!(world.running["infer:1"].1.last(), Some(&ToWorker::Drain));
    world.score("infer:1");
    world.exit("infer:1", Exit::Code(0));
    world.score("infer:0");
    world.pass(Duration::from_secs(5), &[]);
    let status = world.status();
    assert_eq!((status.inference.scored, status.inference.workers), (2, 1));
    assert!(!status.workers.iter().any(|w| w.name == "infer:1"));
}

#[test]
fn a_recording_that_ended_is_not_started_again_and_says_so_after_its_last_score() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    let report = CameraReport {
        state: StreamState::Ended,
        error: None,
        level_dbfs: None,
        last_audio_us: None,
        dropped: 0,
        corrupt: 0,
        connects: 1,
    };
    world.say("capture:a", FromWorker::Camera(report));
    world.exit("capture:a", Exit::Code(0));
    assert!(!world.records().iter().any(|(_, r)| matches!(r.what, RecordKind::Ended { .. })));
    world.score("infer:0");
    assert!(matches!(world.records().last().unwrap().1.what, RecordKind::Ended { .. }));
    world.pass(Duration::from_secs(120), &[]);
    assert!(!world.running.contains_key("capture:a"));
    assert_eq!(world.status().cameras[0].state, CameraState::Ended);
    assert!(!world.records().iter().any(|(_, r)| matches!(r.what, RecordKind::Offline(_))));
    let (now, us) = (world.now, world.now.0 as i64);
    let (result, actions) = world.policy.restart(now, us, "a");
    world.perform(actions);
    assert!(result.is_ok() && world.running.contains_key("capture:a"), "unless somebody asks for it");
}

#[test]
fn a_stop_drains_in_order_and_loses_nothing() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    let (now, us) = (world.now, world.now.0 as i64);
    let actions = world.policy.stop(now, us);
    world.perform(actions);
    assert_eq!(world.running["capture:a"].1.last(), Some(&ToWorker::Drain));
    assert_ne!(world.running["infer:0"].1.last(), Some(&ToWorker::Drain));
    world.exit("capture:a", Exit::Code(0));
    world.score("infer:0");
    assert_eq!(world.running["infer:0"].1.last(), Some(&ToWorker::Drain));
    world.exit("infer:0", Exit::Code(0));
    assert_ne!(world.running["sink"].1.last(), Some(&ToWorker::Drain), "it still owes");
    world.say("sink", FromWorker::Ack { up_to: 1 });
    assert_eq!(world.running["sink"].1.last(), Some(&ToWorker::Drain));
    assert!(!world.finished);
    world.exit("sink", Exit::Code(0));
    assert!(world.finished);
}

#[test]
fn a_stop_ends_within_ten_seconds_whatever_hangs() {
    let mut world = World::new(setup(&["a", "b"], 2));
    world.window("a");
    let (now, us) = (world.now, world.now.0 as i64);
    let actions = world.policy.stop(now, us);
    world.perform(actions);
    world.pass(Duration::from_secs(9), &["capture:a", "capture:b", "sink"]);
    assert!(world.finished && world.running.is_empty(), "{:?}", world.log);
}

#[test]
fn no_event_ever_panics_or_starts_a_worker_twice() {
    // Seeded random faults; the world asserts its own invariants in every step.
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(setup(&["a", "b", "c"], 2));
        world.slow_examiner = seed % 2 == 1;
        for _ in 0..400 {
            let names: Vec<String> = world.running.keys().cloned().collect();
            let name = names.get(rng.usize(..names.len().max(1))).cloned();
            match (rng.u8(..8), name) {
                (0, Some(n)) => world.exit(&n, Exit::Signal(rng.i32(1..32))),
                (1, Some(n)) if n.starts_with("infer") && world.batch(&n).is_some() => world.score(&n),
                (2, Some(n)) if n == "sink" => world.say(&n, FromWorker::Ack { up_to: rng.u64(..20) }),
                (3 | 4, Some(n)) => {
                    if let Some(camera) = n.strip_prefix("capture:") {
                        let camera = camera.to_owned();
                        world.window(&camera);
                    }
                }
                (5, Some(n)) => {
                    let key = world.running[&n].0;
                    world.event(Event::Broken { key, why: "x".into() });
                }
                _ => world.pass(Duration::from_millis(rng.u64(..3000)), &[]),
            }
            let status = world.status();
            assert!(status.inference.queued <= 3 * (queue() + 2), "seed {seed}");
            let came: u64 = status.cameras.iter().map(|c| c.windows).sum();
            let dropped: u64 = status.cameras.iter().map(|c| c.dropped).sum();
            let i = &status.inference;
            let known = i.scored + i.quarantined + i.queued + i.in_flight + dropped;
            assert_eq!(came, known, "seed {seed}: every window is accounted for");
        }
        for _ in 0..40 {
            world.pass(Duration::from_secs(1), &[]);
            for name in ["infer:0", "infer:1"] {
                while world.batch(name).is_some() {
                    world.score(name);
                }
            }
        }
        assert_eq!(world.running.len(), 6, "seed {seed}: everything runs again: {:?}", world.log.last());
    }
}
