//! The live view in a real browser: pictures move, sound is heard, close to their time, and again after an interruption.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{
    media::{AudioCodec, AudioTrack, Data, FromCapture, Kind, Packet, Tracks, VideoCodec, VideoTrack},
    timestamp,
};
use nursery_tests::{
    browser::{self, Browser},
    http::free_port,
    recorded_media::{self, Recorded},
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    service::{Service, camera, config},
    skip,
    wait::{PATIENCE, until},
    web_worker::{FakeCapture, WebWorker},
};
use serde_json::json;

/// A link on a camera's card.
fn link(camera: &str, label: &str) -> String {
    format!(r#"document.querySelector('#cameras a[aria-label="{label} {camera}"]')"#)
}

/// What a script gives, as a number.
fn number(browser: &Browser, script: &str) -> f64 {
    browser.run(&format!("return {script}")).as_f64().unwrap_or(f64::NAN)
}

/// Nothing that the page complains of but what it tells itself.
fn assert_content(browser: &Browser) {
    let strange: Vec<String> = browser
        .complaints()
        .into_iter()
        .filter(|line| !line.contains("Failed to load resource") && !line.contains("net::ERR"))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn a_camera_is_seen_and_heard_within_a_second_and_again_after_its_process_died() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let port = free_port();
    let crib = RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() });
    let mut config = config([camera("crib", crib.url()), camera("attic", "synthetic:cry")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "password": "open sesame"});
    let service = Service::start(&config);
    service.wait_live(&["crib", "attic"]);
    service.process_of("web");
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.until("a login", PATIENCE, "return document.activeElement?.id === 'password'");
    browser.type_text("open sesame\n");
    // One tap hears.
    browser.until("the cameras", PATIENCE, &format!("return Boolean({})", link("attic", "Listen to")));
    browser.click(r#"#cameras a[aria-label="Listen to attic"]"#);
    browser.until("the cry is heard", PATIENCE, "return live.raw?.rms() > 0.01");
    let ahead = number(&browser, "live.raw.ahead");
    assert!((-0.1..0.75).contains(&ahead), "{ahead} s wait to be heard");
    assert_eq!(crib.tracks_set_up(), ["audio"], "nobody looks yet");
    // One tap sees.
    browser.run("location.hash = 'wall'");
    browser.until("nothing is heard any more", PATIENCE, "return live.session === null");
    browser.click(r#"#cameras a[aria-label="Watch crib"]"#);
    // Two seconds further than when it was looked at first; a stream that begins anew begins at its own time.
    let moves = "const t = document.getElementById('live-video').currentTime; \
                 if (!(Math.abs(window.seen - t) < 3)) window.seen = t + 2; \
                 return t > window.seen && live.video?.behind < 1";
    browser.until("the pictures move", PATIENCE, moves);
    let decoded =
        number(&browser, "document.getElementById('live-video').getVideoPlaybackQuality().totalVideoFrames");
    assert!(decoded > 20.0, "only {decoded} pictures were decoded");
    let drawn = browser.run(
        "const v = document.getElementById('live-video'); const c = new OffscreenCanvas(v.videoWidth, v.videoHeight); \
         const g = c.getContext('2d'); g.drawImage(v, 0, 0); \
         const d = g.getImageData(0, 0, c.width, c.height).data; \
         return [v.videoWidth, v.videoHeight, new Set(d).size > 50]",
    );
    assert_eq!(drawn, json!([320, 240, true]), "a picture with colours");
    browser.until("it is up to date", PATIENCE, "return document.getElementById('live-note').hidden");
    let late = number(&browser, "Date.now() - live.video.timeUs / 1000");
    assert!((-300.0..1500.0).contains(&late), "what is seen is {late} ms old");
    let over = browser.run("return document.getElementById('live-over').textContent");
    let over = over.as_str().unwrap();
    assert!(over.contains("crib") && over.contains(':') && over.contains('%'), "{over}");
    let narrow = browser.run("return document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(narrow, json!(true), "nothing is wider than a phone");
    let unnamed = browser.run(
        "return [...document.querySelectorAll('#live button, #live a, #live input')].filter((e) => \
         !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length",
    );
    assert_eq!(unnamed, json!(0), "everything that can be used has a name");
    // Interrupted, it says so, and goes on by itself.
    let capture = service.process_of("capture:crib");
    capture.signal(Signal::SIGSTOP);
    browser.until(
        "it says that it is not up to date",
        PATIENCE,
        "return document.getElementById('live-note').textContent.startsWith('Not up to date')",
    );
    capture.signal(Signal::SIGKILL);
    service.wait_replaced("capture:crib", capture);
    browser.run("window.seen = undefined");
    browser.until("the pictures move again", PATIENCE, moves);
    browser.until("it is up to date again", PATIENCE, "return document.getElementById('live-note').hidden");
    assert_content(&browser);
}

/// Plays what was recorded over and over, at its pace, until it is told to stop or nobody reads.
fn play(mut capture: FakeCapture, recorded: &Recorded, stop: &AtomicBool) {
    assert!(capture.send(&FromCapture::Tracks(recorded.tracks.clone())));
    let (start, start_us) = (Instant::now(), timestamp::now_us());
    for round in 0.. {
        for packet in &recorded.packets {
            let at_us = round * recorded.duration_us + packet.time_us;
            let at = start + Duration::from_micros(at_us.unsigned_abs());
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let packet = Packet { time_us: start_us + at_us, ..packet.clone() };
            if stop.load(Ordering::Relaxed) || !capture.send(&FromCapture::Packet(packet)) {
                return;
            }
        }
    }
}

#[test]
fn aac_is_heard_beside_h264_and_both_go_on_when_the_stream_begins_anew() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let Some(recorded) = recorded_media::record(4) else { skip!("ffmpeg with libx264 is not installed") };
    let recorded = Arc::new(recorded);
    let web = WebWorker::start();
    let browser = Browser::start(1280, 800);
    browser.open(&format!("http://{}/", web.client.address));
    browser.until("the camera", PATIENCE, &format!("return Boolean({})", link("crib", "Watch")));
    browser.click(r#"#cameras a[aria-label="Watch crib"]"#);
    for round in ["at first", "anew"] {
        let capture = web.capture();
        let stop = Arc::new(AtomicBool::new(false));
        let playing = {
            let (recorded, stop) = (Arc::clone(&recorded), Arc::clone(&stop));
            thread::spawn(move || play(capture, &recorded, &stop))
        };
        for element in ["video", "audio"] {
            let moves = format!(
                "const e = document.getElementById('live-{element}'); \
                 if (e.currentTime < window.from_{element}) window.from_{element} = undefined; \
                 return e.currentTime > (window.from_{element} ??= e.currentTime) + 3 && live.{element}?.behind < 1.2"
            );
            browser.run(&format!("window.from_{element} = undefined"));
            browser.until(&format!("{element} plays {round}"), PATIENCE, &moves);
        }
        let heard = "const e = document.getElementById('live-audio'); \
            if (!window.ear) { const c = new AudioContext(); window.ear = new AnalyserNode(c); \
            c.createMediaElementSource(e).connect(window.ear).connect(c.destination); c.resume(); } \
            const d = new Float32Array(window.ear.fftSize); window.ear.getFloatTimeDomainData(d); \
            return Math.sqrt(d.reduce((s, x) => s + x * x, 0) / d.length) > 0.01";
        browser.until(&format!("a tone is heard {round}"), PATIENCE, heard);
        let apart = number(&browser, "live.video.timeUs / 1000 - live.audio.timeUs / 1000");
        assert!(apart.abs() < 1000.0, "pictures and sound are {apart} ms apart");
        stop.store(true, Ordering::Relaxed);
        playing.join().unwrap();
    }
    assert_content(&browser);
}

/// The smallest picture that the browser itself makes.
fn small_jpeg(browser: &Browser) -> Vec<u8> {
    let made = browser.run(
        "const c = document.createElement('canvas'); c.width = 16; c.height = 8; \
         c.getContext('2d').fillStyle = '#f00'; c.getContext('2d').fillRect(0, 0, 16, 8); \
         return [...atob(c.toDataURL('image/jpeg').split(',')[1])].map((x) => x.charCodeAt(0))",
    );
    serde_json::from_value(made).unwrap()
}

#[test]
fn jpeg_pictures_are_drawn() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let web = WebWorker::start();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/#live/crib", web.client.address));
    let mut capture = web.capture();
    let jpeg = small_jpeg(&browser);
    let video = VideoTrack {
        codec: VideoCodec::Jpeg,
        codecs: String::new(),
        width: 16,
        height: 8,
        config: Data::default(),
    };
    assert!(capture.send(&FromCapture::Tracks(Tracks { video: Some(video), ..Tracks::default() })));
    let stop = Arc::new(AtomicBool::new(false));
    let playing = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let (time_us, data) = (timestamp::now_us(), Data::from(&jpeg[..]));
                let packet = Packet { kind: Kind::Video, time_us, duration_us: 0, key: true, data };
                assert!(capture.send(&FromCapture::Packet(packet)));
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    browser.until(
        "a red picture",
        PATIENCE,
        "const c = document.getElementById('live-jpeg'); \
         const [r, g, b] = c.getContext('2d').getImageData(4, 4, 1, 1).data; \
         return !c.hidden && c.width === 16 && r > 200 && g < 60 && b < 60",
    );
    stop.store(true, Ordering::Relaxed);
    playing.join().unwrap();
    assert_content(&browser);
}

/// Looks at a camera that sends this, from its beginning, until `seen` says that it is enough; what was seen is in `seen`'s
/// window: `stood`, the longest time in milliseconds in which the picture stood still since the first one, `moved`, seconds
/// of pictures.
const WATCHED: &str = "const v = document.getElementById('live-video'); \
    Object.assign(window, {stood: 0, moved: 0, frames: 0, changed: 0}); \
    setInterval(() => { const now = performance.now(); const n = v.getVideoPlaybackQuality().totalVideoFrames; \
      if (n !== window.frames && v.currentTime > 0) { \
        if (window.changed) { window.stood = Math.max(window.stood, now - window.changed); \
          window.moved += now - window.changed; } \
        [window.frames, window.changed] = [n, now]; } }, 20)";

#[test]
fn few_pictures_a_second_move_all_the_time_however_seldom_key_frames_are() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    // One key frame, the first, and more than is kept of what was played.
    const SECONDS: u32 = 60;
    let Some(recorded) = recorded_media::record_at(SECONDS, 5, 5 * SECONDS) else {
        skip!("ffmpeg with libx264 is not installed")
    };
    let recorded = Arc::new(recorded);
    let web = WebWorker::start();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/#live/crib", web.client.address));
    browser.until("the live view", PATIENCE, "return live.session !== null");
    browser.run(WATCHED);
    let capture = web.capture();
    let stop = Arc::new(AtomicBool::new(false));
    let playing = {
        let (recorded, stop) = (Arc::clone(&recorded), Arc::clone(&stop));
        thread::spawn(move || play(capture, &recorded, &stop))
    };
    browser.until("pictures", PATIENCE, "return window.moved > 3000");
    browser.until("it is up to date", PATIENCE, "return document.getElementById('live-note').hidden");
    let late = number(&browser, "Date.now() - live.video.timeUs / 1000");
    assert!((-300.0..1000.0).contains(&late), "what is seen is {late} ms old");
    browser.until("pictures for 45 s", Duration::from_secs(90), "return window.moved > 45000");
    let stood = number(&browser, "window.stood");
    assert!(stood < 2500.0, "the picture stood still for {stood} ms");
    let late = number(&browser, "Date.now() - live.video.timeUs / 1000");
    assert!((-300.0..1000.0).contains(&late), "what is seen is {late} ms old");
    assert_eq!(number(&browser, "live.reconnects"), 0.0, "in one go");
    stop.store(true, Ordering::Relaxed);
    playing.join().unwrap();
    assert_content(&browser);
}

