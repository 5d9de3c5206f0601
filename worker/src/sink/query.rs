//! `nursery events`: prints what the store holds, beside a running service or without one.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_shared::{clip::Format, history::Verdict, line::one_line, timestamp};
use rusqlite::params;
use serde_json::json;

use super::{clips, place, schema, store::Store};

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
    let failed = |e: rusqlite::Error| format!("{}: {e}", directory.display());
    // A store that no newer service has opened yet has none.
    let feedback = schema::version(&db).map_err(failed)? >= schema::CURVES;
    let feedback =
        if feedback { "(SELECT verdict FROM feedback f WHERE f.event_id = a.event_id)" } else { "NULL" };
    let clip = if schema::version(&db).map_err(failed)? >= schema::CLIPS { CLIP } else { "NULL" };
    let mut query = db
        .prepare(&format!("SELECT body, {feedback}, {clip} FROM alerts a WHERE time_us >= ?1 AND (?2 IS NULL OR instr(', ' || camera || ',', ', ' || ?2 || ',') > 0) ORDER BY id"))
        .map_err(failed)?;
    let bodies = query
        .query_map(params![args.since.unwrap_or(i64::MIN), args.camera], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, Option<String>>(1)?, r.get::<_, Option<String>>(2)?))
        })
        .map_err(failed)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut any = false;
    for body in bodies {
        let (body, verdict, clip) = body.map_err(failed)?;
        let verdict = verdict.as_deref().and_then(Verdict::parse);
        if !any && !args.json {
            let head = ["TIME", "TYPE", "CAMERA", "SCORE", "LASTED"];
            write_row(&mut out, head.map(str::to_owned), None).or_else(ignore_closed)?;
        }
        any = true;
        let line = if args.json {
            writeln!(out, "{}", one_line(&with_clip(with_verdict(body, verdict), clip, &directory)))
        } else {
            write_row(&mut out, row(&body), verdict)
        };
        if let Err(e) = line {
            return ignore_closed(e);
        }
    }
    if !any && !args.json {
        writeln!(out, "no events").or_else(ignore_closed)?;
    }
    out.flush().or_else(ignore_closed)
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
