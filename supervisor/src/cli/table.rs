//! The status as tables that fit 100 columns.

use nursery_shared::{
    message::Role,
    status::{CameraState, CameraStatus, InferenceStatus, Status, WorkerState, WorkerStatus},
};

/// No line is longer.
pub const WIDTH: usize = 100;

/// Everything.
pub fn status(status: &Status) -> String {
    let i = &status.inference;
    let a = &status.alerts;
    let failing = a.failing_since.as_ref().map_or_else(String::new, |t| format!(", failing since {t}"));
    let quarantined =
        if i.quarantined > 0 { format!(", {} set aside", i.quarantined) } else { String::new() };
    let lines = [
        format!("nursery {}  pid {}  up {}", status.version, status.pid, age(status.uptime_s)),
        String::new(),
        cameras(status),
        String::new(),
        workers(status),
        String::new(),
        format!(
            "inference  {} workers, {} queued, {} in flight, {} scored{quarantined}, \
             latency p50 {:.0} ms, p99 {:.0} ms",
            i.workers, i.queued, i.in_flight, i.scored, i.latency_ms.p50, i.latency_ms.p99
        ),
        pool(i),
        format!("alerts     {} pending, {} delivered{failing}", a.pending, a.delivered),
    ];
    lines
        .iter()
        .map(|l| l.lines().map(|l| cut(l, WIDTH)).collect::<Vec<_>>().join("\n"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The model, and how the pool's size follows the load.
fn pool(i: &InferenceStatus) -> String {
    let m = &i.model;
    let mut lines = vec![format!(
        "           model {}{}",
        m.id,
        m.file.as_ref().map_or_else(String::new, |f| format!(" ({f})"))
    )];
    lines.extend(m.next.as_ref().map(|next| format!("           going over to model {next}")));
    if let Some(why) = &m.refused {
        lines.push("           not taken up:".to_owned());
        lines.extend(note(why));
    }
    if let Some(auto) = &i.auto {
        let changed = auto.last_change.as_ref();
        let changed =
            changed.map_or_else(String::new, |c| format!("; {} -> {}: {} ({})", c.from, c.to, c.why, c.at));
        lines.push(format!("           auto, {} to {}{changed}", auto.min, auto.max));
    }
    lines.join("\n")
}

/// The cameras, each with its error on a line of its own.
pub fn cameras(status: &Status) -> String {
    let head = ["CAMERA", "STATE", "LEVEL", "SCORE", "WINDOWS", "DROPPED", "LAST AUDIO"];
    let rows = status.cameras.iter().map(|c| {
        let row = [
            cut(&c.name, 36),
            camera_state(c).to_owned(),
            c.level_dbfs.map_or_else(dash, |l| format!("{l:.1} dBFS")),
            c.score.map_or_else(dash, |s| format!("{s:.2}")),
            c.windows.to_string(),
            c.dropped.to_string(),
            c.last_audio_age_s.map_or_else(dash, |s| format!("{} ago", age(s))),
        ];
        (row, c.last_error.clone())
    });
    table(head, [false, false, true, true, true, true, true], rows)
}

/// The workers, each with the way its last process ended on a line of its own.
pub fn workers(status: &Status) -> String {
    let head = ["WORKER", "STATE", "PID", "UP", "RESTARTS", "PROGRESS", "MEMORY", "CPU"];
    let rows = status.workers.iter().map(|w| {
        let row = [
            cut(&w.name, 36),
            worker_state(w.state).to_owned(),
            w.pid.map_or_else(dash, |p| p.to_string()),
            age(w.uptime_s),
            w.restarts.to_string(),
            progress(w),
            format!("{:.1} MB", w.rss_bytes as f64 / 1e6),
            format!("{:.1} s", w.cpu_s),
        ];
        (row, w.last_exit.as_ref().map(|e| format!("last exit: {e}")))
    });
    [vec![table(head, [false, false, true, true, true, true, true, true], rows)], cages(status)]
        .concat()
        .join("\n")
}

/// How well the workers are caged: what holds for all of a kind in one line.
fn cages(status: &Status) -> Vec<String> {
    let caged = || status.workers.iter().filter_map(|w| Some((w, w.cage.as_ref()?)));
    if caged().next().is_none() {
        return Vec::new();
    }
    let mut lacks: Vec<(String, Vec<&str>)> = Vec::new();
    for (worker, cage) in caged() {
        for missing in &cage.missing {
            let text = format!("{}: {}", missing.guard.name(), missing.why);
            let role = worker.role.as_str();
            match lacks.iter_mut().find(|(known, _)| *known == text) {
                Some((_, roles)) if roles.contains(&role) => {}
                Some((_, roles)) => roles.push(role),
                None => lacks.push((text, vec![role])),
            }
        }
    }
    if lacks.is_empty() {
        return vec![String::new(), "cages      whole".to_owned()];
    }
    let mut lines = vec![String::new(), "cages      not in force:".to_owned()];
    lines.extend(lacks.iter().flat_map(|(text, roles)| note(&format!("{} (of {})", text, roles.join(", ")))));
    lines
}

fn progress(w: &WorkerStatus) -> String {
    match w.role {
        // Samples: seconds of audio say more.
        Role::Capture => format!("{} s", w.progress / u64::from(nursery_shared::pcm::SAMPLE_RATE)),
        Role::Infer | Role::Sink | Role::Web | Role::Light => w.progress.to_string(),
    }
}

fn camera_state(c: &CameraStatus) -> &'static str {
    match c.state {
        CameraState::Connecting => "connecting",
        CameraState::Live => "live",
        CameraState::Stalled => "stalled",
        CameraState::Offline => "OFFLINE",
        CameraState::Ended => "ended",
    }
}

fn worker_state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Running => "running",
        WorkerState::Backoff => "backoff",
        WorkerState::Stopping => "stopping",
        WorkerState::Stopped => "stopped",
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// Seconds as people say them, in at most six characters.
pub fn age(seconds: f64) -> String {
    let s = seconds.max(0.0);
    match s {
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// `text` in at most `width` characters, without anything that would move a terminal's cursor.
pub fn cut(text: &str, width: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= width {
        return clean.collect();
    }
    clean.take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Lines that one error may take; the remedy stands at its end.
const NOTE_LINES: usize = 3;

/// `text` on lines of its own below a row, broken between words.
fn note(text: &str) -> Vec<String> {
    const INDENT: &str = "    ";
    let width = WIDTH - INDENT.len();
    let mut lines: Vec<String> = Vec::new();
    for word in cut(text, NOTE_LINES * width).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.len() > NOTE_LINES {
        let rest = lines.split_off(NOTE_LINES - 1).join(" ");
        lines.push(rest);
    }
    lines.iter().map(|line| format!("{INDENT}{}", cut(line, width))).collect()
}

fn table<const N: usize>(
    head: [&str; N],
    right: [bool; N],
    rows: impl Iterator<Item = ([String; N], Option<String>)>,
) -> String {
    let rows: Vec<_> = rows.collect();
    let mut widths = head.map(|h| h.chars().count());
    for (row, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(widths).zip(right) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            line += &if right { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
        }
        cut(line.trim_end(), WIDTH)
    };
    let mut lines = vec![line(head)];
    for (row, text) in &rows {
        lines.push(line(row.each_ref().map(String::as_str)));
        lines.extend(text.iter().flat_map(|text| note(text)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nursery_shared::status::{AlertStatus, AutoStatus, Latency, ModelStatus, SizeChange};

    fn nasty() -> Status {
        Status {
            version: "0.1.0".into(),
            uptime_s: 1e9,
            pid: u32::MAX,
            workers: vec![WorkerStatus {
                name: format!("capture:{}", "x".repeat(64)),
                role: Role::Capture,
                pid: Some(4_194_304),
                state: WorkerState::Starting,
                uptime_s: 1e9,
                restarts: u64::MAX / 1_000_000,
                last_exit: Some("long ".repeat(100)),
                progress: u64::MAX,
                progress_age_s: Some(1e9),
                rss_bytes: u64::MAX / 1_000_000,
                cpu_s: 1e8,
                cage: None,
            }],
            cameras: vec![CameraStatus {
                name: "ü".repeat(64),
                state: CameraState::Connecting,
                level_dbfs: Some(-120.0),
                score: Some(1.0),
                windows: u64::MAX,
                dropped: u64::MAX / 1000,
                last_audio_age_s: Some(1e9),
                last_error: Some(format!("\u{1b}[2J{}", "ö".repeat(500))),
                pictures: false,
                motion: None,
            }],
            inference: InferenceStatus {
                workers: 64,
                model: ModelStatus {
                    id: "m".repeat(500),
                    file: Some(format!("/\u{1b}[2J{}", "f".repeat(500))),
                    next: Some("n".repeat(500)),
                    refused: Some("why ".repeat(500)),
                },
                auto: Some(AutoStatus {
                    min: 1,
                    max: 64,
                    last_change: Some(SizeChange {
                        at: "2026".into(),
                        from: 1,
                        to: 2,
                        why: "busy ".repeat(100),
                    }),
                }),
                queued: u64::MAX,
                in_flight: u64::MAX,
                scored: u64::MAX,
                quarantined: u64::MAX,
                latency_ms: Latency { p50: 1e6, p99: 1e9 },
            },
            alerts: AlertStatus { pending: u64::MAX, delivered: 1, failing_since: Some("2026".into()) },
        }
    }

    #[test]
    fn no_line_is_longer_than_a_hundred_columns_and_none_moves_the_cursor() {
        for text in [status(&nasty()), cameras(&nasty()), workers(&nasty())] {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
            }
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }

    #[test]
    fn columns_line_up_and_errors_stand_below_their_camera() {
        let mut s = nasty();
        s.cameras[0].name = "bedroom".into();
        s.cameras[0].windows = 88;
        s.cameras[0].last_error = Some("wrong password".into());
        let text = cameras(&s);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("WINDOWS").map(|i| i + 7), lines[1].find(" 88 ").map(|i| i + 3), "{text}");
        assert_eq!(lines[2], "    wrong password");
    }

    #[test]
    fn the_end_of_a_long_error_is_shown_too() {
        let mut s = nasty();
        s.cameras[0].last_error = Some(format!("192.0.2.7:554: {}: do this", "refused again ".repeat(12)));
        let text = cameras(&s);
        assert!(
            text.split_whitespace().collect::<Vec<_>>().ends_with(&["do", "this"])
                && text.lines().count() <= 2 + NOTE_LINES,
            "{text}"
        );
        s.cameras[0].last_error = Some("word ".repeat(1000));
        assert_eq!(cameras(&s).lines().count(), 2 + NOTE_LINES);
        s.cameras[0].last_error = Some(String::new());
        assert_eq!(cameras(&s).lines().count(), 2);
    }
}
