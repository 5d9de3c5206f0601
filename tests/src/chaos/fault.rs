//! The kinds of faults, and how often each comes.

use std::time::Duration;

use nursery_shared::message::Role;

use crate::{receiver::Answer, rtsp_camera::Fault as CameraFault};

/// What is done to a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSEGV until it is dead: Rust's handler takes the first one for an accident that repeats itself if it was
    /// meant.
    Segfault,
    /// SIGSTOP, never continued: it has to be found and killed.
    Stop,
    /// SIGSTOP and, before its deadline, SIGCONT: it has to be left alone.
    Pause,
    /// SIGKILL; the next process of its role is a hostile one, in this mode of `hostile-worker`.
    Impostor(&'static str),
}

impl Blow {
    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Blow::Kill => "SIGKILL".into(),
            Blow::Segfault => "SIGSEGV".into(),
            Blow::Stop => "SIGSTOP".into(),
            Blow::Pause => "SIGSTOP, SIGCONT".into(),
            Blow::Impostor(mode) => format!("worker: {mode}"),
        }
    }

    /// Draws one for a worker of this role.
    pub fn draw(role: Role, random: &mut fastrand::Rng) -> Self {
        const FRAMES: [&str; 5] = ["cut-frame", "half-frame", "garbage-frame", "endless-frame", "lie"];
        match random.u8(..100) {
            0..40 => Blow::Kill,
            40..55 => Blow::Segfault,
            // A sink is given ten seconds before it is looked for, which is long for a short run.
            55..60 if role == Role::Sink => Blow::Stop,
            55..68 if role != Role::Sink => Blow::Stop,
            55..78 => Blow::Pause,
            78..86 => Blow::Impostor("eat-memory"),
            86..97 => Blow::Impostor(FRAMES[random.usize(..FRAMES.len())]),
            _ => Blow::Impostor("babble"),
        }
    }
}

/// What a camera does wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It refuses connections.
    Gone,
    /// It closes its connections once.
    HangUp,
    /// One of the fixture's faults.
    Fault(CameraFault),
}

impl Trouble {
    const ALL: [Self; 10] = [
        Trouble::Gone,
        Trouble::HangUp,
        Trouble::Fault(CameraFault::StallMedia),
        Trouble::Fault(CameraFault::Freeze),
        Trouble::Fault(CameraFault::CorruptMedia),
        Trouble::Fault(CameraFault::GarbageAnswer),
        Trouble::Fault(CameraFault::GarbageStream),
        Trouble::Fault(CameraFault::Drip),
        Trouble::Fault(CameraFault::EndlessHeader),
        Trouble::Fault(CameraFault::EndlessBody),
    ];

    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Trouble::Gone => "camera: gone".into(),
            Trouble::HangUp => "camera: hangs up".into(),
            Trouble::Fault(fault) => format!("camera: {fault:?}"),
        }
    }

    /// The `n`th of a round that begins anywhere: each kind comes as often as every other.
    pub fn nth(n: usize) -> Self {
        Self::ALL[n % Self::ALL.len()]
    }

    /// It concerns the beginning of a session, so that one has to begin.
    pub fn needs_a_new_session(self) -> bool {
        use CameraFault::{Drip, EndlessBody, EndlessHeader, GarbageAnswer};
        matches!(self, Trouble::Fault(GarbageAnswer | Drip | EndlessHeader | EndlessBody))
    }
}

/// What a receiver does wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Answer(Answer),
    Down,
}

impl Refusal {
    const ALL: [Self; 3] =
        [Refusal::Answer(Answer::Hang), Refusal::Answer(Answer::Status(500)), Refusal::Down];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Answer(Answer::Hang) => "receiver: hangs",
            Refusal::Answer(Answer::Status(_)) => "receiver: answers 500",
            Refusal::Down => "receiver: down",
        }
    }

    /// The `n`th of a round.
    pub fn nth(n: usize) -> Self {
        Self::ALL[n % Self::ALL.len()]
    }
}

/// What concerns the whole service; nothing else happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disaster {
    /// SIGKILL of the supervisor and a new start.
    SupervisorKilled,
    /// SIGSTOP of the supervisor for so long, then SIGCONT.
    SupervisorStopped(Duration),
    /// No byte more fits the state directory's file system; the sink is killed meanwhile or not.
    DiskFull { and_sink: bool },
    /// The state directory can only be read; the sink is killed, since whoever has its files open still writes.
    ReadOnly,
}

impl Disaster {
    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Disaster::SupervisorKilled => "supervisor: SIGKILL".into(),
            Disaster::SupervisorStopped(time) if time < Duration::from_secs(20) => {
                "supervisor: SIGSTOP for seconds".into()
            }
            Disaster::SupervisorStopped(time) => format!("supervisor: SIGSTOP for {} s", time.as_secs()),
            Disaster::DiskFull { and_sink: false } => "disk full".into(),
            Disaster::DiskFull { and_sink: true } => "disk full, SIGKILL of the sink".into(),
            Disaster::ReadOnly => "state directory read-only, SIGKILL of the sink".into(),
        }
    }

    /// The `n`th of a round; those of the disk only where there is one to spoil.
    pub fn nth(n: usize, disk: bool, random: &mut fastrand::Rng) -> Self {
        let stopped = Disaster::SupervisorStopped(Duration::from_millis(random.u64(800..4500)));
        let all = [
            Disaster::SupervisorKilled,
            Disaster::DiskFull { and_sink: false },
            stopped,
            Disaster::ReadOnly,
            Disaster::DiskFull { and_sink: true },
        ];
        let possible: Vec<Self> = all
            .into_iter()
            .filter(|d| disk || !matches!(d, Disaster::DiskFull { .. } | Disaster::ReadOnly))
            .collect();
        possible[n % possible.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_and_a_seed_draws_the_same_again() {
        let draw = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..500).map(|_| Blow::draw(Role::Infer, &mut random).name()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let names: std::collections::BTreeSet<String> = draw(1).into_iter().collect();
        assert_eq!(names.len(), 11, "{names:?}");
    }
}
