//! Everything is hurt at once while babies cry, and nothing of what could be heard is lost. Hours of it:
//! `cargo xtask chaos --minutes 60`. Before that, hostile workers one by one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use nursery_shared::{
    message::Role,
    postmortem::Summary,
    status::{Status, WorkerState},
};
use nursery_tests::{
    chaos::{self, Impostors, Options},
    processes::Process,
    service::{Service, camera, config, find_camera, find_worker},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::json;

/// `supervision.worker_memory_mb` of these tests.
const MEMORY_MB: u64 = 256;

/// A service of two cameras whose workers can be replaced by hostile ones.
fn service() -> (Impostors, Service) {
    let dir = TempDir::new();
    let impostors = Impostors::new(dir.path());
    let mut config = config([camera("a", "synthetic:noise"), camera("b", "synthetic:noise")], []);
    config["supervision"] = json!({"worker_memory_mb": MEMORY_MB, "healthy_after_s": 0.5});
    let service = Service::start_in(dir, &config, impostors.worker());
    service.wait_live(&["a", "b"]);
    (impostors, service)
}

/// Kills a worker and has a hostile one take its place; what the service is like when that is dead and replaced too.
fn replace(impostors: &Impostors, service: &Service, name: &str, mode: &str) -> Status {
    let before = find_worker(&service.status(), name).clone();
    impostors.order(before.role, mode);
    assert!(service.process_of(name).signal(Signal::SIGKILL));
    let status = service.wait_for(&format!("{name} after {mode}"), |status| {
        let worker = find_worker(status, name);
        let over = worker.restarts >= before.restarts + 2 && worker.state == WorkerState::Running;
        over.then(|| status.clone())
    });
    assert!(impostors.is_taken(before.role));
    service.wait_live(&["a", "b"]);
    status
}

#[test]
fn a_worker_that_eats_memory_dies_of_it_leaves_a_post_mortem_and_nobody_else_suffers() {
    let (impostors, service) = service();
    let pids = |role: Role| -> Vec<_> {
        let status = service.status();
        status.workers.iter().filter(|w| w.role != role).map(|w| (w.name.clone(), w.pid)).collect()
    };
    for (name, role) in [("sink", Role::Sink), ("infer:0", Role::Infer)] {
        let others = pids(role);
        let status = replace(&impostors, &service, name, "eat-memory");
        assert_eq!(find_worker(&status, name).last_exit.as_deref(), Some("signal 6"), "{status:?}");
        assert_eq!(pids(role), others, "somebody else died with it");
        let summary = wait::until("its post-mortem", PATIENCE, || {
            let all: Vec<Summary> = serde_json::from_str(&service.must(["postmortem", "--json"])).unwrap();
            all.into_iter().find(|s| s.worker == name && s.reason.starts_with("signal 6"))
        });
        let shown = service.must(["postmortem", summary.id.as_str()]);
        assert!(shown.contains("memory allocation of") && shown.contains("SIGABRT"), "{shown}");
    }
    assert_eq!(find_camera(&service.status(), "a").dropped, 0);
}

#[test]
fn workers_run_far_below_their_limit_and_the_program_of_a_camera_has_none_of_it() {
    let program = r#"exec:sh -c "while :; do head -c 3200 /dev/urandom; sleep 0.1; done""#;
    let mut config = config([camera("a", "synthetic:noise"), camera("program", program)], []);
    config["supervision"] = json!({"worker_memory_mb": MEMORY_MB});
    let service = Service::start(&config);
    service.wait_live(&["a", "program"]);
    service.wait_windows("a", 8);
    let limit = |process: Process| {
        let text = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("Max data size")).expect("a limit of data");
        line.split_whitespace().next().unwrap().to_owned()
    };
    let ours = limit(Process::of(std::process::id()).unwrap());
    for worker in service.status().workers {
        let process = service.process_of(&worker.name);
        assert_eq!(limit(process), (MEMORY_MB << 20).to_string(), "{}", worker.name);
        let used = process.figure("VmData").unwrap() << 10;
        eprintln!("FIGURE {}: {:.1} MB of data", worker.name, used as f64 / 1e6);
        assert!(used * 4 < MEMORY_MB << 20, "{} uses {used}", worker.name);
        for program in process.descendants() {
            assert_eq!(limit(program), ours, "{:?}", String::from_utf8_lossy(&program.arguments()));
        }
    }
    assert_eq!(limit(service.process()), ours);
}

#[test]
fn broken_frames_and_lies_cost_their_sender_its_life_and_nobody_elses() {
    let (impostors, service) = service();
    for (mode, why) in [
        ("cut-frame", "closed its socket"),
        ("garbage-frame", "bad frame"),
        ("endless-frame", "bad frame"),
        ("lie", "not for role"),
    ] {
        for name in ["capture:a", "infer:0", "sink"] {
            let restarts = |status: &Status| -> u64 { status.workers.iter().map(|w| w.restarts).sum() };
            let before = restarts(&service.status());
            let status = replace(&impostors, &service, name, mode);
            let exit = find_worker(&status, name).last_exit.clone().unwrap_or_default();
            let said = exit.contains(why) || (mode == "lie" && exit.contains("never sent"));
            assert!(exit.starts_with("killed: ") && said, "{mode} of {name}: {exit}");
            assert_eq!(restarts(&service.status()), before + 2, "{mode} of {name} cost somebody else");
        }
    }
}

#[test]
fn under_violence_every_cry_that_could_be_heard_is_announced_and_the_supervisor_does_not_grow() {
    let report = chaos::run(&Options {
        lasting: Duration::from_secs(80),
        cameras: 6,
        // `VIOLENCE_SEED=N` repeats another run.
        seed: std::env::var("VIOLENCE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1),
        disaster_every: Duration::from_secs(14),
        standstill: None,
        reloads: 8,
        worker_memory_mb: MEMORY_MB,
    });
    println!("{report}");
    for note in &report.notes {
        nursery_tests::say_skipped("a part of the violence", note);
    }
    assert!(report.violations.is_empty(), "{report}");
    // It was violent, and there was something to be lost.
    assert!(report.faults.len() >= 15, "{report}");
    let ledger = &report.ledger;
    assert!(ledger.owed >= 6 && ledger.alerts_received == ledger.alerts_expected, "{report}");
    assert!(!report.supervisors.is_empty(), "{report}");
}
