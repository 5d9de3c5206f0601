//! The detector as its callers see it: whatever comes in, sane probabilities come out; however the audio is
//! chunked, the scores are the same; a file that does not fit is refused in one clear line.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nursery_models::train::evaluate::score_recording;
use nursery_models::weights::{self, Description};
use nursery_models::window::WindowCutter;
use nursery_models::{Detector, ModelError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn weights_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nursery.safetensors")
}

fn pseudo(n: usize, mut state: u32) -> Vec<f32> {
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// Something like crying: bursts of a harmonic tone whose pitch rises and falls.
fn cry_like(seconds: usize) -> Vec<f32> {
    let mut phase = 0.0f32;
    (0..seconds * 16_000)
        .map(|i| {
            let t = i as f32 / 16_000.0;
            let part = t.fract();
            phase += std::f32::consts::TAU * (380.0 + 120.0 * (part * 3.0).sin()) / 16_000.0;
            let tone: f32 = (1..8).map(|k| (phase * k as f32).sin() / k as f32).sum();
            if part < 0.7 { 0.1 * tone * (part * 4.5).sin().abs() } else { 0.0 }
        })
        .collect()
}

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
fn the_built_in_model_keeps_the_promised_timing() {
    let detector = Detector::embedded().unwrap();
    let info = detector.info();
    assert_eq!((info.sample_rate, info.window, info.hop), (16_000, 48_000, 8_000));
    assert_eq!(info.frame_step * info.frames_per_hop, info.hop);
    assert!(info.frame_step <= 1_280 && info.lookahead <= 4_800);
    assert_eq!(info.labels, ["baby_cry"]);
    assert_eq!(info.threshold, 0.5);
    let json = serde_json::to_string(info).unwrap();
    assert_eq!(serde_json::from_str::<nursery_models::ModelInfo>(&json).unwrap(), *info);
}

#[test]
fn any_samples_give_probabilities() {
    let mut detector = Detector::embedded().unwrap();
    let n = detector.info().window;
    let mut odd = cry_like(3);
    for (i, x) in
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE].into_iter().enumerate()
    {
        odd[20_000 + i * 500] = x;
    }
    let loud: Vec<f32> = pseudo(n, 3).iter().map(|x| x * 1e30).collect();
    let square: Vec<f32> = (0..n).map(|i| if i / 20 % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let mut click = vec![0.0; n];
    click[n - 9_000] = 1.0;
    let windows = [
        vec![0.0; n],
        vec![1.0; n],
        vec![-1.0; n],
        vec![f32::NAN; n],
        vec![f32::INFINITY; n],
        pseudo(n, 1),
        loud,
        square,
        click,
        odd,
        vec![1e-40; n],
    ];
    let slices: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let scores = detector.score_batch(&slices).unwrap();
    assert_eq!(scores.len(), windows.len());
    for (i, scores) in scores.iter().enumerate() {
        assert_eq!(scores.len(), detector.info().frames_per_hop);
        assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "window {i}: {scores:?}");
    }
}

#[test]
fn silence_and_direct_current_are_no_cry() {
    let mut detector = Detector::embedded().unwrap();
    let n = detector.info().window;
    for window in [vec![0.0; n], vec![0.7; n], vec![f32::NAN; n]] {
        let scores = detector.score_batch(&[&window]).unwrap().concat();
        assert!(scores.iter().all(|&p| p < detector.info().threshold), "{scores:?}");
    }
}

