//! Weights files and the states of streams: a file is refused in one line that names it, or it gives probabilities,
//! whatever is heard and whatever state is handed in.

use std::collections::BTreeMap;

use fastrand::Rng;
use nursery_models::{
    Detector, StreamState,
    net::{ConvConfig, NetConfig},
    weights::{self, Description},
};
use serde_json::Value;

use crate::{
    mutate::{self, Mutator},
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

pub const FILE: Target = Target {
    name: "model-file",
    about: "weights files, and what a detector made of one says",
    mutator: Mutator::Own(mutate_file),
    words: &[
        "format",
        "name",
        "version",
        "front_end",
        "sample_rate",
        "frame",
        "step",
        "mels",
        "low_hz",
        "high_hz",
        "floor",
        "network",
        "convs",
        "channels",
        "kernel",
        "stride",
        "width",
        "taps",
        "dilations",
        "recurrent",
        "hop",
        "lookahead",
        "labels",
        "baby_cry",
        "threshold",
        "logit_scale",
        "logit_bias",
        "recipe",
        "commit",
        "dtype",
        "shape",
        "data_offsets",
        "F32",
        "F16",
        "BF16",
        "__metadata__",
        "nursery",
    ],
    longest: 256 << 10,
    memory: |len| 20 * len + 256 * ROOM,
    seconds: 4.0,
    short: 2_000,
    seeds: files,
    check: || Box::new(file),
};

/// Files of small networks: what is tried is the reader, and it is to be quick.
fn files() -> Vec<Vec<u8>> {
    let conv = |channels, kernel, stride| ConvConfig { channels, kernel, stride };
    let networks = [
        NetConfig {
            convs: vec![conv(2, (3, 3), (2, 2))],
            width: 4,
            taps: 2,
            dilations: vec![1],
            recurrent: 3,
        },
        NetConfig {
            convs: vec![conv(3, (2, 3), (1, 2)), conv(2, (2, 1), (2, 2))],
            width: 3,
            taps: 3,
            dilations: vec![1, 4],
            recurrent: 0,
        },
        NetConfig {
            convs: vec![conv(1, (1, 1), (1, 1))],
            width: 2,
            taps: 1,
            dilations: vec![],
            recurrent: 2,
        },
    ];
    networks.into_iter().map(written).collect()
}

/// The built-in model's description with another network and drawn weights, as a file.
fn written(network: NetConfig) -> Vec<u8> {
    let built_in = Detector::embedded().expect("the built-in model loads");
    let mut description = built_in.description().clone();
    description.network = network;
    description.front_end.mels = 16;
    let mut random = Rng::with_seed(3);
    let layout = description.network.serving_layout(description.front_end.mels);
    let tensors: BTreeMap<String, Vec<f32>> = layout
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product::<usize>()).map(|_| random.f32() - 0.5).collect();
            (name, values)
        })
        .collect();
    weights::serialize(&description, &tensors).expect("a valid model can be written")
}

fn file(input: &[u8]) -> Verdict {
    let mut detector = match Detector::from_bytes(input, "some.file") {
        Ok(detector) => detector,
        Err(e) => {
            let e = e.to_string();
            one_line(&e)?;
            if !e.contains("some.file") {
                return Err(format!("an error that names no file: {e}"));
            }
            return Ok(way_of_text(&e));
        }
    };
    let (description, tensors) = weights::parse(input)?;
    let bytes = weights::serialize(&description, &tensors)
        .map_err(|e| format!("loads, but cannot be written: {e}"))?;
    let (again, same) = weights::parse(&bytes).map_err(|e| format!("what is written does not load: {e}"))?;
    if again != description || same != tensors {
        return Err("what is written is another model".into());
    }
    let info = detector.info().clone();
    if info.state_bytes != description.state_len() * 4 || info.window == 0 || info.frames_per_hop == 0 {
        return Err(format!("a model that asks for {info:?}"));
    }
    let mut state = [detector.fresh()];
    let calm = listen(&mut detector, &mut state, 7)?;
    let restored = detector.restore(&state[0].to_bytes());
    if !restored.is_ok_and(|restored| restored == state[0]) && calm {
        return Err("the state of a stream does not come back".into());
    }
    Ok(way((shape(&description), calm)))
}

fn shape(description: &Description) -> impl std::hash::Hash {
    let network = &description.network;
    (
        network.convs.len(),
        size(network.width),
        network.taps,
        network.dilations.len(),
        size(network.recurrent),
        size(description.hop),
        size(description.front_end.mels),
    )
}

/// Scores noise, silence, the loudest there is and what are no numbers; true where the state stayed finite.
fn listen(detector: &mut Detector, state: &mut [StreamState; 1], seed: u64) -> Result<bool, String> {
    let mut random = Rng::with_seed(seed);
    let (window, frames) = (detector.info().window, detector.info().frames_per_hop);
    let mut finite = true;
    for kind in 0..4 {
        let samples: Vec<f32> = (0..window)
            .map(|i| match kind {
                0 => random.f32() - 0.5,
                1 => 0.0,
                2 if i % 2 == 0 => 1.0,
                2 => -1.0,
                _ => [f32::NAN, f32::INFINITY, f32::MAX, -1e30][i % 4],
            })
            .collect();
        let scores = detector.score_batch(&[&samples], state).map_err(|e| format!("scoring fails: {e}"))?;
        let Some(scores) = scores.first().filter(|s| s.len() == frames) else {
            return Err(format!("not {frames} scores: {scores:?}"));
        };
        if let Some(p) = scores.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(format!("probability {p}"));
        }
        finite &= detector.restore(&state[0].to_bytes()).is_ok();
    }
    Ok(finite)
}

