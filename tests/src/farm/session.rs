//! A session that plays: which packet of which stream is next, and what stands in its header.

use std::time::Duration;

use super::{
    ledger::Counts,
    stream::{Kind, Stamp, Stream},
};

/// Time between two sender reports (RFC 3550, 6.2).
pub const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Who is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Camera {
    pub kind: Kind,
    pub number: u32,
}

impl Camera {
    /// How far into the loop this camera is at the farm's beginning: by multiples of the golden ratio, so that however
    /// many there are, they are spread evenly, cries as well as packets.
    pub fn phase_ns(self) -> u64 {
        let turn = u64::from(self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let loop_ns = super::content::LOOP_MS * 1_000_000;
        ((u128::from(turn) * u128::from(loop_ns)) >> 64) as u64
    }
}

/// One client's.
#[derive(Debug)]
pub struct Session {
    pub id: u64,
    pub camera: Camera,
    channel: u8,
    source: u32,
    /// What comes next: the packet since the loop's first beginning, and its place since the session's.
    pub next: u64,
    first: u64,
    first_sequence: u16,
    first_ticks: u32,
    pub next_report_ns: u64,
    pub counts: Counts,
}

impl Session {
    /// Begins with the next packet that is due. `now_ns`: since the farm's beginning.
    pub fn begin(id: u64, camera: Camera, channel: u8, stream: &Stream, now_ns: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(id);
        Self {
            id,
            camera,
            channel,
            source: random.u32(..),
            next: stream.next_at(now_ns + camera.phase_ns()),
            first: stream.next_at(now_ns + camera.phase_ns()),
            first_sequence: random.u16(..),
            first_ticks: random.u32(..),
            next_report_ns: 0,
            counts: Counts::default(),
        }
    }

    /// When its next packet is due, since the farm's beginning.
    pub fn due_ns(&self, stream: &Stream) -> u64 {
        stream.due_ns(self.next).saturating_sub(self.camera.phase_ns())
    }

    /// Nothing of it was sent yet.
    pub fn is_at_its_first(&self) -> bool {
        self.next == self.first
    }

    /// What stands in its next packet.
    pub fn stamp(&self, stream: &Stream) -> Stamp {
        Stamp {
            channel: self.channel,
            sequence: self.first_sequence.wrapping_add((self.next - self.first) as u16),
            timestamp: self.first_ticks.wrapping_add(stream.ticks(self.next - self.first)),
            source: self.source,
        }
    }

    /// A sender report with a name (RFC 3550, 6.4.1 and 6.5), framed: `wall_us` is the time of the next packet's first
    /// sample.
    pub fn report(&self, stream: &Stream, wall_us: i64) -> [u8; 4 + 28 + 16] {
        /// From 1900 to 1970.
        const NTP: u64 = 2_208_988_800;
        let stamp = self.stamp(stream);
        let us = wall_us.max(0).unsigned_abs();
        let (seconds, fraction) = (us / 1_000_000 + NTP, ((us % 1_000_000) << 32) / 1_000_000);
        let octets = self.counts.bytes.saturating_sub(16 * self.counts.packets);
        let words = [
            0x80c8_0006,
            self.source,
            seconds as u32,
            fraction as u32,
            stamp.timestamp,
            self.counts.packets as u32,
            octets as u32,
            0x81ca_0003,
            self.source,
            // CNAME "farm", and the end.
            u32::from_be_bytes([1, 4, b'f', b'a']),
            u32::from_be_bytes([b'r', b'm', 0, 0]),
        ];
        let mut bytes = [0; 48];
        bytes[..4].copy_from_slice(&[b'$', self.channel + 1, 0, 44]);
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_spread_however_many_cameras_there_are() {
        for cameras in [2, 7, 64, 200] {
            let mut phases: Vec<u64> =
                (0..cameras).map(|number| Camera { kind: Kind::Pcmu, number }.phase_ns()).collect();
            phases.sort_unstable();
            let loop_ns = super::super::content::LOOP_MS * 1_000_000;
            let widest = phases.windows(2).map(|p| p[1] - p[0]).max().unwrap_or(loop_ns);
            assert!(widest < 3 * loop_ns / u64::from(cameras), "{cameras} cameras: {widest} ns");
        }
    }
}
