//! `nursery-worker detect` as a process: exit statuses, what goes to which stream, broken input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use common::{TempDir, WORKER, tone, wav};

fn detect(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(WORKER)
        .arg("detect")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A process that ends before it has read everything is part of the tests.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_broken_file_is_reported_the_others_still_run_and_the_status_is_1() {
    let dir = TempDir::new();
    let good = dir.file("good.wav", &wav(16_000, &tone(16_000, 440.0, 2.0)));
    let broken = dir.file("broken.flac", b"fLaC this is not really one");
    let later = dir.file("later.wav", &wav(8_000, &tone(8_000, 300.0, 1.0)));
    let missing = dir.path().join("missing.wav");
    let out = detect(&[&good, &broken, missing.to_str().unwrap(), &later], b"");
    assert_eq!(out.status.code(), Some(1));
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert!(stdout.contains("good.wav") && stdout.contains("later.wav"), "{stdout}");
    assert!(!stdout.contains("broken.flac"), "{stdout}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert!(stderr.contains("broken.flac: ") && stderr.contains("missing.wav: no such file"), "{stderr}");
}

#[test]
fn with_json_standard_output_holds_json_lines_only() {
    let dir = TempDir::new();
    let good = dir.file("good.wav", &wav(48_000, &tone(48_000, 440.0, 3.0)));
    let broken = dir.file("broken.wav", b"RIFF");
    // Any probability is above this threshold, so there is something to print.
    let out = detect(&["--json", "--threshold", "0.000000001", &good, &broken], b"");
    assert_eq!(out.status.code(), Some(1));
    let lines: Vec<serde_json::Value> =
        text(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["file", "label", "offset", "onset", "score"]);
    assert_eq!(lines[0]["file"], good);
    assert_eq!(lines[0]["label"], "baby_cry");
    let (onset, offset) = (lines[0]["onset"].as_f64().unwrap(), lines[0]["offset"].as_f64().unwrap());
    assert!(onset >= 0.0 && onset < offset && offset <= 3.0, "{onset} {offset}");
}

#[test]
fn a_dash_reads_standard_input() {
    let recording = wav(16_000, &tone(16_000, 440.0, 1.0));
    let out = detect(&["-"], &recording);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains('-'));
    let out = detect(&["--json", "-"], b"no audio");
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty());
    assert!(text(&out.stderr).contains("standard input"), "{}", text(&out.stderr));
}

#[test]
fn many_recordings_come_in_the_order_of_the_arguments() {
    let dir = TempDir::new();
    let files: Vec<String> = (0..12)
        .map(|i| {
            let seconds = if i % 3 == 0 { 9.0 } else { 0.7 };
            dir.file(&format!("{i}.wav"), &wav(16_000, &tone(16_000, 440.0, seconds)))
        })
        .collect();
    let mut args = vec!["--json", "--threshold", "0.000000001", "--jobs", "3"];
    args.extend(files.iter().map(String::as_str));
    let out = detect(&args, b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let seen: Vec<String> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["file"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seen, files);
}

#[test]
fn a_recording_without_audio_is_an_error() {
    let dir = TempDir::new();
    let empty = dir.file("empty.wav", &wav(16_000, &[]));
    let out = detect(&[&empty], b"");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("empty.wav: "), "{}", text(&out.stderr));
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [
        &[][..],
        &["--threshold", "1.5", "x"],
        &["--threshold", "NaN", "x"],
        &["-", "-"],
        &["--nonsense", "x"],
    ] {
        let out = detect(args, b"");
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn an_unusable_model_is_status_2_and_named() {
    let dir = TempDir::new();
    let model = dir.file("bad.safetensors", b"rubbish");
    let out = detect(&["--model", &model, "x.wav"], b"");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("bad.safetensors"), "{}", text(&out.stderr));
}
