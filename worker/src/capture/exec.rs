//! Source `exec:`: a program that writes raw s16le 16 kHz mono to its standard output. It gets a process group of
//! its own, which ends with it.

use std::{process::Stdio, time::Duration};

use futures::{FutureExt, future::FusedFuture};
use nix::{
    libc::RLIM_INFINITY,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use nursery_shared::{pcm::SAMPLE_RATE, redact};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::{
    pace::Pace,
    retry::{Attempt, Failure, Outcome, keep_trying},
    source::{SourceEvent, SourceLink},
};

/// Without a byte for this long the program is taken for stuck and started anew.
const STALL: Duration = Duration::from_secs(5);

/// A program may need a moment to open its device.
const START: Duration = Duration::from_secs(15);

/// How long the last lines of its standard error may take after its output ended.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Longest line of the program's standard error that is logged.
const LOG_LINE: u64 = 500;

/// Runs the program until the source is stopped.
pub async fn run(command: &str, link: &SourceLink) {
    keep_trying(link, &Program(command)).await;
}

struct Program<'a>(&'a str);

impl Attempt for Program<'_> {
    async fn attempt(&self, link: &SourceLink) -> Outcome {
        Outcome::Failed(listen(self.0, link).await)
    }
}

/// Ends the program's whole group when it goes out of scope.
struct Group {
    child: Child,
    id: Option<nix::unistd::Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may have ended already; its number is not reused before the child is waited for, which
            // happens at the earliest after this.
            let _ = nix::sys::signal::killpg(id, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn spawn(program: &str, args: &[String]) -> Result<Group, String> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let (_, data) = getrlimit(Resource::RLIMIT_DATA).unwrap_or((RLIM_INFINITY, RLIM_INFINITY));
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            // This process's own limit is not the program's.
            let _ = setrlimit(Resource::RLIMIT_DATA, data, data);
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
    let child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{program}: no such program: install it or give its full path")
        }
        std::io::ErrorKind::PermissionDenied => format!("{program}: may not be executed by this user"),
        _ => format!("{program}: cannot be started: {e}"),
    })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    Ok(Group { child, id })
}

async fn listen(command: &str, link: &SourceLink) -> Failure {
    let words = match shlex::split(command) {
        Some(words) if !words.is_empty() => words,
        _ => return Failure::new("exec: the command cannot be split into words: a quote is not closed"),
    };
    let program = &words[0];
    let mut group = match spawn(program, &words[1..]) {
        Ok(group) => group,
        Err(error) => return Failure::new(error),
    };
    let (Some(mut stdout), Some(stderr)) = (group.child.stdout.take(), group.child.stderr.take()) else {
        return Failure::new(format!("{program}: its output cannot be read"));
    };
    link.send(SourceEvent::Connected).await;
    let mut heard = 0_u64;
    let failure = |heard: u64, stalled, error| Failure {
        stalled,
        error,
        heard: Duration::from_secs(heard / u64::from(SAMPLE_RATE)),
    };
    let mut last_line = String::new();
    let error = {
        let log = log_lines(stderr, program, &mut last_line);
        let read = async {
            let (mut bytes, mut filled, mut due) = (vec![0; 6_400], 0, Instant::now() + START);
            let mut pace = Pace::lenient();
            loop {
                match timeout_at(due, stdout.read(&mut bytes[filled..])).await {
                    Err(_) => {
                        let what = if heard == 0 { START } else { STALL }.as_secs();
                        return (
                            true,
                            format!("{program}: has written no audio for {what} s; it was started anew"),
                        );
                    }
                    Ok(Err(e)) => return (false, format!("{program}: its output cannot be read: {e}")),
                    Ok(Ok(0)) => return (false, String::new()),
                    Ok(Ok(n)) => filled += n,
                }
                let whole = filled / 2 * 2;
                let samples: Vec<f32> = bytes[..whole]
                    .chunks_exact(2)
                    .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0)
                    .collect();
                bytes.copy_within(whole..filled, 0);
                filled -= whole;
                if !samples.is_empty() {
                    // A program that reads a file without keeping time would take a whole core for itself.
                    pace.wait_for(samples.len()).await;
                    heard += samples.len() as u64;
                    link.send(SourceEvent::Audio(samples)).await;
                }
                due = Instant::now() + STALL;
            }
        };
        let log = log.fuse();
        tokio::pin!(log, read);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut read => break outcome,
                // Its standard error may be closed long before its output is.
                () = &mut log, if !log.is_terminated() => {}
            }
        };
        if !log.is_terminated() {
            // Its last words, where they are not in yet; without them the message is poorer, no more.
            let _ = timeout(LAST_WORDS, &mut log).await;
        }
        outcome
    };
    if !error.1.is_empty() {
        return failure(heard, error.0, error.1);
    }
    let ended = match timeout(Duration::from_secs(2), group.child.wait()).await {
        Ok(Ok(status)) => {
            group.id = None;
            format!("ended with {status}")
        }
        Ok(Err(e)) => format!("ended, its status cannot be read: {e}"),
        Err(_) => "closed its output".to_owned(),
    };
    let said = if last_line.is_empty() { String::new() } else { format!("; it said: {last_line}") };
    failure(heard, false, format!("{program}: {ended}{said}"))
}

