//! `nursery detect`: recordings in, JSON lines out, no service needed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs::File, process::Stdio, time::Duration};

use nursery_tests::{audio, service::nursery, temp_dir::TempDir, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_cry_is_found_where_it_is_a_quiet_room_is_not_and_a_broken_file_stops_nothing() {
    let dir = TempDir::new();
    let (crying, quiet, broken) = (dir.join("crying.wav"), dir.join("quiet.wav"), dir.join("broken.wav"));
    let clip = [audio::room_noise(4.0), audio::cry(6.0), audio::room_noise(8.0)].concat();
    audio::write_wav(&crying, &clip);
    audio::write_wav(&quiet, &audio::room_noise(10.0));
    std::fs::write(&broken, "RIFF and nothing more").unwrap();
    let out = wait::output(nursery(["detect", "--json"]).args([&broken, &crying, &quiet]), SOON);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("broken.wav"), "{said}");
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("a JSON line")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let found = &lines[0];
    assert!(found["file"].as_str().unwrap().ends_with("crying.wav") && found["label"] == "baby_cry");
    let (onset, offset) = (found["onset"].as_f64().unwrap(), found["offset"].as_f64().unwrap());
    assert!((3.0..5.5).contains(&onset) && (8.5..12.0).contains(&offset), "{found}");
    assert!((0.0..=1.0).contains(&found["score"].as_f64().unwrap()), "{found}");
    assert!((0.5..=offset).contains(&found["sustained_s"].as_f64().unwrap()), "{found}");
}

#[test]
fn a_recording_may_come_on_standard_input() {
    let dir = TempDir::new();
    let crying = dir.join("crying.wav");
    audio::write_wav(&crying, &[audio::cry(6.0), audio::room_noise(3.0)].concat());
    let mut child = nursery(["detect", "--json", "-"])
        .stdin(Stdio::from(File::open(&crying).unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(wait::for_exit(&mut child, SOON).is_some(), "detect does not end");
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("baby_cry"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let out = wait::output(&mut nursery(["detect", "--json", "nowhere.wav"]), SOON);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("nowhere.wav") && out.stdout.is_empty());
}

#[test]
fn curves_and_pictures_of_a_directory_show_the_cry() {
    let dir = TempDir::new();
    let night = dir.join("night");
    std::fs::create_dir(&night).unwrap();
    audio::write_wav(&night.join("crying.wav"), &[audio::room_noise(5.0), audio::cry(6.0)].concat());
    audio::write_wav(&night.join("quiet.wav"), &audio::room_noise(9.0));
    let (curve, pictures) = (dir.join("curve.csv"), dir.join("{}.svg"));
    let mut command = nursery(["detect"]);
    command.arg("--curve").arg(&curve).arg("--plot").arg(&pictures).arg(&night);
    let out = wait::output(&mut command, SOON);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let curve = std::fs::read_to_string(&curve).unwrap();
    let highest = |name: &str, from: f64, to: f64| {
        let rows = curve.lines().skip(1).filter(|row| row.contains(name));
        let numbers =
            rows.map(|row| row.split(',').skip(1).map(|n| n.parse().unwrap()).collect::<Vec<f64>>());
        numbers.filter(|row| (from..to).contains(&row[0])).map(|row| row[1]).fold(0.0, f64::max)
    };
    assert!(highest("crying.wav", 5.0, 11.0) > 0.5 && highest("crying.wav", 0.0, 4.0) < 0.5, "{curve}");
    assert!(highest("quiet.wav", 0.0, 9.0) < 0.5, "{curve}");
    for (name, cries) in [("crying.svg", true), ("quiet.svg", false)] {
        let picture = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.contains("no cry"), !cries, "{name}");
    }
}
