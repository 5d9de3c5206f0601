//! Alerts held against what was played: how long each took, and which are missing.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use nursery_shared::{message::ModelShape, pcm::SAMPLE_RATE, timestamp};
use serde::{Deserialize, Serialize};

use super::{statistics::Delays, system::Which};
use crate::{
    farm::{Kind, content::CRY_MS, ledger::Entry},
    receiver::{Receiver, Request},
};

/// An alert that comes later than this after the onset is not that cry's.
const LATEST_US: i64 = CRY_MS as i64 * 1000 + 10_000_000;

/// An alert as it came, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
struct Alert {
    camera: String,
    /// The time that stands in it.
    time_us: i64,
    arrived_us: i64,
}

/// What became of the cries of a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Alerts {
    /// Cries that began in it.
    pub cries: usize,
    /// Those that nobody announced.
    pub missed: usize,
    /// Alerts beyond the first one of each cry.
    pub repeated: usize,
    /// Alerts of cameras before which nobody cried.
    pub unfounded: usize,
    /// Last sample of the deciding window, as it was received, to the alert.
    pub last_sample: Option<Delays>,
    /// First sample of the cry, as it was sent, to the alert.
    pub onset: Option<Delays>,
    /// The first of the two by what the camera sends.
    pub last_sample_by_kind: BTreeMap<Kind, Delays>,
    /// Those delays one by one, microseconds.
    pub last_sample_us: Vec<i64>,
    pub onset_us: Vec<i64>,
}

/// When the deciding window's last sample was received.
pub enum Decision<'a> {
    /// The alert says so.
    Stated,
    /// nursery's alerts say which moment of the audio decided, whose score comes `lookahead` later with a window of `hop`.
    /// Which window that was, and when its last sample was sent, follows from when the session began. What a capture
    /// process keeps back (blocks of its resampler) is part of the delay then. Rivals say what they have got themselves:
    /// what ffmpeg keeps back is in no delay but the one from the onset.
    ByFrame(&'a ModelShape),
}

/// Times by the two clocks, to turn one into the other.
pub struct Clocks {
    instant: Instant,
    wall_us: i64,
}

impl Clocks {
    /// Now.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall_us: wall.as_micros() as i64 }
    }

    fn wall_us(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.instant) {
            Some(later) => self.wall_us + later.as_micros() as i64,
            None => self.wall_us - self.instant.duration_since(at).as_micros() as i64,
        }
    }
}

impl Alert {
    /// Reads an alert of a cry that has begun; others are none.
    fn read(which: Which, request: &Request, clocks: &Clocks) -> Option<Self> {
        if request.kind() != "cry.started" {
            return None;
        }
        let (camera, time) = match which {
            Which::Nursery => (request.camera(), request.body["timestamp"].as_str()),
            _ => (request.body["camera"].as_str()?, request.body["time"].as_str()),
        };
        // Python writes UTC as an offset.
        let time_us = timestamp::parse(&time?.replace("+00:00", "Z"))?;
        Some(Self { camera: camera.to_owned(), time_us, arrived_us: clocks.wall_us(request.at) })
    }
}

/// A session of the farm, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Session {
    kind: Kind,
    started_us: i64,
}

impl Session {
    /// When the last sample of the window was received that decided an alert.
    fn deciding_us(&self, alert: &Alert, shape: &ModelShape) -> i64 {
        let last_us = self.last_sample_us(alert.time_us, 0, shape);
        // Nobody knows before he hears: the stream's clock is late by a frame.
        if last_us > alert.arrived_us { self.last_sample_us(alert.time_us, 1, shape) } else { last_us }
    }

    /// When the last sample of the window was received that brought the score of the frame that ends at `decided_us` by a
    /// clock which is so many whole frames late.
    fn last_sample_us(&self, decided_us: i64, late: u32, shape: &ModelShape) -> i64 {
        let us = |samples: u32| f64::from(samples) * 1e6 / f64::from(SAMPLE_RATE);
        // The first packet was recorded in the period before it was sent.
        let begin_us = self.started_us as f64 - self.kind.period_us();
        // A stream's clock begins when the first samples come out of the resampler, some milliseconds late, and more where
        // the first packets were late; times in alerts are cut to milliseconds.
        const EARLY_US: f64 = 5_000.0;
        let heard_us = decided_us as f64 + us(shape.lookahead) - begin_us;
        let frames = ((heard_us + EARLY_US) / us(shape.frame_step)).floor() - f64::from(late);
        let windows = (frames * us(shape.frame_step) / us(shape.hop)).ceil();
        let packets = (windows * us(shape.hop) / self.kind.period_us()).ceil();
        (begin_us + packets * self.kind.period_us()) as i64
    }
}

