//! What clips may take of the disk: as much as is allowed, and never what the store needs. The oldest give way.

use std::{path::Path, time::Instant};

use nursery_shared::{clip::MAX_BYTES, timestamp};

use super::{
    Clips, DIR, GROWTH, LOOK, Open, REMEMBERED,
    disk::Disk,
    name,
    shelf::{Kind, Lost, Shelf, on_disk},
    table::Entry,
    us,
};

/// Removes the oldest clips in a directory whose store cannot be opened for want of room; true where there is some now.
pub fn give_way_unseen(store: &Path) -> bool {
    let shelf = Shelf::new(store);
    let Ok(disk) = Disk::of(store) else { return false };
    let removed = if disk.holds(shelf.path()) { shelf.remove_oldest(disk.floor().max(1)) } else { 0 };
    if removed > 0 {
        tracing::warn!(
            "clips: the oldest were removed, {removed} bytes: the store found no room on the disk"
        );
    }
    removed > 0
}

impl Clips {
    pub(super) fn keep_bytes(&self) -> u64 {
        self.config.keep_mb.saturating_mul(1 << 20)
    }

    /// What all of them together may take: as they are allowed, and as the disk allows.
    fn bound(&self) -> u64 {
        self.keep_bytes().min(self.room)
    }

    /// What all of them together take.
    fn taken(&self) -> u64 {
        let written = |(number, open): (&i64, &Open)| on_disk(self.shelf.part_bytes(*number, open.tries));
        self.open.iter().map(written).sum::<u64>().saturating_add(self.kept)
    }

    /// Sees how much room the disk has.
    pub(super) fn measure(&mut self, now: Instant) {
        let taken = i64::try_from(self.taken()).unwrap_or(i64::MAX);
        self.room = match self.disk.spare(self.shelf.path(), now) {
            Some(spare) => u64::try_from(taken.saturating_add(spare)).unwrap_or(0),
            None => u64::MAX,
        };
    }

    /// Sees to it that all of them together stay within their bounds until the next look.
    pub(super) fn look(&mut self, now: Instant) {
        if self.looked_at.is_some_and(|t| now.saturating_duration_since(t) < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let now_us = timestamp::now_us();
        let before = now_us.saturating_sub(us(self.config.keep_days * 86_400.0));
        while self.lost.first().is_some_and(|lost| lost.written_us < before) {
            if self.remove_lost().is_none() {
                break;
            }
        }
        while let Ok(oldest) = self.table.oldest(now_us, 32) {
            let old: Vec<Entry> = oldest.into_iter().filter(|e| e.about.until_us < before).collect();
            if old.is_empty() || !old.iter().all(|entry| self.remove(entry).1) {
                break;
            }
        }
        if self.kept > 0 || !self.open.is_empty() {
            self.measure(now);
            // What they may grow to by the next look is too much to end them for.
            self.cramped = !self.make_room(0, now) && self.room < self.taken();
        }
    }

    /// What a new clip may come to: with all that others may still come to, there is room for each.
    pub(super) fn share(&self) -> rusqlite::Result<u64> {
        let promised: u64 = self.open.values().map(|o| on_disk(o.max_bytes)).sum();
        let fixed = self.table.bytes_of_open_events(timestamp::now_us())?;
        let left = self.bound().saturating_sub(promised).saturating_sub(fixed);
        Ok((left / 4).min(MAX_BYTES))
    }

    /// Removes the oldest clips until there is room for what is being written, and for so much more; false where that
    /// cannot be.
    pub(super) fn make_room(&mut self, more: u64, now: Instant) -> bool {
        let growing = |(number, open): (&i64, &Open)| {
            let bytes = self.shelf.part_bytes(*number, open.tries);
            let soon = GROWTH.max((REMEMBERED + GROWTH).saturating_sub(bytes));
            on_disk(bytes) + on_disk(open.max_bytes.saturating_sub(bytes).min(soon))
        };
        let growing: u64 = self.open.iter().map(growing).sum();
        let bound = self.bound();
        let fits = |kept: u64| kept.saturating_add(growing).saturating_add(more) <= bound;
        if fits(self.kept) {
            return true;
        }
        if self.room < self.keep_bytes() && !std::mem::replace(&mut self.scarce, true) {
            let spare = self.disk.free() >> 20;
            tracing::warn!(
                "clips: the disk has {spare} MiB left: clips give way to the store before they take what they may"
            );
        }
        let (before, free) = (self.kept, self.disk.free());
        let made = self.remove_until(fits);
        self.disk.removed(before.saturating_sub(self.kept), free, now);
        made
    }

    fn remove_until(&mut self, fits: impl Fn(u64) -> bool) -> bool {
        while !fits(self.kept) {
            if !self.lost.is_empty() {
                if self.remove_lost().is_none() {
                    return false;
                }
                continue;
            }
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
                if !self.remove(&entry).1 {
                    return false;
                }
            }
        }
        true
    }

    /// The store finds no room on the disk: removes the oldest clips, as much as it is to have; true where that was anything.
    pub fn give_way(&mut self, now: Instant) -> bool {
        self.looked_at = None;
        if !self.disk.holds(self.shelf.path()) {
            return false;
        }
        let want = self.disk.floor().max(1);
        let mut gone = 0;
        while gone < want {
            let Some(bytes) = self.remove_lost() else { break };
            gone += bytes;
        }
        // Rows of these may stay where there is no room to note even that; their files make some.
        let oldest = self.table.oldest(timestamp::now_us(), 1024).unwrap_or_default();
        for entry in oldest {
            if gone >= want {
                break;
            }
            let (bytes, noted) = self.remove(&entry);
            gone += bytes;
            if !noted {
                self.compare_soon(now);
            }
        }
        if gone > 0 {
            let mib = gone >> 20;
            tracing::warn!("clips: the oldest were removed, {mib} MiB: the store found no room on the disk");
        } else {
            self.cramped = !self.open.is_empty();
        }
        gone > 0
    }

    /// Removes the oldest of those that belong to no event; `None` where there is none, or it stays.
    fn remove_lost(&mut self) -> Option<u64> {
        let lost: Lost = self.lost.first().cloned()?;
        if let Err(e) = self.shelf.remove_lost(&lost) {
            self.note_failure(format!("{DIR}: a file cannot be removed: {e}"));
            return None;
        }
        self.lost.remove(0);
        let bytes = on_disk(lost.bytes);
        self.kept = self.kept.saturating_sub(bytes);
        Some(bytes)
    }

    /// Removes a clip: its file first, since a row without one is found, and a file without a row would come back. Returns
    /// the bytes that were removed, and whether all of it went well.
    fn remove(&mut self, entry: &Entry) -> (u64, bool) {
        let bytes = on_disk(entry.about.bytes);
        let removed = match self.shelf.remove(entry.number, Kind::Whole(entry.about.format)) {
            Ok(removed) => removed,
            Err(e) => {
                let file = name(entry.number, entry.about.format);
                self.note_failure(format!("{DIR}/{file}: cannot be removed: {e}"));
                return (0, false);
            }
        };
        if !self.gone.contains(&entry.number) {
            self.kept = self.kept.saturating_sub(bytes);
        }
        let noted = self.table.remove(entry.number);
        match &noted {
            Ok(()) => self.gone.remove(&entry.number),
            Err(_) => self.gone.insert(entry.number),
        };
        if let Err(e) = &noted {
            self.note_failure(format!("store: {e}"));
        }
        (if removed { bytes } else { 0 }, noted.is_ok())
    }
}
