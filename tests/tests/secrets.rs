//! What is secret in the configuration is seen nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use nix::sys::signal::Signal;
use nursery_shared::postmortem::Summary;
use nursery_tests::{
    audio,
    receiver::{Answer, Receiver},
    rtsp_camera::{Codec, Credentials, RtspCamera, Scheme, Setup},
    service::{Service, config},
    wait::PATIENCE,
};
use serde_json::json;

const IN_URL: &str = "planted-in-the-url-5b1d";
const IN_KEY: &str = "planted-in-the-key-77aa";
const WRONG: &str = "planted-and-wrong-90c3";
const IN_ENVIRONMENT: &str = "planted-in-the-environment-3e2f";
const IN_FILE: &str = "planted-in-a-file-c0de";
const IN_HOOK: &str = "planted-in-the-hook-1f0e";

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

#[test]
fn a_planted_secret_is_in_no_argument_environment_log_status_or_file_of_state() {
    let locked = |password: &str| {
        RtspCamera::with(Setup {
            codec: Codec::L16,
            credentials: Some(Credentials {
                user: "viewer".into(),
                password: password.into(),
                scheme: Scheme::Digest,
            }),
            ..Setup::default()
        })
    };
    let (in_url, in_key, in_environment, wrong) =
        (locked(IN_URL), locked(IN_KEY), locked(IN_ENVIRONMENT), locked("something else"));
    let (receiver, refusing) = (Receiver::start(), Receiver::start());
    refusing.set_answer(Answer::Status(403));
    let secret_file = std::env::temp_dir().join(format!("nursery-test-secret-{}", std::process::id()));
    std::fs::write(&secret_file, IN_FILE).unwrap();
    std::fs::set_permissions(&secret_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut alert = receiver.alert();
    alert["secret"] = json!("env:NURSERY_TEST_HOOK_KEY");
    let config = config(
        [
            json!({"name": "url", "source": in_url.url_as("viewer", IN_URL)}),
            json!({"name": "key", "source": in_key.url(), "username": "viewer", "password": IN_KEY}),
            json!({
                "name": "environment", "source": in_environment.url(),
                "username": "viewer", "password": "env:NURSERY_TEST_PASSWORD",
            }),
            json!({"name": "wrong", "source": wrong.url_as("viewer", WRONG)}),
            json!({
                "name": "program",
                "source": format!("exec:sh -c 'exec sleep 600 # {IN_URL}'"),
            }),
        ],
        [
            alert,
            json!({
                "type": "webhook",
                "url": format!("{}?token={IN_HOOK}", refusing.url()),
                "secret": format!("file:{}", secret_file.display()),
            }),
        ],
    );
    let service = Service::start_with(
        &config,
        [
            ("NURSERY_TEST_PASSWORD".to_owned(), IN_ENVIRONMENT.to_owned()),
            ("NURSERY_TEST_HOOK_KEY".to_owned(), receiver.secret()),
            ("NURSERY_LOG".to_owned(), "trace".to_owned()),
        ],
    );
    service.wait_live(&["url", "key", "environment"]);
    service.wait_error("wrong", &["password"]);
    in_url.microphone().play(&audio::cry(5.0));
    receiver.wait_for("cry.ended", "url", PATIENCE);
    service.wait_for("the refusal to be known", |s| s.alerts.failing_since.is_some().then_some(()));

    // One worker dies, another hangs: what is told of them must not tell more.
    for (name, signal) in [("capture:url", Signal::SIGKILL), ("capture:key", Signal::SIGSTOP)] {
        let old = service.process_of(name);
        assert!(old.signal(signal));
        service.wait_replaced(name, old);
    }
    let list = service.must(["postmortem", "--json"]);
    let post_mortems: Vec<Summary> = serde_json::from_str(&list).unwrap();
    assert_eq!(post_mortems.len(), 2, "{list}");

    let raw_key = receiver.secret();
    let secrets = [IN_URL, IN_KEY, WRONG, IN_ENVIRONMENT, IN_FILE, IN_HOOK, raw_key.as_str()];
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    let supervisor = service.process();
    places.push(("the supervisor's arguments".into(), supervisor.arguments()));
    for process in supervisor.descendants().into_iter().chain([supervisor]) {
        // What is written of its memory when it dies.
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        let cores = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{limits}");
        if process == supervisor {
            continue;
        }
        let name = String::from_utf8_lossy(&process.arguments()).replace('\0', " ");
        // The command of an `exec:` source is the operator's own: what stands in it, stands in its arguments.
        if name.contains("nursery-worker") {
            places.push((format!("arguments of {name}"), process.arguments()));
        }
        places.push((format!("environment of {name}"), process.environment()));
    }
    for command in
        [&["status"][..], &["status", "--json"], &["cameras", "--json"], &["logs"], &["events", "--json"]]
    {
        places.push((format!("{command:?}"), service.must(command).into_bytes()));
    }
    for one in &post_mortems {
        places.push((
            format!("post-mortem {}", one.id),
            service.must(["postmortem", one.id.as_str()]).into_bytes(),
        ));
    }
    places.push(("the log".into(), service.log().join("\n").into_bytes()));
    let mut files = Vec::new();
    files_below(&service.dir().join("state"), &mut files);
    assert!(!files.is_empty(), "no state?");
    for file in files {
        places.push((format!("the file {}", file.display()), std::fs::read(&file).unwrap()));
    }
    std::fs::remove_file(&secret_file).unwrap();
    assert!(places.len() > 15, "looked into too few places: {}", places.len());
    for (place, bytes) in &places {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "{secret:?} is in {place}");
        }
    }
    let log = places.iter().find(|(place, _)| place == "the log").unwrap();
    assert!(log.1.len() > 500, "a trace log that says next to nothing proves nothing");
}
