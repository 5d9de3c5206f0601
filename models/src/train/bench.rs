//! Time per window of the built-in detector on one thread, beside the same network on candle's own convolutions.

use crate::detector::Detector;
use crate::frontend::{FrontEnd, PLANES};
use crate::net::NetConfig;
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

/// Layers of the same sizes on candle's own operations; only its time means anything. candle knows one stride
/// for both axes, so a layer that strides one axis only runs over as many input points as give the same output:
/// equal multiply-accumulates.
struct Reference {
    convs: Vec<(Tensor, Tensor, Tensor, usize, usize)>,
    project: Tensor,
    time: Vec<(Tensor, usize)>,
    mix: Tensor,
    bias: Tensor,
    head: Tensor,
    sequence: Tensor,
    taps: usize,
}

impl Reference {
    fn new(config: &NetConfig, batch: usize, frames: usize, mels: usize) -> Result<Self> {
        let zeros = |shape: &[usize]| Tensor::full(0.01f32, shape, &Device::Cpu);
        let (mut t, mut f, mut c) = (frames, mels, PLANES);
        let mut convs = Vec::new();
        for conv in &config.convs {
            let (out_t, out_f) = (t.div_ceil(conv.stride.0), f.div_ceil(conv.stride.1));
            let stride = conv.stride.0.max(conv.stride.1);
            convs.push((
                zeros(&[batch, c, out_t * stride, out_f * stride])?,
                zeros(&[conv.channels, c, conv.kernel.0, conv.kernel.1])?,
                zeros(&[1, conv.channels, 1, 1])?,
                conv.kernel.0 / 2,
                stride,
            ));
            (t, f, c) = (out_t, out_f, conv.channels);
        }
        let width = config.width;
        let mut time = Vec::new();
        for &dilation in &config.dilations {
            time.push((zeros(&[width, 1, config.taps])?, dilation));
        }
        Ok(Self {
            convs,
            project: zeros(&[width, f * c, 1])?,
            time,
            mix: zeros(&[width, width, 1])?,
            bias: zeros(&[1, width, 1])?,
            head: zeros(&[1, width, 1])?,
            sequence: zeros(&[batch, f * c, t])?,
            taps: config.taps,
        })
    }

    fn run(&self) -> Result<Tensor> {
        for (input, kernel, bias, padding, stride) in &self.convs {
            input.conv2d(kernel, *padding, *stride, 1, 1)?.broadcast_add(bias)?.relu()?;
        }
        let mut x = self.sequence.conv1d(&self.project, 0, 1, 1, 1)?.broadcast_add(&self.bias)?.relu()?;
        for (kernel, dilation) in &self.time {
            let groups = kernel.dim(0)?;
            let y = x.conv1d(kernel, self.taps / 2 * dilation, 1, *dilation, groups)?;
            let y = y.conv1d(&self.mix, 0, 1, 1, 1)?.broadcast_add(&self.bias)?.relu()?;
            x = (x + y)?;
        }
        x.conv1d(&self.head, 0, 1, 1, 1)
    }
}

/// Runs the measurements and says what came out.
///
/// # Errors
/// One line for people.
pub fn run() -> std::result::Result<String, String> {
    let text = |e: candle_core::Error| e.to_string();
    let mut detector = Detector::embedded().map_err(|e| e.to_string())?;
    let d = detector.description().clone();
    let (frames, mels) = (d.front_end.frames(), d.front_end.mels);
    let seconds = d.front_end.window as f64 / f64::from(d.front_end.sample_rate);
    let macs = d.network.macs(frames, mels) as f64;
    let mut report = format!(
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
        let whole =
            median_ms(|| detector.score_batch(&windows).map(|_| ()).map_err(candle_core::Error::wrap));
        let whole = whole.map_err(text)?;
        let mut features = Vec::new();
        windows.iter().for_each(|w| front.features(w, &mut features));
        let features =
            Tensor::from_vec(features, (batch, frames, mels, PLANES), &Device::Cpu).map_err(text)?;
        let ours = median_ms(|| network.forward(&features).map(|_| ())).map_err(text)?;
        let reference = Reference::new(&d.network, batch, frames, mels).map_err(text)?;
        let theirs = median_ms(|| reference.run().map(|_| ())).map_err(text)?;
        let n = batch as f64;
        report.push_str(&format!(
            "batch {batch}: {:.2} ms per window, of which network {:.2}; on candle's own convolutions {:.2}, \
             {:.1} times as long\n",
            whole / n,
            ours / n,
            theirs / n,
            theirs / ours
        ));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    #[ignore = "takes seconds and wants an idle core; run it in release with --ignored"]
    fn the_network_is_faster_than_on_candles_own_convolutions() {
        let report = super::run().unwrap();
        println!("{report}");
        for line in report.lines().filter(|l| l.starts_with("batch")) {
            let ratio: f64 = line.rsplit(", ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!(ratio > 1.5, "{line}");
        }
    }
}
