//! What a kind of camera sends, prepared: one loop of RTP packets as they travel in an RTSP connection, in which only what
//! belongs to the session is missing.

use std::{path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{aac, content};
use crate::rtsp_camera::mu_law;

/// What a camera sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// G.711 µ-law, 8 kHz mono, in packets of 20 ms (160 bytes).
    Pcmu,
    /// The same in packets of 40 ms.
    Pcmu40,
    /// AAC-LC, 48 kHz stereo, 96 kbit/s: RFC 3640 in mode AAC-hbr, an access unit per packet.
    Aac,
    /// AAC-LC, 16 kHz mono, 32 kbit/s.
    Aac16,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcmu40, Self::Aac, Self::Aac16];

    /// The word for it in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pcmu => "pcmu",
            Self::Pcmu40 => "pcmu40",
            Self::Aac => "aac",
            Self::Aac16 => "aac16",
        }
    }

    /// Samples per second and channel, which is also the clock of its RTP timestamps.
    pub fn rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcmu40 => 8_000,
            Self::Aac => 48_000,
            Self::Aac16 => 16_000,
        }
    }

    /// Samples per channel in a packet.
    pub fn samples(self) -> usize {
        match self {
            Self::Pcmu => 160,
            Self::Pcmu40 => 320,
            Self::Aac | Self::Aac16 => aac::FRAME,
        }
    }

    /// Channels.
    pub fn channels(self) -> usize {
        if self == Self::Aac { 2 } else { 1 }
    }

    /// Microseconds of a packet.
    pub fn period_us(self) -> f64 {
        self.samples() as f64 * 1e6 / f64::from(self.rate())
    }

    fn is_aac(self) -> bool {
        matches!(self, Self::Aac | Self::Aac16)
    }

    fn payload_type(self) -> u8 {
        if self.is_aac() { 97 } else { 0 }
    }

    fn bit_rate(self) -> u32 {
        if self == Self::Aac { 96_000 } else { 32_000 }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no kind of camera; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Bytes before a packet's payload: `$`, channel and length (RFC 2326, 10.12), then the RTP header (RFC 3550, 5.1).
const HEAD: usize = 4 + 12;

/// What belongs to a session, in a packet.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Of the interleaved connection.
    pub channel: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub source: u32,
}

/// A loop of packets, and how it is described.
pub struct Stream {
    pub kind: Kind,
    /// The media description (RFC 4566, 5.14) with its attributes.
    description: String,
    /// All packets after one another, and where each begins; one more at the end.
    bytes: Vec<u8>,
    begins: Vec<u32>,
    /// Packets with the first sample of a cry.
    onsets: Vec<u32>,
}

impl Stream {
    /// Prepares a loop. AAC takes ffmpeg, or what is in the cache.
    pub fn prepare(kind: Kind, cache: &Path) -> Result<Self, String> {
        let pcm = content::pcm(kind.rate(), kind.channels());
        if kind.is_aac() {
            let encoded = aac::encode(&pcm, kind.rate(), kind.channels(), kind.bit_rate(), cache)?;
            let config: String = encoded.config.iter().map(|b| format!("{b:02X}")).collect();
            let description = format!(
                "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/{}/{}\r\na=fmtp:97 streamtype=5;\
                 profile-level-id=15;mode=AAC-hbr;config={config};sizelength=13;indexlength=3;\
                 indexdeltalength=3\r\n",
                kind.rate(),
                kind.channels()
            );
            // RFC 3640, 3.2.1 and 3.3.6: one header of 16 bits, which holds the size in 13 of them and the index 0.
            let units = encoded.units.iter().map(|unit| {
                let size = ((unit.len() as u16) << 3).to_be_bytes();
                [&[0, 16, size[0], size[1]], unit.as_slice()].concat()
            });
            return Ok(Self::assemble(kind, description, units));
        }
        let packets = pcm
            .chunks_exact(kind.samples())
            .map(|packet| packet.iter().map(|sample| mu_law(*sample)).collect());
        let description = "m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n".to_owned();
        Ok(Self::assemble(kind, description, packets))
    }

