//! The ledger: what was played before which camera and when it could be heard, held against what the receiver got.
//!
//! A bout of crying is *owed* when [`HEARABLE`] of it in one piece were played while its camera could be heard. One that
//! could be heard for as long, but only from its midst on and by a model that has forgotten the room (after the death of
//! the supervisor, or half a minute) or has heard noise in its place, is counted apart: it has nothing to hold the crying
//! against, and often, but not always, tells it for what it is. A camera is *deaf*, and what is played then is not owed,
//! only
//! - from half a second before something is done to the camera, or to its capture process, that ends its audio (what it
//!   had heard and not yet told dies with it), until new windows of it arrive;
//! - from a second before the supervisor is killed (windows in flight die with it) until new windows arrive;
//! - while the supervisor is stopped for longer than capture processes and queues keep audio;
//! - while the service itself counts windows of it as dropped, and for as long before as windows wait.
//!
//! Everything else (dead and frozen inference processes and sinks, capture processes that stand still and go on, a
//! supervisor that is stopped for some seconds, full disks, receivers that refuse) excuses nothing. Of a bout that is owed a start and an end are
//! expected, and where nothing disturbed its camera exactly one of each.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use nursery_shared::timestamp;
use serde::Serialize;

use crate::receiver::Request;

/// Seconds of one bout.
pub const BOUT: Duration = Duration::from_secs(8);
/// At the least so much quiet between two bouts of one camera, so that nobody takes one for the other.
pub const QUIET: Duration = Duration::from_secs(14);
/// A bout of which so much was heard in one piece must be announced.
pub const HEARABLE: Duration = Duration::from_secs(4);
/// So much of the quiet before a bout tells a model that knows nothing what the room is like.
const LEAD: Duration = Duration::from_secs(2);
/// After this long a model is not given what it remembered of a camera any more; less than the 30 s that it is.
const FORGETS: Duration = Duration::from_secs(25);
/// What the onset of an announced event may lie before or after the times at which its bout was played.
const SLACK_US: i64 = 5_000_000;
/// Around a bout in which a deaf camera may split it in two events: until an end is decided.
const AROUND: Duration = Duration::from_secs(4);

struct Bout {
    camera: usize,
    from: Instant,
    from_us: i64,
    to: Option<(Instant, i64)>,
}

struct Deaf {
    camera: usize,
    from: Instant,
    to: Option<Instant>,
    why: String,
    /// What was known of the room is forgotten with it, or spoilt by what is heard instead.
    forgets: bool,
}

/// A camera that sent nothing for longer than it may.
struct Outage {
    camera: usize,
    from_us: i64,
    to_us: Option<i64>,
}

#[derive(Default)]
struct Pages {
    bouts: Vec<Bout>,
    deaf: Vec<Deaf>,
    outages: Vec<Outage>,
}

/// What was played, and who could not be heard when.
#[derive(Default)]
pub struct Ledger {
    pages: Mutex<Pages>,
}

/// What the comparison brought.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Bouts that were played.
    pub bouts: usize,
    /// Of these, those that had to be announced.
    pub owed: usize,
    /// Those that were heard for long enough, but from their midst on and by a model that knew nothing of the room, and
    /// how many of them were announced.
    pub from_the_midst: usize,
    pub from_the_midst_announced: usize,
    /// Of those that did not have to be, how many were all the same, and why they did not have to be.
    pub not_owed: usize,
    pub not_owed_but_announced: usize,
    pub why_not_owed: BTreeMap<String, usize>,
    /// A start and an end of each that is owed.
    pub alerts_expected: usize,
    /// Of these, those that came.
    pub alerts_received: usize,
    /// Cameras that sent nothing for longer than they may, and those of them that were announced as offline.
    pub outages: usize,
    pub outages_announced: usize,
    /// Accepted alerts with different ids, of all types.
    pub alerts_in_all: usize,
    /// Deliveries of an id that had been accepted before.
    pub duplicates_by_id: usize,
    /// Attempts that the receiver refused or did not answer.
    pub refused: usize,
    /// Alerts that were owed and did not come.
    pub lost: Vec<String>,
    /// Two ids for one event and type, two events for one undisturbed bout, wrong order, wrong signatures.
    pub wrong: Vec<String>,
    /// Events for which nothing was played.
    pub unasked: Vec<String>,
}

