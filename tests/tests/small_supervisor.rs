//! The supervisor, which runs as root, links no media, tensor, HTTP, database or debug-information code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::Path, process::Command, time::Duration};

use nursery_tests::wait;

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
