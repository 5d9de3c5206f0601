//! The virtual clock's agenda: what will happen when, first things first, in the order of planning where times are
//! equal, so that a seed always gives the same run.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use nursery_supervisor::policy::Time;

struct Entry<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    // Turned round, since the heap gives out its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What is planned.
pub struct Agenda<T> {
    entries: BinaryHeap<Entry<T>>,
    planned: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), planned: 0 }
    }
}

impl<T> Agenda<T> {
    /// Something will happen.
    pub fn plan(&mut self, at: Time, what: T) {
        self.entries.push(Entry { at, number: self.planned, what });
        self.planned += 1;
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Time> {
        self.entries.peek().map(|e| e.at)
    }

    /// What happens at `now`, or should have.
    pub fn take_due(&mut self, now: Time) -> Option<T> {
        (self.next_at()? <= now).then(|| self.entries.pop().map(|e| e.what)).flatten()
    }

    /// Forgets what will not happen any more.
    pub fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.entries.retain(|e| stays(&e.what));
    }

    /// Everything happens later: the host stood still.
    pub fn postpone(&mut self, by: Duration) {
        let entries = std::mem::take(&mut self.entries).into_iter();
        self.entries = entries.map(|e| Entry { at: e.at + by, ..e }).collect();
    }
}
