//! What is told of workers that hang or die: who, why, where they were, what they owed, what they said last.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_shared::{
    message::Role,
    postmortem::{Finding, PostMortem, Summary},
    timestamp,
};
use nursery_tests::{
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, binary, camera, config, find_worker, nursery},
    skip,
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};

/// From the decision that a worker hangs to its end; the examination has 600 ms of it.
const DECISION_TO_DEATH: Duration = Duration::from_secs(1);

/// A worker binary that is the real one but for one role or command.
fn worker_with(dir: &TempDir, what: &str, instead: &str) -> PathBuf {
    let path = dir.join("nursery-worker");
    let real = binary("nursery-worker");
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in {what}) exec {instead};; *) exec '{}' \"$@\";; esac\n",
        real.display()
    );
    // Another process writes it: a descriptor of ours that is open for writing could be inherited by what another
    // test is just starting, and the script would be busy then.
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", r#"printf %s "$1" > "$0" && chmod 755 "$0""#]).arg(&path).arg(script);
    assert!(wait::output(&mut writer, Duration::from_secs(30)).status.success());
    path
}

fn list(service: &Service) -> Vec<Summary> {
    serde_json::from_str(&service.must(["postmortem", "--json"])).unwrap()
}

/// Waits for a worker's next post-mortem after these; with it, what people see of it.
fn wait_for(service: &Service, worker: &str, known: &[Summary]) -> (PostMortem, String) {
    let what = format!("a post-mortem of {worker}");
    let summary = wait::until(&what, PATIENCE, || {
        list(service).into_iter().find(|s| s.worker == worker && !known.contains(s))
    });
    let shown = service.must(["postmortem", summary.id.as_str()]);
    let json = service.must(["postmortem", summary.id.as_str(), "--json"]);
    let post_mortem: PostMortem = serde_json::from_str(&json).unwrap();
    assert_eq!(post_mortem.id, summary.id);
    let table = service.must(["postmortem"]);
    assert!(table.lines().any(|l| l.starts_with(&summary.id) && l.contains(worker)), "{table}");
    // The line in the log of the restart names it.
    wait::until("the restart in the log", PATIENCE, || {
        let named =
            |l: &String| l.contains("restart in") && l.contains(&format!("postmortem {}", summary.id));
        service.log().iter().any(named).then_some(())
    });
    (post_mortem, shown)
}

fn us_of(line: &str) -> i64 {
    timestamp::parse_since(line.split(' ').next().unwrap()).unwrap()
}

/// Time from the first line with `from` in it to the first later one with `to`.
fn between(service: &Service, from: &str, to: &str) -> Duration {
    let log = service.log();
    let first =
        log.iter().position(|l| l.contains(from)).unwrap_or_else(|| panic!("no {from:?} in {log:#?}"));
    let second = log[first..].iter().find(|l| l.contains(to)).expect("the later line");
    Duration::from_micros((us_of(second) - us_of(&log[first])) as u64)
}

#[test]
fn a_worker_that_spins_is_shown_with_the_name_of_the_function_it_spins_in() {
    let dir = TempDir::new();
    let worker = worker_with(&dir, "capture", &format!("'{}'", binary("spinning-worker").display()));
    let service = Service::start_with_worker(&config([camera("crib", "synthetic:silence")], []), &worker);
    let (p, shown) = wait_for(&service, "capture:crib", &[]);
    assert_eq!(
        (p.role, p.camera.as_deref(), p.signal_name.as_deref()),
        (Role::Capture, Some("crib"), Some("SIGKILL"))
    );
    assert_eq!(p.reason, "killed: hung: no progress");
    assert!(shown.contains("spin_for_ever") && shown.contains("spinning-worker.rs:"), "{shown}");
    // Running ones come first.
    let spinning = &p.threads[0];
    assert_eq!(spinning.state, "R", "{shown}");
    let names = |stack: &[nursery_shared::postmortem::Frame]| -> Vec<String> {
        stack.iter().filter_map(|f| f.function.clone()).collect()
    };
    // The innermost one, or the one just above what was inlined into it.
    assert!(names(&spinning.stack).iter().take(3).any(|n| n.contains("spin_for_ever")), "{shown}");
    assert!(names(&spinning.stack).iter().any(|n| n == "main" || n.ends_with("::main")), "{shown}");
    assert_eq!(spinning.stack_ends, None);
    // One that waits in the C library, which has no frame pointers, is followed to where it began.
    let patient = p.threads.iter().find(|t| t.name == "patient").expect(&shown);
    let call = patient.system_call.as_deref();
    assert!(matches!(call, Some("read" | "recvfrom")), "{call:?}");
    assert!(names(&patient.stack).iter().any(|n| n.contains("wait_for_ever")), "{shown}");
    assert!(p.log.iter().any(|l| l.ends_with("INFO the last words before the loop")), "{:?}", p.log);
    assert!((5.0..9.0).contains(&p.silent_s), "{}", p.silent_s);
    let r = p.resources;
    assert!(
        r.cpu_s.unwrap() > 1.0 && r.rss_bytes.unwrap() > 500_000 && r.peak_rss_bytes >= r.rss_bytes,
        "{r:?}"
    );
    assert_eq!((r.threads, r.descriptors.is_some_and(|n| n >= 4)), (Some(2), true));
    let took = between(&service, "looked into", "restart in");
    eprintln!(
        "FIGURE spinning worker: decision to death {took:?}, {} bytes of JSON",
        p.to_bounded_json().len()
    );
    assert!(took < DECISION_TO_DEATH, "{took:?}");
}

