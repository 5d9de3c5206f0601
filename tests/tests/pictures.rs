//! Pictures of cameras, made of the key frames of their video in a process of their own: what they show, who may see them,
//! and that nothing is heard later or less for them, whatever becomes of that process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{
    config::PicturesConfig,
    frame,
    light::{LightCamera, Wanted},
    media::{Data, FromCapture, MAX_MEDIA, MAX_WISH, ToCapture, Tracks, VideoCodec, VideoTrack},
    message::{FromWorker, ToWorker},
    status::WorkerState,
};
use nursery_tests::{
    audio,
    bare_worker::{self, BareWorker},
    browser::{self, Browser},
    http::{Client, Response, free_port},
    processes::Process,
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    service::{Service, camera, config},
    skip,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const TOKEN: &str = "a token of some length";
const WIDTH: usize = 160;
const HEIGHT: usize = 120;
/// How far from the film a picture may be, of 255: it was scaled and encoded twice. Another key frame of it, or plain grey,
/// is further away.
const NEAR: f64 = 15.0;
/// Rows above the words.
const ABOVE: usize = 90;

fn filming(film: Arc<film::Film>) -> RtspCamera {
    RtspCamera::with(Setup { codec: Codec::L16, film: Some(film), ..Setup::default() })
}

fn seen(name: &str, source: &RtspCamera, pictures: Value) -> Value {
    let mut camera = camera(name, source.url());
    camera["pictures"] = pictures;
    camera
}

fn client(port: u16) -> Client {
    Client::new(port).with("Authorization", &format!("Bearer {TOKEN}"))
}

/// What ffmpeg makes of these bytes.
fn ffmpeg(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(arguments)
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Where nothing is read it is closed.
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    out.stdout
}

/// The pixels above the words of a picture that ffmpeg decodes, of exactly this size.
fn pixels(file: &[u8]) -> Vec<u8> {
    let mut bytes = ffmpeg(&["-f", "mjpeg", "-i", "-"], file);
    assert_eq!(bytes.len(), WIDTH * HEIGHT * 3, "not {WIDTH} x {HEIGHT}");
    bytes.truncate(WIDTH * ABOVE * 3);
    bytes
}

/// How far the picture is from the key frame of the film that is nearest to it, of 255.
fn distance_from_film(file: &[u8]) -> f64 {
    let film = ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=320x240:rate=25:duration=4",
            "-vf",
            r"select=not(mod(n\,25)),scale=160:120",
            "-fps_mode",
            "vfr",
        ],
        b"",
    );
    let shown = pixels(file);
    let distance = |frame: &[u8]| {
        let off: u64 = shown.iter().zip(frame).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        off as f64 / shown.len() as f64
    };
    let frames = film.chunks(WIDTH * HEIGHT * 3);
    assert_eq!(frames.len(), 4);
    frames.map(distance).min_by(f64::total_cmp).unwrap()
}

fn picture(client: &Client, camera: &str) -> Response {
    until("a picture", PATIENCE, || {
        let reply = client.try_request("GET", &format!("/api/cameras/{camera}/picture"), "").ok()?;
        (reply.status == 200).then_some(reply)
    })
}

