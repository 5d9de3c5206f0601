//! Asks `nursery-worker` what it is before anything is started, and again before another model is taken up: the same
//! version as this binary, and a model that loads.

use std::{
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use nursery_shared::{
    VERSION,
    cage::Kernel,
    config::{Config, TlsConfig},
    message::{MAX_SCORES, ModelShape, PROTOCOL},
    model_state::MAX_STATE,
};
use serde::Deserialize;

use super::{ServiceError, identity::Identity, spawn, sys};

/// Loading a model takes well under a second; a busy machine is granted more.
const LIMIT: Duration = Duration::from_secs(30);
/// A pipe holds more than any honest answer, so the answer is read after the exit.
const LONGEST_ANSWER: u64 = 16 << 10;

#[derive(Deserialize)]
struct Info {
    version: String,
    protocol: u32,
    model: ModelShape,
    #[serde(default)]
    kernel: Kernel,
}

/// What the worker binary said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub model: ModelShape,
    pub kernel: Kernel,
}

/// What is looked at: a model file, where it is not the embedded one, and the page's certificate.
pub type Subject<'a> = (Option<&'a str>, Option<&'a TlsConfig>);

/// What of a configuration is looked at.
pub fn subject(config: &Config) -> Subject<'_> {
    (config.inference.model.as_deref(), config.web.as_ref().and_then(|w| w.tls.as_ref()))
}

fn failed(message: String) -> ServiceError {
    ServiceError { message, exit: 1 }
}

/// `binary info` while it runs.
pub struct Probe {
    child: Child,
    pidfd: OwnedFd,
    place: String,
    deadline: Instant,
}

impl Probe {
    /// Starts it; where that user is given, as the user who is going to read the model.
    pub fn start(
        binary: &Path,
        (model, tls): Subject<'_>,
        identity: Option<&Identity>,
        limit: Duration,
    ) -> Result<Self, ServiceError> {
        let place = binary.display().to_string();
        let mut command = Command::new(binary);
        command
            .arg("info")
            .env_clear()
            .envs(spawn::environment(identity))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        if let Some(tls) = tls {
            command.args(["--certificate", &tls.certificate, "--key", &tls.key]);
        }
        if let Some(identity) = identity.cloned() {
            identity.put_on(&mut command);
        }
        let parent = std::process::id();
        // SAFETY: the closure makes only async-signal-safe system calls, see there. After the change of user, which
        // would undo the first of them.
        unsafe { command.pre_exec(move || sys::prepare_helper(parent)) };
        let mut child = command
            .spawn()
            .map_err(|e| failed(format!("{place}: cannot be started: {}", spawn::explain(e, identity))))?;
        match sys::pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Self { child, pidfd, place, deadline: Instant::now() + limit }),
            Err(e) => {
                // Nobody would watch it: it must not stay.
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(format!("{place}: cannot be watched: {e}")))
            }
        }
    }

    /// Readable when it has ended.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// When its time is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What came of it; `None` while it runs and its time is not over. One whose time is over is killed.
    pub fn outcome(&mut self) -> Option<Result<Answer, ServiceError>> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(self.judge(status)),
            Ok(None) if Instant::now() < self.deadline => None,
            Ok(None) => {
                // It is reaped when the kernel lets it go; see `is_gone`.
                let _ = self.child.kill();
                Some(Err(failed(format!("{}: did not answer `info` in time", self.place))))
            }
            Err(e) => Some(Err(failed(format!("{}: cannot be watched: {e}", self.place)))),
        }
    }

    /// It was reaped, or there is nothing to reap.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn judge(&mut self, status: ExitStatus) -> Result<Answer, ServiceError> {
        let place = &self.place;
        let mut texts = [String::new(), String::new()];
        let streams: [Option<Box<dyn Read>>; 2] = [
            self.child.stdout.take().and_then(unblocked).map(|s| Box::new(s) as _),
            self.child.stderr.take().and_then(unblocked).map(|s| Box::new(s) as _),
        ];
        for (text, stream) in texts.iter_mut().zip(streams) {
            if let Some(stream) = stream {
                // What is no text at all is no answer either; the checks below say so.
                let _ = stream.take(LONGEST_ANSWER).read_to_string(text);
            }
        }
        let [answer, errors] = texts;
        match status {
            status if status.code() == Some(2) => Err(ServiceError {
                message: format!(
                    "inference.model: {}",
                    errors.lines().next().unwrap_or("does not load").trim()
                ),
                exit: 2,
            }),
            // Any other program may end like this, too.
            status if status.code() == Some(3) && errors.starts_with("web.tls.") => Err(ServiceError {
                message: errors.lines().next().unwrap_or_default().trim().to_owned(),
                exit: 2,
            }),
            status if !status.success() => Err(failed(format!(
                "{place}: `info` failed ({status}): {}",
                errors.lines().next().unwrap_or("")
            ))),
            _ => understand(&answer).map_err(|e| failed(format!("{place}: {e}"))),
        }
    }
}