#[test]
fn a_stopped_inference_process_is_shown_as_stopped_with_the_window_it_owes() {
    let crib = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    service.wait_for("scored windows", |s| (find_worker(s, "infer:0").progress > 0).then_some(()));
    let old = service.process_of("infer:0");
    assert!(old.signal(Signal::SIGSTOP));
    let (p, shown) = wait_for(&service, "infer:0", &[]);
    assert_eq!(p.reason, "killed: hung: no scores for the batch in hand");
    assert_eq!((p.pid, p.owed.len(), p.owed[0].camera.as_str()), (Some(old.pid), 1, "crib"));
    assert!(p.threads.iter().all(|t| t.state == "T"), "{shown}");
    assert!(p.progress > 0 && p.silent_s >= 4.0, "{shown}");
    let all: Vec<_> = p.threads.iter().flat_map(|t| &t.stack).collect();
    let named = all.iter().filter(|f| f.function.is_some()).count();
    assert!(named * 2 > all.len() && shown.contains("nursery_worker::"), "{named} of {}: {shown}", all.len());
    let took = between(&service, "looked into", "restart in");
    eprintln!(
        "FIGURE stopped infer: decision to death {took:?}, {} bytes of JSON",
        p.to_bounded_json().len()
    );
    assert!(took < DECISION_TO_DEATH, "{took:?}");
    service.wait_replaced("infer:0", old);
    // As files too, for when nobody runs.
    let mut service = service;
    assert!(service.stop().status.success());
    let state = service.dir().join("state");
    let mut command = nursery(["postmortem", p.id.as_str(), "--state-dir"]);
    let out = wait::output(command.arg(&state), Duration::from_secs(30));
    assert_eq!(String::from_utf8_lossy(&out.stdout), shown);
    let files = std::fs::read_dir(state.join("postmortems")).unwrap().count();
    assert_eq!(files, 1, "the stop left none");
}

#[test]
fn workers_that_die_by_themselves_leave_signal_usage_and_last_words() {
    let crib = RtspCamera::start(Codec::L16);
    let service = Service::start(&config([camera("crib", crib.url())], []));
    service.wait_live(&["crib"]);
    let old = service.process_of("capture:crib");
    // Rust's handler takes the first one for an accident that repeats itself if it was meant.
    wait::until("death by SIGSEGV", PATIENCE, || (!old.signal(Signal::SIGSEGV)).then_some(()));
    let (p, shown) = wait_for(&service, "capture:crib", &[]);
    assert_eq!(
        (p.signal, p.signal_name.as_deref(), p.reason.as_str()),
        (Some(11), Some("SIGSEGV"), "signal 11")
    );
    assert!(shown.contains("signal 11 (SIGSEGV)") && !p.log.is_empty(), "{shown}");
    assert!(p.resources.peak_rss_bytes.unwrap() > 1_000_000 && p.resources.cpu_s.is_some(), "{shown}");
    assert!(p.threads.is_empty() && p.uptime_s > 0.0);
    service.wait_replaced("capture:crib", old);

    let sink = service.process_of("sink");
    assert!(sink.signal(Signal::SIGKILL));
    let (p, _) = wait_for(&service, "sink", &[]);
    assert_eq!((p.signal_name.as_deref(), p.role, p.camera), (Some("SIGKILL"), Role::Sink, None));
    service.wait_replaced("sink", sink);
    let log = service.log();
    assert!(!log.iter().any(|l| l.contains("looked into")), "nobody hung: {log:#?}");
}

