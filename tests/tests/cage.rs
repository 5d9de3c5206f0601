//! Least privilege: who a worker is, what it may do, and that people are told what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use nix::sys::signal::Signal;
use nursery_shared::{cage::Guard, status::WorkerStatus};
use nursery_tests::{
    audio,
    http::free_port,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, binary, camera, config, find_camera, find_worker},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::json;

/// One line of a process's /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).expect(name);
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn caged(service: &Service) -> Vec<WorkerStatus> {
    service.wait_for("all workers caged and running", |status| {
        let all = status.workers.iter().all(|w| w.cage.is_some() && w.pid.is_some());
        (all && !status.workers.is_empty()).then(|| status.workers.clone())
    })
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn as_root_every_worker_is_a_user_of_its_own_without_any_rights() {
    if !is_root() {
        nursery_tests::skip!("needs root");
    }
    let cameras = [RtspCamera::start(Codec::L16), RtspCamera::start(Codec::L16)];
    let mut config = config([camera("crib", cameras[0].url()), camera("hall", cameras[1].url())], []);
    config["inference"]["workers"] = json!(2);
    config["web"] = json!({"listen": format!("127.0.0.1:{}", free_port())});
    config["cameras"][0]["pictures"] = json!({});
    let service = Service::start(&config);
    service.wait_live(&["crib", "hall"]);
    service.process_of("light");
    let workers = caged(&service);
    let mut users = std::collections::HashSet::new();
    for worker in &workers {
        let (pid, name) = (worker.pid.unwrap(), &worker.name);
        let show = |key| format!("{key} {}", field(pid, key));
        let keys = ["Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads"];
        eprintln!(
            "FIGURE {name}: {}; {:?} system calls",
            keys.map(show).join(", "),
            worker.cage.as_ref().unwrap().system_calls
        );
        let uid = field(pid, "Uid");
        let ids: Vec<&str> = uid.split(' ').collect();
        assert!(ids[0] != "0" && ids.iter().all(|id| *id == ids[0]), "{name}: {uid}");
        assert_eq!(field(pid, "Gid"), uid, "{name}");
        assert_eq!(field(pid, "Groups"), "", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(pid, set), "0000000000000000", "{name}: {set}");
        }
        assert_eq!(field(pid, "NoNewPrivs"), "1", "{name}");
        assert!(users.insert(uid), "{name} shares its user");
        let proc = PathBuf::from(format!("/proc/{pid}"));
        assert_eq!(fs::metadata(proc.join("environ")).unwrap().uid(), 0, "{name} is dumpable");
        let standing = fs::read_link(proc.join("cwd")).unwrap();
        let own = if worker.name == "sink" { "state/store" } else { "state/empty" };
        assert_eq!(standing, service.dir().join(own).canonicalize().unwrap());
        assert!(own == "state/store" || fs::read_dir(&standing).unwrap().count() == 0);
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        let limit = |what: &str| limits.lines().find(|l| l.starts_with(what)).unwrap().to_owned();
        assert_eq!(limit("Max core file size").split_whitespace().nth(4), Some("0"), "{limits}");
        let descriptors = if worker.name == "web" { "1024" } else { "256" };
        assert_eq!(limit("Max open files").split_whitespace().nth(3), Some(descriptors), "{limits}");
        assert_eq!(limit("Max processes").split_whitespace().nth(2), Some("512"), "{limits}");
        let environment = fs::read_to_string(proc.join("environ")).unwrap();
        for name in ["USER=", "XDG_RUNTIME_DIR="] {
            assert!(!environment.split('\0').any(|v| v.starts_with(name)), "{environment}");
        }
        // Nothing but its own: standard streams, its socket, and what it opened itself.
        let supervisors = fs::read_link(format!("/proc/{}/exe", service.process().pid)).unwrap();
        for entry in fs::read_dir(proc.join("fd")).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            assert!(target != supervisors && !target.ends_with("lock"), "{name} holds {}", target.display());
        }
    }
}

