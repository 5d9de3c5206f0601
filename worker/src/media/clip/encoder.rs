//! From a camera's packets to the bytes of a clip's file, in pieces that are whole by themselves. Pure: what is written
//! where is the caller's.

use nursery_shared::media::{AudioCodec, AudioTrack, Data, Kind, Packet, Tracks, VideoCodec, VideoTrack};

use super::{boxes, flac, wav};
use crate::media::fmp4::{Muxer, Sample, Sound, SoundCodec};

/// Media of one piece: so much at the most is missing at the end of a clip whose writer died.
const PIECE_US: i64 = 1_000_000;
/// Packets of a piece at the most, whatever their times.
const PIECE_PACKETS: usize = 512;
/// Sound that is missing is silence in files that know no holes, up to so much; after a longer one a clip ends.
const LONGEST_GAP_US: i64 = 60_000_000;
/// Times of packets tremble by less than this.
const TREMBLE_US: i64 = 80_000;
/// A clock that was set back by more than this is another one.
/// Silence that takes its place, in bytes: a minute of 48 kHz stereo.
const MOST_SILENCE: usize = 12 << 20;
/// How far times may step back.
const SET_BACK_US: i64 = 2_000_000;

/// Why nothing more goes into this file, one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End(pub String);

/// What is in a file so far, by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_us: i64,
    pub until_us: i64,
}

/// Makes one file.
pub struct Encoder {
    kind: Kinds,
    span: Option<Span>,
    video: bool,
    /// A key frame was there.
    pictures_begun: bool,
}

enum Kinds {
    Wav { track: AudioTrack, steady: Steady },
    Movie(Box<Movie>),
}

struct Movie {
    tracks: Tracks,
    sound: Option<Sound>,
    muxer: Option<Muxer>,
    /// What goes into the next piece.
    piece: Vec<Packet>,
    flac: Option<Flac>,
}

/// Sound that becomes FLAC on its way.
struct Flac {
    track: AudioTrack,
    steady: Steady,
    samples: Vec<i16>,
    /// Frames so far.
    frames: u32,
}

/// Sound without holes: what is missing is silence.
struct Steady {
    /// Bytes of a sample of all channels.
    frame: usize,
    rate: u32,
    silence: u8,
    from_us: i64,
    /// Samples so far.
    position: u64,
}

impl Steady {
    fn new(track: &AudioTrack) -> Option<Self> {
        let silence = wav::silence(track.codec);
        Some(Self { frame: wav::frame_bytes(track)?, rate: track.rate, silence, from_us: 0, position: 0 })
    }

    fn at(&self, position: u64) -> i64 {
        let us = u128::from(position) * 1_000_000 / u128::from(self.rate.max(1));
        self.from_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX))
    }

    /// Appends a packet, and silence for what is missing before it.
    fn put(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), End> {
        if self.position == 0 {
            self.from_us = packet.time_us;
        }
        let missing = packet.time_us.saturating_sub(self.at(self.position));
        if missing < -SET_BACK_US {
            return Err(End("the clock was set back".into()));
        }
        if missing > LONGEST_GAP_US {
            return Err(End(format!("nothing was heard for {} s", missing / 1_000_000)));
        }
        if missing > TREMBLE_US {
            let samples = missing.unsigned_abs() * u64::from(self.rate) / 1_000_000;
            let bytes = usize::try_from(samples).unwrap_or(usize::MAX).saturating_mul(self.frame);
            if bytes > MOST_SILENCE {
                return Err(End(format!("nothing was heard for {} s", missing / 1_000_000)));
            }
            out.resize(out.len() + bytes, self.silence);
            self.position += samples;
        }
        let whole = packet.data.len() / self.frame;
        out.extend_from_slice(&packet.data[..whole * self.frame]);
        self.position += whole as u64;
        Ok(())
    }
}

/// The sound of a movie, as it is kept in one.
fn sound_of(track: &AudioTrack) -> Sound {
    Sound::of(track).unwrap_or(Sound {
        codec: SoundCodec::Flac { block: flac::BLOCK, bits: flac::BITS },
        rate: track.rate,
        channels: track.channels,
    })
}

impl Encoder {
    /// Of these tracks. Pictures that come one by one, as JPEG, are left out,
    /// as are those that cannot be decoded.
    ///
    /// # Errors
    /// There is nothing in them that could be kept.
    pub fn new(tracks: &Tracks) -> Result<Self, End> {
        // What the camera says of its pictures may be wrong, which is no reason to keep no sound.
        let usable = |v: &VideoTrack| v.codec != VideoCodec::Jpeg && Muxer::new(Some(v), None, 0).is_ok();
        let video = tracks.video.clone().filter(usable);
        let audio = tracks.audio.clone();
        let has_video = video.is_some();
        let kind = match (audio, video) {
            (None, None) => return Err(End("the camera sends nothing that could be kept".into())),
            (Some(track), None) if track.codec != AudioCodec::Aac => {
                let broken = || End(format!("sound of {} Hz, {} channels", track.rate, track.channels));
                let steady = Steady::new(&track).ok_or_else(broken)?;
                Kinds::Wav { track, steady }
            }
            (audio, video) => {
                let sound = audio.as_ref().map(sound_of);
                let flac = audio.filter(|a| a.codec != AudioCodec::Aac).and_then(|track| {
                    let steady = Steady::new(&track)?;
                    Some(Flac { track, steady, samples: Vec::new(), frames: 0 })
                });
                let tracks = Tracks { audio: tracks.audio.clone(), video, no_video: None };
                Kinds::Movie(Box::new(Movie { tracks, sound, muxer: None, piece: Vec::new(), flac }))
            }
        };
        Ok(Self { kind, span: None, video: has_video, pictures_begun: false })
    }

