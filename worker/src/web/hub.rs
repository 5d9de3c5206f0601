//! What the page knows: the newest state of the service, the newest events, and who wants to see it. Everything here is
//! bounded, and nobody who looks keeps anybody else waiting.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nursery_shared::{history::StoredEvent, message::Record, status::Status};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

/// Events that are kept here; older ones are asked of the store.
pub const KEPT: usize = 500;
/// How long the state is kept up to date for somebody who asked once.
const WANTED: Duration = Duration::from_secs(5);

/// An event as it is shown.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: i64,
    /// Its body as receivers get it, and its number.
    pub value: Value,
    text: Bytes,
}

impl Event {
    /// `None` for what is no JSON object, which the sink does not store.
    pub fn new(stored: &StoredEvent) -> Option<Self> {
        let mut value: Value = serde_json::from_str(&stored.json).ok()?;
        value.as_object_mut()?.insert("id".into(), stored.id.into());
        let text = Bytes::from(value.to_string());
        Some(Self { id: stored.id, value, text })
    }

    /// As JSON.
    pub fn text(&self) -> Bytes {
        self.text.clone()
    }
}

/// The newest cry of a camera.
#[derive(Debug, Clone, Default)]
struct Cry {
    event_id: String,
    onset: Value,
    /// Null while it goes on.
    offset: Value,
    score: Value,
}

#[derive(Default)]
struct State {
    status: Option<Status>,
    status_at: Option<Instant>,
    /// The document of it, made when somebody wants it.
    document: Option<Bytes>,
    events: VecDeque<Event>,
    /// Number of the newest event, kept or not.
    newest: i64,
    /// The newest events of the store are here; before that nothing is known of what cries, and nothing is new.
    filled: bool,
    cries: BTreeMap<String, Cry>,
    /// Rises with each state and with each event.
    status_version: u64,
    /// The events begin anew: another store.
    epoch: u64,
    watchers: usize,
    wanted_until: Option<Instant>,
    /// The state must not be asked for any more, nor anything else.
    closing: bool,
}

/// What is shared by everybody in this process.
pub struct Hub {
    state: Mutex<State>,
    /// Bumped with every change; who looks sees the newest, however long it was away.
    changes: watch::Sender<u64>,
    /// Somebody wants the state who did not before.
    wanted: Notify,
}

/// What has changed since somebody looked.
#[derive(Debug, Default)]
pub struct News {
    /// The present state, where it is another.
    pub status: Option<Bytes>,
    pub status_version: u64,
    /// Events after the one that was seen last, oldest first.
    pub events: Vec<Event>,
    /// Events are missing in between, or begin anew: what was seen is to be thrown away.
    pub reset: bool,
    pub epoch: u64,
    /// Number of the newest event; `None` while that is not known.
    pub newest: Option<i64>,
}

