//! Weights files: a good one loads and says what it is; any other is refused in one clear line that names the file and
//! what does not fit, before anything it asks for is allocated.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Lcg;
use nursery_models::weights::{self, Description};
use nursery_models::{Detector, ModelError};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

fn weights_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nursery.safetensors")
}

fn good() -> Vec<u8> {
    std::fs::read(weights_file()).unwrap()
}

/// A file that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("nursery-models-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_saved_file_loads_and_is_the_built_in_model() {
    let loaded = Detector::load(&weights_file()).unwrap();
    assert_eq!(loaded.info(), Detector::embedded().unwrap().info());
    let (description, tensors) = weights::parse(&good()).unwrap();
    assert!(
        weights::serialize(&description, &tensors).unwrap() == good(),
        "the same input gives the same bytes"
    );
}

/// Loads the bytes as a file, which must fail; returns the message.
fn refused(name: &str, bytes: &[u8]) -> String {
    let file = Scratch::new(name, bytes);
    let message = Detector::load(&file.0).unwrap_err().to_string();
    assert!(message.contains(file.0.to_str().unwrap()), "names the file: {message}");
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let good = good();
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for (name, bytes) in [
        ("empty", &[][..]),
        ("text", b"hello, this is a text file and no model"),
        ("truncated", &good[..good.len() - 100]),
        ("header-only", &good[..400]),
        ("longer", &[good.as_slice(), &[0; 4]].concat()),
        ("huge-header", &huge_header),
    ] {
        let message = refused(name, bytes);
        assert!(message.contains("no complete safetensors"), "{name}: {message}");
    }
    let missing = Detector::load(Path::new("/nonexistent/model.safetensors")).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/model.safetensors: cannot be read"));
    let folder = Detector::load(&std::env::temp_dir()).unwrap_err();
    assert!(folder.to_string().contains("cannot be read"), "{folder}");
}

#[test]
fn a_file_beyond_the_size_limit_is_refused_before_it_is_read() {
    let file = Scratch::new("large", &[]);
    let handle = std::fs::OpenOptions::new().write(true).open(&file.0).unwrap();
    handle.set_len(weights::MAX_BYTES + 1).unwrap();
    assert!(matches!(Detector::load(&file.0), Err(ModelError::TooLarge { .. })));
    assert!(matches!(Detector::load(Path::new("/dev/zero")), Err(ModelError::TooLarge { .. })));
}

#[test]
fn somebody_elses_model_is_refused() {
    let bytes = [0u8; 16];
    let view = || TensorView::new(Dtype::F32, vec![4], &bytes).unwrap();
    let bare = safetensors::serialize([("weight", view())], None).unwrap();
    assert!(refused("bare", &bare).contains("no \"nursery\" entry"));
    let metadata = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
    let foreign = safetensors::serialize([("weight", view())], metadata).unwrap();
    assert!(refused("foreign", &foreign).contains("no \"nursery\" entry"));
    let metadata = Some(HashMap::from([("nursery".to_owned(), "{\"format\": 2".to_owned())]));
    let broken = safetensors::serialize([("weight", view())], metadata).unwrap();
    assert!(refused("broken", &broken).contains("metadata that does not parse"));
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// The values, changed.
    fn change(&mut self, change: impl FnOnce(&mut Vec<f32>)) {
        let quads = self.bytes.chunks_exact(4);
        let mut values = quads.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        change(&mut values);
        self.bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    }
}

type Tensors = BTreeMap<String, Stored>;

