//! What is kept of a target's inputs: valid samples at first, then every input that took a new way.

use std::{collections::HashSet, path::PathBuf};

use fastrand::Rng;

use crate::target::Target;

/// Inputs and bytes that are kept at most; beyond that new ones take the places of old ones that are no samples.
const MOST: usize = 4096;
const MOST_BYTES: usize = 64 << 20;

/// The folder with the files that a target starts from.
pub fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs that mutation starts from.
pub struct Pool {
    inputs: Vec<Vec<u8>>,
    bytes: usize,
    /// The first of them, which stay.
    samples: usize,
    ways: HashSet<u64>,
}

impl Pool {
    /// The samples of a target: made by its code, then files by name.
    pub fn of(target: &Target) -> Result<Self, String> {
        let mut inputs = (target.seeds)();
        let folder = folder(target.name);
        if folder.exists() {
            let at = |e: std::io::Error| format!("{}: {e}", folder.display());
            let mut files = Vec::new();
            for entry in std::fs::read_dir(&folder).map_err(at)? {
                files.push(entry.map_err(at)?.path());
            }
            files.sort();
            for file in files {
                inputs.push(std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?);
            }
        }
        if inputs.is_empty() {
            return Err(format!("{}: there is no sample to start from", target.name));
        }
        let bytes = inputs.iter().map(Vec::len).sum();
        let samples = inputs.len();
        Ok(Self { inputs, bytes, samples, ways: HashSet::new() })
    }

    /// The samples.
    pub fn samples(&self) -> &[Vec<u8>] {
        &self.inputs[..self.samples]
    }

    /// How many inputs are kept.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Makes the next input: one of those that are kept, changed.
    pub fn next(&self, target: &Target, random: &mut Rng) -> Vec<u8> {
        // Half from what was found lately, half from all.
        let count = self.inputs.len();
        let recent = if random.bool() { count } else { count.min(32) };
        let chosen = &self.inputs[count - 1 - random.usize(0..recent)];
        let other = &self.inputs[random.usize(0..count)];
        target.mutator.apply(random, chosen, other, target.words, target.longest)
    }

    /// Takes note of the way that an input took, and keeps the input where it is new.
    pub fn learn(&mut self, input: Vec<u8>, way: u64, random: &mut Rng) {
        if !self.ways.insert(way) {
            return;
        }
        if self.inputs.len() < MOST && self.bytes + input.len() <= MOST_BYTES {
            self.bytes += input.len();
            self.inputs.push(input);
        } else if self.inputs.len() > self.samples {
            let at = random.usize(self.samples..self.inputs.len());
            self.bytes = self.bytes - self.inputs[at].len() + input.len();
            self.inputs[at] = input;
        }
    }

    /// Takes note of the way that a sample took.
    pub fn note(&mut self, way: u64) {
        self.ways.insert(way);
    }
}
