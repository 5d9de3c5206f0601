//! Receivers that are down, slow or refuse, and a supervisor that dies meanwhile: every alert arrives, once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nursery_tests::{
    audio,
    receiver::{Answer, Receiver},
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    temp_dir::TempDir,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

/// The stored events of this type, as `nursery events --json` prints them.
fn stored(service: &Service, kind: &str) -> Vec<Value> {
    let lines = service.must(["events", "--json"]);
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    events.filter(|e| e["type"] == kind).collect()
}

fn wait_stored(service: &Service, kind: &str) -> String {
    let events = until(&format!("a stored {kind}"), PATIENCE, || {
        let events = stored(service, kind);
        (!events.is_empty()).then_some(events)
    });
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]["data"]["event_id"].as_str().expect("an event id").to_owned()
}

#[test]
fn alerts_of_a_receiver_that_was_down_arrive_once_with_the_same_ids_though_the_supervisor_was_killed() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut service = Service::start(&config([camera("crib", crib.url())], [receiver.alert()]));
    service.wait_live(&["crib"]);
    receiver.go_down();
    crib.microphone().play(&audio::cry(5.0));
    let event = wait_stored(&service, "cry.started");
    service.kill();
    service.start_again();
    service.wait_live(&["crib"]);
    service.wait_for("pending alerts", |s| (s.alerts.pending > 0).then_some(()));
    assert!(receiver.accepted().is_empty());
    receiver.come_up();
    let started = receiver.wait_for("cry.started", "crib", PATIENCE);
    let ended = receiver.wait_for("cry.ended", "crib", PATIENCE);
    assert_eq!((started.event_id(), ended.event_id()), (event.as_str(), event.as_str()));
    service.wait_for("nothing pending", |s| (s.alerts.pending == 0).then_some(()));
    let kinds: Vec<_> = receiver.accepted().iter().map(|r| r.kind().to_owned()).collect();
    assert_eq!(kinds, ["cry.started", "cry.ended"]);
}

#[test]
fn an_event_that_was_open_when_the_supervisor_died_goes_on_and_is_not_announced_twice() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut service = Service::start(&config([camera("crib", crib.url())], [receiver.alert()]));
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(12.0));
    let started = receiver.wait_for("cry.started", "crib", PATIENCE);
    service.kill();
    service.start_again();
    let ended = receiver.wait_for("cry.ended", "crib", PATIENCE);
    assert_eq!(started.event_id(), ended.event_id());
    assert_eq!(receiver.accepted_of("cry.started", "crib").len(), 1);
}

#[test]
fn a_receiver_that_refuses_gets_the_same_message_again_and_in_order() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    receiver.set_answer(Answer::Status(500));
    let service = Service::start(&config([camera("crib", crib.url())], [receiver.alert()]));
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(5.0));
    wait_stored(&service, "cry.ended");
    let status = service.status();
    assert!(status.alerts.pending >= 2 && status.alerts.failing_since.is_some(), "{:?}", status.alerts);
    let refused = receiver.requests();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|r| r.kind() == "cry.started"), "the end came before the start was accepted");
    receiver.set_answer(Answer::Status(200));
    receiver.wait_for("cry.ended", "crib", PATIENCE);
    let accepted = receiver.accepted();
    assert_eq!(accepted.iter().map(|r| r.kind()).collect::<Vec<_>>(), ["cry.started", "cry.ended"]);
    assert_eq!(accepted[0].id, refused[0].id);
    let alerts = service.wait_for("nothing pending", |s| (s.alerts.pending == 0).then(|| s.alerts.clone()));
    assert_eq!((alerts.delivered, alerts.failing_since), (2, None));
}

#[test]
fn a_receiver_that_never_answers_holds_up_neither_the_next_receiver_nor_the_service() {
    let crib = RtspCamera::start(Codec::L16);
    let (hanging, quick) = (Receiver::start(), Receiver::start());
    hanging.set_answer(Answer::Hang);
    let service = Service::start(&config([camera("crib", crib.url())], [hanging.alert(), quick.alert()]));
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(5.0));
    let started = quick.wait_for("cry.started", "crib", PATIENCE);
    quick.wait_for("cry.ended", "crib", PATIENCE);
    service.wait_windows("crib", 6);
    assert!(hanging.accepted().is_empty());
    hanging.set_answer(Answer::Status(202));
    assert_eq!(hanging.wait_for("cry.started", "crib", PATIENCE).event_id(), started.event_id());
}

#[test]
fn a_command_gets_the_event_as_json_on_its_standard_input() {
    let dir = TempDir::new();
    let (script, got) = (dir.join("alert.sh"), dir.join("got"));
    std::fs::write(&script, format!("cat >> {}; echo >> {0}\n", got.display())).unwrap();
    // As root the command runs as the sink's user.
    std::fs::write(&got, "").unwrap();
    std::fs::set_permissions(&got, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let crib = RtspCamera::start(Codec::L16);
    let service = Service::start(&config(
        [camera("crib", crib.url())],
        [json!({"type": "exec", "command": format!("sh {}", script.display())}), json!({"type": "log"})],
    ));
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(5.0));
    let lines = until("both events at the command", PATIENCE, || {
        let text = std::fs::read_to_string(&got).ok()?;
        let lines: Vec<Value> =
            text.lines().filter(|l| !l.is_empty()).filter_map(|l| serde_json::from_str(l).ok()).collect();
        (lines.len() >= 2).then_some(lines)
    });
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&json!("cry.started"), &json!("cry.ended")));
    assert_eq!(lines[0]["data"]["camera"], "crib");
    until("the event on the log", PATIENCE, || {
        service.log().iter().any(|l| l.contains("cry.started") && l.contains("crib")).then_some(())
    });
}