impl Ledger {
    /// A bout begins before this camera; returns its number.
    pub fn bout_begins(&self, camera: usize) -> usize {
        let mut pages = self.pages.lock().unwrap();
        pages.bouts.push(Bout { camera, from: Instant::now(), from_us: timestamp::now_us(), to: None });
        pages.bouts.len() - 1
    }

    /// The bout of this number is over.
    pub fn bout_ends(&self, number: usize) {
        self.pages.lock().unwrap().bouts[number].to = Some((Instant::now(), timestamp::now_us()));
    }

    /// A camera cannot be heard from so long ago on; returns a number for [`hears_again`](Self::hears_again).
    /// `forgets`: afterwards nothing is known of the room, or what is known is wrong.
    pub fn deaf(&self, camera: usize, before: Duration, forgets: bool, why: &str) -> usize {
        let mut pages = self.pages.lock().unwrap();
        let from = Instant::now().checked_sub(before).unwrap_or_else(Instant::now);
        pages.deaf.push(Deaf { camera, from, to: None, why: why.to_owned(), forgets });
        pages.deaf.len() - 1
    }

    /// It is heard again.
    pub fn hears_again(&self, number: usize) {
        self.pages.lock().unwrap().deaf[number].to = Some(Instant::now());
    }

    /// A camera begins to send nothing, for longer than it may; returns a number for
    /// [`outage_ends`](Self::outage_ends).
    pub fn outage_begins(&self, camera: usize) -> usize {
        let mut pages = self.pages.lock().unwrap();
        pages.outages.push(Outage { camera, from_us: timestamp::now_us(), to_us: None });
        pages.outages.len() - 1
    }

    /// It sends again.
    pub fn outage_ends(&self, number: usize) {
        self.pages.lock().unwrap().outages[number].to_us = Some(timestamp::now_us());
    }

    /// Holds what was played against what came.
    pub fn judge(&self, names: &[String], requests: &[Request]) -> Verdict {
        let pages = self.pages.lock().unwrap();
        let mut verdict = Verdict { bouts: pages.bouts.len(), ..Verdict::default() };
        let events = Events::of(requests, &mut verdict);
        let mut asked: HashSet<&str> = HashSet::new();
        for bout in &pages.bouts {
            let name = &names[bout.camera];
            let found: Vec<&Event> = events.of_bout(name, bout);
            asked.extend(found.iter().map(|e| e.id.as_str()));
            let (hearable, longest, why) = pages.hearable(bout);
            if hearable < HEARABLE {
                if longest >= HEARABLE {
                    verdict.from_the_midst += 1;
                    verdict.from_the_midst_announced += usize::from(!found.is_empty());
                    continue;
                }
                verdict.not_owed += 1;
                verdict.not_owed_but_announced += usize::from(!found.is_empty());
                *verdict.why_not_owed.entry(why.unwrap_or_default()).or_default() += 1;
                continue;
            }
            verdict.owed += 1;
            verdict.alerts_expected += 2;
            let place = || format!("{name} at {}", timestamp::rfc3339(bout.from_us));
            let came = [!found.is_empty(), found.iter().any(|e| e.ended)];
            for (came, kind) in came.into_iter().zip(["cry.started", "cry.ended"]) {
                verdict.alerts_received += usize::from(came);
                if !came {
                    verdict.lost.push(format!(
                        "{kind} of {} ({:.1} s hearable)",
                        place(),
                        hearable.as_secs_f64()
                    ));
                }
            }
            if found.len() > 1 && !pages.disturbed(bout) {
                verdict.wrong.push(format!("{} events for the one bout of {}", found.len(), place()));
            }
        }
        for outage in &pages.outages {
            verdict.outages += 1;
            let name = &names[outage.camera];
            if events.tell_of(name, outage) {
                verdict.outages_announced += 1;
            } else {
                let from = timestamp::rfc3339(outage.from_us);
                verdict.lost.push(format!("camera.offline of {name}, silent from {from} on"));
            }
        }
        for event in events.all.values().filter(|e| !asked.contains(e.id.as_str())) {
            let camera = names.iter().position(|n| *n == event.camera);
            if !camera.is_some_and(|camera| pages.was_deaf_about(camera, event.onset_us)) {
                verdict.unasked.push(format!("{} at {}", event.camera, timestamp::rfc3339(event.onset_us)));
            }
        }
        verdict
    }
}

