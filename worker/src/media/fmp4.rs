//! Fragmented MP4 (ISO/IEC 14496-12, -14, -15) as Media Source Extensions and players take it: a segment that says what
//! there is, and a movie fragment for any run of packets. What a camera sent goes in as it is.

mod entry;
mod timeline;

use bytes::Bytes;
use mp4_atom::{
    Dinf, Dref, Encode, Ftyp, Hdlr, Mdhd, Mdia, Mfhd, Minf, Moof, Moov, Mvex, Mvhd, Smhd, Stbl, Stsd, Tfdt,
    Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Url, Vmhd,
};
use nursery_shared::media::{AudioTrack, Data, Kind, Packet, VideoTrack};

pub use entry::{mime_of_sound, mime_of_video};
use timeline::{Pictures, Sounds};

/// Ticks per second of pictures, as RTP counts them.
pub const PICTURE_SCALE: u32 = 90_000;
/// Numbers of the tracks.
const VIDEO: u32 = 1;
const SOUND: u32 = 2;
/// Largest fragment.
const MAX_FRAGMENT: usize = 256 << 20;
/// A sample that needs no other one, and one that does (ISO/IEC 14496-12, 8.8.3.1).
const KEY: u32 = 0x0200_0000;
const NO_KEY: u32 = 0x0101_0000;

/// Why something cannot be written as MP4. One line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("MP4: {0}")]
pub struct MuxError(String);

impl MuxError {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<mp4_atom::Error> for MuxError {
    fn from(e: mp4_atom::Error) -> Self {
        Self(e.to_string())
    }
}

/// How sound is kept in MP4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SoundCodec {
    /// Raw AAC frames, with their AudioSpecificConfig.
    Aac { config: Data },
    /// FLAC frames (RFC 9639) of so many samples each, of so many bits.
    Flac { block: u16, bits: u8 },
}

/// What is to be known of sound to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    pub codec: SoundCodec,
    /// Samples per second and channel.
    pub rate: u32,
    pub channels: u8,
}

impl Sound {
    /// Of a camera's sound that goes into MP4 as it is; `None` for what does not: G.711 and PCM.
    pub fn of(track: &AudioTrack) -> Option<Self> {
        matches!(track.codec, nursery_shared::media::AudioCodec::Aac).then(|| Self {
            codec: SoundCodec::Aac { config: track.config.clone() },
            rate: track.rate,
            channels: track.channels,
        })
    }
}

/// An access unit of a picture, or a frame of sound.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub kind: Kind,
    /// Microseconds, by the clock of the epoch that the muxer was given. Rises within a track; where it does not, what
    /// is written rises all the same.
    pub time_us: i64,
    /// Of sound; pictures last until the next one.
    pub duration_us: u32,
    pub key: bool,
    pub data: &'a [u8],
}

impl<'a> From<&'a Packet> for Sample<'a> {
    fn from(packet: &'a Packet) -> Self {
        Self {
            kind: packet.kind,
            time_us: packet.time_us,
            duration_us: packet.duration_us,
            key: packet.key,
            data: &packet.data,
        }
    }
}

/// Writes one movie.
#[derive(Debug)]
pub struct Muxer {
    init: Bytes,
    pictures: Option<Pictures>,
    sounds: Option<Sounds>,
    sequence: u32,
}

impl Muxer {
    /// A movie of these tracks, at least one, whose time 0 is at `epoch_us` (microseconds, as in [`Sample::time_us`]).
    ///
    /// # Errors
    /// A configuration is broken, or of nothing that MP4 can hold.
    pub fn new(video: Option<&VideoTrack>, sound: Option<&Sound>, epoch_us: i64) -> Result<Self, MuxError> {
        if video.is_none() && sound.is_none() {
            return Err(MuxError::new("neither pictures nor sound"));
        }
        let mut tracks = Vec::new();
        if let Some(video) = video {
            tracks.push(picture_track(video)?);
        }
        if let Some(sound) = sound {
            tracks.push(sound_track(sound)?);
        }
        let mut init = Vec::with_capacity(1024);
        Ftyp {
            major_brand: b"iso5".into(),
            minor_version: 512,
            compatible_brands: vec![b"iso5".into(), b"iso6".into(), b"mp41".into()],
        }
        .encode(&mut init)?;
        let trex = tracks.iter().map(|t| Trex {
            track_id: t.tkhd.track_id,
            default_sample_description_index: 1,
            ..Trex::default()
        });
        Moov {
            mvhd: Mvhd {
                timescale: 1000,
                rate: 1.into(),
                volume: 1.into(),
                next_track_id: SOUND + 1,
                ..Mvhd::default()
            },
            mvex: Some(Mvex { mehd: None, trex: trex.collect() }),
            trak: tracks,
            ..Moov::default()
        }
        .encode(&mut init)?;
        Ok(Self {
            init: init.into(),
            pictures: video.map(|_| Pictures::new(epoch_us)),
            sounds: sound.map(|s| Sounds::new(epoch_us, s.rate)),
            sequence: 0,
        })
    }

    /// For pictures that are written and played one by one, as they come. A browser drops what comes later than twice the
    /// length of the picture before (Media Source Extensions, 3.5.8), up to the next key frame, and how long a picture lasts
    /// is not known before the next one is there. So each begins where the one before was said to end, at the latest, and
    /// lasts until the next one should come: the one after a gap fills it.
    #[must_use]
    pub fn without_holes(mut self, epoch_us: i64) -> Self {
        self.pictures = self.pictures.map(|_| Pictures::unbroken(epoch_us));
        self
    }

