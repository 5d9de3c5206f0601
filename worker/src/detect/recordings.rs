//! Recordings to batches of windows.

use std::{io::Read, panic::AssertUnwindSafe, path::Path};

use nursery_models::window::{Window, WindowCutter};
use nursery_shared::message::ModelShape;

use crate::media::decode::{Recording, reason};

/// Windows of one batch.
pub const BATCH: usize = 16;

/// Most bytes that are taken from standard input: an hour of uncompressed stereo at 48 kHz fits.
const LONGEST_INPUT: u64 = 1 << 30;

/// What came out of a recording.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Samples at 16 kHz.
    pub samples: u64,
    /// Packets that could not be decoded.
    pub corrupt: u64,
}

/// Decodes the recording and hands its windows to `take`, which says whether to go on. `opened` is told the
/// length in seconds, where the recording says it. A decoder that panics is an error like any other.
pub fn read(
    path: &Path,
    shape: &ModelShape,
    opened: impl FnOnce(Option<f64>),
    take: &mut dyn FnMut(Vec<Window>) -> bool,
) -> Result<Summary, String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| decode(path, shape, opened, take)))
        .unwrap_or_else(|_| Err("the decoder gave up on it (a bug in it)".into()))
}

fn decode(
    path: &Path,
    shape: &ModelShape,
    opened: impl FnOnce(Option<f64>),
    take: &mut dyn FnMut(Vec<Window>) -> bool,
) -> Result<Summary, String> {
    let mut recording = if path.as_os_str() == "-" {
        Recording::from_bytes(standard_input()?)?
    } else {
        Recording::open(path)?
    };
    opened(recording.duration_s());
    let mut cutter = WindowCutter::new(shape.window as usize, shape.hop as usize);
    let (mut samples, mut total, mut batch, mut more) = (Vec::new(), 0, Vec::new(), true);
    while more {
        samples.clear();
        more = recording.read(&mut samples)?;
        total += samples.len() as u64;
        cutter.push(&samples, |w| batch.push(w));
        if !more {
            cutter.finish(shape.lookahead as usize, |w| batch.push(w));
        }
        while batch.len() >= BATCH || (!more && !batch.is_empty()) {
            let rest = batch.split_off(batch.len().min(BATCH));
            if !take(std::mem::replace(&mut batch, rest)) {
                return Ok(Summary::default());
            }
        }
    }
    if total == 0 {
        return Err(match recording.corrupt() {
            0 => "holds no audio".into(),
            n => format!("none of its {n} packets can be decoded"),
        });
    }
    Ok(Summary { samples: total, corrupt: recording.corrupt() })
}

fn standard_input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("cannot be read: {}", reason(&e)))?;
    if bytes.len() as u64 > LONGEST_INPUT {
        return Err(format!("is longer than {} MiB: save it as a file first", LONGEST_INPUT >> 20));
    }
    Ok(bytes)
}
