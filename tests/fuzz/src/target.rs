//! What a target is: where its inputs come from, how they are changed, and what must hold for each of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::mutate::Mutator;

/// What became of one input. `Ok`: nothing wrong; the number stands for the way that the input took, and an input that
/// took a new way is kept and mutated further. `Err`: a promise was broken, in words.
pub type Verdict = Result<u64, String>;

/// Judges inputs; built once per process.
pub type Check = Box<dyn FnMut(&[u8]) -> Verdict>;

/// One thing that is fuzzed.
pub struct Target {
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// How inputs are changed.
    pub mutator: Mutator,
    /// Words that inputs of this kind are made of.
    pub words: &'static [&'static str],
    /// Longest input in bytes.
    pub longest: usize,
    /// Bytes that may be allocated at any one time for an input of this length.
    pub memory: fn(usize) -> usize,
    /// Seconds of processor time that one input may take.
    pub seconds: f64,
    /// Inputs of the short run in `cargo test`.
    pub short: u64,
    /// Valid inputs, made by the code that is fuzzed; the files of `corpus/NAME` come on top.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes the judge.
    pub check: fn() -> Check,
}

/// Bytes that every target may allocate: buffers that are made whatever the input is.
pub const ROOM: usize = 1 << 20;

/// The way an input took, from anything that tells ways apart.
pub fn way(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The way of a message for people: its words without numbers and without what it quotes.
pub fn way_of_text(text: &str) -> u64 {
    let mut quoted = false;
    let words: String = text
        .chars()
        .filter(|c| {
            quoted ^= *c == '"' || *c == '`';
            !quoted && !c.is_ascii_digit()
        })
        .take(120)
        .collect();
    way(words)
}

/// How many, roughly: 0, 1, 2, then powers of two.
pub fn size(n: usize) -> u32 {
    if n < 3 { n as u32 } else { n.ilog2() + 2 }
}

/// Errors are one line without control characters, and not endless.
pub fn one_line(message: &str) -> Result<(), String> {
    if message.trim().is_empty() {
        return Err("an error without words".into());
    }
    if let Some(c) = message.chars().find(|c| c.is_control()) {
        return Err(format!("an error with the control character {c:?}: {message:?}"));
    }
    Ok(())
}

/// Cuts `input` into pieces whose lengths depend on `salt` and the input alone: some of one byte, some long.
pub fn pieces(input: &[u8], salt: u64) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(way((input.len(), salt)));
    let longest = 1 + input.len() / random.usize(1..=8);
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = if random.bool() { longest } else { 3 };
        let (piece, after) = rest.split_at(random.usize(1..=most.max(1)).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
