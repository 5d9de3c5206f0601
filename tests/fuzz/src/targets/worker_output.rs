//! What a worker writes to its output, as the supervisor logs it: cut, at most so many lines a second, and nothing in
//! it that could move an operator's cursor.

use nursery_supervisor::service::logs::{self, Lines, Logs, MAX_LINE};

use crate::{
    mutate::Mutator,
    target::{ROOM, Target, Verdict, pieces, size, way},
};

pub const WORKER_OUTPUT: Target = Target {
    name: "worker-output",
    about: "a worker's output, as it is logged",
    mutator: Mutator::Text,
    words: &[" INFO ", "WARN", "ERROR", "DEBUG", "\n", "\x1b[2J", "\r", "\u{9b}", "capture:crib"],
    longest: 20_000,
    memory: |len| 64 * len + 2 * ROOM,
    seconds: 1.0,
    short: 5_000,
    seeds: Vec::new,
    check: || {
        let logs = logs::start(false).expect("the log starts");
        Box::new(move |input| output(&logs, input))
    },
};

fn output(logs: &Logs, input: &[u8]) -> Verdict {
    let logged = |salt: u64| {
        let from = logs.end();
        let mut lines = Lines::new("capture:crib".into());
        if salt == 0 {
            lines.feed(input, 5_000_000);
        } else {
            pieces(input, salt).into_iter().for_each(|piece| lines.feed(piece, 5_000_000));
        }
        lines.finish(5_000_000);
        let (lines, lost, _) = logs.read(from, None, usize::MAX);
        // The time stands first.
        let told: Vec<String> =
            lines.iter().filter_map(|l| l.split_once(' ').map(|(_, rest)| rest.to_owned())).collect();
        (told, lost)
    };
    let (at_once, lost) = logged(0);
    if at_once != logged(3).0 {
        return Err("the lines depend on how their bytes arrive".into());
    }
    // One more says how many there were.
    if at_once.len() > 101 || lost > 0 {
        return Err(format!("{} lines in a second", at_once.len()));
    }
    for line in &at_once {
        if let Some(c) = line.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(format!("{c:?} in {line:?}"));
        }
        // Three bytes stand for each that is no UTF-8; level and name come before.
        if line.len() > 3 * MAX_LINE + 64 {
            return Err(format!("a line of {} bytes", line.len()));
        }
    }
    let levels: Vec<u64> =
        at_once.iter().take(3).map(|line| way(line.split(' ').find(|w| !w.is_empty()))).collect();
    Ok(way((levels, size(at_once.len()), at_once.iter().map(|l| size(l.len())).max())))
}
