//! A picture beside every event: asked for when the event is stored, one at a time, and kept in the store beside it, for as
//! long as clips are kept and within a bound of bytes. An event for which there is none in time has none.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use nursery_shared::{
    light::{Found, Picture, Wanted},
    message::FromWorker,
    timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;

use super::{store::FILE, vfs};

/// Events that wait for their picture; of more the oldest have none.
const WAITING: usize = 64;
/// How long a picture may be on its way.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a picture is asked for where there is none (yet), and how long after each other.
const ATTEMPTS: u32 = 4;
const AGAIN: Duration = Duration::from_secs(2);
/// Bytes of all pictures together.
const MOST_BYTES: i64 = 64 << 20;

#[derive(Deserialize)]
struct Alert {
    r#type: String,
    data: Begun,
}

#[derive(Deserialize)]
struct Begun {
    event_id: String,
    camera: String,
    onset: Option<String>,
    score: Option<f64>,
}

/// An event without a picture.
#[derive(Debug)]
struct Waiting {
    event_id: String,
    wanted: Wanted,
    attempts: u32,
    due: Instant,
}

/// Pictures of events.
pub struct Album {
    db: Connection,
    waiting: VecDeque<Waiting>,
    /// The question that is under way, and since when.
    asked: Option<(u64, Instant, Waiting)>,
    next_ticket: u64,
    keep_us: i64,
    failure: Option<String>,
}

impl Album {
    /// In the store of this directory, which is there.
    ///
    /// # Errors
    /// One line: it cannot be opened.
    pub fn new(directory: &Path) -> Result<Self, String> {
        let open = || {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
            let db = Connection::open_with_flags_and_vfs(directory.join(FILE), flags, vfs::name()?)?;
            db.busy_timeout(Duration::from_secs(2))?;
            // A power cut may take the newest ones.
            db.pragma_update(None, "synchronous", "NORMAL")?;
            // And whoever waits for the disk sooner or later is not this one.
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            Ok(db)
        };
        let db = open().map_err(|e: rusqlite::Error| format!("store: pictures: {e}"))?;
        Ok(Self {
            db,
            waiting: VecDeque::new(),
            asked: None,
            next_ticket: 0,
            keep_us: i64::MAX,
            failure: None,
        })
    }

    /// Pictures are kept for so many days from now on.
    pub fn keep(&mut self, days: f64) {
        self.keep_us = (days * 86_400e6) as i64;
    }

    /// An alert was stored: where it tells of an event that begins, a picture of it is wanted.
    pub fn on_alert(&mut self, json: &str, now: Instant) {
        let Ok(alert) = serde_json::from_str::<Alert>(json) else { return };
        if !alert.r#type.ends_with(".started") {
            return;
        }
        let near_us = alert.data.onset.and_then(|onset| timestamp::parse_since(&onset).ok());
        let wanted = Wanted { camera: alert.data.camera, near_us, score: alert.data.score };
        self.waiting.push_back(Waiting { event_id: alert.data.event_id, wanted, attempts: 0, due: now });
        if self.waiting.len() > WAITING {
            self.waiting.pop_front();
        }
    }

    /// What is to be asked for now.
    pub fn due(&mut self, now: Instant) -> Option<FromWorker> {
        if let Some((.., late)) = self.asked.take_if(|(_, since, _)| now.duration_since(*since) >= ANSWER) {
            self.put_off(late, now);
        }
        if self.asked.is_some() {
            return None;
        }
        let next = self.waiting.iter().position(|w| w.due <= now)?;
        let waiting = self.waiting.remove(next)?;
        let (ticket, wanted) = (self.next_ticket, waiting.wanted.clone());
        self.next_ticket += 1;
        self.asked = Some((ticket, now, waiting));
        Some(FromWorker::WantPicture { ticket, wanted })
    }

    fn put_off(&mut self, mut waiting: Waiting, now: Instant) {
        waiting.attempts += 1;
        if waiting.attempts < ATTEMPTS && self.waiting.len() < WAITING {
            waiting.due = now + AGAIN;
            self.waiting.push_back(waiting);
        }
    }

    /// The picture that was asked for, or why there is none.
    pub fn on_picture(&mut self, ticket: u64, found: Found, now: Instant) {
        let Some((.., waiting)) = self.asked.take_if(|(asked, ..)| *asked == ticket) else { return };
        match found {
            Ok(picture) => match self.put(&waiting, &picture) {
                Ok(()) => self.failure = None,
                Err(e) => {
                    let what = e.to_string();
                    if self.failure.as_ref() != Some(&what) {
                        tracing::error!("store: pictures cannot be stored: {what}");
                        self.failure = Some(what);
                    }
                }
            },
            Err(why) => {
                tracing::debug!("no picture of camera {}: {why}", waiting.wanted.camera);
                self.put_off(waiting, now);
            }
        }
    }

    fn put(&mut self, waiting: &Waiting, picture: &Picture) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO pictures (event_id, camera, time_us, motion, bytes, jpeg)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                waiting.event_id,
                waiting.wanted.camera,
                picture.time_us,
                picture.motion,
                picture.jpeg.len() as i64,
                &picture.jpeg[..]
            ],
        )?;
        let before = timestamp::now_us().saturating_sub(self.keep_us);
        tx.execute("DELETE FROM pictures WHERE time_us < ?1", [before])?;
        // The oldest give way: all before the one with which the bound is exceeded.
        tx.execute(
            "DELETE FROM pictures WHERE id IN (
                 SELECT id FROM (SELECT id, sum(bytes) OVER (ORDER BY time_us DESC, id DESC) AS total FROM pictures)
                 WHERE total > ?1)",
            [MOST_BYTES],
        )?;
        tx.commit()
    }
}

