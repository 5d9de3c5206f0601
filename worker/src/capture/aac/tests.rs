#![allow(clippy::unwrap_used)]
use super::*;

/// 48 kHz, two channels; 16 kHz, one.
const STEREO: [u8; 2] = [0x11, 0x90];
const MONO: [u8; 2] = [0x14, 0x08];

#[test]
fn what_it_does_not_know_it_does_not_take() {
    // Without and with the word that there is no SBR; 96 kHz.
    for known in [&STEREO[..], &MONO, &[0x11, 0x90, 0x56, 0xe5, 0x00], &[0x10, 0x10]] {
        assert!(Decoder::new(known).is_some(), "{known:x?}");
    }
    let unknown: [&[u8]; 9] = [
        &[],
        &[0x11],
        // SBR, announced either way; PS.
        &[0x2b, 0x11, 0x88, 0x00],
        &[0x13, 0x90, 0x56, 0xe5, 0xa0],
        &[0xeb, 0x11, 0x88, 0x00],
        // Main, 960 samples, more than two channels, channels as a program says.
        &[0x09, 0x90],
        &[0x11, 0x94],
        &[0x11, 0xb0],
        &[0x11, 0x80],
    ];
    for config in unknown {
        assert!(Decoder::new(config).is_none(), "{config:x?}");
    }
}

/// Frames of ffmpeg's encoder: the inputs that fuzzing begins with.
fn frames() -> Vec<([u8; 2], Vec<Vec<u8>>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/aac");
    let read = |path: std::path::PathBuf| {
        let input = std::fs::read(path).unwrap();
        let (rate, channels) = (input[0] >> 1, (input[0] & 1) + 1);
        let (mut rest, mut frames) = (&input[1..], Vec::new());
        while let [a, b, more @ ..] = rest {
            let (frame, after) = more.split_at(usize::from(*a) << 8 | usize::from(*b));
            frames.push(frame.to_vec());
            rest = after;
        }
        ([2 << 3 | rate >> 1, (rate & 1) << 7 | channels << 3], frames)
    };
    std::fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

#[test]
fn whatever_comes_is_survived_and_what_is_made_of_it_is_audio() {
    let mut random = fastrand::Rng::with_seed(11);
    for (config, frames) in frames() {
        let mut decoder = Decoder::new(&config).unwrap();
        let length = 1024 / decoder.layout.divisor;
        let mut out = Vec::new();
        for frame in &frames {
            assert_eq!(decoder.decode(frame, &mut out), Ok(()), "{config:x?}");
        }
        assert!(out.len() == frames.len() * length && out.iter().any(|x| x.abs() > 1e-3));
        let mut decoded = 0;
        for n in 0..5_000 {
            let mut data = frames[n % frames.len()].clone();
            for _ in 0..random.usize(1..12) {
                let at = random.usize(0..data.len());
                data[at] ^= 1 << random.u8(0..8);
            }
            data.truncate(random.usize(1..=2 * data.len()));
            out.clear();
            match decoder.decode(&data, &mut out) {
                Ok(()) => {
                    decoded += 1;
                    assert!(out.len() == length && out.iter().all(|x| x.is_finite()), "{data:x?}");
                }
                Err(_) => assert!(out.is_empty()),
            }
        }
        assert!(decoded > 0, "{config:x?}: none of them was a packet");
    }
}

/// A channel that is silent takes a few bits.
fn silent_channel(bits: &mut String) {
    // Gain, one section without anything in no bands; no pulses, filters, gain control.
    *bits += "01100100";
    *bits += "000";
}

fn packet(bits: &str) -> Vec<u8> {
    let bits: Vec<u8> = bits.bytes().map(|bit| bit - b'0').collect();
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (n, bit)| sum | bit << (7 - n))).collect()
}

#[test]
fn silence_is_silent_and_other_channels_are_not_known() {
    // A pair, both with windows of their own, no bands.
    let mut bits = "0010000".to_owned() + "0";
    for _ in 0..2 {
        bits += "01100100";
        // Long windows without bands.
        bits += "0000";
        bits += "000000";
        bits += "0";
        bits += "000";
    }
    bits += "111";
    let (mut decoder, mut out) = (Decoder::new(&STEREO).unwrap(), Vec::new());
    assert_eq!(decoder.decode(&packet(&bits), &mut out), Ok(()));
    assert!(out.len() == 512 && out.iter().all(|x| *x == 0.0));
    let mut single = "0000000".to_owned();
    silent_channel(&mut single);
    assert!(matches!(decoder.decode(&packet(&single), &mut out), Err(Failure::Unknown(_))));
    assert_eq!(decoder.decode(&packet("111"), &mut out), Err(Failure::Corrupt("it has no audio")));
}
