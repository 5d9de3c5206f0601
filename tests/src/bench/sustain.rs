//! The largest number of cameras that is borne: no window dropped, no cry missed, all audio scored.

use serde::{Deserialize, Serialize};

use super::{
    measure::{Measurement, Plan, measure},
    system::Which,
};

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sustained {
    pub system: Which,
    /// The largest number that was borne; 0: not even the first.
    pub cameras: u32,
    /// The smallest that was not; `None` where everything that was tried was.
    pub not: Option<u32>,
    pub tried: Vec<Measurement>,
}

/// Doubles from `from` until it is too much or `most` is reached, then halves the difference until it is no more than a
/// sixteenth. A number counts as too much when it was twice, since the machine may have been busy otherwise.
pub fn find(
    plan: &Plan,
    (from, most): (u32, u32),
    mut tell: impl FnMut(&Measurement),
) -> Result<Sustained, String> {
    let (mut borne, mut not, mut tried): (u32, Option<u32>, Vec<Measurement>) = (0, None, Vec::new());
    let mut next = from.clamp(1, most);
    loop {
        let mut holds = false;
        for attempt in 1..=2 {
            let measured = measure(&Plan { cameras: next, ..plan.clone() }, attempt)?;
            tell(&measured);
            holds = measured.complaints().is_empty();
            tried.push(measured);
            if holds {
                break;
            }
        }
        match holds {
            true => borne = next,
            false => not = Some(next),
        }
        next = match not {
            None if borne >= most => break,
            None => (borne * 2).min(most),
            Some(not) if not - borne <= (not / 16).max(1) => break,
            Some(not) => borne + (not - borne) / 2,
        };
    }
    Ok(Sustained { system: plan.which, cameras: borne, not, tried })
}
