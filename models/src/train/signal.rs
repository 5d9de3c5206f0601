//! Sounds and channels made on the fly: noise machines, rooms, equalisers, telephone codecs. All of them work in
//! place on 16 kHz samples and draw what they need from the generator they are given.

use rand::Rng;
use rand::rngs::StdRng;
use realfft::RealFftPlanner;
use std::f32::consts::{PI, TAU};

const RATE: f32 = 16_000.0;

/// dB to a factor.
pub fn gain(db: f32) -> f32 {
    10f32.powf(db / 20.0)
}

/// Root of the mean square; never zero.
pub fn rms(x: &[f32]) -> f32 {
    (x.iter().map(|x| x * x).sum::<f32>() / x.len().max(1) as f32 + 1e-14).sqrt()
}

/// About normally distributed.
pub fn normal(rng: &mut StdRng) -> f32 {
    let (u, v): (f32, f32) = (rng.random::<f32>().max(1e-9), rng.random());
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}

/// `n` samples of noise with unit level; power falls as `1 / frequency^slope`.
pub fn noise(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, n: usize, slope: f32) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n).map(|_| rng.random::<f32>() - 0.5).collect();
    if slope.abs() > 0.01 && n > 1 {
        filter(planner, &mut x, |hz| hz.max(30.0).powf(-slope / 2.0));
    }
    let scale = 1.0 / rms(&x);
    x.iter_mut().for_each(|x| *x *= scale);
    x
}

/// A white, pink or brown noise machine, or a fan, with unit level.
pub fn machine(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, n: usize) -> Vec<f32> {
    match rng.random_range(0..5) {
        0 => noise(rng, planner, n, 0.0),
        1 => noise(rng, planner, n, 1.0),
        2 => noise(rng, planner, n, 2.0),
        3 => {
            let slope = rng.random_range(-0.5..2.5);
            noise(rng, planner, n, slope)
        }
        _ => {
            let slope = rng.random_range(0.8..1.8);
            let mut x = noise(rng, planner, n, slope);
            let blade = rng.random_range(30.0..140.0f32);
            let parts: Vec<(f32, f32, f32)> = (1..10)
                .map(|k| {
                    let k = k as f32;
                    (blade * k, rng.random_range(0.05..0.6) / k, rng.random_range(0.0..TAU))
                })
                .collect();
            let (depth, rate) = (rng.random_range(0.0..0.25f32), rng.random_range(0.1..1.5f32));
            for (i, x) in x.iter_mut().enumerate() {
                let t = i as f32 / RATE;
                *x += parts.iter().map(|(hz, a, phase)| a * (TAU * hz * t + phase).sin()).sum::<f32>();
                *x *= 1.0 + depth * (TAU * rate * t).sin();
            }
            let scale = 1.0 / rms(&x);
            x.iter_mut().for_each(|x| *x *= scale);
            x
        }
    }
}

/// A drone with unit level: a few steady or slowly wandering tones (mains hum, coil whine, howling wind through
/// a gap) over soft noise. Tonal like crying, but it neither bursts nor breathes.
pub fn drone(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, n: usize) -> Vec<f32> {
    let slope = rng.random_range(0.0..2.0);
    let mut x = noise(rng, planner, n, slope);
    let base = 50.0 * 2f32.powf(rng.random_range(0.0..5.5));
    let wander = if rng.random_bool(0.5) { rng.random_range(0.005..0.08f32) } else { 0.0 };
    let partials = rng.random_range(1..7);
    let level = gain(rng.random_range(-8.0..14.0));
    // Howls are narrow noise: the phase diffuses.
    let diffusion = if rng.random_bool(0.4) { rng.random_range(0.005..0.1f32) } else { 0.0 };
    for k in 1..=partials {
        let ratio = if rng.random_bool(0.7) { k as f32 } else { rng.random_range(0.5..6.0) };
        let amplitude = level * rng.random_range(0.1..1.0f32);
        let (rate, depth) = (rng.random_range(0.05..1.2f32), rng.random_range(0.0..0.9f32));
        let (mut phase, start) = (rng.random_range(0.0..TAU), rng.random_range(0.0..TAU));
        if base * ratio > 7_000.0 {
            continue;
        }
        for (i, x) in x.iter_mut().enumerate() {
            let slow = (TAU * rate * i as f32 / RATE + start).sin();
            phase += TAU * base * ratio * (1.0 + wander * slow) / RATE;
            if diffusion > 0.0 {
                phase += diffusion * (rng.random::<f32>() - 0.5);
            }
            if phase > TAU {
                phase -= TAU;
            }
            *x += amplitude * (1.0 + depth * slow) * phase.sin();
        }
    }
    let scale = 1.0 / rms(&x);
    x.iter_mut().for_each(|x| *x *= scale);
    x
}

