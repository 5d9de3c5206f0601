//! Front end and network against independent implementations: librosa, NumPy and PyTorch, whose results lie in
//! tests/golden beside the scripts that write them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{Device, Tensor};
use common::{Lcg, golden_signal};
use nursery_models::frontend::{FrontEnd, FrontEndConfig, PLANES};
use nursery_models::net::{NetConfig, Network};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

fn golden<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct FrontEndCase {
    name: String,
    config: FrontEndConfig,
    frames_of_signal: usize,
    /// Which frames of the signal `features` holds.
    frames: Vec<usize>,
    features: Vec<Vec<f32>>,
}

#[test]
fn features_equal_those_of_librosa() {
    let signal = golden_signal();
    let cases: Vec<FrontEndCase> = golden("front_end.json");
    assert_eq!(cases[0].config, FrontEndConfig::default(), "run tests/golden/front_end.py again");
    for case in cases {
        case.config.check().unwrap();
        let mut out = Vec::new();
        let mut state = vec![0.0; case.config.state_len()];
        FrontEnd::new(&case.config).features(&mut state, &signal, &mut out);
        let row = case.config.mels * PLANES;
        assert_eq!(out.len(), case.frames_of_signal * row);
        let mut worst = 0.0f32;
        for (&n, want) in case.frames.iter().zip(&case.features) {
            assert_eq!(want.len(), row);
            for (i, (got, want)) in out[n * row..].iter().zip(want).enumerate() {
                let error = (got - want).abs();
                worst = worst.max(error);
                let (band, plane) = (i / PLANES, i % PLANES);
                assert!(
                    error < 1e-4,
                    "{}: frame {n}, band {band}, plane {plane}: {got}, not {want}",
                    case.name
                );
            }
        }
        eprintln!("{}: largest difference {worst:.1e}", case.name);
    }
}

#[derive(Deserialize)]
struct NetworkCase {
    name: String,
    config: NetConfig,
    mels: usize,
    batch: usize,
    frames: usize,
    seed: u32,
    logits: Vec<Vec<f32>>,
}

impl NetworkCase {
    /// The weights of `pseudo_weights` in tests/golden/network.py.
    fn network(&self) -> Network {
        let mut lcg = Lcg::new(self.seed);
        let layout = self.config.serving_layout(self.mels).into_iter();
        let tensors = layout.map(|(name, shape)| {
            let scale = if name.ends_with(".weight") { (6.0 / shape[0] as f64).sqrt() } else { 0.2 };
            let values = (0..shape.iter().product()).map(|_| (lcg.draw() * scale) as f32).collect();
            (name, values)
        });
        Network::serving(&self.config, self.mels, &tensors.collect()).unwrap()
    }

    fn input(&self) -> Tensor {
        let shape = (self.batch, self.frames, self.mels, PLANES);
        let values = Lcg::noise(self.seed + 100, self.batch * self.frames * self.mels * PLANES);
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Compares logits from score frame `from` on; returns the largest difference.
    fn compare(&self, what: &str, from: usize, got: &Tensor) -> f32 {
        let got = got.to_vec2::<f32>().unwrap();
        assert_eq!(got.len(), self.batch);
        let mut worst = 0.0f32;
        for (item, (got, want)) in got.iter().zip(&self.logits).enumerate() {
            assert!(from + got.len() <= want.len());
            for (i, (got, want)) in got.iter().zip(&want[from..]).enumerate() {
                let error = (got - want).abs();
                worst = worst.max(error);
                let at = from + i;
                assert!(error < 1e-5, "{} {what}: item {item}, frame {at}: {got}, not {want}", self.name);
            }
        }
        worst
    }
}

#[test]
fn logits_equal_those_of_pytorch() {
    let cases: Vec<NetworkCase> = golden("network.json");
    assert_eq!(cases[0].config, NetConfig::default(), "run tests/golden/network.py again");
    for case in cases {
        case.config.check().unwrap();
        let logits = case.network().forward(&case.input(), None).unwrap();
        assert_eq!(logits.dims(), [case.batch, case.frames / case.config.time_stride()]);
        let worst = case.compare("whole", 0, &logits);
        eprintln!("{}: largest difference {worst:.1e}", case.name);
    }
}

#[test]
fn logits_of_a_stream_in_pieces_equal_those_of_pytorch() {
    for case in golden::<NetworkCase>("network.json") {
        let (network, input) = (case.network(), case.input());
        let stride = case.config.time_stride();
        let mut states = vec![vec![0.0; case.config.memory_len(case.mels)]; case.batch];
        let (mut at, mut sizes) = (0, [1, 5, 2, 9].into_iter().cycle());
        while at < case.frames {
            let frames = (sizes.next().unwrap() * stride).min(case.frames - at);
            let piece = input.narrow(1, at, frames).unwrap().contiguous().unwrap();
            let mut views: Vec<&mut [f32]> = states.iter_mut().map(Vec::as_mut_slice).collect();
            let logits = network.advance(&piece, &mut views).unwrap();
            case.compare("in pieces", at / stride, &logits);
            at += frames;
        }
    }
}
