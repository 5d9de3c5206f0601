//! The event logic, restored from what a store holds: whatever it was made to remember, events begin before they end,
//! one at a time, and what is remembered can be stored and restored again.

use fastrand::Rng;
use nursery_models::events::{EventLogic, EventParams, Transition};
use serde_json::Value;

use crate::{
    mutate::{self, Mutator},
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

pub const EVENTS: Target = Target {
    name: "event-logic",
    about: "the event logic's state from a store, and the frames after it",
    mutator: Mutator::Own(mutate_script),
    words: &[
        "params",
        "threshold",
        "min_duration_s",
        "end_after_s",
        "cooldown_s",
        "sustained_s",
        "adaptive",
        "seen_us",
        "run",
        "onset_us",
        "last_us",
        "crying_us",
        "clear_us",
        "peak",
        "announced",
        "lead",
        "quiet_until_us",
        "last_minute",
        "newest",
        "sums",
    ],
    longest: 16 << 10,
    memory: |len| 100 * len + ROOM,
    seconds: 2.0,
    short: 10_000,
    seeds,
    check: || Box::new(events),
};

/// What a frame is, from four bytes: the pause before it, its length, its probability.
fn frame(bytes: &[u8], at_us: i64) -> (i64, u32, f32) {
    let pause = match bytes[0] {
        255 => i64::MAX / 2,
        254 => -1_000_000_000,
        253 => 3_600_000_000,
        252 => -25_000,
        n => i64::from(n / 16) * 500_000,
    };
    let step = [50_000, 40_000, 1, 0, u32::MAX, 1_000_000, 50_000, 50_000][usize::from(bytes[1] % 8)];
    let probability = match u16::from_be_bytes([bytes[2], bytes[3]]) {
        0xffff => f32::NAN,
        0xfffe => f32::INFINITY,
        0xfffd => -1.0,
        n => f32::from(n) / 65_000.0,
    };
    (at_us.saturating_add(pause), step, probability)
}

fn seeds() -> Vec<Vec<u8>> {
    let params = EventParams {
        threshold: 0.5,
        min_duration_s: 0.3,
        end_after_s: 2.0,
        cooldown_s: 5.0,
        sustained_s: 0.0,
        adaptive: true,
    };
    let cry = [0, 0, 250, 0].repeat(40);
    let quiet = [0, 0, 0, 9].repeat(60);
    let faint = [0, 0, 60, 0].repeat(40);
    let tails = [cry.clone(), [cry.clone(), quiet.clone(), cry.clone()].concat(), faint];
    let mut seeds = Vec::new();
    for (n, before) in [0, 3, 20, 80].into_iter().enumerate() {
        for tail in &tails {
            let mut logic =
                EventLogic::new(EventParams { sustained_s: n as f64 / 2.0, adaptive: n % 2 == 0, ..params });
            let (mut out, mut at_us) = (Vec::new(), 1_769_824_984_500_000);
            for _ in 0..before {
                logic.push(at_us, 50_000, 0.95, &mut out);
                at_us += 50_000;
            }
            let mut seed = serde_json::to_vec(&logic).expect("a state can be written");
            seed.push(b'\n');
            seed.extend_from_slice(tail);
            seeds.push(seed);
        }
    }
    seeds
}

fn mutate_script(random: &mut Rng, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let cut = |all: &[u8]| all.iter().position(|b| *b == b'\n').unwrap_or(all.len());
    let (at, theirs) = (cut(input), cut(other));
    if random.bool() {
        [&mutate::json(random, input[..at].to_vec(), &other[..theirs], words), &input[at..]].concat()
    } else {
        let from = (at + 1).min(input.len());
        let frames = mutate::bytes(random, input[from..].to_vec(), &other[theirs..], &[]);
        [&input[..at], b"\n", &frames].concat()
    }
}

fn events(input: &[u8]) -> Verdict {
    let at = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
    let mut logic: EventLogic = match serde_json::from_slice(&input[..at]) {
        Ok(logic) => logic,
        Err(e) => {
            let e = e.to_string();
            one_line(&e)?;
            return Ok(way_of_text(&e));
        }
    };
    let restored =
        serde_json::to_string(&logic).map_err(|e| format!("restored, but cannot be stored: {e}"))?;
    let mut open = logic.is_open();
    let mut at_us = logic.seen_us().unwrap_or(0);
    let (mut out, mut ways, mut moved) = (Vec::new(), Vec::new(), 0);
    for bytes in input[(at + 1).min(input.len())..].chunks_exact(4) {
        let (start_us, step_us, probability) = frame(bytes, at_us);
        let seen = logic.seen_us();
        let judged = logic.push(start_us, step_us, probability, &mut out);
        if probability.is_finite() && !judged.is_finite() {
            return Err(format!("probability {probability} is judged as {judged}"));
        }
        if logic.seen_us() < seen {
            return Err(format!("time goes back from {seen:?} to {:?}", logic.seen_us()));
        }
        moved += usize::from(logic.seen_us() != seen);
        at_us = logic.seen_us().unwrap_or(at_us);
        for transition in out.drain(..) {
            ways.push(follows(&transition, &mut open)?);
        }
        if open != logic.is_open() {
            return Err(format!("open: {} after transitions that say {open}", logic.is_open()));
        }
    }
    let text = serde_json::to_string(&logic).map_err(|e| format!("cannot be stored: {e}"))?;
    let again: EventLogic =
        serde_json::from_str(&text).map_err(|e| format!("{text} cannot be restored: {e}"))?;
    let value = |logic| serde_json::to_value(logic).map_err(|e| e.to_string());
    if !is_close(&value(&logic)?, &value(&again)?) {
        return Err(format!("{text} is restored as another state"));
    }
    logic.finish(at_us, &mut out);
    for transition in out.drain(..) {
        follows(&transition, &mut open)?;
    }
    if open || logic.is_open() {
        return Err("an event is open after the stream's end".into());
    }
    ways.truncate(6);
    Ok(way((ways, size(moved), size(restored.len()), logic.is_idle(at_us))))
}

/// The same but for the last digit of numbers with a fraction, which JSON is not read to.
fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_close(a, b)))
        }
        (Value::Number(x), Value::Number(y)) if x.is_f64() => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => (x - y).abs() <= 1e-9 * x.abs(),
            _ => false,
        },
        _ => a == b,
    }
}

/// A transition that can follow what was before.
fn follows(transition: &Transition, open: &mut bool) -> Result<u64, String> {
    let minute = 0..=60_000_000;
    match *transition {
        Transition::Started { score, sustained_us, .. } if !*open => {
            *open = true;
            if !(0.0..=1.0).contains(&score) || !minute.contains(&sustained_us) {
                return Err(format!("{transition:?}"));
            }
            Ok(1)
        }
        Transition::Ended { peak_score, crying_us, sustained_us, .. } if *open => {
            *open = false;
            if !(0.0..=1.0).contains(&peak_score) || !minute.contains(&sustained_us) || crying_us < 0 {
                return Err(format!("{transition:?}"));
            }
            Ok(2)
        }
        _ => Err(format!("{transition:?} while an event is {}", if *open { "open" } else { "not open" })),
    }
}
