//! What the farm writes down: a JSON line per fact, on standard output or into a file. Times are microseconds since 1970 by
//! the host's clock, as those of alerts are.

use serde::{Deserialize, Serialize};

use super::{Kind, lateness::Lateness};

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    /// The farm listens.
    Ready {
        port: u16,
        /// Its kinds of cameras.
        kinds: Vec<Kind>,
        /// Its niceness: below 0 it goes before those that listen to it, as other machines would.
        nice: i32,
    },
    /// A client plays. Its first packet, sent now, was recorded in the period before.
    /// `crying`: a cry that has no entry of its own, since it began before, goes on.
    Started { session: u64, kind: Kind, camera: u32, at_us: i64, crying: bool },
    /// The first sample of a cry was sent.
    Cry { session: u64, kind: Kind, camera: u32, at_us: i64 },
    /// A client has gone, or plays no longer.
    Ended { session: u64, kind: Kind, camera: u32, at_us: i64, counts: Counts },
    /// Of all clients since the start; every second, and at the end.
    Totals {
        at_us: i64,
        /// Clients that play.
        playing: u32,
        counts: Counts,
        lateness: Lateness,
        /// Seconds of processor.
        cpu_s: f64,
    },
}

/// What became of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Packets that were due, all of the following included.
    pub packets: u64,
    pub bytes: u64,
    /// The farm was late with them, by more than 20 ms.
    pub late: u64,
    /// They had to wait for the client.
    pub waited: u64,
    /// They were left out: the client took nothing for seconds.
    pub dropped: u64,
    /// They were left out: the farm stood still.
    pub skipped: u64,
}

impl Counts {
    /// Adds those of another client.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.late += other.late;
        self.waited += other.waited;
        self.dropped += other.dropped;
        self.skipped += other.skipped;
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            late: self.late - earlier.late,
            waited: self.waited - earlier.waited,
            dropped: self.dropped - earlier.dropped,
            skipped: self.skipped - earlier.skipped,
        }
    }
}
