//! The command line on its own: exit statuses, single-line messages, and what becomes of a service that answers
//! badly. A service that works is tested in the `tests` crate.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nursery_shared::{
    VERSION,
    control::{MAX_REPLY, Reply, Request},
    message::{PROTOCOL, Role},
    postmortem::PostMortem,
    status::{
        AlertStatus, AutoStatus, CameraState, CameraStatus, InferenceStatus, Latency, ModelStatus, Status,
        WorkerState, WorkerStatus,
    },
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const COLUMNS: usize = 100;

/// Removed, with everything in it, at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let dir = nix::unistd::mkdtemp(&std::env::temp_dir().join("nursery-cli-XXXXXX")).unwrap();
        // As root, workers are other users, who must get to their program.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        // It may hold passwords.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// An executable shell script. Another process writes it: a descriptor of ours that is open for writing could
    /// be inherited by what another test is just starting, and the script would be "busy" then.
    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = Command::new("/bin/sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
        assert!(wait(&mut writer).success());
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nursery<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nursery"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {SOON:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs to the end; killed, and the test failed, when that takes too long.
fn output(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let reader = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).map(|_| bytes).unwrap()
        })
    };
    let stdout = reader(Box::new(child.stdout.take().unwrap()));
    let stderr = reader(Box::new(child.stderr.take().unwrap()));
    let status = wait(&mut child);
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it printed; panics unless it ended with status 0 and said nothing on standard error.
fn printed(command: &mut Command) -> String {
    let out = output(command);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()), "{command:?}");
    text(&out.stdout)
}

/// The one line that it said; panics unless it ended with this status, said exactly that and printed nothing.
fn refusal(command: &mut Command, status: i32) -> String {
    let out = output(command);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{command:?}: {said}");
    assert!(said.starts_with("nursery: ") && said.ends_with('\n'), "{command:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    assert!(out.stdout.is_empty(), "{command:?}: {}", text(&out.stdout));
    said
}

/// Every command that talks to the service.
const CLIENTS: &[&[&str]] = &[
    &["status"],
    &["status", "--json"],
    &["status", "--watch"],
    &["cameras"],
    &["workers", "--json"],
    &["scale", "2"],
    &["scale", "auto"],
    &["restart", "sink"],
    &["reload"],
    &["stop"],
    &["logs"],
    &["logs", "crib", "--follow"],
    &["events"],
    &["export", "--since", "1h"],
];

/// Something that listens where a service would; `answer` gets each connection and its request.
struct Listener {
    socket: PathBuf,
}

impl Listener {
    fn start(socket: PathBuf, answer: impl Fn(Request, &UnixStream) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = Arc::new(answer);
        // Ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    if !line.is_empty() {
                        answer(serde_json::from_str(&line).expect("a request"), &stream);
                    }
                });
            }
        });
        Self { socket }
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = nursery(arguments);
        command.arg("--control-socket").arg(&self.socket);
        command
    }
}

fn send(mut stream: &UnixStream, reply: &Reply) {
    let mut line = serde_json::to_vec(reply).unwrap();
    line.push(b'\n');
    // The client may have gone; its own test says whether that is right.
    let _ = stream.write_all(&line);
}

fn send_status(stream: &UnixStream, status: &Status) {
    send(stream, &Reply::Status { status: Box::new(status.clone()) });
}

