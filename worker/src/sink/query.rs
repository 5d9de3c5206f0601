//! `nursery events`: prints what the store holds, beside a running service or without one.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_shared::{clip::Format, history::Verdict, line::one_line, timestamp};
use rusqlite::{Connection, params};
use serde_json::json;

use super::{clips, place, schema, store::Store};

/// Rows that are read at once.
const PIECE: i64 = 500;

/// Arguments of `events`.
#[derive(clap::Args)]
pub struct Args {
    /// State directory of the service
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// One event per line, with the fields that receivers get
    #[arg(long)]
    json: bool,
    /// Only events of this camera
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// Only events since a time (2026-01-31T02:03:04Z) or an age (10m, 2h)
    #[arg(long, value_name = "T", value_parser = timestamp::parse_since)]
    since: Option<i64>,
}

/// Prints the events, oldest first.
pub fn run(args: Args) -> ExitCode {
    match print(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("nursery: {message}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &Args) -> Result<(), String> {
    let directory = place::visit(&args.state_dir)?;
    let db = Store::open_to_read(Path::new(place::HERE), &directory)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&db, args, &directory, &mut out) {
        Ok(()) => out.flush().or_else(ignore_closed),
        Err(Stop::Output(e)) => ignore_closed(e),
        Err(Stop::Store(e)) => Err(format!("{}: {e}", directory.display())),
    }
}

/// Why there is no more output.
enum Stop {
    Output(io::Error),
    Store(rusqlite::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(e: rusqlite::Error) -> Self {
        Self::Store(e)
    }
}

/// An alert: its number and body, what somebody said of it, and its clip.
type Found = (i64, String, Option<String>, Option<String>);

/// Reads in pieces: while somebody reads, the journal of the store can only grow, and nobody knows how long the output takes.
fn write(db: &Connection, args: &Args, directory: &Path, out: &mut impl Write) -> Result<(), Stop> {
    let version = schema::version(db)?;
    // A store that no newer service has opened yet has none.
    let feedback = match version >= schema::CURVES {
        true => "(SELECT verdict FROM feedback f WHERE f.event_id = a.event_id)",
        false => "NULL",
    };
    let clip = if version >= schema::CLIPS { CLIP } else { "NULL" };
    let sql = format!(
        "SELECT id, body, {feedback}, {clip} FROM alerts a
         WHERE id > ?1 AND time_us >= ?2 AND (?3 IS NULL OR instr(', ' || camera || ',', ', ' || ?3 || ',') > 0)
         ORDER BY id LIMIT ?4"
    );
    let mut query = db.prepare(&sql)?;
    let mut last = i64::MIN;
    loop {
        let since = args.since.unwrap_or(i64::MIN);
        let piece: Vec<Found> = query
            .query_map(params![last, since, args.camera, PIECE], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
            })?
            .collect::<Result<_, _>>()?;
        let first = last == i64::MIN;
        if first && !args.json {
            match piece.is_empty() {
                true => writeln!(out, "no events")?,
                false => {
                    let head = ["TIME", "TYPE", "CAMERA", "SCORE", "LASTED"];
                    write_row(out, head.map(str::to_owned), None)?;
                }
            }
        }
        let Some((newest, ..)) = piece.last() else { return Ok(()) };
        last = *newest;
        for (_, body, verdict, clip) in piece {
            let verdict = verdict.as_deref().and_then(Verdict::parse);
            if args.json {
                writeln!(out, "{}", one_line(&with_clip(with_verdict(body, verdict), clip, directory)))?;
            } else {
                write_row(out, row(&body), verdict)?;
            }
        }
    }
}

/// A reader that went away has seen enough.
fn ignore_closed(e: io::Error) -> Result<(), String> {
    if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(format!("standard output: {e}")) }
}