/// Somebody who wants to be kept up to date.
pub struct Watcher<'a>(&'a Hub);

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.0.lock().watchers -= 1;
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0), wanted: Notify::new() }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Sees every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps the state up to date for as long as the watcher lives.
    pub fn watch(&self) -> Watcher<'_> {
        self.lock().watchers += 1;
        self.wanted.notify_one();
        Watcher(self)
    }

    /// Keeps the state up to date for some seconds.
    pub fn want(&self) {
        self.lock().wanted_until = Some(Instant::now() + WANTED);
        self.wanted.notify_one();
    }

    fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.watchers > 0 || state.wanted_until.is_some_and(|t| Instant::now() < t)
    }

    /// Waits until somebody wants the state.
    pub async fn wanted(&self) {
        while !self.is_wanted() {
            self.wanted.notified().await;
        }
    }

    /// The state of the service now.
    pub fn set_status(&self, status: Status) {
        let mut state = self.lock();
        state.status = Some(status);
        state.status_at = Some(Instant::now());
        state.document = None;
        state.status_version += 1;
        drop(state);
        self.changed();
    }

    /// How old the state is; `None` before the first one.
    pub fn status_age(&self) -> Option<Duration> {
        self.lock().status_at.map(|t| t.elapsed())
    }

    /// Counts the states that there were.
    pub fn status_version(&self) -> u64 {
        self.lock().status_version
    }

    /// Takes in events that follow those that are here, oldest first.
    pub fn add_events(&self, stored: &[StoredEvent]) {
        if !stored.is_empty() {
            self.take_in(self.lock(), stored);
        }
    }

    /// Takes in the newest events of a store of which nothing is here yet, oldest first. From now on it is known what is
    /// new.
    pub fn fill(&self, stored: &[StoredEvent]) {
        let mut state = self.lock();
        state.filled = true;
        self.take_in(state, stored);
    }

    fn take_in(&self, mut state: MutexGuard<'_, State>, stored: &[StoredEvent]) {
        for event in stored.iter().filter_map(Event::new) {
            if event.id <= state.newest {
                continue;
            }
            state.newest = event.id;
            state.note_cry(&event.value);
            if state.events.len() == KEPT {
                state.events.pop_front();
            }
            state.events.push_back(event);
        }
        state.document = None;
        state.status_version += 1;
        drop(state);
        self.changed();
    }

    /// The store has other events than those that are here.
    pub fn begin_anew(&self) {
        let mut state = self.lock();
        state.events.clear();
        state.cries.clear();
        state.newest = 0;
        state.filled = false;
        state.epoch += 1;
        state.document = None;
        state.status_version += 1;
        drop(state);
        self.changed();
    }

    /// Number of the newest event that is here; 0 where there is none.
    pub fn newest(&self) -> i64 {
        self.lock().newest
    }

    /// Nothing more is to be shown.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed();
    }

    /// This process is about to end.
    pub fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// With the state of the service, where there is one.
    pub fn with_status<R>(&self, look: impl FnOnce(&Status) -> R) -> Option<R> {
        self.lock().status.as_ref().map(look)
    }

    /// The state as JSON: that of `nursery status --json`, and what is known of each camera's crying.
    pub fn document(&self) -> Option<Bytes> {
        self.lock().document()
    }

    /// What is new to somebody who has seen events up to `seen` (`None`: none, and wants none that are over), in this
    /// epoch, and this version of the state. Of events nothing is new before those of the store are here.
    pub fn news(&self, seen: Option<i64>, epoch: u64, version: u64) -> News {
        let mut state = self.lock();
        let status = (state.status_version != version).then(|| state.document()).flatten();
        let mut news = News {
            status,
            status_version: state.status_version,
            epoch: state.epoch,
            newest: state.filled.then_some(state.newest),
            ..News::default()
        };
        if let Some(seen) = seen.filter(|_| state.filled) {
            let oldest = state.events.front().map_or(state.newest + 1, |e| e.id);
            let complete = state.events.len() < KEPT || oldest <= seen + 1;
            news.reset = epoch != state.epoch || seen > state.newest || !complete;
            if !news.reset {
                news.events = state.events.iter().filter(|e| e.id > seen).cloned().collect();
            }
        }
        news
    }
}

impl State {
    fn note_cry(&mut self, event: &Value) {
        let data = &event["data"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("cry.started") => {
                let cry = Cry {
                    event_id: text(&data["event_id"]),
                    onset: data["onset"].clone(),
                    offset: Value::Null,
                    score: data["score"].clone(),
                };
                self.cries.insert(text(&data["camera"]), cry);
            }
            Some("cry.ended") => {
                let cry = self.cries.entry(text(&data["camera"])).or_default();
                cry.event_id = text(&data["event_id"]);
                cry.onset = data["onset"].clone();
                cry.offset = data["offset"].clone();
                cry.score = data["peak_score"].clone();
            }
            // One camera, or several that were lost together.
            Some("camera.offline") => {
                for camera in Record::cameras_in(data["camera"].as_str().unwrap_or_default()) {
                    // What it cries now nobody hears.
                    if let Some(cry) = self.cries.get_mut(camera).filter(|c| c.offset.is_null()) {
                        cry.offset = event["timestamp"].clone();
                    }
                }
            }
            _ => {}
        }
    }

