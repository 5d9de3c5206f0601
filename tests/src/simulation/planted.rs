//! Bugs that can be planted between the policy or the sink and the simulated world, to show that the simulator finds
//! them. No shipped code knows of them.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The acknowledgement of a record is taken for that of the next one too.
    AcknowledgementTooFar,
    /// A new sink is not sent the oldest record that the old one did not acknowledge.
    RecordSkipped,
    /// A sink that starts again delivers what it owes under other ids.
    OtherIds,
    /// Now and then a batch does not reach its process.
    BatchLost,
    /// Windows of one camera are lost between its capture process and the policy, once that was started again.
    CameraStarved,
    /// No timer is armed for a process that waits to be started again.
    TimerMissing,
    /// A process that died is started again at once, every time.
    NoBackoff,
    /// After standing still, the supervisor counts on as if it had watched all the while.
    BlamesAfterStandstill,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 8] = [
        Planted::AcknowledgementTooFar,
        Planted::RecordSkipped,
        Planted::OtherIds,
        Planted::BatchLost,
        Planted::CameraStarved,
        Planted::TimerMissing,
        Planted::NoBackoff,
        Planted::BlamesAfterStandstill,
    ];
}
