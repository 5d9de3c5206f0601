//! Files with passwords in them: who may read them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nursery_tests::service::{Service, camera, config};
use serde_json::json;

fn refusal(service: &Service) -> Option<String> {
    let out = service.check();
    let text = String::from_utf8(out.stderr).unwrap();
    match out.status.code() {
        Some(0) => None,
        Some(2) => Some(text),
        other => panic!("{other:?}: {text}"),
    }
}

#[test]
fn as_root_files_with_secrets_that_everybody_may_read_are_refused_unless_told_otherwise() {
    if !nix::unistd::geteuid().is_root() {
        nursery_tests::skip!("needs root");
    }
    let mut config = config([camera("crib", "synthetic:silence")], []);
    let service = Service::start(&config);
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let path = service.config_path();
    // Without a secret it is nobody's business who reads it.
    open(&path);
    assert_eq!(refusal(&service), None);
    config["cameras"][0] = camera("crib", "rtsp://me:secret@127.0.0.1:1/x");
    service.write_config(&config);
    assert_eq!(refusal(&service), None);
    open(&path);
    let error = refusal(&service).unwrap();
    assert!(error.contains("cameras[0].source") && error.contains("chmod 600"), "{error}");
    assert!(error.lines().count() == 1 && !error.contains("me:secret"), "{error}");
    // What runs goes on as it was.
    assert!(!service.cli(["reload"]).status.success());
    service.wait_live(&["crib"]);
    config["supervision"] = json!({"allow_readable_secrets": true});
    service.write_config(&config);
    open(&path);
    assert_eq!(refusal(&service), None);
    config["supervision"] = json!({});
    let key = service.dir().join("key");
    fs::write(&key, "secret").unwrap();
    open(&key);
    config["cameras"][0] = camera("crib", "rtsp://127.0.0.1:1/x");
    config["cameras"][0]["username"] = json!("me");
    config["cameras"][0]["password"] = json!("file:key");
    service.write_config(&config);
    let error = refusal(&service).unwrap();
    assert!(error.contains("cameras[0].password: key may be read by everybody (mode 644)"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(refusal(&service), None);
}
