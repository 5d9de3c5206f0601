//! Live media on real sockets: one stream from the camera serves any number of viewers, a slow one is moved forward and
//! nobody else notices, and nothing is sent for nobody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::Read,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBuf},
};
use nursery_shared::{
    media::{AudioCodec, AudioTrack, Data, FromCapture, Kind, Packet, Tracks, VideoCodec, VideoTrack},
    timestamp,
};
use nursery_tests::{
    http::{Client, LiveRecord, free_port},
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    service::{Service, camera, config},
    skip,
    wait::{PATIENCE, until},
    web_worker::{FakeCapture, WebWorker},
};
use serde_json::json;

const TRACKS: u8 = 1;
const PICTURES_INIT: u8 = 2;
const PICTURES: u8 = 4;
const RAW_SOUND: u8 = 6;
const JPEG: u8 = 7;
const NOTICE: u8 = 8;

/// A camera of stills: 40 KB each, 25 a second, numbered, each a key frame.
fn stills(mut capture: FakeCapture, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let video = VideoTrack {
        codec: VideoCodec::Jpeg,
        codecs: String::new(),
        width: 640,
        height: 480,
        config: Data::default(),
    };
    assert!(capture.send(&FromCapture::Tracks(Tracks { video: Some(video), ..Tracks::default() })));
    let start = Instant::now();
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut picture = n.to_le_bytes().to_vec();
        picture.resize(40_000, 0);
        let time_us = timestamp::now_us();
        let data = Data::from(picture);
        let packet = Packet { kind: Kind::Video, time_us, duration_us: 0, key: true, data };
        if !capture.send(&FromCapture::Packet(packet)) {
            return;
        }
        sent.store(n, Ordering::Relaxed);
        thread::sleep(
            (start + Duration::from_millis(40) * (n as u32 + 1)).saturating_duration_since(Instant::now()),
        );
    }
}

fn number(record: &LiveRecord) -> u64 {
    u64::from_le_bytes(record.content[..8].try_into().unwrap())
}

/// Reads some bytes now and then, until it is told that something was left out.
fn crawl(client: &Client) -> bool {
    let mut stream = client.connect().unwrap();
    let _ = setsockopt(&stream, RcvBuf, &(16 << 10));
    client.ask(&mut stream, "/api/cameras/crib/live").unwrap();
    let (mut all, mut piece) = (Vec::new(), [0; 8 << 10]);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => all.extend_from_slice(&piece[..n]),
            _ => return false,
        }
        if all.windows(16).any(|w| w == br#""notice":"moved""#) {
            return true;
        }
        all.drain(..all.len().saturating_sub(1024));
        thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn slow_viewers_are_moved_forward_and_the_others_see_every_picture() {
    const FAST: usize = 16;
    const SLOW: usize = 8;
    let web = WebWorker::start();
    let client = web.client.clone();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let fast: Vec<_> = (0..FAST)
        .map(|_| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut stream = client.live("/api/cameras/crib/live?video=1").unwrap();
                let (mut last, mut gaps, mut slowest) = (None::<LiveRecord>, 0, Duration::ZERO);
                let mut late = 0;
                while !stop.load(Ordering::Relaxed) {
                    let record = stream.try_next().unwrap();
                    assert_ne!(record.kind, NOTICE, "{}", String::from_utf8_lossy(&record.content));
                    if record.kind != JPEG {
                        continue;
                    }
                    late = late.max(timestamp::now_us() - record.time_us);
                    if let Some(last) = &last {
                        gaps += u64::from(number(&record) != number(last) + 1);
                        slowest = slowest.max(record.at - last.at);
                    }
                    last = Some(record);
                }
                (last.map(|r| number(&r)).unwrap_or_default(), gaps, slowest, late)
            })
        })
        .collect();
    let mut capture = web.capture();
    assert_eq!(capture.wish(PATIENCE), Some(true));
    let feeding = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let capture = capture.twin();
        thread::spawn(move || stills(capture, stop, sent))
    };
    let slow: Vec<_> = (0..SLOW)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || crawl(&client))
        })
        .collect();
    // One that reads nothing at all is in nobody's way either.
    let mut mute = client.connect().unwrap();
    client.ask(&mut mute, "/api/cameras/crib/live").unwrap();
    for viewer in slow {
        assert!(viewer.join().unwrap(), "nobody told a slow viewer that something was left out");
    }
    stop.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    let total = sent.load(Ordering::Relaxed);
    for viewer in fast {
        let (last, gaps, slowest, late) = viewer.join().unwrap();
        assert_eq!(gaps, 0, "a fast viewer misses pictures");
        assert!(last + 25 > total, "{last} of {total}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?} between two pictures");
        assert!(late < 2_000_000, "a picture came {late} µs late");
    }
    // Nobody is moved forward before he is three seconds behind: some 75 pictures, fewer where the sender was held up.
    assert!(total > 50, "{total}");
    // Until here, so that nobody is told of its end.
    drop(capture);
}

