//! Encoded audio to samples, samples to 16 kHz mono, and mono to windows: nothing depends on how it is cut into
//! pieces, nothing is lost or invented, and every sample is a number.

use std::num::NonZeroU32;

use nursery_models::window::{Window, WindowCutter};
use nursery_shared::pcm::Pcm;
use nursery_worker::{
    capture::rtsp::audio::{AudioDecoder, Decoded, Piece, Track},
    media::{g711, mono::ToMono},
};

use crate::{
    mutate::Mutator,
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

/// Takes numbers from the front of an input; zeros when it is at its end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        self.bytes(4).iter().fold(0, |n, b| n << 8 | u32::from(*b))
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Resampling filters of the rates that are furthest from 16 kHz.
const FILTERS: usize = 48 << 20;

pub const DECODER: Target = Target {
    name: "rtp-audio",
    about: "the frames of an RTSP audio track",
    mutator: Mutator::Bytes,
    words: &["\u{14}\u{8}", "\u{12}\u{10}"],
    longest: 16 << 10,
    // A second of silence for each frame at most.
    memory: |len| 2000 * len + FILTERS,
    seconds: 4.0,
    short: 2_000,
    seeds: decoder_seeds,
    check: || Box::new(decoder),
};

/// Codec, rate, channels, then frames: step of the timestamp, length, data.
fn decoder_seeds() -> Vec<Vec<u8>> {
    let tracks: [(u8, u32, u8); 6] =
        [(0, 8_000, 1), (1, 8_000, 1), (2, 16_000, 1), (2, 44_100, 2), (2, 768_000, 8), (3, 16_000, 1)];
    tracks
        .into_iter()
        .map(|(codec, rate, channels)| {
            let mut input = vec![codec];
            input.extend_from_slice(&rate.to_be_bytes());
            input.extend_from_slice(&u32::from(channels).to_be_bytes());
            for n in 0..5_u32 {
                input.extend_from_slice(&(n / 4 * 1_000).to_be_bytes());
                input.push(80);
                input.extend((0..80_u8).map(|i| i.wrapping_mul(37).wrapping_add(n as u8)));
            }
            input
        })
        .collect()
}

fn decoder(input: &[u8]) -> Verdict {
    let mut reader = Reader(input);
    let codec = reader.byte() % 5;
    let (rate, channels) = (reader.number(), reader.number() as usize % 70_000);
    let encoding = ["pcmu", "pcma", "l16", "mpeg4-generic", "g7\n29"][usize::from(codec)];
    let config = [0x14, 0x08];
    let aac = (codec == 3).then_some(&config[..]);
    let track = Track { encoding, rate, channels, aac };
    let mut decoder = match AudioDecoder::new(&track) {
        Ok(decoder) => decoder,
        Err(e) => {
            one_line(&e)?;
            return Ok(way_of_text(&e));
        }
    };
    one_line(&decoder.describe())?;
    let (mut heard, mut ways, mut timestamp) = (0, Vec::new(), 0_i64);
    let clock = NonZeroU32::new(rate.max(1)).ok_or("no clock")?;
    while !reader.is_empty() {
        let step = reader.number();
        // Mostly a pause, sometimes the other end of time.
        timestamp = match step {
            u32::MAX => i64::MAX,
            0x8000_0000 => i64::MIN,
            _ => timestamp.saturating_add(i64::from(step as i32)),
        };
        let count = usize::from(reader.byte());
        let data = reader.bytes(count);
        let length = NonZeroU32::new(1024).ok_or("no length")?;
        let lost = (step % 3) as u16;
        let mut out = Vec::new();
        let decoded = decoder.decode(&Piece { data, timestamp, clock, length, lost }, &mut out);
        if let Some(x) = out.iter().find(|x| !x.is_finite()) {
            return Err(format!("{encoding}: {x} is heard"));
        }
        // What the frame holds, a second of silence, and a block of the resampler or two.
        let most = (data.len().max(1024) as u64 * 16_000 / u64::from(rate.clamp(4_000, 768_000))) as usize
            + 16_000
            + 16_000;
        if out.len() > most {
            return Err(format!("{encoding}: {} samples from {} bytes", out.len(), data.len()));
        }
        heard += out.len();
        timestamp = timestamp.saturating_add(data.len() as i64 / channels.max(1) as i64);
        match decoded {
            Ok(Decoded::Audio) => ways.push(1),
            Ok(Decoded::AudioAfterShortPacket) => ways.push(2),
            Ok(Decoded::Corrupt(what)) => {
                one_line(&what)?;
                ways.push(way_of_text(&what));
            }
            Err(e) => {
                one_line(&e)?;
                ways.push(way_of_text(&e));
                break;
            }
        }
    }
    ways.truncate(6);
    Ok(way((encoding, size(rate as usize), size(channels), ways, size(heard))))
}

pub const MONO: Target = Target {
    name: "mono",
    about: "interleaved audio of any rate to 16 kHz mono",
    mutator: Mutator::Bytes,
    words: &[],
    longest: 8 << 10,
    memory: |len| 200 * len + 2 * FILTERS,
    seconds: 4.0,
    short: 500,
    seeds: || {
        let rates: [u32; 8] = [8_000, 16_000, 44_100, 48_000, 11_025, 96_000, 4_000, 22_051];
        let input = |rate: u32| {
            let mut input = rate.to_be_bytes().to_vec();
            input.push((rate % 3) as u8);
            input.extend((0..2_000_u32).map(|i| (i * i / 7) as u8));
            input
        };
        rates.into_iter().map(input).collect()
    },
    check: || Box::new(mono),
};

fn mono(input: &[u8]) -> Verdict {
    let mut reader = Reader(input);
    let (rate, channels) = (reader.number() % 800_000, usize::from(reader.byte() % 9));
    let samples: Vec<f32> = reader.0.iter().map(|b| f32::from(*b as i8) / 128.0).collect();
    let frames = samples.len() / channels.max(1);
    let run = |cuts: &mut dyn FnMut(usize) -> usize| -> Result<Vec<f32>, String> {
        let (mut mono, mut out, mut at) = (ToMono::default(), Vec::new(), 0);
        while at < frames {
            let count = cuts(frames - at).clamp(1, frames - at);
            let (from, to) = (at * channels.max(1), (at + count) * channels.max(1));
            mono.push(&samples[from..to], channels, rate, &mut out)?;
            at += count;
        }
        mono.finish(&mut out)?;
        Ok(out)
    };
    let mut random = fastrand::Rng::with_seed(way(input));
    match (run(&mut |left| left), run(&mut |_| random.usize(1..400))) {
        (Ok(at_once), Ok(in_pieces)) => {
            if at_once != in_pieces {
                return Err(format!("{rate} Hz, {channels} channels: the audio depends on how it arrives"));
            }
            let wanted = frames as u64 * 16_000 / u64::from(rate.max(1));
            if at_once.len() as u64 != wanted {
                return Err(format!(
                    "{frames} frames at {rate} Hz become {} samples, not {wanted}",
                    at_once.len()
                ));
            }
            // A low-pass overshoots, but not by much.
            if let Some(x) = at_once.iter().find(|x| !(-4.0..=4.0).contains(*x)) {
                return Err(format!("{rate} Hz: {x} out of samples within 1"));
            }
            Ok(way((size(rate as usize), channels, size(frames))))
        }
        (Err(e), Err(again)) if e == again => {
            one_line(&e)?;
            Ok(way_of_text(&e))
        }
        (a, b) => Err(format!("at once: {:?}; in pieces: {:?}", a.map(|a| a.len()), b.map(|b| b.len()))),
    }
}

pub const G711: Target = Target {
    name: "g711",
    about: "G.711 and 16-bit samples, there and back",
    mutator: Mutator::Bytes,
    words: &[],
    longest: 4 << 10,
    memory: |len| 40 * len + ROOM,
    seconds: 2.0,
    short: 5_000,
    seeds: || vec![(0..=255).collect(), vec![0x7f, 0xff, 0x80, 0, 0xd5, 0x55]],
    check: || Box::new(g711),
};

/// The code whose value is nearest, found by looking at all of them: slow, and nothing to get wrong.
fn nearest(law: fn(u8) -> i16, sample: i16) -> u8 {
    let far = |code: u8| (i32::from(law(code)) - i32::from(sample)).abs();
    (0..=255).min_by_key(|code| far(*code)).unwrap_or(0)
}

fn g711(input: &[u8]) -> Verdict {
    for (name, law, step) in [("µ-law", g711::ulaw as fn(u8) -> i16, 1024_i32), ("A-law", g711::alaw, 1024)]
    {
        for &byte in input {
            let value = law(byte);
            if law(nearest(law, value)) != value {
                return Err(format!("{name}: {byte:#x} is {value}, and back {}", law(nearest(law, value))));
            }
            // Both laws have a code for the other side of zero.
            if !(0..=255).any(|other| i32::from(law(other)) == -i32::from(value)) {
                return Err(format!("{name}: {byte:#x} is {value}, without an opposite"));
            }
        }
        for pair in input.chunks_exact(2).take(16) {
            let sample = i16::from_le_bytes([pair[0], pair[1]]);
            let back = law(nearest(law, sample));
            let error = (i32::from(back) - i32::from(sample)).abs();
            // Half a step of the segment: a sixteenth of the value at most, and the smallest step near zero.
            let allowed = (i32::from(sample).abs() / 16 + 16).min(step);
            if error > allowed {
                return Err(format!("{name}: {sample} becomes {back}"));
            }
        }
    }
    let pcm = Pcm::from(&input[..input.len() / 2 * 2]);
    let again = Pcm::from_f32(&pcm.to_f32());
    if again != pcm {
        return Err("16-bit samples are not the same after they were numbers".into());
    }
    let odd: Vec<f32> = input.chunks_exact(4).map(|b| f32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    if Pcm::from_f32(&odd).to_f32().iter().any(|x| !(-1.0..1.0).contains(x)) {
        return Err("a number becomes a sample beyond 1".into());
    }
    Ok(way((size(input.len()), input.first())))
}

pub const WINDOWS: Target = Target {
    name: "windows",
    about: "cutting a stream into windows",
    mutator: Mutator::Bytes,
    words: &[],
    longest: 64,
    memory: |_| 64 * ROOM,
    seconds: 2.0,
    short: 20_000,
    seeds: || {
        vec![vec![0, 16, 0, 4, 1, 2, 3, 200, 9, 255], vec![0, 7, 0, 7, 7, 7, 0, 20], vec![0, 1, 0, 0, 5]]
    },
    check: || Box::new(windows),
};

/// Window, hop, length of the tail, then lengths of chunks.
fn windows(input: &[u8]) -> Verdict {
    let mut reader = Reader(input);
    let mut word = || reader.bytes(2).iter().fold(0, |n, b| n << 8 | usize::from(*b));
    let (window, hop) = (word() % 512, word() % 600);
    let tail = usize::from(reader.byte());
    let chunks: Vec<usize> = reader.0.iter().map(|b| usize::from(*b)).collect();
    let total: usize = chunks.iter().sum();
    let stream: Vec<f32> = (0..total).map(|i| (i + 1) as f32).collect();
    let (mut cutter, mut cut, mut at) = (WindowCutter::new(window, hop), Vec::new(), 0);
    for chunk in chunks {
        cutter.push(&stream[at..at + chunk], |w| cut.push(w));
        at += chunk;
    }
    if cutter.position() != total as u64 {
        return Err(format!("{total} samples are {}", cutter.position()));
    }
    cutter.finish(tail, |w| cut.push(w));
    // The same by looking at the stream as a whole.
    let (window, hop) = (window.max(1), hop.clamp(1, window.max(1)));
    let count = (total / hop * hop + (total % hop + tail).div_ceil(hop) * hop) / hop;
    let whole = |n: usize| {
        let end = (n + 1) * hop;
        let at = |i: usize| (i + end).checked_sub(window).and_then(|i| stream.get(i)).copied().unwrap_or(0.0);
        Window { end: end as u64, samples: (0..window).map(at).collect() }
    };
    if cut.len() != count {
        return Err(format!(
            "{} windows of {window} every {hop} from {total} samples and {tail}, not {count}",
            cut.len()
        ));
    }
    if let Some(n) = (0..count).find(|n| cut[*n] != whole(*n)) {
        return Err(format!("window {n} of {window} every {hop} is {:?}, not {:?}", cut[n], whole(n)));
    }
    Ok(way((size(window), size(hop), size(count), size(tail))))
}
