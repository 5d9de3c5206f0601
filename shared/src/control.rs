//! The control protocol: one JSON object per line over a Unix socket. A client sends one [`Request`] and
//! reads one [`Reply`] line; `logs` with `follow` is answered by reply lines without end.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    changes::Changes,
    postmortem::{PostMortem, Summary},
    status::Status,
};

/// Longest request line, newline included.
pub const MAX_REQUEST: usize = 64 << 10;

/// Longest reply line, newline included.
pub const MAX_REPLY: usize = 16 << 20;

/// A wanted size of the inference pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolSize {
    Fixed(u32),
    Auto,
}

impl std::str::FromStr for PoolSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            Ok(n) if (1..=crate::config::MAX_POOL).contains(&n) => Ok(PoolSize::Fixed(n)),
            _ if text == "auto" => Ok(PoolSize::Auto),
            _ => Err(format!("expected a number from 1 to {} or `auto`", crate::config::MAX_POOL)),
        }
    }
}

/// What a client may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    Status {},
    Scale {
        workers: PoolSize,
    },
    /// A worker's name (`capture:bedroom`, `infer:0`, `sink`), a camera's name, a role, or `all`.
    Restart {
        name: String,
    },
    Reload {},
    Stop {},
    /// Kept log lines, of one worker or of all; `follow` goes on with new ones.
    Logs {
        name: Option<String>,
        follow: bool,
    },
    /// Where the service keeps its files.
    Info {},
    /// A camera's live media. After [`Reply::Done`] frames of [`crate::media::FromCapture`] follow on the same socket,
    /// from the capture process itself, which takes [`crate::media::ToCapture`]. [`Reply::Refused`]: not at the moment.
    Listen {
        camera: String,
    },
    /// The post-mortems that the service has in memory, the newest ones.
    Postmortems {},
    /// One of them.
    Postmortem {
        id: String,
    },
}

/// What the service answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum Reply {
    Status {
        status: Box<Status>,
    },
    /// Done; `message` is one line for people.
    Done {
        message: String,
    },
    /// Not done; `message` says why.
    Error {
        message: String,
    },
    /// A configuration that cannot be used; `message` names file, key and what was expected. Nothing changed.
    Refused {
        message: String,
    },
    /// Another configuration is in force.
    Reloaded {
        changes: Box<Changes>,
    },
    /// Log lines, oldest first. `lost` counts lines that this client was too slow for.
    Logs {
        lines: Vec<String>,
        lost: u64,
    },
    Info {
        state_dir: PathBuf,
        config: Option<PathBuf>,
    },
    /// Newest last. Older ones are files in `directory`, unless the disk was of another opinion.
    Postmortems {
        kept: Vec<Summary>,
        directory: PathBuf,
    },
    Postmortem {
        postmortem: Box<PostMortem>,
    },
}

/// Where the control socket is looked for unless told otherwise.
pub fn default_socket() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/nursery/control.sock");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("nursery/control.sock"),
        _ => std::env::temp_dir().join(format!("nursery-{}/control.sock", nix::unistd::geteuid())),
    }
}

/// Directory inside the state directory that belongs to the sink: events, deliveries, quarantine.
pub const STORE_DIRECTORY: &str = "store";

/// Where the store is kept unless told otherwise.
pub fn default_state_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/nursery");
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    match std::env::var_os("XDG_STATE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("nursery"),
        _ => home().join(".local/state/nursery"),
    }
}
