//! The evaluation as its users see it: figures worked out by hand come out, and mixtures hold what their truth says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use nursery_models::evaluation::score::{ALL, Share};
use nursery_models::evaluation::sound::{db, rms, to_float};
use nursery_models::evaluation::truth::{self, Cry, DCASE, NURSERY, QUIET, Sound};
use nursery_models::evaluation::{Predictions, Scores, Setup, Studio, Truth, build, score, worst};
use nursery_models::train::corpus::Corpus;
use std::path::{Path, PathBuf};

fn cry(onset_s: f64, offset_s: f64, ebr_db: f64, source: &str) -> Option<Cry> {
    Some(Cry { onset_s, offset_s, ebr_db, path: format!("{source}/a, \"b\".flac"), source: source.into() })
}

fn file(name: &str, condition: &str, background: &str, cry: Option<Cry>) -> Truth {
    let (file, condition, background_class) = (name.into(), condition.into(), background.into());
    let duration_s = if condition == QUIET { 600.0 } else { 30.0 };
    Truth {
        file,
        condition,
        duration_s,
        cry,
        background_class,
        background_source: "s".into(),
        ..Truth::default()
    }
}

/// Six files after DCASE, four of nurseries, one quiet night.
fn truths() -> Vec<Truth> {
    let mut truths = vec![
        // Found on the collar's edge, with a second event that overlaps.
        file("d0.wav", DCASE, "dog", cry(10.0, 12.0, 0.0, "x")),
        // Found, but beyond the collar.
        file("d1.wav", DCASE, "rain", cry(10.0, 12.0, 6.0, "y")),
        // Missed, and something else reported far away.
        file("d2.wav", DCASE, "cat", cry(20.0, 22.0, -6.0, "x")),
        // Missed; nothing above the threshold.
        file("d3.wav", DCASE, "cat", cry(5.0, 6.0, -6.0, "y")),
        file("d4.wav", DCASE, "cat", None),
        file("d5.wav", DCASE, "dog", None),
        file("n0.wav", NURSERY, "machine:pink", cry(3.0, 5.0, 12.0, "x")),
        file("n1.wav", NURSERY, "machine:fan+rain", cry(3.0, 5.0, -6.0, "y")),
        file("n2.wav", NURSERY, "machine:white", None),
        file("n3.wav", NURSERY, "machine:white", None),
        file("q0.wav", QUIET, "quiet_night", None),
    ];
    truths[8].distractor = Some(("laugh".into(), 4.0));
    (truths[6].rt60_s, truths[6].telephone) = (Some(0.45), true);
    let sound = |onset_s: f64, offset_s: f64, class: &str| Sound {
        onset_s,
        offset_s,
        class: class.into(),
        source: "s".into(),
        path: format!("{class}.flac"),
        level_dbfs: -20.0,
    };
    truths[10].sounds = vec![
        sound(10.0, 12.0, "cat"),
        sound(11.0, 13.0, "siren"),
        sound(100.0, 105.0, "cat"),
        sound(300.0, 310.0, "dog"),
    ];
    truths
}

const DETECTIONS: &str = r#"
{"file":"/some/where/d0.wav","onset":9.5,"offset":11.0,"label":"baby_cry","score":0.9}
{"file":"d0.wav","onset":11.5,"offset":12.0,"label":"baby_cry","score":0.6}
{"file":"d1.wav","onset":10.501,"offset":11.5,"score":0.8}
{"file":"d2.wav","onset":1.0,"offset":2.0,"label":"baby_cry","score":0.8}
{"file":"d3.wav","onset":5.0,"offset":6.0,"label":"baby_cry","score":0.49}
{"file":"d4.wav","onset":7.0,"offset":7.0,"label":"baby_cry","score":0.8}
{"file":"d5.wav","onset":7.0,"offset":8.0,"label":"laugh","score":0.99}
{"file":"n0.wav","onset":3.2,"offset":5.0,"label":"baby_cry"}

