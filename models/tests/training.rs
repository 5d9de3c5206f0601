//! A training from end to end on a small corpus made here: it learns, it can be repeated and resumed, and what it
//! writes is a model that the detector loads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Lcg, RATE, babble, cry, write_wav};
use nursery_models::Detector;
use nursery_models::net::{ConvConfig, NetConfig};
use nursery_models::train::average::average;
use nursery_models::train::corpus::Corpus;
use nursery_models::train::{Plan, Trained, prepare, train};
use std::path::{Path, PathBuf};

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nursery-training-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two recordings of crying and two of everything else.
fn corpus(folder: &Path) -> Corpus {
    let mut manifest = String::from("path,class,is_cry,source,source_group,licence,attribution,split\n");
    let noise: Vec<f32> = Lcg::noise(3, 6 * RATE).iter().map(|x| x * 0.05).collect();
    for (name, class, samples) in [
        ("one", "cry", cry(7, -20.0).0),
        ("two", "cry", cry(9, -30.0).0),
        ("talk", "speech", babble(7, -25.0)),
        ("hiss", "roomtone", noise),
    ] {
        write_wav(&folder.join(format!("{name}.wav")), &samples);
        let is_cry = u8::from(class == "cry");
        manifest.push_str(&format!("{name}.wav,{class},{is_cry},made,{name},CC0,here,train\n"));
    }
    std::fs::write(folder.join("manifest.csv"), manifest).unwrap();
    Corpus::read(folder, 1, |_| true, |_, _| ()).unwrap()
}

fn plan(folder: &Path, steps: u64, seed: u64) -> Plan {
    let conv = |channels, kernel, stride| ConvConfig { channels, kernel, stride };
    Plan {
        minutes: None,
        steps: Some(steps),
        batch: 2,
        seconds: 4,
        rate: 2e-3,
        made: 0.0,
        seed,
        checkpoint: folder.join("checkpoint"),
        resume: false,
        version: "0.0.1".into(),
        commit: "abc".into(),
        network: NetConfig {
            convs: vec![conv(4, (5, 5), (1, 4)), conv(8, (3, 3), (2, 4))],
            width: 16,
            taps: 3,
            dilations: vec![1],
            recurrent: 8,
        },
        lookahead: 3_200,
        served_start: false,
    }
}

fn run(corpus: &Corpus, plan: &Plan) -> (Trained, Vec<f32>) {
    let mut losses = Vec::new();
    let trained = train(corpus, corpus, plan, |p| losses.push(p.loss)).unwrap();
    (trained, losses)
}

#[test]
fn a_training_learns_can_be_repeated_and_gives_a_model() {
    let folder = Folder::new("repeat");
    let corpus = corpus(&folder.0);
    let (trained, losses) = run(&corpus, &Plan { rate: 0.02, ..plan(&folder.0, 240, 1) });
    assert_eq!((trained.steps, losses.len()), (240, 240));
    assert!(losses.iter().all(|l| l.is_finite()));
    assert!(losses[239] < losses[0] - 0.05, "{losses:?}");
    let last = trained.curve.last().unwrap();
    assert!(last.step == 240 && last.dev_loss.is_finite() && (0.0..=1.0).contains(&last.dev_ap), "{last:?}");
    let detector = Detector::from_bytes(&trained.weights, "trained").unwrap();
    assert_eq!(detector.info().window, 4_000);
    let weights = |seed| run(&corpus, &plan(&folder.0, 5, seed)).0.weights;
    let first = weights(1);
    assert!(first == weights(1), "the same seed gives the same file");
    let second = weights(2);
    assert!(first != second, "another seed gives others");
    // What began with the same weights has a mean; another seed began elsewhere.
    let served = run(&corpus, &Plan { served_start: true, ..plan(&folder.0, 5, 1) }).0.weights;
    assert!(first != served, "another start gives others");
    let named = |weights: &[u8], name: &str| (name.to_owned(), weights.to_vec());
    let mean = average(&[named(&first, "first"), named(&served, "served")], "0.0.2", "abc").unwrap();
    Detector::from_bytes(&mean, "mean").unwrap();
    let error = average(&[named(&first, "first"), named(&second, "second")], "0.0.2", "abc").unwrap_err();
    assert!(error.starts_with("second: ") && error.contains("the same --seed"), "{error}");
}

