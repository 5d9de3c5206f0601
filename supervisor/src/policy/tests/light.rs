//! Who makes pictures: what it is told, who is answered, and which camera is left out for its deaths.

use nursery_shared::{
    config::WebConfig,
    light::{Picture, Wanted},
};

use super::*;

fn world() -> World {
    let cameras = ["a", "b", "c"].map(|name| match name {
        "c" => serde_json::json!({"name": name, "source": "synthetic:cry"}),
        _ => serde_json::json!({"name": name, "source": "rtsp://192.0.2.1/x", "pictures": {"every_s": 2}}),
    });
    let text =
        serde_json::json!({"cameras": cameras, "inference": {"workers": 1}, "web": WebConfig::default()});
    let config = config::from_json(&text.to_string(), Path::new(".")).unwrap();
    World::new(Setup { config, ..setup(&["a"], 1) })
}

impl World {
    /// The cameras that it was told of, each time.
    fn told_light(&self) -> Vec<Vec<String>> {
        let of = |m: &ToWorker| match m {
            ToWorker::ConfigureLight(cameras) => Some(cameras.iter().map(|c| c.camera.clone()).collect()),
            _ => None,
        };
        self.running["light"].1.iter().filter_map(of).collect()
    }

    fn pictures_given(&self, name: &str) -> Vec<(u64, bool)> {
        let of = |m: &ToWorker| match m {
            ToWorker::PictureOf { ticket, found } => Some((*ticket, found.is_ok())),
            _ => None,
        };
        self.running[name].1.iter().filter_map(of).collect()
    }

    fn look(&mut self, camera: &str) {
        self.say("light", FromWorker::Looking { camera: camera.into() });
    }

    fn looked(&mut self, camera: &str, motion: Option<f32>) {
        self.look(camera);
        self.say("light", FromWorker::Looked { camera: camera.into(), motion });
    }

    fn reload_with(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.policy.config.clone();
        change(&mut config);
        let (result, actions) = self.policy.reload(self.now, self.now.0 as i64, config, None);
        result.unwrap();
        self.perform(actions);
    }
}

fn wanted(camera: &str) -> Wanted {
    Wanted { camera: camera.into(), near_us: None, score: None }
}

fn picture() -> Result<Picture, String> {
    Ok(Picture { time_us: 1, motion: None, jpeg: vec![1].into() })
}

#[test]
fn it_runs_where_there_are_pictures_and_a_reload_touches_no_camera() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    assert_eq!(world.told_light().last().unwrap(), &["a", "b"]);
    let spawned = |world: &World, name: &str| world.spawned_at[name].len();
    world.reload_with(|config| config.cameras[1].pictures = None);
    assert_eq!(world.told_light().last().unwrap(), &["a"]);
    assert_eq!((spawned(&world, "light"), spawned(&world, "capture:b")), (1, 1));
    world.reload_with(|config| config.cameras[0].pictures = None);
    assert!(world.running["light"].1.contains(&ToWorker::Drain));
    world.exit("light", Exit::Code(0));
    assert!(world.status().workers.iter().all(|w| w.name != "light"));
    world.say("web", FromWorker::WantPicture { ticket: 3, wanted: wanted("a") });
    assert_eq!(world.pictures_given("web"), [(3, false)]);
    let without = World::new(setup(&["a"], 1));
    assert!(!without.running.contains_key("light"));
}