/// Artificial signals that people hear at night: beeps, two-tone chimes, sirens, horns, creaks and whistles.
pub fn signal(rng: &mut StdRng, n: usize) -> Vec<f32> {
    let base = 250.0 * 2f32.powf(rng.random_range(0.0..3.5));
    let partials = rng.random_range(1..5);
    let tilt = rng.random_range(0.2..1.0f32);
    let kind = rng.random_range(0..4);
    let rate = rng.random_range(0.2..5.0f32);
    let depth = rng.random_range(0.1..0.6f32);
    let duty = rng.random_range(0.2..0.9f32);
    let slide = rng.random_range(-0.8..0.8f32);
    let (mut phase, mut level) = (0.0f32, 0.0f32);
    (0..n)
        .map(|i| {
            let t = i as f32 / RATE;
            let turn = (t * rate).fract();
            let (hz, on) = match kind {
                // Beeps.
                0 => (base, turn < duty),
                // Two tones in turn.
                1 => (if turn < 0.5 { base } else { base * (1.0 + depth) }, true),
                // A siren that glides up and down.
                2 => (base * (1.0 + depth * (TAU * turn).sin()), true),
                // A creak or whistle that slides and stops.
                _ => (base * (1.0 + slide * turn), turn < duty),
            };
            level += 0.01 * (if on { 1.0 } else { 0.0 } - level);
            phase = (phase + TAU * hz / RATE) % (TAU * 16.0);
            let tone: f32 = (1..=partials)
                .filter(|k| hz * (*k as f32) < 7_500.0)
                .map(|k| (phase * k as f32).sin() * tilt.powi(k - 1))
                .sum();
            0.1 * level * tone
        })
        .collect()
}

/// Points at which a filter's response is computed; straight lines join them.
const RESPONSE_POINTS: usize = 1_600;

/// Multiplies the spectrum by `response(hz)`, as it is every 5 Hz; circular, so the ends wrap.
pub fn filter(planner: &mut RealFftPlanner<f32>, x: &mut [f32], response: impl Fn(f32) -> f32) {
    let n = x.len();
    let forward = planner.plan_fft_forward(n);
    let inverse = planner.plan_fft_inverse(n);
    let mut spectrum = forward.make_output_vec();
    // The buffers have the plans' lengths, so neither transform can fail.
    let _ = forward.process(x, &mut spectrum);
    let (points, step) = (spectrum.len().min(RESPONSE_POINTS), RATE / 2.0 / RESPONSE_POINTS as f32);
    let hz = RATE / n as f32;
    if points < spectrum.len() {
        let table: Vec<f32> =
            (0..=points).map(|i| response(i as f32 * step) / n as f32).chain([0.0]).collect();
        for (k, s) in spectrum.iter_mut().enumerate() {
            let at = k as f32 * hz / step;
            let (i, part) = (at as usize, at.fract());
            *s *= table[i] + part * (table[i + 1] - table[i]);
        }
    } else {
        spectrum.iter_mut().enumerate().for_each(|(k, s)| *s *= response(k as f32 * hz) / n as f32);
    }
    if let Some(first) = spectrum.first_mut() {
        first.im = 0.0;
    }
    if let (0, Some(last)) = (n % 2, spectrum.last_mut()) {
        last.im = 0.0;
    }
    let _ = inverse.process(&mut spectrum, x);
}

