//! One camera in the sink: its event logic, what is open, and which alerts a record brings about. Pure: alerts
//! come out, nothing is stored or sent here.

use nursery_models::events::{EventLogic, EventParams, Transition};
use nursery_shared::{
    config::{DetectionConfig, MotionRule},
    message::{Lost, Overload, RecordKind},
    timestamp::{now_us, rfc3339},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{motion::Motion, store::NewAlert};

/// The label of what is detected.
const LABEL: &str = "baby_cry";

/// Records come in order, each once: frames that are older than those before them by more than overlapping windows
/// explain were heard after the clock was set back. They are a stream of its own; to wait until the clock has caught up
/// would be to be deaf for so long.
const SET_BACK_US: i64 = 3_000_000;

/// What must survive the end of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraState {
    logic: EventLogic,
    /// The announced event that has not ended.
    open: Option<OpenEvent>,
    /// The announced outage that has not ended.
    offline: Option<Outage>,
    #[serde(default)]
    motion: Motion,
    /// When motion is an event, if ever, and how long it is not announced after one.
    #[serde(skip)]
    rule: Option<MotionRule>,
    #[serde(skip)]
    cooldown_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OpenEvent {
    event_id: String,
    score: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Outage {
    event_id: String,
    since_us: i64,
    /// Of an overload: those who are named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cameras: String,
}

/// The body that receivers get.
#[derive(Serialize)]
struct Body<'a, D: Serialize> {
    r#type: &'a str,
    timestamp: String,
    data: D,
}

#[derive(Serialize)]
struct CryData<'a> {
    event_id: &'a str,
    camera: &'a str,
    label: &'a str,
    onset: String,
    score: f64,
    /// Seconds of crying in the minute before the announcement, or before the offset.
    sustained_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_score: Option<f64>,
}

#[derive(Serialize)]
struct OverloadData<'a> {
    event_id: &'a str,
    camera: &'a str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
}

/// What is said of an outage.
#[derive(Serialize)]
pub struct OutageData<'a> {
    event_id: &'a str,
    camera: &'a str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
}

impl<'a> OutageData<'a> {
    /// Of one that goes on.
    pub fn lost(event_id: &'a str, lost: &'a Lost) -> Self {
        let (camera, reason) = (&lost.camera, Some(lost.reason.as_str()));
        Self { event_id, camera, since: rfc3339(lost.since_us), reason, duration_s: None }
    }
}

fn params(d: &DetectionConfig) -> EventParams {
    EventParams {
        threshold: d.threshold as f32,
        min_duration_s: d.min_duration_s,
        end_after_s: d.end_after_s,
        cooldown_s: d.cooldown_s,
        sustained_s: d.sustained_s,
        adaptive: d.adaptive,
    }
}

/// Three decimals are what a probability is worth.
fn rounded(value: impl Into<f64>) -> f64 {
    (value.into() * 1000.0).round() / 1000.0
}

fn seconds(us: i64) -> f64 {
    rounded(us as f64 / 1e6)
}

/// Frames are not so sharp that hundredths of a sum of them would mean anything.
fn tenths(us: i64) -> f64 {
    (us as f64 / 1e5).round() / 10.0
}

