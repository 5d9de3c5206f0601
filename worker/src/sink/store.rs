//! The store: SQLite in a directory of the sink's own. Holds every alert, its delivery to each receiver, and what the
//! event logic of each camera must not forget.

use std::{
    cell::Cell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nursery_shared::{
    history::{Answer, Question},
    message::SetAside,
    timestamp,
};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use super::{
    camera::CameraState, clips, curves::Curves, history, outages, pictures, quarantine, schema, series,
    timeline, vfs,
};

/// File name inside the store's directory.
pub const FILE: &str = "nursery.sqlite";

/// Rows of these ages are removed once a day.
const KEEP_DELIVERIES: Duration = Duration::from_secs(30 * 86_400);
const KEEP_ALERTS: Duration = Duration::from_secs(400 * 86_400);
const KEEP_UNKNOWN_RECEIVERS: Duration = Duration::from_secs(7 * 86_400);
/// Bytes of the journal that are kept once it is written back: somebody who read for long may have made it longer.
pub const JOURNAL: i64 = 16 << 20;
/// How often clips give way to a store that is opened and finds no room on the disk.
const MOST_WAYS: usize = 8;
/// While a store is opened it is said so often that this goes on; asked every so many steps of the database.
const TELL: Duration = Duration::from_secs(1);
const STEPS: i32 = 10_000;

/// Tells that the store is still being opened, which takes long where it is large.
pub type Tell = Arc<dyn Fn() + Send + Sync>;

/// Something to tell people, and every receiver of that time.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAlert {
    pub message_id: String,
    pub event_id: String,
    pub kind: &'static str,
    pub camera: String,
    pub time_us: i64,
    pub body: String,
    /// Owed to none but these; `None`: to every receiver.
    pub only: Option<Vec<String>>,
}

/// A delivery that is still owed.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    pub delivery: i64,
    pub camera: String,
    pub message_id: String,
    pub body: String,
}

/// The open database; only the sink writes to it.
pub struct Store {
    db: Connection,
    /// Something could not be stored for want of room.
    full: Cell<bool>,
    directory: PathBuf,
    /// The same for people, who stand elsewhere.
    shown: PathBuf,
}

/// How far the records of one supervisor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Names the supervisor.
    pub run: u64,
    /// The newest record that is stored.
    pub seq: u64,
}

/// What goes in with one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    pub alerts: Vec<NewAlert>,
    /// States to be kept, by camera.
    pub cameras: HashMap<String, CameraState>,
    /// The newest record that is in here.
    pub mark: Mark,
}

impl Batch {
    /// Nothing would change.
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.cameras.is_empty()
    }
}

/// What a sink keeps its memory in: [`Store`], or a model of it in simulations. Errors are one line for people.
pub trait Storage {
    /// What each camera's logic had in mind.
    fn cameras(&self) -> Result<HashMap<String, CameraState>, String>;
    /// Up to where records are stored; nothing where there never were any.
    fn mark(&self) -> Result<Option<Mark>, String>;
    /// Stores a batch, all or nothing; each alert is owed to each of `receivers`.
    fn commit(&mut self, batch: &Batch, receivers: &[String]) -> Result<(), String>;
    /// The oldest delivery still owed to `receiver`, of each camera or of one.
    fn heads(&self, receiver: &str, camera: Option<&str>) -> Result<Vec<Pending>, String>;
    /// A receiver has confirmed a delivery.
    fn delivered(&mut self, delivery: i64) -> Result<(), String>;
    /// A delivery can never succeed.
    fn give_up(&mut self, delivery: i64, why: &str) -> Result<(), String>;
    /// Deliveries still owed, and those ever confirmed.
    fn counts(&self) -> Result<(u64, u64), String>;
    /// What is stored, and what is not yet, for people to look at; what they say of it is stored.
    fn answer(&mut self, question: &Question, fresh: &Curves) -> Result<Answer, String>;
    /// Stores what was heard. A power cut may take the last of it, but nothing that was there before.
    fn store_curves(&mut self, curves: &Curves) -> Result<(), String>;
    /// Goes one step in making old curves small and removing those older than so many days; true: there is more to do.
    fn thin_curves(&mut self, now_us: i64, keep_days: u32) -> Result<bool, String>;
    /// Removes what is too old to keep.
    fn purge(&mut self, receivers: &[String]) -> Result<(), String>;
    /// Keeps a window that was set aside, for study. Where that fails it is gone: the rest must not wait for it.
    fn set_aside(&mut self, camera: &str, window: &SetAside);
    /// Since it was asked last, something could not be stored for want of room.
    fn lacked_room(&self) -> bool {
        false
    }
}

