//! A capture process hands over what its camera sends, pictures while they are wanted, and hears on whatever becomes of
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use nursery_shared::{
    media::{AudioCodec, FromCapture, Kind, Packet, Tracks, VideoCodec},
    message::{CameraReport, FromWorker},
    timestamp,
};
use nursery_tests::{
    bare_worker::{BareWorker, MediaEnd, configure_capture, crib},
    rtsp_camera::{Codec, Fault, RtspCamera, Setup, film},
    skip, wait,
};

/// Between the ends of two windows.
const HOP_US: i64 = 250_000;

fn capture(source: &str, rest: &str) -> BareWorker {
    BareWorker::start("capture", &configure_capture(&crib(source, rest)))
}

/// Ends of the windows among what was said.
fn ends(said: &[FromWorker]) -> Vec<i64> {
    said.iter().filter_map(|m| if let FromWorker::Window(w) = m { Some(w.end_us) } else { None }).collect()
}

fn assert_heard_without_gap(ends: &[i64]) {
    assert!(ends.len() > 8, "only {} windows", ends.len());
    let odd: Vec<i64> =
        ends.windows(2).map(|w| w[1] - w[0]).filter(|d| (d - HOP_US).abs() > 200_000).collect();
    assert!(odd.is_empty(), "windows that are so far from the one before: {odd:?} µs");
}

fn tracks(media: &mut MediaEnd) -> Tracks {
    media.wait_for(|m| if let FromCapture::Tracks(tracks) = m { Some(tracks) } else { None })
}

fn packet(media: &mut MediaEnd, kind: Kind) -> Packet {
    media.wait_for(|m| match m {
        FromCapture::Packet(packet) if packet.kind == kind => Some(packet),
        _ => None,
    })
}

#[test]
fn pictures_come_while_somebody_looks_and_nothing_goes_unheard_for_it() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let camera = RtspCamera::with(Setup { film: Some(film), ..Setup::default() });
    let mut worker = capture(&camera.url(), "");
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    assert_eq!(camera.tracks_set_up(), ["audio"], "nobody has asked for pictures");
    let said = worker.read_on();
    let mut media = worker.connect();
    let first = tracks(&mut media);
    let audio = first.audio.unwrap();
    assert_eq!((audio.codec, audio.rate, audio.channels), (AudioCodec::Ulaw, 8_000, 1));
    assert_eq!((first.video, first.no_video), (None, None));
    let heard = packet(&mut media, Kind::Audio);
    assert_eq!((heard.data.len(), heard.duration_us), (160, 20_000));
    assert!((timestamp::now_us() - heard.time_us).abs() < 1_000_000);

    media.want(true);
    let video = media.wait_for(|m| if let FromCapture::Tracks(t) = m { t.video } else { None });
    assert_eq!((video.codec, video.width, video.height), (VideoCodec::H264, 320, 240));
    assert!(video.codecs.starts_with("avc1.42"), "{}", video.codecs);
    assert_eq!(video.config[0], 1, "no AVCDecoderConfigurationRecord");
    let pictures: Vec<Packet> = (0..60).map(|_| packet(&mut media, Kind::Video)).collect();
    assert!(pictures[0].key, "it begins with a key frame");
    assert!(pictures.iter().filter(|p| p.key).count() >= 2);
    let span = pictures[59].time_us - pictures[0].time_us;
    assert!((span - 59 * 40_000).abs() < 300_000, "{span} µs for 59 pictures");
    // Lengths before the units, as MP4 has it.
    let unit = pictures[0].data.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize).unwrap();
    assert!(unit > 0 && unit + 4 <= pictures[0].data.len());
    let late = timestamp::now_us() - packet(&mut media, Kind::Video).time_us;
    assert!((-100_000..1_000_000).contains(&late), "{late} µs behind");
    let sound = packet(&mut media, Kind::Audio).time_us - packet(&mut media, Kind::Video).time_us;
    assert!(sound.abs() < 500_000, "{sound} µs apart");

    // One session at a time, but for the moment in which one takes over.
    wait::until("the former session to end", wait::PATIENCE, || (camera.playing() == 1).then_some(()));
    assert_eq!(camera.most_playing(), 2);
    drop(media);
    wait::until("pictures to end when nobody looks", wait::PATIENCE, || {
        (camera.tracks_set_up() == ["audio", "audio", "video", "audio"] && camera.playing() == 1)
            .then_some(())
    });
    assert_heard_without_gap(&ends(&said.lock().unwrap()));
    assert_eq!(camera.connected(), 3);
}

