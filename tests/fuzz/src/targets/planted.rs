//! Targets with faults in them, so that tests see that the engine finds faults; they are in no list.

use crate::{
    child::processor_seconds,
    mutate::Mutator,
    target::{ROOM, Target, Verdict, way},
};

const HONEST: Target = Target {
    name: "",
    about: "has a planted fault",
    mutator: Mutator::Bytes,
    words: &[],
    longest: 64,
    memory: |_| ROOM,
    seconds: 1.0,
    short: 100,
    seeds: || vec![b"harmless".to_vec()],
    check: || Box::new(|input| Ok(way(input.len()))),
};

/// Each of the faults shows only in inputs that mutation makes.
fn is_bad(input: &[u8]) -> bool {
    input.len() == 11
}

pub const PANIC: Target = Target {
    name: "planted-panic",
    check: || {
        Box::new(|input| {
            assert!(!is_bad(input), "a planted panic");
            Ok(way(input.len()))
        })
    },
    ..HONEST
};

pub const LIE: Target = Target {
    name: "planted-lie",
    check: || {
        Box::new(|input| if is_bad(input) { Err("a planted violation".into()) } else { Ok(way(input.len())) })
    },
    ..HONEST
};

pub const HANG: Target = Target {
    name: "planted-hang",
    check: || {
        Box::new(|input| {
            while is_bad(input) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Ok(way(input.len()))
        })
    },
    ..HONEST
};

pub const SLOW: Target = Target {
    name: "planted-slow",
    seconds: 0.05,
    check: || {
        Box::new(|input| {
            let begin = processor_seconds();
            while is_bad(input) && processor_seconds() - begin < 0.1 {}
            Ok(way(input.len()))
        })
    },
    ..HONEST
};

pub const GREED: Target = Target {
    name: "planted-greed",
    check: || {
        Box::new(|input| {
            let taken = vec![1_u8; if is_bad(input) { 2 * ROOM } else { 1 }];
            Ok(way((input.len(), std::hint::black_box(taken).len().min(1))))
        })
    },
    ..HONEST
};

pub const BOMB: Target = Target {
    name: "planted-bomb",
    check: || Box::new(|input| bomb(if is_bad(input) { usize::MAX / 4 } else { 1 })),
    ..HONEST
};

fn bomb(size: usize) -> Verdict {
    Ok(way(std::hint::black_box(vec![0_u8; size]).len()))
}
