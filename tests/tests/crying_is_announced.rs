//! Four real cameras at once, one of them in front of a baby that cries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nursery_tests::{
    audio,
    gst_camera::{self, GstCamera, Stream},
    receiver::Receiver,
    rtsp_camera::{Codec, Credentials, RtspCamera, Scheme, Setup},
    service::{Service, camera, config},
    skip,
    temp_dir::TempDir,
    wait::PATIENCE,
};
use serde_json::{Value, json};

/// Checks that one crying of `crying` was announced, with a start and an end, and nothing else.
fn expect_one_event(service: &Service, receiver: &Receiver, crying: &str, all: &[&str]) {
    let started = receiver.wait_for("cry.started", crying, PATIENCE);
    let ended = receiver.wait_for("cry.ended", crying, PATIENCE);
    assert_eq!(started.event_id(), ended.event_id());
    assert_ne!(started.id, ended.id, "two messages need two ids");
    for (request, keys) in [
        (&started, &["event_id", "camera", "label", "onset", "score"][..]),
        (&ended, &["event_id", "camera", "label", "onset", "offset", "duration_s", "peak_score"][..]),
    ] {
        for key in keys {
            assert!(!request.body["data"][key].is_null(), "no {key} in {}", request.body);
        }
        assert_eq!(request.body["data"]["label"], "baby_cry");
    }
    let duration = ended.body["data"]["duration_s"].as_f64().unwrap();
    assert!((2.0..12.0).contains(&duration), "a cry of about 6 s was said to last {duration} s");
    for name in all {
        service.wait_windows(name, 8);
    }
    let came: Vec<_> =
        receiver.accepted().iter().map(|r| (r.kind().to_owned(), r.camera().to_owned())).collect();
    let expected =
        [("cry.started".to_owned(), crying.to_owned()), ("cry.ended".to_owned(), crying.to_owned())];
    assert_eq!(came, expected, "exactly one start and one end, and nothing of the other cameras");
    service.wait_live(all);
    let stored = service.must(["events", "--json"]);
    for line in [started.event_id(), "cry.started", "cry.ended"] {
        assert!(stored.contains(line), "{line} is not in the store:\n{stored}");
    }
}

#[test]
fn a_cry_on_one_of_four_gstreamer_cameras_is_announced_once_and_for_it_alone() {
    if let Some(why) = gst_camera::missing() {
        skip!("{why}");
    }
    let dir = TempDir::new();
    let (quiet, crying) = (dir.join("quiet.wav"), dir.join("crying.wav"));
    audio::write_wav(&quiet, &audio::room_noise(180.0));
    let clip = [audio::room_noise(6.0), audio::cry(6.0), audio::room_noise(168.0)].concat();
    audio::write_wav(&crying, &clip);
    let cameras = [
        ("pcmu", GstCamera::start(Stream::Pcmu8k, &quiet)),
        ("aac16", GstCamera::start(Stream::Aac16k, &quiet)),
        ("aac48", GstCamera::start(Stream::Aac48kStereo, &crying)),
        ("h264aac", GstCamera::start(Stream::H264Aac, &quiet)),
    ];
    let receiver = Receiver::start();
    let service =
        Service::start(&config(cameras.iter().map(|(name, c)| camera(name, c.url())), [receiver.alert()]));
    let all = ["pcmu", "aac16", "aac48", "h264aac"];
    service.wait_live(&all);
    expect_one_event(&service, &receiver, "aac48", &all);
}

