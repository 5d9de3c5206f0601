//! The lists of system calls are long enough and not too long: real workers do their work under ptrace, and what is on
//! a list but was not made by any of them is superfluous.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, os::fd::AsFd, time::Duration};

use nursery_shared::{
    config::{CameraConfig, Config, MAX_BATCH, PicturesConfig, from_json},
    frame::MAX_FROM_WORKER,
    history::{Answer, History},
    light::{LightCamera, Wanted},
    media::{AudioCodec, AudioTrack, Data, FromCapture, Kind, Packet, Tracks},
    message::{
        CameraDetection, FromWorker, ModelShape, Record, RecordKind, SetAside, SinkConfig, ToWorker,
        WindowJob,
    },
    model_state::ModelState,
    pcm::Pcm,
};
use nursery_tests::{
    audio,
    bare_worker::BareWorker,
    http::{Client, free_port},
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    skip,
    temp_dir::TempDir,
    traced::Traced,
    web_worker::{self, FakeCapture},
};
use nursery_worker::{
    cage::{policy::Policy, roles::Plan},
    info,
};

/// A record of live media.
const RAW_SOUND: u8 = 6;

/// What was made, and what may be.
#[derive(Default)]
struct Account {
    made: BTreeSet<i64>,
    lists: Vec<&'static str>,
}

impl Account {
    fn add(&mut self, plan: &Plan, worker: Traced) {
        let (status, calls) = worker.drain();
        assert_eq!(status, Some(0), "{:?}", plan.lists);
        assert!(!calls.is_empty());
        self.made.extend(calls);
        self.lists.extend(plan.lists.iter().copied());
        let policy = Policy::read(&plan.lists).unwrap();
        eprintln!("FIGURE {:?}: {} system calls", plan.lists, policy.calls().len());
    }

    /// Everything on the lists, but for what says that it is rare, was needed.
    fn settle(&self) {
        let policy = Policy::read(&self.lists).unwrap();
        let rare: BTreeSet<i64> = policy.rules.iter().filter(|r| r.rare).map(|r| r.number).collect();
        let superfluous: Vec<&str> = policy
            .rules
            .iter()
            .filter(|r| r.fails.is_none() && !rare.contains(&r.number) && !self.made.contains(&r.number))
            .map(|r| r.call)
            .collect();
        assert!(superfluous.is_empty(), "on the lists, but never made: {superfluous:?}");
    }
}

fn shape() -> ModelShape {
    info::shape(&info::load_detector(info::find_model(None).unwrap()).unwrap())
}

/// Most windows of a batch whose scores and states fit a frame, and at most as many as may be asked for.
fn most_at_once() -> u64 {
    let shape = shape();
    let each = shape.scores_per_window() * 4 + shape.state_bytes as usize + 64;
    ((MAX_FROM_WORKER - 64) / each).min(MAX_BATCH as usize) as u64
}

fn configuration(text: &str) -> Config {
    from_json(text, std::path::Path::new("/")).unwrap()
}

fn camera(json: &str) -> CameraConfig {
    configuration(&format!("[{json}]")).cameras.remove(0)
}

fn listen(account: &mut Account, camera: &CameraConfig, windows: usize) {
    let plan = Plan::capture(camera, &camera.source.parse().unwrap());
    let configure = ToWorker::ConfigureCapture { camera: camera.clone(), model: shape(), remember_s: 0 };
    let mut worker = Traced::start("capture", &configure);
    let window = |m| matches!(m, FromWorker::Window(_)).then_some(());
    worker.wait_for(window);
    if camera.realtime {
        let mut media = worker.connect();
        media.want(true);
        media.wait_for(|m| matches!(m, FromCapture::Packet(_)).then_some(()));
    }
    // Their end is seen by who listens on.
    (0..windows).for_each(|_| worker.wait_for(window));
    account.add(&plan, worker);
}