/// There was no room on the disk. The index of the journal is a file too, and has a failure of its own.
pub fn is_full(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

impl Storage for Store {
    fn cameras(&self) -> Result<HashMap<String, CameraState>, String> {
        Store::cameras(self).map_err(|e| e.to_string())
    }

    fn mark(&self) -> Result<Option<Mark>, String> {
        Store::mark(self).map_err(|e| e.to_string())
    }

    fn commit(&mut self, batch: &Batch, receivers: &[String]) -> Result<(), String> {
        let done = Store::commit(self, batch, receivers);
        self.noted(done)
    }

    fn heads(&self, receiver: &str, camera: Option<&str>) -> Result<Vec<Pending>, String> {
        Store::heads(self, receiver, camera).map_err(|e| e.to_string())
    }

    fn delivered(&mut self, delivery: i64) -> Result<(), String> {
        let done = Store::delivered(self, delivery);
        self.noted(done)
    }

    fn give_up(&mut self, delivery: i64, why: &str) -> Result<(), String> {
        let done = Store::give_up(self, delivery, why);
        self.noted(done)
    }

    fn counts(&self) -> Result<(u64, u64), String> {
        Store::counts(self).map_err(|e| e.to_string())
    }

    fn answer(&mut self, question: &Question, fresh: &Curves) -> Result<Answer, String> {
        let done = Store::answer(self, question, fresh);
        self.noted(done)
    }

    fn store_curves(&mut self, curves: &Curves) -> Result<(), String> {
        let done = self.unhurried(|tx| series::store(tx, curves));
        self.noted(done)
    }

    fn thin_curves(&mut self, now_us: i64, keep_days: u32) -> Result<bool, String> {
        let done = self.unhurried(|tx| series::thin(tx, now_us, keep_days));
        self.noted(done)
    }

    fn purge(&mut self, receivers: &[String]) -> Result<(), String> {
        Store::purge(self, receivers).map_err(|e| e.to_string())
    }

    fn set_aside(&mut self, camera: &str, window: &SetAside) {
        let number = window.window;
        match quarantine::keep(&self.directory, camera, window) {
            Ok(audio) => {
                let path = self.shown.join(quarantine::DIR).join(audio.file_name().unwrap_or_default());
                tracing::info!("window {number} of camera {camera} kept as {}", path.display());
            }
            Err(e) => tracing::error!("window {number} of camera {camera} could not be kept for study: {e}"),
        }
    }

    fn lacked_room(&self) -> bool {
        self.full.take()
    }
}

/// SQLite opens what it may not write to for reading, and would find nothing stored for as long as this process lives, also
/// when the disk can be written to again.
pub fn writable(db: &Connection) -> rusqlite::Result<()> {
    match db.is_readonly(rusqlite::MAIN_DB)? {
        false => Ok(()),
        true => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY),
            Some("it can be opened for reading only: is the disk mounted read-only?".into()),
        )),
    }
}

impl Store {
    /// Opens the store, making it where it is missing. One that is damaged is moved aside, with a line in the
    /// log: crying now matters more than crying then.
    pub fn open(directory: &Path) -> Result<Self, String> {
        Self::open_as(directory, directory)
    }

