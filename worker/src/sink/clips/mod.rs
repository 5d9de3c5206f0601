//! Clips of events as the sink keeps them: it makes the files, has the cameras' processes fill them, makes whole what they
//! leave, and removes the oldest. What is complete has a row in the store, so that everything is found again whoever dies
//! when.

mod bounds;
mod disk;
mod left;
mod shelf;
pub mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::mpsc::{SyncSender, sync_channel},
    time::{Duration, Instant},
};

use nix::libc::ENOSPC;
use nursery_shared::{
    clip::{About, Found},
    config::ClipsConfig,
    line::one_line,
    media::ClipReport,
    message::FromWorker,
    timestamp,
};
use serde::Deserialize;

use crate::{
    media::clip::whole::{self, Whole},
    sink::store::is_full,
};
pub use bounds::give_way_unseen;
use disk::Disk;
pub use shelf::{DIR, name};
use shelf::{Kind, Lost, Shelf, TRIES, on_disk};
use table::{Entry, Table};

/// Clips that are written at the same time.
const MOST_OPEN: usize = 64;
/// With less than this nothing is begun.
const FEWEST_BYTES: u64 = 64 << 10;
/// How fast a clip grows at the most between two looks: 64 Mbit/s.
const GROWTH: u64 = 8 << 20;
/// What its camera's process remembers at the most, and writes first.
const REMEMBERED: u64 = 24 << 20;
/// Times of a file that differ by more from those of its event are not believed: the longest clip.
const LONGEST_US: i64 = 900_000_000;
/// How often files are looked at, and old ones removed.
const LOOK: Duration = Duration::from_secs(1);
/// How often files and rows are compared although nobody died: a full disk may have kept one from being noted.
const COMPARE: Duration = Duration::from_secs(3600);
/// How long a file is left alone that somebody else has begun: whoever writes it was told to end.
const LEFT_ALONE: Duration = Duration::from_secs(3);
/// How long after its end a clip is waited for that nobody speaks of any more.
const LATE: Duration = Duration::from_secs(20);
/// Files are made whole for so long at a time; the next turn goes on.
const TURN: Duration = Duration::from_millis(100);
/// When it is tried again to make a file whole that cannot be read or written, and how often.
const AGAIN: Duration = Duration::from_secs(60);
const FAILURES: u8 = 10;

/// Something to be said to the supervisor, and what goes with it.
pub type Said = (FromWorker, Option<OwnedFd>);

/// A clip that is being written.
struct Open {
    event_id: String,
    camera: String,
    from_us: i64,
    max_bytes: u64,
    /// The event is over, or the clip is as long as it may be: it was told to end.
    told: bool,
    /// When it is told to end, whatever the event does.
    longest: Instant,
    /// When it is taken as it is, and what is said of it then.
    given_up: Instant,
    note: Option<String>,
    /// How often it was begun to make it whole, by other processes and this one.
    tries: u8,
    /// How often that failed.
    failures: u8,
    /// Another process has begun it.
    left: bool,
}

/// What is to be known of an alert.
#[derive(Deserialize)]
struct Alert {
    r#type: String,
    data: Happening,
}

/// A cry, or motion.
#[derive(Deserialize)]
struct Happening {
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    camera: String,
    onset: Option<String>,
    offset: Option<String>,
}

/// All clips.
pub struct Clips {
    config: ClipsConfig,
    table: Table,
    shelf: Shelf,
    disk: Disk,
    open: BTreeMap<i64, Open>,
    /// Files of events that are not stored, the oldest first.
    lost: Vec<Lost>,
    /// Clips whose files were removed and whose rows could not be.
    gone: BTreeSet<i64>,
    /// What complete and lost ones take of the disk.
    kept: u64,
    /// What all may take so that the disk has room for the store.
    room: u64,
    /// That is less than they would be allowed, and was said.
    scarce: bool,
    /// None can be removed to make room: what is being written is to end.
    cramped: bool,
    looked_at: Option<Instant>,
    compared_at: Option<Instant>,
    /// The newest failure, so that each is logged once.
    failure: Option<String>,
    /// Files that are to reach the disk, which a thread of its own waits for.
    written: Option<SyncSender<File>>,
}

