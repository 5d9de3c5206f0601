//! Changing the running service: what is not concerned keeps its process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use nursery_shared::{
    message::Role,
    status::{Status, WorkerState},
};
use nursery_tests::{
    audio,
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    temp_dir::TempDir,
    wait::PATIENCE,
};
use serde_json::{Value, json};

/// The processes that run now, by worker.
fn pids(status: &Status) -> BTreeMap<String, u32> {
    let running = status.workers.iter().filter(|w| w.state == WorkerState::Running);
    running.filter_map(|w| Some((w.name.clone(), w.pid?))).collect()
}

fn wait_pool(service: &Service, size: usize) -> Status {
    service.wait_for(&format!("{size} inference processes"), |status| {
        let infer: Vec<_> = status.workers.iter().filter(|w| w.role == Role::Infer).collect();
        let good = infer.len() == size && infer.iter().all(|w| w.state == WorkerState::Running);
        (good && status.inference.workers as usize == size).then(|| status.clone())
    })
}

fn three_cameras() -> (Vec<RtspCamera>, Vec<Value>) {
    let cameras: Vec<_> = (0..3).map(|_| RtspCamera::start(Codec::Pcmu)).collect();
    let list = cameras.iter().zip(["a", "b", "c"]).map(|(c, name)| camera(name, c.url())).collect();
    (cameras, list)
}

#[test]
fn scaling_the_pool_touches_no_process_that_stays() {
    let (_cameras, list) = three_cameras();
    let service = Service::start(&config(list, []));
    service.wait_live(&["a", "b", "c"]);
    let before = pids(&wait_pool(&service, 1));
    service.must(["scale", "4"]);
    let four = pids(&wait_pool(&service, 4));
    assert_eq!(four.len(), before.len() + 3);
    assert!(before.iter().all(|(name, pid)| four.get(name) == Some(pid)), "{before:?} became {four:?}");
    service.wait_windows("a", 6);
    service.must(["scale", "1"]);
    let one = pids(&wait_pool(&service, 1));
    assert!(one.iter().all(|(name, pid)| four.get(name) == Some(pid)), "{four:?} became {one:?}");
    let status = service.status();
    assert_eq!(status.workers.iter().map(|w| w.restarts).sum::<u64>(), 0);
    assert_eq!(status.inference.quarantined, 0);
    service.wait_windows("a", 6);
    service.must(["scale", "auto"]);
    for bad in ["0", "65", "many"] {
        let out = service.cli(["scale", bad]);
        assert_eq!(out.status.code(), Some(2), "scale {bad}");
    }
}

#[test]
fn a_reload_starts_the_new_camera_stops_the_old_one_and_touches_no_other() {
    let (cameras, mut list) = three_cameras();
    let mut service = Service::start(&config(list.clone(), []));
    service.wait_live(&["a", "b", "c"]);
    let before = pids(&service.status());
    let new = RtspCamera::start(Codec::L16);
    list.remove(1);
    list.push(camera("d", new.url()));
    service.write_config(&config(list.clone(), []));
    service.must(["reload"]);
    service.wait_for("camera b to be gone", |status| {
        (!status.cameras.iter().any(|c| c.name == "b") && !pids(status).contains_key("capture:b"))
            .then_some(())
    });
    service.wait_live(&["a", "c", "d"]);
    let after = pids(&service.status());
    for (name, pid) in before.iter().filter(|(name, _)| *name != "capture:b") {
        assert_eq!(after.get(name), Some(pid), "{name} was touched: {before:?} became {after:?}");
    }
    assert_eq!(cameras[1].count("TEARDOWN"), 1);
    // The same by signal.
    list.pop();
    service.write_config(&config(list, []));
    service.signal(nix::sys::signal::Signal::SIGHUP);
    service.wait_for("camera d to be gone", |status| {
        (!status.cameras.iter().any(|c| c.name == "d")).then_some(())
    });
    assert_eq!(pids(&service.status()).get("capture:a"), before.get("capture:a"));
    assert!(service.stop().status.success());
}

#[test]
fn a_reload_of_a_changed_camera_replaces_its_process_alone() {
    let (_cameras, mut list) = three_cameras();
    let service = Service::start(&config(list.clone(), []));
    service.wait_live(&["a", "b", "c"]);
    let before = pids(&service.status());
    let moved = RtspCamera::start(Codec::Pcma);
    list[1] = camera("b", moved.url());
    service.write_config(&config(list, []));
    service.must(["reload"]);
    nursery_tests::wait::until("the camera's new address to be used", nursery_tests::wait::PATIENCE, || {
        (moved.connected() > 0).then_some(())
    });
    service.wait_live(&["a", "b", "c"]);
    let after = pids(&service.status());
    for (name, pid) in before.iter().filter(|(name, _)| *name != "capture:b") {
        assert_eq!(after.get(name), Some(pid), "{name} was touched");
    }
}

#[test]
fn a_reload_that_makes_a_camera_more_sensitive_touches_no_process_and_is_in_force() {
    let dir = TempDir::new();
    let crying = dir.join("crying.wav");
    audio::write_wav(&crying, &[audio::room_noise(1.0), audio::cry(4.0), audio::room_noise(3.0)].concat());
    let receiver = Receiver::start();
    let with = |key: &str, value: Value| {
        let source = format!("file:{}", crying.display());
        let mut camera = json!({"name": "a", "source": source, "loop": true});
        camera[key] = value;
        config([camera], [receiver.alert()])
    };
    let service = Service::start(&with("sustained_s", json!(30)));
    service.wait_live(&["a"]);
    service.wait_windows("a", 24);
    let before = pids(&service.status());
    assert!(receiver.accepted().is_empty());
    service.write_config(&with("sensitivity", json!("high")));
    service.must(["reload"]);
    receiver.wait_for("cry.started", "a", PATIENCE);
    let ended = receiver.wait_for("cry.ended", "a", PATIENCE);
    let sustained = ended.body["data"]["sustained_s"].as_f64().unwrap();
    assert!((1.0..=60.0).contains(&sustained), "{sustained}");
    assert_eq!(pids(&service.status()), before);
}

#[test]
fn a_reload_of_a_bad_file_changes_nothing_and_says_why() {
    let (_cameras, list) = three_cameras();
    let service = Service::start(&config(list, []));
    service.wait_live(&["a", "b", "c"]);
    let before = pids(&service.status());
    for (text, expected) in [
        ("{", "JSON"),
        (r#"{"cameras": []}"#, "cameras"),
        (r#"[{"name": "a", "source": "synthetic:cry", "lop": true}]"#, "lop"),
        (
            r#"{"cameras": [{"name": "a", "source": "synthetic:cry"}], "inference": {"min_workers": 3, "max_workers": 2}}"#,
            "min_workers",
        ),
        (
            r#"{"cameras": [{"name": "a", "source": "synthetic:cry"}], "inference": {"model": "no.safetensors"}}"#,
            "inference.model",
        ),
        (
            r#"{"cameras": [{"name": "a", "source": "synthetic:cry"}], "inference": {"model": "cameras.json"}}"#,
            "inference.model",
        ),
        (
            r#"{"cameras": [{"name": "a", "source": "synthetic:cry"}], "supervision": {"uid_base": 600000}}"#,
            "supervision.uid_base",
        ),
    ] {
        std::fs::write(service.config_path(), text).unwrap();
        let out = service.cli(["reload"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains("cameras.json") && said.contains(expected), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    service.wait_windows("b", 4);
    assert_eq!(pids(&service.status()), before);
}
