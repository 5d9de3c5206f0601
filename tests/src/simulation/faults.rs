//! What can go wrong in a simulation, how often each of it did, and the streams of chance it is drawn from: one per
//! worker name, so that what befalls one worker does not change what befalls another.

/// One kind of injected deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    SpawnFails,
    StartsSlowly,
    DiesAtStart,
    HangsAtStart,
    WrongVersion,
    Dies,
    HangsIdle,
    HangsWithWork,
    ClosesSocket,
    Babbles,
    LeavesLate,
    IgnoresDrain,
    WindowsInBursts,
    Silence,
    MisshapenWindow,
    DeadlyWindow,
    AnswersLate,
    AnswersTwice,
    AnswersWrongly,
    DiesBeforeStoring,
    DiesBeforeAcknowledging,
    AcknowledgesTwice,
    AcknowledgesAhead,
    StoreFails,
    ReceiverRefuses,
    ReceiverHangs,
    ReceiverAnswerLost,
    HostSuspended,
    SupervisorStopped,
    ClockJumps,
    Reload,
    Scale,
    Restart,
    NewModel,
    BrokenModel,
    SupervisorKilled,
}

use Fault::*;

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 36] = [
        SpawnFails,
        StartsSlowly,
        DiesAtStart,
        HangsAtStart,
        WrongVersion,
        Dies,
        HangsIdle,
        HangsWithWork,
        ClosesSocket,
        Babbles,
        LeavesLate,
        IgnoresDrain,
        WindowsInBursts,
        Silence,
        MisshapenWindow,
        DeadlyWindow,
        AnswersLate,
        AnswersTwice,
        AnswersWrongly,
        DiesBeforeStoring,
        DiesBeforeAcknowledging,
        AcknowledgesTwice,
        AcknowledgesAhead,
        StoreFails,
        ReceiverRefuses,
        ReceiverHangs,
        ReceiverAnswerLost,
        HostSuspended,
        SupervisorStopped,
        ClockJumps,
        Reload,
        Scale,
        Restart,
        NewModel,
        BrokenModel,
        SupervisorKilled,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            SpawnFails => "a process cannot be started",
            StartsSlowly => "starts slowly",
            DiesAtStart => "dies at its start",
            HangsAtStart => "hangs at its start",
            WrongVersion => "is of another version",
            Dies => "dies",
            HangsIdle => "hangs with nothing in hand",
            HangsWithWork => "hangs with work in hand",
            ClosesSocket => "closes its socket",
            Babbles => "says what is not for it to say",
            LeavesLate => "is reaped late",
            IgnoresDrain => "does not go when told to",
            WindowsInBursts => "windows in bursts",
            Silence => "a camera falls silent",
            MisshapenWindow => "a window of the wrong length",
            DeadlyWindow => "a window that kills",
            AnswersLate => "scores come late",
            AnswersTwice => "scores come twice",
            AnswersWrongly => "scores that do not fit",
            DiesBeforeStoring => "sink dies before storing",
            DiesBeforeAcknowledging => "sink dies before acknowledging",
            AcknowledgesTwice => "sink acknowledges twice",
            AcknowledgesAhead => "sink acknowledges what it was not sent",
            StoreFails => "the disk is full",
            ReceiverRefuses => "a receiver refuses",
            ReceiverHangs => "a receiver hangs",
            ReceiverAnswerLost => "a receiver's yes is lost",
            HostSuspended => "the host is suspended",
            SupervisorStopped => "the supervisor is stopped",
            ClockJumps => "the wall clock jumps",
            Reload => "reload",
            Scale => "scale",
            Restart => "restart",
            NewModel => "another model",
            BrokenModel => "a model kills whoever loads it",
            SupervisorKilled => "the supervisor is killed",
        }
    }
}

/// How often each kind was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Those of another run too.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Of one kind.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The stream of chance for whatever is called `label` in the run of `seed`.
pub fn stream(seed: u64, label: &str) -> fastrand::Rng {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash)
}

/// How much goes wrong in a run: chances from 0 to 1 that scale those of the single faults.
#[derive(Debug, Clone, Copy)]
pub struct Intensity {
    pub capture: f64,
    pub infer: f64,
    pub sink: f64,
    pub receivers: f64,
    pub host: f64,
    pub operator: f64,
}

impl Intensity {
    /// Of the run of a seed: some have it all, some are calm in places.
    pub fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut one = || [0.0, 0.3, 1.0, 1.0][rng.usize(..4)];
        Self { capture: one(), infer: one(), sink: one(), receivers: one(), host: one(), operator: one() }
    }
}
