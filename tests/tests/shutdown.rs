//! The end of a service: soon, complete, and with status 0, whatever its cameras and receivers are doing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nix::sys::signal::Signal;
use nursery_tests::{
    audio,
    processes::all_gone,
    receiver::{Answer, Receiver},
    rtsp_camera::{Codec, Fault, RtspCamera, Setup},
    service::{Service, camera, config},
    wait::{self, PATIENCE},
};

#[test]
fn a_service_with_frozen_cameras_a_frozen_worker_and_a_deaf_receiver_stops_within_ten_seconds() {
    let crib = RtspCamera::start(Codec::L16);
    let frozen = RtspCamera::with(Setup { fault: Fault::Freeze, ..Setup::default() });
    let endless = RtspCamera::with(Setup { fault: Fault::EndlessHeader, ..Setup::default() });
    let gone = RtspCamera::start(Codec::L16);
    gone.go_away();
    let receiver = Receiver::start();
    receiver.set_answer(Answer::Hang);
    let mut service = Service::start(&config(
        [
            camera("crib", crib.url()),
            camera("frozen", frozen.url()),
            camera("endless", endless.url()),
            camera("gone", gone.url()),
            camera("program", "exec:sh -c 'trap \"\" TERM; cat /dev/zero'"),
            camera("synthetic", "synthetic:noise"),
        ],
        [receiver.alert()],
    ));
    service.wait_live(&["crib", "synthetic"]);
    crib.microphone().play(&audio::cry(30.0));
    service.wait_for("a pending alert", |s| (s.alerts.pending > 0).then_some(()));
    assert!(service.process_of("capture:synthetic").signal(Signal::SIGSTOP));
    let stopped = service.stop();
    assert!(stopped.status.success(), "{}\n{}", stopped.status, service.log().join("\n"));
    assert!(stopped.took < Duration::from_secs(11), "took {:?}", stopped.took);
    assert!(stopped.workers.len() >= 8, "{:?}", stopped.workers);
    all_gone(&stopped.workers, Duration::from_secs(2)).expect("no process is left");
    assert!(!service.socket().exists(), "the socket was left behind");
}

#[test]
fn the_answer_to_goodbye_is_heard_at_once_by_who_waits_for_a_window() {
    let crib = RtspCamera::start(Codec::Pcmu);
    let mut service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    // Packets gather from two seconds of audio on.
    service.wait_windows("crib", 14);
    assert!(service.stop().status.success());
    // The camera leaves the end of the connection to its client, which would wait for a second.
    let goodbyes = wait::until("the end of the connection", PATIENCE, || {
        Some(crib.goodbyes()).filter(|all| !all.is_empty())
    });
    assert!(goodbyes.len() == 1 && goodbyes[0] < Duration::from_millis(500), "{goodbyes:?}");
}

#[test]
fn an_interrupt_of_the_whole_foreground_ends_well_too() {
    let crib = RtspCamera::start(Codec::Pcmu);
    let mut service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    let workers = service.process().descendants();
    for worker in &workers {
        worker.signal(Signal::SIGINT);
    }
    service.signal(Signal::SIGINT);
    assert!(service.wait_exit().success(), "{}", service.log().join("\n"));
    all_gone(&workers, Duration::from_secs(2)).expect("no process is left");
}

#[test]
fn what_was_heard_before_the_end_is_stored_and_delivered_after_the_next_start() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut service = Service::start(&config([camera("crib", crib.url())], [receiver.alert()]));
    service.wait_live(&["crib"]);
    receiver.go_down();
    crib.microphone().play(&audio::cry(5.0));
    service.wait_for("a pending alert", |s| (s.alerts.pending > 0).then_some(()));
    assert!(service.stop().status.success());
    receiver.come_up();
    service.start_again();
    receiver.wait_for("cry.started", "crib", PATIENCE);
    receiver.wait_for("cry.ended", "crib", PATIENCE);
    assert_eq!(receiver.accepted_of("cry.started", "crib").len(), 1);
}

#[test]
fn workers_die_with_a_killed_supervisor() {
    let crib = RtspCamera::start(Codec::Pcmu);
    let mut service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    service.kill();
    // A stale socket is no obstacle to the next start.
    service.start_again();
    service.wait_live(&["crib"]);
}