/// As wide and as hostile as a status can be.
fn nasty() -> Status {
    let camera = |name: String, error: &str| CameraStatus {
        name,
        state: CameraState::Connecting,
        level_dbfs: Some(-120.0),
        score: Some(1.0),
        windows: u64::MAX,
        dropped: u64::MAX,
        last_audio_age_s: Some(1e9),
        last_error: Some(error.to_owned()),
        pictures: false,
        motion: None,
    };
    let worker = |name: String, role| WorkerStatus {
        name,
        role,
        pid: Some(u32::MAX),
        state: WorkerState::Starting,
        uptime_s: 1e9,
        restarts: u64::MAX,
        last_exit: Some("killed: \u{1b}[31m\r\n".repeat(100)),
        progress: u64::MAX,
        progress_age_s: None,
        rss_bytes: u64::MAX,
        cpu_s: 1e12,
        cage: None,
    };
    Status {
        version: VERSION.into(),
        uptime_s: 1e9,
        pid: u32::MAX,
        workers: vec![
            worker(format!("capture:{}", "w".repeat(64)), Role::Capture),
            worker("infer:63".into(), Role::Infer),
        ],
        cameras: vec![
            camera("crib".into(), "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}1mred"),
            camera("n".repeat(64), &"wörter ".repeat(200)),
            camera("long".into(), &"ö".repeat(5000)),
        ],
        inference: InferenceStatus {
            workers: 64,
            model: ModelStatus {
                id: "m".repeat(300),
                refused: Some("why ".repeat(300)),
                ..ModelStatus::default()
            },
            auto: Some(AutoStatus { min: 1, max: 64, last_change: None }),
            queued: u64::MAX,
            in_flight: u64::MAX,
            scored: u64::MAX,
            quarantined: u64::MAX,
            latency_ms: Latency { p50: 1e9, p99: 1e9 },
        },
        alerts: AlertStatus {
            pending: u64::MAX,
            delivered: u64::MAX,
            failing_since: Some("2026-01-31T02:03:04.500Z".into()),
        },
    }
}

const INFO_SCRIPT_MODEL: &str = r#""model":{"id":"test-model","window":4000,"hop":4000,"lookahead":4000,"frame_step":800,"state_bytes":25000}"#;

fn info(version: &str) -> String {
    format!(r#"echo '{{"version":"{version}","protocol":{PROTOCOL},{INFO_SCRIPT_MODEL}}}'"#)
}

#[test]
fn wrong_usage_ends_with_status_2_and_prints_nothing() {
    for arguments in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "--config"],
        &["run", "--config", "c.json", "--inference-workers", "many"],
        &["check"],
        &["scale"],
        &["scale", "0"],
        &["scale", "65"],
        &["scale", "-1"],
        &["restart"],
        &["status", "--jsn"],
        &["status", "--watch", "--json"],
        &["status", "extra"],
        &["logs", "a", "b"],
        &["demo", "fast"],
    ] {
        let out = output(&mut nursery(arguments));
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {}", text(&out.stderr));
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [&["--help"][..], &["help"], &["run", "--help"], &["logs", "-h"], &["help", "events"]] {
        assert!(printed(&mut nursery(arguments)).contains("Usage: nursery"), "{arguments:?}");
    }
    assert_eq!(printed(&mut nursery(["--version"])), format!("nursery {VERSION}\n"));
}

