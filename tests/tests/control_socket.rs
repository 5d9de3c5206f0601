//! The control socket and the commands that use it: whoever is rude there delays nobody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    control::{Reply, Request},
    status::Status,
};
use nursery_tests::{
    service::{Service, camera, config, nursery},
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

fn quiet() -> Service {
    Service::start(&config([camera("crib", "synthetic:noise")], []))
}

#[test]
fn the_socket_is_for_owner_and_group_only() {
    let service = quiet();
    let metadata = std::fs::metadata(service.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
}

#[test]
fn rude_clients_delay_neither_status_nor_cameras() {
    let service = quiet();
    service.wait_live(&["crib"]);
    let connect = || {
        let stream = UnixStream::connect(service.socket()).expect("connect");
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    };
    let mut random = fastrand::Rng::with_seed(5);
    // Half open: connected, and never a word, or half a word.
    let mut silent: Vec<UnixStream> = (0..40).map(|_| connect()).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"{\"request\":\"sta").unwrap();
    }
    // One byte at a time, for as long as the test takes.
    let slow = connect();
    let slow = std::thread::spawn(move || {
        for byte in b"{\"request\":\"status\"".iter().cycle().take(100) {
            if (&slow).write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    // Asks for a lot and never reads the answers.
    let deaf: Vec<UnixStream> = (0..10)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"{\"request\":\"logs\",\"name\":null,\"follow\":true}\n").unwrap();
            stream
        })
        .collect();
    for round in 0..20 {
        let mut garbage = connect();
        let bytes: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
        let _ = garbage.write_all(&bytes);
        let _ = garbage.write_all(b"\n");
        let start = Instant::now();
        let reply = service.ask(&Request::Status {}).expect("an answer");
        assert!(matches!(reply, Reply::Status { .. }));
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "status took {:?} in round {round}",
            start.elapsed()
        );
    }
    // Without end and without a newline: cut off, not collected.
    let before = service.process().resident();
    let mut huge = connect();
    let block = vec![b'x'; 1 << 20];
    let cut_off = (0..200).find(|_| huge.write_all(&block).is_err());
    assert!(cut_off.is_some(), "200 MiB of one request were taken in");
    assert!(service.process().resident() < before + (16 << 20));
    service.wait_windows("crib", 6);
    drop((silent, deaf));
    slow.join().unwrap();
    assert_eq!(service.status().workers.iter().map(|w| w.restarts).sum::<u64>(), 0);
}

#[test]
fn every_bad_request_gets_an_error_or_the_door() {
    let service = quiet();
    for request in [
        &b"\n"[..],
        b"{}\n",
        b"null\n",
        b"{\"request\":\"fly\"}\n",
        b"{\"request\":\"status\",\"more\":1}\n",
        b"{\"request\":\"scale\",\"workers\":{\"fixed\":0}}\n",
        b"{\"request\":\"scale\",\"workers\":{\"fixed\":4294967295}}\n",
        b"{\"request\":\"restart\",\"name\":\"../../etc\"}\n",
        b"{\"request\":\"restart\",\"name\":\"\"}\n",
        b"\xff\xfe\x00\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ] {
        let mut stream = UnixStream::connect(service.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        let shown = String::from_utf8_lossy(request);
        stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{shown}: {e}"));
        if !answer.is_empty() {
            let value: Value =
                serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{shown}: {e}: {answer}"));
            assert_eq!(value["reply"], "error", "{shown}: {answer}");
        }
    }
    service.wait_live(&["crib"]);
    assert_eq!(service.status().inference.workers, 1);
}

#[test]
fn status_is_one_json_document_or_a_table_of_100_columns() {
    let service = Service::start(&config(
        [
            camera("crib", "synthetic:noise"),
            camera(&"long-name-".repeat(6), "synthetic:babble"),
            camera("nowhere", "rtsp://127.0.0.1:9/a/very/long/path/that/does/not/matter/at/all?and=more"),
        ],
        [],
    ));
    service.wait_live(&["crib"]);
    service.wait_error("nowhere", &["refused"]);
    let document = service.must(["status", "--json"]);
    let status: Status = serde_json::from_str(&document).expect("the documented shape");
    assert_eq!(status.cameras.len(), 3);
    for key in
        ["\"last_audio_age_s\"", "\"latency_ms\"", "\"failing_since\"", "\"quarantined\"", "\"rss_bytes\""]
    {
        assert!(document.contains(key), "{key}");
    }
    for command in [&["status"][..], &["cameras"], &["workers"]] {
        let table = service.must(command);
        for line in table.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line:?}", line.chars().count());
            assert!(!line.contains('\x1b'), "colours without a terminal: {line:?}");
        }
        assert!(table.contains(if command == ["workers"] { "infer:0" } else { "crib" }), "{table}");
    }
    assert!(service.must(["logs"]).contains("capture:crib"));
    assert!(!service.must(["logs", "sink"]).contains("capture:crib"));
}