/// Holds what came against the ledger: cries that began in `from_us..to_us`.
pub fn judge(
    which: Which,
    names: &HashMap<(Kind, u32), String>,
    ledger: &[Entry],
    receiver: &Receiver,
    clocks: &Clocks,
    decision: &Decision<'_>,
    (from_us, to_us): (i64, i64),
) -> Alerts {
    let came: Vec<Alert> =
        receiver.requests().iter().filter_map(|request| Alert::read(which, request, clocks)).collect();
    let (mut onsets, mut heard_late) = (Vec::new(), Vec::new());
    let mut sessions: HashMap<String, Vec<Session>> = HashMap::new();
    for entry in ledger {
        match entry {
            Entry::Started { kind, camera, at_us, crying, .. } => {
                let Some(name) = names.get(&(*kind, *camera)) else { continue };
                if *crying {
                    heard_late.push((name.clone(), *at_us));
                }
                let session = Session { kind: *kind, started_us: *at_us };
                sessions.entry(name.clone()).or_default().push(session);
            }
            Entry::Cry { kind, camera, at_us, .. } => {
                if let Some(name) = names.get(&(*kind, *camera)) {
                    onsets.push((name.clone(), *at_us));
                }
            }
            _ => {}
        }
    }
    let last_sample = |alert: &Alert| match decision {
        Decision::Stated => Some(alert.time_us),
        Decision::ByFrame(shape) => {
            let session = sessions.get(&alert.camera)?.iter().rfind(|s| s.started_us <= alert.arrived_us)?;
            Some(session.deciding_us(alert, shape))
        }
    };
    let (mut alerts, mut by_kind) = (Alerts::default(), BTreeMap::<Kind, Vec<i64>>::new());
    let mut used = vec![false; came.len()];
    let counted = onsets.into_iter().map(|cry| (cry, true));
    // Alerts of cries whose beginning nobody heard are neither expected nor unfounded.
    for ((camera, onset_us), counts) in counted.chain(heard_late.into_iter().map(|cry| (cry, false))) {
        let of_it = |alert: &Alert| {
            alert.camera == camera && (onset_us..onset_us + LATEST_US).contains(&alert.arrived_us)
        };
        let mut found: Vec<usize> = (0..came.len()).filter(|&n| of_it(&came[n])).collect();
        found.sort_by_key(|&n| came[n].arrived_us);
        found.iter().for_each(|&n| used[n] = true);
        if !counts || !(from_us..to_us).contains(&onset_us) {
            continue;
        }
        alerts.cries += 1;
        let Some(&first) = found.first() else {
            alerts.missed += 1;
            continue;
        };
        alerts.repeated += found.len() - 1;
        alerts.onset_us.push(came[first].arrived_us - onset_us);
        if let Some(last_us) = last_sample(&came[first]) {
            let delay_us = came[first].arrived_us - last_us;
            alerts.last_sample_us.push(delay_us);
            if let Some(session) = sessions.get(&camera).and_then(|all| all.last()) {
                by_kind.entry(session.kind).or_default().push(delay_us);
            }
        }
    }
    alerts.unfounded =
        came.iter().zip(used).filter(|(a, used)| !used && (from_us..to_us).contains(&a.arrived_us)).count();
    alerts.last_sample = Delays::of(&alerts.last_sample_us);
    alerts.onset = Delays::of(&alerts.onset_us);
    alerts.last_sample_by_kind =
        by_kind.into_iter().filter_map(|(kind, us)| Some((kind, Delays::of(&us)?))).collect();
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> ModelShape {
        ModelShape {
            id: "m".into(),
            window: 4_000,
            hop: 4_000,
            lookahead: 6_400,
            frame_step: 800,
            state_bytes: 0,
        }
    }

    #[test]
    fn a_clock_that_is_late_by_a_frame_is_seen_where_it_would_know_what_it_has_not_heard() {
        let session = Session { kind: Kind::Pcmu, started_us: 1_000_020_000 };
        // The frame that ends at 2.6 s, by a clock that is 55 ms late; known 20 ms after the window that ends at 3.0 s.
        let (time_us, arrived_us) = (1_002_655_000, 1_003_020_000);
        let alert = Alert { camera: "c".into(), time_us, arrived_us };
        assert_eq!(session.deciding_us(&alert, &shape()), 1_003_000_000);
    }

    #[test]
    fn the_window_that_brought_a_score_is_found_by_the_moment_that_decided() {
        let session = Session { kind: Kind::Pcmu, started_us: 1_000_020_000 };
        // The stream begins at 1000 s; windows end every 250 ms; a frame that ends at 2.6 s is scored 0.4 s later, with
        // the window that ends at 3.0 s, whose last packet was sent then.
        for (decided_ms, window_ms) in [(2_600, 3_000), (2_650, 3_250), (2_850, 3_250), (2_350, 2_750)] {
            for late_us in [0, 1_500, 40_000] {
                let last_us =
                    session.last_sample_us(1_000_000_000 + decided_ms * 1000 + late_us, 0, &shape());
                let expected = 1_000_000_000 + (window_ms as f64 / 20.0).ceil() as i64 * 20_000;
                assert_eq!(last_us, expected, "{decided_ms} ms, {late_us} µs late");
            }
        }
    }
}