#[test]
fn a_training_goes_on_from_its_checkpoint() {
    let folder = Folder::new("resume");
    let corpus = corpus(&folder.0);
    run(&corpus, &plan(&folder.0, 3, 1));
    let (trained, losses) = run(&corpus, &Plan { resume: true, ..plan(&folder.0, 8, 1) });
    assert_eq!((trained.steps, losses.len()), (8, 5), "three of eight steps were there");
    assert_eq!(trained.curve.iter().map(|p| p.step).collect::<Vec<_>>(), [3, 8]);
    let wrong = train(&corpus, &corpus, &Plan { resume: true, ..plan(&folder.0, 8, 2) }, |_| ());
    assert!(wrong.unwrap_err().contains("was made with seed 1"));
    let other = Plan { served_start: true, resume: true, ..plan(&folder.0, 8, 1) };
    let wrong = train(&corpus, &corpus, &other, |_| ()).unwrap_err();
    assert!(wrong.contains("low start") && wrong.contains("plain start"), "{wrong}");
    let other = Plan { lookahead: 1_600, resume: true, ..plan(&folder.0, 8, 1) };
    let wrong = train(&corpus, &corpus, &other, |_| ()).unwrap_err();
    assert!(wrong.contains("lookahead 3200 samples") && wrong.contains("lookahead 1600"), "{wrong}");
    // What was mined is known by its place in the corpus, so another corpus is another training.
    let fewer = Corpus::read(&folder.0, 1, |c| c.path != "two.wav", |_, _| ()).unwrap();
    let wrong = train(&fewer, &corpus, &Plan { resume: true, ..plan(&folder.0, 8, 1) }, |_| ()).map(|_| ());
    assert!(wrong.as_ref().is_err_and(|e| e.contains("4 clips") && e.contains("3 clips")), "{wrong:?}");
    std::fs::write(folder.0.join("checkpoint"), "nonsense").unwrap();
    let broken = train(&corpus, &corpus, &Plan { resume: true, ..plan(&folder.0, 8, 1) }, |_| ());
    assert!(broken.unwrap_err().contains("is no checkpoint"));
}

#[test]
fn preparation_finds_the_crying_and_keeps_what_was_corrected() {
    let folder = Folder::new("prepare");
    let corpus = corpus(&folder.0);
    let file = folder.0.join("labels.csv");
    let labels = prepare::write_labels(&corpus, &file, |_, _| ()).unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["one.wav", "two.wav"]);
    assert!(labels.values().all(|found| !found.is_empty()), "{labels:?}");
    std::fs::write(&file, "path,start_s,end_s,kind\none.wav,1.00,2.50,cry\n").unwrap();
    let corrected = prepare::write_labels(&corpus, &file, |_, _| ()).unwrap();
    assert_eq!((corrected["one.wav"][0].start, corrected["one.wav"][0].end), (16_000, 40_000));
    assert_eq!(corrected["two.wav"], labels["two.wav"]);
    let read = prepare::read_labels(&file).unwrap();
    assert_eq!(read, corrected);
    let labelled = Corpus::read_labelled(&folder.0, 1, &read, |_| true, |_, _| ()).unwrap();
    let one = labelled.clips.iter().find(|c| c.path == "one.wav").unwrap();
    assert_eq!(one.stretches, corrected["one.wav"]);
    assert!(prepare::codec_check(&corpus).unwrap().contains("after mixing"));
}

/// What `train` says of arguments that it refuses.
fn refusal(out: &Path, arguments: &[&Path]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_train"));
    let done = command.args(["--data", "/nowhere", "--out"]).arg(out).args(arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn weights_that_never_end_are_refused_and_not_read_to_their_end() {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nursery.safetensors");
    let folder = Folder::new("endless");
    let (out, endless) = (folder.0.join("o"), Path::new("/dev/zero"));
    for arguments in [&[Path::new("--average"), &built_in, endless][..], &[Path::new("--calibrate"), endless]]
    {
        let error = refusal(&out, arguments);
        assert!(error.contains("/dev/zero") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_known_before_anything_is_learned() {
    let folder = Folder::new("unwritable");
    let within = folder.0.join("nowhere/o");
    for out in [&within, &folder.0] {
        let error = refusal(out, &[Path::new("--steps"), Path::new("1")]);
        let named = format!("train: {}: cannot be written", out.display());
        assert!(error.starts_with(&named) && error.lines().count() == 1, "{error}");
    }
    let free = folder.0.join("o");
    let error = refusal(&free, &[Path::new("--steps"), Path::new("1")]);
    assert!(error.contains("/nowhere/manifest.csv"), "{error}");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "nothing is left of the attempt");
}
