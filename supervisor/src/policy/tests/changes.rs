//! Changing what runs: new processes for the pool, another model, many cameras, and what a reload says of it.

use super::*;

const OLD: &str = "/old";
const NEW: &str = "/new";

fn shape(id: &str, state_bytes: u32) -> ModelShape {
    ModelShape { id: id.into(), state_bytes, ..model() }
}

/// A pool that has loaded the old model, and files of two.
fn world(pool: u32) -> World {
    let mut setup = setup(&["a", "b", "c"], pool);
    setup.config.inference.model = Some(OLD.into());
    setup.model = shape("old", 8);
    let mut world = World::empty(setup);
    world.models.insert(Some(OLD.into()), Some(shape("old", 8)));
    world.models.insert(Some(NEW.into()), Some(shape("new", 12)));
    world.event(Event::Tick);
    world
}

fn keys(world: &World, role: &str) -> BTreeMap<String, Key> {
    let of_role = world.running.iter().filter(|(n, _)| n.starts_with(role));
    of_role.map(|(n, (k, _))| (n.clone(), *k)).collect()
}

impl World {
    /// Everybody goes who was told to and has nothing in hand.
    fn let_go(&mut self) {
        let leaving: Vec<String> = self
            .running
            .iter()
            .filter(|(name, (_, inbox))| inbox.contains(&ToWorker::Drain) && self.jobs(name).is_none())
            .map(|(name, _)| name.clone())
            .collect();
        leaving.iter().for_each(|name| self.exit(name, Exit::Code(0)));
    }

    /// Scores what is in all hands, as the model that each of them has loaded, and sees to it that no state is another
    /// model's.
    fn score_all(&mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            let Some((batch, jobs)) = self.jobs(&name) else { continue };
            let file = self.told_to_load(&name);
            let loaded =
                self.models.get(&file).cloned().flatten().expect("whoever scores has loaded something");
            let mark = loaded.id.as_bytes()[0];
            let windows = jobs
                .iter()
                .map(|job| {
                    let state = job.state.as_bytes();
                    let own = state.iter().all(|b| *b == mark) && state.len() == loaded.state_bytes as usize;
                    assert!(
                        state.is_empty() || own,
                        "{} is given a state of another model: {state:?}",
                        loaded.id
                    );
                    let state = vec![mark; loaded.state_bytes as usize].into();
                    WindowScores { id: job.id, scores: vec![0.1; 4], state }
                })
                .collect();
            self.say(&name, FromWorker::Scores { batch, windows });
        }
    }

    /// Audio of every camera, scored and stored; afterwards nothing may wait, whatever is being changed.
    fn listen(&mut self) {
        for camera in ["a", "b", "c"] {
            if self
                .running
                .get(&format!("capture:{camera}"))
                .is_some_and(|(_, i)| !i.contains(&ToWorker::Drain))
            {
                self.window(camera);
            }
        }
        for _ in 0..3 {
            self.score_all();
        }
        let status = self.status();
        let left = (status.inference.queued, status.inference.in_flight);
        assert_eq!(left, (0, 0), "scoring has stopped: {:?}", self.log);
    }

    /// The same for so many seconds, four times in each.
    fn listen_for(&mut self, seconds: u32) {
        for _ in 0..seconds * 4 {
            self.listen();
            self.let_go();
            self.listen();
            self.pass(Duration::from_millis(250), &[]);
        }
    }

    fn restart(&mut self, name: &str) -> Result<String, String> {
        let (result, actions) = self.policy.restart(self.now, self.now.0 as i64, name);
        self.perform(actions);
        result
    }

    fn reload(&mut self, config: Config, model: Option<ModelShape>) -> Result<Changes, String> {
        let (result, actions) = self.policy.reload(self.now, self.now.0 as i64, config, model);
        self.perform(actions);
        result
    }

    /// The configuration of [`world`] with another model.
    fn with_model(&self, file: &str) -> Config {
        let mut config = self.policy.config.clone();
        config.inference.model = Some(file.into());
        config
    }

    fn starts(&self, name: &str) -> usize {
        self.spawned_at.get(name).map_or(0, Vec::len)
    }
}

use nursery_shared::changes::Changes;