#[test]
fn a_camera_that_takes_one_session_is_heard_and_says_why_it_is_not_seen() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let setup = Setup { film: Some(film), most_sessions: 1, ..Setup::default() };
    let camera = RtspCamera::with(setup.clone());
    let mut worker = capture(&camera.url(), "");
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    let said = worker.read_on();
    let mut media = worker.connect();
    media.want(true);
    let why = media.wait_for(|m| if let FromCapture::Tracks(t) = m { t.no_video } else { None });
    assert!(why.contains("453") && why.contains("again in 30 s"), "{why}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        packet(&mut media, Kind::Audio);
    }
    assert_eq!(camera.connected(), 2, "it is not asked again and again");
    assert_heard_without_gap(&ends(&said.lock().unwrap()));

    let camera = RtspCamera::with(setup);
    let mut worker = capture(&camera.url(), r#", "video": "always""#);
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    let mut media = worker.connect();
    assert!(tracks(&mut media).video.is_some());
    assert!(packet(&mut media, Kind::Video).data.len() > 10);
    assert_eq!((camera.connected(), camera.most_playing()), (1, 1));
}

#[test]
fn a_camera_whose_pictures_are_always_wanted_is_asked_for_them_again_after_they_failed() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let camera = RtspCamera::with(Setup { film: Some(film), fault: Fault::NoPictures, ..Setup::default() });
    let mut worker = capture(&camera.url(), r#", "video": "always""#);
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    assert_eq!(camera.tracks_set_up(), ["audio", "video", "audio"]);
    camera.set_fault(Fault::None);
    let said = worker.read_on();
    // Who only listens is told why there are none.
    let mut media = worker.connect();
    let until = Instant::now() + wait::PATIENCE;
    let why = media.wait_for(|m| match m {
        FromCapture::Tracks(t) => t.no_video,
        _ if Instant::now() < until => None,
        _ => panic!("it is never told why"),
    });
    assert!(why.contains("453") && why.contains("again in 30 s"), "{why}");
    // Nobody looks, and they come.
    drop(media);
    wait::until("pictures", wait::PATIENCE, || {
        (camera.tracks_set_up().len() == 5 && camera.playing() == 1).then_some(())
    });
    assert_eq!(camera.tracks_set_up()[3..], ["audio", "video"]);
    assert_heard_without_gap(&ends(&said.lock().unwrap()));
}

#[test]
fn pictures_are_not_to_blame_for_a_camera_that_was_away() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let camera = RtspCamera::with(Setup { film: Some(film), most_sessions: 1, ..Setup::default() });
    camera.go_away();
    let mut worker = capture(&camera.url(), r#", "video": "always""#);
    for _ in 0..2 {
        while !matches!(worker.receive(), FromWorker::Camera(CameraReport { error: Some(_), .. })) {}
    }
    camera.come_back();
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    assert_eq!(camera.tracks_set_up(), ["audio", "video"]);
}

#[test]
fn cameras_without_pictures_say_so() {
    let plain = RtspCamera::start(Codec::L16);
    let mut worker = capture(&plain.url(), "");
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    let mut media = worker.connect();
    media.want(true);
    let why = media.wait_for(|m| if let FromCapture::Tracks(t) = m { t.no_video } else { None });
    assert!(why.contains("no video track"), "{why}");
    // Linear samples have their bytes as everybody else has them.
    plain.microphone().play(&[1_000; 64_000]);
    let data = media.wait_for(|m| match m {
        FromCapture::Packet(p) if p.data.contains(&3) => Some(p.data),
        _ => None,
    });
    assert!(data.chunks(2).any(|b| b == 1_000_i16.to_le_bytes()), "{:?}", &data[..8]);
    assert_eq!(plain.connected(), 1);
}

#[test]
fn whoever_has_no_media_of_its_own_hands_over_what_it_hears() {
    let mut worker = capture("synthetic:cry", "");
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    let mut media = worker.connect();
    let audio = tracks(&mut media).audio.unwrap();
    assert_eq!((audio.codec, audio.rate), (AudioCodec::S16le, 16_000));
    let (mut us, first) = (0, packet(&mut media, Kind::Audio));
    while us < 1_000_000 {
        let next = packet(&mut media, Kind::Audio);
        us += i64::from(next.duration_us);
        assert!((next.time_us - first.time_us - us).abs() < 100_000);
    }
    // Another has all of it too.
    let mut other = worker.connect();
    let (here, there) = (packet(&mut other, Kind::Audio), packet(&mut media, Kind::Audio));
    assert!((here.time_us - there.time_us).abs() < 1_000_000);
}
