//! Curves in the store: a byte per second for a day, then a byte per minute, then nothing. Every step costs little, so
//! that alerts that come meanwhile do not wait.

use std::collections::HashMap;

use nursery_shared::curve::{Curve, NOTHING};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::curves::{Curves, Minute, SECONDS, greater};

/// Minutes of an hour.
const MINUTES: usize = 60;
const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// Cameras whose hour is thinned in one step, and hours that are removed in one.
const CAMERAS_PER_STEP: i64 = 64;
const HOURS_PER_STEP: i64 = 6;
/// Minutes of which a curve looks at the seconds: more than are ever kept, unless nothing was thinned for long.
const LOOKED_AT: i64 = 3_000;

/// An hour of one camera, a byte per minute.
struct Hour {
    scores: [u8; MINUTES],
    levels: [u8; MINUTES],
    peaks: [u8; MINUTES],
}

impl Hour {
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut hour =
            Self { scores: [NOTHING; MINUTES], levels: [NOTHING; MINUTES], peaks: [NOTHING; MINUTES] };
        if bytes.len() == 3 * MINUTES {
            hour.scores.copy_from_slice(&bytes[..MINUTES]);
            hour.levels.copy_from_slice(&bytes[MINUTES..2 * MINUTES]);
            hour.peaks.copy_from_slice(&bytes[2 * MINUTES..]);
        }
        hour
    }

    fn to_bytes(&self) -> Vec<u8> {
        [self.scores, self.levels, self.peaks].concat()
    }

    /// What is left of a minute.
    fn set(&mut self, at: usize, minute: &Minute) {
        let known =
            |bytes: &[u8; SECONDS]| bytes.iter().copied().filter(|b| *b != NOTHING).collect::<Vec<_>>();
        let levels = known(&minute.levels);
        let sum: usize = levels.iter().map(|b| usize::from(*b)).sum();
        let mean = sum.checked_div(levels.len()).map_or(NOTHING, |mean| mean as u8);
        self.scores[at] =
            greater(self.scores[at], known(&minute.scores).into_iter().max().unwrap_or(NOTHING));
        self.peaks[at] = greater(self.peaks[at], levels.into_iter().max().unwrap_or(NOTHING));
        if mean != NOTHING {
            self.levels[at] = mean;
        }
    }
}

/// Stores what waits; what is there already is kept.
///
/// # Errors
/// Those of the database.
pub fn store(tx: &Transaction, curves: &Curves) -> rusqlite::Result<()> {
    let mut ids: HashMap<&str, i64> = HashMap::new();
    let mut find = tx.prepare_cached("SELECT id FROM curve_cameras WHERE name = ?1")?;
    let mut read = tx.prepare_cached("SELECT data FROM seconds WHERE minute = ?1 AND camera = ?2")?;
    let mut write = tx.prepare_cached("INSERT OR REPLACE INTO seconds VALUES (?1, ?2, ?3)")?;
    for (at, camera, minute) in curves.all() {
        let id = match ids.get(camera) {
            Some(id) => *id,
            None => {
                let found: Option<i64> = find.query_row([camera], |r| r.get(0)).optional()?;
                let id = match found {
                    Some(id) => id,
                    None => {
                        tx.execute("INSERT INTO curve_cameras (name) VALUES (?1)", [camera])?;
                        tx.last_insert_rowid()
                    }
                };
                ids.insert(camera, id);
                id
            }
        };
        let mut all = *minute;
        let known =
            read.query_row([at, id], |r| Ok(Minute::from_bytes(r.get_ref(0)?.as_blob()?))).optional()?;
        if let Some(known) = known {
            all.merge(&known);
        }
        write.execute(params![at, id, all.to_bytes()])?;
    }
    Ok(())
}