/// A thread that waits for the disk, so that nobody else does.
fn wait_for_disk() -> Option<SyncSender<File>> {
    let (sender, files) = sync_channel::<File>(MOST_OPEN);
    let wait = move || {
        for file in files {
            if let Err(e) = file.sync_data() {
                tracing::warn!("clips: a power cut may take one of them: {e}");
            }
        }
    };
    std::thread::Builder::new().name("clips".into()).spawn(wait).ok().map(|_| sender)
}

/// The time that a text of ours says.
fn time(text: Option<&String>) -> Option<i64> {
    timestamp::parse_since(text?).ok()
}

fn us(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

impl Clips {
    /// Those in the store's directory, with what another process has left there. None are begun before
    /// [`configure`](Self::configure).
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn new(store: &Path) -> Result<Self, String> {
        let table = Table::open(store).map_err(|e| format!("store: clips: {e}"))?;
        let disk = Disk::of(store).map_err(|e| format!("store: clips: {e}"))?;
        let mut clips = Self {
            config: ClipsConfig { enabled: Some(false), ..ClipsConfig::default() },
            table,
            shelf: Shelf::new(store),
            disk,
            open: BTreeMap::new(),
            lost: Vec::new(),
            gone: BTreeSet::new(),
            kept: 0,
            room: u64::MAX,
            scarce: false,
            cramped: false,
            looked_at: None,
            compared_at: None,
            failure: None,
            written: None,
        };
        // Before anything is stored: events of a store that was begun anew have the numbers of earlier ones.
        clips.set_aside();
        Ok(clips)
    }

    /// These settings hold from now on.
    pub fn configure(&mut self, config: ClipsConfig) {
        self.config = config;
        self.looked_at = None;
    }

    /// Logs what is wrong, once.
    fn note_failure(&mut self, what: String) {
        if self.failure.as_deref() != Some(&what) {
            tracing::error!("clips are not kept as they should be: {what}");
            self.failure = Some(what);
        }
    }

    /// An alert was stored: its event may begin or end.
    pub fn on_alert(&mut self, json: &str, now: Instant) -> Option<Said> {
        let alert: Alert = serde_json::from_str(json).ok()?;
        match alert.r#type.as_str() {
            "cry.started" | "motion.started" if self.config.enabled == Some(true) => {
                match self.begin(&alert.data, now) {
                    Ok(said) => {
                        self.failure = None;
                        Some(said)
                    }
                    Err(why) => {
                        self.note_failure(format!("none of camera {}: {why}", alert.data.camera));
                        None
                    }
                }
            }
            "cry.ended" | "motion.ended" => {
                let number =
                    self.open.iter().find(|(_, o)| o.event_id == alert.data.event_id).map(|(n, _)| *n)?;
                let until_us = time(alert.data.offset.as_ref())?.saturating_add(us(self.config.after_s));
                self.end(number, until_us, now)
            }
            _ => None,
        }
    }

    fn begin(&mut self, event: &Happening, now: Instant) -> Result<Said, String> {
        let onset_us = time(event.onset.as_ref()).ok_or("its event does not say when it began")?;
        let failed = |e: rusqlite::Error| format!("store: {e}");
        let number =
            self.table.number_of(&event.event_id).map_err(failed)?.ok_or("its event is not stored")?;
        if self.open.values().filter(|open| !open.left).count() >= MOST_OPEN {
            return Err(format!("{MOST_OPEN} clips are being written already"));
        }
        if self.open.contains_key(&number) {
            return Err("it is being written already".into());
        }
        self.measure(now);
        let max_bytes = self.share().map_err(failed)?;
        // What is remembered comes at once.
        let allowance = on_disk(max_bytes.min(REMEMBERED + GROWTH));
        if max_bytes < FEWEST_BYTES || !self.make_room(allowance, now) {
            let keep = self.config.keep_mb;
            return Err(match self.room < self.keep_bytes() {
                true => "there is no room on the disk beside what the store needs".into(),
                false => {
                    format!(
                        "there is no room within clips.keep_mb ({keep} MiB) beside those of events that go on"
                    )
                }
            });
        }
        let file = self.shelf.begin(number).or_else(|e| match e.raw_os_error() {
            Some(ENOSPC) if self.give_way(now) => self.shelf.begin(number),
            _ => Err(e),
        });
        let file = file.map_err(|e| format!("{DIR}/{number}.part: {e}"))?;
        let from_us = onset_us.saturating_sub(us(self.config.before_s));
        // The onset is some seconds ago.
        let ago = timestamp::now_us().saturating_sub(from_us).clamp(0, us(self.config.max_s));
        let left = Duration::from_micros((us(self.config.max_s) - ago).unsigned_abs());
        self.open.insert(
            number,
            Open {
                event_id: event.event_id.clone(),
                camera: event.camera.clone(),
                from_us,
                max_bytes,
                told: false,
                longest: now + left,
                given_up: now + left + LATE,
                note: Some("whoever wrote it did not say that it is complete".into()),
                tries: 0,
                failures: 0,
                left: false,
            },
        );
        let camera = event.camera.clone();
        Ok((FromWorker::OpenClip { clip: number, camera, from_us, max_bytes }, Some(file.into())))
    }

    fn end(&mut self, number: i64, until_us: i64, now: Instant) -> Option<Said> {
        let open = self.open.get_mut(&number).filter(|open| !open.told)?;
        let until_us = until_us.min(open.from_us.saturating_add(us(self.config.max_s)));
        let ahead = until_us.saturating_sub(timestamp::now_us()).clamp(0, us(self.config.max_s));
        open.told = true;
        open.given_up = now + Duration::from_micros(ahead.unsigned_abs()) + LATE;
        Some((FromWorker::CloseClip { clip: number, camera: open.camera.clone(), until_us }, None))
    }

    /// Nothing more is written to a clip; the next [`tick`](Self::tick) makes it whole.
    pub fn on_closed(&mut self, number: i64, report: ClipReport, now: Instant) {
        if let Some(open) = self.open.get_mut(&number) {
            open.note = report.error.map(|e| one_line(&e).into_owned());
            (open.told, open.given_up) = (true, now);
        }
    }

    /// Whatever is due. To be called at least once a second.
    pub fn tick(&mut self, now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        if self.compared_at.is_none_or(|t| now.saturating_duration_since(t) >= COMPARE) {
            let first = self.compared_at.replace(now).is_none();
            if let Err(e) = self.compare(first, now) {
                self.note_failure(e);
            }
            if first {
                said.extend(self.go_on(now));
            }
        }
        let begun = Instant::now();
        let overdue: Vec<i64> =
            self.open.iter().filter(|(_, o)| o.given_up <= now).map(|(number, _)| *number).collect();
        for number in overdue {
            self.settle(number, now);
            self.looked_at = None;
            if begun.elapsed() >= TURN {
                break;
            }
        }
        self.look(now);
        let now_us = timestamp::now_us();
        let cramped = std::mem::take(&mut self.cramped);
        let end = |(number, o): (&i64, &Open)| {
            let longest = o.from_us.saturating_add(us(self.config.max_s));
            (*number, if cramped { longest.min(now_us) } else { longest })
        };
        let due = self.open.iter().filter(|(_, o)| !o.told && (cramped || o.longest <= now));
        let due: Vec<(i64, i64)> = due.map(end).collect();
        if cramped && !due.is_empty() {
            tracing::warn!("clips: {} end early: the disk has no more room than the store needs", due.len());
        }
        said.extend(due.into_iter().filter_map(|(number, until_us)| self.end(number, until_us, now)));
        said
    }

    /// Makes whole what was written of a clip, and notes it. Where that cannot be done it is tried again later.
    fn settle(&mut self, number: i64, now: Instant) {
        let Some(mut open) = self.open.remove(&number) else { return };
        if open.tries >= TRIES || open.failures >= FAILURES {
            tracing::warn!("clips: {DIR}/{number}.part: cannot be made whole, removed");
            return self.settled(number, open, now);
        }
        match self.make_whole(number, &mut open) {
            Ok(Some(found)) => {
                if let Some(why) = &open.note {
                    tracing::info!(
                        "clips: that of camera {} is shorter than it was meant to be: {why}",
                        open.camera
                    );
                }
                self.register(number, open, &found, now);
            }
            Ok(None) => {
                let usual = if open.left {
                    "its file holds nothing that can be played"
                } else {
                    "nothing was written"
                };
                let why = open.note.as_deref().unwrap_or(usual);
                tracing::warn!("clips: none of camera {}: {why}", open.camera);
                self.settled(number, open, now);
            }
            Err(e) => {
                self.note_failure(format!("{DIR}/{number}.part: {e}"));
                open.failures += 1;
                self.put_off(number, open, now);
            }
        }
    }

    /// It stays as it is, and is counted, until it is tried again.
    fn put_off(&mut self, number: i64, mut open: Open, now: Instant) {
        open.max_bytes = self.shelf.part_bytes(number, open.tries);
        (open.told, open.left, open.given_up) = (true, true, now + AGAIN);
        self.open.insert(number, open);
    }

    /// There will be none.
    fn settled(&mut self, number: i64, open: Open, now: Instant) {
        let removed = self.shelf.remove(number, Kind::Part(open.tries));
        if let Err(e) = removed {
            self.note_failure(format!("{DIR}/{number}.part: cannot be removed: {e}"));
            return self.put_off(number, open, now);
        }
        if let Err(e) = self.table.remove(number) {
            self.note_failure(format!("store: {e}"));
        }
    }

    /// Cuts off what is torn and gives the file its name; `None` where there is nothing in it. That it was begun stands in its
    /// name meanwhile: whoever dies of it does not die of it for ever.
    fn make_whole(&mut self, number: i64, open: &mut Open) -> io::Result<Option<Whole>> {
        let tries = open.tries;
        match self.shelf.note_tries(number, tries, tries + 1) {
            // Somebody has removed it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            noted => noted?,
        }
        open.tries += 1;
        let mended = self.shelf.open_part(number, open.tries).and_then(|file| {
            let found = whole::mend(&file)?;
            if let Some(found) = &found {
                self.shelf.complete(number, open.tries, found.format)?;
            }
            Ok(found.map(|found| (found, file)))
        });
        match mended {
            Ok(Some((found, file))) => {
                if self.written.is_none() {
                    self.written = wait_for_disk();
                }
                // Where so many wait already, a power cut may take this one.
                let _ = self.written.as_ref().map(|files| files.try_send(file));
                Ok(Some(found))
            }
            Ok(None) => Ok(None),
            Err(e) => {
                // Nobody died of it.
                if self.shelf.note_tries(number, open.tries, tries).is_ok() {
                    open.tries = tries;
                }
                Err(e)
            }
        }
    }

    fn register(&mut self, number: i64, open: Open, found: &Whole, now: Instant) {
        self.kept = self.kept.saturating_add(on_disk(found.bytes));
        // Whoever wrote it is not trusted: what is kept, and for how long, is not his affair.
        let near = |us: i64| {
            us.clamp(open.from_us.saturating_sub(LONGEST_US), open.from_us.saturating_add(LONGEST_US))
        };
        let from_us = found.from_us.map_or(open.from_us, near).min(timestamp::now_us());
        let about = About {
            format: found.format,
            camera: open.camera,
            from_us,
            until_us: from_us.saturating_add(found.duration_us),
            bytes: found.bytes,
            note: open.note,
        };
        let entry = Entry { number, event_id: open.event_id, about };
        let noted = self.table.put(&entry).or_else(|e| match is_full(&e) && self.give_way(now) {
            true => self.table.put(&entry),
            false => Err(e),
        });
        if let Err(e) = noted {
            // Its file is found when files and rows are compared.
            self.compare_soon(now);
            self.note_failure(format!("store: {e}"));
        }
    }

    /// Files and rows are compared in a minute.
    fn compare_soon(&mut self, now: Instant) {
        if let Some(compared_at) = &mut self.compared_at {
            let soon = now.checked_sub(COMPARE.saturating_sub(AGAIN));
            *compared_at = soon.map_or(*compared_at, |soon| soon.min(*compared_at));
        }
    }

    /// The clip of an event, and its file.
    pub fn find(&self, event_id: &str) -> (Found, Option<OwnedFd>) {
        if self.open.values().any(|open| open.event_id == event_id) {
            return (Found::NotYet, None);
        }
        match self.table.of_event(event_id) {
            Ok(Some(entry)) => match self.shelf.read(entry.number, entry.about.format) {
                Ok(file) => {
                    // What somebody did to it since then is seen in its length.
                    let bytes = file.metadata().map_or(entry.about.bytes, |m| m.len());
                    (Found::Clip(About { bytes, ..entry.about }), Some(OwnedFd::from(file)))
                }
                Err(e) => (Found::Failed(format!("{}: {e}", name(entry.number, entry.about.format))), None),
            },
            Ok(None) => (Found::Nothing, None),
            Err(e) => (Found::Failed(format!("store: {e}")), None),
        }
    }
}
