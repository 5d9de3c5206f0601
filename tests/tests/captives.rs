//! A capture process that somebody took over: whatever it tries fails, is seen, and costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use nursery_shared::{
    cage::Guard,
    postmortem::{PostMortem, Summary},
};
use nursery_tests::{
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, binary, camera, config, find_worker},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::json;

/// A worker binary that is the real one but for capture processes.
fn worker(dir: &TempDir, attempt: &str) -> PathBuf {
    let path = dir.join("nursery-worker");
    let (real, captive) = (binary("nursery-worker"), binary("captive"));
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in capture) exec '{}' {attempt};; *) exec '{}' \"$@\";; esac\n",
        captive.display(),
        real.display()
    );
    // Another process writes it, see post_mortems.rs.
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", r#"printf %s "$1" > "$0" && chmod 755 "$0""#]).arg(&path).arg(script);
    assert!(wait::output(&mut writer, Duration::from_secs(30)).status.success());
    path
}

/// What is to become of an attempt.
enum End<'a> {
    /// The process ends by the signal, its post-mortem names the call.
    Killed(&'a str),
    /// The call fails with words like these, and the process goes on.
    Refused(&'a str),
    /// The process ends by itself, for want of memory.
    Starved,
}

/// Lets a caged capture process of this camera try something, as root's child and as an ordinary user's.
fn attempt(source: &str, attempt: &str, end: &End) {
    let users: &[Option<u32>] =
        if nix::unistd::geteuid().is_root() { &[None, Some(65_534)] } else { &[None] };
    for user in users {
        let dir = TempDir::new();
        let worker = worker(&dir, attempt);
        let mut config = config([camera("crib", source)], [json!({"type": "log"})]);
        config["supervision"] = json!({"healthy_after_s": 60});
        let service = Service::start_worker_as(&config, &worker, *user);
        see(&service, attempt, end);
    }
}

fn see(service: &Service, attempt: &str, end: &End) {
    let running = |name: &str| service.process_of(name);
    let (infer, sink) = (running("infer:0"), running("sink"));
    let says = |words: &[&str]| service.log().into_iter().find(|l| words.iter().all(|w| l.contains(w)));
    match end {
        End::Refused(why) => {
            let line = wait::until("the refusal in the log", PATIENCE, || says(&["captive: refused"]));
            assert!(line.contains(why), "{attempt}: {line}");
        }
        End::Killed(call) => {
            let found = post_mortem(service);
            assert_eq!(found.signal_name.as_deref(), Some("SIGSYS"), "{attempt}: {found:?}");
            let note = format!("it made the system call {call} (number");
            assert!(found.notes.iter().any(|n| n.starts_with(&note)), "{attempt}: {found:?}");
            assert!(says(&["forbidden system call", call]).is_some(), "{attempt}");
        }
        End::Starved => {
            let found = post_mortem(service);
            assert_eq!(found.signal_name.as_deref(), Some("SIGABRT"), "{attempt}: {found:?}");
            assert!(found.resources.peak_rss_bytes.unwrap() < 1 << 30, "{found:?}");
        }
    }
    assert!(says(&["SUCCEEDED"]).is_none(), "{attempt}: {:?}", says(&["SUCCEEDED"]));
    // The others are as they were, and the service answers.
    let asked = Instant::now();
    let status = service.status();
    assert!(asked.elapsed() < Duration::from_secs(2), "{attempt}: {:?}", asked.elapsed());
    assert_eq!(find_worker(&status, "infer:0").pid, Some(infer.pid), "{attempt}");
    assert_eq!(find_worker(&status, "sink").pid, Some(sink.pid), "{attempt}");
}

fn post_mortem(service: &Service) -> PostMortem {
    let summary = wait::until("a post-mortem", PATIENCE, || {
        let list: Vec<Summary> = serde_json::from_str(&service.must(["postmortem", "--json"])).unwrap();
        list.into_iter().find(|s| s.worker == "capture:crib")
    });
    serde_json::from_str(&service.must(["postmortem", summary.id.as_str(), "--json"])).unwrap()
}

/// A camera that is given by its address: no file may be opened at all.
const ADDRESS: &str = "rtsp://127.0.0.1:1/x";
/// One that is given by name: those of the resolver may, and Landlock sees to the others.
const NAME: &str = "rtsp://localhost:1/x";

fn has(guard: Guard) -> bool {
    let kernel = nursery_worker::cage::kernel();
    match guard {
        Guard::SystemCalls => kernel.seccomp,
        Guard::Ports => kernel.landlock.is_some_and(|v| v >= nursery_shared::cage::LANDLOCK_PORTS),
        _ => kernel.landlock.is_some(),
    }
}

#[test]
fn files_of_others_stay_closed() {
    if !has(Guard::Files) || !has(Guard::SystemCalls) {
        nursery_tests::skip!("needs Landlock and seccomp");
    }
    let others = TempDir::new();
    let clip = others.join("clip-of-another-camera.wav");
    std::fs::write(&clip, "x").unwrap();
    // Readable for everybody: it is not the file's mode that keeps it.
    std::fs::set_permissions(&clip, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let clip = clip.display();
    attempt(ADDRESS, &format!("read {clip}"), &End::Killed("openat"));
    attempt(NAME, &format!("read {clip}"), &End::Refused("Permission denied"));
    attempt(NAME, "read /etc/passwd", &End::Refused("Permission denied"));
    attempt(NAME, "write /tmp/nursery-captive", &End::Refused("Permission denied"));
    // Its cage names the directory of the service only by being in it.
    attempt(NAME, "read ../../cameras.json", &End::Refused("Permission denied"));
}

#[test]
fn other_ports_stay_closed() {
    if !has(Guard::Ports) {
        nursery_tests::skip!("needs Landlock with ports");
    }
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    attempt(ADDRESS, &format!("connect {address}"), &End::Refused("Permission denied"));
    let camera = RtspCamera::start(Codec::L16);
    attempt(&camera.url(), &format!("connect {address}"), &End::Refused("Permission denied"));
    attempt("synthetic:silence", &format!("connect {address}"), &End::Killed("socket"));
}

#[test]
fn no_program_no_process_and_no_other_process_is_within_reach() {
    if !has(Guard::SystemCalls) {
        nursery_tests::skip!("needs seccomp");
    }
    for (mode, call) in [
        ("exec", "execve"),
        ("ptrace", "ptrace"),
        ("signal", "kill"),
        ("fork", "clone"),
        ("program", "mprotect"),
    ] {
        attempt(ADDRESS, mode, &End::Killed(call));
    }
}

#[test]
fn memory_and_threads_are_bounded_and_a_flood_waits_its_turn() {
    if !has(Guard::SystemCalls) {
        nursery_tests::skip!("needs seccomp");
    }
    attempt(ADDRESS, "mapping", &End::Killed("mmap"));
    attempt(ADDRESS, "memory", &End::Starved);
    attempt(ADDRESS, "flood", &End::Refused("in their turn"));
    if nix::unistd::geteuid().is_root() {
        let dir = TempDir::new();
        let worker = worker(&dir, "threads");
        let service = Service::start_with_worker(&config([camera("crib", ADDRESS)], []), &worker);
        see(&service, "threads", &End::Refused("threads)"));
    }
}
