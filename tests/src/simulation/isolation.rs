//! One camera's faults never change another's schedule: the same seed with and without the faults of one capture
//! process gives every other one the same life, to the microsecond, and none of their windows is dropped.
//!
//! What all cameras share (inference, sink, operators) is kept whole in these runs: a pool that is busy with the
//! windows of one camera may well make another one wait, which the runs with everything broken bound by their queues.

use super::{
    run::{self, Outcome},
    world::{Options, World},
};

/// The camera whose faults come and go.
const SPARED: &str = "capture:c0";

/// Runs a seed with and without the faults of one capture process; the outcome is that of the run with them, with a
/// difference as its violation.
pub fn compare(seed: u64, options: &Options) -> Outcome {
    let options = Options { isolation: true, ..options.clone() };
    let mut with = World::new(seed, options.clone());
    let start = with.now;
    run::live(&mut with, start);
    let mut without = World::new(seed, Options { spared: Some(SPARED.into()), ..options });
    run::live(&mut without, start);
    if with.broken.is_none() {
        with.broken = without.broken.take().or_else(|| difference(&with, &without));
    }
    run::outcome_of(with, start)
}

fn difference(with: &World, without: &World) -> Option<String> {
    for (name, life) in with.lives.iter().filter(|(name, _)| *name != SPARED) {
        let other = without.lives.get(name).map(Vec::as_slice).unwrap_or_default();
        let differs = life.iter().zip(other).find(|(a, b)| a != b);
        if differs.is_some() || life.len() != other.len() {
            return Some(format!("{name} lives otherwise with the faults of {SPARED}: {differs:?}"));
        }
    }
    let accounts = with.policy.slots().filter(|s| s.name.starts_with("capture:") && s.name != SPARED);
    for slot in accounts {
        let (mine, theirs) =
            (with.truth.taken_and_dropped(slot.number), without.truth.taken_and_dropped(slot.number));
        if mine != theirs {
            return Some(format!(
                "{} has {mine:?} windows taken and dropped instead of {theirs:?}",
                slot.name
            ));
        }
    }
    None
}