/// The good file with its metadata or tensors changed behind the checks of `serialize`.
fn altered(change: impl FnOnce(&mut Value, &mut Tensors)) -> Vec<u8> {
    let (description, tensors) = weights::parse(&good()).unwrap();
    let layout = layout(&description);
    let stored = tensors.into_iter().map(|(name, values)| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = layout[&name].clone();
        (name, Stored { dtype: Dtype::F32, shape, bytes })
    });
    let mut stored = stored.collect();
    let mut value = serde_json::to_value(&description).unwrap();
    change(&mut value, &mut stored);
    let views = stored
        .iter()
        .map(|(name, s)| (name.as_str(), TensorView::new(s.dtype, s.shape.clone(), &s.bytes).unwrap()));
    let metadata = HashMap::from([("nursery".to_owned(), value.to_string())]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn layout(description: &Description) -> BTreeMap<String, Vec<usize>> {
    description.network.serving_layout(description.front_end.mels).into_iter().collect()
}

#[test]
fn the_alterations_start_from_a_file_that_loads() {
    Detector::from_bytes(&altered(|_, _| ()), "unaltered").unwrap();
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_does_not_fit() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 24] = [
        ("older", |d| d["format"] = json!(1), "format 1 is not 2, the one this version reads"),
        ("newer", |d| d["format"] = json!(3), "format 3 is not 2, the one this version reads"),
        ("labels", |d| d["labels"] = json!(["dog"]), "labels must be [\"baby_cry\"]"),
        ("more-labels", |d| d["labels"] = json!(["baby_cry", "dog"]), "labels must be [\"baby_cry\"]"),
        ("no-labels", |d| d["labels"] = json!([]), "labels must be [\"baby_cry\"]"),
        ("rate", |d| d["front_end"]["sample_rate"] = json!(8_000), "sample_rate is 8000"),
        ("frame", |d| d["front_end"]["frame"] = json!(1u64 << 40), "front end: frame is"),
        ("mels", |d| d["front_end"]["mels"] = json!(100_000), "front end: mels is 100000"),
        ("fewer-mels", |d| d["front_end"]["mels"] = json!(32), "the network needs"),
        ("hop", |d| d["hop"] = json!(7_777), "multiples of the score frame"),
        ("no-hop", |d| d["hop"] = json!(0), "multiples of the score frame"),
        ("long-hop", |d| d["hop"] = json!(1_600_000), "hop may be up to 10 s"),
        ("lookahead", |d| d["lookahead"] = json!(801), "multiples of the score frame"),
        ("threshold", |d| d["threshold"] = json!(1.5), "threshold or calibration out of range"),
        ("scale", |d| d["logit_scale"] = json!(-1.0), "threshold or calibration out of range"),
        ("name", |d| d["name"] = json!("two\nlines"), "printable characters"),
        ("unknown", |d| d["surprise"] = json!(true), "surprise"),
        ("missing", |d| drop(d.as_object_mut().unwrap().remove("hop")), "missing field `hop`"),
        ("wide", |d| d["network"]["width"] = json!(64), "the network needs"),
        ("giant", |d| d["network"]["convs"][0]["channels"] = json!(1_000_000_000_000_u64), "out of range"),
        ("kernel", |d| d["network"]["convs"][0]["kernel"] = json!([3, 4]), "convolution out of range"),
        (
            "slow",
            |d| {
                d["hop"] = json!(160_000);
                d["network"]["convs"] = json!([{"channels": 512, "kernel": [1, 1], "stride": [1, 1]}]);
            },
            "multiplications and",
        ),
        (
            "slow-in-the-middle",
            |d| {
                let conv = json!({"channels": 128, "kernel": [1, 1], "stride": [1, 1]});
                d["network"]["convs"] =
                    json!([conv, conv, conv, conv, conv, conv, conv, conv, conv, conv, conv, conv]);
                d["hop"] = json!(40_000);
            },
            "multiplications and",
        ),
        ("state", |d| d["network"]["dilations"] = json!([1, 256, 256]), "a stream's state would take"),
    ];
    for (name, change, expected) in cases {
        let message = refused(name, &altered(|d, _| change(d)));
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    type Change = fn(&mut Tensors);
    let cases: [(&str, Change, &str); 9] = [
        ("lacking", |t| drop(t.remove("head.bias")), "tensors, the network needs"),
        (
            "additional",
            |t| drop(t.insert("extra".into(), Stored { dtype: Dtype::U8, shape: vec![1], bytes: vec![0] })),
            "tensors, the network needs",
        ),
        (
            "renamed",
            |t| {
                let bias = t.remove("head.bias").unwrap();
                t.insert("tail.bias".into(), bias);
            },
            "lacks tensor head.bias",
        ),
        (
            "short",
            |t| {
                let weight = t.get_mut("conv1.weight").unwrap();
                weight.shape = vec![10];
                weight.bytes.truncate(40);
            },
            "tensor conv1.weight is F32 [10], the network needs F32",
        ),
        (
            "transposed",
            |t| t.get_mut("project.weight").unwrap().shape.reverse(),
            "tensor project.weight is F32",
        ),
        (
            "half",
            |t| {
                let weight = t.get_mut("conv1.weight").unwrap();
                weight.dtype = Dtype::F16;
                weight.bytes.truncate(weight.bytes.len() / 2);
            },
            "tensor conv1.weight is F16",
        ),
        (
            "not-a-number",
            |t| t.get_mut("conv1.weight").unwrap().change(|v| v[3] = f32::NAN),
            "tensor conv1.weight holds values that are not finite",
        ),
        (
            "infinite",
            |t| t.get_mut("head.bias").unwrap().change(|v| v[0] = f32::NEG_INFINITY),
            "tensor head.bias holds values that are not finite",
        ),
        (
            "enormous",
            |t| t.get_mut("head.weight").unwrap().change(|v| v[0] = 1e30),
            "tensor head.weight holds values that are not finite or far too large",
        ),
    ];
    for (name, change, expected) in cases {
        let message = refused(name, &altered(|_, t| change(t)));
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn extreme_weights_still_give_probabilities() {
    for value in [1e4, -1e4] {
        let bytes = altered(|_, tensors| {
            tensors.values_mut().for_each(|t| t.change(|v| v.fill(value)));
        });
        let mut detector = Detector::from_bytes(&bytes, "extreme").unwrap();
        let mut states = [detector.fresh()];
        let noise = Lcg::noise(3, detector.info().window);
        for _ in 0..3 {
            let scores = detector.score_batch(&[&noise], &mut states).unwrap().concat();
            assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "{value}: {scores:?}");
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let good = good();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut lcg = Lcg::new(17);
    let mut below = |n: usize| ((lcg.draw() + 1.0) / 2.0 * n as f64) as usize;
    let mut loaded = 0;
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=round % 4 {
            // Mostly where the file describes itself.
            let at = below(if round % 5 == 0 { good.len() } else { header });
            bytes[at] = below(256) as u8;
        }
        // Many are refused; what loads must still give probabilities.
        let Ok(mut detector) = Detector::from_bytes(&bytes, "damaged") else { continue };
        loaded += 1;
        let mut states = [detector.fresh()];
        let window = vec![0.1; detector.info().window];
        if let Ok(scores) = detector.score_batch(&[&window], &mut states) {
            assert!(scores.concat().iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
    assert!((1..400).contains(&loaded), "{loaded} of the damaged files load");
    for n in [0, 7, 8, 9, 64, 1_000, 100_000] {
        let noise: Vec<u8> = (0..n).map(|_| below(256) as u8).collect();
        assert!(Detector::from_bytes(&noise, "noise").is_err());
    }
}