    /// What comes before all fragments.
    pub fn init(&self) -> Bytes {
        self.init.clone()
    }

    /// The next fragment: these samples, each track in its order, as a movie fragment and its data. The last picture
    /// lasts until `until_us`, or, where that is not known, as long as the one before. Samples of a track that this
    /// movie does not have, and empty ones, are left out; `None` where nothing is left.
    ///
    /// # Errors
    /// The fragment would be too large.
    pub fn fragment(
        &mut self,
        samples: &[Sample<'_>],
        until_us: Option<i64>,
    ) -> Result<Option<Bytes>, MuxError> {
        let total: usize = samples.iter().map(|s| s.data.len()).sum();
        if total > MAX_FRAGMENT {
            return Err(MuxError::new(format!(
                "a fragment of {total} bytes, at most {MAX_FRAGMENT} are written"
            )));
        }
        let of = |kind: Kind| -> Vec<&Sample<'_>> {
            samples.iter().filter(|s| s.kind == kind && !s.data.is_empty()).collect()
        };
        let mut runs: Vec<(Traf, Vec<&Sample<'_>>)> = Vec::with_capacity(2);
        if let Some(pictures) = &mut self.pictures {
            let chosen = of(Kind::Video);
            let times: Vec<i64> = chosen.iter().map(|s| s.time_us).collect();
            if let Some((start, durations)) = pictures.place(&times, until_us) {
                runs.push((run(VIDEO, start, &durations, &chosen), chosen));
            }
        }
        if let Some(sounds) = &mut self.sounds {
            let chosen = of(Kind::Audio);
            let times: Vec<(i64, u32)> = chosen.iter().map(|s| (s.time_us, s.duration_us)).collect();
            if let Some((start, durations)) = sounds.place(&times) {
                runs.push((run(SOUND, start, &durations, &chosen), chosen));
            }
        }
        if runs.is_empty() {
            return Ok(None);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let (trafs, data): (Vec<Traf>, Vec<_>) = runs.into_iter().unzip();
        let mut moof = Moof { mfhd: Mfhd { sequence_number: self.sequence }, traf: trafs };
        // Where data begins is counted from the box that says so, whose length does not depend on it.
        let mut bytes = Vec::with_capacity(total + 256);
        moof.encode(&mut bytes)?;
        let mut at = bytes.len() + 8;
        for (traf, samples) in moof.traf.iter_mut().zip(&data) {
            for trun in &mut traf.trun {
                trun.data_offset = i32::try_from(at).ok();
            }
            at += samples.iter().map(|s| s.data.len()).sum::<usize>();
        }
        bytes.clear();
        moof.encode(&mut bytes)?;
        let content: usize = data.iter().flatten().map(|s| s.data.len()).sum();
        let size = u32::try_from(content + 8).map_err(|_| MuxError::new("a fragment is too large"))?;
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(b"mdat");
        data.iter().flatten().for_each(|s| bytes.extend_from_slice(s.data));
        Ok(Some(bytes.into()))
    }
}

fn run(track_id: u32, start: u64, durations: &[u32], samples: &[&Sample<'_>]) -> Traf {
    let entries: Vec<TrunEntry> = samples
        .iter()
        .zip(durations)
        .map(|(sample, duration)| TrunEntry {
            duration: Some(*duration),
            size: u32::try_from(sample.data.len()).ok(),
            flags: Some(if sample.key || track_id == SOUND { KEY } else { NO_KEY }),
            cts: None,
        })
        .collect();
    Traf {
        tfhd: Tfhd { track_id, default_base_is_moof: true, ..Tfhd::default() },
        tfdt: Some(Tfdt { base_media_decode_time: start }),
        trun: vec![Trun { data_offset: Some(0), samples: entries.into() }],
        ..Traf::default()
    }
}

fn picture_track(video: &VideoTrack) -> Result<Trak, MuxError> {
    let mut trak = track(VIDEO, PICTURE_SCALE, b"vide", "pictures", entry::of_pictures(video)?);
    trak.tkhd.width = video.width.into();
    trak.tkhd.height = video.height.into();
    trak.mdia.minf.vmhd = Some(Vmhd::default());
    Ok(trak)
}

fn sound_track(sound: &Sound) -> Result<Trak, MuxError> {
    let mut trak = track(SOUND, sound.rate, b"soun", "sound", entry::of_sound(sound)?);
    trak.tkhd.volume = 1.into();
    trak.mdia.minf.smhd = Some(Smhd::default());
    Ok(trak)
}

fn track(track_id: u32, timescale: u32, handler: &[u8; 4], name: &str, codec: mp4_atom::Codec) -> Trak {
    Trak {
        tkhd: Tkhd { track_id, enabled: true, in_movie: true, ..Tkhd::default() },
        mdia: Mdia {
            mdhd: Mdhd { timescale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: handler.into(), name: name.into() },
            minf: Minf {
                dinf: Dinf { dref: Dref { entries: vec![Url::default().into()] } },
                stbl: Stbl { stsd: Stsd { codecs: vec![codec] }, ..Stbl::default() },
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

#[cfg(test)]
mod tests;