#[test]
fn a_camera_is_seen_on_the_page_and_beside_its_events_by_who_may() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let (crib, hall) = (filming(Arc::clone(&film)), RtspCamera::start(Codec::L16));
    let port = free_port();
    let pictures = json!({"every_s": 0.5, "width": WIDTH});
    let mut config = config([seen("crib", &crib, pictures), camera("hall", hall.url())], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "token": TOKEN});
    let service = Service::start(&config);
    service.wait_live(&["crib", "hall"]);
    let client = client(port);
    let first = picture(&client, "crib");
    assert_eq!(first.header("content-type"), "image/jpeg");
    assert_eq!(first.header("cache-control"), "no-store");
    let distance = distance_from_film(&first.body);
    eprintln!("FIGURE a picture of {} bytes, {distance:.1} of 255 from the film", first.body.len());
    assert!(distance < NEAR, "it does not show the film: {distance}");
    // The clock in the film moves.
    service.wait_for("motion", |status| {
        let of = |name: &str| status.cameras.iter().find(|c| c.name == name).unwrap();
        assert!(!of("hall").pictures && of("hall").motion.is_none());
        of("crib").motion.filter(|m| *m > 0.0 && *m < 1.0)
    });
    until("a newer picture", PATIENCE, || {
        let newer = picture(&client, "crib");
        (newer.header("x-picture-time") > first.header("x-picture-time")).then_some(())
    });
    assert_eq!(Client::new(port).get("/api/cameras/crib/picture").status, 401);
    for (camera, why) in [("hall", "no pictures are made"), ("nobody", "no pictures are made")] {
        let reply = client.get(&format!("/api/cameras/{camera}/picture"));
        assert_eq!(reply.status, 404);
        assert!(reply.text().contains(why), "{}", reply.text());
    }
    // Beside an event.
    crib.microphone().play(&audio::cry(3.0));
    let event = until("a cry", PATIENCE, || {
        let events = client.get("/api/events?camera=crib").json();
        let cry = events["events"].as_array()?.iter().find(|e| e["type"] == "cry.started")?;
        Some(cry["data"]["event_id"].as_str()?.to_owned())
    });
    let path = format!("/api/events/{event}/picture");
    let beside = until("its picture", PATIENCE, || Some(client.get(&path)).filter(|r| r.status == 200));
    assert!(distance_from_film(&beside.body) < NEAR);
    assert_eq!(Client::new(port).get(&path).status, 401);
    assert_eq!(client.get("/api/events/0198c2a1-0000-7000-8000-000000000000/picture").status, 404);
    // Another size, and none, without a new process for the camera.
    let capture = service.process_of("capture:crib");
    let light = service.process_of("light");
    config["cameras"][0]["pictures"] = json!({"every_s": 0.5, "width": 64, "grey": true});
    service.write_config(&config);
    service.must(["reload"]);
    let is_grey = |file: &[u8]| {
        let bytes = ffmpeg(&["-f", "mjpeg", "-i", "-"], file);
        bytes.len() == 64 * 48 * 3
            && bytes.chunks(3).all(|p| p[0].abs_diff(p[1]).max(p[1].abs_diff(p[2])) < 3)
    };
    until("a small grey picture", PATIENCE, || is_grey(&picture(&client, "crib").body).then_some(()));
    assert_eq!(service.process_of("light"), light);
    config["cameras"][0].as_object_mut().unwrap().remove("pictures");
    service.write_config(&config);
    service.must(["reload"]);
    service
        .wait_for("nobody who makes pictures", |s| s.workers.iter().all(|w| w.name != "light").then_some(()));
    until("no picture any more", PATIENCE, || {
        (client.get("/api/cameras/crib/picture").status == 404).then_some(())
    });
    assert_eq!(client.get(&path).status, 200, "what was kept is kept");
    assert_eq!(service.process_of("capture:crib"), capture);
}

#[test]
fn the_wall_and_the_page_of_an_event_show_pictures() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let (crib, port) = (filming(film), free_port());
    let pictures = json!({"every_s": 0.5, "width": WIDTH});
    let mut config = config([seen("crib", &crib, pictures), camera("attic", "synthetic:noise")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    let service = Service::start(&config);
    service.wait_live(&["crib", "attic"]);
    picture(&Client::new(port), "crib");
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    let shown = |place: &str| {
        format!("return document.querySelector('{place} img.photo:not([hidden])')?.naturalWidth === {WIDTH}")
    };
    browser.until("a picture on the wall", PATIENCE, &shown("#cameras"));
    let others = "return document.querySelectorAll('#cameras img').length";
    assert_eq!(browser.run(others), json!(1), "nothing for who has none");
    crib.microphone().play(&audio::cry(3.0));
    let event = until("a cry", PATIENCE, || {
        let events = Client::new(port).get("/api/events?camera=crib").json();
        Some(
            events["events"].as_array()?.iter().find(|e| e["type"] == "cry.started")?["data"]["event_id"]
                .as_str()?
                .to_owned(),
        )
    });
    browser.run(&format!("location.hash = 'event/{event}'"));
    browser.until("its picture", PATIENCE, &shown("#event-body"));
    // A clip that is still being written is asked for again, which is a complaint too.
    let complaints: Vec<String> =
        browser.complaints().into_iter().filter(|c| !c.contains("/clip ")).collect();
    assert_eq!(complaints, Vec::<String>::new());
    if let Some(folder) = std::env::var_os("NURSERY_SCREENSHOTS") {
        browser.screenshot(&std::path::Path::new(&folder).join("event-with-picture.png"));
        browser.run("location.hash = 'wall'");
        browser.until("a picture on the wall", PATIENCE, &shown("#cameras"));
        browser.screenshot(&std::path::Path::new(&folder).join("wall-with-picture.png"));
    }
}

#[test]
fn who_asks_for_it_is_told_of_motion_and_nobody_else() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let (crib, asks, asks_not) = (filming(film), Receiver::start(), Receiver::start());
    let mut wants = asks.alert();
    wants["motion"] = true.into();
    let mut config = config([seen("crib", &crib, json!({"every_s": 0.5}))], [wants, asks_not.alert()]);
    config["detection"]["motion"] = json!({"threshold": 0.001, "min_duration_s": 1});
    let service = Service::start(&config);
    let told = |kind: &str| asks.accepted_of(kind, "crib");
    let began = until("motion", PATIENCE, || told("motion.started").into_iter().next());
    crib.microphone().play(&audio::cry(3.0));
    until("a cry, told to both", PATIENCE, || {
        let count = |receiver: &Receiver| receiver.accepted_of("cry.started", "crib").len();
        (count(&asks) == 1 && count(&asks_not) == 1).then_some(())
    });
    config["cameras"][0].as_object_mut().unwrap().remove("pictures");
    service.write_config(&config);
    service.must(["reload"]);
    let ended = until("the end of motion", PATIENCE, || told("motion.ended").into_iter().next());
    assert_eq!(ended.body["data"]["event_id"], began.body["data"]["event_id"]);
    assert!(ended.body["data"]["peak_motion"].as_f64().unwrap() >= 0.001, "{}", ended.body);
    eprintln!("FIGURE motion of the film: {}", ended.body["data"]["peak_motion"]);
    until("the end of the cry, told to both", PATIENCE, || {
        (asks_not.accepted_of("cry.ended", "crib").len() == 1).then_some(())
    });
    assert!(asks_not.accepted().iter().all(|r| !r.kind().starts_with("motion")));
    assert_eq!((told("motion.started").len(), told("motion.ended").len()), (1, 1));
}

