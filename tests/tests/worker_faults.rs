//! Workers that die or freeze: replaced, nothing lost, nobody else disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{control::Reply, control::Request, status::CameraState};
use nursery_tests::{
    audio,
    processes::{Process, all_gone},
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, ask, camera, config, find_camera, nursery},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

/// The longest time in which a camera that is not concerned may show no new window. Windows come four times a
/// second; the rest is for a machine that is busy with other tests.
const LONGEST_GAP: Duration = Duration::from_secs(6);

/// Watches a camera's count of windows until told to stop, and knows the longest time without a new one.
struct Watch {
    over: Arc<AtomicBool>,
    watching: Option<JoinHandle<Duration>>,
}

impl Watch {
    fn start(service: &Service, name: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (socket, name, done) = (service.socket(), name.to_owned(), Arc::clone(&over));
        let watching = std::thread::spawn(move || {
            let (mut windows, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
            while !done.load(Ordering::SeqCst) {
                if let Ok(Reply::Status { status }) = ask(&socket, &Request::Status {}) {
                    let now = find_camera(&status, &name).windows;
                    if now > windows {
                        (windows, since) = (now, Instant::now());
                    }
                }
                longest = longest.max(since.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
            longest
        });
        Self { over, watching: Some(watching) }
    }

    fn longest_gap(mut self) -> Duration {
        self.over.store(true, Ordering::SeqCst);
        self.watching.take().expect("taken once").join().expect("the watching thread")
    }
}

/// A service on two small cameras, `crib` and `other`, with a pool of two.
struct Scene {
    crib: RtspCamera,
    _other: RtspCamera,
    receiver: Receiver,
    service: Service,
}

impl Scene {
    fn start() -> Self {
        let (crib, other) = (RtspCamera::start(Codec::L16), RtspCamera::start(Codec::Pcmu));
        let receiver = Receiver::start();
        let mut config =
            config([camera("crib", crib.url()), camera("other", other.url())], [receiver.alert()]);
        config["inference"]["workers"] = json!(2);
        let service = Service::start(&config);
        service.wait_live(&["crib", "other"]);
        Self { crib, _other: other, receiver, service }
    }

    /// Hits a worker with a signal while the baby of `crib` cries, and expects the cry to be announced once,
    /// the worker to be replaced, and `other` never to have been disturbed.
    fn hit_while_crying(&self, worker: &str, signal: Signal) {
        self.hit(worker, signal, &audio::cry(8.0), &[]);
    }

    /// Hits a worker with a signal: `before` is what the baby of `crib` cries meanwhile, `after` what it cries
    /// once the worker is replaced.
    fn hit(&self, worker: &str, signal: Signal, before: &[i16], after: &[i16]) {
        let watch = Watch::start(&self.service, "other");
        let old = self.service.process_of(worker);
        self.crib.microphone().play(before);
        if !before.is_empty() {
            let windows = self.service.camera("crib").windows;
            self.service.wait_for("the cry to be on its way", |status| {
                (find_camera(status, "crib").windows >= windows + 4).then_some(())
            });
        }
        assert!(old.signal(signal), "{worker} died by itself");
        self.service.wait_replaced(worker, old);
        self.service.wait_live(&["crib"]);
        self.crib.microphone().play(after);
        let started = self.receiver.wait_for("cry.started", "crib", PATIENCE);
        let ended = self.receiver.wait_for("cry.ended", "crib", PATIENCE);
        assert_eq!(started.event_id(), ended.event_id());
        self.service.wait_live(&["crib", "other"]);
        let gap = watch.longest_gap();
        assert!(gap < LONGEST_GAP, "no window of the other camera for {gap:?}");
        let status = self.service.status();
        let (hit, others): (Vec<_>, Vec<_>) = status.workers.iter().partition(|w| w.name == worker);
        assert_eq!(hit[0].restarts, 1, "{:?}", hit[0]);
        assert!(hit[0].last_exit.is_some(), "nothing says how {worker} ended");
        for other in others {
            assert_eq!(other.restarts, 0, "{} was restarted: {:?}", other.name, other.last_exit);
        }
        assert_eq!(status.inference.quarantined, 0);
        let kinds: Vec<_> = self.receiver.accepted().iter().map(|r| r.kind().to_owned()).collect();
        assert_eq!(kinds, ["cry.started", "cry.ended"]);
        assert!(self.service.log().iter().any(|line| line.contains(worker)), "not a word in the log");
    }
}

#[test]
fn audio_that_nobody_gets_to_score_is_told_of_and_that_it_is_over() {
    let (crib, receiver) = (RtspCamera::start(Codec::Pcmu), Receiver::start());
    let mut config = config([camera("crib", crib.url())], [receiver.alert()]);
    config["inference"]["workers"] = json!(1);
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let killed = wait::poll(3 * PATIENCE, || {
        // Whoever begins to score.
        let worker = service.status().workers.into_iter().find(|w| w.name == "infer:0");
        if let Some(process) = worker.and_then(|w| w.pid).and_then(Process::of) {
            process.signal(Signal::SIGKILL);
        }
        receiver.accepted_of("service.overloaded", "crib").pop()
    });
    let overloaded = killed.expect("nobody is told that nothing is scored");
    let data = &overloaded.body["data"];
    // How much is lost between two processes is a matter of how fast they start; that it is too much is what is told.
    let share = data["dropped_share"].as_f64().unwrap();
    assert!(share > 0.05 && share <= 1.0, "{data}");
    let reason = data["reason"].as_str().unwrap();
    let percent: Option<f64> = reason.split_once(" % of what was heard").and_then(|(n, _)| n.parse().ok());
    assert!(percent.is_some_and(|p| (p - 100.0 * share).abs() < 1.0), "{data}");
    // The camera itself is heard all the time.
    assert!(receiver.accepted_of("camera.offline", "crib").is_empty());
    let relieved = receiver.wait_for("service.relieved", "crib", 5 * PATIENCE);
    assert_eq!(relieved.event_id(), overloaded.event_id());
    service.wait_live(&["crib"]);
}

// The audio of the time in which nobody listens to a camera is lost with its capture process, and no more: the
// baby goes on crying.

#[test]
fn a_killed_capture_process_is_replaced_and_hears_the_cry_that_goes_on() {
    Scene::start().hit("capture:crib", Signal::SIGKILL, &[], &audio::cry(8.0));
}

#[test]
fn a_frozen_capture_process_is_replaced_and_hears_the_cry_that_goes_on() {
    Scene::start().hit("capture:crib", Signal::SIGSTOP, &[], &audio::cry(8.0));
}

#[test]
fn a_killed_inference_process_is_replaced_and_no_alert_is_lost() {
    Scene::start().hit_while_crying("infer:0", Signal::SIGKILL);
}

#[test]
fn a_frozen_inference_process_is_replaced_and_no_alert_is_lost() {
    Scene::start().hit_while_crying("infer:0", Signal::SIGSTOP);
}

#[test]
fn a_killed_sink_is_replaced_and_no_alert_is_lost() {
    Scene::start().hit_while_crying("sink", Signal::SIGKILL);
}

#[test]
fn a_frozen_sink_is_replaced_and_no_alert_is_lost() {
    Scene::start().hit_while_crying("sink", Signal::SIGSTOP);
}

#[test]
fn a_window_in_the_hands_of_a_killed_process_is_scored_by_another() {
    let crib = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    for _ in 0..2 {
        // A stopped process keeps what it is given, so there surely is a window in its hands when it is killed.
        let old = service.process_of("infer:0");
        assert!(old.signal(Signal::SIGSTOP));
        service.wait_for("a window in its hands", |s| (s.inference.in_flight > 0).then_some(()));
        assert!(old.signal(Signal::SIGKILL));
        service.wait_replaced("infer:0", old);
        let due = service.status().cameras[0].windows;
        service.wait_for("every window so far to be scored", |status| {
            (status.inference.scored >= due).then_some(())
        });
    }
    let status = service.status();
    assert_eq!((status.inference.quarantined, status.cameras[0].dropped), (0, 0));
    assert_eq!(service.worker("capture:crib").restarts, 0);
}

#[test]
fn a_whole_pool_that_freezes_and_comes_back_costs_no_process() {
    let crib = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    let infer = service.process_of("infer:0");
    assert!(infer.signal(Signal::SIGSTOP));
    service.wait_for("a window in its hands", |s| (s.inference.in_flight > 0).then_some(()));
    assert!(infer.signal(Signal::SIGCONT));
    service.wait_windows("crib", 8);
    assert_eq!(service.process_of("infer:0"), infer);
}

const FRAME_US: i64 = 50_000;

/// What became of a recording: per announcement its kind, its onset after the first one in score frames, and what
/// was measured. `kills`: how often the inference process is killed with a window in its hands meanwhile.
fn announced(recording: &Path, windows: u64, kills: u64) -> Vec<(String, i64, Vec<Value>)> {
    let source = format!("file:{}", recording.display());
    let mut config = config([json!({"name": "crib", "source": source, "realtime": false})], []);
    config["detection"] = json!({"end_after_s": 1, "cooldown_s": 0, "min_duration_s": 0.2});
    config["supervision"] = json!({"healthy_after_s": 0.01});
    let mut service = Service::start(&config);
    for n in 1..=kills {
        service.wait_for("more windows to be scored", |s| {
            (s.inference.scored >= n * windows / (kills + 2)).then_some(())
        });
        let old = service.process_of("infer:0");
        assert!(old.signal(Signal::SIGSTOP));
        let mut before = None;
        service.wait_for("a window to stay in its hands", |s| {
            let stuck =
                s.inference.in_flight > 0 && before.replace(s.inference.scored) == Some(s.inference.scored);
            stuck.then_some(())
        });
        assert!(old.signal(Signal::SIGKILL));
        service.wait_replaced("infer:0", old);
    }
    service.wait_for("the end of the recording", |s| {
        let camera = find_camera(s, "crib");
        let over = camera.state == CameraState::Ended && s.inference.queued + s.inference.in_flight == 0;
        over.then_some(())
    });
    let status = service.status();
    assert_eq!(service.worker("infer:0").restarts, kills);
    assert_eq!((status.inference.quarantined, status.cameras[0].dropped), (0, 0));
    assert_eq!((status.inference.scored, status.cameras[0].windows), (windows, windows));
    // A stop stores everything first.
    assert!(service.stop().status.success());
    let state_dir = service.dir().join("state");
    let mut events = nursery(["events", "--json", "--state-dir"]);
    let out = wait::output(events.arg(state_dir), Duration::from_secs(30));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bodies: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|body: &Value| body["type"].as_str().unwrap().starts_with("cry."))
        .collect();
    let time =
        |body: &Value, key: &str| nursery_shared::timestamp::parse_since(body["data"][key].as_str().unwrap());
    let first = bodies.first().map(|b| time(b, "onset").unwrap()).unwrap_or_default();
    let measured =
        |body: &Value| ["score", "duration_s", "peak_score"].map(|k| body["data"][k].clone()).into();
    bodies
        .iter()
        .map(|b| {
            // Written in whole milliseconds, so the difference may be off by one of them.
            let frames = (time(b, "onset").unwrap() - first + FRAME_US / 2) / FRAME_US;
            (b["type"].as_str().unwrap().to_owned(), frames, measured(b))
        })
        .collect()
}

#[test]
fn a_recording_whose_inference_process_is_killed_again_and_again_is_scored_as_if_nothing_had_happened() {
    let dir = TempDir::new();
    let wav = dir.join("night.wav");
    // Long enough to be hit in the middle again and again, also where this test is slower than the detector.
    let clip: Vec<i16> = (0..64).flat_map(|_| [audio::cry(4.0), audio::room_noise(3.0)].concat()).collect();
    audio::write_wav(&wav, &clip);
    // Two more windows bring the scores of the last ones, which come 0.4 s late.
    let windows = (clip.len() as u64).div_ceil(u64::from(audio::RATE) / 4) + 2;
    let undisturbed = announced(&wav, windows, 0);
    assert!(undisturbed.len() >= 80, "most of 64 cries are announced: {undisturbed:?}");
    assert_eq!(announced(&wav, windows, 6), undisturbed);
}

#[test]
fn a_worker_that_is_killed_again_and_again_is_neither_given_up_nor_restarted_in_a_tight_loop() {
    let crib = RtspCamera::start(Codec::L16);
    let other = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", crib.url()), camera("other", other.url())], []));
    service.wait_live(&["crib", "other"]);
    let watch = Watch::start(&service, "other");
    let start = Instant::now();
    for _ in 0..5 {
        let old = service.process_of("capture:crib");
        assert!(old.signal(Signal::SIGKILL));
        service.wait_replaced("capture:crib", old);
    }
    // 100 ms, 200 ms, 400 ms, 800 ms, 1.6 s, each with jitter: at the least half of their sum.
    assert!(start.elapsed() > Duration::from_millis(1500), "five restarts within {:?}", start.elapsed());
    assert_eq!(service.worker("capture:crib").restarts, 5);
    service.wait_live(&["crib"]);
    assert!(watch.longest_gap() < LONGEST_GAP);
}

#[test]
fn the_program_of_a_camera_ends_with_its_capture_process_however_that_ends() {
    // A shell with children of its own, none of which notices by itself that nobody listens any more.
    let program = r#"exec:sh -c "while :; do head -c 3200 /dev/zero; sleep 0.1; done | cat""#;
    let mut service = Service::start(&config([camera("crib", program)], []));
    service.wait_live(&["crib"]);
    let old = service.process_of("capture:crib");
    let programs = old.descendants();
    assert!(programs.len() >= 3, "{programs:?}");
    assert!(old.signal(Signal::SIGKILL));
    service.wait_replaced("capture:crib", old);
    service.wait_live(&["crib"]);
    let left = all_gone(&programs, Duration::from_secs(5));
    let now = service.process_of("capture:crib").descendants();
    assert!(service.stop().status.success());
    let left_at_the_end = all_gone(&now, Duration::from_secs(5));
    for process in programs.iter().chain(&now) {
        process.signal(Signal::SIGKILL);
    }
    left.expect("the program of the killed process is gone");
    left_at_the_end.expect("the program is gone with the service");
}

#[test]
fn crying_that_a_new_capture_process_hears_from_its_midst_on_is_announced() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut config = config([camera("crib", crib.url())], [receiver.alert()]);
    config["detection"]["cooldown_s"] = json!(0);
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let cry = audio::cry(8.0);
    // Places at which a model that knows nothing of the room takes the crying for the room.
    for midst in [0.2, 1.4, 1.8] {
        service.wait_windows("crib", 12);
        let old = service.process_of("capture:crib");
        let announced = receiver.accepted_of("cry.ended", "crib").len();
        crib.go_away();
        assert!(old.signal(Signal::SIGKILL));
        let mut heard = None;
        wait::until("the end of the old session", PATIENCE, || {
            let now = crib.microphone().heard();
            (heard.replace(now) == Some(now)).then_some(())
        });
        crib.microphone().play(&cry[(midst * audio::RATE as f32) as usize..]);
        crib.come_back();
        wait::until(&format!("a cry heard from {midst} s on"), PATIENCE, || {
            (receiver.accepted_of("cry.ended", "crib").len() > announced).then_some(())
        });
    }
}

#[test]
fn restarting_a_worker_by_name_replaces_it_alone() {
    let scene = Scene::start();
    let before = scene.service.status();
    let sink = scene.service.process_of("sink");
    scene.service.must(["restart", "sink"]);
    scene.service.wait_replaced("sink", sink);
    let after = scene.service.status();
    let pids = |list: &nursery_shared::status::Status| -> Value {
        let others = list.workers.iter().filter(|w| w.name != "sink");
        others.map(|w| (w.name.clone(), json!(w.pid))).collect::<serde_json::Map<_, _>>().into()
    };
    assert_eq!(pids(&before), pids(&after));
    let out = scene.service.cli(["restart", "no-such-worker"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("no-such-worker"));
}