    /// The same for a directory that people know under another name.
    pub fn open_as(directory: &Path, shown: &Path) -> Result<Self, String> {
        Self::open_telling(directory, shown, None)
    }

    /// The same, which may take long where the store is large: `tell` is called every second. Where the disk has no room for
    /// the little that it takes, the oldest clips give way.
    pub fn open_telling(directory: &Path, shown: &Path, tell: Option<&Tell>) -> Result<Self, String> {
        let path = directory.join(FILE);
        let name = shown.join(FILE);
        let name = name.display();
        let mut opened = Self::try_open(&path, shown, tell);
        for _ in 0..MOST_WAYS {
            match &opened {
                Err(e) if is_full(e) && clips::give_way_unseen(directory) => {
                    opened = Self::try_open(&path, shown, tell);
                }
                _ => break,
            }
        }
        match opened {
            Ok(store) => Ok(store),
            Err(e) if is_damage(&e) => {
                let aside = move_aside(&path)?;
                let aside = shown.join(aside.file_name().unwrap_or_default());
                tracing::error!(
                    "{name}: damaged ({e}); moved to {} and a new store begun: events and alerts not delivered \
                     yet are in there",
                    aside.display()
                );
                Self::try_open(&path, shown, tell).map_err(|e| format!("{name}: {e}"))
            }
            Err(e) => Err(format!("{name}: {e}")),
        }
    }

    /// For people; what lacked room is remembered.
    fn noted<T>(&self, done: rusqlite::Result<T>) -> Result<T, String> {
        done.map_err(|e| {
            self.full.set(self.full.get() || is_full(&e));
            e.to_string()
        })
    }

