//! Recordings to 16 kHz mono: WAV, FLAC, Ogg Vorbis, MP3, M4A and ADTS AAC, packet by packet, with a count of
//! what could not be decoded.

use std::{
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
    sync::Arc,
};

use symphonia::core::{
    audio::SampleBuffer,
    codecs::{CODEC_TYPE_NULL, Decoder, DecoderOptions},
    errors::Error,
    formats::{FormatOptions, FormatReader},
    io::{MediaSource, MediaSourceStream},
    meta::MetadataOptions,
    probe::Hint,
};

use super::{guarded, mono::ToMono};

/// Undecodable packets in a row after which a recording is given up.
const HOPELESS: u32 = 1000;

/// A reader of containers that panicked, as some do on damaged files.
const TOO_MUCH: &str = "something in it is too much for nursery (a bug)";

/// A file that somebody else keeps open too. Who reads it shares his place in it.
struct SharedFile(Arc<File>);

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(buffers)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl MediaSource for SharedFile {
    fn is_seekable(&self) -> bool {
        self.0.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.0.byte_len()
    }
}

/// A recording that is being decoded.
pub struct Recording {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn Decoder>,
    track: u32,
    interleaved: Option<SampleBuffer<f32>>,
    mono: ToMono,
    corrupt: u64,
    corrupt_in_a_row: u32,
    duration_s: Option<f64>,
}

impl Recording {
    /// Opens a file.
    pub fn open(path: &std::path::Path) -> Result<Self, String> {
        Self::from_file(std::fs::File::open(path).map_err(|e| reason(&e))?, path)
    }

    /// A file that is open already; `path` is only its name.
    pub fn from_file(file: impl Into<Arc<File>>, path: &std::path::Path) -> Result<Self, String> {
        let file: Arc<File> = file.into();
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err("is a directory, expected a recording".into());
        }
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_owned);
        Self::new(Box::new(SharedFile(file)), extension.as_deref())
    }

    /// A recording that is in memory as a whole.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        Self::new(Box::new(Cursor::new(bytes)), None)
    }

    fn new(source: Box<dyn MediaSource>, extension: Option<&str>) -> Result<Self, String> {
        let mut hint = Hint::new();
        if let Some(extension) = extension {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(source, Default::default());
        let options = FormatOptions { enable_gapless: true, ..Default::default() };
        let probe =
            || symphonia::default::get_probe().format(&hint, stream, &options, &MetadataOptions::default());
        let format = guarded(probe)
            .ok_or(TOO_MUCH)?
            .map_err(|e| format!("not a recording that can be read: {}", explain(&e)))?
            .format;
        let track = format
            .tracks()
            .iter()
            .find(|t| t.codec_params.codec != CODEC_TYPE_NULL && t.codec_params.sample_rate.is_some())
            .or_else(|| format.tracks().iter().find(|t| t.codec_params.codec != CODEC_TYPE_NULL))
            .ok_or("holds no audio track with a known codec")?;
        let parameters = &track.codec_params;
        let decoder =
            symphonia::default::get_codecs().make(parameters, &DecoderOptions::default()).map_err(|e| {
                format!(
                    "its audio cannot be decoded ({}); expected WAV, FLAC, Ogg Vorbis, MP3, M4A or AAC",
                    explain(&e)
                )
            })?;
        let duration_s = parameters
            .n_frames
            .zip(parameters.sample_rate)
            .map(|(frames, rate)| frames as f64 / f64::from(rate.max(1)));
        let track = track.id;
        Ok(Self {
            format,
            decoder,
            track,
            interleaved: None,
            mono: ToMono::default(),
            corrupt: 0,
            corrupt_in_a_row: 0,
            duration_s,
        })
    }

    /// Seconds, where the file says.
    pub fn duration_s(&self) -> Option<f64> {
        self.duration_s
    }

    /// Packets that could not be decoded so far.
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }

    /// Appends the next piece to `out` as 16 kHz mono. False at the end; an error where the rest cannot be
    /// read.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<bool, String> {
        loop {
            let next = guarded(|| self.format.next_packet()).ok_or(TOO_MUCH)?;
            let packet = match next {
                Ok(packet) => packet,
                Err(Error::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.mono.finish(out)?;
                    return Ok(false);
                }
                Err(Error::ResetRequired) => {
                    // A chained stream goes on with new parameters: its decoder starts anew.
                    self.restart_decoder()?;
                    continue;
                }
                Err(Error::DecodeError(what)) => {
                    self.note_corrupt(what)?;
                    continue;
                }
                Err(e) => return Err(format!("cannot be read any further: {}", explain(&e))),
            };
            if packet.track_id() != self.track {
                continue;
            }
            let Some(decoded) = guarded(|| self.decoder.decode(&packet)) else {
                self.decoder.reset();
                self.note_corrupt("too much for the decoder")?;
                continue;
            };
            match decoded {
                Ok(decoded) if decoded.frames() == 0 => {}
                Ok(decoded) => {
                    let spec = *decoded.spec();
                    let room = decoded.capacity() * spec.channels.count();
                    let buffer = match &mut self.interleaved {
                        Some(buffer) if buffer.capacity() >= room => buffer,
                        slot => slot.insert(SampleBuffer::new(decoded.capacity() as u64, spec)),
                    };
                    buffer.copy_interleaved_ref(decoded);
                    self.corrupt_in_a_row = 0;
                    self.mono.push(buffer.samples(), spec.channels.count(), spec.rate, out)?;
                    return Ok(true);
                }
                Err(Error::DecodeError(what)) => self.note_corrupt(what)?,
                Err(Error::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.note_corrupt("a packet ends too early")?;
                }
                Err(Error::ResetRequired) => self.restart_decoder()?,
                Err(e) => return Err(format!("cannot be decoded any further: {}", explain(&e))),
            }
        }
    }

    fn restart_decoder(&mut self) -> Result<(), String> {
        let track = self
            .format
            .tracks()
            .iter()
            .find(|t| t.codec_params.codec != CODEC_TYPE_NULL)
            .ok_or("goes on without an audio track")?;
        self.track = track.id;
        self.decoder = symphonia::default::get_codecs()
            .make(&track.codec_params, &DecoderOptions::default())
            .map_err(|e| format!("goes on with audio that cannot be decoded: {}", explain(&e)))?;
        Ok(())
    }

    fn note_corrupt(&mut self, what: &str) -> Result<(), String> {
        self.corrupt += 1;
        self.corrupt_in_a_row += 1;
        if self.corrupt_in_a_row >= HOPELESS {
            return Err(format!("is corrupt: {HOPELESS} packets in a row cannot be decoded ({what})"));
        }
        Ok(())
    }
}

