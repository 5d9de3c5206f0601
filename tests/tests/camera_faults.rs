//! Cameras that are wrong, rude or gone: each says what is wrong with it, and disturbs no other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::HashSet, time::Duration};

use nix::sys::signal::Signal;
use nursery_shared::status::CameraState;
use nursery_tests::{
    audio,
    gst_camera::{self, GstCamera, Stream},
    processes::Process,
    receiver::Receiver,
    rtsp_camera::{Codec, Credentials, Fault, RtspCamera, Scheme, Setup},
    service::{Service, camera, config, find_camera},
    skip,
    temp_dir::TempDir,
    wait::PATIENCE,
};
use serde_json::json;

fn faulty(fault: Fault) -> RtspCamera {
    RtspCamera::with(Setup { fault, ..Setup::default() })
}

#[test]
fn each_fault_of_a_camera_has_its_own_error_and_leaves_the_healthy_one_alone() {
    let healthy = RtspCamera::start(Codec::Pcmu);
    let locked = RtspCamera::with(Setup {
        credentials: Some(Credentials {
            user: "viewer".into(),
            password: "right".into(),
            scheme: Scheme::Digest,
        }),
        ..Setup::default()
    });
    let no_audio = faulty(Fault::NoAudio);
    let not_found = faulty(Fault::NotFound);
    let silent = faulty(Fault::StallMedia);
    let speex = faulty(Fault::Encoding("SPEEX/16000"));
    let gone = RtspCamera::start(Codec::Pcmu);
    gone.go_away();
    let service = Service::start(&config(
        [
            camera("healthy", healthy.url()),
            camera("no-audio", no_audio.url()),
            camera("wrong-password", locked.url_as("viewer", "hunter2")),
            camera("no-password", locked.url()),
            camera("wrong-path", not_found.url()),
            camera("refused", gone.url()),
            camera("silent", silent.url()),
            camera("speex", speex.url()),
            json!({"name": "no-host", "source": "rtsp://no-such-host.invalid/live"}),
        ],
        [],
    ));
    service.wait_live(&["healthy"]);
    let errors = [
        service.wait_error("no-audio", &["no audio"]),
        service.wait_error("wrong-password", &["password"]),
        service.wait_error("no-password", &["password"]),
        service.wait_error("wrong-path", &["path"]),
        service.wait_error("refused", &["refused"]),
        service.wait_error("silent", &["no audio"]),
        service.wait_error("speex", &["speex"]),
        service.wait_error("no-host", &["no-such-host.invalid"]),
    ];
    for error in &errors {
        assert!(!error.contains('\n') && !error.contains("hunter2"), "{error:?}");
    }
    assert_eq!(
        errors.iter().collect::<HashSet<_>>().len(),
        errors.len(),
        "two faults, one text: {errors:#?}"
    );
    service.wait_windows("healthy", 10);
    let status = service.status();
    assert_eq!(find_camera(&status, "healthy").state, CameraState::Live);
    assert_eq!(find_camera(&status, "healthy").last_error, None);
    let restarts: Vec<_> = status.workers.iter().filter(|w| w.restarts > 0).collect();
    assert!(restarts.is_empty(), "a camera's fault is no reason to restart a process: {restarts:?}");
}

#[test]
fn a_stream_that_stalls_is_said_to_be_stalled_and_recovers() {
    for transport in ["tcp", "udp"] {
        let rtsp = RtspCamera::start(Codec::Pcmu);
        let service = Service::start(&config(
            [json!({"name": "crib", "source": rtsp.url(), "transport": transport})],
            [],
        ));
        service.wait_live(&["crib"]);
        rtsp.set_fault(Fault::StallMedia);
        service.wait_for("the camera to be stalled", |status| {
            let crib = find_camera(status, "crib");
            (crib.state == CameraState::Stalled && crib.last_error.is_some()).then_some(())
        });
        rtsp.set_fault(Fault::None);
        service.wait_live(&["crib"]);
        service.wait_windows("crib", 6);
        assert_eq!(service.worker("capture:crib").restarts, 0);
    }
}

