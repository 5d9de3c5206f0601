//! Clips of events as the sink keeps them: it makes the files, has the cameras' processes fill them, makes whole what they
//! leave, and removes the oldest. What is complete has a row in the store, so that everything is found again whoever dies
//! when.

mod shelf;
pub mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    sync::mpsc::{SyncSender, sync_channel},
    time::{Duration, Instant},
};

use nursery_shared::{
    clip::{About, Found, MAX_BYTES},
    config::ClipsConfig,
    line::one_line,
    media::ClipReport,
    message::FromWorker,
    timestamp,
};
use serde::Deserialize;

use crate::media::clip::whole::{self, Whole};
pub use shelf::{DIR, name};
use shelf::{Item, Shelf, on_disk};
use table::{Entry, Table};

/// Clips that are written at the same time.
const MOST_OPEN: usize = 64;
/// With less than this nothing is begun.
const FEWEST_BYTES: u64 = 64 << 10;
/// How fast a clip grows at the most between two looks: 64 Mbit/s.
const GROWTH: u64 = 8 << 20;
/// How often files are looked at, and old ones removed.
const LOOK: Duration = Duration::from_secs(1);
/// How often files and rows are compared although nobody died: a full disk may have kept one from being noted.
const COMPARE: Duration = Duration::from_secs(3600);
/// How long a file is left alone that somebody else has begun: whoever writes it was told to end.
const LEFT_ALONE: Duration = Duration::from_secs(3);
/// How long after its end a clip is waited for that nobody speaks of any more.
const LATE: Duration = Duration::from_secs(20);

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
    why: &'static str,
}

/// What is to be known of an alert.
#[derive(Deserialize)]
struct Alert {
    r#type: String,
    data: Cry,
}