    fn document(&mut self) -> Option<Bytes> {
        if self.document.is_none() {
            let mut value = serde_json::to_value(self.status.as_ref()?).ok()?;
            for camera in value["cameras"].as_array_mut().into_iter().flatten() {
                let cry = self.cries.get(camera["name"].as_str().unwrap_or_default());
                camera["crying"] = self.filled.then(|| cry.is_some_and(|c| c.offset.is_null())).into();
                camera["last_cry"] = cry.map_or(Value::Null, |c| {
                    json!({"event_id": c.event_id, "onset": c.onset, "offset": c.offset, "score": c.score})
                });
            }
            self.document = Some(Bytes::from(value.to_string()));
        }
        self.document.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn stored(id: i64, kind: &str, data: &Value) -> StoredEvent {
        let json = json!({"type": kind, "timestamp": "2026-01-31T02:03:04.500Z", "data": data}).to_string();
        StoredEvent { id, json }
    }

    fn cry(id: i64) -> StoredEvent {
        stored(id, "cry.started", &json!({"camera": "crib", "event_id": "e", "onset": "o", "score": 0.9}))
    }

    #[test]
    fn whoever_was_away_gets_what_is_missing_or_is_told_to_begin_anew() {
        let hub = Hub::default();
        hub.fill(&(1..=10).map(cry).collect::<Vec<_>>());
        let ids = |n: &News| n.events.iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(&hub.news(Some(7), 0, 0)), [8, 9, 10]);
        // The same ones again are nothing new.
        hub.add_events(&[cry(9), cry(10)]);
        assert!(hub.news(Some(10), 0, 0).events.is_empty());
        assert!(hub.news(Some(11), 0, 0).reset, "of a store that is gone");
        hub.add_events(&(11..=KEPT as i64 + 5).map(cry).collect::<Vec<_>>());
        assert!(hub.news(Some(3), 0, 0).reset, "what followed is no longer here");
        assert_eq!(hub.news(Some(5), 0, 0).events.len(), KEPT);
        hub.begin_anew();
        hub.fill(&[]);
        assert!(hub.news(Some(0), 0, 0).reset);
        assert!(!hub.news(Some(0), 1, 0).reset);
    }

    #[test]
    fn before_the_store_has_answered_nothing_is_new_and_nothing_is_said_to_be_quiet() {
        let hub = Hub::default();
        let crying = || {
            let document: Value = serde_json::from_slice(&hub.document().unwrap()).unwrap();
            (document["cameras"][0]["crying"].clone(), document["cameras"][0]["last_cry"]["event_id"].clone())
        };
        let camera = json!({"name": "crib", "state": "live", "level_dbfs": -30.0, "score": 0.9, "windows": 1, "dropped": 0,
            "last_audio_age_s": 0.1, "last_error": null, "pictures": false, "motion": null});
        let status = json!({"version": "0", "uptime_s": 1.0, "pid": 1, "workers": [], "cameras": [camera],
            "inference": {"workers": 1, "model": {"id": "m", "file": null, "next": null, "refused": null}, "auto": null,
                "queued": 0, "in_flight": 0, "scored": 1, "quarantined": 0, "latency_ms": {"p50": 1.0, "p99": 2.0}},
            "alerts": {"pending": 0, "delivered": 0, "failing_since": null}});
        hub.set_status(serde_json::from_value(status).unwrap());
        let news = hub.news(Some(7), 0, 0);
        assert_eq!((news.reset, news.events.len(), news.newest), (false, 0, None));
        assert_eq!(crying(), (Value::Null, Value::Null));
        hub.fill(&(1..=8).map(cry).collect::<Vec<_>>());
        let news = hub.news(Some(7), 0, 0);
        assert_eq!((news.reset, news.events.len(), news.newest), (false, 1, Some(8)));
        assert_eq!(crying(), (true.into(), "e".into()));
        // Another store: nothing before it is known.
        hub.begin_anew();
        let news = hub.news(Some(8), 0, 0);
        assert_eq!((news.reset, news.newest), (false, None));
        assert_eq!(crying(), (Value::Null, Value::Null));
        hub.fill(&[]);
        assert!(hub.news(Some(8), 0, 0).reset);
        assert_eq!(crying(), (false.into(), Value::Null));
    }

    #[test]
    fn crying_begins_and_ends_and_a_camera_that_is_lost_cries_no_more() {
        let hub = Hub::default();
        let crying = || hub.lock().cries.get("crib").is_some_and(|c| c.offset.is_null());
        hub.add_events(&[cry(1)]);
        assert!(crying());
        let end = json!({"camera": "crib", "event_id": "e", "onset": "o", "offset": "x", "peak_score": 0.99});
        hub.add_events(&[stored(2, "cry.ended", &end)]);
        assert!(!crying());
        hub.add_events(&[cry(3), stored(4, "camera.offline", &json!({"camera": "attic, crib"}))]);
        assert!(!crying());
    }

    #[tokio::test]
    async fn nobody_is_asked_while_nobody_looks() {
        let hub = Hub::default();
        let asked = |hub: &Hub| hub.is_wanted();
        assert!(!asked(&hub));
        let watcher = hub.watch();
        hub.wanted().await;
        drop(watcher);
        assert!(!asked(&hub));
        hub.want();
        assert!(asked(&hub));
    }
}
