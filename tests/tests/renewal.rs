//! New processes and other models for a service that goes on scoring, on real processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nursery_shared::{
    changes::Changes,
    control::{Reply, Request},
    message::Role,
    status::{Status, WorkerState},
};
use nursery_tests::{
    audio,
    receiver::Receiver,
    service::{Service, ask, binary, camera, config},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/weights/nursery.safetensors");

fn pids(status: &Status) -> BTreeMap<String, u32> {
    let running = status.workers.iter().filter(|w| w.state == WorkerState::Running);
    running.filter_map(|w| Some((w.name.clone(), w.pid?))).collect()
}

fn cameras(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| camera(name, "synthetic:noise")).collect()
}

/// Puts a file in place at once, readable for everybody.
fn put(path: &Path, bytes: &[u8]) {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(partial, path).unwrap();
}

/// The built-in weights, and the same with one number that is a little different: another model.
fn two_models() -> (Vec<u8>, Vec<u8>) {
    let one = fs::read(WEIGHTS).unwrap();
    let mut other = one.clone();
    let at = other.len() - 4;
    other[at] ^= 1;
    (one, other)
}

/// Looks at the status as fast as it can until told to stop; the fewest inference processes that ran at once, and the
/// most capture processes that did not.
fn watch(socket: &Path, over: &AtomicBool) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    while !over.load(Ordering::SeqCst) {
        if let Ok(Reply::Status { status }) = ask(socket, &Request::Status {}) {
            let running = |role: Role, yes: bool| {
                let of_role = status.workers.iter().filter(|w| w.role == role);
                of_role.filter(|w| (w.state == WorkerState::Running) == yes).count()
            };
            fewest = fewest.min(running(Role::Infer, true));
            most = most.max(running(Role::Capture, false));
        }
    }
    (fewest, most)
}

/// Does something to a service while somebody watches it.
fn watched(service: &Service, act: impl FnOnce()) -> (usize, usize) {
    let (over, socket) = (AtomicBool::new(false), service.socket());
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&socket, &over));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        over.store(true, Ordering::SeqCst);
        let seen = watching.join().unwrap();
        done.map(|()| seen).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// All processes of a role are others than before, and nobody else's is.
fn wait_renewed(service: &Service, before: &BTreeMap<String, u32>, prefix: &str) {
    service.wait_for(&format!("new processes of {prefix}"), |status| {
        let now = pids(status);
        let is_done = |(name, pid): (&String, &u32)| match name.starts_with(prefix) {
            true => now.get(name).is_some_and(|new| new != pid),
            false => now.get(name) == Some(pid),
        };
        (before.iter().all(is_done) && now.len() == before.len()).then_some(())
    });
}

#[test]
fn a_pool_of_one_is_restarted_without_a_moment_in_which_nobody_scores() {
    let service = Service::start(&config(cameras(&["a", "b"]), []));
    service.wait_live(&["a", "b"]);
    let before = pids(&service.status());
    for name in ["infer", "infer:0"] {
        let before = pids(&service.status());
        let (fewest, _) = watched(&service, || {
            service.must(["restart", name]);
            wait_renewed(&service, &before, "infer");
        });
        assert_eq!(fewest, 1, "restart {name}");
    }
    service.wait_windows("a", 4);
    let status = service.status();
    assert_eq!(status.cameras.iter().map(|c| c.dropped).sum::<u64>(), 0);
    assert_eq!(pids(&status).get("capture:a"), before.get("capture:a"));
    assert_eq!(service.must(["postmortem"]).trim(), "no post-mortems");
}

#[test]
fn all_is_restarted_and_neither_scoring_nor_more_than_one_camera_of_three_stops() {
    let mut wide = config(cameras(&["a", "b", "c"]), []);
    wide["inference"]["workers"] = json!(2);
    let service = Service::start(&wide);
    service.wait_live(&["a", "b", "c"]);
    let before = pids(&service.status());
    let (fewest, most) = watched(&service, || {
        service.must(["restart", "all"]);
        wait_renewed(&service, &before, "");
    });
    assert!(fewest >= 2 && most <= 1, "{fewest} inference processes ran, {most} cameras were deaf");
    service.wait_live(&["a", "b", "c"]);
}

