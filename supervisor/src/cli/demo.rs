//! `nursery demo`: the real service on three synthetic cameras, in a private directory that goes with it.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};

use nursery_shared::{config, control::Request};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Failure, SocketArg, WorkerArg, client, screen, table};
use crate::service::{self, Options};

/// How often the status below the events is drawn anew.
const REDRAW: Duration = Duration::from_secs(1);
/// How long the last lines may take at the end; whoever reads them may have stopped.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    worker: WorkerArg,
}

const CONFIG: &str = r#"{
  "cameras": [
    {"name": "nursery-room", "source": "synthetic:cry"},
    {"name": "noise-machine", "source": "synthetic:noise-cry"},
    {"name": "living-room", "source": "synthetic:babble"}
  ],
  "inference": {"workers": 2},
  "detection": {"cooldown_s": 10}
}"#;

/// Runs until Ctrl-C.
pub fn run(args: Args) -> Result<(), Failure> {
    let worker_binary = args.worker.find()?;
    let config = config::from_json(CONFIG, Path::new("")).map_err(Failure::failed)?;
    // From here on a signal must not end this process at once: the directory would stay. The service takes them
    // over; one that comes before that, and a closed terminal, which means `reload` to a service, are passed on by
    // the thread below.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|e| Failure::failed(format!("signal {signal}: {e}")))?;
    }
    let dir = PrivateDir::new()?;
    let control_socket = args.socket.control_socket.unwrap_or_else(|| dir.0.join("control.sock"));
    let (sender, events) = sync_channel(256);
    say("nursery demo: three synthetic cameras, two inference processes; Ctrl-C ends it");
    let socket = control_socket.clone();
    let (done, all_shown) = sync_channel(1);
    std::thread::Builder::new()
        .name("demo-screen".into())
        .spawn(move || {
            show(&events, &socket, &interrupted);
            let _ = done.try_send(());
        })
        .map_err(|e| Failure::failed(e.to_string()))?;
    let result = service::run(Options {
        config_path: None,
        config,
        inference_workers: None,
        model: None,
        state_dir: dir.0.join("state"),
        control_socket,
        worker_binary,
        log_to_stderr: false,
        // Dropped at the end of the service, which ends the thread.
        events: Some(sender),
    });
    let _ = all_shown.recv_timeout(LAST_LINES);
    Ok(result?)
}

/// A directory for this user alone, removed at the end.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn new() -> Result<Self, Failure> {
        let template = std::env::temp_dir().join("nursery-demo-XXXXXX");
        nix::unistd::mkdtemp(&template)
            .map_err(std::io::Error::from)
            .and_then(|dir| {
                // As root, workers of other users must get to what is theirs in it.
                let dir = Self(dir);
                if nix::unistd::geteuid().is_root() {
                    std::fs::set_permissions(&dir.0, std::fs::Permissions::from_mode(0o711))?;
                }
                Ok(dir)
            })
            .map_err(|e| Failure::failed(format!("{}: {e}", template.display())))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // What cannot be removed is a small directory among other temporary ones.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Prints events as they come and, on a terminal, keeps the status below them.
fn show(events: &Receiver<String>, socket: &Path, interrupted: &AtomicBool) {
    let mut drawn = 0;
    let mut next = Instant::now() + REDRAW;
    loop {
        match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(json) => {
                erase(&mut drawn);
                say(&event_line(&json));
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + REDRAW;
                if interrupted.load(Ordering::Relaxed) {
                    // Not there yet: asked again in a moment. On its way out already: no harm.
                    let _ = client::Client::connect(socket).and_then(|mut c| c.ask(&Request::Stop {}));
                    continue;
                }
                // Missing at the start and at the end of the service, which is no news.
                if let Some(size) = screen::size()
                    && let Ok(status) = client::status(socket)
                {
                    erase(&mut drawn);
                    let text = screen::fit(&format!("\n{}", table::status(&status)), size);
                    drawn = text.lines().count();
                    say(&text);
                }
            }
        }
    }
}

fn erase(drawn: &mut usize) {
    if *drawn > 0 {
        // Up to the first line of the table, and clear to the end of the screen.
        let _ = write!(io::stdout(), "\x1b[{drawn}F\x1b[J");
        *drawn = 0;
    }
}

/// One line with the event's type and its camera's name.
fn event_line(json: &str) -> String {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(json) else {
        return table::cut(json, table::WIDTH);
    };
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("?").to_owned();
    let data = &event["data"];
    let mut line =
        format!("{}  {:<14}  {}", text(&event["timestamp"]), text(&event["type"]), text(&data["camera"]));
    let score =
        if data["peak_score"].is_null() { ("score", "score", "") } else { ("peak_score", "peak", "") };
    for (key, label, unit) in [score, ("duration_s", "lasted", " s")] {
        if let Some(value) = data[key].as_f64() {
            line += &format!("  {label} {value:.2}{unit}");
        }
    }
    if let Some(reason) = data["reason"].as_str() {
        line += &format!("  {reason}");
    }
    table::cut(&line, table::WIDTH)
}

fn say(text: &str) {
    // Nobody reads: the demo goes on until it is interrupted.
    let _ = writeln!(io::stdout(), "{text}");
    let _ = io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_line_names_type_and_camera() {
        let json = r#"{"type":"cry.started","timestamp":"2026-01-31T02:03:04.500Z","data":{"camera":"bedroom","score":0.97}}"#;
        let line = event_line(json);
        assert!(line.contains("cry.started") && line.contains("bedroom") && line.contains("0.97"), "{line}");
    }

    #[test]
    fn the_demo_configuration_is_valid() {
        assert_eq!(config::from_json(CONFIG, Path::new("")).unwrap().cameras.len(), 3);
    }
}
