//! The page's process: what it is told, and that nobody waits for it.

use nursery_shared::{
    config::WebConfig,
    history::{Answer, From, History, Listing, Question, StoredEvent},
};

use super::*;

fn world() -> World {
    let mut setup = setup(&["a"], 1);
    setup.config.web = Some(WebConfig::default());
    World::new(setup)
}

fn question(n: i64) -> Question {
    Question::Events(listing(n))
}

fn listing(n: i64) -> Listing {
    Listing { from: From::After(n), since_us: None, camera: None, limit: 10 }
}

fn history(n: i64) -> Answer {
    let event = StoredEvent { id: n, json: "{}".into() };
    Answer::Events(History { events: vec![event], newest: n, next: None })
}

impl World {
    fn inbox(&self, name: &str) -> &[ToWorker] {
        &self.running[name].1
    }

    /// The questions that the sink has got.
    fn questions(&self) -> Vec<(u64, Question)> {
        let of = |m: &ToWorker| match m {
            ToWorker::Question { number, question } => Some((*number, question.clone())),
            _ => None,
        };
        self.inbox("sink").iter().filter_map(of).collect()
    }

    /// The answers that the page has got.
    fn answers(&self) -> Vec<(u64, Answer)> {
        let of = |m: &ToWorker| match m {
            ToWorker::History { ticket, answer } => Some((*ticket, answer.clone())),
            _ => None,
        };
        self.inbox("web").iter().filter_map(of).collect()
    }
}

#[test]
fn the_page_runs_where_it_is_configured_and_comes_and_goes_with_a_reload() {
    let mut world = World::new(setup(&["a"], 1));
    assert!(!world.running.contains_key("web"));
    let reload = |world: &mut World, web: Option<WebConfig>| {
        let config = Config { web, ..world.policy.config.clone() };
        let (now, us) = (world.now, world.now.0 as i64);
        let (changes, actions) = world.policy.reload(now, us, config, None);
        world.perform(actions);
        changes.unwrap()
    };
    let changes = reload(&mut world, Some(WebConfig::default()));
    world.pass(Duration::from_millis(600), &[]);
    assert_eq!((changes.settings, changes.restarted.len()), (vec!["web".to_owned()], 0));
    assert!(world.inbox("web").contains(&ToWorker::ConfigureWeb(WebConfig::default())));
    // Another address: it alone begins anew.
    let other = WebConfig { listen: "127.0.0.1:1".into(), ..WebConfig::default() };
    let changes = reload(&mut world, Some(other.clone()));
    assert_eq!(
        (changes.settings, changes.restarted),
        (vec!["web.listen".to_owned()], vec!["web".to_owned()])
    );
    world.exit("web", Exit::Code(0));
    world.pass(Duration::from_millis(600), &[]);
    assert!(world.inbox("web").contains(&ToWorker::ConfigureWeb(other)));
    reload(&mut world, None);
    assert!(world.inbox("web").contains(&ToWorker::Drain));
    world.exit("web", Exit::Code(0));
    world.pass(Duration::from_secs(2), &[]);
    assert!(!world.running.contains_key("web"));
    assert!(world.status().workers.iter().all(|w| w.role != Role::Web));
    assert!(world.post_mortems.is_empty());
}

#[test]
fn the_state_is_shown_to_who_asks_and_not_more_than_some_times_a_second() {
    let mut world = world();
    world.pass(Duration::from_secs(5), &[]);
    assert!(world.looks.is_empty(), "nobody asked");
    let end = world.now + Duration::from_secs(10);
    while world.now < end {
        // However often it asks.
        (0..5).for_each(|_| world.say("web", FromWorker::WantStatus));
        world.pass(Duration::from_millis(10), &[]);
    }
    assert!((30..=40).contains(&world.looks.len()), "{}", world.looks.len());
    let asked = world.looks.len();
    world.pass(Duration::from_secs(5), &[]);
    assert!(world.looks.len() <= asked + 1, "nobody asks any more");
}