impl Pages {
    /// The longest piece of a bout in which its camera could be heard by a model that knew the room; the longest piece
    /// of all; and what was in the way.
    fn hearable(&self, bout: &Bout) -> (Duration, Duration, Option<String>) {
        let Some((to, _)) = bout.to else {
            return (Duration::ZERO, Duration::ZERO, Some("not over yet".into()));
        };
        let begin = bout.from.checked_sub(LEAD).unwrap_or(bout.from);
        let mut pieces = vec![(begin, to, true)];
        let mut why = None;
        for deaf in self.deaf.iter().filter(|d| d.camera == bout.camera) {
            let end = deaf.to.unwrap_or(to + AROUND);
            if deaf.from >= to || end <= begin {
                continue;
            }
            why.get_or_insert_with(|| deaf.why.clone());
            let forgets = deaf.forgets || end - deaf.from > FORGETS;
            let split = |(from, to, knows): (Instant, Instant, bool)| {
                // What follows it is heard without knowledge, until there was a quiet room.
                [(from, to.min(deaf.from), knows), (from.max(end), to, knows && !(forgets && to > end))]
            };
            pieces = pieces.into_iter().flat_map(split).filter(|(from, to, _)| from < to).collect();
        }
        let of_bout = |from: &Instant, to: &Instant| to.saturating_duration_since(bout.from.max(*from));
        let longest = |known: bool| {
            let pieces = pieces.iter().filter(|(.., knows)| *knows || !known);
            pieces.map(|(from, to, _)| of_bout(from, to)).max().unwrap_or_default()
        };
        (longest(true), longest(false), why)
    }

    fn disturbed(&self, bout: &Bout) -> bool {
        let Some((to, _)) = bout.to else { return true };
        self.deaf.iter().any(|d| {
            d.camera == bout.camera && d.from < to + AROUND && d.to.is_none_or(|end| end + AROUND > bout.from)
        })
    }

    fn was_deaf_about(&self, camera: usize, at_us: i64) -> bool {
        let (now, now_us) = (Instant::now(), timestamp::now_us());
        let ago = Duration::from_micros((now_us - at_us).max(0).unsigned_abs());
        let Some(at) = now.checked_sub(ago) else { return false };
        self.deaf
            .iter()
            .any(|d| d.camera == camera && d.from < at + AROUND && d.to.is_none_or(|end| end + AROUND > at))
    }
}

/// One event as its receiver knows it.
struct Event {
    id: String,
    camera: String,
    onset_us: i64,
    ended: bool,
}

struct Events {
    all: BTreeMap<String, Event>,
    /// Camera, and since when it was not heard.
    offline: Vec<(String, i64)>,
}

