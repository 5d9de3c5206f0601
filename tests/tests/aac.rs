//! What is heard of AAC is what is in it: held against ffmpeg's decoder, on streams that ffmpeg's encoder makes of tones,
//! clicks and noise that differ between left and right.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{f64::consts::PI, num::NonZeroU32, path::Path, process::Command, time::Duration};

use nursery_tests::{audio, service::nursery, skip, temp_dir::TempDir, wait};
use nursery_worker::capture::{
    aac::Decoder,
    rtsp::audio::{AudioDecoder, Decoded, Piece, Track},
};
use serde_json::Value;

const RATES: [u32; 10] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000];

/// Tones that slide and come and go, clicks (for short windows) and some noise; nothing of it the same on both sides.
const SOUND: &str = "0.3*sin(2*PI*(200+1500*t)*t)*(0.6+0.4*sin(7*t))+0.1*sin(2*PI*3100*t)*gt(mod(t,0.5),0.25)\
    +0.02*random(1)|0.2*sin(2*PI*(900-100*t)*t)+0.15*sin(2*PI*5200*t)*lt(mod(t,0.31),0.02)\
    +0.2*random(0)*lt(mod(t,0.7),0.05)";
const SECONDS: u32 = 2;

/// A stream, and what ffmpeg makes of it.
struct Encoded {
    config: [u8; 2],
    rate: u32,
    channels: usize,
    frames: Vec<Vec<u8>>,
    decoded: Vec<f32>,
}

fn ffmpeg(arguments: &[&str]) -> bool {
    Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments)
        .status()
        .is_ok_and(|s| s.success())
}

/// `None` without ffmpeg.
fn encode(dir: &Path, sound: &str, rate: u32, channels: usize, options: &[&str]) -> Option<Encoded> {
    let (stream, raw) =
        (dir.join("stream.aac").display().to_string(), dir.join("decoded").display().to_string());
    let source = format!("aevalsrc='{sound}':s=48000:d={SECONDS}");
    let (rate_text, channels_text) = (rate.to_string(), channels.to_string());
    let mut arguments =
        vec!["-f", "lavfi", "-i", &source, "-ar", &rate_text, "-ac", &channels_text, "-c:a", "aac"];
    arguments.extend_from_slice(options);
    arguments.push(&stream);
    if !ffmpeg(&arguments) {
        return None;
    }
    let mean = if channels == 2 { "pan=mono|c0=0.5*c0+0.5*c1" } else { "anull" };
    assert!(ffmpeg(&["-i", &stream, "-af", mean, "-f", "f32le", &raw]));
    let decoded = std::fs::read(&raw).unwrap();
    let decoded = decoded.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (config, frames) = frames(&std::fs::read(&stream).unwrap());
    Some(Encoded { config, rate, channels, frames, decoded })
}

/// The frames of an ADTS stream, and the AudioSpecificConfig that it would have elsewhere.
fn frames(stream: &[u8]) -> ([u8; 2], Vec<Vec<u8>>) {
    let (mut rest, mut frames, mut config) = (stream, Vec::new(), [0; 2]);
    while let [0xff, flags, a, b, c, d, ..] = *rest {
        let length = usize::from(b & 3) << 11 | usize::from(c) << 3 | usize::from(d >> 5);
        let header = if flags & 1 == 1 { 7 } else { 9 };
        let (kind, rate, channels) = ((a >> 6) + 1, a >> 2 & 15, (a & 1) << 2 | b >> 6);
        config = [kind << 3 | rate >> 1, rate << 7 | channels << 3];
        frames.push(rest[header..length].to_vec());
        rest = &rest[length..];
    }
    (config, frames)
}

/// What a capture process hears: 16 kHz, mono.
fn hear(encoded: &Encoded) -> Vec<f32> {
    let track = Track {
        encoding: "mpeg4-generic",
        rate: encoded.rate,
        channels: encoded.channels,
        aac: Some(&encoded.config),
    };
    let mut decoder = AudioDecoder::new(&track).unwrap();
    let (clock, length) = (NonZeroU32::new(encoded.rate).unwrap(), NonZeroU32::new(1024).unwrap());
    let mut heard = Vec::new();
    for (data, n) in encoded.frames.iter().zip(0..) {
        let piece = Piece { data, timestamp: n * 1024, clock, length, lost: 0 };
        assert!(matches!(decoder.decode(&piece, &mut heard).unwrap(), Decoded::Audio));
    }
    heard
}

