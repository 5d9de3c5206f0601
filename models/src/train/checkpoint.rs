//! Checkpoints: everything a training needs to go on where it stopped, in one safetensors file that is replaced
//! in one step.

use super::curves::Point;
use super::optimiser::Slot;
use crate::bounded;
use crate::ops::RunningStats;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// A training in the middle.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Optimiser steps taken.
    pub step: u64,
    /// Minutes spent.
    pub minutes: f64,
    /// Seed of the examples.
    pub seed: u64,
    /// What else must be the same to go on: the shape of network, examples and targets, as one line.
    pub plan: String,
    /// Variables and their optimiser state.
    pub slots: BTreeMap<String, Slot>,
    /// Statistics of the normalisations.
    pub stats: BTreeMap<String, RunningStats>,
    /// The learning curve so far.
    pub curve: Vec<Point>,
    /// Clips that the model took for crying, by index in the corpus, with how much.
    pub mined: Vec<(usize, f32)>,
}

/// Writes `bytes` beside `path`, then renames: a crash leaves the old file or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let temporary = path.with_extension("tmp");
    let written = std::fs::File::create(&temporary)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| format!("{}: cannot be written: {e}", path.display()))
}

/// Whether [`replace`] could write `path` now: for what takes an hour to make, that should be known before.
pub fn can_be_written(path: &Path) -> Result<(), String> {
    let temporary = path.with_extension("tmp");
    let tried = if path.is_dir() {
        Err(std::io::ErrorKind::IsADirectory.into())
    } else {
        std::fs::File::create(&temporary).and_then(|_| std::fs::remove_file(&temporary))
    };
    tried.map_err(|e| format!("{}: cannot be written: {e}", path.display()))
}

impl Checkpoint {
    /// Writes it to `path`.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let mut all: Vec<(String, Vec<u8>, usize)> = Vec::new();
        let mut add = |name: String, values: &[f32]| {
            all.push((name, values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.len()));
        };
        for (name, slot) in &self.slots {
            add(format!("value/{name}"), &slot.value);
            add(format!("first/{name}"), &slot.first);
            add(format!("second/{name}"), &slot.second);
            add(format!("average/{name}"), &slot.average);
        }
        for (name, stats) in &self.stats {
            add(format!("mean/{name}"), &stats.mean);
            add(format!("variance/{name}"), &stats.variance);
        }
        let mut views = Vec::new();
        for (name, data, n) in &all {
            let view = TensorView::new(Dtype::F32, vec![*n], data).map_err(|e| e.to_string())?;
            views.push((name.as_str(), view));
        }
        let metadata = HashMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("minutes".to_owned(), self.minutes.to_string()),
            ("seed".to_owned(), self.seed.to_string()),
            ("plan".to_owned(), self.plan.clone()),
            ("curve".to_owned(), serde_json::to_string(&self.curve).map_err(|e| e.to_string())?),
            ("mined".to_owned(), serde_json::to_string(&self.mined).map_err(|e| e.to_string())?),
        ]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| e.to_string())?;
        replace(path, &bytes)
    }

    /// Reads it back.
    pub fn load(path: &Path) -> Result<Self, String> {
        let at = |what: String| format!("{}: is no checkpoint: {what}", path.display());
        let bytes = bounded::read_file(path).map_err(|e| at(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| at(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| at(e.to_string()))?;
        let meta = header.metadata().as_ref().ok_or_else(|| at("no metadata".into()))?;
        let field = |name: &str| meta.get(name).ok_or_else(|| at(format!("{name} is missing")));
        let get = |name: String| -> Result<Vec<f32>, String> {
            let view = file.tensor(&name).map_err(|e| at(e.to_string()))?;
            let data = view.data().chunks_exact(4);
            Ok(data.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let (mut slots, mut stats) = (BTreeMap::new(), BTreeMap::new());
        for name in file.names() {
            if let Some(name) = name.strip_prefix("value/") {
                let slot = Slot {
                    value: get(format!("value/{name}"))?,
                    first: get(format!("first/{name}"))?,
                    second: get(format!("second/{name}"))?,
                    average: get(format!("average/{name}"))?,
                };
                slots.insert(name.to_owned(), slot);
            } else if let Some(name) = name.strip_prefix("mean/") {
                let mean = get(format!("mean/{name}"))?;
                let variance = get(format!("variance/{name}"))?;
                stats.insert(name.to_owned(), RunningStats { mean, variance });
            }
        }
        let number = |name: &str| -> Result<u64, String> {
            field(name)?.parse().map_err(|_| at(format!("{name} is no number")))
        };
        let minutes = field("minutes")?.parse().map_err(|_| at("minutes is no number".into()))?;
        let curve = serde_json::from_str(field("curve")?).map_err(|e| at(format!("curve: {e}")))?;
        let mined = serde_json::from_str(field("mined")?).map_err(|e| at(format!("mined: {e}")))?;
        let plan = field("plan")?.clone();
        Ok(Self { step: number("step")?, minutes, seed: number("seed")?, plan, slots, stats, curve, mined })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_as_it_was_saved() {
        let path = std::env::temp_dir().join(format!("nursery-checkpoint-{}", std::process::id()));
        let slot = Slot { value: vec![1.0], first: vec![2.0], second: vec![3.0], average: vec![4.0] };
        let saved = Checkpoint {
            step: 7,
            minutes: 1.5,
            seed: 9,
            plan: "16 x 10 s".into(),
            slots: BTreeMap::from([("conv0.weight".into(), slot)]),
            stats: BTreeMap::from([("conv0".into(), RunningStats::new(2))]),
            curve: vec![Point { step: 7, minutes: 1.5, loss: 0.5, dev_loss: 0.25, dev_ap: 0.75 }],
            mined: vec![(3, 0.5)],
        };
        saved.save(&path).unwrap();
        let loaded = Checkpoint::load(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((loaded.step, loaded.minutes, loaded.seed), (7, 1.5, 9));
        assert_eq!(loaded.plan, saved.plan);
        assert_eq!(loaded.slots["conv0.weight"].average, [4.0]);
        assert_eq!((loaded.curve, loaded.mined), (saved.curve, saved.mined));
        assert_eq!(loaded.stats["conv0"], RunningStats::new(2));
    }
}
