//! What a record of the supervisor does to the states of the cameras it is about, and which alerts it brings about.
//! Cameras that are lost at once are one alert.

use std::collections::HashMap;

use nursery_shared::{
    message::{Lost, Record, RecordKind},
    timestamp::{now_us, rfc3339},
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    camera::{CameraState, OutageData, alert},
    store::NewAlert,
};

/// Whose state an overload is: no camera can be called so.
const ALL: &str = "*";

#[derive(Serialize)]
struct GroupData<'a> {
    event_id: &'a str,
    /// All names.
    camera: &'a str,
    since: String,
    reason: &'a str,
    cameras: Vec<OutageData<'a>>,
}

/// Takes a record in and appends the alerts that follow. A camera that is in `states` is changed there, another one is
/// put there as `begin` says.
pub fn apply(
    record: &Record,
    states: &mut HashMap<String, CameraState>,
    begin: impl Fn(&str) -> CameraState,
    alerts: &mut Vec<NewAlert>,
) {
    let mut state_of = |name: &str, act: &mut dyn FnMut(&mut CameraState)| {
        act(states.entry(name.to_owned()).or_insert_with(|| begin(name)));
    };
    match &record.what {
        RecordKind::Offline(lost) => {
            let mut new: Vec<(String, &Lost)> = Vec::new();
            for one in lost {
                state_of(&one.camera, &mut |state| {
                    new.extend(state.lose(one, alerts).map(|event_id| (event_id, one)));
                });
            }
            alerts.extend(outage(&new));
        }
        RecordKind::SetAside(_) => {}
        RecordKind::Overloaded(overload) => {
            state_of(ALL, &mut |state| state.overload(&record.camera, overload, alerts));
        }
        RecordKind::Relieved { at_us } => state_of(ALL, &mut |state| state.relieve(*at_us, alerts)),
        what => state_of(&record.camera, &mut |state| state.apply(&record.camera, what, alerts)),
    }
}

/// The alert of cameras that were lost at once, each with the id of its own outage, under which its return will be
/// announced.
fn outage(lost: &[(String, &Lost)]) -> Option<NewAlert> {
    match lost {
        [] => None,
        [(event_id, alone)] => {
            let data = OutageData::lost(event_id, alone);
            Some(alert("camera.offline", event_id, &alone.camera, now_us(), data))
        }
        [(_, first), ..] => {
            let names: Vec<&str> = lost.iter().map(|(_, l)| l.camera.as_str()).collect();
            let (event_id, names) = (Uuid::now_v7().to_string(), Record::name_of(&names));
            let same = lost.iter().all(|(_, l)| l.reason == first.reason);
            let data = GroupData {
                event_id: &event_id,
                camera: &names,
                since: rfc3339(lost.iter().map(|(_, l)| l.since_us).min().unwrap_or(first.since_us)),
                reason: if same { &first.reason } else { "several reasons" },
                cameras: lost.iter().map(|(id, one)| OutageData::lost(id, one)).collect(),
            };
            Some(alert("camera.offline", &event_id, &names, now_us(), data))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nursery_shared::{config::DetectionConfig, message::Overload};

    use super::*;

    fn lost(camera: &str, since_us: i64, reason: &str) -> Lost {
        Lost { camera: camera.into(), since_us, reason: reason.into() }
    }

    fn take(states: &mut HashMap<String, CameraState>, camera: &str, what: RecordKind) -> Vec<NewAlert> {
        let mut alerts = Vec::new();
        let record = Record { camera: camera.into(), what };
        apply(&record, states, |_| CameraState::new(&DetectionConfig::default()), &mut alerts);
        alerts
    }

    fn body(alert: &NewAlert) -> serde_json::Value {
        serde_json::from_str(&alert.body).unwrap()
    }

    #[test]
    fn cameras_lost_at_once_are_one_alert_and_each_comes_back_under_its_own_event() {
        let mut states = HashMap::new();
        let three = vec![lost("a", 3_000_000, "no audio"), lost("b", 2_000_000, "no audio")];
        let told = take(&mut states, "a, b", RecordKind::Offline(three));
        assert_eq!(told.len(), 1);
        let offline = body(&told[0]);
        assert_eq!((&told[0].camera[..], told[0].kind), ("a, b", "camera.offline"));
        assert_eq!(offline["data"]["camera"], "a, b");
        assert_eq!(offline["data"]["reason"], "no audio");
        assert_eq!(offline["data"]["since"], "1970-01-01T00:00:02.000Z");
        assert_eq!(offline["data"]["cameras"][1]["camera"], "b");
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            let back = take(&mut states, name, RecordKind::Online { at_us: 9_000_000 });
            assert_eq!(body(&back[0])["data"]["event_id"], offline["data"]["cameras"][i]["event_id"]);
            assert_ne!(body(&back[0])["data"]["event_id"], offline["data"]["event_id"]);
        }
    }

    #[test]
    fn an_overload_is_announced_once_and_its_end_after_it() {
        let mut states = HashMap::new();
        let overload = |since_us| Overload { since_us, dropped: 0.123_4, reason: "too slow".into() };
        assert!(take(&mut states, "", RecordKind::Relieved { at_us: 1 }).is_empty());
        let told = take(&mut states, "a, b", RecordKind::Overloaded(overload(2_000_000)));
        assert!(take(&mut states, "a", RecordKind::Overloaded(overload(3_000_000))).is_empty());
        let begun = body(&told[0]);
        assert_eq!((&told[0].camera[..], told[0].kind), ("a, b", "service.overloaded"));
        assert_eq!(
            (&begun["data"]["dropped_share"], &begun["data"]["reason"]),
            (&0.123.into(), &"too slow".into())
        );
        // As another process finds it in the store.
        let stored = serde_json::to_string(&states).unwrap();
        let mut states: HashMap<String, CameraState> = serde_json::from_str(&stored).unwrap();
        let told = take(&mut states, "", RecordKind::Relieved { at_us: 62_000_000 });
        assert_eq!((&told[0].camera[..], told[0].kind), ("a, b", "service.relieved"));
        let ended = body(&told[0]);
        assert_eq!(ended["data"]["event_id"], begun["data"]["event_id"]);
        assert_eq!(ended["data"]["duration_s"], 60.0);
        assert!(take(&mut states, "", RecordKind::Relieved { at_us: 63_000_000 }).is_empty());
    }

    #[test]
    fn who_was_known_to_be_lost_is_not_lost_again_with_others() {
        let mut states = HashMap::new();
        take(&mut states, "a", RecordKind::Offline(vec![lost("a", 1, "x")]));
        let told = take(&mut states, "a, b", RecordKind::Offline(vec![lost("a", 1, "x"), lost("b", 1, "y")]));
        assert_eq!(told.len(), 1);
        assert_eq!(body(&told[0])["data"]["camera"], "b");
        assert!(body(&told[0])["data"].get("cameras").is_none());
    }

    #[test]
    fn different_reasons_are_told_one_by_one() {
        let both = vec![lost("a", 1, "wrong password"), lost("b", 1, "no audio")];
        let told = take(&mut HashMap::new(), "a, b", RecordKind::Offline(both));
        let data = &body(&told[0])["data"];
        assert_eq!(data["reason"], "several reasons");
        assert_eq!(data["cameras"][0]["reason"], "wrong password");
    }
}