#[test]
fn capture_makes_every_call_that_it_may_make() {
    let mut account = Account::default();
    let dir = TempDir::new();
    let wav = dir.join("tone.wav");
    let tone: Vec<i16> = (0..16_000).map(|i| (f64::sin(f64::from(i) / 20.0) * 8_000.0) as i16).collect();
    audio::write_wav(&wav, &tone);
    listen(&mut account, &camera(r#"{"name": "a", "source": "synthetic:cry"}"#), 4);
    let source = format!("file:{}", wav.display());
    listen(&mut account, &camera(&format!(r#"{{"name": "a", "source": "{source}", "loop": true}}"#)), 12);
    let crib = RtspCamera::start(Codec::L16);
    for (url, rest) in [
        (crib.url(), ""),
        (crib.url(), r#", "transport": "udp""#),
        (crib.url().replace("127.0.0.1", "localhost"), ""),
    ] {
        listen(&mut account, &camera(&format!(r#"{{"name": "a", "source": "{url}"{rest}}}"#)), 8);
    }
    account.settle();
}

#[test]
fn infer_makes_every_call_that_it_may_make() {
    let mut account = Account::default();
    for threads in [1, 3] {
        let plan = Plan::infer();
        let mut worker = Traced::start("infer", &ToWorker::ConfigureInfer { model: None, threads });
        let window = Pcm::from_f32(&vec![0.1; shape().window as usize]);
        for batch in 0..most_at_once() {
            // All sizes that there are.
            let windows = (0..=batch)
                .map(|id| WindowJob { id, state: ModelState::default(), pcm: window.clone() })
                .collect();
            worker.send(&ToWorker::Batch { batch, windows });
            worker.wait_for(|m| matches!(m, FromWorker::Scores { .. }).then_some(()));
        }
        account.add(&plan, worker);
    }
    account.settle();
}

#[test]
fn the_sink_makes_every_call_that_it_may_make() {
    let mut account = Account::default();
    let dir = TempDir::new();
    let receiver = Receiver::start();
    let url = receiver.alert()["url"].as_str().unwrap().to_owned();
    for (hour, url) in (0..).zip([url.replace("127.0.0.1", "localhost"), url]) {
        let text = format!(
            r#"{{"cameras": [{{"name": "crib", "source": "synthetic:cry"}}], "alerts": [{{"type": "log"}}, {{"type": "webhook", "url": "{url}"}}], "heartbeat": "{url}"}}"#
        );
        let config = configuration(&text);
        let sink = SinkConfig {
            run: 7,
            state_dir: dir.path().display().to_string(),
            alerts: config.alerts.clone(),
            detection: config.detection,
            cameras: vec![CameraDetection { camera: "crib".into(), detection: config.detection }],
            heartbeat: config.heartbeat.clone(),
            clips: config.clips,
            keep_days: 30,
        };
        let plan = Plan::sink(&sink, dir.path(), false);
        let mut worker = Traced::start("sink", &ToWorker::ConfigureSink(sink));
        let before = receiver.requests().len();
        let say = |worker: &mut Traced, seq: u64, what: RecordKind| {
            worker.send(&ToWorker::Record { seq, record: Record { camera: "crib".into(), what } });
        };
        let (mut seq, start_us) = (0, 1_769_824_984_500_000 + hour * 3_600_000_000);
        for second in 0..12 {
            seq += 1;
            let values = vec![if second % 8 < 4 { 0.99 } else { 0.01 }; 20];
            let start_us = start_us + second * 1_000_000;
            let scores =
                RecordKind::Scores { start_us, step_us: 50_000, values, level_dbfs: -20.0, arrived_us: 0 };
            say(&mut worker, seq, scores);
        }
        let set_aside = SetAside {
            window: 3,
            end_us: start_us,
            pcm: Pcm::from_f32(&[0.1; 4_000]),
            state: ModelState::default(),
            deaths: vec!["signal 11".into()],
        };
        say(&mut worker, seq + 1, RecordKind::SetAside(set_aside));
        worker.send(&ToWorker::Heartbeat);
        worker.wait_for(|m| matches!(m, FromWorker::Ack { up_to } if up_to > seq).then_some(()));
        nursery_tests::wait::until("deliveries", Duration::from_secs(30), || {
            (receiver.requests().len() > before).then_some(())
        });
        account.add(&plan, worker);
    }
    account.settle();
}

#[test]
fn the_page_makes_every_call_that_it_may_make() {
    let mut account = Account::default();
    let port = free_port();
    let config = configuration(&format!(
        r#"{{"cameras": [{{"name": "crib", "source": "synthetic:cry"}}], "web": {{"listen": "127.0.0.1:{port}", "password": "open sesame"}}}}"#
    ));
    let mut worker = Traced::start("web", &ToWorker::ConfigureWeb(config.web.unwrap()));
    let asking = std::thread::spawn(move || {
        let client = Client::new(port);
        assert_eq!(client.get("/app.js").status, 200);
        // Tried by a thread of its own.
        let inside = client.log_in("open sesame");
        let mut stream = inside.stream("/api/stream").unwrap();
        stream.wait_for("the state", Duration::from_secs(20), |e| e.kind == "status");
        let mut live = inside.live("/api/cameras/crib/live").unwrap();
        while live.try_next().unwrap().kind != RAW_SOUND {}
        inside.get("/metrics").status
    });
    worker.wait_for(|m| matches!(m, FromWorker::Question { .. }).then_some(()));
    worker.send(&ToWorker::History { ticket: 0, answer: Answer::Events(History::default()) });
    let (mut media, theirs) = FakeCapture::pair();
    let ticket = loop {
        match worker.receive() {
            FromWorker::WantStatus => {
                // As often as the supervisor shows it.
                std::thread::sleep(Duration::from_millis(100));
                worker.send(&ToWorker::Status(Box::new(web_worker::status())));
            }
            FromWorker::WantMedia { ticket, .. } => break ticket,
            _ => {}
        }
    };
    worker.send_with(&ToWorker::MediaOf { ticket, why_not: None }, theirs.as_fd());
    assert_eq!(media.wish(Duration::from_secs(20)), Some(true));
    let audio = AudioTrack { codec: AudioCodec::Ulaw, rate: 8000, channels: 1, config: Data::default() };
    media.send(&FromCapture::Tracks(Tracks { audio: Some(audio), ..Tracks::default() }));
    let data = Data::from(vec![0; 160]);
    let packet = Packet { kind: Kind::Audio, time_us: 1, duration_us: 20_000, key: true, data };
    media.send(&FromCapture::Packet(packet));
    assert_eq!(asking.join().unwrap(), 200);
    account.add(&Plan::web(), worker);
    account.settle();
}

#[test]
fn who_makes_pictures_makes_every_call_that_it_may_make() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let mut account = Account::default();
    let crib = RtspCamera::with(Setup { film: Some(film), ..Setup::default() });
    let camera = camera(&format!(r#"{{"name": "a", "source": "{}"}}"#, crib.url()));
    let configure = ToWorker::ConfigureCapture { camera, model: shape(), remember_s: 0 };
    let mut capture = BareWorker::start("capture", &configure);
    while !matches!(capture.receive(), FromWorker::Window(_)) {}
    let pictures = PicturesConfig { every_s: 0.5, width: 160, ..PicturesConfig::default() };
    let configure = ToWorker::ConfigureLight(vec![LightCamera { camera: "a".into(), pictures }]);
    let mut worker = Traced::start("light", &configure);
    let ticket =
        worker.wait_for(|m| if let FromWorker::WantMedia { ticket, .. } = m { Some(ticket) } else { None });
    capture.hand_over(|media| worker.send_with(&ToWorker::MediaOf { ticket, why_not: None }, media));
    for _ in 0..3 {
        worker.wait_for(|m| matches!(m, FromWorker::Looked { .. }).then_some(()));
    }
    let wanted = Wanted { camera: "a".into(), near_us: None, score: Some(0.5) };
    worker.send(&ToWorker::WantPicture { number: 1, wanted });
    worker.wait_for(|m| matches!(m, FromWorker::PictureOf { found: Ok(_), .. }).then_some(()));
    account.add(&Plan::light(), worker);
    account.settle();
}

#[test]
fn no_role_may_make_more_calls_than_promised() {
    let count = |lists: &[&str]| Policy::read(lists).unwrap().calls().len();
    assert!(count(&["infer"]) <= 25, "{}", count(&["infer"]));
    for more in [
        &[][..],
        &["file"],
        &["rtsp"],
        &["rtsp", "udp"],
        &["rtsp", "names"],
        &["rtsp", "names", "udp"],
        &["rtsp", "names", "tls"],
    ] {
        let lists = [&["capture"], more].concat();
        assert!(count(&lists) <= 46, "{lists:?}: {}", count(&lists));
    }
    assert!(count(&["web"]) <= 40, "{}", count(&["web"]));
    assert!(count(&["light"]) <= 35, "{}", count(&["light"]));
    for call in ["socket", "bind", "listen", "connect", "openat", "open", "execve", "kill", "ptrace"] {
        assert!(!Policy::read(&["web"]).unwrap().calls().contains(&call), "{call}");
        assert!(!Policy::read(&["light"]).unwrap().calls().contains(&call), "{call}");
    }
    let infer = Policy::read(&["infer"]).unwrap();
    for call in
        ["socket", "connect", "openat", "open", "execve", "execveat", "clone", "fork", "ptrace", "kill"]
    {
        assert!(!infer.calls().contains(&call), "{call}");
    }
    for lists in [&["capture", "rtsp", "names", "udp"][..], &["sink", "http", "names"], &["capture", "file"]]
    {
        for call in ["execve", "execveat", "ptrace", "kill", "tkill", "memfd_create", "bpf", "io_uring_setup"]
        {
            assert!(!Policy::read(lists).unwrap().calls().contains(&call), "{lists:?}: {call}");
        }
    }
}