/// A random smooth equaliser of up to ±`range` dB, often with one end of the band cut off.
pub fn colour(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, x: &mut [f32], range: f32) {
    // Gains at points half an octave apart from 60 Hz up, joined by straight lines.
    let points: Vec<f32> = (0..16).map(|_| rng.random_range(-range..range)).collect();
    let tilt = rng.random_range(-3.0..3.0f32);
    let low = if rng.random_bool(0.3) { rng.random_range(60.0..450.0) } else { 0.0f32 };
    let high = if rng.random_bool(0.3) { rng.random_range(3_000.0..7_800.0) } else { 9_000.0f32 };
    let order = rng.random_range(2.0..8.0f32);
    filter(planner, x, |hz| {
        let octaves = (hz.max(60.0) / 60.0).log2();
        let at = (octaves * 2.0).min(14.99);
        let (i, part) = (at as usize, at.fract());
        let db = points[i] * (1.0 - part) + points[i + 1] * part + tilt * (octaves - 4.0);
        let edges = 1.0
            / (1.0 + (hz / high).powf(2.0 * order)).sqrt()
            / (1.0 + (low / hz.max(1.0)).powf(2.0 * order.min(4.0))).sqrt();
        gain(db) * edges
    });
}

/// A room: decaying noise (reverberation time `rt60` seconds) after a direct path.
pub fn reverberate(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, x: &mut [f32], rt60: f32) {
    let tail = (rt60 * RATE) as usize;
    let n = (x.len() + tail).next_power_of_two();
    let forward = planner.plan_fft_forward(n);
    let inverse = planner.plan_fft_inverse(n);
    let mut room = vec![0.0; n];
    let gap = rng.random_range(16..200usize);
    let damping = rng.random_range(0.0..0.7f32);
    let (mut last, mut energy) = (0.0, 0.0);
    for (i, r) in room.iter_mut().enumerate().take(tail).skip(gap) {
        let white = rng.random::<f32>() - 0.5;
        last = damping * last + (1.0 - damping) * white;
        *r = last * 10f32.powf(-3.0 * i as f32 / tail as f32);
        energy += *r * *r;
    }
    let level = gain(rng.random_range(-16.0..-2.0)) / (energy + 1e-12).sqrt();
    room.iter_mut().for_each(|r| *r *= level);
    room[0] = 1.0;
    let mut dry = vec![0.0; n];
    dry[..x.len()].copy_from_slice(x);
    let (mut a, mut b) = (forward.make_output_vec(), forward.make_output_vec());
    let _ = forward.process(&mut dry, &mut a);
    let _ = forward.process(&mut room, &mut b);
    for (a, b) in a.iter_mut().zip(&b) {
        *a *= b / n as f32;
    }
    if let Some(first) = a.first_mut() {
        first.im = 0.0;
    }
    if let Some(last) = a.last_mut() {
        last.im = 0.0;
    }
    let _ = inverse.process(&mut a, &mut dry);
    let n = x.len();
    x.copy_from_slice(&dry[..n]);
}

/// A telephone channel: 8 kHz, companded to 8 bits (G.711 µ-law), and back.
pub fn telephone(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, x: &mut [f32]) {
    let edge = rng.random_range(3_300.0..3_800.0f32);
    let low_pass = move |hz: f32| 1.0 / (1.0 + (hz / edge).powi(32)).sqrt();
    filter(planner, x, low_pass);
    let n = x.len();
    for i in (0..n).step_by(2) {
        let y = x[i].clamp(-1.0, 1.0);
        let code = y.signum() * (1.0 + 255.0 * y.abs()).ln() / 256f32.ln();
        let code = ((code + 1.0) / 2.0 * 255.0).round() / 255.0 * 2.0 - 1.0;
        x[i] = 2.0 * code.signum() * ((code.abs() * 256f32.ln()).exp() - 1.0) / 255.0;
        if i + 1 < n {
            x[i + 1] = 0.0;
        }
    }
    filter(planner, x, low_pass);
}