#[test]
fn a_pool_of_any_size_is_renewed_while_it_scores() {
    for pool in 1..4 {
        let mut world = world(pool);
        world.listen_for(1);
        let before = keys(&world, "infer");
        world.restart("infer").unwrap();
        world.listen();
        assert_eq!(keys(&world, "infer").len(), pool as usize + 1, "a stand-in first");
        let nobody_was_told = world.running.values().all(|(_, inbox)| !inbox.contains(&ToWorker::Drain));
        assert!(nobody_was_told || world.starts("infer:stand-in-0") == 1);
        world.listen_for(5);
        let after = keys(&world, "infer");
        assert_eq!(after.len(), pool as usize, "{after:?}");
        for (name, key) in before {
            let new = Key { generation: key.generation + 1, ..key };
            assert_eq!(after.get(&name), Some(&new), "{name} is replaced once, in its place");
        }
        assert_eq!(world.starts("infer:stand-in-0"), 1);
        assert_eq!(world.post_mortems, []);
        assert!(world.status().cameras.iter().all(|c| c.dropped == 0));
    }
}

#[test]
fn one_process_is_restarted_alone_and_not_before_another_one_is_ready() {
    let mut world = world(2);
    world.listen_for(1);
    let before = keys(&world, "infer");
    world.obedient = false;
    world.restart("infer:1").unwrap();
    world.pass(Duration::from_secs(3), &[]);
    assert!(world.running["infer:1"].1.iter().all(|m| *m != ToWorker::Drain), "its stand-in is not ready");
    world.obedient = true;
    world.exit("infer:stand-in-0", Exit::Signal(9));
    world.listen_for(3);
    let after = keys(&world, "infer");
    assert_eq!(after["infer:0"], before["infer:0"]);
    assert_eq!((after["infer:1"].slot, after["infer:1"].generation), (before["infer:1"].slot, 2));
    assert_eq!(after.len(), 2);
}

#[test]
fn new_processes_that_do_not_come_up_leave_the_old_ones_alone() {
    let mut world = world(2);
    world.listen_for(1);
    let before = keys(&world, "infer");
    world.restart("infer").unwrap();
    // Whoever starts from now on dies of it; those that run have loaded it before.
    let broken = world.models.insert(Some(OLD.into()), None).flatten();
    for _ in 0..30 {
        world.pass(Duration::from_millis(250), &[]);
    }
    world.models.insert(Some(OLD.into()), broken);
    world.listen_for(2);
    assert_eq!(keys(&world, "infer"), before);
    assert!(world.log.iter().any(|l| l.contains("new processes do not come up")), "{:?}", world.log);
    assert_eq!(world.starts("infer:stand-in-0"), 3);
}

#[test]
fn another_model_takes_over_when_its_processes_are_ready_and_never_gets_a_state_of_the_old_one() {
    for pool in 1..4 {
        let mut world = world(pool);
        world.listen_for(1);
        let config = world.with_model(NEW);
        let changes = world.reload(config, Some(shape("new", 12))).unwrap();
        assert_eq!(changes.model.as_deref(), Some("new"));
        assert_eq!(changes.restarted.len(), pool as usize);
        assert_eq!(world.status().inference.model.next.as_deref(), Some("new"));
        // `listen` looks at every state that is sent.
        world.listen_for(8);
        let status = world.status().inference;
        assert_eq!((status.model.id.as_str(), status.model.file.as_deref()), ("new", Some(NEW)));
        assert_eq!((status.model.next, status.model.refused, status.workers), (None, None, pool));
        let pool_now = keys(&world, "infer");
        assert_eq!(pool_now.len(), pool as usize, "{pool_now:?}");
        assert!(pool_now.keys().all(|n| world.told_to_load(n).as_deref() == Some(NEW)));
        assert!(world.status().cameras.iter().all(|c| c.dropped == 0));
        // Back again.
        let config = world.with_model(OLD);
        world.reload(config, Some(shape("old", 8))).unwrap();
        world.listen_for(8);
        assert_eq!(world.status().inference.model.id, "old");
    }
}

