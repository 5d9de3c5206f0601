//! The engine finds what it is there to find, and every target keeps its promises for a short, repeatable while.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// A folder that is removed again.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("nursery-fuzz-test-{name}-{}", std::process::id())))
    }

    fn fuzz(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nursery-fuzz"));
        command.args(arguments).arg("--findings").arg(&self.0).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a target with a planted fault; returns what was said and the file with the input.
fn found(target: &str) -> (String, Vec<u8>) {
    let folder = Folder::new(target);
    let output = folder.fuzz(&[target, "--executions", "2000", "--seed", "1", "--patience", "2"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let again = said.lines().find_map(|l| l.trim().strip_prefix("again: cargo xtask fuzz ")).expect(&said);
    let file = again.split(" --replay ").nth(1).unwrap().to_owned();
    (said, std::fs::read(file).unwrap())
}

#[test]
fn every_kind_of_fault_is_found_with_the_input_that_shows_it() {
    for (target, words) in [
        ("planted-panic", "a planted panic"),
        ("planted-lie", "a planted violation"),
        ("planted-hang", "hangs"),
        ("planted-slow", "of processor time"),
        ("planted-greed", "allocated"),
        ("planted-bomb", "memory allocation"),
    ] {
        let (said, input) = found(target);
        assert!(said.contains(words), "{target}: {said}");
        assert_eq!(input.len(), 11, "{target}: {said}");
    }
}

#[test]
fn a_finding_can_be_replayed_and_a_harmless_input_is_none() {
    let folder = Folder::new("replay");
    std::fs::create_dir_all(&folder.0).unwrap();
    let (bad, good) = (folder.0.join("bad"), folder.0.join("good"));
    std::fs::write(&bad, "elevenbytes").unwrap();
    std::fs::write(&good, "harmless").unwrap();
    let output = folder.fuzz(&["planted-lie", "--replay", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("a planted violation"), "{}", text(&output));
    assert!(folder.fuzz(&["planted-lie", "--replay", good.to_str().unwrap()]).status.success());
}

#[test]
fn one_seed_draws_the_same_inputs() {
    let run = |seed: &str| {
        let folder = Folder::new(&format!("seed-{seed}"));
        let said = text(&folder.fuzz(&["source", "--executions", "3000", "--seed", seed]));
        let line = said.lines().find(|l| l.starts_with("source")).expect(&said).to_owned();
        // Executions and how many inputs were kept.
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        (words[1].clone(), words[3].clone())
    };
    assert_eq!(run("5"), run("5"));
    assert_eq!(run("5").0, "3000");
}

#[test]
fn every_target_keeps_its_promises_for_a_while() {
    let folder = Folder::new("short");
    let output = folder.fuzz(&["--short", "--seed", "20260101"]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let list = text(&folder.fuzz(&["--list"]));
    assert!(list.lines().count() > 15, "{list}");
    for target in list.lines().filter_map(|l| l.split_whitespace().next()) {
        assert!(said.lines().any(|l| l.starts_with(target)), "{target} did not run: {said}");
    }
}