fn row(body: &str) -> [String; 5] {
    let event: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let data = &event["data"];
    // The sink wrote it, which somebody may have taken over.
    let text = |v: &serde_json::Value| one_line(v.as_str().unwrap_or("-")).into_owned();
    let number = |v: &serde_json::Value, unit: &str| {
        v.as_f64().map_or_else(|| "-".to_owned(), |n| format!("{n:.2}{unit}"))
    };
    let score = if data["peak_score"].is_null() { &data["score"] } else { &data["peak_score"] };
    [
        text(&event["timestamp"]),
        text(&event["type"]),
        text(&data["camera"]),
        number(score, ""),
        number(&data["duration_s"], " s"),
    ]
}

/// Number, format, bytes and microseconds of an event's clip, as a JSON list.
const CLIP: &str = "(SELECT json_array(alert_id, format, bytes, until_us - from_us) FROM clips c
                     WHERE c.event_id = a.event_id)";

/// The body, and where the clip of the event is.
fn with_clip(body: String, clip: Option<String>, directory: &Path) -> String {
    let parts = clip.and_then(|c| serde_json::from_str::<(i64, String, u64, i64)>(&c).ok());
    let Some((number, format, bytes, us)) = parts else { return body };
    let Some(format) = Format::of_extension(&format) else { return body };
    let file = directory.join(clips::DIR).join(clips::name(number, format));
    match serde_json::from_str::<serde_json::Value>(&body) {
        Ok(mut event) if event.is_object() => {
            let duration_s = (us as f64 / 1e3).round() / 1e3;
            event["clip"] = json!({"file": file, "duration_s": duration_s, "bytes": bytes});
            event.to_string()
        }
        _ => body,
    }
}

/// The body, and what somebody said of the event.
fn with_verdict(body: String, verdict: Option<Verdict>) -> String {
    match (verdict, body.strip_suffix('}')) {
        (Some(verdict), Some(open)) => format!("{open},\"feedback\":\"{}\"}}", verdict.as_str()),
        _ => body,
    }
}

fn write_row(out: &mut impl Write, cells: [String; 5], verdict: Option<Verdict>) -> io::Result<()> {
    let [time, kind, camera, score, lasted] = cells;
    let camera: String = camera.chars().take(38).collect();
    let said = match verdict {
        Some(Verdict::Cry) => "  (said to be a cry)",
        Some(Verdict::NotCry) => "  (said to be no cry)",
        None => "",
    };
    writeln!(out, "{time:<24}  {kind:<14}  {camera:<38}  {score:>5}  {lasted:>9}{said}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::sink::{
        camera::alert,
        store::{Batch, FILE},
    };

    /// Whoever reads the output waits while the service stores, writes back its journal and cannot: he is in its way.
    struct Slow {
        lines: usize,
        journal: Connection,
        waited: u32,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lines += bytes.iter().filter(|b| **b == b'\n').count();
            let pragma = "PRAGMA wal_checkpoint(TRUNCATE)";
            let held: i64 = self.journal.query_row(pragma, [], |r| r.get(0)).unwrap();
            assert_eq!(held, 0, "after {} lines", self.lines);
            self.waited += 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_takes_his_time_over_the_output_keeps_nobody_from_the_store() {
        let dir = std::env::temp_dir().join(format!("nursery-query-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let count = 2 * PIECE as usize + 7;
        let mut store = Store::open(&dir).unwrap();
        let event = |n: usize| {
            let data = json!({"event_id": format!("e{n}"), "camera": "crib"});
            alert("cry.started", &format!("e{n}"), "crib", timestamp::now_us(), data)
        };
        store.commit(&Batch { alerts: (0..count).map(event).collect(), ..Batch::default() }, &[]).unwrap();
        let db = Store::open_to_read(&dir, &dir).unwrap();
        let journal = Connection::open(dir.join(FILE)).unwrap();
        let args = Args { state_dir: dir.clone(), json: true, camera: Some("crib".into()), since: None };
        let mut out = io::BufWriter::with_capacity(16 << 10, Slow { lines: 0, journal, waited: 0 });
        assert!(write(&db, &args, &dir, &mut out).is_ok());
        out.flush().unwrap();
        let slow = out.get_ref();
        assert!(slow.lines == count && slow.waited > 3, "{} lines, {} times", slow.lines, slow.waited);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