#[test]
fn a_model_whose_processes_die_of_it_is_rolled_back_and_nobody_was_touched() {
    let mut world = world(2);
    world.listen_for(1);
    let before = keys(&world, "");
    world.models.insert(Some(NEW.into()), None);
    let config = world.with_model(NEW);
    world.reload(config, Some(shape("new", 12))).unwrap();
    world.listen_for(5);
    assert_eq!(keys(&world, ""), before, "{:?}", world.log);
    let model = world.status().inference.model;
    assert_eq!((model.id.as_str(), model.next), ("old", None));
    assert!(model.refused.as_deref().unwrap().contains("exit status 1"), "{model:?}", model = model.refused);
    let told = world.log.iter().find(|l| l.contains("do not come up")).unwrap();
    assert!(told.contains("new") && told.contains("old goes on scoring"), "{told}");
    // A process that dies now comes back with what scores.
    world.exit("infer:0", Exit::Signal(9));
    world.listen_for(3);
    assert_eq!(world.told_to_load("infer:0").as_deref(), Some(OLD));
    // Mended, it is taken up at the next reload of the same file.
    world.models.insert(Some(NEW.into()), Some(shape("new", 12)));
    let config = world.with_model(NEW);
    world.reload(config, Some(shape("new", 12))).unwrap();
    world.listen_for(5);
    let model = world.status().inference.model;
    assert_eq!((model.id.as_str(), model.refused), ("new", None));
}

#[test]
fn a_model_that_cuts_windows_otherwise_is_refused_and_nothing_changes() {
    let mut world = world(2);
    world.listen_for(1);
    let before = keys(&world, "");
    let mut config = world.with_model(NEW);
    config.cameras.pop();
    config.detection.threshold = 0.9;
    let wide = ModelShape { window: 8000, hop: 8000, ..shape("wide", 8) };
    let why = world.reload(config, Some(wide)).unwrap_err();
    assert!(
        why.contains("inference.model") && why.contains("8000") && why.contains("restart the service"),
        "{why}"
    );
    world.listen_for(2);
    assert_eq!(keys(&world, ""), before);
    assert_eq!(world.policy.config.cameras.len(), 3);
    // One that says so only when it is loaded costs its process, and is rolled back.
    world.models.insert(Some(NEW.into()), Some(ModelShape { hop: 2000, ..shape("new", 12) }));
    let config = world.with_model(NEW);
    world.reload(config, Some(shape("new", 12))).unwrap();
    world.listen_for(5);
    assert_eq!(keys(&world, ""), before);
    assert!(world.status().inference.model.refused.is_some());
}

#[test]
fn a_process_with_a_replaced_file_is_not_used_beside_others_and_gets_no_state_of_theirs() {
    let mut world = world(2);
    world.listen_for(1);
    // The file is replaced, nobody reloads, and a process dies.
    world.models.insert(Some(OLD.into()), Some(shape("stray", 16)));
    world.exit("infer:0", Exit::Signal(9));
    world.pass(Duration::from_secs(1), &[]);
    assert!(
        world.log.iter().any(|l| l.contains("infer:0: the model's file was replaced")),
        "{:?}",
        world.log
    );
    for _ in 0..8 {
        world.window("a");
        assert!(world.jobs("infer:0").is_none(), "the other one has the model in use");
        world.score("infer:1");
        world.pass(Duration::from_millis(250), &[]);
    }
    world.exit("infer:1", Exit::Signal(9));
    world.pass(Duration::from_secs(1), &[]);
    // Better than nobody; `listen` looks at the states.
    world.listen_for(2);
    // The operator takes it up: a restart of the pool finds another model in the file.
    let (result, actions) = world.policy.replace_model(world.now, world.now.0 as i64, shape("stray", 16));
    assert!(result.unwrap().contains("stray"));
    world.perform(actions);
    world.listen_for(5);
    assert_eq!(world.status().inference.model.id, "stray");
    assert_eq!(keys(&world, "infer").len(), 2);
}

#[test]
fn a_trial_that_is_taken_back_touches_nobody() {
    let mut world = world(2);
    world.listen_for(1);
    let before = keys(&world, "");
    world.obedient = false;
    let config = world.with_model(NEW);
    world.reload(config, Some(shape("new", 12))).unwrap();
    world.pass(Duration::from_secs(1), &[]);
    assert!(world.running.contains_key("infer:stand-in-0"));
    let config = world.with_model(OLD);
    world.reload(config, Some(shape("old", 8))).unwrap();
    world.obedient = true;
    world.let_go();
    world.listen_for(3);
    assert_eq!(keys(&world, ""), before);
    assert_eq!(world.status().inference.model.next, None);
}

