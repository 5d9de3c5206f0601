//! The files of training and evaluation that people may edit: labels, truth, predictions. Errors name file and row in
//! one line, and what a program of ours wrote it can read again.

use nursery_models::{
    evaluation::{Predictions, Truth, truth},
    train::{
        corpus::Corpus,
        prepare::{read_labels, write_labels},
    },
};

use crate::{
    mutate::Mutator,
    scratch::Scratch,
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

pub const LABELS: Target = Target {
    name: "labels",
    about: "the file of labels that training reads",
    mutator: Mutator::Text,
    words: &["path,start_s,end_s,kind", "cry", "unsure", "none", ",", ",,,none", "0.00", "1.23", "86399.99"],
    longest: 16 << 10,
    memory: |len| 60 * len + ROOM,
    seconds: 1.0,
    short: 3_000,
    seeds: Vec::new,
    check: || {
        let folder = Scratch::new("labels");
        Box::new(move |input| labels(&folder, input))
    },
};

fn labels(folder: &Scratch, input: &[u8]) -> Verdict {
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, input).map_err(|e| e.to_string())?;
    let labels = match read_labels(&path) {
        Ok(labels) => labels,
        Err(e) => {
            named(&e, "labels.csv")?;
            return Ok(way_of_text(&e));
        }
    };
    if let Some(s) = labels.values().flatten().find(|s| s.start >= s.end) {
        return Err(format!("a stretch that is none: {s:?}"));
    }
    // As a preparation does that goes on where one was stopped.
    let write = || write_labels(&Corpus::default(), &path, |_, _| ());
    write()?;
    let written = std::fs::read(&path).map_err(|e| e.to_string())?;
    let again = read_labels(&path).map_err(|e| format!("what was written cannot be read again: {e}"))?;
    if again.keys().ne(labels.keys()) {
        return Err("what was written names other clips".into());
    }
    let counts =
        |labels: &nursery_models::train::prepare::Labels| labels.values().map(Vec::len).collect::<Vec<_>>();
    if counts(&again) != counts(&labels) {
        return Err("what was written has another number of stretches".into());
    }
    write()?;
    if std::fs::read(&path).map_err(|e| e.to_string())? != written {
        return Err("what was written is written otherwise the next time".into());
    }
    Ok(way((size(labels.len()), size(counts(&labels).iter().sum()))))
}

/// Errors are one line that names the file.
fn named(error: &str, file: &str) -> Result<(), String> {
    one_line(error)?;
    if error.contains(file) { Ok(()) } else { Err(format!("an error that names no file: {error}")) }
}

/// Stands between the two files in a sample.
const NEXT_FILE: &str = "=====\n";

pub const TRUTH: Target = Target {
    name: "truth",
    about: "the truth of mixtures that evaluation reads",
    mutator: Mutator::Text,
    words: &[
        "\"",
        ",",
        "dcase",
        "nursery",
        "quiet",
        "baby_cry",
        "file",
        "onset",
        "NaN",
        "inf",
        "1e999",
        "=====",
        "a.wav",
        "telephone",
        "level_dbfs",
    ],
    longest: 16 << 10,
    memory: |len| 100 * len + ROOM,
    seconds: 1.0,
    short: 3_000,
    seeds: Vec::new,
    check: || {
        let folder = Scratch::new("truth");
        Box::new(move |input| truths(&folder, input))
    },
};

fn truths(folder: &Scratch, input: &[u8]) -> Verdict {
    let cut = input.windows(NEXT_FILE.len()).position(|w| w == NEXT_FILE.as_bytes());
    let (files, sounds) = match cut {
        Some(at) => (&input[..at], &input[at + NEXT_FILE.len()..]),
        None => (input, &b"file,onset,offset,class,source,path,level_dbfs\n"[..]),
    };
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).map_err(|e| e.to_string());
    write("ground_truth.csv", files)?;
    write("quiet_events.csv", sounds)?;
    let found = match truth::read(folder.path()) {
        Ok(found) => found,
        Err(e) => {
            one_line(&e)?;
            if !e.contains("ground_truth.csv") && !e.contains("quiet_events.csv") {
                return Err(format!("an error that names no file: {e}"));
            }
            return Ok(way_of_text(&e));
        }
    };
    let finite = |t: &Truth| {
        let cry = t.cry.iter().flat_map(|c| [c.onset_s, c.offset_s, c.ebr_db]);
        let sounds = t.sounds.iter().flat_map(|s| [s.onset_s, s.offset_s, s.level_dbfs]);
        cry.chain(sounds).chain([t.duration_s]).chain(t.rt60_s).all(f64::is_finite)
    };
    if !found.iter().all(finite) {
        return Err("a number that is none".into());
    }
    // Written and read again: the same after one rounding.
    let again = |truths: &[Truth]| {
        truth::write(folder.path(), truths)?;
        truth::read(folder.path()).map_err(|e| format!("what was written cannot be read again: {e}"))
    };
    let once = again(&found)?;
    let twice = again(&once)?;
    if once != twice || once.len() != found.len() {
        return Err("what was written is read otherwise".into());
    }
    let texts = |t: &Truth| (t.file.clone(), t.condition.clone(), t.background_class.clone(), t.scene());
    if found.iter().map(texts).ne(once.iter().map(texts)) {
        return Err("what was written has other words".into());
    }
    let sounds: usize = found.iter().map(|t| t.sounds.len()).sum();
    Ok(way((size(found.len()), size(sounds), found.iter().filter(|t| t.cry.is_some()).count().min(3))))
}

pub const PREDICTIONS: Target = Target {
    name: "predictions",
    about: "the events that evaluation reads from `nursery detect --json`",
    mutator: Mutator::Text,
    words: &[
        "file", "onset", "offset", "label", "score", "baby_cry", "a.wav", "null", "1e999", "{", "}", "\"",
        "\\u0000",
    ],
    longest: 16 << 10,
    memory: |len| 100 * len + ROOM,
    seconds: 1.0,
    short: 10_000,
    seeds: Vec::new,
    check: || {
        let truths = ["a.wav", "b.wav"].map(|file| Truth { file: file.into(), ..Truth::default() });
        Box::new(move |input| predictions(&truths, input))
    },
};

fn predictions(truths: &[Truth], input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(way("no text")) };
    match Predictions::from_json_lines(text, "found.jsonl", truths) {
        Ok((found, unknown)) => {
            let mut count = 0;
            for detection in ["a.wav", "b.wav"].into_iter().flat_map(|file| found.of(file)) {
                count += 1;
                let numbers = [detection.onset_s, detection.offset_s, detection.score];
                if !numbers.iter().all(|x| x.is_finite()) || detection.offset_s < detection.onset_s {
                    return Err(format!("{detection:?}"));
                }
            }
            if !found.scores().is_sorted() || count + unknown > text.lines().count() {
                return Err(format!("{count} and {unknown} events of {} lines", text.lines().count()));
            }
            Ok(way((size(count), size(unknown))))
        }
        Err(e) => {
            named(&e, "found.jsonl: line ")?;
            Ok(way_of_text(&e))
        }
    }
}
