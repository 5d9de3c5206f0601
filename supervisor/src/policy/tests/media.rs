//! Media and clips: who is brought together with whom, and what becomes of it when one of them is gone.

use nursery_shared::{config::WebConfig, media::ClipReport};

use super::*;

fn world() -> World {
    let mut setup = setup(&["a", "b"], 1);
    setup.config.web = Some(WebConfig::default());
    let mut world = World::new(setup);
    world.pass(Duration::from_secs(1), &[]);
    world
}

fn report(error: Option<&str>) -> ClipReport {
    ClipReport { from_us: 1, until_us: 2, bytes: 3, video: false, error: error.map(Into::into) }
}

impl World {
    fn clip_messages(&self, name: &str) -> Vec<ToWorker> {
        let of_clips = |m: &&ToWorker| {
            matches!(m, ToWorker::OpenClip { .. } | ToWorker::CloseClip { .. } | ToWorker::ClipClosed { .. })
        };
        self.running[name].1.iter().filter(of_clips).cloned().collect()
    }

    fn refusals(&self) -> Vec<(u64, String)> {
        let of = |m: &ToWorker| match m {
            ToWorker::MediaOf { ticket, why_not: Some(why) } => Some((*ticket, why.clone())),
            _ => None,
        };
        self.running["web"].1.iter().filter_map(of).collect()
    }

    fn open(&mut self, clip: i64, camera: &str) {
        self.say("sink", FromWorker::OpenClip { clip, camera: camera.into(), from_us: 5, max_bytes: 6 });
    }

    fn lost(clip: i64, why: &str) -> ToWorker {
        let report = ClipReport { from_us: 0, until_us: 0, bytes: 0, video: false, error: Some(why.into()) };
        ToWorker::ClipClosed { clip, report }
    }
}

#[test]
fn who_wants_a_camera_is_connected_with_it_or_told_why_not() {
    let mut world = world();
    let want = |world: &mut World, ticket, camera: &str| {
        world.say("web", FromWorker::WantMedia { ticket, camera: camera.into() });
    };
    want(&mut world, 1, "a");
    want(&mut world, 2, "b");
    want(&mut world, 3, "a");
    want(&mut world, 4, "c");
    world.exit("capture:b", Exit::Signal(9));
    want(&mut world, 5, "b");
    assert_eq!(world.connected, [("capture:a".to_owned(), 1), ("capture:b".to_owned(), 2)]);
    let refusals = world.refusals();
    let words = ["a moment ago", "no camera of this name", "does not run"];
    for ((ticket, word), (refused, why)) in [3, 4, 5].into_iter().zip(words).zip(&refusals) {
        assert!(*refused == ticket && why.contains(word), "{refusals:?}");
    }
    world.pass(Duration::from_secs(3), &[]);
    want(&mut world, 6, "b");
    assert_eq!(world.connected[2..], [("capture:b".to_owned(), 6)]);
    // Nobody else may want it.
    world.say("sink", FromWorker::WantMedia { ticket: 1, camera: "a".into() });
    assert!(!world.running.contains_key("sink"));
}

#[test]
fn a_clip_goes_to_its_camera_and_its_end_to_the_sink() {
    let mut world = world();
    world.open(1, "a");
    world.open(2, "b");
    world.say("sink", FromWorker::CloseClip { clip: 1, camera: "a".into(), until_us: 9 });
    assert_eq!(
        world.clip_messages("capture:a"),
        [
            ToWorker::OpenClip { clip: 1, from_us: 5, max_bytes: 6 },
            ToWorker::CloseClip { clip: 1, until_us: 9 }
        ]
    );
    // What another camera says of it counts for nothing.
    world.say("capture:b", FromWorker::ClipClosed { clip: 1, report: report(None) });
    assert!(world.clip_messages("sink").is_empty());
    world.say("capture:a", FromWorker::ClipClosed { clip: 1, report: report(Some("\u{1b}[2Jfull")) });
    let told = world.clip_messages("sink");
    assert!(
        matches!(&told[..], [ToWorker::ClipClosed { clip: 1, report }]
            if report.bytes == 3 && report.error.as_deref().is_some_and(|e| !e.contains('\u{1b}'))),
        "{told:?}"
    );
    world.exit("capture:b", Exit::Signal(9));
    assert_eq!(world.clip_messages("sink")[1..], [World::lost(2, "its capture process ended")]);
    world.open(3, "b");
    world.open(4, "nobody");
    let told = world.clip_messages("sink");
    assert_eq!(told[2], World::lost(3, "its capture process does not run at the moment"));
    assert_eq!(told[3], World::lost(4, "there is no camera of this name"));
    assert!(world.running.contains_key("capture:a") && world.running.contains_key("sink"));
}

#[test]
fn clips_of_a_sink_that_is_gone_end_at_once() {
    let mut world = world();
    world.open(1, "a");
    world.exit("sink", Exit::Signal(9));
    assert_eq!(world.clip_messages("capture:a")[1..], [ToWorker::CloseClip { clip: 1, until_us: 0 }]);
    world.pass(Duration::from_secs(2), &[]);
    world.say("capture:a", FromWorker::ClipClosed { clip: 1, report: report(None) });
    assert!(world.clip_messages("sink").is_empty());
    world.open(1, "a");
    world.open(1, "a");
    assert!(!world.running.contains_key("sink"), "one that opens a clip twice is out of its mind");
}