impl Events {
    /// Reads what was accepted, and notes what is wrong with it.
    fn of(requests: &[Request], verdict: &mut Verdict) -> Self {
        let mut ids: HashMap<&str, &Request> = HashMap::new();
        let mut by_event: HashMap<(&str, &str), &str> = HashMap::new();
        let mut all: BTreeMap<String, Event> = BTreeMap::new();
        for request in requests {
            verdict.wrong.extend(request.faults.iter().cloned());
            let earlier = ids.entry(&request.id).or_insert(request);
            if earlier.body != request.body {
                verdict.wrong.push(format!("two alerts with the id {}", request.id));
            }
            let other = *by_event.entry((request.event_id(), request.kind())).or_insert(&request.id);
            if other != request.id {
                verdict.wrong.push(format!(
                    "two ids for {} of event {}: {other} and {}",
                    request.kind(),
                    request.event_id(),
                    request.id
                ));
            }
        }
        let mut accepted: HashSet<&str> = HashSet::new();
        let mut offline = Vec::new();
        for request in requests {
            if !request.answered.is_some_and(|status| (200..300).contains(&status)) {
                verdict.refused += 1;
                continue;
            }
            if !accepted.insert(&request.id) {
                verdict.duplicates_by_id += 1;
                continue;
            }
            match request.kind() {
                "cry.started" => {
                    let onset = request.body["data"]["onset"].as_str().unwrap_or_default();
                    let event = Event {
                        id: request.event_id().to_owned(),
                        camera: request.camera().to_owned(),
                        onset_us: timestamp::parse_since(onset).unwrap_or_default(),
                        ended: false,
                    };
                    all.insert(event.id.clone(), event);
                }
                "cry.ended" => match all.get_mut(request.event_id()) {
                    Some(event) => event.ended = true,
                    None => verdict.wrong.push(format!("{} ended before it started", request.event_id())),
                },
                "camera.offline" => {
                    // Those that fell silent at once are told of at once.
                    let data = &request.body["data"];
                    let several = data["cameras"].as_array().map_or(&[][..], Vec::as_slice);
                    for one in std::iter::once(data).chain(several) {
                        let since = one["since"].as_str().unwrap_or_default();
                        let camera = one["camera"].as_str().unwrap_or_default();
                        let since_us = timestamp::parse_since(since).unwrap_or_default();
                        offline.push((camera.to_owned(), since_us));
                    }
                }
                _ => {}
            }
        }
        verdict.alerts_in_all = accepted.len();
        Self { all, offline }
    }

    /// The outage was announced: one of its camera that began about when it did, or before and went on.
    fn tell_of(&self, name: &str, outage: &Outage) -> bool {
        let to_us = outage.to_us.unwrap_or(i64::MAX);
        self.offline.iter().any(|(camera, since_us)| {
            camera == name && (outage.from_us - 3 * SLACK_US..to_us).contains(since_us)
        })
    }