#[test]
fn as_root_nothing_that_the_kernel_offers_is_missing_and_the_store_belongs_to_the_sink_alone() {
    if !is_root() {
        nursery_tests::skip!("needs root");
    }
    let mut config = config([camera("crib", "synthetic:cry")], [json!({"type": "log"})]);
    config["web"] = json!({"listen": format!("127.0.0.1:{}", free_port())});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let workers = caged(&service);
    for worker in &workers {
        let cage = worker.cage.as_ref().unwrap();
        for guard in [
            Guard::OwnUser,
            Guard::NoCapabilities,
            Guard::NoNewPrivileges,
            Guard::NotDumpable,
            Guard::Limits,
            Guard::EmptyDirectory,
        ] {
            assert!(cage.in_force.contains(&guard), "{}: {guard:?}: {cage:?}", worker.name);
        }
        assert_eq!(cage.uid.to_string(), field(worker.pid.unwrap(), "Uid").split(' ').next().unwrap());
    }
    let state = service.dir().join("state");
    let sink = workers.iter().find(|w| w.name == "sink").unwrap().cage.as_ref().unwrap().uid;
    let owner = |name: &str| fs::metadata(state.join(name)).unwrap().uid();
    for name in ["store", "store/nursery.sqlite"] {
        assert_eq!(owner(name), sink, "{name}");
    }
    for name in ["", "lock", "postmortems", "empty"] {
        assert_eq!(owner(name), 0, "{name}");
    }
    // Root reads what the sink wrote, as the sink's user.
    service.must(["events"]);
    service.must(["quarantine"]);
}