{"file":"n1.wav","onset":6.0,"offset":8.0,"label":"baby_cry","score":0.7}
{"file":"n2.wav","onset":4.0,"offset":5.0,"label":"baby_cry","score":0.5}
{"file":"q0.wav","onset":13.4,"offset":14.0,"label":"baby_cry","score":0.9}
{"file":"q0.wav","onset":9.0,"offset":9.5,"label":"baby_cry","score":0.9}
{"file":"q0.wav","onset":12.0,"offset":12.6,"label":"baby_cry","score":0.9}
{"file":"q0.wav","onset":69.0,"offset":70.0,"label":"baby_cry","score":0.7}
{"file":"q0.wav","onset":128.9,"offset":130.0,"label":"baby_cry","score":0.7}
{"file":"elsewhere.wav","onset":1.0,"offset":2.0,"label":"baby_cry","score":0.9}
"#;

fn scored(threshold: f64) -> Scores {
    let truths = truths();
    let (predictions, unknown) = Predictions::from_json_lines(DETECTIONS, "p", &truths).unwrap();
    assert_eq!(unknown, 1);
    score(&truths, &predictions, threshold)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn event_based_figures_are_those_worked_out_by_hand() {
    let scores = scored(0.5);
    assert_eq!((scores.files, scores.with_cry), (11, 6));
    let dcase = scores.events_of(DCASE).unwrap();
    // d0's first is right, its second an insertion; d1 is 501 ms off; d2 and d4 are insertions.
    assert_eq!((dcase.events, dcase.hits, dcase.deletions(), dcase.insertions), (4, 1, 3, 4));
    close(dcase.error_rate(), 7.0 / 4.0);
    close(dcase.precision(), 1.0 / 5.0);
    close(dcase.recall(), 1.0 / 4.0);
    close(dcase.f1(), 2.0 * 0.2 * 0.25 / 0.45);
    let nursery = scores.events_of(NURSERY).unwrap();
    assert_eq!((nursery.events, nursery.hits, nursery.insertions), (2, 1, 2));
    let all = scores.events_of(ALL).unwrap();
    assert_eq!((all.events, all.hits, all.insertions), (6, 2, 6));
    // With 0.9 and above only d0's first is left (3 deletions); with anything lower there are more insertions,
    // with n0's 1.0 there are 4 deletions.
    let best = scores.best.unwrap();
    close(best.threshold, 0.9);
    close(best.figures.error_rate(), 3.0 / 4.0);
}

#[test]
fn clip_figures_share_operating_points_of_equal_scores() {
    let scores = scored(0.5);
    let clip = |name: &str| scores.clips.iter().find(|(n, _)| n == name).unwrap().1;
    let dcase = clip(DCASE);
    // Detections in d0, d1, d2 (all with a cry) and d4.
    close(dcase.precision, 3.0 / 4.0);
    close(dcase.recall, 3.0 / 4.0);
    close(dcase.prevalence, 4.0 / 6.0);
    // d0 alone at 0.9; d1, d2 and d4 share 0.8; d3 at 0.49; d5 last.
    close(dcase.average_precision, 0.25 * 1.0 + 0.5 * 3.0 / 4.0 + 0.25 * 4.0 / 5.0);
    close(clip(NURSERY).average_precision, 1.0);
    close(clip(NURSERY).precision, 2.0 / 3.0);
}

#[test]
fn cries_are_found_by_overlap_with_tolerance() {
    let scores = scored(0.5);
    let share = |part, of| Share { part, of };
    assert_eq!(scores.recall_by_condition[DCASE], share(2, 4));
    // n1's detection begins exactly a second after the cry's end: too late.
    assert_eq!(scores.recall_by_condition[NURSERY], share(1, 2));
    assert_eq!(scores.recall_by_level[&(DCASE.to_owned(), -6)], share(0, 2));
    let levels = scores.recall_by_named_level();
    assert!(levels.contains(&("dcase EBR  +0 dB".into(), share(1, 1))), "{levels:?}");
    assert!(levels.contains(&("nursery EBR +12 dB".into(), share(1, 1))), "{levels:?}");
    assert_eq!(scores.recall_by_source["dcase x"], share(1, 2));
    assert_eq!(scores.recall(), share(3, 6));
    assert_eq!(scores.onset_errors.len(), 3);
    close(scores.onset_errors[0], -0.5);
    close(scores.onset_errors[2], 0.2);
    assert!(scores.delays.is_empty(), "files do not tell when it was announced");
    assert_eq!(scored(0.49).recall(), share(4, 6));
}

#[test]
fn alerts_come_sixty_seconds_apart_and_confusions_name_what_was_near() {
    let scores = scored(0.5);
    let quiet = scores.false_alarms_of(QUIET).unwrap();
    // Alerts at 9.0 and exactly 60 s later; 128.9 is 59.9 s after that.
    assert_eq!((quiet.events, quiet.alerts), (5, 2));
    close(quiet.alerts_per_hour(), 12.0);
    let dcase = scores.false_alarms_of(DCASE).unwrap();
    assert_eq!((dcase.events, dcase.alerts), (1, 1));
    close(dcase.hours, 60.0 / 3_600.0);
    let count = |name: &str| scores.confusions.iter().find(|(n, _)| n == name).map(|(_, s)| (s.part, s.of));
    // 9.0..9.5 ends exactly half a second before the cat: not near. 12.0..12.6 is near cat and siren, 13.4 the siren.
    assert_eq!(count("quiet: cat"), Some((1, 2)));
    assert_eq!(count("quiet: siren"), Some((2, 1)));
    assert_eq!(count("quiet: (nothing placed here)"), Some((3, 0)));
    assert_eq!(count("quiet: dog"), None);
    // d2's stray detection and d4's, in three files with cats.
    assert_eq!(count("dcase bg: cat"), Some((2, 3)));
    assert_eq!(count("nursery: distractor laugh"), Some((1, 1)));
    assert_eq!(count("nursery: machine:fan+rain"), Some((1, 1)));
    assert!(scores.confusions.windows(2).all(|w| w[0].1.part >= w[1].1.part));
}

#[test]
fn the_worst_are_listed_with_what_was_there() {
    let truths = truths();
    let (predictions, _) = Predictions::from_json_lines(DETECTIONS, "p", &truths).unwrap();
    let sure = predictions.above(0.5);
    let misses: Vec<String> = worst::misses(&truths, &sure, None, 2).into_iter().map(|m| m.file).collect();
    assert_eq!(misses, ["d2.wav", "d3.wav"]);
    let alarms = worst::false_alarms(&truths, &sure, 100);
    assert_eq!(alarms.len(), 9);
    assert!(alarms.windows(2).all(|w| w[0].score >= w[1].score));
    let siren = alarms.iter().find(|a| a.onset == 12.0).unwrap();
    assert_eq!((siren.scene.as_str(), siren.paths.len()), ("quiet: cat+siren", 2));
}

#[test]
fn bad_lines_are_named() {
    let truths = truths();
    for (text, what) in [
        ("{\"file\":\"d0.wav\",\"onset\":1,\"offset\":2}\nnonsense", "line 2: is no JSON object"),
        ("[1]", "line 1: is no JSON object"),
        ("\n{\"onset\":1,\"offset\":2}", "line 2: \"file\" is missing"),
        ("{\"file\":\"d0.wav\",\"onset\":\"1\",\"offset\":2}", "\"onset\" is \"1\", must be a number"),
        ("{\"file\":\"d0.wav\",\"onset\":1}", "\"offset\" is missing"),
    ] {
        let error = Predictions::from_json_lines(text, "some.jsonl", &truths).unwrap_err();
        assert!(error.starts_with("some.jsonl: ") && error.contains(what), "{error}");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nursery-evaluation-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn written_truth_is_read_back_and_bad_truth_is_refused_by_row() {
    let folder = Folder::new("truth");
    let truths = truths();
    truth::write(&folder.0, &truths).unwrap();
    assert_eq!(truth::read(&folder.0).unwrap(), truths);
    let path = folder.0.join("ground_truth.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("20.000", "soon")).unwrap();
    let error = truth::read(&folder.0).unwrap_err();
    assert!(error.contains("row 4: onset is \"soon\", must be a number"), "{error}");
    std::fs::write(&path, "file,condition\nx,y\n").unwrap();
    assert!(truth::read(&folder.0).unwrap_err().contains("column present is missing"));
    std::fs::remove_file(&path).unwrap();
    assert!(truth::read(&folder.0).unwrap_err().contains("--truth must name a folder"));
}

#[test]
fn a_corpus_without_cries_or_without_anything_else_is_refused() {
    let setup = Setup { dcase: 2, nursery: 0, quiet: 0, ..Setup::default() };
    assert!(build(&Corpus::default(), &setup).unwrap_err().contains("no background"));
    let odd = Setup { seconds: f64::NAN, ..setup };
    assert!(build(&Corpus::default(), &odd).unwrap_err().contains("must be"));
}

#[test]
fn mixtures_hold_what_their_truth_says_and_come_again_from_their_seed() {
    let Some(data) = common::corpus() else { return };
    // A few cry recordings of each collection, and steady backgrounds, whose level is the same all the way through.
    let steady = ["noise_machine", "rain", "roomtone", "adult_cry", "cat"];
    let seen = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let few = |kind: &str| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(kind.to_owned()).or_default();
        *count += 1;
        *count <= 6
    };
    let corpus = Corpus::read(
        &data,
        2,
        |c| {
            c.split == "dev"
                && (c.is_cry && few(&c.source) || steady.contains(&c.class.as_str()) && few(&c.class))
        },
        |_, _| (),
    )
    .unwrap();
    let setup = Setup { dcase: 12, nursery: 8, quiet: 2, quiet_minutes: 1.0, seed: 7, ..Setup::default() };
    let mixtures = build(&corpus, &setup).unwrap();
    assert_eq!(mixtures.len(), 22);
    let all: Vec<_> = mixtures.iter().collect();
    assert_eq!(all.iter().filter(|m| m.truth.condition == DCASE && m.truth.cry.is_some()).count(), 6);
    assert_eq!(all.iter().filter(|m| m.truth.condition == NURSERY && m.truth.cry.is_some()).count(), 4);
    let mut measured = 0;
    for mixture in &all {
        let (truth, x) = (&mixture.truth, to_float(&mixture.samples));
        assert_eq!(x.len() as f64, truth.duration_s * 16_000.0, "{truth:?}");
        assert!(x.iter().all(|x| x.abs() <= 0.991), "{truth:?}");
        assert_eq!(truth.telephone, truth.condition == NURSERY || truth.file == "quiet_001.wav");
        if truth.condition == QUIET {
            assert!((40..=70).contains(&truth.sounds.len()) && truth.cry.is_none());
            assert!(truth.sounds.iter().all(|s| s.offset_s <= truth.duration_s && s.class != "cry"));
            continue;
        }
        let Some(cry) = &truth.cry else {
            let level = db(rms(&x));
            if truth.condition == DCASE {
                assert!((-35.1..-24.9).contains(&level), "{level} {truth:?}");
            }
            continue;
        };
        assert!((1.0..=5.03).contains(&(cry.offset_s - cry.onset_s)) && cry.offset_s <= 30.0, "{cry:?}");
        if truth.condition == DCASE {
            // What rises over the background is the cry: power in its span less that of the rest.
            let at = |s: f64| (s * 16_000.0).round() as usize;
            let span = at(cry.onset_s)..at(cry.offset_s);
            let rest: Vec<f32> = x[..span.start].iter().chain(&x[span.end..]).copied().collect();
            let (loud, soft) = (rms(&x[span]).powi(2), rms(&rest).powi(2));
            if truth.background_class != "rain" && truth.background_class != "noise_machine" {
                continue;
            }
            let ebr = 10.0 * ((loud - soft).max(1e-12) / soft).log10();
            assert!((ebr - cry.ebr_db).abs() < 3.0, "{ebr} dB, {truth:?}");
            measured += 1;
        }
    }
    assert!(measured > 0, "no steady background was drawn");
    // Any order, any thread, any number of files beside it: the same samples.
    let mut studio = Studio::default();
    for i in [20, 3, 15] {
        assert_eq!(mixtures.mixture(i, &mut studio).as_ref(), all.get(i));
    }
    let other = build(&corpus, &Setup { seed: 8, ..setup }).unwrap();
    assert_ne!(other.mixture(3, &mut studio).unwrap().samples, all[3].samples);
    assert!(mixtures.mixture(22, &mut studio).is_none());
}

fn evaluate(arguments: &[&str]) -> (bool, String, String) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_evaluate")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_command_scores_files_and_refuses_what_it_cannot_read() {
    let folder = Folder::new("command");
    truth::write(&folder.0, &truths()).unwrap();
    let at = |name: &str| folder.0.join(name).display().to_string();
    std::fs::write(at("p.jsonl"), DETECTIONS).unwrap();
    let (truth, pred, figures, tables) = (at(""), at("p.jsonl"), at("f.json"), at("t.md"));
    let common = ["--truth", &truth, "--pred", &pred];
    let (well, text, warnings) =
        evaluate(&[&common[..], &["--json", &figures, "--markdown", &tables]].concat());
    assert!(well && warnings.contains("1 detections in files without ground truth"), "{warnings}");
    assert!(text.contains("1.750"), "{text}");
    let value = json(Path::new(&figures));
    assert_eq!(value["event_dcase"]["ER"], 1.75);
    assert_eq!(value["fa_quiet"]["alerts_per_h"], 12.0);
    assert_eq!(value["sensitivities"].as_array().map(Vec::len), Some(3));
    assert!(std::fs::read_to_string(&tables).unwrap().contains("| dcase | 1.750 |"));
    std::fs::write(&pred, "{\"file\":").unwrap();
    let (well, _, error) = evaluate(&common);
    assert!(!well && error.contains("p.jsonl: line 1: "), "{error}");
    let (well, _, error) = evaluate(&["--data", &truth]);
    assert!(!well && error.contains("--data must name the folder"), "{error}");
    let (well, _, error) = evaluate(&["--truth", &truth]);
    assert!(!well && error.contains(".wav"), "{error}");
}

#[test]
fn mixtures_in_memory_and_as_files_give_the_same_figures() {
    let Some(data) = common::corpus() else { return };
    let folder = Folder::new("files");
    let at = |name: &str| folder.0.join(name).display().to_string();
    let (mixtures, a, b) = (at("mixtures"), at("a.json"), at("b.json"));
    let numbers = ["--n-dcase", "4", "--n-nursery", "4", "--n-quiet", "1", "--quiet-minutes", "0.5"];
    let events = ["--threshold", "0.2", "--json"];
    let data = data.display().to_string();
    let built =
        evaluate(&[&["--data", &data, "--write", &mixtures][..], &numbers[..], &events[..], &[&a]].concat());
    assert!(built.0, "{}", built.2);
    let read = evaluate(&[&["--truth", &mixtures, "--jobs", "1"][..], &events[..], &[&b]].concat());
    assert!(read.0, "{}", read.2);
    let (mut a, mut b) = (json(Path::new(&a)), json(Path::new(&b)));
    assert_ne!(a["title"].take(), b["title"].take());
    assert!(a["reliability_quiet"]["bins"].is_array());
    assert_eq!(a, b);
}

/// A corpus of two sources, each with crying and hiss.
fn two_sources(folder: &Path) {
    let mut manifest = String::from("path,class,is_cry,source,source_group,licence,attribution,split\n");
    let noise: Vec<f32> = common::Lcg::noise(3, 6 * common::RATE).iter().map(|x| x * 0.05).collect();
    for (name, class, source, split, samples) in [
        ("near", "cry", "near", "dev", common::cry(7, -20.0).0),
        ("far_dev", "cry", "far", "dev", common::cry(7, -20.0).0),
        ("far_train", "cry", "far", "train", common::cry(9, -20.0).0),
        ("hiss", "roomtone", "near", "dev", noise.clone()),
        ("far_hiss", "roomtone", "far", "train", noise),
    ] {
        common::write_wav(&folder.join(format!("{name}.wav")), &samples);
        let is_cry = u8::from(class == "cry");
        manifest.push_str(&format!("{name}.wav,{class},{is_cry},{source},{name},CC0,here,{split}\n"));
    }
    std::fs::write(folder.join("manifest.csv"), manifest).unwrap();
}

#[test]
fn a_source_that_was_left_out_cries_with_all_it_has_over_what_the_split_holds() {
    let folder = Folder::new("left-out");
    let at = |name: &str| folder.0.join(name).display().to_string();
    two_sources(&folder.0);
    let (data, mixtures) = (at(""), at("mixtures"));
    let numbers = ["--data", &data, "--n-dcase", "24", "--n-nursery", "0", "--n-quiet", "0", "--left-out"];
    let (well, text, said) = evaluate(&[&numbers[..], &["far", "--write", &mixtures]].concat());
    assert!(well && text.contains("split dev, crying of far"), "{text}{said}");
    let truths = truth::read(Path::new(&mixtures)).unwrap();
    let cries: std::collections::BTreeSet<_> =
        truths.iter().filter_map(|t| Some(&t.cry.as_ref()?.path)).collect();
    assert_eq!(cries.into_iter().collect::<Vec<_>>(), ["far_dev.wav", "far_train.wav"]);
    assert!(truths.iter().all(|t| t.background_source == "near"), "{truths:?}");
    let (well, _, error) = evaluate(&[&numbers[..], &["nobody"]].concat());
    assert!(!well && error.contains("no crying is of source nobody"), "{error}");
}

#[test]
fn crying_may_be_of_another_split_than_what_is_heard_beside_it() {
    let folder = Folder::new("cry-split");
    let at = |name: &str| folder.0.join(name).display().to_string();
    two_sources(&folder.0);
    let (data, mixtures) = (at(""), at("mixtures"));
    let numbers = ["--data", &data, "--n-dcase", "24", "--n-nursery", "0", "--n-quiet", "0", "--cry-split"];
    let (well, text, said) = evaluate(&[&numbers[..], &["train", "--write", &mixtures]].concat());
    assert!(well && text.contains("split dev, crying of split train"), "{text}{said}");
    let truths = truth::read(Path::new(&mixtures)).unwrap();
    let cries: Vec<_> = truths.iter().filter_map(|t| Some(t.cry.as_ref()?.path.as_str())).collect();
    assert!(!cries.is_empty() && cries.iter().all(|path| *path == "far_train.wav"), "{cries:?}");
    assert!(truths.iter().all(|t| t.background_source == "near"), "{truths:?}");
    let (well, _, error) = evaluate(&[&numbers[..], &["none"]].concat());
    assert!(!well && error.contains("split dev, crying of split none"), "{error}");
    let (well, _, error) = evaluate(&[&numbers[..], &["train", "--left-out", "far"]].concat());
    assert!(!well && error.contains("--left-out"), "{error}");
}

#[test]
fn recordings_heard_one_after_the_other_hold_the_same_cries_and_are_told_beside_the_single_ones() {
    let folder = Folder::new("streams");
    let at = |name: &str| folder.0.join(name).display().to_string();
    two_sources(&folder.0);
    let (data, figures) = (at(""), at("f.json"));
    // More than one stream of them.
    let numbers =
        ["--data", &data, "--n-dcase", "24", "--n-nursery", "6", "--n-quiet", "0", "--quiet-minutes", "1"];
    let (well, text, said) = evaluate(&[&numbers[..], &["--json", &figures]].concat());
    assert!(well && text.contains("up to 20 recordings heard one after the other"), "{text}{said}");
    let value = json(Path::new(&figures));
    for condition in ["dcase", "nursery", "all"] {
        let [alone, stream] = ["event", "stream"].map(|kind| &value[format!("{kind}_{condition}")]);
        assert!(stream["N"].as_u64().unwrap() > 0 && stream["N"] == alone["N"], "{alone} {stream}");
        assert!(stream["TP"].as_u64().unwrap() > 0, "{alone} {stream}");
    }
}

#[test]
fn crying_that_goes_on_is_heard_from_before_its_onset_and_from_its_middle() {
    let folder = Folder::new("lasting");
    let at = |name: &str| folder.0.join(name).display().to_string();
    two_sources(&folder.0);
    let (data, figures) = (at(""), at("f.json"));
    let nothing = ["--data", &data, "--n-dcase", "0", "--n-nursery", "0", "--n-quiet", "0"];
    let (well, text, said) = evaluate(&[&nothing[..], &["--lasting", "--json", &figures]].concat());
    assert!(well && text.contains("Crying that goes on"), "{text}{said}");
    let all = json(Path::new(&figures))["lasting"].take();
    let heard: Vec<_> = all.as_array().unwrap().iter().map(|l| l["heard"].as_str().unwrap()).collect();
    let kinds = ["quiet room", "noise machine"];
    assert_eq!(heard[..2], kinds);
    assert_eq!(heard[2..], kinds.map(|k| format!("{k}, from the middle")));
    for l in all.as_array().unwrap() {
        // Two recordings of split dev hold crying.
        assert_eq!(l["of"], 2, "{l}");
        let (announced, delay) = (l["announced"].as_u64().unwrap(), l["delay_95"].as_f64());
        assert_eq!(announced > 0, delay.is_some(), "{l}");
        assert!(delay.is_none_or(|s| (0.0..=45.0).contains(&s)), "{l}");
        if l["heard"].as_str().unwrap().starts_with("quiet room") {
            assert!(announced == 2 && delay.unwrap() < 20.0, "{l}");
        }
    }
    let (well, _, error) = evaluate(&nothing);
    assert!(!well && error.contains("nothing to do"), "{error}");
    let (well, _, error) = evaluate(&["--truth", &data, "--lasting"]);
    assert!(!well && error.contains("cannot be used with"), "{error}");
}
