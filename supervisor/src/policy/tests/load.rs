//! A pool that follows the load: up within seconds, down after a minute, and no swinging.

use super::*;

/// Cameras, each with a window every 250 ms, whose batches take `cost` per window.
struct Load {
    world: World,
    /// When each process is done with what it has in hand.
    busy: BTreeMap<String, Time>,
    next: Time,
    names: Vec<String>,
    sizes: Vec<u32>,
}

const STEP: Duration = Duration::from_millis(10);

impl Load {
    fn new(cameras: usize, min: Option<u32>, max: u32) -> Self {
        let names: Vec<String> = (0..cameras).map(|n| format!("c{n}")).collect();
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut setup = setup(&list, 1);
        setup.config.inference.workers = PoolSize::Auto;
        setup.config.inference.min_workers = min;
        setup.config.inference.max_workers = Some(max);
        let world = World::new(setup);
        let next = world.now;
        Self { world, busy: BTreeMap::new(), next, names, sizes: Vec::new() }
    }

    fn size(&self) -> u32 {
        self.world.policy.members().count() as u32
    }

    fn run(&mut self, time: Duration, mut cost: impl FnMut() -> Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            if self.next <= self.world.now {
                self.next = self.next + Duration::from_millis(250);
                for name in self.names.clone() {
                    self.world.window(&name);
                }
            }
            for name in
                self.world.running.keys().filter(|n| n.starts_with("infer")).cloned().collect::<Vec<_>>()
            {
                let now = self.world.now;
                match self.busy.get(&name) {
                    None => {
                        if let Some((_, jobs)) = self.world.jobs(&name) {
                            let time = cost() * jobs.len() as u32;
                            self.busy.insert(name, now + time);
                        }
                    }
                    Some(done) if *done <= now => {
                        self.busy.remove(&name);
                        self.world.score(&name);
                    }
                    _ => {}
                }
                let drained = |world: &World, name: &str| {
                    world.running.get(name).is_some_and(|(_, i)| i.contains(&ToWorker::Drain))
                };
                let leaving: Vec<String> = (0..64)
                    .map(|n| format!("infer:{n}"))
                    .filter(|n| drained(&self.world, n) && self.world.jobs(n).is_none())
                    .collect();
                leaving.iter().for_each(|n| self.world.exit(n, Exit::Code(0)));
            }
            self.world.pass(STEP, &[]);
            let size = self.size();
            if self.sizes.last() != Some(&size) {
                self.sizes.push(size);
            }
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_pool_grows_within_seconds_and_shrinks_after_a_minute_within_its_bounds() {
    // 8 windows every 250 ms.
    let mut load = Load::new(8, Some(1), 3);
    load.run(Duration::from_secs(10), || ms(2));
    assert_eq!(load.size(), 1);
    // 1.6 processes' worth of work.
    load.run(Duration::from_secs(8), || ms(50));
    assert!(load.size() >= 2, "{:?}", load.sizes);
    load.run(Duration::from_secs(30), || ms(90));
    assert_eq!(load.size(), 3, "and no more: {:?}", load.sizes);
    let auto = load.world.status().inference.auto.unwrap();
    let last = auto.last_change.unwrap();
    assert_eq!((auto.min, auto.max, last.from, last.to), (1, 3, 2, 3));
    assert!(last.why.contains("busy for") || last.why.contains("waited"), "{}", last.why);
    load.run(Duration::from_secs(50), || ms(2));
    assert_eq!(load.size(), 3, "not before a minute is over");
    load.run(Duration::from_secs(140), || ms(2));
    assert_eq!(load.size(), 1);
    assert_eq!(load.sizes, [1, 2, 3, 2, 1]);
    assert!(load.world.status().cameras.iter().all(|c| c.dropped == 0 || c.windows > 0));
}

#[test]
fn windows_that_nobody_gets_to_score_are_told_of_and_that_it_is_over() {
    let mut load = Load::new(8, Some(1), 1);
    let told = |load: &Load| -> Vec<(String, RecordKind)> {
        let all = load.world.records().into_iter().map(|(_, record)| (record.camera, record.what));
        all.filter(|(_, k)| matches!(k, RecordKind::Overloaded(_) | RecordKind::Relieved { .. })).collect()
    };
    // The sink keeps up.
    let run = |load: &mut Load, seconds: u64, cost: Duration| {
        for _ in 0..seconds {
            load.run(Duration::from_secs(1), || cost);
            if let Some((up_to, _)) = load.world.records().pop() {
                load.world.say("sink", FromWorker::Ack { up_to });
            }
        }
    };
    run(&mut load, 40, ms(2));
    // Once after the start, for who was told of one by a service before this one.
    assert!(matches!(&told(&load)[..], [(_, RecordKind::Relieved { .. })]));
    // 32 windows a second, of which 20 are scored; the queues of six seconds fill up first.
    run(&mut load, 20, ms(50));
    assert_eq!(told(&load).len(), 1, "a short one is none");
    run(&mut load, 60, ms(50));
    let [_, (cameras, RecordKind::Overloaded(overload))] = &told(&load)[..] else {
        panic!("{:?}", told(&load))
    };
    assert_eq!(Record::cameras_in(cameras).count(), 8, "fairly shared: {cameras}");
    assert!((0.3..0.45).contains(&overload.dropped), "{overload:?}");
    assert!(overload.reason.contains("comes faster than it is scored"), "{overload:?}");
    let share: Vec<u64> = load.world.status().cameras.iter().map(|c| c.dropped).collect();
    assert!(share.iter().max().unwrap() - share.iter().min().unwrap() <= 3, "{share:?}");
    run(&mut load, 60, ms(2));
    assert!(matches!(&told(&load)[2..], [(_, RecordKind::Relieved { .. })]), "{:?}", told(&load));
    // Nobody at all.
    for _ in 0..40 {
        if load.world.running.contains_key("infer:0") {
            load.world.exit("infer:0", Exit::Signal(11));
        }
        load.busy.clear();
        run(&mut load, 1, Duration::from_secs(1_000));
    }
    let all = told(&load);
    assert!(matches!(&all[3..], [(_, RecordKind::Overloaded(o))] if o.dropped > 0.9), "{all:?}");
}

#[test]
fn without_bounds_one_spare_is_kept() {
    let mut load = Load::new(2, None, 4);
    load.run(Duration::from_secs(200), || ms(2));
    assert_eq!(load.sizes, [2]);
    let world = World::new(setup(&["a"], 1));
    assert_eq!(world.status().inference.auto, None, "a fixed size");
}

#[test]
fn a_load_that_varies_does_not_make_the_pool_swing() {
    for seed in 0..2 {
        let mut load = Load::new(8, Some(1), 4);
        let mut random = fastrand::Rng::with_seed(seed);
        // Around one process's worth, from a tenth of that to twice as much.
        load.run(Duration::from_secs(600), || ms(random.u64(3..62)));
        let changes = load.sizes.len() - 1;
        assert!(changes <= 3, "seed {seed}: {:?}", load.sizes);
        // Steps: a minute of much, a minute of little.
        let before = load.sizes.len();
        for minute in 0..10 {
            let cost = if minute % 2 == 0 { 55 } else { 4 };
            load.run(Duration::from_secs(55), || ms(cost));
        }
        let changes = load.sizes.len() - before;
        assert!(changes <= 3, "seed {seed}: {:?}", load.sizes);
    }
}

#[test]
fn a_process_that_died_and_a_supervisor_that_slept_are_no_load() {
    let mut load = Load::new(8, Some(1), 4);
    load.run(Duration::from_secs(20), || ms(2));
    for _ in 0..5 {
        load.world.exit("infer:0", Exit::Signal(9));
        load.busy.clear();
        load.run(Duration::from_secs(3), || ms(2));
        load.world.now = load.world.now + Duration::from_secs(20);
        load.next = load.world.now;
        load.run(Duration::from_secs(3), || ms(2));
    }
    assert_eq!(load.size(), 1, "{:?}", load.sizes);
}

#[test]
fn auto_begins_with_the_size_that_was_there() {
    let mut world = World::new(setup(&["a"], 2));
    let scale = |world: &mut World, size| {
        let (_, actions) = world.policy.scale(world.now, world.now.0 as i64, size);
        world.perform(actions);
    };
    world.policy.config.inference.max_workers = Some(6);
    scale(&mut world, PoolSize::Fixed(5));
    scale(&mut world, PoolSize::Auto);
    assert_eq!(world.status().inference.workers, 5);
    world.pass(Duration::from_secs(65), &[]);
    assert_eq!(world.status().inference.workers, 4);
}
