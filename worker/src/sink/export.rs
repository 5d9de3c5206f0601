//! `nursery export`: writes what the store holds as a table, for other programs, beside a running service or without one.
//! It is read in pieces, so that whoever takes his time over the output keeps nobody from the store.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_shared::{
    curve::{self, NOTHING},
    line::one_line,
    timestamp::{self, rfc3339},
};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::{place, schema, store::Store};

/// Rows that are read at once.
const PIECE: i64 = 500;
const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Alerts, as receivers get them
    Events,
    /// Scores and levels, a row per second (per minute after a day) and camera
    Scores,
    /// Times in which cameras were not heard
    Outages,
    /// What people said of events, as labels for training
    Feedback,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// Arguments of `export`.
#[derive(clap::Args)]
pub struct Args {
    /// State directory of the service
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// From a time (2026-01-31T02:03:04Z) or an age (10m, 2h) on
    #[arg(long, value_name = "T", value_parser = timestamp::parse_since)]
    since: i64,
    /// Until a time or an age
    #[arg(long, value_name = "T", value_parser = timestamp::parse_since)]
    until: Option<i64>,
    /// Only of this camera
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    #[arg(long, value_enum, default_value = "events")]
    what: What,
}

/// Why there is no more output.
enum Stop {
    /// Whoever read it has seen enough.
    Enough,
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::Enough,
            _ => Self::Failed(format!("standard output: {e}")),
        }
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(e: rusqlite::Error) -> Self {
        Self::Failed(format!("store: {e}"))
    }
}

/// Writes the table, oldest first.
pub fn run(args: Args) -> ExitCode {
    if args.until.is_some_and(|until| until <= args.since) {
        eprintln!("nursery: --until: expected a time after --since");
        return ExitCode::from(2);
    }
    match export(&args) {
        Ok(()) | Err(Stop::Enough) => ExitCode::SUCCESS,
        Err(Stop::Failed(message)) => {
            eprintln!("nursery: {message}");
            ExitCode::FAILURE
        }
    }
}

fn export(args: &Args) -> Result<(), Stop> {
    let directory = place::visit(&args.state_dir).map_err(Stop::Failed)?;
    let db = Store::open_to_read(Path::new(place::HERE), &directory).map_err(Stop::Failed)?;
    let version = schema::version(&db)?;
    let unfit = match version {
        older if older < schema::CURVES => Some(format!(
            "schema version {version} is older than this program's: the service brings it up to date when it starts"
        )),
        _ => schema::too_new(version),
    };
    if let Some(why) = unfit {
        return Err(Stop::Failed(format!("{}: {why}", directory.display())));
    }
    let range =
        Range { since: args.since, until: args.until.unwrap_or(i64::MAX), camera: args.camera.as_deref() };
    let out = io::BufWriter::new(io::stdout().lock());
    let mut table = Table { out, format: args.format, columns: &[] };
    match args.what {
        What::Events => events(&db, &range, &mut table),
        What::Scores => scores(&db, &range, &mut table),
        What::Outages => outages(&db, &range, &mut table),
        What::Feedback => feedback(&db, &range, &mut table),
    }?;
    Ok(table.out.flush()?)
}

/// What is asked for: from `since` on and before `until`, microseconds since 1970.
struct Range<'a> {
    since: i64,
    until: i64,
    camera: Option<&'a str>,
}

/// Rows on their way out.
struct Table<W> {
    out: W,
    format: Format,
    columns: &'static [&'static str],
}

impl<W: Write> Table<W> {
    fn begin(&mut self, columns: &'static [&'static str]) -> io::Result<()> {
        self.columns = columns;
        if self.format == Format::Csv {
            writeln!(self.out, "{}", columns.join(","))?;
        }
        Ok(())
    }

    /// One value per column.
    fn row(&mut self, values: &[Value]) -> io::Result<()> {
        let cells = self.columns.iter().zip(values);
        let cells: Vec<String> = match self.format {
            Format::Csv => cells.map(|(_, value)| field(value)).collect(),
            Format::Jsonl => cells.map(|(name, value)| format!("\"{name}\":{value}")).collect(),
        };
        match self.format {
            Format::Csv => writeln!(self.out, "{}", cells.join(",")),
            Format::Jsonl => writeln!(self.out, "{{{}}}", cells.join(",")),
        }
    }
}

