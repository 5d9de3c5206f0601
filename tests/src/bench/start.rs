//! From the start of the program to the moment when all cameras are heard and scored.

use serde::{Deserialize, Serialize};

use super::{
    measure::{Plan, Readiness, Stage, patience},
    system::Which,
};

/// One start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub system: Which,
    pub round: u32,
    pub cameras: u32,
    pub readiness: Readiness,
    /// Seconds of processor until then.
    pub cpu_s: f64,
}

/// Starts and stops once.
pub fn start(plan: &Plan, round: u32) -> Result<Start, String> {
    let stage = Stage::set(plan, patience(plan.cameras))?;
    let cpu_s = stage.accounts().total_s();
    let Stage { farm, system, readiness, .. } = stage;
    system.stop();
    farm.finish();
    Ok(Start { system: plan.which, round, cameras: plan.cameras, readiness, cpu_s })
}
