//! The corpus in memory: reads `manifest.csv`, decodes every clip to 16-bit samples, finds the crying inside the
//! clips that hold some.

use super::cries::{self, Stretch};
use super::prepare::Labels;
use crate::bounded;
use rodio::Source;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Hz; clips of another rate are refused.
pub const RATE: u32 = 16_000;

/// One clip of the corpus.
#[derive(Debug)]
pub struct Clip {
    /// Path relative to the manifest.
    pub path: String,
    /// Class of sound.
    pub class: String,
    /// Whether it contains crying.
    pub is_cry: bool,
    /// Collection it comes from.
    pub source: String,
    /// Recording, contributor or speaker.
    pub group: String,
    /// Licence, as the manifest names it.
    pub licence: String,
    /// Whom to name.
    pub attribution: String,
    /// `train` or `dev`.
    pub split: String,
    /// Mono, [`RATE`].
    pub samples: Vec<i16>,
    /// Where it cries, and where that is uncertain; empty for clips without crying.
    pub stretches: Vec<Stretch>,
}

/// Samples of a clip and where it cries.
type Decoded = (Vec<i16>, Vec<Stretch>);

/// All clips of some splits.
#[derive(Debug, Default)]
pub struct Corpus {
    /// In the manifest's order.
    pub clips: Vec<Clip>,
}

impl Corpus {
    /// Reads the clips whose row `keep` accepts, decoding on `threads` threads; `done` is told of each clip.
    ///
    /// # Errors
    /// One line naming the file and what is wrong with it.
    pub fn read(
        folder: &Path,
        threads: usize,
        keep: impl Fn(&Clip) -> bool,
        done: impl Fn(usize, usize) + Sync,
    ) -> Result<Self, String> {
        Self::read_labelled(folder, threads, &Labels::new(), keep, done)
    }

    /// Like [`read`](Self::read), with the stretches of crying from `labels` for the clips that are in there.
    ///
    /// # Errors
    /// One line naming the file and what is wrong with it.
    pub fn read_labelled(
        folder: &Path,
        threads: usize,
        labels: &Labels,
        keep: impl Fn(&Clip) -> bool,
        done: impl Fn(usize, usize) + Sync,
    ) -> Result<Self, String> {
        let mut clips = read_manifest(&folder.join("manifest.csv"))?;
        clips.retain(keep);
        let total = clips.len();
        let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failure: Mutex<Option<String>> = Mutex::new(None);
        let decoded: Mutex<BTreeMap<usize, Decoded>> = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(clip) = clips.get(i) else { break };
                        match decode(&folder.join(&clip.path)) {
                            Ok(samples) => {
                                let found = match labels.get(&clip.path) {
                                    _ if !clip.is_cry => Vec::new(),
                                    Some(stretches) => within(stretches, samples.len()),
                                    None => cries::locate(&samples),
                                };
                                let mut all = decoded.lock().unwrap_or_else(PoisonError::into_inner);
                                all.insert(i, (samples, found));
                            }
                            Err(e) => {
                                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                                break;
                            }
                        }
                        done(finished.fetch_add(1, Ordering::Relaxed) + 1, total);
                    }
                });
            }
        });
        if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
        for (i, (samples, stretches)) in decoded.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(clip) = clips.get_mut(i) {
                clip.samples = samples;
                clip.stretches = stretches;
            }
        }
        Ok(Self { clips })
    }
}

/// Stretches cut to a clip of `length` samples.
fn within(stretches: &[Stretch], length: usize) -> Vec<Stretch> {
    let cut = stretches.iter().map(|s| Stretch { end: s.end.min(length), ..*s });
    cut.filter(|s| s.start < s.end).collect()
}

/// Decodes one mono file of [`RATE`].
fn decode(path: &PathBuf) -> Result<Vec<i16>, String> {
    let at = |what: String| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|e| at(e.to_string()))?;
    let decoder = rodio::Decoder::try_from(file).map_err(|e| at(e.to_string()))?;
    if decoder.sample_rate().get() != RATE || decoder.channels().get() != 1 {
        return Err(at(format!("must be mono at {RATE} Hz")));
    }
    Ok(decoder.map(|x| (x * 32_767.0).clamp(-32_768.0, 32_767.0) as i16).collect())
}

/// Rows of the manifest as clips without samples.
pub fn read_manifest(path: &Path) -> Result<Vec<Clip>, String> {
    let text = bounded::read_text(path).map_err(|e| {
        format!("{}: {e}; --data must name the folder that holds manifest.csv", path.display())
    })?;
    let mut rows = parse_csv(&text).into_iter();
    let header = rows.next().unwrap_or_default();
    let columns: HashMap<&str, usize> =
        header.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let column = |name: &str| {
        columns.get(name).copied().ok_or_else(|| format!("{}: column {name} is missing", path.display()))
    };
    let [p, class, cry, source, group, licence, attribution, split] = [
        column("path")?,
        column("class")?,
        column("is_cry")?,
        column("source")?,
        column("source_group")?,
        column("licence")?,
        column("attribution")?,
        column("split")?,
    ];
    let mut clips = Vec::new();
    for (n, row) in rows.enumerate() {
        if row.len() != header.len() {
            return Err(format!("{}: row {} has {} fields", path.display(), n + 2, row.len()));
        }
        clips.push(Clip {
            path: row[p].clone(),
            class: row[class].clone(),
            is_cry: row[cry] == "1",
            source: row[source].clone(),
            group: row[group].clone(),
            licence: row[licence].clone(),
            attribution: row[attribution].clone(),
            split: row[split].clone(),
            samples: Vec::new(),
            stretches: Vec::new(),
        });
    }
    Ok(clips)
}

/// Comma-separated values after RFC 4180: quoted fields, doubled quotes, line breaks inside quotes.
pub(crate) fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_keep_their_commas_quotes_and_line_breaks() {
        let rows = parse_csv("a,b\r\n\"x, \"\"y\"\"\",\"1\n2\"\nlast,");
        assert_eq!(rows, [["a", "b"], ["x, \"y\"", "1\n2"], ["last", ""]]);
    }
}
