//! Keeps the number of services that run at once small, over all test processes of this machine, so that tests
//! do not starve each other.

use std::{fs::File, time::Duration};

use nix::fcntl::{Flock, FlockArg};

use crate::wait;

/// Services that may run at once.
const SLOTS: u32 = 2;

/// The right to run one service; given back when dropped, by the kernel when the process dies.
pub struct Slot(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Slot {
    /// Waits for a free slot.
    pub fn take() -> Self {
        wait::until("a free slot to run a service in", Duration::from_secs(900), || {
            (0..SLOTS).find_map(|n| {
                let uid = nix::unistd::geteuid();
                let path = std::env::temp_dir().join(format!("nursery-test-slot-{uid}-{n}"));
                let file = File::options().create(true).append(true).open(path).expect("open a lock file");
                Flock::lock(file, FlockArg::LockExclusiveNonblock).ok().map(Slot)
            })
        })
    }
}
