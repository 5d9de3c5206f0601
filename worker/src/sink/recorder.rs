//! Keeps the curves of all cameras: takes in what was heard, stores it every few seconds and makes what is old small,
//! always after alerts and never in their transactions. Where the store fails, so many minutes wait, and it is said.

use std::time::{Duration, Instant};

use nursery_shared::message::{Record, RecordKind};

use super::{curves::Curves, keeper::Now, store::Storage};

/// How long what was heard waits at the most before it is stored, while the store works.
const EVERY: Duration = Duration::from_secs(5);
/// Pause between two steps of making old curves small, and how often it is looked whether there is anything to do.
const STEP: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(600);
/// Wait after the store has failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What there is to store of all cameras, and when.
pub struct Recorder {
    curves: Curves,
    keep_days: u32,
    store_at: Instant,
    thin_at: Instant,
    error: Option<String>,
}

impl Recorder {
    /// Nothing was heard yet.
    pub fn new(now: Instant) -> Self {
        Self {
            curves: Curves::default(),
            keep_days: 30,
            store_at: now + EVERY,
            thin_at: now + EVERY,
            error: None,
        }
    }

    /// Curves and outages are kept for so many days from now on.
    pub fn keep(&mut self, days: u32, now: Instant) {
        if std::mem::replace(&mut self.keep_days, days) != days {
            self.thin_at = now;
        }
    }

    /// Takes in what was heard.
    pub fn take(&mut self, record: &Record) {
        if let RecordKind::Scores { start_us, step_us, values, level_dbfs, .. } = &record.what {
            self.curves.note(&record.camera, *start_us, *step_us, values, *level_dbfs);
        }
    }

    /// What is not stored yet.
    pub fn fresh(&self) -> &Curves {
        &self.curves
    }

    /// Why nothing can be stored at the moment.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What could not be stored is tried again at once.
    pub fn try_again(&mut self, now: Instant) {
        if self.error.is_some() {
            self.store_at = now;
        }
    }

    /// Does what is due, one thing at a time.
    pub fn tend(&mut self, store: &mut impl Storage, now: Now) {
        let urgent = self.curves.is_urgent() && self.error.is_none();
        if urgent || now.instant >= self.store_at {
            self.store(store, now);
        } else if now.instant >= self.thin_at {
            match store.thin_curves(now.wall_us, self.keep_days) {
                Ok(more) => self.thin_at = now.instant + if more { STEP } else { LOOK },
                Err(e) => self.failed(e, now),
            }
        }
    }

    /// Stores everything at once, at the end of the process.
    pub fn store(&mut self, store: &mut impl Storage, now: Now) {
        self.store_at = now.instant + EVERY;
        if self.curves.is_empty() {
            return;
        }
        match store.store_curves(&self.curves) {
            Ok(()) => {
                self.curves.clear();
                let given_up = self.curves.take_given_up();
                if given_up > 0 {
                    tracing::warn!("store: {given_up} minutes of curves could not be kept meanwhile");
                }
                if self.error.take().is_some() {
                    tracing::info!("store: takes curves again");
                }
            }
            Err(e) => self.failed(e, now),
        }
    }