#[test]
fn nothing_is_sent_while_nobody_looks() {
    let web = WebWorker::start();
    let listener = web.client.live("/api/cameras/crib/live?video=0").unwrap();
    let mut capture = web.capture();
    let audio = AudioTrack { codec: AudioCodec::Ulaw, rate: 8000, channels: 1, config: Data::default() };
    assert!(capture.send(&FromCapture::Tracks(Tracks { audio: Some(audio), ..Tracks::default() })));
    let viewer = web.client.live("/api/cameras/crib/live").unwrap();
    assert_eq!(capture.wish(PATIENCE), Some(true), "pictures are wanted from the first who looks on");
    drop(viewer);
    assert_eq!(capture.wish(PATIENCE), Some(false), "and no longer when nobody does");
    drop(listener);
    assert!(capture.ends(PATIENCE), "the socket stays open for nobody");
    // And is there again for the next one.
    let mut back = web.client.live("/api/cameras/crib/live?video=0").unwrap();
    let mut capture = web.capture();
    let tracks = Tracks { no_video: Some("none".into()), ..Tracks::default() };
    assert!(capture.send(&FromCapture::Tracks(tracks)));
    assert_eq!(back.try_next().unwrap().kind, TRACKS);
}

#[test]
fn more_viewers_than_there_are_places_are_refused_and_the_rest_of_the_page_answers() {
    let web = WebWorker::start();
    let path = "/api/cameras/crib/live?video=0";
    let viewers: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = web.client.connect().unwrap();
            web.client.ask(&mut stream, path).unwrap();
            stream
        })
        .collect();
    let figures = || web.client.get("/metrics").text();
    until("500 viewers", PATIENCE, || figures().contains("nursery_web_viewers 500\n").then_some(()));
    let refused = web.client.get(path);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().is_ok() && refused.text().contains("500 viewers"));
    assert_eq!(web.client.get("/api/status").status, 200);
    drop(viewers);
    until("they are gone", PATIENCE, || figures().contains("nursery_web_viewers 0\n").then_some(()));
    assert!(web.client.live(path).is_ok());
}

#[test]
fn sound_and_pictures_of_a_real_camera_reach_viewers_in_time_and_again_after_its_process_died() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let port = free_port();
    let crib = RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() });
    let mut config = config([camera("crib", crib.url()), camera("attic", "synthetic:cry")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    let service = Service::start(&config);
    service.wait_live(&["crib", "attic"]);
    service.process_of("web");
    let client = Client::new(port);
    until("the page", PATIENCE, || client.try_request("GET", "/readyz", "").ok().filter(|r| r.status == 200));
    // What it cries is in what is heard.
    let mut attic = client.live("/api/cameras/attic/live?video=0").unwrap();
    let loudest = |record: &LiveRecord| {
        record.content.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]]).unsigned_abs()).max()
    };
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "nothing is heard");
        let record = attic.try_next().unwrap();
        if record.kind == RAW_SOUND && loudest(&record) > Some(1_000) {
            break;
        }
    }
    let mut viewers: Vec<_> = (0..5).map(|_| client.live("/api/cameras/crib/live").unwrap()).collect();
    let mut see = |generation: u64| {
        let mut newest = 0;
        for viewer in &mut viewers {
            let (mut pictures, mut sounds, mut begun, mut known) = (0, 0, false, 0);
            while pictures < 30 || sounds < 30 {
                let record = viewer.try_next().unwrap();
                match record.kind {
                    TRACKS => known = record.json()["video"]["generation"].as_u64().unwrap_or(0),
                    PICTURES_INIT => begun = true,
                    PICTURES if known > generation => {
                        assert!(begun, "a picture before its beginning");
                        let late = timestamp::now_us() - record.time_us;
                        pictures += usize::from(late < 1_000_000);
                    }
                    RAW_SOUND => sounds += 1,
                    _ => {}
                }
            }
            newest = newest.max(known);
        }
        newest
    };
    let first = see(0);
    // The session without pictures goes when the one with them is heard.
    until("the camera sees one client", PATIENCE, || (crib.playing() == 1).then_some(()));
    let capture = service.process_of("capture:crib");
    capture.signal(Signal::SIGKILL);
    service.wait_replaced("capture:crib", capture);
    see(first);
    drop(viewers);
    // The camera is no longer asked for pictures.
    until("nobody is served", PATIENCE, || {
        client.get("/metrics").text().contains("nursery_web_viewed_cameras 1\n").then_some(())
    });
}