#[test]
fn after_a_gap_pictures_go_on_without_another_key_frame() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let Some(mut recorded) = recorded_media::record_at(20, 25, 500) else {
        skip!("ffmpeg with libx264 is not installed")
    };
    // Nothing between the third second and a second and a half later.
    recorded.packets.retain(|p| p.kind == Kind::Video);
    recorded.tracks.audio = None;
    recorded.packets.iter_mut().filter(|p| p.time_us >= 3_000_000).for_each(|p| p.time_us += 1_500_000);
    let web = WebWorker::start();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/#live/crib", web.client.address));
    browser.until("the live view", PATIENCE, "return live.session !== null");
    browser.run(WATCHED);
    let capture = web.capture();
    let stop = Arc::new(AtomicBool::new(false));
    let playing = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || play(capture, &recorded, &stop))
    };
    browser.until("pictures after the gap", Duration::from_secs(14), "return window.moved > 8000");
    let stood = number(&browser, "window.stood");
    assert!((1000.0..3500.0).contains(&stood), "the picture stood still for {stood} ms");
    let late = number(&browser, "Date.now() - live.video.timeUs / 1000");
    assert!((-300.0..1000.0).contains(&late), "what is seen is {late} ms old");
    assert_eq!(number(&browser, "live.reconnects"), 0.0, "in one go");
    stop.store(true, Ordering::Relaxed);
    playing.join().unwrap();
    assert_content(&browser);
}