/// Samples at 16 kHz with nothing above 7 kHz (or nine tenths of what there is), each taken `late` seconds after its time;
/// slowly, and as exactly as can be.
fn lower(samples: &[f32], rate: u32, highest: u32, late: f64) -> Vec<f32> {
    let rate_hz = f64::from(rate);
    let cutoff = 2.0 * f64::from(highest.min(7_000)).min(rate_hz * 0.45) / rate_hz;
    let reach = (rate_hz / 16_000.0).max(1.0) * 96.0;
    let count = (samples.len() as f64 / rate_hz * 16_000.0) as usize;
    let at = |k: usize| {
        let at = (k as f64 / 16_000.0 + late) * rate_hz;
        let first = (at - reach).max(0.0) as usize;
        let nearby = samples.iter().enumerate().take((at + reach) as usize).skip(first);
        let sum: f64 = nearby
            .map(|(n, sample)| {
                let distance = at - n as f64;
                let x = PI * cutoff * distance;
                let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
                let angle = PI * (distance / reach).clamp(-1.0, 1.0);
                let window = 0.42 + 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos();
                f64::from(*sample) * cutoff * sinc * window
            })
            .sum();
        sum as f32
    };
    (0..count).map(at).collect()
}

/// How far what is heard is from what ffmpeg decodes, dB.
fn nearness(encoded: &Encoded) -> f64 {
    let heard = hear(encoded);
    // Half of the samples are made of 32 kHz, a quarter of 64 kHz, without a conversion that could put them where they
    // belong: some microseconds late.
    let late = match encoded.rate {
        32_000 => 0.5 / 32_000.0,
        64_000 => 1.5 / 64_000.0,
        _ => 0.0,
    };
    let highest = encoded.rate * 45 / 100;
    let (ours, theirs) =
        (lower(&heard, 16_000, highest, 0.0), lower(&encoded.decoded, encoded.rate, highest, late));
    assert!(ours.len().abs_diff(theirs.len()) < 2_000, "{} {}", ours.len(), theirs.len());
    let (mut signal, mut error) = (0.0, 1e-12);
    for (ours, theirs) in ours.iter().zip(&theirs).take(ours.len() - 1_000).skip(1_000) {
        signal += f64::from(*theirs).powi(2);
        error += f64::from(ours - theirs).powi(2);
    }
    assert!(signal > 1.0, "ffmpeg hears nothing");
    10.0 * (signal / error).log10()
}

/// How far what is decoded at the stream's own rate is from what ffmpeg decodes, dB.
fn exactness(encoded: &Encoded) -> f64 {
    let (mut decoder, mut ours) = (Decoder::new(&encoded.config).unwrap(), Vec::new());
    assert!(encoded.frames.iter().all(|frame| decoder.decode(frame, &mut ours).is_ok()));
    let (mut signal, mut error) = (0.0, 1e-12);
    for (ours, theirs) in ours.iter().zip(&encoded.decoded) {
        signal += f64::from(*theirs).powi(2);
        error += f64::from(ours - theirs).powi(2);
    }
    10.0 * (signal / error).log10()
}

#[test]
fn every_rate_is_heard_as_ffmpeg_hears_it() {
    let dir = TempDir::new();
    for rate in RATES {
        let both = [1, 2];
        for &channels in if [48_000, 16_000].contains(&rate) { &both[..] } else { &both[1..] } {
            let bits = (rate * channels as u32).to_string();
            let options = ["-b:a", &bits, "-aac_pns", "0", "-aac_is", "0"];
            let Some(encoded) = encode(dir.path(), SOUND, rate, channels, &options) else {
                skip!("ffmpeg is not installed")
            };
            // Rates below 16 kHz are converted by other means, which have tests of their own.
            let nearness = if rate < 16_000 { exactness(&encoded) } else { nearness(&encoded) };
            assert!(nearness > 60.0, "{rate} Hz, {channels} channel(s): {nearness:.1} dB");
        }
    }
}

#[test]
fn every_tool_of_the_encoder_is_understood() {
    let dir = TempDir::new();
    // TNS, sum and difference, intensity (without those: ffmpeg takes their mask for more than the standard says), the
    // coder that takes short windows often, few bits and many.
    for options in [
        "-b:a 128k -aac_tns 0 -aac_pns 0 -aac_is 0 -aac_ms 0",
        "-b:a 128k -aac_tns 0 -aac_pns 0 -aac_is 0 -aac_ms 1",
        "-b:a 96k -aac_tns 1 -aac_pns 0 -aac_is 0 -aac_ms 1",
        "-b:a 48k -aac_tns 0 -aac_pns 0 -aac_is 1 -aac_ms 0",
        "-b:a 24k -aac_tns 1 -aac_pns 0 -aac_is 1 -aac_ms 0",
        "-b:a 128k -aac_coder fast -aac_pns 0",
        "-b:a 320k -aac_pns 0 -aac_is 0",
    ] {
        for rate in [48_000, 16_000] {
            let words: Vec<&str> = options.split(' ').collect();
            let Some(encoded) = encode(dir.path(), SOUND, rate, 2, &words) else {
                skip!("ffmpeg is not installed")
            };
            let nearness = nearness(&encoded);
            assert!(nearness > 60.0, "{options}, {rate} Hz: {nearness:.1} dB");
        }
    }
}

