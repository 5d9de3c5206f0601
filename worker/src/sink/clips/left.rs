//! What other processes have left: files that the store does not know, or knows otherwise, and events that go on and of which
//! nothing is kept yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use nursery_shared::timestamp;

use super::{
    Alert, Clips, DIR, LEFT_ALONE, Open, Said,
    shelf::{Item, Kind, on_disk},
    table::{Entry, Event},
    time, us,
};

impl Clips {
    /// Files of events that are not in the store are told apart from all that will be made: it was begun anew, and its numbers
    /// begin at one. Nothing else is done to them, they are kept as others are.
    pub(super) fn set_aside(&mut self) {
        let items = match self.shelf.items() {
            Ok((items, _)) => items,
            Err(e) => return self.note_failure(format!("{DIR}: {e}")),
        };
        let mut count = 0;
        for item in items {
            match self.table.event(item.number) {
                Ok(None) => count += usize::from(self.lose(&item)),
                Ok(Some(_)) => {}
                Err(e) => return self.note_failure(format!("store: {e}")),
            }
        }
        if count > 0 {
            tracing::warn!(
                "clips: {count} files of events that are not in the store are kept as {DIR}/lost-…: was it begun anew?"
            );
        }
        match self.shelf.items() {
            Ok((items, lost)) => {
                let whole = items.iter().filter(|item| matches!(item.kind, Kind::Whole(_)));
                let bytes = whole.map(|item| item.bytes).chain(lost.iter().map(|lost| lost.bytes));
                self.kept = bytes.map(on_disk).sum();
                self.lost = lost;
            }
            Err(e) => self.note_failure(format!("{DIR}: {e}")),
        }
    }

    fn lose(&mut self, item: &Item) -> bool {
        let lost = self.shelf.lose(item);
        if let Err(e) = &lost {
            self.note_failure(format!("{DIR}/{}: {e}", item.name()));
        }
        lost.is_ok()
    }

    /// Brings files and rows in line: `first`, when this process begins, with what another one has left. What fails with one
    /// file keeps none of the others.
    pub(super) fn compare(&mut self, first: bool, now: Instant) -> Result<(), String> {
        let (items, lost) = self.shelf.items().map_err(|e| format!("{DIR}: {e}"))?;
        let rows = self.table.all().map_err(|e| format!("store: {e}"))?;
        let mut known: BTreeMap<i64, Entry> = rows.into_iter().map(|entry| (entry.number, entry)).collect();
        let whole = items.iter().filter(|item| matches!(item.kind, Kind::Whole(_)));
        let bytes = whole.map(|item| item.bytes).chain(lost.iter().map(|lost| lost.bytes));
        self.kept = bytes.map(on_disk).sum();
        self.lost = lost;
        self.gone = BTreeSet::new();
        let mut outcome = Ok(());
        for item in items {
            let row = match item.kind {
                Kind::Whole(format) => known.remove(&item.number).filter(|e| e.about.format == format),
                Kind::Part(_) => None,
            };
            if row.as_ref().is_none_or(|entry| entry.about.bytes != item.bytes) {
                outcome = self.find_place(&item, row, first, now).and(outcome);
            }
        }
        for number in known.into_keys() {
            outcome = self.table.remove(number).map_err(|e| format!("store: {e}")).and(outcome);
        }
        outcome
    }

    /// A file of which the store knows nothing, or something else.
    fn find_place(
        &mut self,
        item: &Item,
        row: Option<Entry>,
        first: bool,
        now: Instant,
    ) -> Result<(), String> {
        if self.open.contains_key(&item.number) {
            return Ok(());
        }
        let event = self.table.event(item.number).map_err(|e| format!("store: {e}"))?;
        let Some(Event { event_id, camera, body, .. }) = event else {
            self.lose(item);
            self.compare_soon(now);
            return Ok(());
        };
        let onset_us =
            serde_json::from_str::<Alert>(&body).ok().and_then(|alert| time(alert.data.onset.as_ref()));
        let from_us = onset_us.unwrap_or_else(timestamp::now_us).saturating_sub(us(self.config.before_s));
        let (tries, given_up, note) = match item.kind {
            // Somebody may still write to it, who was told to end when the process before this one did.
            Kind::Part(tries) => {
                let given_up = if first { now + LEFT_ALONE } else { now };
                (tries, given_up, Some("it was being written when a process died".to_owned()))
            }
            // It is made whole as those are that were never complete.
            Kind::Whole(format) => {
                let failed = |e| format!("{DIR}/{}: {e}", item.name());
                self.shelf.take_back(item.number, format).map_err(failed)?;
                self.kept = self.kept.saturating_sub(on_disk(item.bytes));
                (0, now, row.and_then(|entry| entry.about.note))
            }
        };
        let (max_bytes, longest) = (item.bytes, now);
        let open = Open {
            event_id,
            camera,
            from_us,
            max_bytes,
            told: true,
            longest,
            given_up,
            note,
            tries,
            failures: 0,
            left: true,
        };
        self.open.insert(item.number, open);
        Ok(())
    }

    /// Events that go on and have no clip have one from now on: the process that announced them died before it could say so, and
    /// cameras' processes still know what came before.
    pub(super) fn go_on(&mut self, now: Instant) -> Vec<Said> {
        if self.config.enabled != Some(true) {
            return Vec::new();
        }
        let bodies = match self.table.open_without_clip() {
            Ok(bodies) => bodies,
            Err(e) => {
                self.note_failure(format!("store: {e}"));
                return Vec::new();
            }
        };
        let mut said = Vec::new();
        for event in bodies.iter().filter_map(|body| serde_json::from_str::<Alert>(body).ok()).map(|a| a.data)
        {
            let Some(onset_us) = time(event.onset.as_ref()) else { continue };
            let longest = us(self.config.max_s) - us(self.config.before_s);
            let ago = timestamp::now_us().saturating_sub(onset_us);
            let written = self.open.values().any(|open| open.event_id == event.event_id);
            if written || !(0..longest).contains(&ago) {
                continue;
            }
            match self.begin(&event, now) {
                Ok(one) => said.push(one),
                Err(why) => self.note_failure(format!("none of camera {}: {why}", event.camera)),
            }
        }
        said
    }
}