    /// What is written so far; `None` before the first packet.
    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// The file has pictures.
    pub fn has_video(&self) -> bool {
        self.video
    }

    /// Takes in the next packet; appends to `out` what is to be written, which may be nothing yet.
    ///
    /// # Errors
    /// Nothing more may come; what is in `out` and what [`finish`](Self::finish) gives is to be written all the same.
    pub fn push(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), End> {
        if packet.data.is_empty() {
            return Ok(());
        }
        match &mut self.kind {
            Kinds::Wav { track, steady } => {
                if packet.kind != Kind::Audio {
                    return Ok(());
                }
                if self.span.is_none() {
                    out.extend(wav::header(track, packet.time_us).unwrap_or_default());
                }
                steady.put(packet, out)?;
                self.span = Some(Span { from_us: steady.from_us, until_us: steady.at(steady.position) });
            }
            Kinds::Movie(movie) => {
                let known = match packet.kind {
                    Kind::Audio => movie.tracks.audio.is_some(),
                    Kind::Video => movie.tracks.video.is_some(),
                };
                // Pictures before the first key frame could not be shown.
                self.pictures_begun |= packet.kind == Kind::Video && packet.key;
                let hidden = packet.kind == Kind::Video && !self.pictures_begun;
                if !known || hidden {
                    return Ok(());
                }
                let span =
                    self.span.get_or_insert(Span { from_us: packet.time_us, until_us: packet.time_us });
                if packet.time_us < span.until_us.saturating_sub(SET_BACK_US) {
                    return Err(End("the clock was set back".into()));
                }
                if packet.time_us > span.until_us.saturating_add(LONGEST_GAP_US) {
                    let gap = (packet.time_us - span.until_us) / 1_000_000;
                    return Err(End(format!("nothing came for {gap} s")));
                }
                let due = movie.piece.first().is_some_and(|first| {
                    packet.time_us.saturating_sub(first.time_us) >= PIECE_US
                        || movie.piece.len() >= PIECE_PACKETS
                });
                if due {
                    let until = (packet.kind == Kind::Video).then_some(packet.time_us);
                    movie.write(span.from_us, until, out)?;
                }
                span.until_us = span.until_us.max(packet.time_us.saturating_add(packet.duration_us.into()));
                movie.take(packet)?;
            }
        }
        Ok(())
    }

    /// What is left to be written at the end.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        if let (Kinds::Movie(movie), Some(span)) = (&mut self.kind, self.span) {
            movie.end_sound();
            movie.write(span.from_us, None, out)?;
        }
        Ok(())
    }
}

impl Movie {
    fn take(&mut self, packet: &Packet) -> Result<(), End> {
        let Some(flac) = self.flac.as_mut().filter(|_| packet.kind == Kind::Audio) else {
            self.piece.push(packet.clone());
            return Ok(());
        };
        let mut bytes = Vec::new();
        flac.steady.put(packet, &mut bytes)?;
        flac.samples.extend(flac::samples(flac.track.codec, &bytes));
        let block = usize::from(flac::BLOCK) * usize::from(flac.track.channels);
        let samples = std::mem::take(&mut flac.samples);
        let whole = samples.chunks_exact(block);
        flac.samples.extend_from_slice(whole.remainder());
        self.piece.extend(whole.filter_map(|samples| flac.frame(samples)));
        Ok(())
    }

    fn end_sound(&mut self) {
        if let Some(flac) = &mut self.flac {
            let rest = std::mem::take(&mut flac.samples);
            self.piece.extend(flac.frame(&rest));
        }
    }

    fn write(&mut self, from_us: i64, until_us: Option<i64>, out: &mut Vec<u8>) -> Result<(), End> {
        let failed = |e: crate::media::fmp4::MuxError| End(e.to_string());
        if self.muxer.is_none() {
            let muxer =
                Muxer::new(self.tracks.video.as_ref(), self.sound.as_ref(), from_us).map_err(failed)?;
            out.extend_from_slice(&muxer.init());
            // Sound has the number after pictures.
            let track = if self.tracks.video.is_some() { 1 } else { 2 };
            out.extend_from_slice(&boxes::reference_time(track, from_us));
            self.muxer = Some(muxer);
        }
        let samples: Vec<Sample<'_>> = self.piece.iter().map(Sample::from).collect();
        if let Some(muxer) = &mut self.muxer
            && let Some(fragment) = muxer.fragment(&samples, until_us).map_err(failed)?
        {
            out.extend_from_slice(&fragment);
        }
        self.piece.clear();
        Ok(())
    }
}

impl Flac {
    /// A packet of the next samples of all channels.
    fn frame(&mut self, interleaved: &[i16]) -> Option<Packet> {
        let data = flac::frame(self.frames, self.track.channels, interleaved)?;
        let before = u64::from(self.frames) * u64::from(flac::BLOCK);
        self.frames += 1;
        let after = before + interleaved.len() as u64 / u64::from(self.track.channels);
        let time_us = self.steady.at(before);
        let duration_us = u32::try_from(self.steady.at(after) - time_us).unwrap_or(0);
        Some(Packet { kind: Kind::Audio, time_us, duration_us, key: true, data: Data::from(data) })
    }
}

#[cfg(test)]
mod tests;
