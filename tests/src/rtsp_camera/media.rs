//! What a camera hears, and how it is sent: G.711 and linear PCM in RTP packets of 20 ms.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// How the audio is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// 16-bit linear, 16 kHz.
    L16,
}

impl Codec {
    /// RTP payload type and `rtpmap`.
    pub fn description(self) -> (u8, &'static str) {
        match self {
            Codec::Pcmu => (0, "PCMU/8000"),
            Codec::Pcma => (8, "PCMA/8000"),
            Codec::L16 => (97, "L16/16000"),
        }
    }

    fn halves_rate(self) -> bool {
        self != Codec::L16
    }

    /// Encodes 16 kHz samples.
    fn encode(self, pcm: &[i16]) -> Vec<u8> {
        let half = || pcm.chunks_exact(2).map(|p| ((i32::from(p[0]) + i32::from(p[1])) / 2) as i16);
        match self {
            Codec::Pcmu => half().map(mu_law).collect(),
            Codec::Pcma => half().map(a_law).collect(),
            Codec::L16 => pcm.iter().flat_map(|s| s.to_be_bytes()).collect(),
        }
    }
}

/// ITU-T G.711 µ-law.
pub(crate) fn mu_law(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + 132;
    // From 132 on there is a highest bit, the seventh or above.
    let exponent = magnitude.ilog2() - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

/// ITU-T G.711 A-law.
fn a_law(sample: i16) -> u8 {
    let (sign, magnitude) =
        if sample >= 0 { (0x80, i32::from(sample) >> 3) } else { (0, (-1 - i32::from(sample)) >> 3) };
    let exponent = if magnitude < 32 { 0 } else { magnitude.ilog2() - 4 };
    let mantissa = (magnitude >> exponent.max(1)) & 0x0f;
    (sign | (exponent as u8) << 4 | mantissa as u8) ^ 0x55
}

/// What a camera hears: what it is told to, and a quiet room otherwise.
#[derive(Default)]
pub struct Microphone {
    queue: Mutex<VecDeque<i16>>,
    heard: AtomicU64,
}

impl Microphone {
    /// Lets the camera hear these 16 kHz samples, after all that it was told to hear before.
    pub fn play(&self, pcm: &[i16]) {
        self.queue.lock().unwrap().extend(pcm);
    }

    /// What is played goes on although nobody listens: so many samples of it are over.
    pub fn miss(&self, count: usize) {
        let mut queue = self.queue.lock().unwrap();
        let there = count.min(queue.len());
        queue.drain(..there);
    }

    /// Samples that were sent so far, of a quiet room too.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }

    /// True when all that the camera was told to hear has been sent.
    pub fn is_done(&self) -> bool {
        self.queue.lock().unwrap().is_empty()
    }

    fn take(&self, count: usize, random: &mut fastrand::Rng) -> Vec<i16> {
        let mut queue = self.queue.lock().unwrap();
        let mut samples: Vec<i16> = {
            let there = count.min(queue.len());
            queue.drain(..there).collect()
        };
        drop(queue);
        samples.resize_with(count, || random.i16(-28..=28));
        self.heard.fetch_add(count as u64, Ordering::SeqCst);
        samples
    }
}

/// Makes the RTP packets of one session.
pub struct Packetiser {
    codec: Codec,
    sequence: u16,
    timestamp: u32,
    source: u32,
    random: fastrand::Rng,
}

impl Packetiser {
    /// Milliseconds of one packet.
    pub const PERIOD_MS: u64 = 20;

    /// Starts at these values, as told in the answer to PLAY.
    pub fn new(codec: Codec, sequence: u16, timestamp: u32) -> Self {
        Self { codec, sequence, timestamp, source: 0x5eed_cafe, random: fastrand::Rng::with_seed(2) }
    }

    /// What follows is of another source.
    pub fn begin_anew(&mut self) {
        self.source = self.source.wrapping_add(1);
    }

    /// The next packet; `broken`: one that no receiver can read.
    pub fn next(&mut self, microphone: &Microphone, broken: bool) -> Vec<u8> {
        let samples = microphone.take(16 * Self::PERIOD_MS as usize, &mut self.random);
        let (payload_type, _) = self.codec.description();
        let mut packet = vec![0x80, payload_type];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.source.to_be_bytes());
        packet.extend_from_slice(&self.codec.encode(&samples));
        if broken {
            // An odd number of random bytes is no L16, and hardly anything in other encodings.
            packet.truncate(12);
            packet.extend((0..37).map(|_| self.random.u8(..)));
        }
        self.sequence = self.sequence.wrapping_add(1);
        let ticks = if self.codec.halves_rate() { 8 } else { 16 } * Self::PERIOD_MS as u32;
        self.timestamp = self.timestamp.wrapping_add(ticks);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g711_gives_the_published_values() {
        assert_eq!([0, 32_767, -32_768, 1000, -1000].map(mu_law), [0xff, 0x80, 0x00, 0xce, 0x4e]);
        assert_eq!([0, 32_767, -32_768, 1000, -1000].map(a_law), [0xd5, 0xaa, 0x2a, 0xfa, 0x7a]);
    }

    #[test]
    fn a_microphone_hears_what_is_played_and_then_the_room() {
        let microphone = Microphone::default();
        microphone.play(&[5000; 10]);
        let heard = microphone.take(12, &mut fastrand::Rng::with_seed(3));
        assert_eq!(heard[..10], [5000; 10]);
        assert!(heard[10..].iter().all(|s| s.abs() <= 28) && microphone.is_done());
    }
}
