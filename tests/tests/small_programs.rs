//! The supervisor, which runs as root, links no media, tensor, HTTP, database or debug-information code; what there is one
//! of per camera is no larger than it must be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path, process::Command, time::Duration};

use nursery_shared::status::WorkerState;
use nursery_tests::{
    service::{Service, camera, config},
    wait,
};

fn tree(package: &str) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(["tree", "--offline", "--edges", "normal,build", "--prefix", "none", "--package", package]);
    let out = wait::output(&mut command, Duration::from_secs(60));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_supervisor_depends_on_no_media_tensor_http_or_database_code() {
    let tree = tree("nursery-supervisor");
    assert!(tree.contains("nursery-shared"), "{tree}");
    for crate_name in [
        "candle",
        "retina",
        "rodio",
        "symphonia",
        "openh264",
        "jpeg",
        "rubato",
        "reqwest",
        "hyper",
        "rustls",
        "rusqlite",
        "tokio",
        "nursery-worker",
        "nursery-models",
        "gemm",
        "addr2line",
        "framehop",
    ] {
        let found = tree.lines().find(|line| line.starts_with(crate_name));
        assert!(found.is_none(), "nursery-supervisor depends on {found:?}");
    }
}

#[test]
fn dependencies_point_downwards() {
    for package in ["nursery-shared", "nursery-models"] {
        let tree = tree(package);
        for above in ["nursery-supervisor", "nursery-worker", "nursery-tests"] {
            assert!(!tree.lines().any(|line| line.starts_with(above)), "{package} depends on {above}");
        }
    }
}

#[test]
fn a_camera_has_the_program_for_cameras_without_another_language_s_library() {
    let service = Service::start(&config([camera("a", "synthetic:noise")], []));
    service.wait_live(&["a"]);
    let status = service.status();
    let pid = |name: &str| {
        let worker = status.workers.iter().find(|w| w.name == name && w.state == WorkerState::Running);
        worker.and_then(|w| w.pid).unwrap()
    };
    let read = |name: &str, what: &str| fs::read(format!("/proc/{}/{what}", pid(name))).unwrap();
    let program = |name: &str| fs::read_link(format!("/proc/{}/exe", pid(name))).unwrap();
    assert!(program("capture:a").ends_with("nursery-capture"));
    assert!(program("infer:0").ends_with("nursery-worker"));
    // Whoever looks for workers finds all of them under one name.
    for (name, role) in [("capture:a", "capture"), ("infer:0", "infer")] {
        let line = String::from_utf8(read(name, "cmdline")).unwrap();
        assert!(line.ends_with(&format!("/nursery-worker\0{role}\0")), "{line:?}");
    }
    let code = fs::read(program("capture:a")).unwrap();
    let library = b"libstdc++.so";
    assert!(!code.windows(library.len()).any(|bytes| bytes == library), "it needs libstdc++");
}