/// Changes what the file says of itself, its table of tensors, a weight, or any byte.
fn mutate_file(random: &mut Rng, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let choice = random.u8(0..10);
    let Some((mut header, data)) = split(input).filter(|_| choice > 0) else {
        return mutate::bytes(random, input.to_vec(), other, words);
    };
    let mut data = data.to_vec();
    match choice {
        1 | 2 => mutate::change(random, &mut header, split(other).map(|(h, _)| h).as_ref(), words),
        3 if data.len() >= 4 => {
            let at = random.usize(0..data.len() / 4) * 4;
            let odd =
                [0.0, -0.0, f32::NAN, f32::INFINITY, 1e4, -1e4, 1.0001e4, f32::MIN_POSITIVE / 2.0, 1e30];
            data[at..at + 4].copy_from_slice(&odd[random.usize(0..odd.len())].to_le_bytes());
        }
        4 => {
            let value = [1e4_f32, -1e4, 0.0][random.usize(0..3)];
            data = value.to_le_bytes().repeat(data.len() / 4);
        }
        _ => {
            let text = header["__metadata__"]["nursery"].as_str().unwrap_or_default();
            let Ok(mut description) = serde_json::from_str::<Value>(text) else {
                return mutate::bytes(random, input.to_vec(), other, words);
            };
            let theirs = split(other).and_then(|(theirs, _)| {
                serde_json::from_str(theirs["__metadata__"]["nursery"].as_str().unwrap_or_default()).ok()
            });
            mutate::change(random, &mut description, theirs.as_ref(), words);
            // Where tensors must fit a changed network, zeros of the right shape do.
            if let Ok(description) = serde_json::from_value::<Description>(description.clone())
                && random.bool()
                && let Some(file) = filled(&description)
            {
                return file;
            }
            header["__metadata__"]["nursery"] = Value::String(description.to_string());
        }
    }
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(data);
    out
}

/// A whole file for a description, where it is valid and its weights are few.
fn filled(description: &Description) -> Option<Vec<u8>> {
    description.check().ok()?;
    let layout = description.network.serving_layout(description.front_end.mels);
    let count: usize = layout.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    if count > 50_000 {
        return None;
    }
    let values = |shape: &Vec<usize>| {
        (0..shape.iter().product::<usize>()).map(|i| (i % 7) as f32 / 7.0 - 0.4).collect()
    };
    let tensors = layout.iter().map(|(name, shape)| (name.clone(), values(shape))).collect();
    weights::serialize(description, &tensors).ok()
}

/// The header and what follows it.
fn split(input: &[u8]) -> Option<(Value, &[u8])> {
    let (length, rest) = input.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    header.is_object().then_some((header, data))
}

pub const STATE: Target = Target {
    name: "model-state",
    about: "the state of a stream, as a detector takes it back",
    mutator: Mutator::Bytes,
    words: &["\0\0\u{7f}", "\0\0\0\0"],
    longest: 64 << 10,
    memory: |len| 20 * len + 8 * ROOM,
    seconds: 2.0,
    short: 1_000,
    seeds: || {
        let mut detector = small();
        let mut state = [detector.fresh()];
        let mut seeds = vec![state[0].to_bytes()];
        for seed in 0..3 {
            listen(&mut detector, &mut state, seed).expect("a valid model scores");
            seeds.push(state[0].to_bytes());
        }
        seeds
    },
    check: || {
        let mut detector = small();
        Box::new(move |input| state(&mut detector, input))
    },
};

fn small() -> Detector {
    let file = files().into_iter().next().expect("one file");
    Detector::from_bytes(&file, "small").expect("a valid model loads")
}

fn state(detector: &mut Detector, input: &[u8]) -> Verdict {
    // Other lengths are refused; that needs no more than a few tries.
    let want = detector.info().state_bytes;
    let resized;
    let input = if input.len().is_multiple_of(5) {
        input
    } else {
        resized =
            input.iter().copied().cycle().take(if input.is_empty() { 0 } else { want }).collect::<Vec<u8>>();
        &resized
    };
    match detector.restore(input) {
        Ok(restored) => {
            if restored.to_bytes() != input {
                return Err("a state is written otherwise than it was read".into());
            }
            let mut state = [restored];
            let finite = listen(detector, &mut state, 11)?;
            let values = state[0].to_bytes();
            let large = values.chunks_exact(4).filter(|b| b[3] & 0x7f > 0x45).count();
            Ok(way((finite, size(large))))
        }
        Err(e) => {
            one_line(&e.to_string())?;
            Ok(way_of_text(&e.to_string()))
        }
    }
}
