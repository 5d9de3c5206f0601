//! Clips on their way to the page.

use nursery_shared::{
    clip::{About, Format, Found},
    config::{MotionRule, PicturesConfig, WebConfig},
};

use super::*;

fn world() -> World {
    let mut setup = setup(&["a"], 1);
    setup.config.web = Some(WebConfig::default());
    let mut world = World::new(setup);
    world.pass(Duration::from_secs(1), &[]);
    world
}

fn found() -> Found {
    let camera = "a".to_owned();
    Found::Clip(About { format: Format::Wav, camera, from_us: 1, until_us: 2, bytes: 3, note: None })
}

#[test]
fn capture_processes_remember_what_clips_need_and_a_reload_tells_them() {
    let mut world = world();
    let told = |world: &World| -> Vec<u32> {
        let of = |m: &ToWorker| match m {
            ToWorker::ConfigureCapture { remember_s, .. } => Some(*remember_s),
            ToWorker::Remember { seconds } => Some(*seconds),
            _ => None,
        };
        world.running["capture:a"].1.iter().filter_map(of).collect()
    };
    let first = told(&world);
    assert!(matches!(first[..], [seconds] if seconds >= 15), "{first:?}");
    let mut config = world.policy.config.clone();
    config.clips.before_s = 10.0;
    let reload = |world: &mut World, config| {
        let (result, actions) = world.policy.reload(world.now, world.now.0 as i64, config, None);
        result.unwrap();
        world.perform(actions);
    };
    reload(&mut world, config.clone());
    assert_eq!(told(&world)[1..], [first[0] + 5]);
    // Motion is announced late, and has a clip too.
    let pictures = PicturesConfig { every_s: 4.0, ..PicturesConfig::default() };
    config.cameras[0].pictures = Some(pictures);
    config.detection.motion = Some(MotionRule { min_duration_s: 20.0, ..MotionRule::default() });
    reload(&mut world, config.clone());
    assert_eq!(told(&world)[2..], [first[0] + 5 + 24]);
    config.detection.motion = Some(MotionRule { min_duration_s: 3_600.0, ..MotionRule::default() });
    reload(&mut world, config.clone());
    assert_eq!(told(&world)[3..], [first[0] + 5 + 60]);
    config.clips.enabled = Some(false);
    reload(&mut world, config);
    assert_eq!(told(&world)[4..], [0]);
}

impl World {
    fn asked_for(&self) -> Vec<(u64, String)> {
        let of = |m: &ToWorker| match m {
            ToWorker::WantClip { number, event_id } => Some((*number, event_id.clone())),
            _ => None,
        };
        self.running["sink"].1.iter().filter_map(of).collect()
    }

    fn clips_given(&self) -> Vec<(u64, bool)> {
        let of = |m: &ToWorker| match m {
            ToWorker::ClipOf { ticket, found } => Some((*ticket, matches!(found, Found::Clip(_)))),
            _ => None,
        };
        self.running["web"].1.iter().filter_map(of).collect()
    }

    fn want(&mut self, ticket: u64, event_id: &str) {
        self.say("web", FromWorker::WantClip { ticket, event_id: event_id.into() });
    }
}

#[test]
fn clips_are_asked_for_one_at_a_time_and_the_newest_of_those_that_wait_is_next() {
    let mut world = world();
    world.want(7, "e-1");
    world.want(8, "e-2");
    world.want(9, "e-3");
    assert_eq!(world.asked_for(), [(0, "e-1".to_owned())]);
    world.say("sink", FromWorker::ClipOf { number: 0, found: found() });
    assert_eq!(world.clips_given(), [(7, true)]);
    assert_eq!(world.asked_for()[1..], [(1, "e-3".to_owned())]);
    world.say("sink", FromWorker::ClipOf { number: 1, found: Found::Nothing });
    assert_eq!(world.clips_given()[1..], [(9, false)]);
    // One that was asked for long ago, or never.
    world.say("sink", FromWorker::ClipOf { number: 1, found: Found::Nothing });
    assert!(world.running.contains_key("sink"));
    world.say("sink", FromWorker::ClipOf { number: 2, found: Found::Nothing });
    assert!(!world.running.contains_key("sink"));
}

#[test]
fn who_asks_is_answered_although_the_sink_is_gone() {
    let mut world = world();
    world.want(1, "e-1");
    world.exit("sink", Exit::Signal(9));
    assert_eq!(world.clips_given(), [(1, false)]);
    world.want(2, "e-1");
    assert_eq!(world.clips_given()[1..], [(2, false)]);
    world.pass(Duration::from_secs(2), &[]);
    world.want(3, "e-1");
    world.exit("web", Exit::Signal(9));
    world.pass(Duration::from_secs(2), &[]);
    world.say("sink", FromWorker::ClipOf { number: 1, found: found() });
    assert!(world.clips_given().is_empty(), "whoever asked is gone");
    world.want(4, "../x");
    assert!(!world.running.contains_key("web"), "that is no event");
}