/// There is a picture of an event.
///
/// # Errors
/// Those of the database.
pub fn is_there(db: &Connection, event_id: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM pictures WHERE event_id = ?1)")?
        .query_row([event_id], |row| row.get(0))
}

/// The picture of an event.
///
/// # Errors
/// Those of the database.
pub fn find(db: &Connection, event_id: &str) -> rusqlite::Result<Option<Picture>> {
    let mut query = db.prepare_cached("SELECT time_us, motion, jpeg FROM pictures WHERE event_id = ?1")?;
    let picture = |row: &rusqlite::Row<'_>| {
        let jpeg: Vec<u8> = row.get(2)?;
        Ok(Picture { time_us: row.get(0)?, motion: row.get(1)?, jpeg: jpeg.into() })
    };
    query.query_row([event_id], picture).optional()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::sink::store::Store;

    struct Place(std::path::PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn album(name: &str) -> (Album, Store, Place) {
        let place = std::env::temp_dir().join(format!("nursery-pictures-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let store = Store::open(&place).unwrap();
        (Album::new(&place).unwrap(), store, Place(place))
    }

    fn begun(event: &str) -> String {
        let onset = timestamp::rfc3339(timestamp::now_us());
        format!(
            r#"{{"type":"cry.started","timestamp":"x","data":{{"event_id":"{event}","camera":"crib","onset":"{onset}","score":0.9}}}}"#
        )
    }

    fn picture(bytes: usize) -> Picture {
        Picture { time_us: timestamp::now_us(), motion: Some(0.5), jpeg: vec![7; bytes].into() }
    }

    fn ticket(asked: Option<FromWorker>) -> u64 {
        match asked {
            Some(FromWorker::WantPicture { ticket, wanted }) => {
                assert!(wanted.camera == "crib" && wanted.near_us.is_some() && wanted.score == Some(0.9));
                ticket
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_event_that_begins_gets_one_and_those_that_end_none() {
        let (mut album, _store, _place) = album("each");
        let now = Instant::now();
        album.on_alert(&begun("a"), now);
        album.on_alert(&begun("b"), now);
        album.on_alert(&begun("c").replace("started", "ended"), now);
        album.on_alert("{}", now);
        let first = ticket(album.due(now));
        assert!(album.due(now).is_none(), "one at a time");
        album.on_picture(first + 7, Ok(picture(1)), now);
        album.on_picture(first, Ok(picture(10)), now);
        assert_eq!(find(&album.db, "a").unwrap().unwrap().jpeg.len(), 10);
        // None at the moment: later again, and at last no more.
        let mut now = now;
        for _ in 0..ATTEMPTS {
            let asked = ticket(album.due(now));
            album.on_picture(asked, Err("not now".into()), now);
            assert!(album.due(now).is_none());
            now += AGAIN;
        }
        assert!(album.due(now).is_none());
        assert!(find(&album.db, "b").unwrap().is_none());
    }

    #[test]
    fn whoever_does_not_answer_is_asked_again_and_nothing_grows() {
        let (mut album, _store, _place) = album("late");
        let now = Instant::now();
        (0..500).for_each(|n| album.on_alert(&begun(&n.to_string()), now));
        assert_eq!(album.waiting.len(), WAITING);
        let first = ticket(album.due(now));
        let later = now + ANSWER;
        let second = ticket(album.due(later));
        album.on_picture(first, Ok(picture(1)), later);
        album.on_picture(second, Ok(picture(1)), later);
        assert_eq!(album.waiting.len(), WAITING - 1);
    }

    #[test]
    fn the_oldest_give_way() {
        let (mut album, _store, _place) = album("oldest");
        album.keep(14.0);
        let now = Instant::now();
        let put = |album: &mut Album, event: &str, picture: Picture| {
            album.on_alert(&begun(event), now);
            let asked = ticket(album.due(now));
            album.on_picture(asked, Ok(picture), now);
        };
        put(&mut album, "old", Picture { time_us: 1, ..picture(1) });
        assert!(find(&album.db, "old").unwrap().is_none(), "older than they are kept");
        for n in 0..300 {
            put(&mut album, &format!("e{n}"), picture(256 << 10));
        }
        let (count, bytes): (i64, i64) = album
            .db
            .query_row("SELECT count(*), sum(bytes) FROM pictures", [], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap();
        assert_eq!((count, bytes), (256, MOST_BYTES));
        assert!(find(&album.db, "e299").unwrap().is_some() && find(&album.db, "e0").unwrap().is_none());
    }
}