/// Coarse quantisation of the short-time spectrum, which sounds like a speech codec at a low bit rate.
pub fn codec(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, x: &mut [f32]) {
    let wide = rng.random_bool(0.4);
    let edge = if wide { rng.random_range(6_000.0..7_800.0) } else { rng.random_range(3_300.0..3_800.0f32) };
    let depth = rng.random_range(0.05..0.4f32);
    const SIZE: usize = 512;
    let window: Vec<f32> = (0..SIZE).map(|i| (PI * (i as f32 + 0.5) / SIZE as f32).sin()).collect();
    let (forward, inverse) = (planner.plan_fft_forward(SIZE), planner.plan_fft_inverse(SIZE));
    let mut out = vec![0.0; x.len() + SIZE];
    let (mut part, mut spectrum) = (forward.make_input_vec(), forward.make_output_vec());
    for start in (0..x.len()).step_by(SIZE / 2) {
        for (i, p) in part.iter_mut().enumerate() {
            *p = x.get(start + i).copied().unwrap_or(0.0) * window[i];
        }
        let _ = forward.process(&mut part, &mut spectrum);
        let peak = spectrum.iter().map(|s| s.norm()).fold(1e-9f32, f32::max);
        for (k, s) in spectrum.iter_mut().enumerate() {
            let hz = k as f32 * RATE / SIZE as f32;
            if hz > edge {
                *s *= 0.0;
                continue;
            }
            // Step size grows with the local level, as a masking model's would.
            let step = depth * (s.norm() * peak.powf(0.5) * s.norm().powf(0.5)).powf(0.5).max(peak * 1e-3);
            s.re = (s.re / step).round() * step;
            s.im = (s.im / step).round() * step;
        }
        spectrum[0].im = 0.0;
        spectrum[SIZE / 2].im = 0.0;
        let _ = inverse.process(&mut spectrum, &mut part);
        for (i, p) in part.iter().enumerate() {
            out[start + i] += p * window[i] / SIZE as f32;
        }
    }
    let n = x.len();
    x.copy_from_slice(&out[..n]);
}

/// A voice channel of 8 kHz and 4 bits, like G.726: the difference to a prediction, coded with a step that adapts
/// (after Jayant, 1973, "Adaptive quantization with a one-word memory").
pub fn adpcm(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, x: &mut [f32]) {
    let edge = rng.random_range(3_200.0..3_700.0f32);
    let low_pass = move |hz: f32| 1.0 / (1.0 + (hz / edge).powi(24)).sqrt();
    filter(planner, x, low_pass);
    const GROWTH: [f32; 8] = [0.9, 0.9, 0.9, 0.9, 1.2, 1.6, 2.0, 2.4];
    let (mut predicted, mut step) = (0.0f32, 0.005f32);
    let n = x.len();
    for i in (0..n).step_by(2) {
        let difference = x[i].clamp(-1.0, 1.0) - predicted;
        let code = ((difference.abs() / step) as usize).min(7);
        predicted = (0.95 * predicted + difference.signum() * (code as f32 + 0.5) * step).clamp(-1.0, 1.0);
        step = (step * GROWTH[code]).clamp(2e-4, 0.25);
        x[i] = 2.0 * predicted;
        if i + 1 < n {
            x[i + 1] = 0.0;
        }
    }
    filter(planner, x, low_pass);
}

/// Automatic gain control of a cheap camera: an envelope follower with quick attack and slow release pulls the level
/// towards a target.
pub fn automatic_gain(rng: &mut StdRng, x: &mut [f32]) {
    let target = gain(rng.random_range(-30.0..-12.0));
    let strength = rng.random_range(0.3..1.0f32);
    let limit = gain(rng.random_range(10.0..36.0));
    let share = |seconds: f32| 1.0 - (-1.0 / (seconds * RATE)).exp();
    let (attack, release) = (share(rng.random_range(0.005..0.1)), share(rng.random_range(0.3..4.0)));
    let mut power = target * target;
    for x in x {
        let now = *x * *x;
        power += (if now > power { attack } else { release }) * (now - power);
        *x *= (target / (power + 1e-12).sqrt()).min(limit).powf(strength);
    }
}