    fn of_bout(&self, name: &str, bout: &Bout) -> Vec<&Event> {
        let to_us = bout.to.map_or(i64::MAX - SLACK_US, |(_, us)| us);
        let during = |e: &&Event| {
            e.camera == name && e.onset_us > bout.from_us - SLACK_US && e.onset_us < to_us + SLACK_US
        };
        self.all.values().filter(during).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names() -> Vec<String> {
        vec!["a".into(), "b".into()]
    }

    fn request(id: &str, event: &str, kind: &str, onset_us: i64, answered: u16) -> Request {
        let data = json!({"event_id": event, "camera": "a", "onset": timestamp::rfc3339(onset_us)});
        Request {
            id: id.into(),
            body: json!({"type": kind, "data": data}),
            faults: Vec::new(),
            answered: Some(answered),
            at: Instant::now(),
        }
    }

    /// A ledger with one bout of eight seconds before `a` that has just ended; returns its beginning too.
    fn one_bout() -> (Ledger, i64) {
        let ledger = Ledger::default();
        let number = ledger.bout_begins(0);
        {
            let bout = &mut ledger.pages.lock().unwrap().bouts[0];
            bout.from -= BOUT;
            bout.from_us -= BOUT.as_micros() as i64;
        }
        ledger.bout_ends(number);
        let from_us = ledger.pages.lock().unwrap().bouts[0].from_us;
        (ledger, from_us)
    }

    #[test]
    fn a_bout_that_was_not_announced_is_lost_and_one_that_was_not_ended_too() {
        let (ledger, at) = one_bout();
        let verdict = ledger.judge(&names(), &[]);
        assert_eq!((verdict.owed, verdict.lost.len(), verdict.alerts_expected), (1, 2, 2));
        let started = request("1", "e", "cry.started", at + 300_000, 204);
        assert_eq!(ledger.judge(&names(), std::slice::from_ref(&started)).lost.len(), 1);
        let ended = request("2", "e", "cry.ended", at + 300_000, 204);
        let verdict = ledger.judge(&names(), &[started, ended]);
        assert_eq!((verdict.lost.len(), verdict.wrong.len(), verdict.alerts_received), (0, 0, 2));
        let refused = request("1", "e", "cry.started", at, 500);
        let verdict = ledger.judge(&names(), &[refused]);
        assert_eq!((verdict.lost.len(), verdict.refused), (2, 1));
    }

    #[test]
    fn an_outage_is_announced_alone_or_together_with_others() {
        let ledger = Ledger::default();
        let number = ledger.outage_begins(1);
        ledger.outage_ends(number);
        let from_us = ledger.pages.lock().unwrap().outages[0].from_us;
        let one = |camera: &str| json!({"event_id": camera, "camera": camera, "since": timestamp::rfc3339(from_us)});
        let mut alert = request("1", "g", "camera.offline", 0, 204);
        assert_eq!(ledger.judge(&names(), std::slice::from_ref(&alert)).lost.len(), 1);
        alert.body["data"] = one("b");
        assert_eq!(ledger.judge(&names(), std::slice::from_ref(&alert)).outages_announced, 1);
        alert.body["data"] = one("a, b");
        assert_eq!(ledger.judge(&names(), std::slice::from_ref(&alert)).lost.len(), 1);
        alert.body["data"]["cameras"] = json!([one("a"), one("b")]);
        let verdict = ledger.judge(&names(), &[alert]);
        assert_eq!((verdict.outages_announced, verdict.lost.len()), (1, 0));
    }

    #[test]
    fn the_same_id_again_is_a_duplicate_and_another_id_is_wrong() {
        let (ledger, at) = one_bout();
        let alerts = |ids: [&str; 2]| {
            let mut list: Vec<Request> =
                ids.iter().map(|id| request(id, "e", "cry.started", at, 204)).collect();
            list.push(request("9", "e", "cry.ended", at, 204));
            ledger.judge(&names(), &list)
        };
        let verdict = alerts(["1", "1"]);
        assert_eq!((verdict.duplicates_by_id, verdict.wrong.len()), (1, 0));
        assert_eq!(alerts(["1", "2"]).wrong.len(), 1);
    }

    #[test]
    fn two_events_for_one_undisturbed_bout_are_wrong_and_events_without_a_bout_are_unasked() {
        let (ledger, at) = one_bout();
        let mut list = Vec::new();
        for (n, onset) in [at, at + 4_000_000, at - 60_000_000].into_iter().enumerate() {
            list.push(request(&format!("s{n}"), &format!("e{n}"), "cry.started", onset, 204));
            list.push(request(&format!("e{n}"), &format!("e{n}"), "cry.ended", onset, 204));
        }
        let verdict = ledger.judge(&names(), &list);
        assert_eq!((verdict.wrong.len(), verdict.unasked.len(), verdict.lost.len()), (1, 1, 0));
    }

    #[test]
    fn what_a_deaf_camera_missed_is_not_owed_and_what_it_could_hear_for_long_enough_is() {
        let missed = |before: Duration| {
            let (ledger, _) = one_bout();
            let number = ledger.deaf(0, before, false, "SIGKILL");
            ledger.hears_again(number);
            let verdict = ledger.judge(&names(), &[]);
            (verdict.owed, verdict.from_the_midst, verdict.why_not_owed.get("SIGKILL").copied().unwrap_or(0))
        };
        assert_eq!(missed(Duration::from_secs(7)), (0, 0, 1));
        assert_eq!(missed(Duration::from_secs(3)), (1, 0, 0));
        for (forgets, expected) in [(false, (1, 0)), (true, (0, 1))] {
            let (ledger, _) = one_bout();
            let deaf = ledger.deaf(0, BOUT + Duration::from_secs(1), forgets, "SIGKILL");
            let early = Instant::now() - Duration::from_secs(6);
            ledger.pages.lock().unwrap().deaf[deaf].to = Some(early);
            let verdict = ledger.judge(&names(), &[]);
            assert_eq!((verdict.owed, verdict.from_the_midst), expected, "it is heard from the midst on");
        }
        let (ledger, _) = one_bout();
        ledger.deaf(1, BOUT, false, "another camera");
        assert_eq!(ledger.judge(&names(), &[]).owed, 1);
    }
}
