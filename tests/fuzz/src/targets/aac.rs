//! Frames of AAC, by the decoder that makes no more of them than is listened to: whatever they hold, what is made of one is
//! so many numbers, or nothing.

use nursery_worker::capture::aac::{Decoder, Failure};

use crate::{
    mutate::Mutator,
    target::{ROOM, Target, Verdict, size, way},
};

pub const AAC: Target = Target {
    name: "aac",
    about: "frames of AAC",
    mutator: Mutator::Bytes,
    words: &["!", "\u{1}", "\u{7}"],
    longest: 4 << 10,
    memory: |_| ROOM,
    seconds: 2.0,
    short: 4_000,
    seeds,
    check: || Box::new(check),
};

/// Rate and channels in a byte; then frames: length in two bytes, data.
fn seeds() -> Vec<Vec<u8>> {
    // A pair of silent channels, and a single one, each with windows of their own without bands.
    let pair = [0x20, 0x32, 0x00, 0x01, 0x90, 0x00, 0x0e];
    let single = [0x00, 0xc8, 0x00, 0x07, 0x00];
    // The end alone; and a program configuration of one pair, with a comment of two bytes, before the pair.
    let nothing = [0xe0];
    let program =
        [0xa0, 0x98, 0x80, 0x00, 0x04, 0x00, 0x02, 0xaa, 0xcc, 0x20, 0x32, 0x00, 0x01, 0x90, 0x00, 0x0e];
    let input = |kind: u8, frame: &[u8]| {
        let mut input = vec![kind];
        for _ in 0..3 {
            input.extend_from_slice(&(frame.len() as u16).to_be_bytes());
            input.extend_from_slice(frame);
        }
        input
    };
    vec![
        input(3 << 1 | 1, &pair),
        input(8 << 1, &single),
        input(5 << 1 | 1, &pair),
        input(3 << 1 | 1, &nothing),
        input(3 << 1 | 1, &program),
    ]
}

fn check(input: &[u8]) -> Verdict {
    let Some((kind, mut rest)) = input.split_first() else { return Ok(0) };
    let (rate, channels) = (kind >> 1 & 15, (kind & 1) + 1);
    let config = [2 << 3 | rate >> 1, (rate & 1) << 7 | channels << 3];
    let Some(mut decoder) = Decoder::new(&config) else {
        return if rate < 10 { Err(format!("no decoder for {config:x?}")) } else { Ok(1) };
    };
    let (mut ways, mut out) = (Vec::new(), Vec::new());
    while let [a, b, more @ ..] = rest {
        let length = (usize::from(*a) << 8 | usize::from(*b)).min(more.len());
        let (frame, after) = more.split_at(length);
        rest = after;
        out.clear();
        let outcome = decoder.decode(frame, &mut out);
        if let Some(x) = out.iter().find(|x| !x.is_finite()) {
            return Err(format!("{x} is heard"));
        }
        let expected = if outcome.is_err() { &[0][..] } else { &[256, 512, 1024] };
        if !expected.contains(&out.len()) {
            return Err(format!("{} samples: {outcome:?}", out.len()));
        }
        let loud = out.iter().fold(0f32, |most, x| most.max(x.abs()));
        ways.push(match outcome {
            Ok(()) => (size(loud as usize), ""),
            Err(Failure::Corrupt(what) | Failure::Unknown(what)) => (99, what),
        });
    }
    ways.sort_unstable();
    ways.dedup();
    Ok(way((rate, ways)))
}
