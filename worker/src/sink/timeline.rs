//! What there was of a camera between two times, what is known of one event, and what people say of it.

use nursery_shared::{
    history::{Cry, EventFile, Feedback, MAX_MARKS, MAX_POINTS, Motion, Subject, Timeline, Verdict},
    timestamp,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Deserialize;

use super::{curves::Curves, outages, pictures, series};

/// What is shown before the onset of an event and after its end.
const AROUND_US: i64 = 10_000_000;

#[derive(Deserialize)]
struct Body {
    r#type: String,
    data: Told,
}

/// What an alert says of an event that lasts.
#[derive(Deserialize)]
struct Told {
    camera: String,
    onset: String,
    #[serde(default)]
    offset: Option<String>,
    /// Of a cry.
    score: Option<f64>,
    peak_score: Option<f64>,
    /// Of motion.
    motion: Option<f64>,
    peak_motion: Option<f64>,
}

/// Events that last, by what they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cry,
    Motion,
}

impl Kind {
    /// The types of alerts that tell of their beginnings and ends, for a statement.
    fn types(self) -> &'static str {
        match self {
            Kind::Cry => "('cry.started', 'cry.ended')",
            Kind::Motion => "('motion.started', 'motion.ended')",
        }
    }

    /// How long after its onset one is announced, at the most.
    fn late_us(self) -> i64 {
        match self {
            Kind::Cry => 60_000_000,
            // As long as it must last to be an event, and a picture.
            Kind::Motion => 3_660_000_000,
        }
    }
}

/// An event that lasts, by its id; `None` where there is none.
///
/// # Errors
/// Those of the database.
fn subject(db: &Connection, event_id: &str) -> rusqlite::Result<Option<Subject>> {
    let mut query = db.prepare_cached(
        "SELECT body FROM alerts WHERE event_id = ?1
         AND type IN ('cry.started', 'cry.ended', 'motion.started', 'motion.ended') ORDER BY id DESC LIMIT 1",
    )?;
    let newest: Option<String> = query.query_row([event_id], |r| r.get(0)).optional()?;
    let Some(body) = newest.and_then(|body| serde_json::from_str::<Body>(&body).ok()) else {
        return Ok(None);
    };
    let (told, event_id) = (body.data, event_id.to_owned());
    let onset_us = timestamp::parse(&told.onset).unwrap_or(0);
    let offset_us = told.offset.as_deref().and_then(timestamp::parse);
    Ok(match (body.r#type.starts_with("cry."), told.score, told.motion) {
        (true, Some(score), _) => {
            let feedback = feedback(db, &event_id)?;
            let (camera, peak_score) = (told.camera, told.peak_score);
            Some(Subject::Cry(Cry { event_id, camera, onset_us, offset_us, score, peak_score, feedback }))
        }
        (false, _, Some(motion)) => {
            let (camera, peak_motion) = (told.camera, told.peak_motion);
            Some(Subject::Motion(Motion { event_id, camera, onset_us, offset_us, motion, peak_motion }))
        }
        _ => None,
    })
}

fn feedback(db: &Connection, event_id: &str) -> rusqlite::Result<Option<Feedback>> {
    let mut query = db.prepare_cached("SELECT verdict, at_us, by FROM feedback WHERE event_id = ?1")?;
    let found = query
        .query_row([event_id], |r| {
            let verdict = Verdict::parse(r.get_ref(0)?.as_str()?);
            Ok(verdict.map(|verdict| (verdict, r.get(1), r.get(2))))
        })
        .optional()?
        .flatten();
    found.map(|(verdict, at_us, by)| Ok(Feedback { verdict, at_us: at_us?, by: by? })).transpose()
}

