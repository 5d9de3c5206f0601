//! Answers questions about stored events. Each costs the same little however much is stored, since alerts come first: so
//! many rows are looked at, and the answer says how far that was.

use nursery_shared::{
    history::{From, History, Listing, MAX_EVENTS, StoredEvent},
    message::Record,
};
use rusqlite::{Connection, params};

/// Rows that one answer looks at.
const ROWS: i64 = 2_000;
/// Bytes of one answer: it must fit a frame with room to spare.
const BYTES: usize = 192 << 10;

/// What the store holds.
///
/// # Errors
/// Those of the database.
pub fn answer(db: &Connection, question: &Listing) -> rusqlite::Result<History> {
    let newest = db.query_row("SELECT coalesce(max(id), 0) FROM alerts", [], |r| r.get(0))?;
    let (from, sql) = match question.from {
        From::After(id) => {
            (id, "SELECT id, time_us, camera, body FROM alerts WHERE id > ?1 ORDER BY id LIMIT ?2")
        }
        From::Before(id) => {
            (id, "SELECT id, time_us, camera, body FROM alerts WHERE id < ?1 ORDER BY id DESC LIMIT ?2")
        }
    };
    let limit = question.limit.clamp(1, MAX_EVENTS) as usize;
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![from, ROWS])?;
    let mut history = History { newest, ..History::default() };
    let (mut looked_at, mut bytes, mut last) = (0, 0, from);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let wanted = question.since_us.is_none_or(|since| row.get(1).is_ok_and(|time: i64| time >= since))
            && match &question.camera {
                Some(camera) => row.get_ref(2)?.as_str().is_ok_and(|names| names_hold(names, camera)),
                None => true,
            };
        if wanted {
            let json: String = row.get(3)?;
            bytes += json.len();
            // The first one goes out however long it is: what was stored fitted a frame.
            if !history.events.is_empty() && (bytes > BYTES || history.events.len() >= limit) {
                history.next = Some(last);
                return Ok(history);
            }
            history.events.push(StoredEvent { id, json });
        }
        last = id;
        looked_at += 1;
    }
    history.next = (looked_at == ROWS).then_some(last);
    Ok(history)
}

fn names_hold(names: &str, camera: &str) -> bool {
    Record::cameras_in(names).any(|name| name == camera)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashSet;

    use nursery_shared::history::{Answer, Question};

    use super::*;
    use crate::sink::{
        curves::Curves,
        store::{Batch, NewAlert, Storage, Store},
    };

    fn store(dir: &std::path::Path, count: i64) -> Store {
        std::fs::create_dir_all(dir).unwrap();
        let mut store = Store::open(dir).unwrap();
        let alerts = (1..=count).map(|n| NewAlert {
            message_id: format!("m{n}"),
            event_id: format!("e{n}"),
            kind: "cry.started",
            camera: if n % 10 == 0 { "north, south".into() } else { "crib".into() },
            time_us: n * 1_000_000,
            body: format!(r#"{{"n":{n}}}"#),
            only: None,
        });
        let batch = Batch { alerts: alerts.collect(), ..Batch::default() };
        Storage::commit(&mut store, &batch, &[]).unwrap();
        store
    }

    fn ask(
        store: &mut Store,
        from: From,
        camera: Option<&str>,
        since_us: Option<i64>,
        limit: u32,
    ) -> History {
        let listing = Listing { from, since_us, camera: camera.map(str::to_owned), limit };
        match Storage::answer(store, &Question::Events(listing), &Curves::default()).unwrap() {
            Answer::Events(history) => history,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_are_found_in_both_directions_and_an_answer_says_where_to_go_on() {
        let dir = std::env::temp_dir().join(format!("nursery-history-{}", std::process::id()));
        let mut store = store(&dir, 5_000);
        let ids = |h: &History| h.events.iter().map(|e| e.id).collect::<Vec<_>>();
        let newest = ask(&mut store, From::Before(i64::MAX), None, None, 3);
        assert_eq!((ids(&newest), newest.newest, newest.next), (vec![5000, 4999, 4998], 5000, Some(4998)));
        assert_eq!(newest.events[0].json, r#"{"n":5000}"#);
        let after = ask(&mut store, From::After(4998), None, None, 100);
        assert_eq!((ids(&after), after.next), (vec![4999, 5000], None));
        assert_eq!(ids(&ask(&mut store, From::Before(4998), None, None, 2)), [4997, 4996]);
        // Of one of two that were lost together.
        assert_eq!(ids(&ask(&mut store, From::Before(4990), Some("south"), None, 2)), [4980, 4970]);
        assert_eq!(ids(&ask(&mut store, From::After(0), None, Some(4_999_000_000), 9)), Vec::<i64>::new());
        // All of a camera, question by question, each once.
        let (mut seen, mut from, mut asked) = (HashSet::new(), i64::MAX, 0);
        loop {
            let part = ask(&mut store, From::Before(from), Some("north"), None, 100);
            assert!(part.events.iter().all(|e| seen.insert(e.id)));
            asked += 1;
            match part.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert!(seen.len() == 500 && asked < 12, "{} in {asked}", seen.len());
        // Nothing of that camera: so many rows and no more are looked at.
        let none = ask(&mut store, From::Before(i64::MAX), Some("nobody"), None, 100);
        assert_eq!((none.events.len(), none.next), (0, Some(3001)));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
