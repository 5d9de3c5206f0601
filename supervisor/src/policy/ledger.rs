//! What the sink still owes: records in order, kept until it has acknowledged them, sent again to each new
//! sink process.

use std::collections::VecDeque;

use nursery_shared::message::{Record, ToWorker};

/// Records that are kept before no more windows are scored; windows then wait, and drop, in their cameras'
/// queues. Four cameras with four windows a second fill it in 40 minutes.
pub const HIGH_WATER: usize = 40_000;
/// Records that may be on their way to the sink at once.
const IN_FLIGHT: usize = 256;

/// Unacknowledged records, oldest first.
#[derive(Debug, Default)]
pub struct Ledger {
    records: VecDeque<Record>,
    /// Sequence number of the oldest record.
    first_seq: u64,
    /// How many of them were sent to the present sink process.
    sent: usize,
}

impl Ledger {
    /// Takes a record in charge.
    pub fn push(&mut self, record: Record) {
        self.records.push_back(record);
    }

    /// The next record that may be sent, as a message.
    pub fn next_to_send(&mut self) -> Option<ToWorker> {
        if self.sent >= IN_FLIGHT {
            return None;
        }
        let record = self.records.get(self.sent)?.clone();
        let seq = self.first_seq + self.sent as u64;
        self.sent += 1;
        Some(ToWorker::Record { seq, record })
    }

    /// Forgets everything up to `seq`; false when that was never sent.
    #[must_use]
    pub fn acknowledge(&mut self, seq: u64) -> bool {
        if seq < self.first_seq {
            return true; // An answer that a later one has overtaken.
        }
        let index = seq - self.first_seq;
        if index >= self.sent as u64 {
            return false;
        }
        let count = index as usize + 1;
        self.records.drain(..count);
        self.sent -= count;
        self.first_seq = seq + 1;
        true
    }

    /// The sink process is gone: what it did not acknowledge goes to the next.
    pub fn sink_lost(&mut self) {
        self.sent = 0;
    }

    /// How many records are kept, and the sequence number of the oldest, or of the next one where there is none.
    pub fn extent(&self) -> (usize, u64) {
        (self.records.len(), self.first_seq)
    }

    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// So much is owed that nothing should be added.
    pub fn is_full(&self) -> bool {
        self.records.len() >= HIGH_WATER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nursery_shared::message::RecordKind;

    fn record(n: i64) -> Record {
        Record { camera: "a".into(), what: RecordKind::Online { at_us: n } }
    }

    fn sent(ledger: &mut Ledger) -> Vec<u64> {
        std::iter::from_fn(|| ledger.next_to_send())
            .map(|m| match m {
                ToWorker::Record { seq, .. } => seq,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_new_sink_gets_everything_that_was_not_acknowledged() {
        let mut ledger = Ledger::default();
        (0..5).for_each(|n| ledger.push(record(n)));
        assert_eq!(sent(&mut ledger), [0, 1, 2, 3, 4]);
        assert!(ledger.acknowledge(1));
        ledger.sink_lost();
        assert_eq!(sent(&mut ledger), [2, 3, 4]);
        assert!(ledger.acknowledge(0), "an old acknowledgement is harmless");
        assert!(ledger.acknowledge(4) && ledger.is_empty());
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut ledger = Ledger::default();
        ledger.push(record(0));
        assert!(!ledger.acknowledge(0));
        assert_eq!(sent(&mut ledger), [0]);
        assert!(!ledger.acknowledge(1) && !ledger.acknowledge(u64::MAX));
    }

    #[test]
    fn no_more_than_the_limit_is_on_its_way() {
        let mut ledger = Ledger::default();
        (0..1000).for_each(|n| ledger.push(record(n)));
        assert_eq!(sent(&mut ledger).len(), IN_FLIGHT);
        assert!(ledger.acknowledge(9));
        assert_eq!(sent(&mut ledger).len(), 10);
    }
}