    fn failed(&mut self, error: String, now: Now) {
        if self.error.as_ref() != Some(&error) {
            tracing::error!("store: curves cannot be stored: {error}; it is tried again (is the disk full?)");
        }
        self.error = Some(error);
        self.store_at = now.instant + AGAIN;
        self.thin_at = now.instant + AGAIN;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::{collections::HashMap, path::PathBuf};

    use nix::sys::resource::{UsageWho, getrusage};
    use nursery_shared::{
        curve::{NOTHING, of_score},
        history::{Answer, Question},
        message::SetAside,
        timestamp,
    };
    use rusqlite::Connection;

    use super::*;
    use crate::sink::{
        camera::CameraState,
        store::{Batch, FILE, Mark, Pending, Store},
    };

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("nursery-recorder-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A store whose disk is full at times.
    struct Disk {
        store: Store,
        full: bool,
    }

    impl Storage for Disk {
        fn cameras(&self) -> Result<HashMap<String, CameraState>, String> {
            Storage::cameras(&self.store)
        }
        fn mark(&self) -> Result<Option<Mark>, String> {
            Storage::mark(&self.store)
        }
        fn commit(&mut self, batch: &Batch, receivers: &[String]) -> Result<(), String> {
            Storage::commit(&mut self.store, batch, receivers)
        }
        fn heads(&self, receiver: &str, camera: Option<&str>) -> Result<Vec<Pending>, String> {
            Storage::heads(&self.store, receiver, camera)
        }
        fn delivered(&mut self, delivery: i64) -> Result<(), String> {
            Storage::delivered(&mut self.store, delivery)
        }
        fn give_up(&mut self, delivery: i64, why: &str) -> Result<(), String> {
            Storage::give_up(&mut self.store, delivery, why)
        }
        fn counts(&self) -> Result<(u64, u64), String> {
            Storage::counts(&self.store)
        }
        fn answer(&mut self, question: &Question, fresh: &Curves) -> Result<Answer, String> {
            Storage::answer(&mut self.store, question, fresh)
        }
        fn store_curves(&mut self, curves: &Curves) -> Result<(), String> {
            if self.full { Err("disk is full".into()) } else { self.store.store_curves(curves) }
        }
        fn thin_curves(&mut self, now_us: i64, keep_days: u32) -> Result<bool, String> {
            self.store.thin_curves(now_us, keep_days)
        }
        fn purge(&mut self, receivers: &[String]) -> Result<(), String> {
            Storage::purge(&mut self.store, receivers)
        }
        fn set_aside(&mut self, camera: &str, window: &SetAside) {
            self.store.set_aside(camera, window);
        }
    }

    fn window(camera: &str, start_us: i64) -> Record {
        let what = RecordKind::Scores {
            start_us,
            step_us: 50_000,
            values: vec![0.25; 5],
            level_dbfs: -40.0,
            arrived_us: 0,
        };
        Record { camera: camera.into(), what }
    }

    fn later(begin: Now, seconds: i64) -> Now {
        let instant = begin.instant + Duration::from_secs(seconds.unsigned_abs());
        Now { instant, wall_us: begin.wall_us + seconds * 1_000_000 }
    }

    /// From a full minute on, so that it is known how many rows there are.
    fn begin() -> Now {
        let minute = 60_000_000;
        Now { instant: Instant::now(), wall_us: timestamp::now_us() / minute * minute }
    }

    fn cpu() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let of =
            |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
        of(usage.user_time()) + of(usage.system_time())
    }

    #[test]
    fn what_waits_while_the_disk_is_full_is_stored_when_it_is_not_and_it_is_said() {
        let dir = Dir::new("full");
        let begin = begin();
        let mut disk = Disk { store: Store::open(&dir.0).unwrap(), full: true };
        let mut recorder = Recorder::new(begin.instant);
        for second in 0..240 {
            recorder.take(&window("crib", begin.wall_us + second * 1_000_000));
            recorder.tend(&mut disk, later(begin, second));
        }
        assert_eq!(recorder.error(), Some("disk is full"));
        disk.full = false;
        recorder.tend(&mut disk, later(begin, 260));
        assert!(recorder.error().is_none() && recorder.fresh().is_empty());
        let until_us = begin.wall_us + 240_000_000;
        let question =
            Question::Timeline { camera: "crib".into(), from_us: begin.wall_us, until_us, points: 240 };
        let Answer::Timeline(found) = disk.answer(&question, recorder.fresh()).unwrap() else { panic!() };
        assert_eq!(found.curve.scores, vec![of_score(0.25); 240]);
        assert!(!found.curve.levels.contains(&NOTHING));
    }

    #[test]
    fn of_a_recording_that_is_scored_faster_than_it_was_made_nothing_is_given_up() {
        let dir = Dir::new("fast");
        let begin = begin();
        let mut store = Store::open(&dir.0).unwrap();
        let mut recorder = Recorder::new(begin.instant);
        for second in 0..3600 {
            recorder.take(&window("tape", begin.wall_us + second * 1_000_000));
            recorder.tend(&mut store, Now { wall_us: begin.wall_us, ..begin });
        }
        recorder.store(&mut store, begin);
        let until_us = begin.wall_us + 3_600_000_000;
        let question =
            Question::Timeline { camera: "tape".into(), from_us: begin.wall_us, until_us, points: 2000 };
        let Answer::Timeline(found) = Storage::answer(&mut store, &question, recorder.fresh()).unwrap()
        else {
            panic!()
        };
        assert_eq!(found.curve.scores, vec![of_score(0.25); 1800]);
    }

    #[test]
    fn curves_of_two_hundred_cameras_cost_little_time_and_room() {
        const CAMERAS: usize = 200;
        const SECONDS: i64 = 600;
        let dir = Dir::new("cost");
        let begin = begin();
        drop(Store::open(&dir.0).unwrap());
        let empty = std::fs::metadata(dir.0.join(FILE)).unwrap().len();
        let mut store = Store::open(&dir.0).unwrap();
        let mut recorder = Recorder::new(begin.instant);
        let names: Vec<String> = (0..CAMERAS).map(|n| format!("camera-{n:03}")).collect();
        let (mut taking, mut storing) = (Duration::ZERO, Duration::ZERO);
        for second in 0..SECONDS {
            let at = begin.wall_us + second * 1_000_000;
            let windows: Vec<Record> =
                names.iter().flat_map(|n| (0..4).map(move |part| window(n, at + part * 250_000))).collect();
            let before = cpu();
            windows.iter().for_each(|w| recorder.take(w));
            let taken = cpu();
            recorder.tend(&mut store, later(begin, second));
            taking += taken - before;
            storing += cpu() - taken;
        }
        recorder.store(&mut store, later(begin, SECONDS));
        let share = |time: Duration| time.as_secs_f64() / SECONDS as f64 * 100.0;
        eprintln!(
            "FIGURE curves of {CAMERAS} cameras: {:.2} % of a core to take them in, {:.2} % to store them",
            share(taking),
            share(storing)
        );
        assert!(share(taking + storing) < 5.0, "{taking:?} {storing:?}");
        drop(store);
        let db = Connection::open(dir.0.join(FILE)).unwrap();
        db.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM seconds", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, CAMERAS as i64 * SECONDS / 60);
        let bytes = std::fs::metadata(dir.0.join(FILE)).unwrap().len() - empty;
        let per_day = bytes * 144 / CAMERAS as u64;
        eprintln!("FIGURE curves: {per_day} bytes per camera and day by the second");
        assert!(per_day < 260_000, "{per_day}");
    }
}