#[test]
fn a_program_configuration_in_a_frame_costs_nothing() {
    let dir = TempDir::new();
    let options = ["-aac_pce", "1", "-b:a", "96k", "-aac_pns", "0", "-aac_is", "0"];
    let Some(mut encoded) = encode(dir.path(), SOUND, 48_000, 2, &options) else {
        skip!("ffmpeg is not installed")
    };
    // Its header says that a program does, and the first frame begins with that.
    assert_eq!((encoded.config, encoded.frames[0][0] >> 5), ([0x11, 0x80], 5));
    encoded.config = [0x11, 0x90];
    let nearness = nearness(&encoded);
    assert!(nearness > 60.0, "{nearness:.1} dB");
}

#[test]
fn noise_that_is_only_described_is_as_loud_as_it_should_be() {
    let dir = TempDir::new();
    let options = ["-b:a", "48k", "-aac_pns", "1", "-aac_tns", "0", "-aac_is", "0"];
    let hiss = "0.1*random(0)+0.05*sin(2*PI*700*t)|0.1*random(1)+0.05*sin(2*PI*900*t)";
    let Some(encoded) = encode(dir.path(), hiss, 48_000, 2, &options) else {
        skip!("ffmpeg is not installed")
    };
    let level = |samples: &[f32]| {
        let sum: f64 = samples.iter().map(|x| f64::from(*x).powi(2)).sum();
        10.0 * (sum / samples.len() as f64).log10()
    };
    let (ours, theirs) =
        (lower(&hear(&encoded), 16_000, 7_000, 0.0), lower(&encoded.decoded, 48_000, 7_000, 0.0));
    for (ours, theirs) in ours.chunks_exact(8_000).zip(theirs.chunks_exact(8_000)).skip(1).take(2) {
        let (ours, theirs) = (level(ours), level(theirs));
        assert!((ours - theirs).abs() < 0.7, "{ours:.2} {theirs:.2} dB");
    }
}

#[test]
fn a_microphone_that_is_only_on_one_side_is_heard() {
    let dir = TempDir::new();
    for sound in ["0|0.4*sin(2*PI*1000*t)", "0.4*sin(2*PI*1000*t)|0"] {
        let Some(encoded) = encode(dir.path(), sound, 48_000, 2, &["-b:a", "64k"]) else {
            skip!("ffmpeg is not installed")
        };
        let heard = hear(&encoded);
        let loudest = heard[16_000..32_000].iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!((loudest - 0.2).abs() < 0.02, "{sound}: {loudest}");
    }
}

/// Onset, end and score of each event that the detector finds in 16 kHz audio.
fn events(dir: &Path, samples: &[f32]) -> Vec<[f64; 3]> {
    let wav = dir.join("heard.wav");
    let pcm: Vec<i16> =
        samples.iter().map(|x| (x * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).collect();
    audio::write_wav(&wav, &pcm);
    let out = wait::output(nursery(["detect", "--json"]).arg(&wav), Duration::from_secs(60));
    let text = String::from_utf8(out.stdout).unwrap();
    let number = |event: &Value, name: &str| event[name].as_f64().unwrap();
    let event = |line: &str| {
        let event = serde_json::from_str(line).unwrap();
        ["onset", "offset", "score"].map(|name| number(&event, name))
    };
    text.lines().map(event).collect()
}

#[test]
fn the_detector_finds_the_same_in_it_as_in_what_ffmpeg_hears() {
    let dir = TempDir::new();
    let wav = dir.join("nursery.wav");
    audio::write_wav(&wav, &[audio::room_noise(4.0), audio::cry(6.0), audio::room_noise(8.0)].concat());
    let (wav, stream, raw) =
        (wav.display().to_string(), dir.join("a.aac"), dir.join("raw").display().to_string());
    let stream = stream.display().to_string();
    if !ffmpeg(&["-i", &wav, "-ar", "48000", "-ac", "2", "-c:a", "aac", "-b:a", "64k", &stream]) {
        skip!("ffmpeg is not installed")
    }
    assert!(ffmpeg(&[
        "-i",
        &stream,
        "-af",
        "pan=mono|c0=0.5*c0+0.5*c1",
        "-ar",
        "16000",
        "-f",
        "f32le",
        &raw
    ]));
    let theirs = std::fs::read(&raw).unwrap();
    let theirs: Vec<f32> =
        theirs.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (config, frames) = frames(&std::fs::read(&stream).unwrap());
    let ours = hear(&Encoded { config, rate: 48_000, channels: 2, frames, decoded: Vec::new() });
    let (ours, theirs) = (events(dir.path(), &ours), events(dir.path(), &theirs));
    assert!(!ours.is_empty() && ours.len() == theirs.len(), "{ours:?} {theirs:?}");
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert!((ours - theirs).abs() < 0.051, "{ours:?} {theirs:?}");
    }
}