fn explain(error: &Error) -> String {
    match error {
        Error::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            "it ends before any audio, or is of no known format".into()
        }
        Error::IoError(e) => reason(e),
        Error::DecodeError(what) => format!("corrupt ({what})"),
        Error::Unsupported(what) => format!("unsupported ({what})"),
        Error::LimitError(what) => format!("beyond a limit ({what})"),
        Error::SeekError(_) | Error::ResetRequired => error.to_string(),
    }
}

/// What the system said, without the error number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied: this process may not read it".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A WAV file of 16-bit samples, `channels` times the same signal.
    pub fn wav(rate: u32, channels: u16, mono: &[f32]) -> Vec<u8> {
        let data = mono.len() as u32 * u32::from(channels) * 2;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"RIFF");
        bytes.extend_from_slice(&(36 + data).to_le_bytes());
        bytes.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0");
        bytes.extend_from_slice(&channels.to_le_bytes());
        bytes.extend_from_slice(&rate.to_le_bytes());
        bytes.extend_from_slice(&(rate * u32::from(channels) * 2).to_le_bytes());
        bytes.extend_from_slice(&(channels * 2).to_le_bytes());
        bytes.extend_from_slice(b"\x10\0data");
        bytes.extend_from_slice(&data.to_le_bytes());
        for s in mono {
            for _ in 0..channels {
                bytes.extend_from_slice(&((s * 32767.0) as i16).to_le_bytes());
            }
        }
        bytes
    }

    fn read_all(bytes: Vec<u8>) -> Result<Vec<f32>, String> {
        let mut recording = Recording::from_bytes(bytes)?;
        let mut out = Vec::new();
        while recording.read(&mut out)? {}
        Ok(out)
    }

    #[test]
    fn a_recording_keeps_length_and_level_through_rates_and_channels() {
        for (rate, channels) in [(16_000, 1), (8_000, 1), (48_000, 2), (44_100, 2)] {
            let tone: Vec<f32> = (0..rate).map(|i| (i as f32 * 2000.0 / rate as f32).sin() * 0.5).collect();
            let out = read_all(wav(rate, channels, &tone)).unwrap();
            assert!(out.len().abs_diff(16_000) <= 1, "{rate}: {}", out.len());
            let level = crate::media::level::dbfs(&out);
            assert!((level + 9.03).abs() < 0.2, "{rate}: {level}");
        }
    }

    #[test]
    fn rubbish_is_an_error_and_a_truncated_file_gives_what_is_there() {
        assert!(read_all(b"this is no audio at all".repeat(500)).is_err());
        assert!(read_all(Vec::new()).is_err());
        let mut bytes = wav(16_000, 1, &[0.25; 16_000]);
        bytes.truncate(16_044);
        let out = read_all(bytes).unwrap();
        assert!((7_000..=8_000).contains(&out.len()), "{}", out.len());
    }
}