#[test]
fn a_stop_in_the_middle_of_a_renewal_ends_it_too() {
    let mut world = world(2);
    world.restart("infer").unwrap();
    world.pass(Duration::from_millis(1), &[]);
    let actions = world.policy.stop(world.now, world.now.0 as i64);
    world.perform(actions);
    for _ in 0..20 {
        world.let_go();
        world.pass(Duration::from_millis(100), &[]);
    }
    assert!(world.finished && world.running.is_empty(), "{:?}", world.running.keys());
}

#[test]
fn cameras_that_are_all_restarted_are_deaf_a_few_at_a_time() {
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(setup(&names, 1));
    names.iter().for_each(|n| world.live(n));
    let before = keys(&world, "capture");
    world.restart("capture").unwrap();
    let mut most = 0;
    let end = world.now + Duration::from_secs(60);
    while world.now < end {
        let away = world.running.values().filter(|(_, i)| i.contains(&ToWorker::Drain)).count();
        most = most.max(away);
        world.let_go();
        world.pass(Duration::from_millis(100), &[]);
        // One camera never comes back: it is not waited for.
        for name in &names[1..] {
            if world.starts(&format!("capture:{name}")) > 1 {
                world.live(name);
            }
        }
    }
    assert_eq!(most, 3, "of 20");
    for (name, key) in keys(&world, "capture") {
        assert_eq!(key.generation, before[&name].generation + 1, "{name}");
    }
}

#[test]
fn what_a_file_says_and_cannot_be_in_force_is_told_by_key() {
    let mut world = world(2);
    let (_, actions) = world.policy.scale(world.now, world.now.0 as i64, PoolSize::Fixed(2));
    world.perform(actions);
    let mut config = world.policy.config.clone();
    config.inference.workers = PoolSize::Fixed(5);
    config.supervision.worker_memory_mb = 512;
    let changes = world.reload(config.clone(), None).unwrap();
    let all = changes.notes.join(" ");
    assert!(all.contains("inference.workers") && all.contains("supervision.worker_memory_mb"), "{all}");
    assert_eq!(keys(&world, "infer").len(), 2);
    assert_eq!(world.reload(config, None).unwrap().to_string(), "reloaded: nothing changed");
}

#[test]
fn a_camera_whose_noise_gate_changed_is_restarted_and_one_whose_threshold_changed_is_not() {
    let mut world = world(1);
    let mut config = world.policy.config.clone();
    config.cameras[0].noise_gate = true;
    config.cameras[1].threshold = Some(0.8);
    let changes = world.reload(config, None).unwrap();
    assert_eq!(changes.cameras.changed, ["a", "b"]);
    assert_eq!(changes.restarted, ["capture:a"]);
    let told = |name: &str| world.running[name].1.contains(&ToWorker::Drain);
    assert_eq!(
        (told("capture:a"), told("capture:b"), told("capture:c"), told("sink")),
        (true, false, false, false)
    );
}

#[test]
fn what_is_remembered_of_a_camera_is_forgotten_when_it_becomes_another_one() {
    let mut world = World::new(setup(&["a"], 1));
    world.window("a");
    world.score("infer:0");
    world.window("a");
    assert!(!world.state_sent("infer:0").is_empty());
    // Another key of the same camera: the room is the same.
    let mut config = world.policy.config.clone();
    config.cameras[0].noise_gate = true;
    world.reload(config, None).unwrap();
    world.let_go();
    world.pass(Duration::from_secs(1), &[]);
    world.score("infer:0");
    world.window("a");
    assert!(!world.state_sent("infer:0").is_empty(), "what is remembered of the room holds");
    // Its source changes while a window of the old one is being scored, and another one is on its way.
    let mut config = world.policy.config.clone();
    config.cameras[0].source = config::SourceText::new("synthetic:noise");
    world.reload(config, None).unwrap();
    world.window("a");
    world.score("infer:0");
    world.let_go();
    world.pass(Duration::from_secs(1), &[]);
    world.window("a");
    world.score("infer:0");
    assert_eq!(world.state_sent("infer:0"), b"", "the first window of the new one");
    world.score("infer:0");
    world.window("a");
    assert!(!world.state_sent("infer:0").is_empty());
}
