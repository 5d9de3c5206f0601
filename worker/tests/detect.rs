//! `nursery-worker detect` as a process: exit statuses, what goes to which stream, broken input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{TempDir, WORKER, tone, wav};
use nursery_models::{Detector, recording::score_recording};
use serde_json::Value;

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
    assert_eq!(keys, ["file", "label", "offset", "onset", "score", "sustained_s"]);
    assert_eq!(lines[0]["file"], good);
    assert_eq!(lines[0]["label"], "baby_cry");
    let (onset, offset) = (lines[0]["onset"].as_f64().unwrap(), lines[0]["offset"].as_f64().unwrap());
    assert!(onset >= 0.0 && onset < offset && offset <= 3.0, "{onset} {offset}");
}

#[test]
fn sensitivity_is_another_way_to_say_threshold() {
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &babbling(3)));
    let picture = dir.path().join("a.svg");
    for (option, value, threshold) in [("--sensitivity", "normal", "0.50"), ("--threshold", "0.25", "0.25")] {
        let out = detect(&[option, value, "--plot", picture.to_str().unwrap(), &file], b"");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let svg = std::fs::read_to_string(&picture).unwrap();
        assert!(svg.contains(&format!(">{threshold}</text>")), "{option}");
    }
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
        &["--curve", "-", "--json", "x"],
        &["--sensitivity", "loud", "x"],
        &["--sensitivity", "high", "--threshold", "0.5", "x"],
        &["--curve", "x.svg", "--plot", "x.svg", "x"],
        &["--plot", "x.jpg", "x"],
        &["--plot", "no-such-directory", "x"],
        &["--plot", "out.png", "x", "y"],
        &["--jobs", "0", "x"],
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

/// Bursts of a harmonic tone over noise, at 16 kHz.
fn babbling(seconds: usize) -> Vec<i16> {
    let (mut phase, mut noise) = (0.0f64, 1u32);
    (0..seconds * 16_000)
        .map(|i| {
            let t = i as f64 / 16_000.0;
            phase += (400.0 + 120.0 * (t.fract() * 3.0).sin()) / 16_000.0;
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = f64::from(noise >> 8) / f64::from(1u32 << 24) * 100.0 - 50.0;
            let tone: f64 =
                (1..8).map(|k| (std::f64::consts::TAU * phase * f64::from(k)).sin() / f64::from(k)).sum();
            let loud = t % 9.0 > 4.0 && t.fract() < 0.7;
            (hiss + if loud { 4_000.0 * tone } else { 0.0 }) as i16
        })
        .collect()
}

fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_curve_is_what_the_detector_says_frame_by_frame_in_both_formats() {
    let dir = TempDir::new();
    let samples = babbling(13);
    let file = dir.file("night, one.wav", &wav(16_000, &samples));
    let (lines, csv) = (dir.path().join("curve.jsonl"), dir.path().join("curve.csv"));
    let out = detect(&["--curve", lines.to_str().unwrap(), &file], b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(detect(&["--curve", csv.to_str().unwrap(), &file], b"").status.code(), Some(0));

    let mut detector = Detector::embedded().unwrap();
    let floats: Vec<f32> = samples.iter().map(|&s| f32::from(s) / 32_768.0).collect();
    let expected = score_recording(&mut detector, &floats).unwrap();
    let step = detector.info().frame_step;
    let frames = values(&std::fs::read_to_string(&lines).unwrap());
    assert_eq!(frames.len(), expected.len());
    for (i, (frame, score)) in frames.iter().zip(&expected).enumerate() {
        assert_eq!(frame["file"], file);
        let number = |key: &str| frame[key].as_f64().unwrap();
        assert!((number("time") - (i * step) as f64 / 16_000.0).abs() < 6e-4, "{frame}");
        assert!((number("score") - f64::from(*score)).abs() < 1e-5, "{frame} {score}");
        let end = (i * step + step).min(floats.len());
        let power: f64 = floats[i * step..end].iter().map(|s| f64::from(*s).powi(2)).sum();
        let level = 10.0 * (power / (end - i * step) as f64).log10();
        assert!((number("level_dbfs") - level.max(-120.0)).abs() < 0.02, "{frame} {level}");
    }

    let csv = std::fs::read_to_string(&csv).unwrap();
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("file,time,score,judged,level_dbfs"));
    let name = format!("\"{file}\"");
    let rows: Vec<&str> = rows.map(|row| row.strip_prefix(&name).unwrap()).collect();
    assert_eq!(rows.len(), frames.len());
    for (row, frame) in rows.iter().zip(&frames) {
        let numbers: Vec<f64> = row[1..].split(',').map(|n| n.parse().unwrap()).collect();
        let same = ["time", "score", "judged", "level_dbfs"].map(|key| frame[key].as_f64().unwrap());
        assert_eq!(numbers, same);
    }
}

