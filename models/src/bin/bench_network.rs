//! Times the network of a weights file, without its front end, for a comparison with other runtimes that takes turns
//! with this one (tests/onnx/bench.py). Answers each line on standard input with a line of JSON on standard output:
//!
//! - `batch N`: N streams begin anew; answers `{}`.
//! - `run W`: their next W windows; answers with the milliseconds that each took and the last window's logits.
//! - `limit`: multiply-accumulates of a window, and how many of them this core does a second in large products of matrices.
//! - `detect FILE`: probabilities of a recording (32-bit floats, little endian, 16 kHz) by the whole detector.
//!
//! The input is pseudo-random, the same as that of `Lcg(7)` in tests/golden/signal_generator.py.

use candle_core::{Device, Tensor};
use nursery_models::frontend::PLANES;
use nursery_models::recording::score_recording;
use nursery_models::{Detector, bounded};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Most streams at once; far more than a batch of the service.
const MAX_BATCH: usize = 1_024;

#[derive(Serialize, Default)]
struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ms: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logits: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probabilities: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs_per_s: Option<f64>,
}

/// Rows and columns of matrices that fit the caches and keep all lanes busy.
const LARGE: usize = 256;

/// What this core does in the best of some products: no network can be faster.
fn limit(detector: &Detector) -> Result<Answer, String> {
    let d = detector.description();
    let macs = d.network.macs(d.hop / d.front_end.step, d.front_end.mels);
    let product = || -> candle_core::Result<f64> {
        let a = Tensor::rand(-1f32, 1f32, (LARGE, LARGE), &Device::Cpu)?;
        let start = Instant::now();
        let product = a.matmul(&a)?;
        let took = start.elapsed().as_secs_f64();
        // Somebody looks at it.
        product.sum_all()?.to_scalar::<f32>()?;
        Ok((LARGE * LARGE * LARGE) as f64 / took)
    };
    let mut best = 0f64;
    for _ in 0..50 {
        best = best.max(product().map_err(|e| e.to_string())?);
    }
    Ok(Answer { macs: Some(macs), macs_per_s: Some(best), ..Answer::default() })
}

/// Values in [-1, 1) by the linear congruential generator of Numerical Recipes.
struct Lcg(u32);

impl Lcg {
    fn draw(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// Streams under way.
struct Streams {
    input: Lcg,
    states: Vec<Vec<f32>>,
}

impl Streams {
    fn new(detector: &Detector, batch: usize) -> Self {
        let d = detector.description();
        Self { input: Lcg(7), states: vec![vec![0.0; d.network.memory_len(d.front_end.mels)]; batch] }
    }

    fn run(&mut self, detector: &Detector, windows: usize) -> Result<Answer, String> {
        let d = detector.description();
        let shape = (self.states.len(), d.hop / d.front_end.step, d.front_end.mels, PLANES);
        let mut answer = Answer::default();
        for _ in 0..windows {
            let features: Vec<f32> =
                (0..shape.0 * shape.1 * shape.2 * shape.3).map(|_| self.input.draw()).collect();
            let mut views: Vec<&mut [f32]> = self.states.iter_mut().map(Vec::as_mut_slice).collect();
            let start = Instant::now();
            let logits = Tensor::from_slice(&features, shape, &Device::Cpu)
                .and_then(|features| detector.network().advance(&features, &mut views)?.to_vec2::<f32>())
                .map_err(|e| e.to_string())?;
            answer.ms.push(start.elapsed().as_secs_f64() * 1e3);
            answer.logits = logits;
        }
        Ok(answer)
    }
}

fn detect(detector: &mut Detector, path: &str) -> Result<Answer, String> {
    let bytes = bounded::read_file(path.as_ref()).map_err(|e| format!("{path}: cannot be read: {e}"))?;
    let samples: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let probabilities = score_recording(detector, &samples).map_err(|e| e.to_string())?;
    Ok(Answer { probabilities, ..Answer::default() })
}

fn serve(weights: &str) -> Result<(), String> {
    let mut detector = Detector::load(Path::new(weights)).map_err(|e| e.to_string())?;
    let mut streams = Streams::new(&detector, 1);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let number = || argument.parse::<usize>().map_err(|_| format!("{line:?}: needs a number"));
        let answer = match command {
            "batch" => {
                streams = Streams::new(&detector, number()?.clamp(1, MAX_BATCH));
                Answer::default()
            }
            "run" => streams.run(&detector, number()?)?,
            "limit" => limit(&detector)?,
            "detect" => detect(&mut detector, argument)?,
            _ => return Err(format!("{line:?}: must be batch N, run W, limit or detect FILE")),
        };
        let text = serde_json::to_string(&answer).map_err(|e| e.to_string())?;
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    // SAFETY: no other thread has been started yet.
    unsafe {
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            std::env::set_var(pool, "1");
        }
    }
    let Some(weights) = std::env::args().nth(1) else {
        eprintln!("usage: bench_network WEIGHTS");
        return ExitCode::from(2);
    };
    match serve(&weights) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench_network: {message}");
            ExitCode::FAILURE
        }
    }
}