#[test]
fn another_model_in_the_same_file_is_taken_up_and_a_broken_one_is_not() {
    let dir = TempDir::new();
    let file = dir.join("model.safetensors");
    let (one, other) = two_models();
    put(&file, &one);
    let mut with = config(cameras(&["a", "b"]), []);
    with["inference"] = json!({"workers": 2, "model": file});
    let service = Service::start(&with);
    service.wait_live(&["a", "b"]);
    let model = || service.status().inference.model;
    let first = model();
    assert_eq!(first.file.as_deref(), file.to_str());
    let wait_model = |id: &str| {
        service.wait_for(&format!("another model than {id}"), |s| {
            let m = &s.inference.model;
            (m.id != id
                && m.next.is_none()
                && s.workers.iter().filter(|w| w.role == Role::Infer).count() == 2)
                .then_some(())
        });
    };

    let before = pids(&service.status());
    put(&file, &other);
    let (fewest, _) = watched(&service, || {
        let changes: Changes = serde_json::from_str(&service.must(["reload", "--json"])).unwrap();
        assert!(changes.model.is_some() && changes.settings.is_empty(), "{changes:?}");
        wait_model(&first.id);
        wait_renewed(&service, &before, "infer");
    });
    assert!(fewest >= 2, "only {fewest} processes scored");
    let second = model();
    assert_ne!(second.id, first.id);

    // Broken: refused before anything changes, by reload and by restart.
    let before = pids(&service.status());
    for bytes in [&b"no weights at all"[..], &one[..one.len() / 2]] {
        put(&file, bytes);
        for command in [&["reload"][..], &["restart", "infer"]] {
            let out = service.cli(command);
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(2), "{command:?}: {said}");
            assert!(said.contains("inference.model") && said.contains("model.safetensors"), "{said}");
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        }
    }
    service.wait_windows("a", 4);
    assert_eq!(pids(&service.status()), before);
    assert_eq!(model().id, second.id);
    assert!(service.log().iter().any(|l| l.contains("ERROR") && l.contains("inference.model")));

    // Whoever has closed his sending side gets his answer too.
    let mut client = UnixStream::connect(service.socket()).unwrap();
    client.write_all(b"{\"request\":\"reload\"}\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("refused") && answer.contains("inference.model"), "{answer}");

    // The first one again, by a restart of the pool; back to it counts as another one.
    put(&file, &one);
    service.must(["restart", "infer"]);
    wait_model(&second.id);
    wait_renewed(&service, &before, "infer");
    assert_eq!(model(), first);
    // And the one inside of the worker.
    service.write_config(&config(cameras(&["a", "b"]), []));
    service.signal(nix::sys::signal::Signal::SIGHUP);
    service.wait_for("the built-in model", |s| s.inference.model.file.is_none().then_some(()));
    service.wait_windows("b", 4);
    assert_eq!(service.status().cameras.iter().map(|c| c.dropped).sum::<u64>(), 0);
}

/// The real worker, until a file is there: then whoever is to score dies at his start.
fn worker_that_fails(dir: &TempDir) -> (PathBuf, PathBuf) {
    let (script, flag) = (dir.join("nursery-worker"), dir.join("fail"));
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = infer ] && [ -e '{}' ]; then echo 'ERROR no such luck'; exit 3; fi\nexec '{}' \"$@\"\n",
        flag.display(),
        binary("nursery-worker").display()
    );
    // Another process writes it, as nobody else may have it open for writing when it is executed.
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", r#"printf %s "$1" > "$0" && chmod 755 "$0""#]).arg(&script).arg(text);
    assert!(wait::output(&mut writer, Duration::from_secs(30)).status.success());
    (script, flag)
}

#[test]
fn a_model_whose_processes_do_not_come_up_is_rolled_back_and_the_old_ones_score_on() {
    let dir = TempDir::new();
    let file = dir.join("model.safetensors");
    let (one, other) = two_models();
    put(&file, &one);
    let (script, flag) = worker_that_fails(&dir);
    let mut with = config(cameras(&["a", "b"]), []);
    with["inference"] = json!({"workers": 2, "model": file});
    let service = Service::start_with_worker(&with, &script);
    service.wait_live(&["a", "b"]);
    let before = pids(&service.status());
    let first = service.status().inference.model;
    put(&file, &other);
    fs::write(&flag, "").unwrap();
    let (fewest, _) = watched(&service, || {
        service.must(["reload"]);
        service.wait_for("the end of it", |s| s.inference.model.refused.is_some().then_some(()));
    });
    assert_eq!(fewest, 2);
    let model = service.status().inference.model;
    assert_eq!((model.id, model.next), (first.id.clone(), None));
    assert!(model.refused.unwrap().contains("exit status 3"));
    let log = service.log();
    let said = log.iter().find(|l| l.contains("ERROR") && l.contains("do not come up")).expect("it is said");
    assert!(said.contains("goes on scoring"), "{said}");
    service.wait_windows("a", 4);
    assert_eq!(pids(&service.status()), before);
    // Once they come up it is taken up.
    fs::remove_file(&flag).unwrap();
    service.must(["reload"]);
    service.wait_for("the other model", |s| {
        (s.inference.model.id != first.id && s.inference.model.refused.is_none()).then_some(())
    });
    wait_renewed(&service, &before, "infer");
}

#[test]
fn what_is_owed_to_a_receiver_that_stays_is_kept_over_reloads_of_all_others() {
    let dir = TempDir::new();
    let crying = dir.join("crying.wav");
    audio::write_wav(&crying, &[audio::room_noise(2.0), audio::cry(4.0), audio::room_noise(6.0)].concat());
    let (stays, comes, goes) = (Receiver::start(), Receiver::start(), Receiver::start());
    let source = json!({"name": "a", "source": format!("file:{}", crying.display())});
    let mut with = config([source, camera("b", "synthetic:noise")], [stays.alert(), goes.alert()]);
    let service = Service::start(&with);
    stays.go_down();
    service.wait_for("an alert that is owed", |s| (s.alerts.pending > 0).then_some(()));
    let capture = pids(&service.status()).get("capture:b").copied();
    let mut changed = stays.alert();
    changed["timeout_s"] = json!(6);
    with["alerts"] = json!([changed, comes.alert()]);
    service.write_config(&with);
    let changes: Changes = serde_json::from_str(&service.must(["reload", "--json"])).unwrap();
    assert_eq!(
        (changes.receivers.added.len(), changes.receivers.removed.len(), changes.receivers.changed.len()),
        (1, 1, 1),
        "{changes:?}"
    );
    let said = service.must(["reload"]);
    assert_eq!(said.trim(), "reloaded: nothing changed");
    stays.come_up();
    stays.wait_for("cry.started", "a", PATIENCE);
    stays.wait_for("cry.ended", "a", PATIENCE);
    assert_eq!(pids(&service.status()).get("capture:b").copied(), capture);
}