/// Goes one step in making what is old small and removing what is too old. True where there is more to do.
///
/// # Errors
/// Those of the database.
pub fn thin(tx: &Transaction, now_us: i64, keep_days: u32) -> rusqlite::Result<bool> {
    let keep = now_us.saturating_sub(i64::from(keep_days) * DAY_US);
    let too_old = keep.div_euclid(HOUR_US);
    let oldest: Option<i64> = tx.query_row("SELECT min(hour) FROM minutes", [], |r| r.get(0))?;
    if let Some(hour) = oldest.filter(|hour| *hour < too_old) {
        let until = hour.saturating_add(HOURS_PER_STEP).min(too_old);
        tx.prepare_cached("DELETE FROM minutes WHERE hour < ?1")?.execute([until])?;
        return Ok(true);
    }
    let oldest: Option<i64> = tx.query_row("SELECT min(minute) FROM seconds", [], |r| r.get(0))?;
    let thinned = now_us.saturating_sub(DAY_US).div_euclid(HOUR_US);
    let Some(hour) = oldest.map(|minute| minute.div_euclid(60)).filter(|hour| *hour < thinned) else {
        // Last, since it looks at all of them.
        tx.prepare_cached("DELETE FROM outages WHERE until_us < ?1")?.execute([keep])?;
        return Ok(false);
    };
    let mut query = tx.prepare_cached(
        "SELECT DISTINCT camera FROM seconds WHERE minute >= ?1 AND minute < ?1 + 60 LIMIT ?2",
    )?;
    let cameras: Vec<i64> = query
        .query_map([hour.saturating_mul(60), CAMERAS_PER_STEP], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    drop(query);
    let mut known = tx.prepare_cached("SELECT data FROM minutes WHERE hour = ?1 AND camera = ?2")?;
    let mut read = tx.prepare_cached("SELECT data FROM seconds WHERE minute = ?1 AND camera = ?2")?;
    let mut remove = tx.prepare_cached("DELETE FROM seconds WHERE minute = ?1 AND camera = ?2")?;
    let mut write = tx.prepare_cached("INSERT OR REPLACE INTO minutes VALUES (?1, ?2, ?3)")?;
    for camera in cameras {
        let before: Option<Vec<u8>> = known.query_row([hour, camera], |r| r.get(0)).optional()?;
        let mut whole = Hour::from_bytes(&before.unwrap_or_default());
        for at in 0..MINUTES {
            let minute = hour.saturating_mul(60).saturating_add(at as i64);
            let seconds = read
                .query_row([minute, camera], |r| Ok(Minute::from_bytes(r.get_ref(0)?.as_blob()?)))
                .optional()?;
            if let Some(seconds) = seconds {
                whole.set(at, &seconds);
                remove.execute([minute, camera])?;
            }
        }
        write.execute(params![hour, camera, whole.to_bytes()])?;
    }
    Ok(true)
}

/// The points of a curve while they are filled.
struct Points {
    curve: Curve,
    sums: Vec<(u32, u32)>,
}

impl Points {
    fn place(&self, at_us: i64) -> Option<usize> {
        let place = usize::try_from((at_us - self.curve.from_us).div_euclid(self.curve.step_us)).ok()?;
        (place < self.sums.len()).then_some(place)
    }

    fn add(&mut self, at_us: i64, score: u8, level: u8, peak: u8) {
        let Some(place) = self.place(at_us) else { return };
        self.curve.scores[place] = greater(self.curve.scores[place], score);
        self.curve.peaks[place] = greater(self.curve.peaks[place], peak);
        if level != NOTHING {
            let (sum, count) = &mut self.sums[place];
            *sum += u32::from(level);
            *count += 1;
        }
    }

    fn finish(mut self) -> Curve {
        for (level, (sum, count)) in self.curve.levels.iter_mut().zip(self.sums) {
            if let Some(mean) = sum.checked_div(count) {
                *level = mean as u8;
            }
        }
        self.curve
    }
}

/// How many parts of this size hold it.
fn up(whole: i64, part: i64) -> i64 {
    (whole + part - 1).div_euclid(part)
}

/// A camera's curve between two times, in so many points at the most (one more, since they begin at whole steps), stored
/// or not.
///
/// # Errors
/// Those of the database.
pub fn between(
    db: &Connection,
    fresh: &Curves,
    camera: &str,
    from_us: i64,
    until_us: i64,
    points: u32,
) -> rusqlite::Result<Curve> {
    let span = until_us.saturating_sub(from_us).max(1);
    let step_us = up(up(span, i64::from(points.max(1))), SECOND_US).max(1) * SECOND_US;
    let from_us = from_us.div_euclid(step_us) * step_us;
    let count = usize::try_from(up(until_us - from_us, step_us)).unwrap_or(0);
    let nothing = || vec![NOTHING; count];
    let curve = Curve { from_us, step_us, scores: nothing(), levels: nothing(), peaks: nothing() };
    let mut points = Points { curve, sums: vec![(0, 0); count] };
    let id: Option<i64> = db
        .prepare_cached("SELECT id FROM curve_cameras WHERE name = ?1")?
        .query_row([camera], |r| r.get(0))
        .optional()?;
    if let Some(id) = id {
        let mut read = db.prepare_cached("SELECT data FROM minutes WHERE hour = ?1 AND camera = ?2")?;
        for hour in from_us.div_euclid(HOUR_US)..=until_us.div_euclid(HOUR_US) {
            let known: Option<Vec<u8>> = read.query_row([hour, id], |r| r.get(0)).optional()?;
            let Some(known) = known.map(|bytes| Hour::from_bytes(&bytes)) else { continue };
            for at in 0..MINUTES {
                let begin = hour * HOUR_US + at as i64 * MINUTE_US;
                // A minute stands for each of the points in it.
                let mut part = begin;
                while part < begin + MINUTE_US {
                    points.add(part, known.scores[at], known.levels[at], known.peaks[at]);
                    part += step_us.min(MINUTE_US);
                }
            }
        }
    }
    let stored: Option<i64> = db.query_row("SELECT min(minute) FROM seconds", [], |r| r.get(0))?;
    let oldest = stored.into_iter().chain(fresh.first(camera)).min();
    let last = until_us.div_euclid(MINUTE_US);
    let first = from_us.div_euclid(MINUTE_US).max(last - LOOKED_AT);
    let mut read = db.prepare_cached("SELECT data FROM seconds WHERE minute = ?1 AND camera = ?2")?;
    for at in first.max(oldest.unwrap_or(i64::MAX))..=last {
        let known = match id {
            Some(id) => {
                read.query_row([at, id], |r| Ok(Minute::from_bytes(r.get_ref(0)?.as_blob()?))).optional()?
            }
            None => None,
        };
        let minute = match (known, fresh.minute(camera, at)) {
            (Some(mut known), Some(new)) => {
                known.merge(new);
                known
            }
            (Some(known), None) => known,
            (None, Some(new)) => *new,
            (None, None) => continue,
        };
        for (second, (score, level)) in (0..).zip(minute.scores.into_iter().zip(minute.levels)) {
            points.add(at * MINUTE_US + second * SECOND_US, score, level, level);
        }
    }
    Ok(points.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::curve::{of_level, of_score};

    use super::*;
    use crate::sink::schema;

    const START: i64 = 1_769_824_800_000_000;

    fn database() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db
    }

    /// Seconds of a camera from `START` on: quiet, with a cry of ten seconds after each full minute.
    fn hear(db: &mut Connection, camera: &str, seconds: i64) {
        let mut curves = Curves::default();
        for second in 0..seconds {
            let cries = second % 60 < 10;
            let (score, level) = if cries { (0.9, -20.0) } else { (0.1, -50.0) };
            curves.note(camera, START + second * SECOND_US, 50_000, &[score; 20], level);
            if second % 60 == 59 || second + 1 == seconds {
                let tx = db.transaction().unwrap();
                store(&tx, &curves).unwrap();
                tx.commit().unwrap();
                curves.clear();
            }
        }
    }

    fn thin_all(db: &mut Connection, now_us: i64, keep_days: u32) -> usize {
        let mut steps = 0;
        loop {
            let tx = db.transaction().unwrap();
            let more = thin(&tx, now_us, keep_days).unwrap();
            tx.commit().unwrap();
            if !more {
                return steps;
            }
            steps += 1;
        }
    }

    fn rows(db: &Connection, table: &str) -> i64 {
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
    }

    #[test]
    fn what_was_heard_is_there_by_second_and_in_as_few_points_as_asked_for() {
        let mut db = database();
        hear(&mut db, "a", 600);
        hear(&mut db, "b", 60);
        let none = Curves::default();
        let fine = between(&db, &none, "a", START, START + 120 * SECOND_US, 1000).unwrap();
        assert_eq!((fine.from_us, fine.step_us, fine.scores.len()), (START, SECOND_US, 120));
        assert_eq!((fine.scores[9], fine.scores[10]), (of_score(0.9), of_score(0.1)));
        assert_eq!((fine.levels[9], fine.levels[10]), (of_level(-20.0), of_level(-50.0)));
        let coarse = between(&db, &none, "a", START, START + 1200 * SECOND_US, 20).unwrap();
        assert_eq!((coarse.step_us, coarse.scores.len()), (MINUTE_US, 20));
        assert_eq!(coarse.scores[9], of_score(0.9));
        assert_eq!(
            (coarse.levels[9], coarse.peaks[9]),
            (of_level(-45.0), of_level(-20.0)),
            "mean and greatest"
        );
        assert_eq!((coarse.scores[10], coarse.levels[10]), (NOTHING, NOTHING), "nothing was heard any more");
        let nobody = between(&db, &none, "nobody", START, START + 9, 20).unwrap();
        assert_eq!(nobody.scores, [NOTHING]);
    }

    #[test]
    fn what_is_not_stored_yet_is_seen_and_a_minute_that_is_stored_in_pieces_is_whole() {
        let mut db = database();
        hear(&mut db, "a", 30);
        let mut fresh = Curves::default();
        fresh.note("a", START + 30 * SECOND_US, 50_000, &[0.7; 20], -33.0);
        fresh.note("new", START, 50_000, &[0.6; 20], -33.0);
        let seen = between(&db, &fresh, "a", START, START + MINUTE_US, 60).unwrap();
        assert_eq!(
            (seen.scores[0], seen.scores[30], seen.scores[31]),
            (of_score(0.9), of_score(0.7), NOTHING)
        );
        assert_eq!(between(&db, &fresh, "new", START, START + 9, 1).unwrap().scores, [of_score(0.6)]);
        let tx = db.transaction().unwrap();
        store(&tx, &fresh).unwrap();
        tx.commit().unwrap();
        assert_eq!(between(&db, &Curves::default(), "a", START, START + MINUTE_US, 60).unwrap(), seen);
    }

    #[test]
    fn after_a_day_minutes_are_left_and_after_the_days_that_are_kept_nothing() {
        let mut db = database();
        hear(&mut db, "a", 7_200);
        hear(&mut db, "b", 90);
        let now = START + DAY_US + 90 * MINUTE_US;
        assert_eq!(thin_all(&mut db, START + DAY_US - HOUR_US, 30), 0, "too young");
        assert!(thin_all(&mut db, now, 30) > 0);
        assert_eq!((rows(&db, "seconds"), rows(&db, "minutes")), (60, 2), "the second hour is whole");
        let fine = between(&db, &Curves::default(), "a", START, START + 180 * SECOND_US, 180).unwrap();
        assert_eq!(fine.scores, vec![of_score(0.9); 180], "a minute stands for its seconds");
        assert_eq!((fine.levels[0], fine.peaks[0]), (of_level(-45.0), of_level(-20.0)));
        thin_all(&mut db, now + DAY_US, 30);
        assert_eq!((rows(&db, "seconds"), rows(&db, "minutes")), (0, 3));
        assert!(thin_all(&mut db, START + 32 * DAY_US, 30) > 0);
        assert_eq!(rows(&db, "minutes"), 0);
    }
}
