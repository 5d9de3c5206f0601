//! Memory now against then, while all cameras are live.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    measure::{Plan, Stage, patience},
    statistics::Line,
    system::Which,
};

/// Memory at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since all cameras were live.
    pub minutes: f64,
    /// Proportional bytes, by role.
    pub memory: BTreeMap<String, u64>,
}

impl Sample {
    /// All roles.
    pub fn total(&self) -> u64 {
        self.memory.values().sum()
    }
}

/// Memory over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    pub system: Which,
    pub cameras: u32,
    pub samples: Vec<Sample>,
    /// Bytes per minute.
    pub slope: Option<f64>,
}

impl Growth {
    /// The last sample over the first one.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.samples.last()?.total() as f64 / self.samples.first()?.total() as f64)
    }
}

/// Looks every minute for so many of them, the first time after one.
pub fn watch(plan: &Plan, minutes: u32, mut tell: impl FnMut(&Sample)) -> Result<Growth, String> {
    let stage = Stage::set(plan, patience(plan.cameras))?;
    if stage.readiness.after_s.is_none() {
        return Err(format!("only {} of {} cameras live", stage.readiness.live, plan.cameras));
    }
    let (start, mut samples) = (Instant::now(), Vec::new());
    for minute in 1..=minutes.max(2) {
        sleep(Duration::from_secs(60 * u64::from(minute)).saturating_sub(start.elapsed()));
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let sample = Sample { minutes, memory: stage.accounts().memory().by_role };
        tell(&sample);
        samples.push(sample);
    }
    let points: Vec<_> = samples.iter().map(|s| (s.minutes, s.total() as f64)).collect();
    let slope = Line::through(&points).map(|line| line.slope);
    let Stage { farm, system, .. } = stage;
    system.stop();
    farm.finish();
    Ok(Growth { system: plan.which, cameras: plan.cameras, samples, slope })
}
