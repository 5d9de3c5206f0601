//! The receivers of alerts: webhook, log, command, sound. One attempt each, bounded in time.

use std::{process::Stdio, sync::Arc, time::Duration};

use nursery_shared::config::{AlertConfig, AlertKind};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{sound, webhook::Webhook};

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    Delivered,
    /// To be tried again.
    Failed(String),
    /// Trying again cannot help.
    Impossible(String),
}

/// A configured receiver.
pub struct Receiver {
    /// The same for the same target over restarts and reloads; deliveries are kept under it.
    pub id: String,
    /// For people, without secrets.
    pub label: String,
    way: Way,
    limit: Duration,
}

enum Way {
    Webhook(Box<Webhook>),
    Log,
    Exec { program: String, args: Vec<String> },
    Sound { file: Option<String> },
}

impl Receiver {
    /// Builds a receiver; the error names what cannot be used.
    pub fn new(config: &AlertConfig) -> Result<Self, String> {
        let (word, target, label, way) = match config.r#type {
            AlertKind::Webhook => {
                let url = config.url.as_ref().map(|u| u.expose()).unwrap_or_default();
                let webhook = Webhook::new(url, config.secret.as_ref())?;
                (
                    "webhook",
                    url.to_owned(),
                    format!("webhook {}", webhook.place()),
                    Way::Webhook(Box::new(webhook)),
                )
            }
            AlertKind::Log => ("log", String::new(), "log".to_owned(), Way::Log),
            AlertKind::Exec => {
                let line = config.command.clone().unwrap_or_default();
                let mut words = shlex::split(&line).unwrap_or_default().into_iter();
                let program = words.next().ok_or_else(|| {
                    "alert of type exec: the command cannot be split into words (unbalanced quotes?)"
                        .to_owned()
                })?;
                ("exec", line, format!("exec {program}"), Way::Exec { program, args: words.collect() })
            }
            AlertKind::Sound => {
                let file = config.file.clone();
                ("sound", file.clone().unwrap_or_default(), "sound".to_owned(), Way::Sound { file })
            }
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{word}\n{target}").as_bytes());
        let id: String = digest.as_ref()[..12].iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { id, label, way, limit: config.timeout() })
    }

    /// One attempt to deliver.
    pub async fn attempt(self: Arc<Self>, message_id: &str, body: &str) -> Attempt {
        match &self.way {
            Way::Log => {
                tracing::info!("alert {body}");
                Attempt::Delivered
            }
            Way::Webhook(webhook) => webhook.post(message_id, body, self.limit).await,
            Way::Exec { program, args } => execute(program, args, body, self.limit).await,
            Way::Sound { file } => {
                let file = file.clone();
                match tokio::task::spawn_blocking(move || sound::play(file.as_deref())).await {
                    Ok(attempt) => attempt,
                    Err(e) => Attempt::Impossible(format!("sound: {e}")),
                }
            }
        }
    }
}

/// Runs a command with the body on its standard input; exit status 0 is a delivery.
async fn execute(program: &str, args: &[String], body: &str, limit: Duration) -> Attempt {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: between fork and exec the closure makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Attempt::Failed(format!("{program}: cannot be started: {e}")),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let stdin = child.stdin.take();
    let run = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input may still succeed.
            let _ = stdin.write_all(body.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
        child.wait().await
    };
    match timeout(limit, run).await {
        Ok(Ok(status)) if status.success() => Attempt::Delivered,
        Ok(Ok(status)) => Attempt::Failed(format!("{program}: {status}")),
        Ok(Err(e)) => Attempt::Failed(format!("{program}: {e}")),
        Err(_) => {
            if let Some(group) = group {
                // Not waited for yet, so the number is still its own.
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            Attempt::Failed(format!("{program}: not done within {} s, killed", limit.as_secs_f64()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, args: &[&str], limit: Duration) -> Attempt {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(execute(program, &args, r#"{"type":"x"}"#, limit))
    }

    #[test]
    fn a_command_gets_the_body_and_its_status_decides() {
        let limit = Duration::from_secs(20);
        assert_eq!(run("grep", &["-q", "type"], limit), Attempt::Delivered);
        assert!(matches!(run("grep", &["-q", "nothing"], limit), Attempt::Failed(_)));
        assert!(matches!(run("/no/such/program", &[], limit), Attempt::Failed(e) if e.contains("no/such")));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let marker = format!("98{}", std::process::id());
        let script = format!("sleep {marker} & wait");
        let attempt = run("sh", &["-c", &script], Duration::from_millis(300));
        assert!(matches!(attempt, Attempt::Failed(e) if e.contains("killed")));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let alive = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|p| {
                std::fs::read(p.path().join("cmdline"))
                    .is_ok_and(|c| c.starts_with(b"sleep") && String::from_utf8_lossy(&c).contains(&marker))
            })
        };
        while alive() {
            assert!(std::time::Instant::now() < deadline, "its child still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_receiver_keeps_its_id_when_only_its_secret_or_time_limit_changes() {
        let config = |secret: &str, timeout| {
            let json = serde_json::json!({"type": "webhook", "url": "http://h/x?token=t", "secret": secret,
                "timeout_s": timeout});
            let config: AlertConfig = serde_json::from_value(json).unwrap();
            Receiver::new(&config).unwrap()
        };
        let (a, b) = (config("one", 1.0), config("two", 9.0));
        assert_eq!(a.id, b.id);
        assert_eq!(a.label, "webhook http://h");
    }
}