#[test]
fn without_a_service_every_command_says_so_in_one_line_and_fails() {
    let dir = TempDir::new();
    let socket = dir.join("nobody.sock");
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["cameras"],
        &["workers"],
        &["scale", "2"],
        &["restart", "sink"],
        &["reload"],
        &["stop"],
        &["logs"],
    ] {
        let out =
            wait::output(nursery(command).arg("--control-socket").arg(&socket), Duration::from_secs(20));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{command:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{command:?}: {said}");
        assert!(said.contains("nobody.sock"), "{command:?}: {said}");
        assert!(out.stdout.is_empty(), "{command:?}: {:?}", String::from_utf8_lossy(&out.stdout));
    }
}

#[test]
fn stop_over_the_socket_ends_the_service_well() {
    let mut service = quiet();
    service.wait_live(&["crib"]);
    let workers = service.process().descendants();
    service.must(["stop"]);
    assert!(service.wait_exit().success());
    nursery_tests::processes::all_gone(&workers, Duration::from_secs(5)).unwrap();
    assert!(!service.socket().exists(), "the socket was left behind");
}

/// `nursery COMMAND` against a service by somebody else.
fn as_other(
    service: &Service,
    uid: u32,
    gid: u32,
    groups: &'static [u32],
    arguments: &[&str],
) -> (bool, String) {
    use std::os::unix::process::CommandExt;
    let mut command = nursery(arguments.iter().copied());
    command.arg("--control-socket").arg(service.socket());
    // SAFETY: three system calls on integers and on a list that lives for ever.
    unsafe {
        command.pre_exec(move || {
            let failed = libc::setgroups(groups.len(), groups.as_ptr()) != 0
                || libc::setgid(gid) != 0
                || libc::setuid(uid) != 0;
            if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let out = wait::output(&mut command, Duration::from_secs(30));
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    (out.status.success(), text)
}

#[test]
fn as_root_a_group_may_do_everything_everybody_only_what_is_allowed_and_changes_are_logged() {
    if !nix::unistd::geteuid().is_root() {
        nursery_tests::skip!("needs root");
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|l| l.split(':').nth(2).is_some_and(|gid| gid != "0")).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    let (name, gid): (String, u32) = (fields[0].into(), fields[2].parse().unwrap());
    let members: &'static [u32] = Box::leak(Box::new([gid]));
    let mut settings = config([camera("crib", "synthetic:silence")], []);
    let service = Service::start(&settings);
    service.wait_live(&["crib"]);
    let (stranger, nobody) = (65_533, 65_534);
    // Nobody else comes near it.
    assert!(!as_other(&service, stranger, nobody, &[], &["status"]).0);
    assert!(!as_other(&service, stranger, nobody, members, &["status"]).0);
    settings["control"] = json!({"group": name, "public_status": true});
    service.write_config(&settings);
    service.must(["reload"]);
    for (gid, groups) in [(gid, &[][..]), (nobody, members)] {
        let (done, text) = as_other(&service, stranger, gid, groups, &["scale", "2"]);
        assert!(done, "{text}");
        assert!(as_other(&service, stranger, gid, groups, &["logs"]).0);
    }
    let asked = format!("scale asked for (uid {stranger}, pid ");
    wait::until("who asked, in the log", PATIENCE, || {
        service.log().iter().any(|line| line.contains(&asked)).then_some(())
    });
    let (done, text) = as_other(&service, stranger, nobody, &[], &["status"]);
    assert!(done && text.contains("crib"), "{text}");
    for command in
        [&["scale", "1"][..], &["restart", "crib"], &["reload"], &["stop"], &["logs"], &["postmortem"]]
    {
        let (done, text) = as_other(&service, stranger, nobody, &[], command);
        assert!(!done && text.contains("not permitted") && text.lines().count() == 1, "{command:?}: {text}");
    }
    wait::until("a refusal in the log", PATIENCE, || {
        service.log().iter().any(|l| l.contains(&format!("refused what uid {stranger}, pid"))).then_some(())
    });
    assert_eq!(service.status().inference.workers, 2);
    // A group that is not there changes nothing.
    settings["control"] = json!({"group": "no-such-group"});
    service.write_config(&settings);
    let out = service.cli(["reload"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && error.contains("control.group: \"no-such-group\" is no group"),
        "{error}"
    );
    assert!(as_other(&service, stranger, gid, &[], &["status"]).0);
    settings["control"] = json!({});
    service.write_config(&settings);
    service.must(["reload"]);
    assert!(!as_other(&service, stranger, gid, &[], &["status"]).0);
}
