//! Time per window of the built-in detector on one thread, and what it computes per second of audio. The rival on the
//! same network is ONNX Runtime, see `tests/onnx`.

use crate::detector::Detector;
use std::fmt::Write;
use std::time::Instant;

/// Median milliseconds of `work` over a second or so.
fn median_ms(mut work: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
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
///
/// # Errors
/// One line for people.
pub fn run() -> Result<String, String> {
    let mut detector = Detector::embedded().map_err(|e| e.to_string())?;
    let d = detector.description().clone();
    let mels = d.front_end.mels;
    let second = d.front_end.sample_rate as usize / d.front_end.step;
    let mut report = format!(
        "{}: {} parameters, {:.1} million multiply-accumulates per second of audio, {} bytes of state per stream\n",
        detector.info().id,
        d.network.parameters(mels),
        d.network.macs(second, mels) as f64 / 1e6,
        detector.info().state_bytes,
    );
    let window: Vec<f32> = (0..d.hop).map(|i| ((i * 7_919 % 1_000) as f32 / 1_000.0 - 0.5) * 0.1).collect();
    let per_second = f64::from(d.front_end.sample_rate) / d.hop as f64;
    for batch in [1usize, 4, 16] {
        let windows = vec![window.as_slice(); batch];
        let mut states = vec![detector.fresh(); batch];
        let time =
            median_ms(|| detector.score_batch(&windows, &mut states).map(|_| ()).map_err(|e| e.to_string()))?
                / batch as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(
            report,
            "batch {batch}: {time:.3} ms per window of {:.0} ms, {:.0} cameras per core",
            1e3 / per_second,
            1e3 / (time * per_second)
        );
    }
    Ok(report)
}
