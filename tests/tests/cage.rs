//! Least privilege: who a worker is, what it may do, and that people are told what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use nursery_shared::{cage::Guard, status::WorkerStatus};
use nursery_tests::{
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
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
    let service = Service::start(&config);
    service.wait_live(&["crib", "hall"]);
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
        assert_eq!(standing, service.dir().join("state/empty").canonicalize().unwrap());
        assert_eq!(fs::read_dir(&standing).unwrap().count(), 0);
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        let limit = |what: &str| limits.lines().find(|l| l.starts_with(what)).unwrap().to_owned();
        assert_eq!(limit("Max core file size").split_whitespace().nth(4), Some("0"), "{limits}");
        assert_eq!(limit("Max open files").split_whitespace().nth(3), Some("256"), "{limits}");
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
    let service = Service::start(&config([camera("crib", "synthetic:cry")], [json!({"type": "log"})]));
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
    assert_eq!(owner("nursery.sqlite"), sink);
    for name in ["", "lock", "postmortems", "empty"] {
        assert_eq!(owner(name), 0, "{name}");
    }
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o1770);
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
        let missing: Vec<Guard> = cage.missing.iter().map(|m| m.guard).collect();
        assert_eq!(missing[..], [Guard::OwnUser, Guard::NotDumpable], "{}: {:?}", worker.name, cage.missing);
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