/// G.711 of a camera, 50 packets a second, and as long as `pictures` a JPEG file with every fifth one.
fn sound_and_stills(
    mut capture: FakeCapture,
    jpeg: &[u8],
    pictures: &AtomicBool,
    stop: &AtomicBool,
) -> FakeCapture {
    while !stop.load(Ordering::Relaxed) {
        for n in 0..5 {
            let (time_us, data) = (timestamp::now_us(), Data::from(vec![0xff; 160]));
            assert!(capture.send(&FromCapture::Packet(Packet {
                kind: Kind::Audio,
                time_us,
                duration_us: 20_000,
                key: true,
                data
            })));
            if n == 0 && pictures.load(Ordering::Relaxed) {
                let data = Data::from(jpeg);
                let packet = Packet { kind: Kind::Video, time_us, duration_us: 0, key: true, data };
                assert!(capture.send(&FromCapture::Packet(packet)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    capture
}

#[test]
fn a_picture_that_stands_still_is_said_to_while_sound_goes_on_and_one_of_before_goes() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let web = WebWorker::start();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/#live/crib", web.client.address));
    let mut capture = web.capture();
    let jpeg = Arc::new(small_jpeg(&browser));
    let audio = AudioTrack { codec: AudioCodec::Ulaw, rate: 8000, channels: 1, config: Data::default() };
    let video = VideoTrack {
        codec: VideoCodec::Jpeg,
        codecs: String::new(),
        width: 16,
        height: 8,
        config: Data::default(),
    };
    let tracks = |video| Tracks { audio: Some(audio.clone()), video, no_video: None };
    assert!(capture.send(&FromCapture::Tracks(tracks(Some(video)))));
    let (pictures, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let begin = |capture: FakeCapture| {
        let (jpeg, pictures, stop) = (Arc::clone(&jpeg), Arc::clone(&pictures), Arc::clone(&stop));
        thread::spawn(move || sound_and_stills(capture, &jpeg, &pictures, &stop))
    };
    let sending = begin(capture);
    let fresh = "return !document.getElementById('live-jpeg').hidden && live.shownUs !== null && \
        document.getElementById('live-note').hidden";
    browser.until("pictures", PATIENCE, fresh);
    // Sound goes on.
    pictures.store(false, Ordering::Relaxed);
    let note = "document.getElementById('live-note').textContent";
    browser.until(
        "that the picture stands still",
        Duration::from_secs(8),
        &format!("return {note}.startsWith('Not up to date: the picture stands still since ')"),
    );
    let dimmed = "return document.getElementById('live-screen').classList.contains('out-of-date')";
    assert_eq!(browser.run(dimmed), json!(true));
    let said = browser.run(&format!("return {note}"));
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(browser.run(&format!("return {note}")), said, "what is read aloud does not change by itself");
    pictures.store(true, Ordering::Relaxed);
    browser.until("that it moves again", PATIENCE, fresh);
    // The way breaks; what comes then has no pictures.
    browser.run("window.way = window.fetch; window.fetch = () => Promise.reject(new Error('held')); live.session.abort.abort()");
    let figures = || web.client.get("/metrics").text();
    until("it is gone", PATIENCE, || figures().contains("nursery_web_viewers 0\n").then_some(()));
    pictures.store(false, Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    drop(sending.join().unwrap());
    until("nobody wants it", PATIENCE, || figures().contains("nursery_web_viewed_cameras 0\n").then_some(()));
    stop.store(false, Ordering::Relaxed);
    browser.run("window.fetch = window.way");
    let mut capture = web.capture();
    assert!(capture.send(&FromCapture::Tracks(tracks(None))));
    let sending = begin(capture);
    browser.until(
        "sound alone",
        PATIENCE,
        "return live.tracks?.audio && !live.tracks.video && live.raw !== null",
    );
    let gone = "return document.getElementById('live-jpeg').hidden && document.getElementById('live-time').textContent === '' \
        && document.getElementById('live-missing').textContent.startsWith('No pictures')";
    browser.until("that there is no picture any more", Duration::from_secs(3), gone);
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    assert_content(&browser);
}