/// An alert that nobody has heard of.
pub fn alert(
    kind: &'static str,
    event_id: &str,
    camera: &str,
    time_us: i64,
    data: impl Serialize,
) -> NewAlert {
    let body = Body { r#type: kind, timestamp: rfc3339(time_us), data };
    NewAlert {
        message_id: format!("msg_{}", Uuid::now_v7().simple()),
        event_id: event_id.to_owned(),
        kind,
        camera: camera.to_owned(),
        time_us,
        // Plain data with string keys, which JSON can always express.
        body: serde_json::to_string(&body).unwrap_or_default(),
        only: None,
    }
}

impl CameraState {
    /// A camera that was never heard of.
    pub fn new(detection: &DetectionConfig) -> Self {
        Self {
            logic: EventLogic::new(params(detection)),
            open: None,
            offline: None,
            motion: Motion::default(),
            rule: detection.motion,
            cooldown_s: detection.cooldown_s,
        }
    }

    /// Other settings from now on; what is open stays open.
    pub fn configure(&mut self, detection: &DetectionConfig) {
        self.logic.set_params(params(detection));
        self.rule = detection.motion;
        self.cooldown_s = detection.cooldown_s;
    }

    /// Nothing would be forgotten if this state were lost.
    pub fn is_idle(&self) -> bool {
        self.open.is_none()
            && self.offline.is_none()
            && self.motion.is_idle()
            && self.logic.is_idle(self.logic.seen_us().unwrap_or(0))
    }

    /// Storing this one instead of `other` would tell nothing new.
    pub fn is_same_but_for_time(&self, other: &Self) -> bool {
        self.open == other.open
            && self.offline == other.offline
            && self.motion.is_same_but_for_time(&other.motion)
            && self.logic.is_same_but_for_time(&other.logic)
    }

    /// The camera is not heard: its open event ends. Returns the event id of the outage, if it is a new one.
    pub(super) fn lose(&mut self, lost: &Lost, alerts: &mut Vec<NewAlert>) -> Option<String> {
        let mut transitions = Vec::new();
        self.logic.finish(i64::MAX, &mut transitions);
        self.announce(&lost.camera, &transitions, alerts);
        self.motion.finish(&lost.camera, self.cooldown_s, alerts);
        if self.offline.is_some() {
            return None;
        }
        let event_id = Uuid::now_v7().to_string();
        self.offline =
            Some(Outage { event_id: event_id.clone(), since_us: lost.since_us, cameras: String::new() });
        Some(event_id)
    }

    /// What is heard of these cameras is not all scored.
    pub(super) fn overload(&mut self, cameras: &str, overload: &Overload, alerts: &mut Vec<NewAlert>) {
        if self.offline.is_some() {
            return;
        }
        let event_id = Uuid::now_v7().to_string();
        let data = OverloadData {
            event_id: &event_id,
            camera: cameras,
            since: rfc3339(overload.since_us),
            dropped_share: Some(rounded(overload.dropped)),
            reason: Some(&overload.reason),
            duration_s: None,
        };
        alerts.push(alert("service.overloaded", &event_id, cameras, now_us(), data));
        self.offline = Some(Outage { event_id, since_us: overload.since_us, cameras: cameras.to_owned() });
    }

    /// It is again.
    pub(super) fn relieve(&mut self, at_us: i64, alerts: &mut Vec<NewAlert>) {
        let Some(outage) = self.offline.take() else { return };
        let data = OverloadData {
            event_id: &outage.event_id,
            camera: &outage.cameras,
            since: rfc3339(outage.since_us),
            dropped_share: None,
            reason: None,
            duration_s: Some(seconds((at_us - outage.since_us).max(0))),
        };
        alerts.push(alert("service.relieved", &outage.event_id, &outage.cameras, at_us, data));
    }

    /// Takes in what a record says of this camera alone and appends the alerts that follow.
    pub(super) fn apply(&mut self, camera: &str, record: &RecordKind, alerts: &mut Vec<NewAlert>) {
        let mut transitions = Vec::new();
        match record {
            RecordKind::Scores { start_us, step_us, values, .. } => {
                if self.logic.seen_us().is_some_and(|seen| start_us.saturating_add(SET_BACK_US) < seen) {
                    self.logic.finish(i64::MAX, &mut transitions);
                    self.announce(camera, &transitions, alerts);
                    transitions.clear();
                    self.logic = EventLogic::new(*self.logic.params());
                }
                let mut at = *start_us;
                for value in values {
                    self.logic.push(at, *step_us, *value, &mut transitions);
                    at = at.saturating_add(i64::from(*step_us));
                }
                self.announce(camera, &transitions, alerts);
                self.motion.pass(camera, self.rule.as_ref(), self.cooldown_s, at, alerts);
            }
            RecordKind::Motion { at_us, motion } => {
                if let Some(rule) = self.rule {
                    self.motion.push(camera, &rule, self.cooldown_s, *at_us, *motion, alerts);
                }
            }
            // Nothing that was heard, and what several cameras have in common.
            RecordKind::SetAside(_)
            | RecordKind::Offline(_)
            | RecordKind::Overloaded(_)
            | RecordKind::Relieved { .. } => {}
            RecordKind::Ended { at_us } => {
                self.logic.finish(*at_us, &mut transitions);
                self.announce(camera, &transitions, alerts);
                self.motion.finish(camera, self.cooldown_s, alerts);
            }
            RecordKind::Online { at_us } => {
                if let Some(outage) = self.offline.take() {
                    let data = OutageData {
                        event_id: &outage.event_id,
                        camera,
                        since: rfc3339(outage.since_us),
                        reason: None,
                        duration_s: Some(seconds((at_us - outage.since_us).max(0))),
                    };
                    alerts.push(alert("camera.online", &outage.event_id, camera, *at_us, data));
                }
            }
        }
    }

    fn announce(&mut self, camera: &str, transitions: &[Transition], alerts: &mut Vec<NewAlert>) {
        for transition in transitions {
            match *transition {
                Transition::Started { onset_us, decided_us, score, sustained_us } => {
                    let event = OpenEvent { event_id: Uuid::now_v7().to_string(), score };
                    let data = CryData {
                        event_id: &event.event_id,
                        camera,
                        label: LABEL,
                        onset: rfc3339(onset_us),
                        score: rounded(score),
                        sustained_s: tenths(sustained_us),
                        offset: None,
                        duration_s: None,
                        peak_score: None,
                    };
                    alerts.push(alert("cry.started", &event.event_id, camera, decided_us, data));
                    self.open = Some(event);
                }
                Transition::Ended { onset_us, offset_us, peak_score, sustained_us, .. } => {
                    // The logic ends only what it began, and both are stored together.
                    let Some(event) = self.open.take() else { continue };
                    let data = CryData {
                        event_id: &event.event_id,
                        camera,
                        label: LABEL,
                        onset: rfc3339(onset_us),
                        score: rounded(event.score),
                        sustained_s: tenths(sustained_us),
                        offset: Some(rfc3339(offset_us)),
                        duration_s: Some(seconds(offset_us - onset_us)),
                        peak_score: Some(rounded(peak_score)),
                    };
                    let time_us = self.logic.seen_us().unwrap_or(offset_us);
                    alerts.push(alert("cry.ended", &event.event_id, camera, time_us, data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(start_us: i64, values: &[f32]) -> RecordKind {
        RecordKind::Scores {
            start_us,
            step_us: 100_000,
            values: values.to_vec(),
            level_dbfs: -30.0,
            arrived_us: 0,
        }
    }

    fn kinds(alerts: &[NewAlert]) -> Vec<&str> {
        alerts.iter().map(|a| a.kind).collect()
    }

    #[test]
    fn a_cry_has_the_same_event_id_at_its_start_and_end_and_the_published_fields() {
        let detection = DetectionConfig { min_duration_s: 0.6, ..DetectionConfig::default() };
        let mut camera = CameraState::new(&detection);
        let mut alerts = Vec::new();
        assert!(camera.is_idle());
        camera.apply("bedroom", &scores(1_769_824_983_250_000, &[0.97; 10]), &mut alerts);
        assert!(!camera.is_idle());
        camera.apply("bedroom", &scores(1_769_824_984_250_000, &[0.0; 60]), &mut alerts);
        assert_eq!(kinds(&alerts), ["cry.started", "cry.ended"]);
        let body: Vec<serde_json::Value> =
            alerts.iter().map(|a| serde_json::from_str(&a.body).unwrap()).collect();
        assert_eq!(body[0]["type"], "cry.started");
        assert_eq!(body[0]["timestamp"], "2026-01-31T02:03:03.850Z");
        assert_eq!(body[0]["data"]["onset"], "2026-01-31T02:03:03.250Z");
        assert_eq!(body[0]["data"]["camera"], "bedroom");
        assert_eq!(body[0]["data"]["label"], "baby_cry");
        assert_eq!(body[0]["data"]["score"], 0.97);
        assert!(body[0]["data"].get("offset").is_none());
        assert_eq!(body[1]["data"]["offset"], "2026-01-31T02:03:04.250Z");
        assert_eq!(body[1]["data"]["duration_s"], 1.0);
        assert_eq!(
            (&body[0]["data"]["sustained_s"], &body[1]["data"]["sustained_s"]),
            (&0.6.into(), &1.0.into())
        );
        assert_eq!(body[1]["data"]["peak_score"], 0.97);
        assert_eq!(body[0]["data"]["event_id"], body[1]["data"]["event_id"]);
        assert_ne!(alerts[0].message_id, alerts[1].message_id);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_deaf() {
        let mut camera = CameraState::new(&DetectionConfig::default());
        let mut alerts = Vec::new();
        let hour = 3_600_000_000;
        camera.apply("a", &scores(2 * hour, &[0.9; 10]), &mut alerts);
        camera.apply("a", &scores(hour, &[0.0; 10]), &mut alerts);
        camera.apply("a", &scores(hour + 1_000_000, &[0.9; 10]), &mut alerts);
        assert_eq!(kinds(&alerts), ["cry.started", "cry.ended", "cry.started"]);
    }

    fn lost() -> Lost {
        Lost { camera: "a".into(), since_us: 5_000_000, reason: "wrong password".into() }
    }

    #[test]
    fn an_outage_is_new_once_and_its_end_is_announced_only_after_it() {
        let mut camera = CameraState::new(&DetectionConfig::default());
        let mut alerts = Vec::new();
        camera.apply("a", &RecordKind::Online { at_us: 1 }, &mut alerts);
        assert!(alerts.is_empty(), "it was not known to be offline");
        assert!(camera.lose(&lost(), &mut alerts).is_some());
        assert!(camera.lose(&lost(), &mut alerts).is_none());
        let mut restored: CameraState =
            serde_json::from_str(&serde_json::to_string(&camera).unwrap()).unwrap();
        restored.apply("a", &RecordKind::Online { at_us: 65_000_000 }, &mut alerts);
        assert_eq!(kinds(&alerts), ["camera.online"]);
        let body: serde_json::Value = serde_json::from_str(&alerts[0].body).unwrap();
        assert_eq!(body["data"]["duration_s"], 60.0);
        assert!(restored.is_idle());
    }

    #[test]
    fn a_camera_that_goes_offline_ends_its_open_cry() {
        let mut camera = CameraState::new(&DetectionConfig::default());
        let mut alerts = Vec::new();
        camera.apply("a", &scores(0, &[0.9; 10]), &mut alerts);
        camera.lose(&lost(), &mut alerts);
        assert_eq!(kinds(&alerts), ["cry.started", "cry.ended"]);
    }

    #[test]
    fn the_end_of_a_recording_ends_its_cry() {
        let mut camera = CameraState::new(&DetectionConfig::default());
        let mut alerts = Vec::new();
        camera.apply("a", &scores(0, &[0.9; 10]), &mut alerts);
        camera.apply("a", &RecordKind::Ended { at_us: 700_000 }, &mut alerts);
        assert_eq!(kinds(&alerts), ["cry.started", "cry.ended"]);
        let body: serde_json::Value = serde_json::from_str(&alerts[1].body).unwrap();
        assert_eq!(body["data"]["duration_s"], 0.7);
    }
}