/// A value between commas.
fn field(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        // The sink wrote it, which somebody may have taken over.
        Value::String(text) => one_line(text).into_owned(),
        other => other.to_string(),
    };
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn events(db: &Connection, range: &Range, table: &mut Table<impl Write>) -> Result<(), Stop> {
    const DATA: [&str; 12] = [
        "camera",
        "event_id",
        "onset",
        "offset",
        "duration_s",
        "score",
        "peak_score",
        "sustained_s",
        "since",
        "reason",
        "motion",
        "peak_motion",
    ];
    table.begin(&[
        "time",
        "type",
        "camera",
        "event_id",
        "onset",
        "offset",
        "duration_s",
        "score",
        "peak_score",
        "sustained_s",
        "since",
        "reason",
        "motion",
        "peak_motion",
        "feedback",
    ])?;
    let mut last = i64::MIN;
    loop {
        let mut query = db.prepare_cached(
            "SELECT a.id, a.body, f.verdict FROM alerts a LEFT JOIN feedback f ON f.event_id = a.event_id
             WHERE a.id > ?1 AND a.time_us >= ?2 AND a.time_us < ?3
               AND (?4 IS NULL OR instr(', ' || a.camera || ',', ', ' || ?4 || ',') > 0)
             ORDER BY a.id LIMIT ?5",
        )?;
        let piece: Vec<(i64, String, Option<String>)> = query
            .query_map(params![last, range.since, range.until, range.camera, PIECE], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let Some((newest, ..)) = piece.last() else { return Ok(()) };
        last = *newest;
        for (_, body, verdict) in &piece {
            let event: Value = serde_json::from_str(body).unwrap_or_default();
            let mut row = vec![event["timestamp"].clone(), event["type"].clone()];
            row.extend(DATA.iter().map(|key| event["data"][key].clone()));
            row.push(json!(verdict));
            table.row(&row)?;
        }
    }
}

/// One minute or hour after the other, stored under `key` in `table_name`: camera and bytes of each.
fn each_row(
    db: &Connection,
    (name, key, unit_us): (&str, &str, i64),
    range: &Range,
    mut take: impl FnMut(i64, &str, &[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut next = range.since.div_euclid(unit_us);
    loop {
        let sql = format!("SELECT min({key}) FROM {name} WHERE {key} >= ?1 AND {key} <= ?2");
        let until = (range.until - 1).div_euclid(unit_us);
        let at: Option<i64> = db.prepare_cached(&sql)?.query_row([next, until], |r| r.get(0))?;
        let Some(at) = at else { return Ok(()) };
        let sql = format!(
            "SELECT c.name, d.data FROM {name} d JOIN curve_cameras c ON c.id = d.camera
             WHERE d.{key} = ?1 AND (?2 IS NULL OR c.name = ?2) ORDER BY c.name"
        );
        let rows: Vec<(String, Vec<u8>)> = db
            .prepare_cached(&sql)?
            .query_map(params![at, range.camera], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (camera, data) in &rows {
            take(at.saturating_mul(unit_us), camera, data)?;
        }
        next = at.saturating_add(1);
    }
}

fn scores(db: &Connection, range: &Range, table: &mut Table<impl Write>) -> Result<(), Stop> {
    table.begin(&["time", "camera", "step_s", "score", "level_dbfs", "peak_dbfs"])?;
    let mut put = |at: i64, camera: &str, step_s: i64, [score, level, peak]: [u8; 3]| -> Result<(), Stop> {
        if (range.since..range.until).contains(&at) && [score, level, peak] != [NOTHING; 3] {
            table.row(&[
                json!(rfc3339(at)),
                json!(camera),
                json!(step_s),
                json!(curve::score(score)),
                json!(curve::level(level)),
                json!(curve::level(peak)),
            ])?;
        }
        Ok(())
    };
    each_row(db, ("minutes", "hour", HOUR_US), range, |begin, camera, data| {
        let [scores, levels, peaks] = thirds(data);
        let values = scores.iter().zip(levels).zip(peaks);
        (0..).zip(values).try_for_each(|(n, ((score, level), peak))| {
            put(begin + n * MINUTE_US, camera, 60, [*score, *level, *peak])
        })
    })?;
    each_row(db, ("seconds", "minute", MINUTE_US), range, |begin, camera, data| {
        let (scores, levels) = data.split_at(data.len() / 2);
        (0..).zip(scores.iter().zip(levels)).try_for_each(|(n, (score, level))| {
            put(begin + n * SECOND_US, camera, 1, [*score, *level, *level])
        })
    })
}

fn thirds(data: &[u8]) -> [&[u8]; 3] {
    let (first, rest) = data.split_at(data.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    [first, second, third]
}

fn outages(db: &Connection, range: &Range, table: &mut Table<impl Write>) -> Result<(), Stop> {
    table.begin(&["since", "until", "camera", "reason", "event_id"])?;
    let mut last = (i64::MIN, String::new());
    loop {
        let mut query = db.prepare_cached(
            "SELECT since_us, until_us, camera, reason, event_id FROM outages
             WHERE (since_us, event_id) > (?1, ?2) AND since_us < ?4 AND (until_us IS NULL OR until_us > ?3)
               AND (?5 IS NULL OR camera = ?5)
             ORDER BY since_us, event_id LIMIT ?6",
        )?;
        type Row = (i64, Option<i64>, String, String, String);
        let piece: Vec<Row> = query
            .query_map(params![last.0, last.1, range.since, range.until, range.camera, PIECE], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })?
            .collect::<Result<_, _>>()?;
        let Some((since, .., event_id)) = piece.last() else { return Ok(()) };
        last = (*since, event_id.clone());
        for (since, until, camera, reason, event_id) in &piece {
            let until = until.map(rfc3339);
            table.row(&[
                json!(rfc3339(*since)),
                json!(until),
                json!(camera),
                json!(reason),
                json!(event_id),
            ])?;
        }
    }
}

fn feedback(db: &Connection, range: &Range, table: &mut Table<impl Write>) -> Result<(), Stop> {
    table.begin(&["camera", "onset", "offset", "verdict", "event_id", "at", "by"])?;
    let mut last = String::new();
    loop {
        // Of each event the newest alert, which knows its end where it has one.
        let mut query = db.prepare_cached(
            "SELECT f.event_id, f.verdict, f.at_us, f.by,
                    (SELECT body FROM alerts a WHERE a.event_id = f.event_id ORDER BY id DESC LIMIT 1)
             FROM feedback f WHERE f.event_id > ?1 ORDER BY f.event_id LIMIT ?2",
        )?;
        type Row = (String, String, i64, String, Option<String>);
        let piece: Vec<Row> = query
            .query_map(params![last, PIECE], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?
            .collect::<Result<_, _>>()?;
        let Some((newest, ..)) = piece.last() else { return Ok(()) };
        last = newest.clone();
        for (event_id, verdict, at, by, body) in &piece {
            let event: Value = serde_json::from_str(body.as_deref().unwrap_or_default()).unwrap_or_default();
            let data = &event["data"];
            let onset = data["onset"].as_str().and_then(timestamp::parse);
            let inside = onset.is_some_and(|onset| (range.since..range.until).contains(&onset));
            if inside && range.camera.is_none_or(|camera| data["camera"] == camera) {
                table.row(&[
                    data["camera"].clone(),
                    data["onset"].clone(),
                    data["offset"].clone(),
                    json!(verdict),
                    json!(event_id),
                    json!(rfc3339(*at)),
                    json!(by),
                ])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::sink::{curves::Curves, series};

    const START: i64 = 1_769_824_800_000_000;

    fn database() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db
    }

    fn written(format: Format, write: impl Fn(&mut Table<&mut Vec<u8>>) -> Result<(), Stop>) -> Vec<String> {
        let mut out = Vec::new();
        let mut table = Table { out: &mut out, format, columns: &[] };
        assert!(write(&mut table).is_ok());
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    fn range(camera: Option<&str>) -> Range<'_> {
        Range { since: START, until: START + 3 * SECOND_US, camera }
    }

    #[test]
    fn scores_come_by_time_and_camera_and_only_those_that_are_asked_for() {
        let mut db = database();
        let mut curves = Curves::default();
        for second in -2..5 {
            curves.note("b", START + second * SECOND_US, 50_000, &[0.5; 20], -40.0);
            curves.note("a", START + second * SECOND_US, 50_000, &[0.1; 20], -60.5);
        }
        let tx = db.transaction().unwrap();
        series::store(&tx, &curves).unwrap();
        tx.commit().unwrap();
        let all = written(Format::Csv, |t| scores(&db, &range(None), t));
        assert_eq!(all.len(), 7);
        assert_eq!(all[1], "2026-01-31T02:00:00.000Z,a,1,0.1,-60.5,-60.5");
        let one = written(Format::Jsonl, |t| scores(&db, &range(Some("b")), t));
        assert_eq!(one.len(), 3);
        let first: Value = serde_json::from_str(&one[0]).unwrap();
        assert_eq!(
            (&first["camera"], &first["score"], &first["step_s"]),
            (&json!("b"), &json!(0.5), &json!(1))
        );
    }

    #[test]
    fn of_motion_it_is_told_how_much_it_was() {
        let db = database();
        let body = r#"{"type":"motion.ended","timestamp":"t","data":{"event_id":"m","camera":"a","motion":0.2,"peak_motion":0.41}}"#;
        db.execute(
            "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES ('m', 'm', 'motion.ended', 'a', ?1, ?2)",
            params![START, body],
        )
        .unwrap();
        let lines = written(Format::Csv, |t| events(&db, &range(None), t));
        let column = |name: &str| lines[0].split(',').position(|column| column == name).unwrap();
        let cells: Vec<&str> = lines[1].split(',').collect();
        assert_eq!((cells[column("motion")], cells[column("peak_motion")]), ("0.2", "0.41"));
    }

    #[test]
    fn more_rows_than_are_read_at_once_come_once_each_and_in_order() {
        let db = database();
        let count = 2 * PIECE + 7;
        for n in 0..count {
            let body = format!(
                r#"{{"type":"cry.ended","timestamp":"t","data":{{"event_id":"e{n:05}","camera":"a","onset":"{}","offset":"x"}}}}"#,
                rfc3339(START)
            );
            db.execute(
                "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES (?1, ?2, 'cry.ended', 'a', ?3, ?4)",
                params![format!("m{n}"), format!("e{n:05}"), START + n, body],
            )
            .unwrap();
            let outage = params![format!("o{n:05}"), START + n / 3];
            db.execute("INSERT INTO outages VALUES (?1, 'a', ?2, NULL, 'said \"no\", twice')", outage)
                .unwrap();
            db.execute("INSERT INTO feedback VALUES (?1, 'not_cry', 5, 'page')", [format!("e{n:05}")])
                .unwrap();
        }
        let lines = count as usize + 1;
        let told = written(Format::Csv, |t| events(&db, &range(None), t));
        assert!(
            told.len() == lines && told[1].contains("e00000") && told[1].ends_with(",not_cry"),
            "{}",
            told[1]
        );
        assert!(told[lines - 1].contains(&format!("e{:05}", count - 1)));
        let lost = written(Format::Csv, |t| outages(&db, &range(Some("a")), t));
        assert!(lost.len() == lines && lost[1].contains(r#","said ""no"", twice",o00000"#), "{}", lost[1]);
        let labels = written(Format::Csv, |t| feedback(&db, &range(Some("a")), t));
        assert_eq!(labels.len(), lines);
        assert_eq!(labels[1], "a,2026-01-31T02:00:00.000Z,x,not_cry,e00000,1970-01-01T00:00:00.000Z,page");
        assert_eq!(written(Format::Csv, |t| feedback(&db, &range(Some("b")), t)).len(), 1);
    }
}