#[test]
fn questions_go_to_the_sink_one_at_a_time_and_answers_to_who_asked() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    world.say("web", FromWorker::Question { ticket: 70, question: question(1) });
    assert_eq!(world.questions(), [(0, question(1))]);
    // Of those that wait meanwhile the newest is left.
    world.say("web", FromWorker::Question { ticket: 71, question: question(2) });
    world.say("web", FromWorker::Question { ticket: 72, question: question(3) });
    world.pass(Duration::from_secs(1), &[]);
    assert_eq!(world.questions().len(), 1);
    world.say("sink", FromWorker::History { number: 0, answer: history(1) });
    world.pass(Duration::from_millis(100), &[]);
    assert_eq!(world.questions()[1..], [(1, question(3))]);
    assert_eq!(world.answers(), [(70, history(1))]);
    // A sink that dies takes the question along, and who asked is told.
    world.exit("sink", Exit::Signal(9));
    assert_eq!(world.answers()[1], (72, Answer::failed("the store is not within reach at the moment")));
    world.say("web", FromWorker::Question { ticket: 73, question: question(4) });
    world.pass(Duration::from_millis(50), &["sink"]);
    assert!(world.answers().iter().any(|(ticket, h)| *ticket == 73 && matches!(h, Answer::Failed(_))));
    // What a page asked that has died since is answered to nobody.
    world.pass(Duration::from_secs(1), &[]);
    world.say("web", FromWorker::Question { ticket: 1, question: question(5) });
    let (number, _) = world.questions().pop().expect("a question");
    world.exit("web", Exit::Signal(9));
    world.pass(Duration::from_secs(1), &[]);
    world.say("sink", FromWorker::History { number, answer: history(5) });
    assert!(world.answers().is_empty());
    assert!(world.running.contains_key("sink"));
}

#[test]
fn a_page_or_a_sink_that_makes_things_up_is_killed_alone() {
    let wide = Question::Events(Listing { limit: 1_000_000, ..listing(1) });
    let long = Question::Events(Listing { camera: Some("x".repeat(65)), ..listing(1) });
    let questions = [wide, long].map(|question| ("web", FromWorker::Question { ticket: 1, question }));
    let others = [
        ("web", FromWorker::Ack { up_to: 0 }),
        ("web", FromWorker::Event { json: "{}".into() }),
        ("web", FromWorker::History { number: 0, answer: Answer::Event(None) }),
        ("sink", FromWorker::History { number: 9, answer: Answer::Event(None) }),
        ("sink", FromWorker::WantStatus),
        ("infer:0", FromWorker::Question { ticket: 1, question: question(1) }),
        ("capture:a", FromWorker::WantStatus),
    ];
    for (liar, lie) in questions.into_iter().chain(others) {
        let mut world = world();
        world.pass(Duration::from_secs(1), &[]);
        let before: Vec<String> = world.running.keys().cloned().collect();
        world.say(liar, lie.clone());
        let gone: Vec<_> = before.iter().filter(|n| !world.running.contains_key(*n)).collect();
        assert_eq!(gone, [liar], "{lie:?}");
    }
}

#[test]
fn a_page_that_hangs_is_killed_and_everybody_else_goes_on() {
    let mut world = world();
    world.pass(Duration::from_secs(1), &[]);
    world.live("a");
    world.pass(Duration::from_secs(7), &["web"]);
    assert_eq!(world.status().workers.iter().map(|w| w.restarts).sum::<u64>(), 1);
    assert!(world.log.iter().any(|l| l.contains("web: hung: no progress")), "{:?}", world.log);
    let stored = |world: &World| world.inbox("web").iter().filter(|m| **m == ToWorker::Stored).count();
    let before = stored(&world);
    world.say("sink", FromWorker::Event { json: "{}".into() });
    assert_eq!(stored(&world), before + 1, "the next one is told of events");
}
