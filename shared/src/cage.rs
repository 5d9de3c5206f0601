//! What a worker can no longer do, as it reports it before it touches anything foreign, and as people are shown it.

use serde::{Deserialize, Serialize};

/// One wall of a worker's cage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// A user and a group of its own, in no other group.
    OwnUser,
    /// No capability, nor any to be had.
    NoCapabilities,
    /// No program that it starts may do more than it (`no_new_privs`).
    NoNewPrivileges,
    /// Nobody but root looks into its memory.
    NotDumpable,
    /// Bounds on descriptors, core dumps and, with a user of its own, processes.
    Limits,
    /// It stands in an empty directory that it may not write to.
    EmptyDirectory,
    /// Only the system calls of its role.
    SystemCalls,
    /// Only the files of its role.
    Files,
    /// TCP connections only to the ports of its role.
    Ports,
    /// No signals to anybody outside.
    Signals,
    /// A control group with bounds on memory and processes for it and what it starts.
    ControlGroup,
    /// No network at all, not even that of its own host. For inference processes.
    NoNetwork,
}

impl Guard {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::OwnUser,
        Self::NoCapabilities,
        Self::NoNewPrivileges,
        Self::NotDumpable,
        Self::Limits,
        Self::EmptyDirectory,
        Self::SystemCalls,
        Self::Files,
        Self::Ports,
        Self::Signals,
        Self::ControlGroup,
        Self::NoNetwork,
    ];

    /// In words, for tables and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnUser => "a user of its own",
            Self::NoCapabilities => "no capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::NotDumpable => "not dumpable",
            Self::Limits => "limits",
            Self::EmptyDirectory => "an empty directory",
            Self::SystemCalls => "system calls",
            Self::Files => "files",
            Self::Ports => "ports",
            Self::Signals => "signals",
            Self::ControlGroup => "a control group",
            Self::NoNetwork => "no network",
        }
    }
}

/// A wall that could not be put up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub guard: Guard,
    /// One line: the reason, and the remedy where there is one.
    pub why: String,
}

/// The cage of one worker process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cage {
    /// User that it runs as.
    pub uid: u32,
    pub in_force: Vec<Guard>,
    pub missing: Vec<Missing>,
    /// How many system calls it may make, where they are counted.
    pub system_calls: Option<u32>,
}

/// What the kernel offers to build cages from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Version of Landlock; `None`: there is none, or it is switched off.
    pub landlock: Option<i32>,
    pub seccomp: bool,
}

/// Since which version Landlock knows of ports, and of signals.
pub const LANDLOCK_PORTS: i32 = 4;
/// As above.
pub const LANDLOCK_SIGNALS: i32 = 6;

/// Longest reason that is kept of what a worker says.
const MAX_WHY: usize = 200;

impl Cage {
    /// Notes a wall that stands, or why it does not. The last word on each counts.
    pub fn note(&mut self, guard: Guard, outcome: Result<(), String>) {
        self.in_force.retain(|g| *g != guard);
        self.missing.retain(|m| m.guard != guard);
        match outcome {
            Ok(()) => self.in_force.push(guard),
            Err(why) => self.missing.push(Missing { guard, why }),
        }
    }

    /// The same with bounded length and nothing in it that moves a terminal's cursor, whoever said it.
    pub fn presentable(self) -> Self {
        let mut clean = Self { uid: self.uid, system_calls: self.system_calls, ..Self::default() };
        for guard in self.in_force.into_iter().take(Guard::ALL.len()) {
            clean.note(guard, Ok(()));
        }
        for missing in self.missing.into_iter().take(Guard::ALL.len()) {
            clean.note(missing.guard, Err(crate::postmortem::clean(&missing.why, MAX_WHY)));
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn whatever_a_worker_claims_is_short_and_says_each_thing_once() {
        let mut cage = Cage { in_force: vec![Guard::Files; 1000], ..Cage::default() };
        cage.missing =
            vec![Missing { guard: Guard::Ports, why: format!("\u{1b}[2J{}", "x".repeat(9_999)) }; 99];
        let shown = cage.presentable();
        assert_eq!((shown.in_force.len(), shown.missing.len()), (1, 1));
        assert!(shown.missing[0].why.chars().count() <= MAX_WHY + 1);
        assert!(!shown.missing[0].why.contains('\u{1b}'));
    }

    #[test]
    fn the_last_word_on_a_wall_counts() {
        let mut cage = Cage::default();
        cage.note(Guard::Files, Err("no".into()));
        cage.note(Guard::Files, Ok(()));
        assert_eq!((cage.in_force.as_slice(), cage.missing.len()), ([Guard::Files].as_slice(), 0));
    }

    #[test]
    fn names_are_stable() {
        let json = serde_json::to_string(&Guard::ALL[..3]).unwrap();
        assert_eq!(json, r#"["own-user","no-capabilities","no-new-privileges"]"#);
    }
}