    fn assemble(kind: Kind, description: String, payloads: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut bytes, mut begins) = (Vec::new(), vec![0]);
        // A complete access unit is marked; of PCM the first packet after silence would be, and there is none.
        let marker = if kind.is_aac() { 0x80 } else { 0 };
        for payload in payloads {
            let length = (12 + payload.len()) as u16;
            bytes.push(b'$');
            bytes.push(0);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&[0x80, marker | kind.payload_type()]);
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(&payload);
            begins.push(bytes.len() as u32);
        }
        let onsets = content::CRIES_MS.map(|ms| (content::samples(ms, kind.rate()) / kind.samples()) as u32);
        Self { kind, description, bytes, begins, onsets: onsets.to_vec() }
    }

    /// Packets of one loop.
    pub fn len(&self) -> usize {
        self.begins.len() - 1
    }

    /// There is always something.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session description for a track at `track`.
    pub fn session_description(&self, track: &str) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera farm\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n\
             {}a=control:{track}\r\n",
            self.description
        )
    }

    /// Nanoseconds from the loop's first beginning to when packet `n` is due. Not the period times `n`, which is no
    /// whole number.
    pub fn due_ns(&self, n: u64) -> u64 {
        let samples = u128::from(n) * self.kind.samples() as u128;
        (samples * 1_000_000_000 / u128::from(self.kind.rate())) as u64
    }

    /// The first packet that is due then or later.
    pub fn next_at(&self, ns: u64) -> u64 {
        let samples = u128::from(ns) * u128::from(self.kind.rate());
        let mut n = (samples / (self.kind.samples() as u128 * 1_000_000_000)) as u64;
        while self.due_ns(n) < ns {
            n += 1;
        }
        n
    }

    /// RTP timestamp of packet `n`, less that of the first one.
    pub fn ticks(&self, n: u64) -> u32 {
        (n * self.kind.samples() as u64) as u32
    }

    /// True where the baby begins to cry in packet `n`.
    pub fn has_onset(&self, n: u64) -> bool {
        let place = (n % self.len() as u64) as u32;
        self.onsets.contains(&place)
    }

    /// True where the baby has begun to cry before packet `n`, and still does.
    pub fn goes_on_crying(&self, n: u64) -> bool {
        let place = (n % self.len() as u64) as u32;
        let lasting = (content::samples(content::CRY_MS, self.kind.rate()) / self.kind.samples()) as u32;
        self.onsets.iter().any(|onset| (onset + 1..=onset + lasting).contains(&place))
    }

    /// Packet `n`, stamped: patched where it lies, for nobody else needs it at the same time.
    pub fn packet(&mut self, n: u64, stamp: Stamp) -> &[u8] {
        let place = (n % self.len() as u64) as usize;
        let packet = &mut self.bytes[self.begins[place] as usize..self.begins[place + 1] as usize];
        packet[1] = stamp.channel;
        packet[6..8].copy_from_slice(&stamp.sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&stamp.timestamp.to_be_bytes());
        packet[12..HEAD].copy_from_slice(&stamp.source.to_be_bytes());
        packet
    }

    /// The loop's access units without what carries them, as an ADTS stream.
    pub fn adts(kind: Kind, cache: &Path) -> Result<Vec<u8>, String> {
        let pcm = content::pcm(kind.rate(), kind.channels());
        aac::encode(&pcm, kind.rate(), kind.channels(), kind.bit_rate(), cache).map(|all| aac::adts(&all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_whole_and_only_stamped_where_the_session_is() {
        let mut stream = Stream::prepare(Kind::Pcmu, Path::new("/nowhere")).unwrap();
        assert_eq!(stream.len(), 9_008);
        let stamp = Stamp { channel: 2, sequence: 0x0102, timestamp: 0x0304_0506, source: 0x0708_090a };
        let first = stream.packet(9_008 + 5, stamp).to_vec();
        assert_eq!(first[..HEAD], [b'$', 2, 0, 172, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(first.len(), HEAD + 160);
        assert_eq!(stream.packet(5, stamp), first);
    }

    #[test]
    fn packets_are_due_on_time_for_ever() {
        for kind in Kind::ALL {
            let stream = Stream::assemble(kind, String::new(), [vec![0; 4], vec![0; 4]].into_iter());
            for n in [0, 1, 2, 3, 100_000_001] {
                let due = stream.due_ns(n);
                assert_eq!(stream.next_at(due), n, "{kind:?}");
                assert_eq!(stream.next_at(due + 1), n + 1, "{kind:?}");
            }
        }
    }
}