#[test]
fn pictures_go_to_whoever_asked_last_and_nobody_waits_for_one_that_is_gone() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    world.say("web", FromWorker::WantPicture { ticket: 7, wanted: wanted("a") });
    world.say("sink", FromWorker::WantPicture { ticket: 7, wanted: wanted("a") });
    world.say("web", FromWorker::WantPicture { ticket: 8, wanted: wanted("b") });
    (0..3).for_each(|number| world.say("light", FromWorker::PictureOf { number, found: picture() }));
    assert_eq!(world.pictures_given("web"), [(8, true)]);
    assert_eq!(world.pictures_given("sink"), [(7, true)]);
    world.say("web", FromWorker::WantPicture { ticket: 9, wanted: wanted("a") });
    world.exit("light", Exit::Signal(11));
    assert_eq!(world.pictures_given("web")[1..], [(9, false)]);
    world.say("web", FromWorker::WantPicture { ticket: 10, wanted: wanted("a") });
    assert_eq!(world.pictures_given("web")[2..], [(10, false)]);
    // One that was asked for by somebody who is gone, one that was never asked for, and one that is too large.
    world.pass(Duration::from_secs(2), &[]);
    world.say("web", FromWorker::WantPicture { ticket: 11, wanted: wanted("a") });
    world.exit("web", Exit::Signal(9));
    world.say("light", FromWorker::PictureOf { number: 4, found: picture() });
    assert!(world.running.contains_key("light"));
    world.say("light", FromWorker::PictureOf { number: 99, found: picture() });
    assert!(!world.running.contains_key("light"));
    world.pass(Duration::from_secs(3), &[]);
    world.say("sink", FromWorker::WantPicture { ticket: 1, wanted: wanted("a") });
    let large = Picture { jpeg: vec![0; (256 << 10) + 1].into(), ..picture().unwrap() };
    world.say("light", FromWorker::PictureOf { number: 5, found: Ok(large) });
    assert!(!world.running.contains_key("light"));
}

#[test]
fn a_camera_whose_pictures_kill_is_left_out_for_longer_and_longer() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    world.looked("b", Some(0.5));
    world.look("a");
    world.exit("light", Exit::Signal(11));
    assert!(world.log.iter().any(|l| l.contains("no pictures of it for 10 s")), "{:?}", world.log);
    world.pass(Duration::from_secs(3), &[]);
    assert_eq!(world.told_light().last().unwrap(), &["b"]);
    world.pass(Duration::from_secs(10), &[]);
    assert_eq!(world.told_light().last().unwrap(), &["a", "b"]);
    world.look("a");
    world.exit("light", Exit::Signal(11));
    assert!(world.log.iter().any(|l| l.contains("no pictures of it for 20 s")));
    world.pass(Duration::from_secs(45), &[]);
    assert_eq!(world.told_light().last().unwrap(), &["a", "b"]);
    // Good for longer than it was left out: forgotten.
    world.looked("a", None);
    world.look("a");
    world.exit("light", Exit::Signal(11));
    assert_eq!(world.log.iter().filter(|l| l.contains("no pictures of it for 10 s")).count(), 2);
    // Nothing in hand, or asked to go: nobody's doing.
    world.pass(Duration::from_secs(30), &[]);
    world.looked("a", None);
    world.exit("light", Exit::Signal(9));
    world.pass(Duration::from_secs(5), &[]);
    assert_eq!(world.told_light().last().unwrap(), &["a", "b"]);
}

#[test]
fn motion_is_shown_while_it_is_known_and_words_that_make_no_sense_are_the_end() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    let motion =
        |world: &World| world.status().cameras.iter().map(|c| (c.pictures, c.motion)).collect::<Vec<_>>();
    world.looked("a", Some(0.123_456));
    world.looked("b", Some(f32::NAN));
    assert_eq!(motion(&world), [(true, Some(0.123)), (true, None), (false, None)]);
    world.pass(Duration::from_secs(8), &[]);
    assert_eq!(motion(&world)[0], (true, Some(0.123)));
    world.pass(Duration::from_secs(4), &[]);
    assert_eq!(motion(&world)[0], (true, None), "too old");
    world.say("light", FromWorker::WantMedia { ticket: 1, camera: "a".into() });
    assert_eq!(world.connected, [("capture:a".to_owned(), 1)]);
    for crime in [
        FromWorker::Looked { camera: "a".into(), motion: None },
        FromWorker::WantPicture { ticket: 1, wanted: wanted("a") },
        FromWorker::WantStatus,
        FromWorker::Looking { camera: "x".repeat(65) },
    ] {
        world.say("light", crime);
        assert!(!world.running.contains_key("light"));
        world.pass(Duration::from_secs(40), &[]);
    }
    world.say("web", FromWorker::Looking { camera: "a".into() });
    assert!(!world.running.contains_key("web"));
}
