//! The times in which cameras were not heard, as alerts tell of them.

use nursery_shared::{history::Outage, timestamp};
use rusqlite::{Connection, Transaction, params};
use serde::Deserialize;

/// What an alert says of one outage.
#[derive(Deserialize)]
struct Told {
    event_id: String,
    camera: String,
    since: String,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    data: Data,
}

/// Of one camera, or of several that were lost at once.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Several { cameras: Vec<Told> },
    One(Told),
}

/// Notes what an alert of type `kind` says of outages; all others say nothing of any.
///
/// # Errors
/// Those of the database.
pub fn note(db: &Connection, kind: &str, time_us: i64, body: &str) -> rusqlite::Result<()> {
    let until_us = match kind {
        "camera.offline" => None,
        "camera.online" => Some(time_us),
        _ => return Ok(()),
    };
    // The sink itself wrote it.
    let Ok(Body { data }) = serde_json::from_str(body) else { return Ok(()) };
    let told = match data {
        Data::Several { cameras } => cameras,
        Data::One(one) => vec![one],
    };
    for one in told {
        let since_us = timestamp::parse(&one.since).unwrap_or(time_us);
        db.prepare_cached(
            "INSERT INTO outages (event_id, camera, since_us, until_us, reason) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (event_id) DO UPDATE SET until_us = coalesce(excluded.until_us, until_us)",
        )?
        .execute(params![
            one.event_id,
            one.camera,
            since_us,
            until_us,
            one.reason.unwrap_or_default()
        ])?;
    }
    Ok(())
}

/// Finds the outages of a store that had no table for them.
///
/// # Errors
/// Those of the database.
pub fn fill(tx: &Transaction) -> rusqlite::Result<()> {
    let mut query =
        tx.prepare("SELECT type, time_us, body FROM alerts WHERE type LIKE 'camera.%' ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        note(tx, row.get_ref(0)?.as_str()?, row.get(1)?, row.get_ref(2)?.as_str()?)?;
    }
    Ok(())
}

/// Outages of a camera that touch a time, oldest first, the newest `limit` of them.
///
/// # Errors
/// Those of the database.
pub fn between(
    db: &Connection,
    camera: &str,
    from_us: i64,
    until_us: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Outage>> {
    let mut query = db.prepare_cached(
        "SELECT event_id, camera, since_us, until_us, reason FROM outages
         WHERE camera = ?1 AND since_us < ?3 AND (until_us IS NULL OR until_us > ?2)
         ORDER BY since_us DESC LIMIT ?4",
    )?;
    let rows = query.query_map(params![camera, from_us, until_us, limit as i64], |r| {
        Ok(Outage {
            event_id: r.get(0)?,
            camera: r.get(1)?,
            since_us: r.get(2)?,
            until_us: r.get(3)?,
            reason: r.get(4)?,
        })
    })?;
    let mut found: Vec<Outage> = rows.collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}