#[test]
fn a_camera_that_hangs_up_or_goes_away_is_heard_again_when_it_is_back() {
    let rtsp = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", rtsp.url())], []));
    service.wait_live(&["crib"]);
    let before = rtsp.connected();
    rtsp.hang_up();
    nursery_tests::wait::until("a new connection", PATIENCE, || (rtsp.connected() > before).then_some(()));
    service.wait_live(&["crib"]);
    rtsp.go_away();
    service.wait_error("crib", &["refused"]);
    assert_ne!(service.camera("crib").state, CameraState::Live);
    rtsp.come_back();
    service.wait_live(&["crib"]);
    service.wait_windows("crib", 6);
    assert_eq!(service.worker("capture:crib").restarts, 0);
}

#[test]
fn an_encoder_that_begins_anew_within_a_session_is_heard_again_soon() {
    let rtsp = RtspCamera::start(Codec::Pcmu);
    let service = Service::start(&config([camera("crib", rtsp.url())], []));
    service.wait_live(&["crib"]);
    service.wait_windows("crib", 8);
    rtsp.set_fault(Fault::OtherSource);
    // Its packets are those of a stranger until the session is given up; the camera has answered to its end, so that
    // nothing is left there to be waited for (a minute and more, where it is not known).
    nursery_tests::wait::until("another session", Duration::from_secs(20), || {
        (rtsp.count("TEARDOWN") == 1 && rtsp.count("PLAY") == 2).then_some(())
    });
    service.wait_live(&["crib"]);
    service.wait_windows("crib", 6);
    assert_eq!(service.worker("capture:crib").restarts, 0);
}

#[test]
fn a_frozen_gstreamer_camera_is_noticed_and_heard_again() {
    if let Some(why) = gst_camera::missing() {
        skip!("{why}");
    }
    let dir = TempDir::new();
    let wav = dir.join("quiet.wav");
    audio::write_wav(&wav, &audio::room_noise(180.0));
    let gst = GstCamera::start(Stream::Aac16k, &wav);
    let service = Service::start(&config([camera("crib", gst.url())], []));
    service.wait_live(&["crib"]);
    gst.signal(Signal::SIGSTOP);
    service.wait_for("the camera not to be live", |status| {
        (find_camera(status, "crib").state != CameraState::Live).then_some(())
    });
    gst.signal(Signal::SIGCONT);
    service.wait_live(&["crib"]);
    service.wait_windows("crib", 6);
}

#[test]
fn only_the_audio_is_asked_for_and_the_camera_is_told_at_the_end() {
    let rtsp = RtspCamera::with(Setup { video: true, ..Setup::default() });
    let mut service = Service::start(&config([camera("crib", rtsp.url())], []));
    service.wait_live(&["crib"]);
    assert_eq!(rtsp.tracks_set_up(), ["audio"]);
    assert_eq!(rtsp.count("TEARDOWN"), 0);
    assert!(service.stop().status.success());
    assert_eq!(rtsp.count("TEARDOWN"), 1, "a session was left open on the camera");
}

#[test]
fn rude_cameras_disturb_nobody_and_eat_no_memory() {
    let healthy = RtspCamera::start(Codec::Pcmu);
    let faults = [
        ("garbage-answer", Fault::GarbageAnswer),
        ("garbage-stream", Fault::GarbageStream),
        ("drip", Fault::Drip),
        ("endless-header", Fault::EndlessHeader),
        ("endless-body", Fault::EndlessBody),
        ("freeze", Fault::Freeze),
    ];
    let rude = faults.map(|(name, fault)| (name, faulty(fault)));
    let list = rude.iter().map(|(name, c)| camera(name, c.url()));
    let service = Service::start(&config(list.chain([camera("healthy", healthy.url())]), []));
    service.wait_live(&["healthy"]);
    for (name, _) in &rude {
        let error = service.wait_error(name, &[""]);
        assert!(!error.contains('\n') && error.len() < 1000, "{name}: {error:?}");
        service.wait_windows("healthy", 4);
    }
    let status = service.status();
    for worker in &status.workers {
        let held = worker.pid.and_then(Process::of).map_or(0, Process::resident) >> 20;
        assert!(held < 150, "{} holds {held} MiB", worker.name);
        assert_eq!(worker.restarts, 0, "{}: {:?}", worker.name, worker.last_exit);
    }
    assert_eq!(find_camera(&status, "healthy").last_error, None);
    for (_, camera) in &rude {
        camera.set_fault(Fault::None);
    }
    service.wait_live(&faults.map(|(name, _)| name));
}

