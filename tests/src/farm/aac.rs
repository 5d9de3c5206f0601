//! AAC-LC for the farm's cameras: encoded once by ffmpeg, kept in a file, and cut into access units.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ring::digest;

/// Samples per channel in an access unit.
pub const FRAME: usize = 1024;

/// Frames of the end of the loop that are encoded before its beginning, so that an encoder that has heard something
/// before also begins there as it goes on later.
const BEFORE: usize = 4;

/// Raises the name of the cached file whenever what ffmpeg is told changes.
const VERSION: u32 = 1;

/// The access units of a loop, and what a decoder must know.
pub struct Encoded {
    /// Each decodes to the loop's next 1024 samples, where the one before it was decoded before.
    pub units: Vec<Vec<u8>>,
    /// AudioSpecificConfig (ISO/IEC 14496-3).
    pub config: Vec<u8>,
}

/// Encodes a loop of interleaved samples, whose length must be a whole number of frames. What was encoded before is read
/// from `cache`. The error says what is missing, in one line.
pub fn encode(
    pcm: &[i16],
    rate: u32,
    channels: usize,
    bit_rate: u32,
    cache: &Path,
) -> Result<Encoded, String> {
    assert_eq!(pcm.len() % (FRAME * channels), 0, "the loop is no whole number of frames");
    let (before, after) = (BEFORE * FRAME * channels, 2 * FRAME * channels);
    let all: Vec<u8> = pcm[pcm.len() - before..]
        .iter()
        .chain(pcm)
        .chain(&pcm[..after])
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let file = cached(&all, rate, channels, bit_rate, cache);
    let stream = match fs::read(&file) {
        Ok(stream) => stream,
        Err(_) => {
            let stream = ffmpeg(&all, rate, channels, bit_rate)?;
            keep(&file, &stream).map_err(|e| format!("{}: {e}", file.display()))?;
            stream
        }
    };
    let (units, config) = split(&stream).map_err(|e| format!("{}: {e}; remove it", file.display()))?;
    // The encoder's own delay is one frame: frame n + 1 brings the samples of frame n.
    let first = BEFORE + 1;
    let count = pcm.len() / FRAME / channels;
    let units = units.get(first..first + count).ok_or_else(|| {
        format!("{}: {} access units instead of {} and more", file.display(), units.len(), first + count)
    })?;
    Ok(Encoded { units: units.to_vec(), config })
}

/// The whole of it as an ADTS stream (ISO/IEC 14496-3), to be given to others.
pub fn adts(encoded: &Encoded) -> Vec<u8> {
    let mut all = Vec::new();
    for unit in &encoded.units {
        let length = unit.len() + 7;
        let (first, second) = (encoded.config[0], encoded.config[1]);
        let (profile, index) = ((first >> 3) - 1, (first & 7) << 1 | second >> 7);
        let channels = second >> 3 & 0x0f;
        all.extend_from_slice(&[
            0xff,
            0xf1,
            profile << 6 | index << 2 | channels >> 2,
            (channels & 3) << 6 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length << 5) as u8 | 0x1f,
            0xfc,
        ]);
        all.extend_from_slice(unit);
    }
    all
}

fn cached(pcm: &[u8], rate: u32, channels: usize, bit_rate: u32, cache: &Path) -> PathBuf {
    let hash = digest::digest(&digest::SHA256, pcm);
    let hash: String = hash.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
    cache.join(format!("{VERSION}-{rate}-{channels}-{bit_rate}-{hash}.adts"))
}

/// Puts a file in place at once: several farms may begin at the same time.
fn keep(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    fs::write(&partial, bytes)?;
    fs::rename(partial, file)
}

fn ffmpeg(pcm: &[u8], rate: u32, channels: usize, bit_rate: u32) -> Result<Vec<u8>, String> {
    let missing = |e: std::io::Error| format!("ffmpeg, which encodes AAC for the farm: {e}");
    let number = |n: u32| n.to_string();
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "s16le", "-ar", &number(rate), "-ac", &number(channels as u32)])
        // Noise that decoders make up themselves, each its own, is nothing that could be compared.
        .args(["-i", "-", "-c:a", "aac", "-aac_pns", "0", "-b:a", &number(bit_rate), "-f", "adts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let mut stdin = child.stdin.take().expect("piped");
    let pcm = pcm.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&pcm));
    let out = child.wait_with_output().map_err(missing)?;
    let written = writer.join().expect("the writing thread");
    if !out.status.success() || written.is_err() {
        return Err(format!("ffmpeg did not encode AAC for the farm: {}", out.status));
    }
    Ok(out.stdout)
}

/// Access units of an ADTS stream, and their AudioSpecificConfig.
fn split(stream: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
    let (mut units, mut config, mut at) = (Vec::new(), Vec::new(), 0);
    while at < stream.len() {
        let header = stream.get(at..at + 7).ok_or("ends in a header")?;
        if header[0] != 0xff || header[1] & 0xf6 != 0xf0 {
            return Err(format!("no ADTS header at byte {at}"));
        }
        let (profile, index) = (header[2] >> 6, header[2] >> 2 & 0x0f);
        let channels = (header[2] & 1) << 2 | header[3] >> 6;
        let length =
            usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
        let header = if header[1] & 1 == 1 { 7 } else { 9 };
        let unit = stream.get(at + header..at + length).ok_or("ends in an access unit")?;
        units.push(unit.to_vec());
        config = vec![(profile + 1) << 3 | index >> 1, (index & 1) << 7 | channels << 3];
        at += length;
    }
    Ok((units, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_units_are_the_same_there_and_back() {
        let encoded =
            Encoded { units: vec![vec![1; 300], vec![2; 8_000], vec![3]], config: vec![0x11, 0x90] };
        let (units, config) = split(&adts(&encoded)).unwrap();
        assert_eq!((units, config), (encoded.units, encoded.config));
        assert!(split(&[0xff, 0xf1, 0]).is_err() && split(&[0; 20]).is_err());
    }
}