#[test]
fn what_was_asked_for_leaves_no_post_mortem() {
    let service = Service::start(&config([camera("crib", "synthetic:silence")], []));
    service.wait_live(&["crib"]);
    for name in ["capture:crib", "infer:0", "sink"] {
        let old = service.process_of(name);
        service.must(["restart", name]);
        service.wait_replaced(name, old);
    }
    service.must(["scale", "2"]);
    service.wait_for("two processes", |s| (s.workers.len() == 4).then_some(()));
    service.must(["scale", "1"]);
    service.wait_for("one process", |s| (s.workers.len() == 3).then_some(()));
    assert_eq!(list(&service), []);
    assert_eq!(service.must(["postmortem"]).trim(), "no post-mortems");
    let out = service.cli(["postmortem", "20261121-110437-infer-3fa9"]);
    assert_eq!(out.status.code(), Some(1));
    let out = service.cli(["postmortem", "../lock"]);
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn an_examiner_that_hangs_delays_the_kill_by_less_than_a_second_and_is_gone_itself() {
    let dir = TempDir::new();
    let worker = worker_with(&dir, "examine", "sleep 600");
    let service = Service::start_with_worker(&config([camera("crib", "synthetic:silence")], []), &worker);
    service.wait_live(&["crib"]);
    let old = service.process_of("capture:crib");
    assert!(old.signal(Signal::SIGSTOP));
    let (p, shown) = wait_for(&service, "capture:crib", &[]);
    assert!(p.notes.iter().any(|n| n.contains("looking took too long")), "{shown}");
    assert!(p.resources.cpu_s.is_some() && p.threads.is_empty());
    let took = between(&service, "looked into", "restart in");
    eprintln!("FIGURE examiner that hangs: decision to death {took:?}");
    assert!(took < DECISION_TO_DEATH, "{took:?}");
    service.wait_replaced("capture:crib", old);
    let sleeps = || {
        let all = service.process().descendants();
        all.into_iter().filter(|p| String::from_utf8_lossy(&p.arguments()).starts_with("sleep")).count()
    };
    wait::until("the end of the examiner", PATIENCE, || (sleeps() == 0).then_some(()));
}

#[test]
fn many_that_hang_at_once_are_all_killed_within_a_second_and_some_are_looked_into() {
    let names: Vec<String> = (0..6).map(|n| format!("c{n}")).collect();
    let cameras = names.iter().map(|name| camera(name, "synthetic:silence"));
    let service = Service::start(&config(cameras, []));
    service.wait_live(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let olds: Vec<_> =
        names.iter().map(|name| (name, service.process_of(&format!("capture:{name}")))).collect();
    assert!(olds.iter().all(|(_, old)| old.signal(Signal::SIGSTOP)));
    for (name, old) in olds {
        service.wait_replaced(&format!("capture:{name}"), old);
        let took = between(&service, &format!("capture:{name}: hung"), &format!("capture:{name}: died"));
        assert!(took < DECISION_TO_DEATH, "{name}: {took:?}");
    }
    let all = list(&service);
    assert_eq!(all.len(), names.len());
    let looked_into =
        all.iter().filter(|s| service.must(["postmortem", s.id.as_str()]).contains(" threads\n"));
    assert!(looked_into.count() >= 1);
}

#[test]
fn where_nothing_can_be_written_post_mortems_are_kept_in_memory() {
    let service = Service::start(&config([camera("crib", "synthetic:silence")], []));
    service.wait_live(&["crib"]);
    // Not even root makes a directory where a file is.
    std::fs::remove_dir_all(service.dir().join("state/postmortems")).unwrap();
    std::fs::write(service.dir().join("state/postmortems"), "in the way").unwrap();
    let old = service.process_of("sink");
    assert!(old.signal(Signal::SIGKILL));
    let (p, _) = wait_for(&service, "sink", &[]);
    assert_eq!(p.signal_name.as_deref(), Some("SIGKILL"));
    service.wait_replaced("sink", old);
    wait::until("a line about it", PATIENCE, || {
        service.log().iter().any(|l| l.contains("kept in memory only")).then_some(())
    });
}

fn examine_as(user: Option<u32>, program: &Path, pid: u32) -> Vec<Finding> {
    let mut command = Command::new(program);
    command.args(["examine", &pid.to_string()]).current_dir("/");
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    let out = wait::output(&mut command, Duration::from_secs(30));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn an_examiner_that_may_not_look_says_so_and_tells_what_it_may() {
    if !nix::unistd::geteuid().is_root() {
        skip!("only root can become somebody else");
    }
    let dir = TempDir::new();
    let program = dir.join("worker");
    let mut copy = Command::new("cp");
    copy.arg(binary("nursery-worker")).arg(&program);
    let copied = wait::output(&mut copy, Duration::from_secs(30));
    assert!(copied.status.success(), "{copied:?}");
    let findings = examine_as(Some(65_534), &program, std::process::id());
    let threads = findings.iter().filter(|f| matches!(f, Finding::Thread(_))).count();
    assert!(threads >= 1, "{findings:?}");
    let refused = |f: &Finding| match f {
        Finding::Note(text) => text.contains("denied") || text.contains("permi"),
        _ => false,
    };
    assert!(findings.iter().any(refused), "{findings:?}");
    assert!(!findings.iter().any(|f| matches!(f, Finding::Stack { stack, .. } if !stack.is_empty())));
    // And on somebody healthy it changes nothing: this test goes on.
    let findings = examine_as(None, &binary("nursery-worker"), std::process::id());
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Stack { stack, .. } if !stack.is_empty())),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Resources(r) if r.rss_bytes.is_some())),
        "{findings:?}"
    );
}
