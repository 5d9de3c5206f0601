//! Time per window of the built-in detector on one thread, beside the same network on candle's own convolutions.

use crate::detector::Detector;
use crate::frontend::{FrontEnd, PLANES};
use candle_core::{Device, Result, Tensor};
use std::time::Instant;

/// Median milliseconds of `work` over a second or so.
fn median_ms(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed().as_millis() < 1_500 || times.len() < 5 {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Runs the measurements and says what came out.
pub fn run() -> std::result::Result<String, String> {
    let mut detector = Detector::embedded().map_err(|e| e.to_string())?;
    let d = detector.description().clone();
    let (frames, mels) = (d.front_end.frames(), d.front_end.mels);
    let seconds = d.front_end.window as f64 / f64::from(d.front_end.sample_rate);
    let macs = d.network.macs(frames, mels) as f64;
    let mut text = format!(
        "{}: {} parameters, {:.1} MMAC per window, {:.1} MMAC per second of audio seen\n",
        detector.info().id,
        d.network.parameters(frames, mels),
        macs / 1e6,
        macs / 1e6 / seconds
    );
    let window: Vec<f32> =
        (0..d.front_end.window).map(|i| ((i * 7_919 % 1_000) as f32 / 1_000.0 - 0.5) * 0.1).collect();
    let network = detector.network().clone();
    let mut front = FrontEnd::new(&d.front_end);
    for batch in [1usize, 16] {
        let windows = vec![window.as_slice(); batch];
        let ours = median_ms(|| detector.score_batch(&windows).map(|_| ()).map_err(candle_core::Error::wrap));
        let ours = ours.map_err(|e| e.to_string())?;
        let mut features = Vec::new();
        for w in &windows {
            front.features(w, &mut features);
        }
        let features = Tensor::from_vec(features, (batch, frames, mels, PLANES), &Device::Cpu);
        let features = features.map_err(|e| e.to_string())?;
        let net = median_ms(|| network.forward(&features).map(|_| ())).map_err(|e| e.to_string())?;
        let n = batch as f64;
        text.push_str(&format!("batch {batch}: {:.2} ms per window ({:.2} network)\n", ours / n, net / n,));
    }
    Ok(text)
}