#[test]
fn a_configuration_that_cannot_be_used_is_one_line_with_file_and_key() {
    let dir = TempDir::new();
    for (body, expected) in [
        ("", "not valid JSON"),
        ("{}", "cameras"),
        (r#"[{"name": "crib", "source": "synthetic:cry", "lop": 1}]"#, "did you mean \"loop\"?"),
        (r#"[{"name": "crib", "source": "rtsp://u:hunter2@h:99999/"}]"#, "cameras[0].source"),
        (r#"[{"name": "two\nlines", "source": "synthetic:cry"}]"#, "cameras[0].name"),
        (
            r#"{"cameras": [{"name": "crib", "source": "synthetic:cry"}], "detection": {"threshold": 2}}"#,
            "detection.threshold",
        ),
    ] {
        let path = dir.write("cameras.json", body);
        for command in ["check", "run"] {
            let said = refusal(nursery([command, "--config"]).arg(&path), 2);
            assert!(said.contains("cameras.json: ") && said.contains(expected), "{body}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    assert!(refusal(nursery(["run", "--config"]).arg(dir.join("nowhere.json")), 2).contains("nowhere.json"));
}

#[test]
fn a_model_or_worker_that_is_not_there_is_named() {
    let dir = TempDir::new();
    let config = dir.write("cameras.json", r#"[{"name": "crib", "source": "synthetic:cry"}]"#);
    let run = || {
        let mut command = nursery(["run", "--config"]);
        command.arg(&config).arg("--state-dir").arg(dir.join("state"));
        command.arg("--control-socket").arg(dir.join("sock"));
        command
    };
    let said = refusal(run().args(["--model", "/nowhere/model.bin"]), 2);
    assert!(said.contains("--model /nowhere/model.bin"), "{said}");
    let said = refusal(run().args(["--worker-binary", "/nowhere/nursery-worker"]), 2);
    assert!(said.contains("--worker-binary /nowhere/nursery-worker"), "{said}");
    assert!(!dir.join("state").exists() && !dir.join("sock").exists());
}

#[test]
fn a_worker_of_another_version_or_none_at_all_is_refused() {
    let dir = TempDir::new();
    let config = dir.write("cameras.json", r#"[{"name": "crib", "source": "synthetic:cry"}]"#);
    let cases = [
        (info("9.8.7"), 1, "9.8.7"),
        ("echo hello".to_owned(), 1, "is no nursery-worker"),
        ("exit 3".to_owned(), 1, "failed"),
        ("echo 'weights.bin: not a model of this program' >&2; exit 2".to_owned(), 2, "weights.bin"),
    ];
    for (i, (body, status, expected)) in cases.into_iter().enumerate() {
        let worker = dir.script(&format!("worker-{i}"), &body);
        for command in ["check", "run"] {
            let mut command = nursery([command, "--config"]);
            command.arg(&config).arg("--worker-binary").arg(&worker);
            if command.get_args().any(|a| a == "run") {
                command.arg("--state-dir").arg(dir.join("state"));
                command.arg("--control-socket").arg(dir.join("sock"));
            }
            let said = refusal(&mut command, status);
            assert!(said.contains(expected), "{said}");
        }
    }
    assert!(!dir.join("sock").exists());
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_the_remedy() {
    let dir = TempDir::new();
    let config = dir.write("cameras.json", r#"[{"name": "crib", "source": "synthetic:cry"}]"#);
    let worker = dir.script("worker", &info(VERSION));
    let file = dir.write("file", "precious");
    let run = |state: &Path, socket: &Path| {
        let mut command = nursery(["run", "--config"]);
        command.arg(&config).arg("--worker-binary").arg(&worker);
        command.arg("--state-dir").arg(state).arg("--control-socket").arg(socket);
        command
    };
    let said = refusal(&mut run(&file.join("state"), &dir.join("sock")), 1);
    assert!(said.contains("file/state") && said.contains("--state-dir"), "{said}");
    let said = refusal(&mut run(&dir.join("state"), &file.join("sock")), 1);
    assert!(said.contains("file/sock") && said.contains("--control-socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn check_names_what_it_found() {
    let dir = TempDir::new();
    let config = dir.write("cameras.json", r#"[{"name": "crib", "source": "synthetic:cry"}]"#);
    let worker = dir.script("worker", &info(VERSION));
    let said = printed(nursery(["check", "--config"]).arg(&config).arg("--worker-binary").arg(&worker));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("{}: ok, 1 camera, 0 alerts, model test-model", config.display()));
    // This worker says nothing of the kernel.
    assert!(lines[1].starts_with("  cages: ") && lines[1].contains("no Landlock"), "{said}");
    assert!(lines.len() == 3 && lines[2].contains("control group"), "{said}");
}

#[test]
fn check_tells_what_a_sensitivity_comes_to() {
    let dir = TempDir::new();
    let config = dir.write(
        "cameras.json",
        r#"{"cameras": [{"name": "crib", "source": "synthetic:cry"},
                        {"name": "hall", "source": "synthetic:cry", "sensitivity": 0.5, "sustained_s": 12},
                        {"name": "attic", "source": "synthetic:cry", "threshold": 0.7}],
            "detection": {"sensitivity": "low"}}"#,
    );
    let worker = dir.script("worker", &info(VERSION));
    let said = printed(nursery(["check", "--config"]).arg(&config).arg("--worker-binary").arg(&worker));
    let low = "low".parse::<nursery_shared::config::Sensitivity>().unwrap().threshold();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains(": ok, 3 cameras, 0 alerts"), "{said}");
    assert_eq!(lines[1], format!("  crib: crying from a probability of {low:.3} on"));
    assert_eq!(lines[2], "  hall: announced after 12 s of crying within a minute");
    assert_eq!(lines[3], "  attic: crying from a probability of 0.700 on");
    assert_eq!(lines.len(), 6, "{said}");
}

#[test]
fn the_readme_tells_every_key_and_every_command_and_its_configuration_is_valid() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let schema: Value = serde_json::from_str(&printed(&mut nursery(["schema"]))).expect("a JSON document");
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() > 20 && keys.contains(&"cooldown_s".to_owned()), "{keys:?}");
    for key in keys {
        assert!(readme.contains(&format!("`{key}`")), "README.md does not tell the key {key}");
    }
    let help = printed(&mut nursery(["--help"]));
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for command in commands.filter(|l| !l.starts_with("   ")).map(|l| l.split_whitespace().next().unwrap()) {
        assert!(
            command == "help" || readme.contains(&format!("`nursery {command}")),
            "README.md does not tell the command {command}"
        );
    }
    let dir = TempDir::new();
    let worker = dir.script("worker", &info(VERSION));
    dir.write("hall.flac", "");
    dir.write("bedroom.password", "secret");
    let mut examples = 0;
    for block in readme.split("```json\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let value: Value = serde_json::from_str(block).unwrap_or_else(|e| panic!("{e}: {block}"));
        if value.get("cameras").is_some() {
            let config = dir.write("cameras.json", block);
            let mut check = nursery(["check", "--config"]);
            check.arg(&config).arg("--worker-binary").arg(&worker).env("NURSERY_HOOK", "whsec_AAAA");
            assert!(printed(&mut check).contains("ok, 4 cameras, 3 alerts"));
            examples += 1;
        }
    }
    assert_eq!(examples, 1);
}

/// The names of all properties in a schema.
fn collect_keys(schema: &Value, keys: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                if let (true, Some(properties)) = (name == "properties", value.as_object()) {
                    keys.extend(properties.keys().cloned());
                }
                collect_keys(value, keys);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
fn without_a_service_every_command_says_so_in_one_line() {
    let dir = TempDir::new();
    drop(UnixListener::bind(dir.join("stale")).unwrap());
    for socket in [dir.join("nobody"), dir.join("stale"), dir.join("no/such/directory")] {
        for arguments in CLIENTS {
            let said = refusal(nursery(*arguments).arg("--control-socket").arg(&socket), 1);
            let expected =
                format!("nursery: no service at {} (is `nursery run` running?)\n", socket.display());
            assert_eq!(said, expected, "{arguments:?}");
        }
    }
}

#[test]
fn a_service_that_answers_badly_is_one_line_and_never_a_panic() {
    type Answer = fn(&UnixStream);
    let answers: [(&str, Answer); 6] = [
        ("garbage", |mut stream| stream.write_all(b"\xff\xfe garbage\n").unwrap()),
        ("empty line", |mut stream| stream.write_all(b"\n").unwrap()),
        ("half a reply", |mut stream| stream.write_all(b"{\"reply\":\"stat").unwrap()),
        ("unknown reply", |mut stream| stream.write_all(b"{\"reply\":\"song\"}\n").unwrap()),
        ("error", |stream| send(stream, &Reply::Error { message: "not today".into() })),
        ("endless", |mut stream| {
            // Without a newline, until the client has had enough.
            let block = vec![b' '; 1 << 20];
            let taken = (0..MAX_REPLY >> 19).take_while(|_| stream.write_all(&block).is_ok()).count();
            assert!(taken < MAX_REPLY >> 19, "the client swallowed everything");
        }),
    ];
    let dir = TempDir::new();
    for (i, (what, answer)) in answers.into_iter().enumerate() {
        let service = Listener::start(dir.join(&format!("{i}")), move |_, stream| answer(stream));
        for arguments in CLIENTS {
            let said = refusal(&mut service.cli(arguments), 1);
            assert!(what != "error" || said == "nursery: not today\n", "{arguments:?}: {said}");
        }
    }
    // Nothing at all: only for `logs` that is an answer.
    let service = Listener::start(dir.join("silent"), |_, _| ());
    for arguments in CLIENTS.iter().filter(|a| a[0] != "logs") {
        let said = refusal(&mut service.cli(arguments), 1);
        assert!(said.contains("without a reply"), "{arguments:?}: {said}");
    }
    assert_eq!(printed(&mut service.cli(&["logs"])), "");
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |request, stream| match request {
        Request::Status {} => send(stream, &Reply::Done { message: "done".into() }),
        _ => send_status(stream, &nasty()),
    });
    for arguments in CLIENTS {
        refusal(&mut service.cli(arguments), 1);
    }
}

#[test]
fn a_service_that_never_answers_is_given_up_after_ten_seconds() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |_, _| thread::sleep(Duration::from_secs(60)));
    let start = Instant::now();
    let said = refusal(&mut service.cli(&["status"]), 1);
    assert!(said.contains("10 s") && start.elapsed() < Duration::from_secs(20), "{said}");
}

#[test]
fn a_request_is_what_was_typed_and_its_message_is_printed() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |request, stream| {
        send(stream, &Reply::Done { message: serde_json::to_string(&request).unwrap() });
    });
    for (arguments, request) in [
        (&["scale", "4"][..], json!({"request": "scale", "workers": {"fixed": 4}})),
        (&["scale", "auto"], json!({"request": "scale", "workers": "auto"})),
        (&["restart", "capture:crib"], json!({"request": "restart", "name": "capture:crib"})),
        (&["reload"], json!({"request": "reload"})),
    ] {
        let said: Value = serde_json::from_str(&printed(&mut service.cli(arguments))).unwrap();
        assert_eq!(said, request, "{arguments:?}");
    }
}

#[test]
fn json_is_the_document_and_its_two_halves() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |_, stream| send_status(stream, &nasty()));
    let status: Status = serde_json::from_str(&printed(&mut service.cli(&["status", "--json"]))).unwrap();
    assert_eq!(status, nasty());
    let half =
        |command| serde_json::from_str::<Value>(&printed(&mut service.cli(&[command, "--json"]))).unwrap();
    assert_eq!(half("cameras"), json!(nasty().cameras));
    assert_eq!(half("workers"), json!(nasty().workers));
}

#[test]
fn no_status_makes_a_table_wider_than_100_columns_or_moves_the_cursor() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |_, stream| send_status(stream, &nasty()));
    for command in ["status", "cameras", "workers"] {
        let table = printed(&mut service.cli(&[command]));
        for line in table.lines() {
            assert!(line.chars().count() <= COLUMNS, "{} columns: {line:?}", line.chars().count());
        }
        assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "{table:?}");
        let named = if command == "workers" { "infer:63" } else { "crib" };
        assert!(table.contains(named), "{table}");
    }
}