#[test]
fn a_curve_on_standard_output_leaves_the_cries_to_standard_error() {
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &babbling(3)));
    let out = detect(&["--curve", "-", "--threshold", "0.000000001", &file], b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(values(text(&out.stdout)).len(), 60);
    assert!(text(&out.stderr).contains("onset") && text(&out.stderr).contains("a.wav"));
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &vec![0; 16_000 * 1200]));
    let mut child = Command::new(WORKER)
        .args(["detect", "--curve", "-", &file, &file, &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"time\":0.000"), "{line}");
    // The pipe is closed now.
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(!text(&out.stderr).contains("panicked"), "{}", text(&out.stderr));
}

#[test]
fn many_at_once_find_what_one_after_another_finds() {
    let dir = TempDir::new();
    let night = dir.path().join("night");
    std::fs::create_dir(&night).unwrap();
    for i in 0..7 {
        let seconds = [2, 25, 7][i % 3];
        std::fs::write(night.join(format!("{i}.wav")), wav(16_000, &babbling(seconds)[i * 100..])).unwrap();
    }
    std::fs::write(night.join("5b.wav"), "RIFF").unwrap();
    let run = |jobs: &str| {
        let curve = dir.path().join(format!("{jobs}.csv"));
        let args = ["--json", "--threshold", "0.000001", "--jobs", jobs, "--curve", curve.to_str().unwrap()];
        let out = detect(&[&args[..], &[night.to_str().unwrap()]].concat(), b"");
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        (text(&out.stdout).to_owned(), text(&out.stderr).to_owned(), std::fs::read(&curve).unwrap())
    };
    let alone = run("1");
    assert!(alone.0.lines().count() >= 7 && alone.1.contains("5b.wav"), "{alone:?}");
    for jobs in ["2", "5", "20"] {
        assert_eq!(run(jobs), alone, "{jobs}");
    }
}

/// Width, height and pixels of a PNG file.
fn pixels(path: &Path) -> (usize, usize, Vec<u8>) {
    let file = BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width as usize, info.height as usize, rgb)
}

/// The colour of cries, as the picture's documentation has it.
const CRY: [u8; 3] = [213, 94, 0];

#[test]
fn a_picture_has_the_documented_size_and_shows_cries_where_they_are() {
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &babbling(20)));
    let curve = dir.path().join("curve.jsonl");
    detect(&["--curve", curve.to_str().unwrap(), &file], b"");
    let scores: Vec<f64> = values(&std::fs::read_to_string(&curve).unwrap())
        .iter()
        .map(|frame| frame["score"].as_f64().unwrap())
        .collect();
    // Some frames are above this threshold and some below, whatever the weights are.
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let threshold = sorted[sorted.len() * 8 / 10].clamp(1e-9, 0.999).to_string();
    let picture = dir.path().join("a.png");
    let args = ["--json", "--threshold", &threshold, "--min-duration", "0", "--end-after", "0.1"];
    let out = detect(&[&args[..], &["--plot", picture.to_str().unwrap(), &file]].concat(), b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let cries: Vec<(f64, f64)> = values(text(&out.stdout))
        .iter()
        .map(|cry| (cry["onset"].as_f64().unwrap(), cry["offset"].as_f64().unwrap()))
        .collect();
    assert!(!cries.is_empty());

    let (width, height, rgb) = pixels(&picture);
    assert_eq!((width, height), (1600, 900));
    // The bars of cries are the only thing in their colour that is ten rows high there: stems begin below them.
    let column = |time: f64| 90 + (time / 20.0 * 1400.0) as usize;
    let bar = |x: usize| (730..756).filter(|y| rgb[(y * width + x) * 3..][..3] == CRY).count() >= 10;
    for (onset, offset) in &cries {
        assert!(bar(column((onset + offset) / 2.0)), "{onset} to {offset} is not drawn");
    }
    for quiet in (0..200).map(|i| f64::from(i) / 10.0 + 0.05) {
        if cries.iter().all(|(onset, offset)| quiet < onset - 0.1 || quiet > offset + 0.1) {
            assert!(!bar(column(quiet)), "a cry is drawn at {quiet}");
        }
    }
}