/// The same pipe, for which nobody waits: somebody else may hold its other end.
fn unblocked<T: AsFd>(pipe: T) -> Option<T> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    Some(pipe)
}

/// Runs `binary info`, waits for the answer and checks it. A model or a certificate that cannot be used is a wrong configuration
/// (exit 2).
pub fn probe(
    binary: &Path,
    subject: Subject<'_>,
    identity: Option<&Identity>,
) -> Result<Answer, ServiceError> {
    let mut probe = Probe::start(binary, subject, identity, LIMIT)?;
    loop {
        if let Some(outcome) = probe.outcome() {
            // Whoever starts the service has time for this.
            let _ = probe.child.wait();
            return outcome;
        }
        let left = probe.deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(probe.descriptor(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(format!("{}: cannot be watched: {e}", probe.place))),
        }
    }
}

fn understand(answer: &str) -> Result<Answer, String> {
    let info: Info = serde_json::from_str(answer)
        .map_err(|_| "is no nursery-worker: `info` gave no description".to_owned())?;
    if info.version != VERSION || info.protocol != PROTOCOL {
        return Err(format!(
            "is version {} (protocol {}), this nursery is {VERSION} (protocol {PROTOCOL}): install all from \
             the same release",
            info.version, info.protocol
        ));
    }
    let m = &info.model;
    let largest = nursery_shared::pcm::SAMPLE_RATE * 10;
    if m.window == 0 || m.window > largest || m.hop == 0 || m.hop > m.window || m.frame_step == 0 {
        return Err("describes a model with impossible windows".into());
    }
    if m.scores_per_window() > MAX_SCORES {
        return Err(format!("describes a model with more than {MAX_SCORES} scores per window"));
    }
    if m.state_bytes as usize > MAX_STATE {
        return Err(format!(
            "describes a model whose state of {} bytes is larger than the {MAX_STATE} allowed",
            m.state_bytes
        ));
    }
    Ok(Answer { model: info.model, kernel: info.kernel })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: &str, window: u32, frame_step: u32, state_bytes: usize) -> String {
        format!(
            r#"{{"version":"{version}","protocol":{PROTOCOL},"model":{{"id":"x","window":{window},"hop":{window},"lookahead":0,"frame_step":{frame_step},"state_bytes":{state_bytes}}}}}"#
        )
    }

    #[test]
    fn another_version_is_refused_and_named() {
        assert!(understand(&answer(VERSION, 4000, 800, 25_000)).is_ok());
        assert!(understand(&answer("9.9.9", 4000, 800, 25_000)).unwrap_err().contains("9.9.9"));
        assert!(understand("hello").is_err());
    }

    #[test]
    fn a_model_that_does_not_fit_the_frames_is_refused() {
        assert!(understand(&answer(VERSION, 0, 800, 0)).unwrap_err().contains("windows"));
        assert!(understand(&answer(VERSION, 16_000, 1, 0)).unwrap_err().contains("scores"));
        assert!(understand(&answer(VERSION, 4000, 800, MAX_STATE)).is_ok());
        assert!(understand(&answer(VERSION, 4000, 800, MAX_STATE + 1)).unwrap_err().contains("state"));
    }
}