    fn try_open(path: &Path, shown: &Path, tell: Option<&Tell>) -> rusqlite::Result<Self> {
        let mut db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), vfs::name()?)?;
        if let Some(tell) = tell.cloned() {
            watch(&mut db, tell, TELL)?;
        }
        writable(&db)?;
        db.busy_timeout(Duration::from_secs(2))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // An acknowledged event must survive a power cut, not only a crash.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        db.pragma_update(None, "journal_size_limit", JOURNAL)?;
        // What it sorts aside: the directory for temporary files is out of reach.
        db.pragma_update(None, "temp_store", "MEMORY")?;
        let sound: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if sound != "ok" {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(sound),
            ));
        }
        schema::migrate(&mut db)?;
        db.progress_handler(0, None::<fn() -> bool>)?;
        let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self { db, full: Cell::new(false), directory, shown: shown.to_owned() })
    }

    /// Opens an existing store for reading beside a running service.
    pub fn open_to_read(directory: &Path, shown: &Path) -> Result<Connection, String> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Err(format!(
                "no store in {} (has the service run with this --state-dir?)",
                shown.display()
            ));
        }
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let db = Connection::open_with_flags_and_vfs(&path, flags, vfs::name()?)?;
            db.busy_timeout(Duration::from_secs(2))?;
            Ok(db)
        };
        open().map_err(|e: rusqlite::Error| format!("{}: {e}", shown.join(FILE).display()))
    }

    /// What each camera's logic had in mind.
    pub fn cameras(&self) -> rusqlite::Result<HashMap<String, CameraState>> {
        let mut query = self.db.prepare("SELECT name, state FROM cameras")?;
        let rows = query.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
        let mut cameras = HashMap::new();
        for row in rows {
            let (name, text) = row?;
            match serde_json::from_str(&text) {
                Ok(state) => {
                    cameras.insert(name, state);
                }
                Err(e) => tracing::error!("store: state of camera {name} cannot be read ({e}), begun anew"),
            }
        }
        Ok(cameras)
    }

    /// Up to where records are stored; nothing where there never were any.
    pub fn mark(&self) -> rusqlite::Result<Option<Mark>> {
        let value = |name: &str| {
            self.db
                .query_row("SELECT value FROM totals WHERE name = ?1", [name], |r| r.get::<_, i64>(0))
                .optional()
        };
        let (run, seq) = (value("run")?, value("seq")?);
        // Integers in the store are signed; the bits are the same.
        Ok(run.zip(seq).map(|(run, seq)| Mark { run: run as u64, seq: seq as u64 }))
    }

    /// Stores a batch, all or nothing; each alert is owed to each of `receivers`.
    pub fn commit(&mut self, batch: &Batch, receivers: &[String]) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        for alert in &batch.alerts {
            insert_alert(&tx, alert, receivers)?;
        }
        let mut save = tx.prepare_cached("INSERT OR REPLACE INTO cameras VALUES (?1, ?2)")?;
        for (name, state) in &batch.cameras {
            // Plain data with string keys, which JSON can always express.
            save.execute(params![name, serde_json::to_string(state).unwrap_or_default()])?;
        }
        drop(save);
        let mut note = tx.prepare_cached("INSERT OR REPLACE INTO totals VALUES (?1, ?2)")?;
        note.execute(params!["run", batch.mark.run as i64])?;
        note.execute(params!["seq", batch.mark.seq as i64])?;
        drop(note);
        tx.commit()
    }

    /// What is stored, and what is not yet.
    fn answer(&mut self, question: &Question, fresh: &Curves) -> rusqlite::Result<Answer> {
        let event = |db: &Connection, event_id: &str| {
            let file = timeline::event(db, fresh, event_id, timestamp::now_us())?;
            Ok(Answer::Event(file.map(Box::new)))
        };
        match question {
            Question::Events(listing) => history::answer(&self.db, listing).map(Answer::Events),
            Question::Timeline { camera, from_us, until_us, points } => {
                let found = timeline::timeline(&self.db, fresh, camera, *from_us, *until_us, *points)?;
                Ok(Answer::Timeline(Box::new(found)))
            }
            Question::Event { event_id } => event(&self.db, event_id),
            Question::Picture { event_id } => {
                pictures::find(&self.db, event_id).map(|found| Answer::Picture(found.map(Box::new)))
            }
            Question::Feedback { event_id, verdict, by } => {
                let tx = self.db.transaction()?;
                let noted = timeline::note_feedback(&tx, event_id, *verdict, by, timestamp::now_us())?;
                tx.commit()?;
                if noted { event(&self.db, event_id) } else { Ok(Answer::Event(None)) }
            }
        }
    }

    /// A transaction that is not waited for until it has reached the disk: it is there with the next one that is, and
    /// until then it is lost in a power cut as a whole or not at all.
    fn unhurried<R>(&mut self, act: impl FnOnce(&Transaction) -> rusqlite::Result<R>) -> rusqlite::Result<R> {
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        let outcome = (|| {
            let tx = self.db.transaction()?;
            let done = act(&tx)?;
            tx.commit().map(|()| done)
        })();
        self.db.pragma_update(None, "synchronous", "FULL")?;
        outcome
    }

    /// The oldest delivery still owed to `receiver`, of each camera or of one.
    pub fn heads(&self, receiver: &str, camera: Option<&str>) -> rusqlite::Result<Vec<Pending>> {
        let mut query = self.db.prepare_cached(
            "SELECT d.id, d.camera, a.message_id, a.body FROM deliveries d JOIN alerts a ON a.id = d.alert_id
             WHERE d.id IN (SELECT min(id) FROM deliveries
                            WHERE receiver = ?1 AND (?2 IS NULL OR camera = ?2)
                              AND delivered_us IS NULL AND gave_up IS NULL
                            GROUP BY camera)",
        )?;
        let rows = query.query_map(params![receiver, camera], |r| {
            Ok(Pending { delivery: r.get(0)?, camera: r.get(1)?, message_id: r.get(2)?, body: r.get(3)? })
        })?;
        rows.collect()
    }

    /// A receiver has confirmed a delivery.
    pub fn delivered(&mut self, delivery: i64) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        let changed = tx.execute(
            "UPDATE deliveries SET delivered_us = ?2 WHERE id = ?1 AND delivered_us IS NULL",
            params![delivery, timestamp::now_us()],
        )?;
        tx.execute("UPDATE totals SET value = value + ?1 WHERE name = 'delivered'", [changed as i64])?;
        tx.commit()
    }

    /// A delivery can never succeed.
    pub fn give_up(&mut self, delivery: i64, why: &str) -> rusqlite::Result<()> {
        self.db.execute("UPDATE deliveries SET gave_up = ?2 WHERE id = ?1", params![delivery, why])?;
        Ok(())
    }

    /// Deliveries still owed, and those ever confirmed.
    pub fn counts(&self) -> rusqlite::Result<(u64, u64)> {
        let pending: i64 = self.db.query_row(
            "SELECT count(*) FROM deliveries WHERE delivered_us IS NULL AND gave_up IS NULL",
            [],
            |r| r.get(0),
        )?;
        let delivered: Option<i64> = self
            .db
            .query_row("SELECT value FROM totals WHERE name = 'delivered'", [], |r| r.get(0))
            .optional()?;
        Ok((pending.unsigned_abs(), delivered.unwrap_or(0).unsigned_abs()))
    }

    /// Removes what is too old to keep. Deliveries to receivers that are configured are never removed while
    /// they are owed.
    pub fn purge(&mut self, receivers: &[String]) -> rusqlite::Result<()> {
        let before = |age: Duration| timestamp::now_us().saturating_sub(age.as_micros() as i64);
        let known = serde_json::to_string(receivers).unwrap_or_else(|_| "[]".into());
        let tx = self.db.transaction()?;
        // Looked up one by one from the few that are left of them: alerts are kept for longer, and may be many.
        let old = "(SELECT time_us FROM alerts a WHERE a.id = alert_id) <";
        let dropped = tx.execute(
            &format!(
                "DELETE FROM deliveries WHERE delivered_us IS NULL AND gave_up IS NULL
                 AND receiver NOT IN (SELECT value FROM json_each(?1)) AND {old} ?2"
            ),
            params![known, before(KEEP_UNKNOWN_RECEIVERS)],
        )?;
        // Numbers grow with time; where a clock was set back some are found later.
        tx.execute(
            &format!(
                "DELETE FROM deliveries WHERE (delivered_us IS NOT NULL OR gave_up IS NOT NULL)
                 AND alert_id <= (SELECT id FROM alerts WHERE time_us < ?1 ORDER BY time_us DESC LIMIT 1)
                 AND {old} ?1"
            ),
            [before(KEEP_DELIVERIES)],
        )?;
        tx.execute(
            "DELETE FROM alerts WHERE time_us < ?1
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert_id = alerts.id)",
            [before(KEEP_ALERTS)],
        )?;
        tx.execute(
            "DELETE FROM feedback
             WHERE NOT EXISTS (SELECT 1 FROM alerts a WHERE a.event_id = feedback.event_id)",
            [],
        )?;
        tx.commit()?;
        if dropped > 0 {
            tracing::warn!(
                "store: {dropped} old deliveries to receivers that are no longer configured dropped"
            );
        }
        Ok(())
    }
}