#[test]
fn broken_packets_are_passed_over_and_the_cry_between_them_is_heard() {
    let rtsp = RtspCamera::with(Setup { codec: Codec::L16, fault: Fault::CorruptMedia, ..Setup::default() });
    let receiver = Receiver::start();
    let service = Service::start(&config([camera("crib", rtsp.url())], [receiver.alert()]));
    service.wait_for("windows", |status| (find_camera(status, "crib").windows > 4).then_some(()));
    rtsp.microphone().play(&audio::cry(6.0));
    receiver.wait_for("cry.started", "crib", PATIENCE);
    let about_packets = service.log().iter().filter(|line| line.contains("capture:crib")).count();
    assert!(about_packets < 30, "{about_packets} log lines about some hundred broken packets");
    assert_eq!(service.worker("capture:crib").restarts, 0);
}

#[test]
fn a_camera_that_is_not_heard_is_announced_offline_and_online_again() {
    let rtsp = RtspCamera::start(Codec::Pcmu);
    let healthy = RtspCamera::start(Codec::Pcmu);
    let receiver = Receiver::start();
    let mut config =
        config([camera("crib", rtsp.url()), camera("healthy", healthy.url())], [receiver.alert()]);
    config["detection"]["offline_after_s"] = json!(2);
    let service = Service::start(&config);
    service.wait_live(&["crib", "healthy"]);
    rtsp.go_away();
    let offline = receiver.wait_for("camera.offline", "crib", PATIENCE);
    assert!(!offline.event_id().is_empty());
    service.wait_for("the state offline", |status| {
        (find_camera(status, "crib").state == CameraState::Offline).then_some(())
    });
    rtsp.come_back();
    receiver.wait_for("camera.online", "crib", PATIENCE);
    let kinds: Vec<_> = receiver.accepted().iter().map(|r| format!("{} {}", r.kind(), r.camera())).collect();
    assert_eq!(kinds, ["camera.offline crib", "camera.online crib"]);
}

#[test]
fn cameras_that_are_lost_together_are_one_alert_and_come_back_each_by_itself() {
    let cameras = ["north", "south", "west"].map(|name| (name, RtspCamera::start(Codec::Pcmu)));
    let receiver = Receiver::start();
    let mut config = config(cameras.iter().map(|(name, rtsp)| camera(name, rtsp.url())), [receiver.alert()]);
    config["detection"]["offline_after_s"] = json!(5);
    let service = Service::start(&config);
    service.wait_live(&["north", "south", "west"]);
    let (lost, healthy) = cameras.split_at(2);
    lost.iter().for_each(|(_, rtsp)| rtsp.go_away());
    let offline = receiver.wait_for("camera.offline", "north, south", PATIENCE);
    let named = offline.body["data"]["cameras"].clone();
    lost.iter().for_each(|(_, rtsp)| rtsp.come_back());
    for (i, (name, _)) in lost.iter().enumerate() {
        let online = receiver.wait_for("camera.online", name, PATIENCE);
        assert_eq!(
            (named[i]["camera"].as_str(), named[i]["event_id"].as_str()),
            (Some(*name), Some(online.event_id()))
        );
    }
    assert_eq!(receiver.accepted().len(), 3, "{:?}", receiver.accepted());
    let told = |name: &str| service.must(["events", "--camera", name, "--json"]).lines().count();
    assert_eq!((told("north"), told("south"), told(healthy[0].0)), (2, 2, 0));
}

#[test]
fn a_muted_microphone_is_announced_and_a_noise_gate_is_not() {
    let (muted, gated) = (RtspCamera::start(Codec::L16), RtspCamera::start(Codec::L16));
    let receiver = Receiver::start();
    let mut cameras = [camera("crib", muted.url()), camera("gated", gated.url())];
    cameras[1]["noise_gate"] = json!(true);
    let mut config = config(cameras, [receiver.alert()]);
    config["detection"]["offline_after_s"] = json!(2);
    let service = Service::start(&config);
    service.wait_live(&["crib", "gated"]);
    for camera in [&muted, &gated] {
        camera.microphone().play(&vec![0; 16_000 * 8]);
    }
    let offline = receiver.wait_for("camera.offline", "crib", PATIENCE);
    let reason = offline.body["data"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("digital silence"), "{reason}");
    // Its zeros end, and what comes then is a room.
    receiver.wait_for("camera.online", "crib", PATIENCE);
    assert!(gated.microphone().is_done(), "it was silent for as long");
    assert_eq!(receiver.accepted_of("camera.offline", "gated").len(), 0);
    assert_eq!(service.worker("capture:crib").restarts, 0);
}
