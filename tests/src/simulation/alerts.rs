//! What the sink owes: every alert that a sink without faults would announce, stored once; every stored alert
//! delivered to each receiver of its time at least once, under one id, in order per camera. Independent of the sink's
//! own accounts: the same records go through event logic that never dies.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use nursery_shared::message::{Record, SinkConfig};
use nursery_worker::sink::{camera::CameraState, records, store::NewAlert};

use super::truth::Broken;

/// What identifies an alert beside its ids.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    kind: &'static str,
    /// Start of what it is about, as its body says.
    since: String,
}

impl Expected {
    fn of(alert: &NewAlert) -> Self {
        let body: serde_json::Value = serde_json::from_str(&alert.body).unwrap_or_default();
        let data = &body["data"];
        let since = data.get("onset").or_else(|| data.get("since"));
        Self { kind: alert.kind, since: since.and_then(|s| s.as_str()).unwrap_or_default().to_owned() }
    }
}

/// All accounts of alerts.
#[derive(Default)]
pub struct Alerts {
    settings: Option<SinkConfig>,
    /// Event logic without faults, by camera.
    reference: HashMap<String, CameraState>,
    expected: BTreeMap<String, VecDeque<Expected>>,
    /// Message id by event id and kind.
    events: HashMap<(String, &'static str), String>,
    /// Owed to a receiver for a camera, oldest first: message ids.
    owed: BTreeMap<(String, String), VecDeque<String>>,
    delivered: BTreeMap<String, BTreeSet<String>>,
    bodies: HashMap<String, String>,
    /// Announced cries by camera.
    starts: BTreeMap<String, u64>,
    /// Cameras that are, or were, recordings: their times run ahead and begin anew with each process.
    recordings: BTreeSet<String>,
    /// The wall clock is set back in this run, so that events are told apart by kind alone.
    pub loose: bool,
    pub stored: u64,
    pub deliveries: u64,
}

impl Alerts {
    /// What the sink was configured with last.
    pub fn configured(&mut self, config: &SinkConfig) {
        self.settings = Some(config.clone());
    }

    /// This camera is a recording.
    pub fn recording(&mut self, camera: &str) {
        self.recordings.insert(camera.to_owned());
    }

    /// The sink is sent a record for the first time.
    pub fn record(&mut self, record: &Record) {
        let Some(settings) = &self.settings else { return };
        let mut alerts = Vec::new();
        let begin = |_: &str| CameraState::new(&settings.detection);
        records::apply(record, &mut self.reference, begin, &mut alerts);
        for alert in &alerts {
            self.expected.entry(alert.camera.clone()).or_default().push_back(Expected::of(alert));
        }
    }

    /// A transaction of the store came about.
    pub fn committed(&mut self, alerts: &[NewAlert], receivers: &[String]) -> Result<(), Broken> {
        for alert in alerts {
            let is = Expected::of(alert);
            let should = self.expected.get_mut(&alert.camera).and_then(VecDeque::pop_front);
            let compared =
                !self.loose && !Record::cameras_in(&alert.camera).any(|c| self.recordings.contains(c));
            if compared && should.as_ref() != Some(&is) {
                return Err(format!("camera {}: {is:?} is stored instead of {should:?}", alert.camera));
            }
            let event = (alert.event_id.clone(), alert.kind);
            if self.events.insert(event, alert.message_id.clone()).is_some() {
                return Err(format!("{} of event {} is stored twice", alert.kind, alert.event_id));
            }
            for receiver in receivers {
                for camera in Record::cameras_in(&alert.camera) {
                    let lane = (receiver.clone(), camera.to_owned());
                    self.owed.entry(lane).or_default().push_back(alert.message_id.clone());
                }
            }
            self.bodies.insert(alert.message_id.clone(), alert.body.clone());
            self.stored += 1;
            if alert.kind == "cry.started" {
                *self.starts.entry(alert.camera.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// A receiver gets a message.
    pub fn received(&mut self, receiver: &str, camera: &str, id: &str, body: &str) -> Result<(), Broken> {
        self.deliveries += 1;
        match self.bodies.get(id) {
            None => {
                return Err(format!(
                    "{receiver} gets message {id}, which no store has: another id for {body}"
                ));
            }
            Some(known) if known != body => return Err(format!("message {id} has another body now")),
            Some(_) => {}
        }
        if self.delivered.get(receiver).is_some_and(|ids| ids.contains(id)) {
            return Ok(());
        }
        for camera in Record::cameras_in(camera) {
            let owed = self.owed.entry((receiver.to_owned(), camera.to_owned())).or_default();
            let next = owed.pop_front();
            if next.as_deref() != Some(id) {
                return Err(format!("{receiver} gets message {id} of camera {camera} before {next:?}"));
            }
        }
        self.delivered.entry(receiver.to_owned()).or_default().insert(id.to_owned());
        Ok(())
    }

    /// Nothing is owed to these receivers, and everything that should have been announced was.
    pub fn is_settled(&self, receivers: &[String]) -> Result<(), Broken> {
        let compared = |name: &String| {
            !self.loose && !Record::cameras_in(name).any(|camera| self.recordings.contains(camera))
        };
        if let Some((camera, left)) = self.expected.iter().find(|(c, left)| compared(c) && !left.is_empty()) {
            return Err(format!("camera {camera}: never announced: {left:?}"));
        }
        let owed =
            self.owed.iter().find(|((receiver, _), ids)| receivers.contains(receiver) && !ids.is_empty());
        match owed {
            Some(((receiver, camera), ids)) => {
                Err(format!("{receiver} never got {} messages of camera {camera}", ids.len()))
            }
            None => Ok(()),
        }
    }

    /// Announced cries by camera.
    pub fn starts(&self) -> BTreeMap<String, u64> {
        self.starts.clone()
    }

    /// A supervisor died: what it had not sent or the sink had not stored is gone with it, and the event logic goes on
    /// from what the store has.
    pub fn begin_anew(&mut self, stored: HashMap<String, CameraState>) {
        self.expected.clear();
        self.reference = stored;
    }
}