/// The events of a camera that touch a time, oldest first, and whether there are more of them than are told.
fn lasting(
    db: &Connection,
    kind: Kind,
    camera: &str,
    from_us: i64,
    until_us: i64,
) -> rusqlite::Result<(Vec<Subject>, bool)> {
    let types = kind.types();
    // Those that were announced or ended meanwhile; one that goes on over all of it was announced before.
    let mut query = db.prepare_cached(&format!(
        "SELECT event_id, max(time_us) FROM alerts
         WHERE camera = ?1 AND time_us >= ?2 AND time_us < ?3 AND type IN {types}
         GROUP BY event_id ORDER BY 2 DESC LIMIT ?4",
    ))?;
    let limit = MAX_MARKS as i64 + 1;
    let mut ids: Vec<String> = query
        .query_map(params![camera, from_us, until_us.saturating_add(kind.late_us()), limit], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let truncated = ids.len() > MAX_MARKS;
    ids.truncate(MAX_MARKS);
    let before: Option<String> = db
        .prepare_cached(&format!(
            "SELECT event_id FROM alerts WHERE camera = ?1 AND time_us < ?2 AND type IN {types}
             ORDER BY time_us DESC, id DESC LIMIT 1",
        ))?
        .query_row(params![camera, from_us], |r| r.get(0))
        .optional()?;
    ids.extend(before.filter(|id| !truncated && !ids.contains(id)));
    let mut found = Vec::new();
    for id in ids {
        let touches = |s: &Subject| {
            let (onset_us, offset_us) = s.times_us();
            onset_us < until_us && offset_us.is_none_or(|offset| offset > from_us)
        };
        found.extend(subject(db, &id)?.filter(touches));
    }
    found.sort_by_key(|s| s.times_us().0);
    Ok((found, truncated))
}

/// A camera between two times. What its threshold is, is not the store's to know.
///
/// # Errors
/// Those of the database.
pub fn timeline(
    db: &Connection,
    fresh: &Curves,
    camera: &str,
    from_us: i64,
    until_us: i64,
    points: u32,
) -> rusqlite::Result<Timeline> {
    let curve = series::between(db, fresh, camera, from_us, until_us, points)?;
    let (cried, more_cries) = lasting(db, Kind::Cry, camera, from_us, until_us)?;
    let (moved, more_motions) = lasting(db, Kind::Motion, camera, from_us, until_us)?;
    let (mut cries, mut motions) = (Vec::new(), Vec::new());
    for subject in cried.into_iter().chain(moved) {
        match subject {
            Subject::Cry(cry) => cries.push(cry),
            Subject::Motion(motion) => motions.push(motion),
        }
    }
    let mut outages = outages::between(db, camera, from_us, until_us, MAX_MARKS + 1)?;
    let surplus = outages.len().saturating_sub(MAX_MARKS);
    outages.drain(..surplus);
    let truncated = more_cries || more_motions || surplus > 0;
    Ok(Timeline { curve, cries, motions, outages, truncated, threshold: 0.0 })
}

/// An event with its curve; `None` where there is none that lasts of this id.
///
/// # Errors
/// Those of the database.
pub fn event(
    db: &Connection,
    fresh: &Curves,
    event_id: &str,
    now_us: i64,
) -> rusqlite::Result<Option<EventFile>> {
    let Some(subject) = subject(db, event_id)? else { return Ok(None) };
    let (onset_us, offset_us) = subject.times_us();
    let until_us = offset_us.map_or(now_us, |offset| offset.saturating_add(AROUND_US));
    let from_us = onset_us.saturating_sub(AROUND_US);
    // A clock that was set back must not make it endless, or turn it round.
    let until_us = until_us.clamp(from_us + AROUND_US, from_us + nursery_shared::history::MAX_SPAN_US);
    let curve = series::between(db, fresh, subject.camera(), from_us, until_us, MAX_POINTS)?;
    let picture = pictures::is_there(db, event_id)?;
    Ok(Some(EventFile { subject, curve, threshold: 0.0, picture }))
}

/// Notes what somebody says of an event, in the place of what was said before. False where there is no such cry.
///
/// # Errors
/// Those of the database.
pub fn note_feedback(
    tx: &Transaction,
    event_id: &str,
    verdict: Verdict,
    by: &str,
    now_us: i64,
) -> rusqlite::Result<bool> {
    if !matches!(subject(tx, event_id)?, Some(Subject::Cry(_))) {
        return Ok(false);
    }
    tx.execute(
        "INSERT OR REPLACE INTO feedback (event_id, verdict, at_us, by) VALUES (?1, ?2, ?3, ?4)",
        params![event_id, verdict.as_str(), now_us, by],
    )?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::timestamp::rfc3339;

    use super::*;
    use crate::sink::schema;

    const SECOND_US: i64 = 1_000_000;

    fn database() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db
    }

    fn tell(db: &Connection, kind: &str, event: &str, onset: i64, offset: Option<i64>) {
        let end = offset.map_or_else(String::new, |offset| {
            format!(r#","offset":"{}","duration_s":1,"peak_score":0.95"#, rfc3339(offset * SECOND_US))
        });
        let body = format!(
            r#"{{"type":"{kind}","timestamp":"x","data":{{"event_id":"{event}","camera":"a","label":"baby_cry","onset":"{}","score":0.7,"sustained_s":1{end}}}}}"#,
            rfc3339(onset * SECOND_US)
        );
        let time = offset.map_or(onset + 1, |offset| offset + 5) * SECOND_US;
        db.execute(
            "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES (?1, ?2, ?3, 'a', ?4, ?5)",
            params![format!("{event}{kind}"), event, kind, time, body],
        )
        .unwrap();
    }

    fn seen(db: &Connection, from: i64, until: i64) -> Vec<(String, Option<i64>)> {
        let all = timeline(db, &Curves::default(), "a", from * SECOND_US, until * SECOND_US, 10).unwrap();
        assert!(!all.truncated && all.motions.is_empty());
        all.cries.into_iter().map(|c| (c.event_id, c.offset_us.map(|us| us / SECOND_US))).collect()
    }

    #[test]
    fn cries_that_touch_a_time_are_found_wherever_they_begin_and_end() {
        let db = database();
        for (event, onset, offset) in [("early", 100, 110), ("long", 200, 900), ("late", 1000, 1010)] {
            tell(&db, "cry.started", event, onset, None);
            tell(&db, "cry.ended", event, onset, Some(offset));
        }
        tell(&db, "cry.started", "open", 2000, None);
        let long = || ("long".to_owned(), Some(900));
        assert_eq!(seen(&db, 150, 950), [long()]);
        assert_eq!(seen(&db, 300, 400), [long()], "announced before, ended after");
        assert_eq!(seen(&db, 850, 1005), [long(), ("late".to_owned(), Some(1010))]);
        assert_eq!(seen(&db, 120, 190), []);
        assert_eq!(seen(&db, 5000, 6000), [("open".to_owned(), None)]);
        assert_eq!(seen(&db, 0, 105), [("early".to_owned(), Some(110))]);
    }

    #[test]
    fn motion_is_looked_back_on_and_nobody_is_asked_what_it_was() {
        let mut db = database();
        tell(&db, "cry.started", "c", 100, None);
        let announced = |kind: &str, more: &str| {
            let body = format!(
                r#"{{"type":"{kind}","timestamp":"x","data":{{"event_id":"m","camera":"a","onset":"{}","motion":0.2{more}}}}}"#,
                rfc3339(150 * SECOND_US)
            );
            db.execute(
                "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES (?1, 'm', ?1, 'a', ?2, ?3)",
                params![kind, 160 * SECOND_US, body],
            )
            .unwrap();
        };
        announced("motion.started", "");
        announced(
            "motion.ended",
            &format!(r#","offset":"{}","duration_s":30,"peak_motion":0.4"#, rfc3339(180 * SECOND_US)),
        );
        let between = |from: i64, until: i64| {
            let all =
                timeline(&db, &Curves::default(), "a", from * SECOND_US, until * SECOND_US, 10).unwrap();
            (all.cries.len(), all.motions.len())
        };
        assert_eq!(
            [between(90, 140), between(140, 155), between(170, 200), between(185, 200)],
            [(1, 0), (1, 1), (1, 1), (1, 0)]
        );
        let file = event(&db, &Curves::default(), "m", 200 * SECOND_US).unwrap().unwrap();
        let expected = Motion {
            event_id: "m".into(),
            camera: "a".into(),
            onset_us: 150 * SECOND_US,
            offset_us: Some(180 * SECOND_US),
            motion: 0.2,
            peak_motion: Some(0.4),
        };
        assert_eq!(file.subject, Subject::Motion(expected));
        assert_eq!((file.curve.from_us, file.curve.scores.len()), (140 * SECOND_US, 50));
        let tx = db.transaction().unwrap();
        assert!(!note_feedback(&tx, "m", Verdict::Cry, "page", 7).unwrap());
    }

    #[test]
    fn of_too_many_the_newest_are_told() {
        let db = database();
        for n in 0..=MAX_MARKS as i64 {
            tell(&db, "cry.ended", &format!("e{n}"), 100 + 10 * n, Some(101 + 10 * n));
        }
        let all = timeline(&db, &Curves::default(), "a", 0, 100_000 * SECOND_US, 10).unwrap();
        assert_eq!((all.cries.len(), all.truncated, &all.cries[0].event_id[..]), (MAX_MARKS, true, "e1"));
    }

    #[test]
    fn what_is_said_of_an_event_is_the_newest_and_of_a_cry() {
        let mut db = database();
        tell(&db, "cry.started", "c", 100, None);
        let mut say = |event: &str, verdict, at_us| {
            let tx = db.transaction().unwrap();
            let noted = note_feedback(&tx, event, verdict, "page", at_us).unwrap();
            tx.commit().unwrap();
            noted
        };
        assert!(say("c", Verdict::Cry, 5) && say("c", Verdict::NotCry, 6) && !say("nobody", Verdict::Cry, 7));
        let file = event(&db, &Curves::default(), "c", 130 * SECOND_US).unwrap().unwrap();
        let said = Feedback { verdict: Verdict::NotCry, at_us: 6, by: "page".into() };
        let Subject::Cry(cry) = file.subject else { panic!("{:?}", file.subject) };
        assert_eq!((cry.feedback, cry.offset_us), (Some(said), None));
        assert_eq!((file.curve.from_us, file.curve.scores.len()), (90 * SECOND_US, 40));
        assert_eq!(event(&db, &Curves::default(), "nobody", 0).unwrap(), None);
        // The clock was set back since.
        assert!(event(&db, &Curves::default(), "c", 0).unwrap().is_some());
    }
}
