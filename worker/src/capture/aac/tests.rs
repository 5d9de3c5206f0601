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
    let bits = silent_pair() + "111";
    let (mut decoder, mut out) = (Decoder::new(&STEREO).unwrap(), Vec::new());
    assert_eq!(decoder.decode(&packet(&bits), &mut out), Ok(()));
    assert!(out.len() == 512 && out.iter().all(|x| *x == 0.0));
    let mut single = "0000000".to_owned();
    silent_channel(&mut single);
    assert!(matches!(decoder.decode(&packet(&single), &mut out), Err(Failure::Unknown(_))));
}

/// A pair of channels with windows of their own, without bands.
fn silent_pair() -> String {
    "0010000".to_owned() + "0" + &("01100100".to_owned() + "0000" + "000000" + "0" + "000").repeat(2)
}

#[test]
fn a_frame_of_nothing_is_as_long_as_any_other() {
    // Its end alone; behind padding; behind bytes of somebody else's.
    let padding = "110".to_owned() + "0010" + "00000000" + "00000000" + "111";
    let data = "100".to_owned() + "0000" + "0" + "00000001" + "10101010" + "111";
    for (config, frames) in frames() {
        let mut decoder = Decoder::new(&config).unwrap();
        let length = 1024 / decoder.layout.divisor;
        for nothing in ["111", &padding, &data] {
            let mut out = Vec::new();
            for frame in &frames {
                decoder.decode(frame, &mut out).unwrap();
            }
            out.clear();
            // What the frame before has left fades out in the first.
            for _ in 0..3 {
                assert_eq!(decoder.decode(&packet(nothing), &mut out), Ok(()), "{nothing}");
            }
            assert_eq!(out.len(), 3 * length);
            assert!(out[..length].iter().any(|x| *x != 0.0) && out[length..].iter().all(|x| *x == 0.0));
        }
        // What breaks off is none.
        for broken in [&[][..], &packet(&padding[..10]), &packet(&data[..20])] {
            assert!(decoder.decode(broken, &mut Vec::new()).is_err(), "{broken:x?}");
        }
    }
}

#[test]
fn a_program_configuration_is_passed_over() {
    // What comes before it moves where bytes begin in it: nothing, or padding.
    for before in ["", "1100000", "110000100000000"] {
        let mut bits = before.to_owned();
        // A program configuration, the first one, LC, 48 kHz.
        let first = [(3, 5), (4, 0), (2, 1), (4, 3)];
        // Elements in front, beside and behind, of low frequency, of data, of coupling.
        let counts = [(4, 2), (4, 1), (4, 1), (2, 1), (3, 2), (4, 1)];
        // Mixed down to mono by an element, not to stereo, by a matrix.
        let mixed = [(1, 1), (4, 7), (1, 0), (1, 1), (2, 3), (1, 1)];
        let elements = [5, 5, 5, 5, 4, 4, 4, 5].map(|width| (width, 11));
        for (width, value) in first.into_iter().chain(counts).chain(mixed).chain(elements) {
            bits += &format!("{value:0width$b}");
        }
        bits += &"0".repeat((8 - bits.len() % 8) % 8);
        bits += &format!("{:08b}", 2);
        let broken = bits.clone();
        bits += "1010101011001100";
        bits += &silent_pair();
        bits += "111";
        let (mut decoder, mut out) = (Decoder::new(&STEREO).unwrap(), Vec::new());
        assert_eq!(decoder.decode(&packet(&bits), &mut out), Ok(()), "{before}");
        assert!(out.len() == 512 && out.iter().all(|x| *x == 0.0));
        // All that it says of itself must be there.
        assert_eq!(decoder.decode(&packet(&broken), &mut out), Err(Failure::Corrupt("it ends early")));
        assert_eq!(out.len(), 512);
    }
    // Coupling itself is not known.
    let coupling = Decoder::new(&STEREO).unwrap().decode(&packet("0100000000000000"), &mut Vec::new());
    assert!(matches!(coupling, Err(Failure::Unknown(_))));
}