#[test]
fn nothing_is_heard_later_or_less_while_who_makes_pictures_is_killed() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let (crib, receiver) = (filming(film), Receiver::start());
    let mut config = config([seen("crib", &crib, json!({"every_s": 0.5}))], [receiver.alert()]);
    config["supervision"] = json!({"healthy_after_s": 0});
    config["detection"] = json!({"end_after_s": 1, "cooldown_s": 0, "adaptive": false});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    service.wait_for("pictures", |s| s.cameras[0].motion);
    let mut bout = 0;
    let mut cry = || {
        let start = Instant::now();
        crib.microphone().play(&audio::cry(3.0));
        bout += 1;
        until("the alert of a cry and of its end", PATIENCE, || {
            (receiver.accepted_of("cry.ended", "crib").len() == bout).then_some(())
        });
        let alert =
            receiver.accepted_of("cry.started", "crib").last().cloned().expect("a cry before its end");
        alert.at.saturating_duration_since(start)
    };
    let calm: Vec<Duration> = (0..2).map(|_| cry()).collect();
    let over = AtomicBool::new(false);
    let windows = service.camera("crib").windows;
    let began = Instant::now();
    let killed: Vec<Duration> = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let status = service.status();
                let light =
                    status.workers.iter().find(|w| w.name == "light" && w.state == WorkerState::Running);
                if let Some(process) = light.and_then(|w| w.pid).and_then(Process::of) {
                    process.signal(Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let mut killed = Vec::new();
        while began.elapsed() < Duration::from_secs(20) {
            killed.push(cry());
        }
        over.store(true, Ordering::Relaxed);
        killed
    });
    let heard = service.camera("crib").windows - windows;
    let expected = began.elapsed().as_secs_f64() / 0.25;
    let status = service.status();
    let deaths = status.workers.iter().find(|w| w.name == "light").unwrap().restarts;
    let worst = |all: &[Duration]| all.iter().max().copied().unwrap_or_default();
    eprintln!(
        "FIGURE alerts after {:?} in peace, {:?} with light killed {deaths} times; {heard} windows of {expected:.0}",
        worst(&calm),
        worst(&killed)
    );
    assert!(deaths >= 5, "{deaths}");
    assert!(worst(&killed) <= worst(&calm) + Duration::from_secs(1), "{killed:?}, in peace {calm:?}");
    assert_eq!(status.cameras[0].dropped, 0);
    let others: u64 = status.workers.iter().filter(|w| w.name != "light").map(|w| w.restarts).sum();
    assert_eq!(others, 0);
    assert_eq!(receiver.accepted_of("cry.started", "crib").len(), bout, "every cry once");
}