#[derive(Deserialize)]
struct Cry {
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
    open: BTreeMap<i64, Open>,
    /// What complete ones take of the disk.
    kept: u64,
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
        Ok(Self {
            config: ClipsConfig { enabled: Some(false), ..ClipsConfig::default() },
            table,
            shelf: Shelf::new(store),
            open: BTreeMap::new(),
            kept: 0,
            looked_at: None,
            compared_at: None,
            failure: None,
            written: None,
        })
    }

    /// These settings hold from now on.
    pub fn configure(&mut self, config: ClipsConfig) {
        self.config = config;
        self.looked_at = None;
    }

    fn keep_bytes(&self) -> u64 {
        self.config.keep_mb.saturating_mul(1 << 20)
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
            "cry.started" if self.config.enabled == Some(true) => match self.begin(&alert.data, now) {
                Ok(said) => {
                    self.failure = None;
                    Some(said)
                }
                Err(why) => {
                    self.note_failure(format!("none of camera {}: {why}", alert.data.camera));
                    None
                }
            },
            "cry.ended" => {
                let number =
                    self.open.iter().find(|(_, o)| o.event_id == alert.data.event_id).map(|(n, _)| *n)?;
                let until_us = time(alert.data.offset.as_ref())?.saturating_add(us(self.config.after_s));
                self.end(number, until_us, now)
            }
            _ => None,
        }
    }

    fn begin(&mut self, cry: &Cry, now: Instant) -> Result<Said, String> {
        let onset_us = time(cry.onset.as_ref()).ok_or("its event does not say when it began")?;
        let failed = |e: rusqlite::Error| format!("store: {e}");
        let number = self.table.number_of(&cry.event_id).map_err(failed)?.ok_or("its event is not stored")?;
        if self.open.len() >= MOST_OPEN {
            return Err(format!("{MOST_OPEN} clips are being written already"));
        }
        if self.open.contains_key(&number) {
            return Err("it is being written already".into());
        }
        let max_bytes = self.share().map_err(failed)?;
        let allowance = on_disk(max_bytes.min(GROWTH));
        if max_bytes < FEWEST_BYTES || !self.make_room(allowance) {
            return Err(format!(
                "there is no room within clips.keep_mb ({} MiB) beside those of events that go on",
                self.config.keep_mb
            ));
        }
        let file = self.shelf.begin(number).map_err(|e| format!("{DIR}/{number}.part: {e}"))?;
        let from_us = onset_us.saturating_sub(us(self.config.before_s));
        // The onset is some seconds ago.
        let ago = timestamp::now_us().saturating_sub(from_us).clamp(0, us(self.config.max_s));
        let left = Duration::from_micros((us(self.config.max_s) - ago).unsigned_abs());
        self.open.insert(
            number,
            Open {
                event_id: cry.event_id.clone(),
                camera: cry.camera.clone(),
                from_us,
                max_bytes,
                told: false,
                longest: now + left,
                given_up: now + left + LATE,
                why: "whoever wrote it did not say that it is complete",
            },
        );
        let camera = cry.camera.clone();
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

    /// Nothing more is written to a clip.
    pub fn on_closed(&mut self, number: i64, report: ClipReport, now: Instant) {
        if self.open.contains_key(&number) {
            let note = report.error.map(|e| one_line(&e).into_owned());
            self.settle(number, note);
            self.looked_at = None;
            self.look(now);
        }
    }

    /// Whatever is due. To be called at least once a second.
    pub fn tick(&mut self, now: Instant) -> Vec<Said> {
        if self.compared_at.is_none_or(|t| now.saturating_duration_since(t) >= COMPARE) {
            let first = self.compared_at.replace(now).is_none();
            if let Err(e) = self.compare(first, now) {
                self.note_failure(e);
            }
        }
        let overdue: Vec<(i64, &'static str)> =
            self.open.iter().filter(|(_, o)| o.given_up <= now).map(|(n, o)| (*n, o.why)).collect();
        for (number, why) in overdue {
            self.settle(number, Some(why.to_owned()));
        }
        self.look(now);
        let long: Vec<(i64, i64)> = self
            .open
            .iter()
            .filter(|(_, o)| !o.told && o.longest <= now)
            .map(|(n, o)| (*n, o.from_us.saturating_add(us(self.config.max_s))))
            .collect();
        long.into_iter().filter_map(|(number, until_us)| self.end(number, until_us, now)).collect()
    }

    /// Sees to it that all of them together stay within their bounds until the next look.
    fn look(&mut self, now: Instant) {
        if self.looked_at.is_some_and(|t| now.saturating_duration_since(t) < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let now_us = timestamp::now_us();
        let before = now_us.saturating_sub(us(self.config.keep_days * 86_400.0));
        while let Ok(oldest) = self.table.oldest(now_us, 32) {
            let old: Vec<Entry> = oldest.into_iter().filter(|e| e.about.until_us < before).collect();
            if old.is_empty() || !old.iter().all(|entry| self.remove(entry)) {
                break;
            }
        }
        self.make_room(0);
    }

    /// What a new clip may come to: with all that others may still come to, there is room for each.
    fn share(&self) -> rusqlite::Result<u64> {
        let promised: u64 = self.open.values().map(|o| on_disk(o.max_bytes)).sum();
        let fixed = self.table.bytes_of_open_events(timestamp::now_us())?;
        let left = self.keep_bytes().saturating_sub(promised).saturating_sub(fixed);
        Ok((left / 4).min(MAX_BYTES))
    }

    /// Removes the oldest clips until there is room for what is being written, and for so much more; false where that
    /// cannot be.
    fn make_room(&mut self, more: u64) -> bool {
        let growing = |(number, open): (&i64, &Open)| {
            let bytes = self.shelf.part_bytes(*number);
            on_disk(bytes) + on_disk(open.max_bytes.saturating_sub(bytes).min(GROWTH))
        };
        let growing: u64 = self.open.iter().map(growing).sum();
        let keep = self.keep_bytes();
        let fits = |kept: u64| kept.saturating_add(growing).saturating_add(more) <= keep;
        while !fits(self.kept) {
            let oldest = match self.table.oldest(timestamp::now_us(), 32) {
                Ok(oldest) if !oldest.is_empty() => oldest,
                Ok(_) => return false,
                Err(e) => {
                    self.note_failure(format!("store: {e}"));
                    return false;
                }
            };
            for entry in oldest {
                if fits(self.kept) {
                    break;
                }
                if !self.remove(&entry) {
                    return false;
                }
            }
        }
        true
    }

    /// Removes a clip: its file first, since a row without one is found, and a file without a row would come back.
    fn remove(&mut self, entry: &Entry) -> bool {
        if let Err(e) = self.shelf.remove(entry.number, Some(entry.about.format)) {
            let file = name(entry.number, entry.about.format);
            self.note_failure(format!("{DIR}/{file}: cannot be removed: {e}"));
            return false;
        }
        match self.table.remove(entry.number) {
            Ok(()) => {
                self.kept = self.kept.saturating_sub(on_disk(entry.about.bytes));
                true
            }
            Err(e) => {
                self.note_failure(format!("store: {e}"));
                false
            }
        }
    }

    /// Makes whole what was written of a clip, and notes it.
    fn settle(&mut self, number: i64, note: Option<String>) {
        let Some(open) = self.open.remove(&number) else { return };
        let part = format!("{DIR}/{number}.part");
        let mended = self.shelf.open_part(number).and_then(|file| Ok((whole::mend(&file)?, file)));
        let found = match mended {
            Ok((Some(found), file)) => {
                if self.written.is_none() {
                    self.written = wait_for_disk();
                }
                // Where so many wait already, a power cut may take this one.
                let _ = self.written.as_ref().map(|files| files.try_send(file));
                found
            }
            Ok((None, _)) => {
                let why = note.unwrap_or_else(|| "nothing was written".into());
                tracing::warn!("clips: none of camera {}: {why}", open.camera);
                if let Err(e) = self.shelf.remove(number, None) {
                    self.note_failure(format!("{part}: cannot be removed: {e}"));
                }
                return;
            }
            Err(e) => return self.note_failure(format!("{part}: {e}")),
        };
        if let Some(why) = &note {
            tracing::info!("clips: that of camera {} is shorter than it was meant to be: {why}", open.camera);
        }
        match self.shelf.complete(number, found.format) {
            Ok(()) => self.register(number, &open.event_id, &open.camera, open.from_us, &found, note),
            Err(e) => self.note_failure(format!("{part}: {e}")),
        }
    }

    fn register(
        &mut self,
        number: i64,
        event_id: &str,
        camera: &str,
        from_us: i64,
        found: &Whole,
        note: Option<String>,
    ) {
        self.kept = self.kept.saturating_add(on_disk(found.bytes));
        let from_us = found.from_us.unwrap_or(from_us);
        let about = About {
            format: found.format,
            camera: camera.to_owned(),
            from_us,
            until_us: from_us.saturating_add(found.duration_us),
            bytes: found.bytes,
            note,
        };
        if let Err(e) = self.table.put(&Entry { number, event_id: event_id.to_owned(), about }) {
            // Its file is found when files and rows are compared.
            self.note_failure(format!("store: {e}"));
        }
    }

    /// Brings files and rows in line: `first`, when this process begins, with what another one has left.
    fn compare(&mut self, first: bool, now: Instant) -> Result<(), String> {
        let items = self.shelf.items().map_err(|e| format!("{DIR}: {e}"))?;
        let rows = self.table.all().map_err(|e| format!("store: {e}"))?;
        let mut known: BTreeMap<i64, Entry> = rows.into_iter().map(|entry| (entry.number, entry)).collect();
        self.kept = 0;
        for item in items {
            let row = match item.format {
                Some(format) => known.remove(&item.number).filter(|e| e.about.format == format),
                None => None,
            };
            match row {
                Some(entry) if entry.about.bytes == item.bytes => self.kept += on_disk(item.bytes),
                row => self.find_place(item, row, first, now)?,
            }
        }
        for number in known.into_keys() {
            self.table.remove(number).map_err(|e| format!("store: {e}"))?;
        }
        Ok(())
    }

    /// A file of which the store knows nothing, or something else.
    fn find_place(
        &mut self,
        item: Item,
        row: Option<Entry>,
        first: bool,
        now: Instant,
    ) -> Result<(), String> {
        if self.open.contains_key(&item.number) {
            return Ok(());
        }
        let event = self.table.event(item.number).map_err(|e| format!("store: {e}"))?;
        let file =
            item.format.map_or_else(|| format!("{DIR}/{}.part", item.number), |f| name(item.number, f));
        let Some(event) = event else {
            tracing::warn!("clips: {file}: of an event that is not in the store, removed");
            return self.discard(item, &file);
        };
        let cry =
            serde_json::from_str::<Alert>(&event.body).ok().and_then(|alert| time(alert.data.onset.as_ref()));
        let from_us = cry.unwrap_or(0).saturating_sub(us(self.config.before_s));
        let Some(format) = item.format else {
            // Somebody may still write to it, who was told to end when the process before this one did.
            let given_up = if first { now + LEFT_ALONE } else { now };
            let (event_id, camera) = (event.event_id, event.camera);
            let (max_bytes, why) = (item.bytes, "it was being written when a process died");
            let open = Open { event_id, camera, from_us, max_bytes, told: true, longest: now, given_up, why };
            self.open.insert(item.number, open);
            return Ok(());
        };
        let mended = self.shelf.open_whole(item.number, format).and_then(|file| whole::mend(&file));
        match mended.map_err(|e| format!("{file}: {e}"))? {
            Some(found) if found.format == format => {
                let note = row.and_then(|entry| entry.about.note);
                self.register(item.number, &event.event_id, &event.camera, from_us, &found, note);
                Ok(())
            }
            _ => {
                tracing::warn!("clips: {file}: holds nothing that could be played, removed");
                self.discard(item, &file)
            }
        }
    }

    /// Removes a file that is of no use, and what the store knows of it.
    fn discard(&self, item: Item, file: &str) -> Result<(), String> {
        self.shelf.remove(item.number, item.format).map_err(|e| format!("{file}: cannot be removed: {e}"))?;
        self.table.remove(item.number).map_err(|e| format!("store: {e}"))
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