#[test]
fn a_window_of_another_length_is_an_error() {
    let mut detector = Detector::embedded().unwrap();
    for n in [0, 1, 47_999, 48_001] {
        let error = detector.score_batch(&[&vec![0.0; n]]).unwrap_err();
        assert!(matches!(error, ModelError::WindowLength { got, want: 48_000 } if got == n), "{error}");
    }
    assert!(detector.score_batch(&[]).unwrap().is_empty());
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let mut detector = Detector::embedded().unwrap();
    let windows = [cry_like(3), pseudo(48_000, 5), vec![0.0; 48_000]];
    let slices: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let together = detector.score_batch(&slices).unwrap();
    for (slice, expected) in slices.iter().zip(together) {
        let alone = detector.score_batch(&[slice]).unwrap().concat();
        for (a, b) in alone.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn scores_do_not_depend_on_the_chunking_of_the_stream() {
    let mut detector = Detector::embedded().unwrap();
    let (window, hop) = (detector.info().window, detector.info().hop);
    let mut audio = pseudo(16_000, 8);
    audio.extend(cry_like(4));
    let mut run = |chunks: &mut dyn Iterator<Item = usize>| {
        let mut cutter = WindowCutter::new(window, hop);
        let (mut at, mut scores) = (0, Vec::new());
        while at < audio.len() {
            let end = (at + chunks.next().unwrap()).min(audio.len());
            cutter.push(&audio[at..end], |w| {
                scores.push(detector.score_batch(&[&w.samples]).unwrap().concat())
            });
            at = end;
        }
        scores.concat()
    };
    let whole = run(&mut std::iter::repeat(audio.len()));
    assert_eq!(whole.len(), 5 * 2 * 10);
    assert_eq!(whole, run(&mut std::iter::repeat(160)));
    assert_eq!(whole, run(&mut [1, 7_999, 12_345, 3, 8_001].into_iter().cycle()));
}

#[test]
fn scores_of_a_recording_line_up_with_its_samples() {
    let mut detector = Detector::embedded().unwrap();
    for n in [0, 1, 799, 800, 7_999, 8_000, 100_000] {
        let frames = score_recording(&mut detector, &pseudo(n, 4)).unwrap();
        assert_eq!(frames.len(), n.div_ceil(800), "{n} samples");
    }
}

#[test]
fn a_saved_file_loads_and_is_the_built_in_model() {
    let loaded = Detector::load(&weights_file()).unwrap();
    assert_eq!(loaded.info(), Detector::embedded().unwrap().info());
    let bytes = std::fs::read(weights_file()).unwrap();
    let (description, tensors) = weights::parse(&bytes).unwrap();
    assert_eq!(
        weights::serialize(&description, &tensors).unwrap(),
        bytes,
        "the same input gives the same bytes"
    );
}

fn refused(name: &str, bytes: &[u8]) -> String {
    let file = Scratch::new(name, bytes);
    let message = Detector::load(&file.0).unwrap_err().to_string();
    assert!(message.contains(file.0.to_str().unwrap()), "names the file: {message}");
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let good = std::fs::read(weights_file()).unwrap();
    assert!(refused("empty", &[]).contains("no complete safetensors"));
    assert!(refused("text", b"hello, this is a text file and no model").contains("no complete safetensors"));
    assert!(refused("truncated", &good[..good.len() - 100]).contains("no complete safetensors"));
    assert!(refused("header-only", &good[..400]).contains("no complete safetensors"));
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused("huge-header", &huge_header).contains("no complete safetensors"));
    let missing = Detector::load(Path::new("/nonexistent/model.safetensors")).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/model.safetensors: cannot be read"));
}

#[test]
fn a_file_beyond_the_size_limit_is_refused_before_it_is_read() {
    let file = Scratch::new("large", &[]);
    let handle = std::fs::OpenOptions::new().write(true).open(&file.0).unwrap();
    handle.set_len(weights::MAX_BYTES + 1).unwrap();
    assert!(matches!(Detector::load(&file.0), Err(ModelError::TooLarge { .. })));
    assert!(matches!(Detector::load(Path::new("/dev/zero")), Err(ModelError::TooLarge { .. })));
}

type Tensors = BTreeMap<String, Vec<f32>>;

/// The good file with its metadata or tensors changed behind the checks of `serialize`.
fn altered(change: impl FnOnce(&mut serde_json::Value, &mut Tensors)) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};
    let (description, mut tensors) = weights::parse(&std::fs::read(weights_file()).unwrap()).unwrap();
    let layout = layout(&description);
    let mut value = serde_json::to_value(&description).unwrap();
    change(&mut value, &mut tensors);
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let shape = match layout.get(name) {
                Some(shape) if shape.iter().product::<usize>() == values.len() => shape.clone(),
                _ => vec![values.len()],
            };
            (name.clone(), shape, bytes)
        })
        .collect();
    let views: Vec<(&str, TensorView<'_>)> = data
        .iter()
        .map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        })
        .collect();
    let metadata = std::collections::HashMap::from([("nursery".to_owned(), value.to_string())]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn layout(description: &Description) -> BTreeMap<String, Vec<usize>> {
    let front = &description.front_end;
    description.network.serving_layout(front.frames(), front.mels).into_iter().collect()
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_does_not_fit() {
    let rate = altered(|d, _| d["front_end"]["sample_rate"] = 8_000.into());
    assert!(refused("rate", &rate).contains("sample_rate is 8000"));
    let format = altered(|d, _| d["format"] = 2.into());
    assert!(refused("format", &format).contains("format 2"));
    let labels = altered(|d, _| d["labels"] = serde_json::json!(["dog"]));
    assert!(refused("labels", &labels).contains("baby_cry"));
    let hop = altered(|d, _| d["hop"] = 7_777.into());
    assert!(refused("hop", &hop).contains("multiples of the score frame"));
    let window = altered(|d, _| d["lookahead"] = 48_000.into());
    assert!(refused("window", &window).contains("do not fit into the window"));
    let unknown = altered(|d, _| d["surprise"] = true.into());
    assert!(refused("unknown", &unknown).contains("surprise"));
    let wide = altered(|d, _| d["network"]["width"] = 64.into());
    assert!(refused("wide", &wide).contains("the network needs"));
    let giant = altered(|d, _| d["network"]["convs"][0]["channels"] = 1_000_000_000_000_u64.into());
    assert!(refused("giant", &giant).contains("out of range"));
    let threshold = altered(|d, _| d["threshold"] = 1.5.into());
    assert!(refused("threshold", &threshold).contains("threshold"));
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let missing = altered(|_, t| drop(t.remove("head.bias")));
    assert!(refused("missing", &missing).contains("tensors, the network needs"));
    let renamed = altered(|_, t| {
        let bias = t.remove("head.bias").unwrap();
        t.insert("tail.bias".into(), bias);
    });
    assert!(refused("renamed", &renamed).contains("lacks tensor head.bias"));
    let short = altered(|_, t| t.get_mut("conv1.weight").unwrap().truncate(10));
    assert!(refused("short", &short).contains("tensor conv1.weight"));
    let nan = altered(|_, t| t.get_mut("conv1.weight").unwrap()[3] = f32::NAN);
    assert!(refused("nan", &nan).contains("tensor conv1.weight holds values that are not finite"));
}

#[test]
fn damaged_files_never_panic() {
    let good = std::fs::read(weights_file()).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut state = 17u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    let silence = vec![0.1; 48_000];
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=round % 4 {
            let at = next() % header;
            bytes[at] = next() as u8;
        }
        // Most are refused; what loads must still give probabilities.
        if let Ok(mut detector) = Detector::from_bytes(&bytes, "damaged")
            && let Ok(scores) = detector.score_batch(&[&silence])
        {
            assert!(scores.concat().iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
    for n in [0usize, 7, 8, 9, 64, 1_000, 100_000] {
        let noise: Vec<u8> = (0..n).map(|_| next() as u8).collect();
        assert!(Detector::from_bytes(&noise, "noise").is_err());
    }
}