#[test]
fn pictures_of_garbage_cost_the_other_cameras_nothing_and_nobody_hears_less() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let (crib, cot) = (filming(Arc::clone(&film)), filming(Arc::new(film.garbled())));
    let port = free_port();
    let pictures = json!({"every_s": 0.5, "width": WIDTH});
    let cameras = [seen("crib", &crib, pictures.clone()), seen("cot", &cot, pictures)];
    let mut config = config(cameras, []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "token": TOKEN});
    let service = Service::start(&config);
    service.wait_live(&["crib", "cot"]);
    let client = client(port);
    service.wait_for("pictures looked at", |s| {
        s.workers.iter().find(|w| w.name == "light").filter(|w| w.restarts > 0 || w.progress > 10).map(drop)
    });
    assert!(distance_from_film(&picture(&client, "crib").body) < NEAR);
    service.wait_windows("cot", 20);
    let status = service.status();
    for worker in status.workers.iter().filter(|w| w.name != "light") {
        assert_eq!(worker.restarts, 0, "{}", worker.name);
    }
    eprintln!(
        "FIGURE light died {} times of garbage",
        status.workers.iter().find(|w| w.name == "light").unwrap().restarts
    );
}

/// The ticket of its next question for a camera's media.
fn wants_media(light: &mut BareWorker) -> u64 {
    loop {
        if let FromWorker::WantMedia { ticket, .. } = light.receive() {
            return ticket;
        }
    }
}

/// Gives it an end of a camera's media, of which it wants the pictures; the other end.
fn media_of(light: &mut BareWorker, ticket: u64) -> UnixStream {
    let (mut ours, theirs) = bare_worker::media_pair();
    light.send_with(&ToWorker::MediaOf { ticket, why_not: None }, theirs.as_fd());
    ours.set_nonblocking(false).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let wish: ToCapture = frame::read_frame(&mut ours, MAX_WISH).unwrap().unwrap();
    assert_eq!(wish, ToCapture::Want { video: true });
    ours
}

#[test]
fn what_cannot_be_decoded_is_said_and_not_asked_for_again_and_garbage_is_begun_anew() {
    let pictures = PicturesConfig::default();
    let configure = ToWorker::ConfigureLight(vec![LightCamera { camera: "crib".into(), pictures }]);
    let mut light = BareWorker::start("light", &configure);
    // No frame at all.
    let ticket = wants_media(&mut light);
    media_of(&mut light, ticket).write_all(&[0xff; 5_000]).unwrap();
    let ticket = wants_media(&mut light);
    let mut media = media_of(&mut light, ticket);
    let video = VideoTrack {
        codec: VideoCodec::H265,
        codecs: "hvc1.1.6.L93.B0".into(),
        width: 640,
        height: 360,
        config: Data::default(),
    };
    let tracks = Tracks { video: Some(video), ..Tracks::default() };
    frame::write_frame(&mut media, &FromCapture::Tracks(tracks), MAX_MEDIA).unwrap();
    assert_eq!(media.read(&mut [0; 8]).unwrap(), 0, "nothing more of it is wanted");
    let wanted = Wanted { camera: "crib".into(), near_us: None, score: None };
    light.send(&ToWorker::WantPicture { number: 1, wanted });
    let mut why = None;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        match light.receive() {
            FromWorker::PictureOf { found, .. } => why = Some(found.unwrap_err()),
            FromWorker::WantMedia { .. } => panic!("it asks again and again"),
            _ => {}
        }
    }
    assert!(why.as_ref().is_some_and(|why| why.contains("H.265")), "{why:?}");
}

#[test]
#[ignore = "a measurement of half a minute, for the figures in README.md"]
fn what_pictures_cost() {
    for (size, every_s) in [("640x360", 5), ("1920x1080", 5), ("1920x1080", 1)] {
        let Some(film) = film::of_size(size) else { skip!("{}", film::missing().unwrap_or_default()) };
        let crib = filming(film);
        let mut config = config([camera("crib", crib.url())], []);
        let service = Service::start(&config);
        service.wait_live(&["crib"]);
        let cpu = |name: &str| service.worker(name).cpu_s;
        let measure = |name: &str, seconds: u64| {
            let before = cpu(name);
            std::thread::sleep(Duration::from_secs(seconds));
            (cpu(name) - before) / seconds as f64 * 100.0
        };
        let alone = measure("capture:crib", 10);
        config["cameras"][0]["pictures"] = json!({"every_s": every_s});
        service.write_config(&config);
        service.must(["reload"]);
        service.wait_for("pictures", |s| s.cameras[0].motion);
        let before = cpu("light");
        let with = measure("capture:crib", 20);
        let light = (cpu("light") - before) / 20.0 * 100.0;
        let memory = service.worker("light").rss_bytes >> 20;
        eprintln!(
            "FIGURE {size}, a picture in {every_s} s: capture {alone:.2} % of a core without, {with:.2} % with; \
             light {light:.2} %, {memory} MiB"
        );
    }
}
