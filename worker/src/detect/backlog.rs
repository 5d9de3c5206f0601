//! Keeps what was found in recordings, but not printed yet because an earlier one is not done, within a bound:
//! whoever is ahead waits until it is his turn. The recording whose turn it is always gets on, so this cannot
//! stand still.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes beyond the bound that the recording whose turn it is may have on its way to the printer.
const RESERVE: usize = 1 << 20;

#[derive(Debug)]
struct State {
    held: usize,
    /// The recording that is being printed.
    turn: usize,
    over: bool,
}

/// The accounts of what is waiting.
#[derive(Debug)]
pub struct Backlog {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Backlog {
    /// At most `limit` bytes wait for their turn.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::new(State { held: 0, turn: 0, over: false }), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers are as good after a panic elsewhere as before it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books `bytes` of recording number `index`; waits until there is room for them. False: all is over.
    pub fn take(&self, index: usize, bytes: usize) -> bool {
        let mut state = self.state();
        loop {
            if state.over {
                return false;
            }
            let after = state.held.saturating_add(bytes);
            // Those ahead never hold more than the limit, so that whose turn it is gets on as soon as what it
            // told before is printed.
            let its_turn = index == state.turn && (state.held <= self.limit || after <= self.limit + RESERVE);
            if its_turn || after <= self.limit {
                state.held = after;
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// These were printed.
    pub fn give(&self, bytes: usize) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(bytes);
        self.changed.notify_all();
    }

    /// It is the turn of recording number `index`.
    pub fn turn(&self, index: usize) {
        self.state().turn = index;
        self.changed.notify_all();
    }

    /// Nothing will be printed any more: nobody waits from now on.
    pub fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{sync::mpsc, time::Duration};

    const SOON: Duration = Duration::from_secs(20);
    const NOT_YET: Duration = Duration::from_millis(50);

    #[test]
    fn whoever_is_ahead_waits_and_whose_turn_it_is_gets_on() {
        let backlog = Backlog::new(100);
        let (done, told) = mpsc::channel();
        std::thread::scope(|scope| {
            assert!(backlog.take(1, 100));
            scope.spawn(|| done.send(backlog.take(1, 10)).unwrap());
            assert!(told.recv_timeout(NOT_YET).is_err());
            assert!(backlog.take(0, 1000));
            backlog.give(1000);
            assert!(told.recv_timeout(NOT_YET).is_err());
            backlog.turn(1);
            assert!(told.recv_timeout(SOON).unwrap());
        });
    }

    #[test]
    fn the_end_lets_everybody_go() {
        let backlog = Backlog::new(1);
        let (done, told) = mpsc::channel();
        std::thread::scope(|scope| {
            assert!(backlog.take(5, 1));
            scope.spawn(|| done.send(backlog.take(6, 1)).unwrap());
            backlog.end();
            assert!(!told.recv_timeout(SOON).unwrap());
        });
    }
}