#[test]
fn what_is_missing_without_root_is_said() {
    let config = config([camera("crib", "synthetic:cry")], []);
    let service = if is_root() { Service::start_as(&config, 65_534) } else { Service::start(&config) };
    service.wait_live(&["crib"]);
    for worker in caged(&service) {
        let cage = worker.cage.unwrap();
        let missing: BTreeSet<Guard> = cage.missing.iter().map(|m| m.guard).collect();
        let mut expected = BTreeSet::from([Guard::OwnUser, Guard::NotDumpable]);
        if worker.name == "infer:0" {
            expected.insert(Guard::NoNetwork);
        }
        // Somebody may have given this user a part of the tree of groups.
        let besides: Vec<&Guard> = missing.difference(&expected).collect();
        assert!(expected.is_subset(&missing), "{}: {:?}", worker.name, cage.missing);
        assert!(besides.iter().all(|g| **g == Guard::ControlGroup), "{}: {besides:?}", worker.name);
        assert!(cage.in_force.contains(&Guard::NoNewPrivileges));
        assert_eq!(field(worker.pid.unwrap(), "NoNewPrivs"), "1");
        assert_eq!(field(worker.pid.unwrap(), "CapEff"), "0000000000000000");
    }
    let shown = service.must(["workers"]);
    assert!(shown.contains("a user of its own: the service does not run as root"), "{shown}");
    assert!(shown.contains("capture, infer, sink"), "{shown}");
    let json = service.must(["status", "--json"]);
    assert!(json.contains(r#""guard": "own-user""#), "{json}");
}

#[test]
fn users_can_be_named_and_mistakes_are_wrong_configuration() {
    if !is_root() {
        nursery_tests::skip!("needs root");
    }
    let mut config = config([camera("crib", "synthetic:cry")], []);
    config["supervision"] = json!({"uid_base": 500_000, "users": {"infer": "nobody"}});
    let service = Service::start(&config);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    for worker in caged(&service) {
        let uid = worker.cage.unwrap().uid;
        let expected = if worker.name == "infer:0" { nobody..=nobody } else { 500_000..=508_191 };
        assert!(expected.contains(&uid), "{}: {uid}", worker.name);
    }
    for (supervision, word) in [
        (json!({"users": {"sink": "root"}}), "supervision.users.sink"),
        (json!({"users": {"capture": "no-such-user"}}), "no user in /etc/passwd"),
        (json!({"uid_base": 5}), "supervision.uid_base: 5, expected"),
        (json!({"users": {"snik": "nobody"}}), "did you mean \"sink\"?"),
    ] {
        config["supervision"] = supervision;
        service.write_config(&config);
        let out = service.check();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(word) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn as_root_what_only_root_may_reach_is_used_and_seen_by_nobody_else() {
    if !is_root() {
        nursery_tests::skip!("needs root");
    }
    let dir = TempDir::new();
    // As those for temporary files are, and the homes of people: nobody else may enter.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let private = |name: &str| {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        dir.join(name).display().to_string()
    };
    audio::write_wav(&dir.join("hall.wav"), &[500; 8_000]);
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/weights/nursery.safetensors");
    fs::copy(weights, dir.join("model.safetensors")).unwrap();
    // Another process writes it, see post_mortems.rs.
    let worker = dir.join("nursery-worker");
    let mut copy = Command::new("cp");
    let copied = wait::output(copy.arg(binary("nursery-worker")).arg(&worker), PATIENCE);
    assert!(copied.status.success(), "{copied:?}");
    // As it is built under a strict umask.
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o700)).unwrap();
    let mut hall = camera("hall", format!("file:{}", private("hall.wav")));
    hall["loop"] = json!(true);
    hall["realtime"] = json!(true);
    audio::write_wav(&dir.join("late.wav"), &[500; 800_000]);
    let late = private("late.wav");
    let mut away = camera("late", format!("file:{late}"));
    away["realtime"] = json!(true);
    let mut config = config([hall, away], [json!({"type": "log"})]);
    config["inference"]["model"] = json!(private("model.safetensors"));
    let service = Service::start_in(dir, &config, &worker);
    service.wait_live(&["hall"]);
    // Half a second, so that it was begun anew several times, by a process that may not open it any more.
    service.wait_for("three seconds of it scored", |status| {
        (find_camera(status, "hall").windows > 12).then_some(())
    });
    for worker in caged(&service) {
        assert!(worker.cage.unwrap().in_force.contains(&Guard::NoCapabilities), "{}", worker.name);
        let pid = worker.pid.unwrap();
        assert!(field(pid, "Uid") != "0 0 0 0", "{}", worker.name);
        assert_eq!(field(pid, "CapEff"), "0000000000000000", "{}", worker.name);
    }
    assert_eq!(find_worker(&service.status(), "capture:hall").restarts, 0);
    for command in ["events", "quarantine"] {
        service.must([command]);
    }
    // One that is gone, and comes back when the right to look for it is given away.
    let elsewhere = format!("{late}.away");
    fs::rename(&late, &elsewhere).unwrap();
    assert!(service.process_of("capture:late").signal(Signal::SIGKILL));
    service.wait_for("the loss", |status| find_camera(status, "late").last_error.clone());
    fs::rename(&elsewhere, &late).unwrap();
    service.wait_live(&["late"]);
}

#[test]
fn a_program_that_eats_memory_is_its_cameras_event_and_nobody_elses() {
    let mut config = config(
        [camera("hog", "exec:sh -c 'head -c 3000m /dev/zero | tail'"), camera("crib", "synthetic:silence")],
        [],
    );
    config["supervision"] = json!({"worker_memory_mb": 128});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let grouped =
        service.worker("infer:0").cage.is_some_and(|cage| cage.in_force.contains(&Guard::ControlGroup));
    if !grouped {
        nursery_tests::skip!("needs control groups");
    }
    let (infer, crib) = (service.process_of("infer:0"), service.process_of("capture:crib"));
    let begun = Instant::now();
    let said = wait::until("that it was killed for want of memory", wait::PATIENCE, || {
        service.log().into_iter().find(|l| l.contains("128 MiB of memory (supervision.worker_memory_mb)"))
    });
    assert!(said.contains("capture:hog"), "{said}");
    eprintln!("FIGURE killed and told within {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(service.process_of("infer:0"), infer);
    assert_eq!(service.process_of("capture:crib"), crib);
}