#[test]
fn log_lines_are_printed_as_they_come_and_losses_are_told() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |request, stream| {
        assert_eq!(request, Request::Logs { name: Some("crib".into()), follow: true });
        send(stream, &Reply::Logs { lines: vec!["one".into(), "two".into()], lost: 0 });
        send(stream, &Reply::Logs { lines: vec!["three".into()], lost: 7 });
    });
    let lines = printed(&mut service.cli(&["logs", "crib", "--follow"]));
    assert_eq!(lines, "one\ntwo\n(7 lines lost: this client was too slow)\nthree\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let dir = TempDir::new();
    let service = Listener::start(dir.join("sock"), |request, stream| match request {
        Request::Status {} => send_status(stream, &nasty()),
        _ => loop {
            let mut line =
                serde_json::to_vec(&Reply::Logs { lines: vec!["line".into(); 100], lost: 0 }).unwrap();
            line.push(b'\n');
            if (&*stream).write_all(&line).is_err() {
                return;
            }
        },
    });
    for arguments in [&["logs", "--follow"][..], &["status", "--watch"]] {
        let mut child = service.cli(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        drop(lines);
        let status = wait(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn watching_goes_on_while_the_service_restarts() {
    let dir = TempDir::new();
    let socket = dir.join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serve_one = |listener: &UnixListener, uptime_s: f64| {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        send_status(&stream, &Status { uptime_s, ..nasty() });
    };
    let mut child = nursery(["status", "--watch", "--control-socket"]).arg(&socket).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).all(|l| sender.send(l).is_ok())
    });
    let wait_line = |what: &str| {
        let end = Instant::now() + SOON;
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(what) {
                return;
            }
        }
        panic!("no line with {what:?}");
    };
    serve_one(&listener, 30.0);
    wait_line("up 30s");
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
    wait_line("no service at");
    let listener = UnixListener::bind(&socket).unwrap();
    serve_one(&listener, 40.0);
    wait_line("up 40s");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn stop_waits_until_the_service_is_gone() {
    let dir = TempDir::new();
    let socket = dir.join("sock");
    let gone = Duration::from_millis(700);
    let path = socket.clone();
    let service = Listener::start(socket, move |request, stream| {
        assert_eq!(request, Request::Stop {});
        send(stream, &Reply::Done { message: "stopping".into() });
        thread::sleep(gone);
        std::fs::remove_file(&path).unwrap();
    });
    let start = Instant::now();
    assert_eq!(printed(&mut service.cli(&["stop"])), "stopped\n");
    assert!(start.elapsed() >= gone, "came back after {:?}", start.elapsed());
}

#[test]
fn events_are_read_where_the_service_or_the_user_says() {
    let dir = TempDir::new();
    let worker = dir.script("worker", r#"printf '%s|' "$@"; exit 7"#);
    let service = Listener::start(dir.join("sock"), |request, stream| {
        assert_eq!(request, Request::Info {});
        send(stream, &Reply::Info { state_dir: "/where it is".into(), config: None });
    });
    let out = output(service.cli(&["events"]).arg("--worker-binary").arg(&worker));
    assert_eq!(text(&out.stdout), "events|--state-dir|/where it is|");
    assert_eq!(out.status.code(), Some(7), "not the worker's exit status");
    let mut command = nursery(["events", "--json", "--camera=-crib", "--since", "10m", "--state-dir", "st"]);
    let out = output(command.arg("--worker-binary").arg(&worker));
    assert_eq!(text(&out.stdout), "events|--state-dir|st|--json|--camera=-crib|--since=10m|");
    let mut command =
        nursery(["export", "--since", "8h", "--what", "scores", "--camera=-crib", "--state-dir", "st"]);
    let out = output(command.arg("--worker-binary").arg(&worker));
    let passed = "export|--state-dir|st|--since=8h|--camera=-crib|--format=csv|--what=scores|";
    assert_eq!(text(&out.stdout), passed);
    for wrong in [&["export"][..], &["export", "--since", "8h", "--what", "all"]] {
        assert_eq!(output(&mut nursery(wrong.iter().copied())).status.code(), Some(2), "{wrong:?}");
    }
}

/// A directory into which `nursery` was installed.
/// A post-mortem as a file, with these control characters in everything that is text.
fn post_mortem(id: &str, time: &str, nasty: &str) -> String {
    let long = nasty.repeat(50);
    json!({
        "id": id, "time": time, "version": "1", "worker": format!("capture:{nasty}"), "role": "capture",
        "camera": nasty, "pid": 7, "reason": format!("killed: {long}"), "exit_status": null, "signal": 9,
        "signal_name": nasty, "uptime_s": 1.5, "restarts": 1, "progress": 32000, "silent_s": 5.0,
        "owed": [{"window": 77, "camera": nasty, "deaths": 1}],
        "resources": {"rss_bytes": 5e6 as u64, "peak_rss_bytes": null, "cpu_s": 0.25, "descriptors": 9, "threads": 2},
        "log": [format!("{long} the last line")],
        "threads": [{
            "tid": 8, "name": nasty, "state": "S", "wait_channel": nasty, "system_call": "futex",
            "stack": [
                {"function": format!("waits{nasty}"), "file": "src/a.rs", "line": 3, "module": "m", "offset": "0x1"},
                {"function": null, "file": null, "line": null, "module": nasty, "offset": "0x2"},
            ],
            "stack_ends": nasty,
        }],
        "notes": [nasty],
    })
    .to_string()
}

#[test]
fn post_mortems_are_read_from_files_where_no_service_runs_whatever_is_in_them() {
    let dir = TempDir::new();
    let (first, second) = ("20260101-000000-capture-0001", "20260102-000000-capture-0000");
    let nasty = "\u{1b}[2J\r\n";
    dir.write(&format!("postmortems/{second}.json"), &post_mortem(second, "2026-01-02T00:00:00.000Z", nasty));
    dir.write(&format!("postmortems/{first}.json"), &post_mortem(first, "2026-01-01T00:00:00.000Z", "x"));
    dir.write("postmortems/20260103-000000-sink-0000.json", "{\"id\":");
    dir.write("postmortems/20260104-000000-sink-0000.json", &" ".repeat(1 << 20));
    dir.write("postmortems/partial", "nothing");
    // What never ends, and what waits for somebody.
    let odd = |n: u32| dir.join(&format!("postmortems/2026010{n}-000000-sink-0000.json"));
    std::os::unix::fs::symlink("/dev/zero", odd(6)).unwrap();
    nix::unistd::mkfifo(&odd(7), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(odd(8)).unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = nursery(arguments.iter().copied());
        command.arg("--state-dir").arg(&dir.0);
        command
    };
    let table = printed(&mut ask(&["postmortem"]));
    let ids: Vec<&str> = table.lines().skip(1).map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(ids, [first, second], "{table}");
    assert!(table.lines().all(|l| l.chars().count() <= COLUMNS), "{table}");
    let shown = printed(&mut ask(&["postmortem", second]));
    for text in [&table, &shown] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    for expected in
        ["window 77", "2.0 s of audio", "src/a.rs:3", "futex", "the last line", "0.25 s", "5.0 MB"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let json: Value = serde_json::from_str(&printed(&mut ask(&["postmortem", first, "--json"]))).unwrap();
    assert_eq!(json["threads"][0]["stack"][0]["function"], "waitsx");
    let list: Value = serde_json::from_str(&printed(&mut ask(&["postmortem", "--json"]))).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);

    assert!(refusal(&mut ask(&["postmortem", "20260103-000000-sink-0000"]), 1).contains("damaged"));
    assert!(refusal(&mut ask(&["postmortem", "20260104-000000-sink-0000"]), 1).contains("too long"));
    assert!(
        refusal(&mut ask(&["postmortem", "20260105-000000-sink-0000"]), 1).contains("no post-mortem 2026")
    );
    for n in 6..=8 {
        let id = format!("2026010{n}-000000-sink-0000");
        assert!(refusal(&mut ask(&["postmortem", &id]), 1).contains("not a file"));
    }
    refusal(&mut ask(&["postmortem", "../lock"]), 2);
    let mut elsewhere = nursery(["postmortem", "--state-dir"]);
    assert!(refusal(elsewhere.arg(dir.join("elsewhere")), 1).contains("--state-dir"));
    // Neither a service nor files.
    let mut nobody = nursery(["postmortem", "--control-socket"]);
    nobody.arg(dir.join("nobody")).env("HOME", &dir.0).env_remove("XDG_STATE_HOME");
    if !nix::unistd::geteuid().is_root() {
        assert!(refusal(&mut nobody, 1).contains("--state-dir"));
    }
}

#[test]
fn post_mortems_of_a_service_are_those_in_its_memory_and_those_in_its_files() {
    let dir = TempDir::new();
    let (file, memory) = ("20260101-000000-sink-0000", "20260102-000000-sink-0000");
    dir.write(&format!("postmortems/{file}.json"), &post_mortem(file, "2026-01-01T00:00:00.000Z", "x"));
    let directory = dir.join("postmortems");
    let kept: PostMortem =
        serde_json::from_str(&post_mortem(memory, "2026-01-02T00:00:00.000Z", "x")).unwrap();
    let service = Listener::start(dir.join("sock"), move |request, stream| match request {
        Request::Postmortems {} => {
            let kept = vec![kept.summary()];
            send(stream, &Reply::Postmortems { kept, directory: directory.clone() });
        }
        Request::Postmortem { id } if id == memory => {
            send(stream, &Reply::Postmortem { postmortem: Box::new(kept.clone()) });
        }
        other => panic!("{other:?}"),
    });
    let table = printed(&mut service.cli(&["postmortem"]));
    let ids: Vec<&str> = table.lines().skip(1).map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(ids, [file, memory]);
    for id in ids {
        assert!(printed(&mut service.cli(&["postmortem", id])).contains(id));
    }
}

fn installed(dir: &TempDir, to: &str) -> PathBuf {
    let path = dir.join(to);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // By another process, for the reason that `script` has.
    let mut copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_nursery")).arg(&path).spawn().unwrap();
    assert!(wait(&mut copy).success());
    path
}

fn at<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn detect_hands_everything_to_the_worker_that_it_finds() {
    for place in ["bin/nursery-worker", "libexec/nursery/nursery-worker", "libexec/nursery-worker"] {
        let dir = TempDir::new();
        let program = installed(&dir, "bin/nursery");
        dir.script(place, r#"printf '%s|' "$@"; exit 5"#);
        for (arguments, expected) in [
            (&["--json", "a b.wav", "-"][..], "detect|--json|a b.wav|-|"),
            (&["--help"], "detect|--help|"),
            (&["-x", "--", "-y"], "detect|-x|--|-y|"),
        ] {
            let out = output(at(&program, ["detect"]).args(arguments));
            assert_eq!(text(&out.stdout), expected, "{place}: {}", text(&out.stderr));
            assert_eq!(out.status.code(), Some(5), "not the worker's exit status");
        }
    }
}

#[test]
fn without_a_worker_binary_it_says_where_it_looked() {
    let dir = TempDir::new();
    let program = installed(&dir, "bin/nursery");
    let config = dir.write("cameras.json", r#"[{"name": "crib", "source": "synthetic:cry"}]"#);
    for mut command in [
        at(&program, ["detect", "a.wav"]),
        at(&program, ["demo"]),
        at(&program, [OsStr::new("run"), OsStr::new("--config"), config.as_os_str()]),
        at(&program, ["events", "--state-dir", "/tmp"]),
    ] {
        let said = refusal(&mut command, 2);
        assert!(said.contains("bin/nursery") && said.contains("libexec/nursery"), "{said}");
    }
}

#[test]
fn a_full_disk_under_standard_output_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let said = {
        let mut child = nursery(["schema"]).stdout(Stdio::from(full)).spawn().unwrap();
        assert_eq!(wait(&mut child).code(), Some(1));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    };
    assert!(said.starts_with("nursery: standard output: ") && said.lines().count() == 1, "{said}");
}