/// Logs each line of the program's standard error, shortened, and keeps the last one.
async fn log_lines(stderr: impl AsyncRead + Unpin, program: &str, last: &mut String) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LOG_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text: String =
            String::from_utf8_lossy(&line).trim_end().chars().filter(|c| !c.is_control()).collect();
        let text = scrub(&text);
        if !text.is_empty() {
            tracing::info!("{program}: {text}");
            last.clear();
            last.extend(text.chars().take(200));
        }
    }
}

/// Programs like to repeat the URL that they were given, password included: takes the user information out of
/// everything that looks like one.
fn scrub(text: &str) -> String {
    text.split_inclusive([' ', '\'', '"', ',']).map(redact::source).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn events_of(command: &str, done: impl Fn(&[SourceEvent]) -> bool) -> Vec<SourceEvent> {
        let (link, mut events, controls) = SourceLink::new();
        let command = command.to_owned();
        let task = tokio::spawn(async move { run(&command, &link).await });
        let mut got = Vec::new();
        while !done(&got) {
            got.push(timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap());
        }
        controls.stop.send_replace(true);
        drop(events);
        task.await.unwrap();
        got
    }

    fn errors(events: &[SourceEvent]) -> Vec<&str> {
        let mut errors = Vec::new();
        for event in events {
            if let SourceEvent::Down { error, .. } = event {
                errors.push(error.as_str());
            }
        }
        errors
    }

    #[tokio::test]
    async fn samples_are_read_across_odd_splits() {
        let events =
            events_of(r#"sh -c 'printf "\000\100\000"; sleep 0.1; printf "\300"; sleep 5'"#, |got| {
                got.iter().filter(|e| matches!(e, SourceEvent::Audio(_))).count() == 2
            })
            .await;
        let audio: Vec<f32> = events
            .iter()
            .flat_map(|e| if let SourceEvent::Audio(a) = e { a.clone() } else { vec![] })
            .collect();
        assert_eq!(audio, [0.5, -0.5]);
    }

    #[tokio::test]
    async fn the_exit_status_and_the_last_words_are_the_error_and_hold_no_password() {
        let events = events_of("sh -c 'echo cannot open rtsp://u:hunter2@h/x: refused >&2; exit 3'", |got| {
            errors(got).len() == 2
        })
        .await;
        let error = errors(&events)[0];
        assert!(error.contains("exit status: 3") && error.contains("refused"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_keep_time_is_held_back() {
        let started = Instant::now();
        let seconds = |got: &[SourceEvent]| {
            let audio = got.iter().map(|e| if let SourceEvent::Audio(a) = e { a.len() } else { 0 });
            audio.sum::<usize>() / SAMPLE_RATE as usize
        };
        events_of("cat /dev/zero", |got| seconds(got) >= 4).await;
        // Two seconds may come at once; the rest comes five per cent faster than it plays.
        assert!(started.elapsed() > Duration::from_millis(1_500), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_missing_program_and_an_open_quote_are_told_apart() {
        let events = events_of("/no/such/program -x", |got| !errors(got).is_empty()).await;
        assert!(errors(&events)[0].contains("no such program"));
        let events = events_of("sh -c 'x", |got| !errors(got).is_empty()).await;
        assert!(errors(&events)[0].contains("quote"));
    }

    #[tokio::test]
    async fn stopping_ends_the_whole_process_group() {
        let mark = format!("31{}", std::process::id());
        let command = format!("sh -c 'sleep {mark} & printf xx; sleep {mark}'");
        events_of(&command, |got| got.iter().any(|e| matches!(e, SourceEvent::Audio(_)))).await;
        let alive = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|p| {
                std::fs::read(p.path().join("cmdline"))
                    .is_ok_and(|c| c == format!("sleep\0{mark}\0").as_bytes())
            })
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!alive());
    }
}