/// Lost packets: up to four stretches of 20 to 250 ms are silent or repeat what was before.
pub fn gaps(rng: &mut StdRng, x: &mut [f32]) {
    for _ in 0..rng.random_range(1..5) {
        let length = rng.random_range(320..4_000usize).min(x.len() / 3);
        let at = rng.random_range(0..x.len().saturating_sub(length).max(1));
        if rng.random_bool(0.3) && at >= length {
            x.copy_within(at - length..at, at);
        } else {
            x[at..at + length].fill(0.0);
        }
    }
}

/// A slow change of level of up to `range` dB either way, by a line through three points.
pub fn drift(rng: &mut StdRng, x: &mut [f32], range: f32) {
    let points: [f32; 3] = std::array::from_fn(|_| rng.random_range(-range..range));
    let n = x.len() as f32;
    // The gain changes slowly: once every 100 samples is often enough.
    for (i, block) in x.chunks_mut(100).enumerate() {
        let at = (i * 100) as f32 / n * 2.0;
        let db = if at < 1.0 {
            points[0] + (points[1] - points[0]) * at
        } else {
            points[1] + (points[2] - points[1]) * (at - 1.0)
        };
        let g = gain(db);
        block.iter_mut().for_each(|x| *x *= g);
    }
}

/// Plays `x` at `speed` times its rate (pitch moves along), cubic interpolation.
pub fn resample(x: &[f32], speed: f32) -> Vec<f32> {
    let n = (x.len() as f32 / speed) as usize;
    (0..n).map(|i| value_at(x, i as f64 * f64::from(speed))).collect()
}

/// Plays `x` at a speed that wanders around `speed` by up to `depth` of it, a few times a second, so that the pitch
/// takes another course. Returns the samples, and for each of them the place in `x` that it comes from.
pub fn wander(rng: &mut StdRng, x: &[f32], speed: f32, depth: f32) -> (Vec<f32>, Vec<usize>) {
    let waves: [(f32, f32, f32); 2] = std::array::from_fn(|_| {
        (rng.random_range(0.3..3.0), rng.random_range(0.0..TAU), rng.random_range(0.0..depth))
    });
    let (mut samples, mut places) = (Vec::new(), Vec::new());
    let (mut at, mut now) = (0.0f64, f64::from(speed));
    while (at as usize) < x.len() {
        // The speed changes slowly: once every 32 samples is often enough.
        if samples.len() % 32 == 0 {
            let t = samples.len() as f32 / RATE;
            let bend: f32 = waves.iter().map(|(hz, phase, depth)| depth * (TAU * hz * t + phase).sin()).sum();
            now = f64::from(speed * (1.0 + bend)).max(0.1);
        }
        samples.push(value_at(x, at));
        places.push(at as usize);
        at += now;
    }
    (samples, places)
}

