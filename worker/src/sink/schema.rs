//! The shape of the store and how an older one is brought to it: all steps that are missing, in one transaction.

use rusqlite::{Connection, Transaction};

use super::outages;

/// One version of the schema, from the one before it. Never changed, only followed by another one.
struct Step {
    sql: &'static str,
    /// Fills what is new with what is there.
    fill: fn(&Transaction) -> rusqlite::Result<()>,
}

const STEPS: &[Step] = &[
    Step { sql: include_str!("schema/1_alerts.sql"), fill: nothing },
    Step { sql: include_str!("schema/2_curves.sql"), fill: outages::fill },
    Step { sql: include_str!("schema/3_clips.sql"), fill: nothing },
    Step { sql: include_str!("schema/4_pictures.sql"), fill: nothing },
];

/// The version that has curves, outages and feedback.
pub const CURVES: usize = 2;
/// The version that has clips.
pub const CLIPS: usize = 3;

fn nothing(_: &Transaction) -> rusqlite::Result<()> {
    Ok(())
}

/// The version of a store.
///
/// # Errors
/// Those of the database.
pub fn version(db: &Connection) -> rusqlite::Result<usize> {
    let version = db.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))?;
    Ok(usize::try_from(version).unwrap_or(0))
}

/// Why a store of this version cannot be used, if so.
pub fn too_new(version: usize) -> Option<String> {
    (version > STEPS.len()).then(|| {
        format!(
            "schema version {version} is newer than this program, which knows {}: install that release again, or give \
             another --state-dir",
            STEPS.len()
        )
    })
}

/// Brings a store to the newest version, all or nothing.
///
/// # Errors
/// Those of the database, and a store that is too new.
pub fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    migrate_by(db, STEPS)
}

fn migrate_by(db: &mut Connection, steps: &[Step]) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    let version = version(&tx)?;
    if let Some(why) = too_new(version) {
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
        return Err(rusqlite::Error::SqliteFailure(error, Some(why)));
    }
    if version == steps.len() {
        return Ok(());
    }
    for step in &steps[version..] {
        tx.execute_batch(step.sql)?;
        (step.fill)(&tx)?;
    }
    tx.pragma_update(None, "user_version", steps.len() as i64)?;
    tx.commit()?;
    if version > 0 {
        tracing::info!("store: brought from schema version {version} to {}", steps.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// A store as the first release left it: an outage that is over, one that goes on, a cry.
    fn first_release() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &STEPS[..1]).unwrap();
        let alert = |n: i64, kind: &str, camera: &str, event: &str, data: &str| {
            let body = format!(r#"{{"type":"{kind}","timestamp":"2026-01-31T02:03:04.500Z","data":{data}}}"#);
            db.execute(
                "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                rusqlite::params![format!("m{n}"), event, kind, camera, n * 1_000_000, body],
            )
            .unwrap();
        };
        let lost = |id: &str, camera: &str| {
            format!(
                r#"{{"event_id":"{id}","camera":"{camera}","since":"1970-01-01T00:00:01.000Z","reason":"no audio"}}"#
            )
        };
        let both = format!(
            r#"{{"event_id":"g","camera":"a, b","since":"1970-01-01T00:00:01.000Z","reason":"no audio","cameras":[{},{}]}}"#,
            lost("oa", "a"),
            lost("ob", "b")
        );
        alert(31, "camera.offline", "a, b", "g", &both);
        alert(
            40,
            "camera.online",
            "a",
            "oa",
            r#"{"event_id":"oa","camera":"a","since":"1970-01-01T00:00:01.000Z"}"#,
        );
        alert(41, "cry.started", "a", "c", r#"{"event_id":"c","camera":"a"}"#);
        db
    }

    fn tables(db: &Connection) -> Vec<String> {
        let mut query = db.prepare("SELECT name FROM sqlite_master ORDER BY name").unwrap();
        query.query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_store_of_the_first_release_is_brought_up_to_date_and_its_outages_are_found() {
        let mut db = first_release();
        migrate(&mut db).unwrap();
        assert_eq!(version(&db).unwrap(), STEPS.len());
        let mut query = db
            .prepare("SELECT event_id, camera, since_us, until_us, reason FROM outages ORDER BY event_id")
            .unwrap();
        let rows: Vec<(String, String, i64, Option<i64>, String)> = query
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let row = |id: &str, camera: &str, until| {
            (id.to_owned(), camera.to_owned(), 1_000_000, until, "no audio".to_owned())
        };
        assert_eq!(rows, [row("oa", "a", Some(40_000_000)), row("ob", "b", None)]);
        let alerts: i64 = db.query_row("SELECT count(*) FROM alerts", [], |r| r.get(0)).unwrap();
        assert_eq!(alerts, 3);
        drop(query);
        migrate(&mut db).unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_store_as_it_was() {
        let mut db = first_release();
        let before = tables(&db);
        let fails = Step { sql: "CREATE TABLE last (x); INSERT INTO nowhere VALUES (1);", fill: nothing };
        let steps = [
            Step { sql: STEPS[0].sql, fill: STEPS[0].fill },
            Step { sql: STEPS[1].sql, fill: STEPS[1].fill },
            fails,
        ];
        migrate_by(&mut db, &steps).unwrap_err();
        assert_eq!((tables(&db), version(&db).unwrap()), (before, 1));
        migrate(&mut db).unwrap();
    }
}