#[test]
fn every_kind_of_gstreamer_camera_hears_the_cry_before_it() {
    if let Some(why) = gst_camera::missing() {
        skip!("{why}");
    }
    let dir = TempDir::new();
    let crying = dir.join("crying.wav");
    let clip = [audio::room_noise(5.0), audio::cry(6.0), audio::room_noise(120.0)].concat();
    audio::write_wav(&crying, &clip);
    let cameras = [
        ("pcma", GstCamera::start(Stream::Pcma8k, &crying)),
        ("l16", GstCamera::start(Stream::L16, &crying)),
        ("aac16", GstCamera::start(Stream::Aac16k, &crying)),
        ("h264aac", GstCamera::start(Stream::H264Aac, &crying)),
        ("h264pcmu", GstCamera::start(Stream::H264Pcmu, &crying)),
    ];
    let digest = GstCamera::start_with_password(Stream::Pcmu8k, &crying, "viewer", "open sesame");
    let mut list: Vec<Value> = cameras.iter().map(|(name, c)| camera(name, c.url())).collect();
    list.push(json!({
        "name": "digest", "source": digest.url(), "transport": "udp",
        "username": "viewer", "password": "open sesame",
    }));
    let receiver = Receiver::start();
    let service = Service::start(&config(list, [receiver.alert()]));
    let names = cameras.iter().map(|(name, _)| *name).chain(["digest"]);
    for name in names {
        receiver.wait_for("cry.started", name, PATIENCE);
        receiver.wait_for("cry.ended", name, PATIENCE);
        assert_eq!(receiver.accepted_of("cry.started", name).len(), 1);
    }
    assert_eq!(service.status().workers.iter().map(|w| w.restarts).sum::<u64>(), 0);
}

#[test]
fn a_cry_on_one_of_four_small_cameras_is_announced_once_and_for_it_alone() {
    let password =
        |scheme| Some(Credentials { user: "viewer".into(), password: "open sesame".into(), scheme });
    let pcmu = RtspCamera::with(Setup { credentials: password(Scheme::Digest), ..Setup::default() });
    let pcma = RtspCamera::with(Setup {
        codec: Codec::Pcma,
        credentials: password(Scheme::Basic),
        video: true,
        ..Setup::default()
    });
    let l16 = RtspCamera::start(Codec::L16);
    let udp = RtspCamera::start(Codec::Pcmu);
    let receiver = Receiver::start();
    let service = Service::start(&config(
        [
            camera("pcmu", pcmu.url_as("viewer", "open%20sesame")),
            json!({"name": "pcma", "source": pcma.url(), "username": "viewer", "password": "open sesame"}),
            camera("l16", l16.url()),
            json!({"name": "udp", "source": udp.url(), "transport": "udp"}),
        ],
        [receiver.alert()],
    ));
    let all = ["pcmu", "pcma", "l16", "udp"];
    service.wait_live(&all);
    udp.microphone().play(&audio::cry(6.0));
    expect_one_event(&service, &receiver, "udp", &all);
    for (quiet, name) in [(&pcmu, "pcmu"), (&pcma, "pcma"), (&l16, "l16")] {
        quiet.microphone().play(&audio::cry(4.0));
        receiver.wait_for("cry.started", name, PATIENCE);
    }
    assert_eq!(pcma.tracks_set_up(), ["audio"]);
}

#[test]
fn a_recording_of_a_real_cry_is_announced() {
    let Some(cries) = audio::corpus_cries(4) else { skip!("the audio corpus is not at hand") };
    let cameras: Vec<RtspCamera> = cries.iter().map(|_| RtspCamera::start(Codec::L16)).collect();
    let names: Vec<String> = (0..cries.len()).map(|i| format!("crib-{i}")).collect();
    let receiver = Receiver::start();
    let list = names.iter().zip(&cameras).map(|(name, c)| camera(name, c.url()));
    let service = Service::start(&config(list, [receiver.alert()]));
    service.wait_live(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (camera, clip) in cameras.iter().zip(&cries) {
        camera.microphone().play(&audio::decode(clip));
    }
    // The network is good, not perfect: one of four recordings may stay unheard here. How many are heard in
    // general is measured by the detector's own evaluation.
    let heard = nursery_tests::wait::poll(Duration::from_secs(30), || {
        let heard = names.iter().filter(|n| !receiver.accepted_of("cry.started", n).is_empty()).count();
        (heard + 1 >= names.len()).then_some(())
    });
    let came: Vec<_> = receiver.accepted().iter().map(|r| r.body.clone()).collect();
    assert!(heard.is_some(), "of the recordings {cries:?} only these were heard: {came:?}");
}