#[test]
fn a_picture_as_svg_is_well_formed_and_holds_its_spectrogram() {
    let dir = TempDir::new();
    let file = dir.file("a & <b>.wav", &wav(16_000, &babbling(4)));
    let picture = dir.path().join("a.SVG");
    let out = detect(&["--threshold", "0.000000001", "--plot", picture.to_str().unwrap(), &file], b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let svg = std::fs::read_to_string(&picture).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert_eq!(document.root_element().attribute("width"), Some("1600"));
    let texts: Vec<&str> =
        document.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
    assert!(texts.iter().any(|t| t.starts_with("a & <b>.wav")), "{texts:?}");
    let images = document.descendants().filter(|n| n.has_tag_name("image"));
    assert!(images.filter_map(|n| n.attribute("href")).all(|h| h.starts_with("data:image/png;base64,")));
    assert!(document.descendants().any(|n| n.attribute("fill") == Some("#d55e00")));
}

#[test]
fn each_of_several_recordings_has_a_picture_of_its_own() {
    let dir = TempDir::new();
    let (plots, night) = (dir.path().join("plots"), dir.path().join("night"));
    std::fs::create_dir(&plots).unwrap();
    std::fs::create_dir(&night).unwrap();
    let inside = night.join("a.wav");
    std::fs::write(&inside, wav(16_000, &babbling(1))).unwrap();
    let outside = dir.file("a.wav", &wav(8_000, &tone(8_000, 500.0, 0.3)));
    let broken = dir.file("broken.wav", b"RIFF");
    let pattern = plots.join("score of {}.png");
    let args = ["--plot", pattern.to_str().unwrap(), "-", night.to_str().unwrap(), &outside, &broken];
    let out = detect(&args, &wav(16_000, &[0; 4_000]));
    assert_eq!(out.status.code(), Some(1));
    let mut drawn: Vec<String> = std::fs::read_dir(&plots)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    drawn.sort();
    assert_eq!(drawn, ["score of a-2.png", "score of a.png", "score of standard-input.png"]);
    for name in drawn {
        assert_eq!(pixels(&plots.join(name)).0, 1600);
    }
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_listened_to() {
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &babbling(1)));
    let at = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
    std::fs::create_dir(at("a directory.csv")).unwrap();
    std::fs::create_dir(at("taken")).unwrap();
    std::fs::create_dir(at("taken/a.png")).unwrap();
    for (option, target, said) in [
        ("--curve", at("missing/curve.csv"), "no such directory"),
        ("--curve", at("a directory.csv"), "is a directory"),
        ("--curve", file.clone(), "written over"),
        ("--plot", at("missing/{}.png"), "no directory"),
        ("--plot", at("a.wav/{}.png"), "no directory"),
        ("--plot", at("taken"), "is a directory"),
    ] {
        let out = detect(&["--json", "--threshold", "0.000000001", option, &target, &file], b"");
        assert_eq!(out.status.code(), Some(1), "{option} {target}");
        let stderr = text(&out.stderr);
        assert!(stderr.contains(said) && stderr.contains(option), "{option} {target}: {stderr}");
        assert_eq!((stderr.lines().count(), out.stdout.len()), (1, 0), "{stderr}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), wav(16_000, &babbling(1)));
}

#[test]
fn a_curve_that_finds_no_room_is_named_and_ends_it() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let dir = TempDir::new();
    let file = dir.file("a.wav", &wav(16_000, &babbling(2)));
    let out = detect(&["--curve", "/dev/full", &file], b"");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("--curve /dev/full"), "{}", text(&out.stderr));
}