/// While this connection is at work `tell` is called about so often.
fn watch(db: &mut Connection, tell: Tell, often: Duration) -> rusqlite::Result<()> {
    let mut told = Instant::now();
    let handler = move || {
        if told.elapsed() >= often {
            told = Instant::now();
            tell();
        }
        false
    };
    db.progress_handler(STEPS, Some(handler))
}

fn insert_alert(tx: &Transaction, alert: &NewAlert, receivers: &[String]) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO alerts (message_id, event_id, type, camera, time_us, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        alert.message_id,
        alert.event_id,
        alert.kind,
        alert.camera,
        alert.time_us,
        alert.body
    ])?;
    let id = tx.last_insert_rowid();
    outages::note(tx, alert.kind, alert.time_us, &alert.body)?;
    let wanted = |receiver: &&String| alert.only.as_ref().is_none_or(|only| only.contains(receiver));
    for receiver in receivers.iter().filter(wanted) {
        tx.prepare_cached("INSERT INTO deliveries (alert_id, receiver, camera) VALUES (?1, ?2, ?3)")?
            .execute(params![id, receiver, alert.camera])?;
    }
    Ok(())
}

fn is_damage(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames the database and what belongs to it; the new name tells when.
/// Damaged stores that are kept. A disk that damages each new one must not be filled with them.
const KEEP_DAMAGED: usize = 10;

/// Makes room for one more damaged store: of many the newest goes, since the first ones are most likely to hold what was
/// not delivered.
fn make_room_for_damaged(path: &Path) {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let marked = format!("{name}.damaged-");
    let files = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut damaged: Vec<(String, PathBuf)> = files
        .map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()))
        .filter(|(name, _)| name.starts_with(&marked))
        .collect();
    // The time is in the name; what belongs to one store begins alike.
    damaged.sort();
    let stem = |name: &str| name.trim_end_matches("-wal").trim_end_matches("-shm").to_owned();
    let mut stems: Vec<String> = damaged.iter().map(|(name, _)| stem(name)).collect();
    stems.dedup();
    for surplus in stems.iter().skip(KEEP_DAMAGED - 1) {
        for (_, file) in damaged.iter().filter(|(name, _)| stem(name) == *surplus) {
            // Where it cannot be removed, moving the next one aside fails too, and says so.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn move_aside(path: &Path) -> Result<PathBuf, String> {
    make_room_for_damaged(path);
    let stamp = timestamp::rfc3339(timestamp::now_us()).replace(':', "");
    let with = |suffix: &str, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.push(end);
        PathBuf::from(name)
    };
    let damaged = format!(".damaged-{stamp}");
    for end in ["-wal", "-shm", ""] {
        let from = with("", end);
        if from.exists() {
            std::fs::rename(&from, with(&damaged, end)).map_err(|e| format!("{}: {e}", from.display()))?;
        }
    }
    Ok(with(&damaged, ""))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("nursery-store-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn alert(n: u32, camera: &str) -> NewAlert {
        NewAlert {
            message_id: format!("msg_{n}"),
            event_id: format!("e{n}"),
            kind: "cry.started",
            camera: camera.into(),
            time_us: timestamp::now_us(),
            body: "{}".into(),
            only: None,
        }
    }

    #[test]
    fn deliveries_are_owed_in_order_per_receiver_and_camera() {
        let dir = Dir::new("order");
        let mut store = Store::open(&dir.0).unwrap();
        let receivers = ["r".to_owned(), "s".to_owned()];
        let alerts = vec![alert(1, "a"), alert(2, "a"), alert(3, "b")];
        store.commit(&Batch { alerts, ..Batch::default() }, &receivers).unwrap();
        assert_eq!(store.counts().unwrap(), (6, 0));
        let ids = |p: Vec<Pending>| p.into_iter().map(|p| p.message_id).collect::<Vec<_>>();
        let heads = store.heads("r", None).unwrap();
        assert_eq!(ids(heads.clone()), ["msg_1", "msg_3"]);
        store.delivered(heads[0].delivery).unwrap();
        store.delivered(heads[0].delivery).unwrap();
        assert_eq!(ids(store.heads("r", Some("a")).unwrap()), ["msg_2"]);
        assert_eq!(ids(store.heads("s", Some("a")).unwrap()), ["msg_1"]);
        assert_eq!(store.counts().unwrap(), (5, 1));
        drop(store);
        let store = Store::open(&dir.0).unwrap();
        assert_eq!(store.counts().unwrap(), (5, 1), "and after a restart");
    }

    #[test]
    fn a_damaged_store_is_moved_aside_and_a_new_one_begun() {
        let dir = Dir::new("damage");
        std::fs::write(dir.0.join(FILE), vec![0x5a; 20_000]).unwrap();
        let store = Store::open(&dir.0).unwrap();
        assert_eq!(store.counts().unwrap(), (0, 0));
        let kept = std::fs::read_dir(&dir.0)
            .unwrap()
            .any(|e| e.unwrap().file_name().to_string_lossy().contains("damaged"));
        assert!(kept);
    }

    #[test]
    fn a_disk_that_damages_every_store_is_not_filled_with_them_and_the_first_ones_stay() {
        let dir = Dir::new("damage-again");
        let damaged = || {
            let files = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name());
            let mut names: Vec<String> = files.map(|n| n.to_string_lossy().into_owned()).collect();
            names.retain(|n| n.contains("damaged") && !n.ends_with("-wal") && !n.ends_with("-shm"));
            names.sort();
            names
        };
        let mut first = Vec::new();
        for n in 0..2 * KEEP_DAMAGED {
            for end in ["-wal", "-shm", ""] {
                std::fs::write(dir.0.join(format!("{FILE}{end}")), vec![0x5a; 20_000]).unwrap();
            }
            drop(Store::open(&dir.0).unwrap());
            if n == 0 {
                first = damaged();
            }
            // Names hold milliseconds.
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(damaged().len(), KEEP_DAMAGED);
        assert_eq!(damaged()[0], first[0]);
        let files = std::fs::read_dir(&dir.0).unwrap().count();
        assert!(files <= 3 * KEEP_DAMAGED + 3, "{files}");
    }

    #[test]
    fn while_a_large_store_is_looked_through_it_is_said_that_this_goes_on() {
        let dir = Dir::new("large");
        let mut store = Store::open(&dir.0).unwrap();
        store
            .commit(&Batch { alerts: (0..5_000).map(|n| alert(n, "a")).collect(), ..Batch::default() }, &[])
            .unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&told);
        let tell: Tell = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        drop(store);
        let mut db = Connection::open(dir.0.join(FILE)).unwrap();
        watch(&mut db, Arc::clone(&tell), Duration::ZERO).unwrap();
        let sound: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).unwrap();
        assert_eq!(sound, "ok");
        assert!(told.swap(0, Ordering::Relaxed) > 2);
        db.execute_batch("CREATE INDEX another ON alerts (body, time_us)").unwrap();
        assert!(told.swap(0, Ordering::Relaxed) > 2, "and while a new index is made");
        Store::open_telling(&dir.0, &dir.0, Some(&tell)).unwrap();
    }

    #[test]
    fn a_store_of_a_newer_version_is_refused_and_kept() {
        let dir = Dir::new("newer");
        let db = Connection::open(dir.0.join(FILE)).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        let error = Store::open(&dir.0).err().unwrap();
        assert!(error.contains("version 99"), "{error}");
    }

    #[test]
    fn old_rows_go_and_what_is_owed_stays() {
        let dir = Dir::new("purge");
        let mut store = Store::open(&dir.0).unwrap();
        let old = |n| NewAlert { time_us: 1_000_000, ..alert(n, "a") };
        let batch = Batch { alerts: vec![old(1), old(2)], ..Batch::default() };
        store.commit(&batch, &["known".into(), "unknown".into()]).unwrap();
        store.delivered(store.heads("known", None).unwrap()[0].delivery).unwrap();
        store.purge(&["known".into()]).unwrap();
        assert_eq!(store.counts().unwrap(), (1, 1));
        assert_eq!(store.heads("known", None).unwrap()[0].message_id, "msg_2");
        let alerts: i64 = store.db.query_row("SELECT count(*) FROM alerts", [], |r| r.get(0)).unwrap();
        assert_eq!(alerts, 1);
    }
}
