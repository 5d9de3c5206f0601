//! Which clips there are, in the store: a row for each file that is complete. Rows and files may differ where a process died
//! between one and the other; whoever looks at both at the start puts that right.

use std::path::Path;

use nursery_shared::clip::{About, Format};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::sink::{
    store::{FILE, JOURNAL, writable},
    vfs,
};

/// An event that began longer ago is over, whatever is known of its end, unless its camera's state says that it goes on.
const LONGEST_EVENT_US: i64 = 86_400_000_000;

/// A clip and its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub number: i64,
    pub event_id: String,
    pub about: About,
}

/// An announced cry, or motion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub event_id: String,
    pub camera: String,
    /// The body that receivers get.
    pub body: String,
    pub ended: bool,
}

/// A connection of its own to the sink's store. Both are used by one thread, one after the other.
pub struct Table(Connection);

const COLUMNS: &str = "alert_id, event_id, camera, format, from_us, until_us, bytes, note";
/// Clips of events that have ended, or must have.
const OVER: &str = "(EXISTS (SELECT 1 FROM alerts a
             WHERE a.event_id = clips.event_id AND a.type IN ('cry.ended', 'motion.ended'))
     OR from_us < ?1 AND clips.event_id NOT IN
         (SELECT json_extract(k.known, p.path)
          FROM (SELECT CASE WHEN json_valid(state) THEN state END AS known FROM cameras WHERE name = clips.camera) k,
               (SELECT '$.open.event_id' AS path UNION ALL SELECT '$.motion.open.event_id') p
          WHERE json_extract(k.known, p.path) IS NOT NULL))";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let format: String = row.get(3)?;
    let about = About {
        format: Format::of_extension(&format).unwrap_or(Format::Wav),
        camera: row.get(2)?,
        from_us: row.get(4)?,
        until_us: row.get(5)?,
        bytes: row.get::<_, i64>(6)?.unsigned_abs(),
        note: row.get(7)?,
    };
    Ok(Entry { number: row.get(0)?, event_id: row.get(1)?, about })
}

impl Table {
    /// Of the store in this directory, which is there.
    ///
    /// # Errors
    /// Those of the database.
    pub fn open(directory: &Path) -> rusqlite::Result<Self> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let db = Connection::open_with_flags_and_vfs(directory.join(FILE), flags, vfs::name()?)?;
        writable(&db)?;
        db.busy_timeout(std::time::Duration::from_secs(2))?;
        // A row that a power cut takes is found again by its file.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "journal_size_limit", JOURNAL)?;
        Ok(Self(db))
    }

    /// All there are, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn all(&self) -> rusqlite::Result<Vec<Entry>> {
        let mut query = self.0.prepare(&format!("SELECT {COLUMNS} FROM clips ORDER BY from_us, alert_id"))?;
        query.query_map([], entry)?.collect()
    }

    /// The oldest ones of events that are over.
    ///
    /// # Errors
    /// Those of the database.
    pub fn oldest(&self, now_us: i64, limit: usize) -> rusqlite::Result<Vec<Entry>> {
        let sql = format!("SELECT {COLUMNS} FROM clips WHERE {OVER} ORDER BY from_us, alert_id LIMIT ?2");
        let mut query = self.0.prepare_cached(&sql)?;
        query.query_map(params![now_us.saturating_sub(LONGEST_EVENT_US), limit as i64], entry)?.collect()
    }

    /// Bytes of the clips whose events are not over.
    ///
    /// # Errors
    /// Those of the database.
    pub fn bytes_of_open_events(&self, now_us: i64) -> rusqlite::Result<u64> {
        let sql = format!("SELECT coalesce(sum(bytes), 0) FROM clips WHERE NOT {OVER}");
        let bytes: i64 =
            self.0.query_row(&sql, [now_us.saturating_sub(LONGEST_EVENT_US)], |row| row.get(0))?;
        Ok(bytes.unsigned_abs())
    }

    /// That of an event.
    ///
    /// # Errors
    /// Those of the database.
    pub fn of_event(&self, event_id: &str) -> rusqlite::Result<Option<Entry>> {
        let sql = format!("SELECT {COLUMNS} FROM clips WHERE event_id = ?1");
        self.0.prepare_cached(&sql)?.query_row([event_id], entry).optional()
    }

    /// The cry or motion that was announced by the alert of this number.
    ///
    /// # Errors
    /// Those of the database.
    pub fn event(&self, number: i64) -> rusqlite::Result<Option<Event>> {
        let mut query = self.0.prepare_cached(
            "SELECT event_id, camera, body, EXISTS (SELECT 1 FROM alerts e WHERE e.event_id = a.event_id
                                                    AND e.type IN ('cry.ended', 'motion.ended'))
             FROM alerts a WHERE id = ?1 AND type IN ('cry.started', 'motion.started')",
        )?;
        let event = |row: &Row<'_>| {
            Ok(Event { event_id: row.get(0)?, camera: row.get(1)?, body: row.get(2)?, ended: row.get(3)? })
        };
        query.query_row([number], event).optional()
    }

    /// The bodies that announced the cries and motions which go on and have no clip.
    ///
    /// # Errors
    /// Those of the database.
    pub fn open_without_clip(&self) -> rusqlite::Result<Vec<String>> {
        let mut query = self.0.prepare(
            "SELECT a.body FROM (SELECT CASE WHEN json_valid(state) THEN state END AS known FROM cameras) k
             JOIN alerts a ON a.event_id IN (json_extract(k.known, '$.open.event_id'),
                                             json_extract(k.known, '$.motion.open.event_id'))
                          AND a.type IN ('cry.started', 'motion.started')
             WHERE NOT EXISTS (SELECT 1 FROM clips c WHERE c.event_id = a.event_id) ORDER BY a.id",
        )?;
        query.query_map([], |row| row.get(0))?.collect()
    }

    /// The number of the alert that announced an event.
    ///
    /// # Errors
    /// Those of the database.
    pub fn number_of(&self, event_id: &str) -> rusqlite::Result<Option<i64>> {
        let mut query = self.0.prepare_cached(
            "SELECT min(id) FROM alerts WHERE event_id = ?1 AND type IN ('cry.started', 'motion.started')",
        )?;
        query.query_row([event_id], |row| row.get(0))
    }

    /// Notes a clip, in the place of what was known of it before.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put(&self, entry: &Entry) -> rusqlite::Result<()> {
        let sql = format!("INSERT OR REPLACE INTO clips ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        let about = &entry.about;
        self.0.prepare_cached(&sql)?.execute(params![
            entry.number,
            entry.event_id,
            about.camera,
            about.format.extension(),
            about.from_us,
            about.until_us,
            about.bytes as i64,
            about.note
        ])?;
        Ok(())
    }

    /// Forgets one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove(&self, number: i64) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM clips WHERE alert_id = ?1")?.execute([number]).map(drop)
    }
}
