//! Configurations and command lines that cannot be used: one line that names file, key and remedy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::Path, process::Output, time::Duration};

use nursery_tests::{
    service::{Service, camera, config, nursery},
    temp_dir::TempDir,
    wait,
};

const SOON: Duration = Duration::from_secs(30);

fn run(dir: &TempDir, config: &Path) -> std::process::Command {
    let mut command = nursery(["run", "--config"]);
    command.arg(config).arg("--state-dir").arg(dir.join("state"));
    command.arg("--control-socket").arg(dir.join("c.sock"));
    command
}

/// The one line that it said; panics unless it ended with this status and said exactly one line.
fn refusal(out: &Output, status: i32, what: &str) -> String {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(status), "{what}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{what}: more or less than one line: {said:?}");
    assert!(!said.contains("panicked") && !said.contains("hunter2"), "{what}: {said}");
    said
}

#[test]
fn every_bad_configuration_ends_with_status_2_and_one_line_with_file_and_key() {
    let dir = TempDir::new();
    let one = |rest: &str| format!(r#"[{{"name": "crib", "source": "synthetic:noise"{rest}}}]"#);
    let with = |rest: &str| format!(r#"{{"cameras": {}, {rest}}}"#, one(""));
    std::fs::write(dir.join("no-model.bin"), "this is no model").unwrap();
    let cases = [
        (String::new(), "JSON"),
        ("\u{0}\u{1}\u{2}".to_owned(), "JSON"),
        ("[".repeat(100_000), "JSON"),
        ("17".to_owned(), "cameras"),
        ("[]".to_owned(), "cameras"),
        (one(r#", "lop": true"#), "loop"),
        (one(r#", "loop": "yes""#), "loop"),
        (with(r#""detecton": {}"#), "detection"),
        (with(r#""detection": {"treshold": 0.5}"#), "threshold"),
        (with(r#""detection": {"threshold": 7}"#), "detection.threshold"),
        (with(r#""detection": {"threshold": 0.5, "sensitivity": "low"}"#), "detection.sensitivity"),
        (one(r#", "sensitivity": "lwo""#), "did you mean \"low\""),
        (with(r#""inference": {"workers": 0}"#), "inference.workers"),
        (with(r#""inference": {"workers": 1000000}"#), "inference.workers"),
        (with(r#""inference": {"max_batch": 0}"#), "inference.max_batch"),
        (with(r#""inference": {"model": "nowhere.bin"}"#), "inference.model"),
        (with(r#""alerts": [{"type": "webhook"}]"#), "alerts[0].url"),
        (with(r#""alerts": [{"type": "webhook", "url": "not a url"}]"#), "alerts[0].url"),
        (
            with(r#""alerts": [{"type": "webhook", "url": "http://h/", "secret": "env:NO_SUCH_VARIABLE"}]"#),
            "NO_SUCH_VARIABLE",
        ),
        (
            with(r#""alerts": [{"type": "webhook", "url": "http://h/", "secret": "file:nowhere"}]"#),
            "alerts[0].secret",
        ),
        (r#"[{"name": "crib", "source": "file:nowhere.wav"}]"#.to_owned(), "cameras[0].source"),
        (r#"[{"name": "crib", "source": "rtsp://u:hunter2@"}]"#.to_owned(), "cameras[0].source"),
        (r#"[{"name": "crib", "source": "rtsp://u:hunter2@h:99999/x"}]"#.to_owned(), "cameras[0].source"),
        (r#"[{"name": "crib", "source": "https://h/x"}]"#.to_owned(), "cameras[0].source"),
        (r#"[{"name": "crib", "source": "synthetic:opera"}]"#.to_owned(), "cameras[0].source"),
        (r#"[{"name": "../crib", "source": "synthetic:noise"}]"#.to_owned(), "cameras[0].name"),
        (
            r#"[{"name": "a", "source": "synthetic:noise"}, {"name": "a", "source": "synthetic:noise"}]"#
                .to_owned(),
            "cameras[1].name",
        ),
    ];
    let path = dir.join("cameras.json");
    for (text, expected) in cases {
        std::fs::write(&path, &text).unwrap();
        let shown: String = text.chars().take(100).collect();
        let mut check = nursery(["check", "--config"]);
        for command in [check.arg(&path), &mut run(&dir, &path)] {
            let said = refusal(&wait::output(command, SOON), 2, &shown);
            assert!(said.contains("cameras.json") && said.contains(expected), "{shown}: {said}");
        }
    }
    for path in [dir.join("nowhere.json"), dir.path().to_owned()] {
        let said = refusal(&wait::output(&mut run(&dir, &path), SOON), 2, "no file");
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    assert!(
        !dir.join("c.sock").exists() && !dir.join("state").exists(),
        "traces of a service that never ran"
    );
}

#[test]
fn a_model_that_is_none_is_refused_with_its_name() {
    let dir = TempDir::new();
    std::fs::write(dir.join("model.bin"), vec![b'x'; 5000]).unwrap();
    let path = dir.join("cameras.json");
    let text =
        r#"{"cameras": [{"name": "a", "source": "synthetic:noise"}], "inference": {"model": "model.bin"}}"#;
    std::fs::write(&path, text).unwrap();
    let said = refusal(&wait::output(&mut run(&dir, &path), SOON), 2, "no model");
    assert!(said.contains("model.bin"), "{said}");
}

#[test]
fn a_good_configuration_passes_the_check() {
    let dir = TempDir::new();
    let path = dir.join("cameras.json");
    std::fs::write(&path, config([camera("crib", "synthetic:noise")], []).to_string()).unwrap();
    let out = wait::output(nursery(["check", "--config"]).arg(&path), SOON);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let schema = wait::output(&mut nursery(["schema"]), SOON);
    serde_json::from_slice::<serde_json::Value>(&schema.stdout).expect("a JSON schema");
}

#[test]
fn a_second_service_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let service = Service::start(&config([camera("crib", "synthetic:noise")], []));
    service.wait_live(&["crib"]);
    let before = service.status();
    let mut second = nursery(["run", "--config"]);
    second.arg(service.config_path()).arg("--control-socket").arg(service.socket());
    second.arg("--state-dir").arg(service.dir().join("other"));
    let said = refusal(&wait::output(&mut second, SOON), 1, "a second service");
    assert!(said.contains("control.sock"), "{said}");
    assert_eq!(service.status().pid, before.pid);
    service.wait_windows("crib", 4);
}

#[test]
fn places_that_cannot_be_used_are_named_and_left_as_they_are() {
    let dir = TempDir::new();
    let path = dir.join("cameras.json");
    std::fs::write(&path, config([camera("crib", "synthetic:noise")], []).to_string()).unwrap();
    std::fs::write(dir.join("precious"), "precious").unwrap();
    let mut socket = nursery(["run", "--config"]);
    socket.arg(&path).arg("--state-dir").arg(dir.join("state"));
    socket.arg("--control-socket").arg(dir.join("precious"));
    let mut state = nursery(["run", "--config"]);
    state.arg(&path).arg("--state-dir").arg(dir.join("precious"));
    state.arg("--control-socket").arg(dir.join("c.sock"));
    let mut worker = run(&dir, &path);
    worker.arg("--worker-binary").arg(dir.join("precious"));
    let mut other_worker = run(&dir, &path);
    other_worker.args(["--worker-binary", "/bin/echo"]);
    for (command, name) in
        [(socket, "precious"), (state, "precious"), (worker, "precious"), (other_worker, "/bin/echo")]
    {
        let mut command = command;
        let out = wait::output(&mut command, SOON);
        let status = out.status.code().unwrap();
        assert!(status == 1 || status == 2, "{command:?}: {status}");
        let said = refusal(&out, status, &format!("{command:?}"));
        assert!(said.contains(name), "{said}");
    }
    assert_eq!(std::fs::read_to_string(dir.join("precious")).unwrap(), "precious");
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for arguments in [&[][..], &["fly"], &["run"], &["run", "--config"], &["scale"], &["status", "--jsn"]] {
        let out = wait::output(&mut nursery(arguments), SOON);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert!(wait::output(&mut nursery(arguments), SOON).status.success(), "{arguments:?}");
    }
}