/// The signal between its samples (Catmull and Rom, 1974); beyond the ends, their values.
fn value_at(x: &[f32], position: f64) -> f32 {
    let at = |i: isize| x.get(i.clamp(0, x.len() as isize - 1) as usize).copied().unwrap_or(0.0);
    let (k, t) = (position as isize, position.fract() as f32);
    let (a, b, c, d) = (at(k - 1), at(k), at(k + 1), at(k + 2));
    b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tone(hz: f32) -> Vec<f32> {
        (0..48_000).map(|i| 0.2 * (TAU * hz * i as f32 / RATE).sin()).collect()
    }

    #[test]
    fn telephone_passes_1_khz_and_stops_6_khz() {
        let (mut rng, mut planner) = (StdRng::seed_from_u64(1), RealFftPlanner::new());
        let (mut low, mut high) = (tone(1_000.0), tone(6_000.0));
        telephone(&mut rng, &mut planner, &mut low);
        telephone(&mut rng, &mut planner, &mut high);
        assert!((rms(&low) / rms(&tone(1_000.0)) - 1.0).abs() < 0.05, "{}", rms(&low));
        assert!(rms(&high) < 0.003, "{}", rms(&high));
    }

    #[test]
    fn adpcm_passes_1_khz_with_some_noise_and_stops_6_khz() {
        let (mut rng, mut planner) = (StdRng::seed_from_u64(1), RealFftPlanner::new());
        let (clean, mut low, mut high) = (tone(1_000.0), tone(1_000.0), tone(6_000.0));
        adpcm(&mut rng, &mut planner, &mut low);
        adpcm(&mut rng, &mut planner, &mut high);
        let error: Vec<f32> = low.iter().zip(&clean).map(|(a, b)| a - b).skip(4_000).take(40_000).collect();
        let ratio = rms(&error) / rms(&clean);
        assert!((0.005..0.4).contains(&ratio), "{ratio}");
        assert!(rms(&high) < 0.01, "{}", rms(&high));
    }

    #[test]
    fn automatic_gain_brings_loud_and_soft_closer_together() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut x = tone(500.0);
        x.iter_mut().take(24_000).for_each(|x| *x *= 0.02);
        automatic_gain(&mut rng, &mut x);
        let ratio = rms(&x[40_000..]) / rms(&x[16_000..24_000]);
        assert!(ratio < 40.0, "{ratio}");
    }

    #[test]
    fn noise_has_the_slope_it_was_asked_for() {
        let (mut rng, mut planner) = (StdRng::seed_from_u64(2), RealFftPlanner::new());
        let mut brown = noise(&mut rng, &mut planner, 48_000, 2.0);
        let total = rms(&brown);
        filter(&mut planner, &mut brown, |hz| if hz > 1_000.0 { 1.0 } else { 0.0 });
        assert!((total - 1.0).abs() < 1e-3 && rms(&brown) < 0.3);
    }

    #[test]
    fn every_channel_keeps_samples_finite_and_in_reach() {
        let mut planner = RealFftPlanner::new();
        for seed in 0..20 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut x = machine(rng, &mut planner, 48_000);
            let more = drone(rng, &mut planner, 48_000);
            x.iter_mut().zip(more).zip(signal(rng, 48_000)).for_each(|((x, a), b)| *x += a + b);
            x.iter_mut().for_each(|x| *x *= 0.1);
            reverberate(rng, &mut planner, &mut x, 0.5);
            colour(rng, &mut planner, &mut x, 8.0);
            codec(rng, &mut planner, &mut x);
            automatic_gain(rng, &mut x);
            gaps(rng, &mut x);
            drift(rng, &mut x, 6.0);
            adpcm(rng, &mut planner, &mut x);
            telephone(rng, &mut planner, &mut x);
            assert!(x.iter().all(|x| x.is_finite() && x.abs() < 100.0), "seed {seed}");
        }
    }

    #[test]
    fn a_wandering_speed_keeps_the_length_about_and_the_places_in_order() {
        let mut rng = StdRng::seed_from_u64(4);
        let (samples, places) = wander(&mut rng, &tone(500.0), 1.2, 0.05);
        assert_eq!(samples.len(), places.len());
        assert!((36_000..44_500).contains(&samples.len()), "{}", samples.len());
        assert!(places.windows(2).all(|w| w[0] <= w[1]) && places.iter().all(|&p| p < 48_000));
        assert!(wander(&mut rng, &[], 1.0, 0.05).0.is_empty());
    }

    #[test]
    fn resampling_moves_the_pitch() {
        let faster = resample(&tone(500.0), 1.5);
        let crossings = faster.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
        let hz = crossings as f32 / (faster.len() as f32 / RATE);
        assert!((hz - 750.0).abs() < 5.0, "{hz}");
    }
}
