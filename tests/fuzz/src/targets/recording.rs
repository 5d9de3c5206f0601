//! Recordings: whatever the file says, it is refused in one line or gives numbers, as many as its bytes can hold.

use nursery_worker::media::decode::Recording;

use crate::{
    mutate::Mutator,
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

pub const RECORDING: Target = Target {
    name: "recording",
    about: "recordings, as `nursery detect` and file cameras read them",
    mutator: Mutator::Bytes,
    words: &[
        "RIFF",
        "WAVE",
        "fmt ",
        "data",
        "LIST",
        "fact",
        "fLaC",
        "OggS",
        "\u{1}vorbis",
        "ID3",
        "ftypM4A ",
        "moov",
        "mdat",
        "trak",
        "stsd",
        "RF64",
        "\u{fe}\u{ff}",
    ],
    longest: 32 << 10,
    // Decoders make room for a packet before they read it; filters of unusual rates.
    memory: |len| 400 * len + 96 * ROOM,
    seconds: 4.0,
    short: 2_000,
    seeds,
    check: || Box::new(recording),
};

/// A WAV file with `bits` per sample; `tag` is 1 for integers, 3 for floats, 6 and 7 for G.711.
fn wav(tag: u16, rate: u32, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut out = b"RIFF".to_vec();
    out.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt \x10\0\0\0");
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&(rate * u32::from(frame)).to_le_bytes());
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&bits.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
    out
}

/// A FLAC file with one frame whose samples are all the same (a constant subframe).
fn flac() -> Vec<u8> {
    let mut out = b"fLaC\x80\0\0\x22".to_vec();
    // Blocks of 4096 samples, 16 kHz, mono, 16 bits, 4096 samples in all, no checksum of the audio.
    out.extend_from_slice(&[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0x00, 0xf0, 0, 0, 0x10, 0]);
    out.extend_from_slice(&[0; 16]);
    let mut frame = vec![0xff, 0xf8, 0xc5, 0x08, 0x00];
    frame.push(crc(&frame, 8, 0x07) as u8);
    // Constant subframe, 0x1234.
    frame.extend_from_slice(&[0x00, 0x12, 0x34]);
    let check = crc(&frame, 16, 0x8005);
    frame.extend_from_slice(&check.to_be_bytes());
    out.extend(frame);
    out
}

/// Cyclic redundancy check, most significant bit first, from zero.
fn crc(bytes: &[u8], width: u32, polynomial: u16) -> u16 {
    let top = 1_u16 << (width - 1);
    let mask = u16::MAX >> (16 - width);
    bytes.iter().fold(0_u16, |mut crc, byte| {
        crc ^= u16::from(*byte) << (width - 8);
        for _ in 0..8 {
            crc = if crc & top != 0 { crc << 1 ^ polynomial } else { crc << 1 } & mask;
        }
        crc
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let data: Vec<u8> = (0..1_200_u32).map(|i| (i * i / 5) as u8).collect();
    vec![
        wav(1, 16_000, 1, 16, &data),
        wav(1, 44_100, 2, 16, &data),
        wav(1, 8_000, 1, 8, &data),
        wav(1, 48_000, 1, 24, &data),
        wav(3, 48_000, 2, 32, &data),
        wav(7, 8_000, 1, 8, &data),
        wav(6, 8_000, 1, 8, &data),
        flac(),
        [&b"\xff\xf1\x60\x40\x02\x1f\xfc"[..], &data[..10]].concat().repeat(20),
        [&b"\xff\xfb\x90\x64"[..], &data[..413]].concat().repeat(3),
    ]
}

fn recording(input: &[u8]) -> Verdict {
    let mut recording = match Recording::from_bytes(input.to_vec()) {
        Ok(recording) => recording,
        Err(e) => {
            one_line(&e)?;
            return Ok(way_of_text(&e));
        }
    };
    if recording.duration_s().is_some_and(|s| !s.is_finite() || s < 0.0) {
        return Err(format!("it lasts {:?} s", recording.duration_s()));
    }
    let (mut heard, mut end) = (0_u64, None);
    let mut out = Vec::new();
    loop {
        out.clear();
        match recording.read(&mut out) {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                one_line(&e)?;
                end = Some(way_of_text(&e));
                break;
            }
        }
        // Floats in a file may be anything; what is made of integers may not.
        heard += out.len() as u64;
        // FLAC holds 65,535 samples in a dozen bytes, and each of 4 kHz becomes four.
        if heard > 40_000 * (input.len() as u64 + 16) {
            return Err(format!("{heard} samples from {} bytes", input.len()));
        }
    }
    Ok(way((size(heard as usize), end, size(recording.corrupt() as usize))))
}
