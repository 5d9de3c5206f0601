//! Data preparation: locates the crying in every cry clip and writes the stretches to a file that people can read,
//! correct and hand back to the training; and checks that nothing but the cry tells a cry from the rest.

use super::checkpoint::replace;
use super::corpus::{Clip, Corpus, RATE};
use super::cries::{Kind, Stretch, locate};
use super::mixture::Mixer;
use crate::bounded;
use realfft::RealFftPlanner;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Stretches by the path of their clip; a clip in which nothing was found has an empty list.
pub type Labels = BTreeMap<String, Vec<Stretch>>;

const HEADER: &str = "path,start_s,end_s,kind";

/// Reads a file of labels: after a line of names, `path,start_s,end_s,kind` with kind `cry`, `unsure`, or `none` for
/// a clip in which nothing was found.
///
/// # Errors
/// One line naming the file, the row and what is wrong with it.
pub fn read_labels(path: &Path) -> Result<Labels, String> {
    let text = bounded::read_text(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!("{}: row 1: must be \"{HEADER}\"", path.display()));
    }
    let mut labels = Labels::new();
    for (n, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let at = |what: &str| format!("{}: row {}: {what}", path.display(), n + 2);
        // Paths may hold commas, the other fields may not.
        let fields: Vec<&str> = line.rsplitn(4, ',').collect();
        let [kind, end, start, clip] = fields[..] else { return Err(at("must have four fields")) };
        let stretches = labels.entry(clip.to_owned()).or_default();
        let kind = match kind {
            "cry" => Kind::Cry,
            "unsure" => Kind::Unsure,
            "none" => continue,
            _ => return Err(at("kind must be cry, unsure or none")),
        };
        let seconds = |text: &str| text.parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s));
        let (Some(start), Some(end)) = (seconds(start), seconds(end)) else {
            return Err(at("start_s and end_s must be seconds"));
        };
        let sample = |s: f64| (s * f64::from(RATE)).round() as usize;
        let (start, end) = (sample(start), sample(end));
        if start >= end {
            return Err(at("start_s must be before end_s"));
        }
        stretches.push(Stretch { start, end, kind });
    }
    for stretches in labels.values_mut() {
        stretches.sort_by_key(|s| s.start);
    }
    Ok(labels)
}

fn text(labels: &Labels) -> String {
    let mut out = format!("{HEADER}\n");
    for (path, stretches) in labels {
        // Writing to a string cannot fail.
        if stretches.is_empty() {
            let _ = writeln!(out, "{path},,,none");
        }
        for s in stretches {
            let kind = if s.kind == Kind::Cry { "cry" } else { "unsure" };
            let _ = writeln!(out, "{path},{},{},{kind}", seconds(s.start), seconds(s.end));
        }
    }
    out
}

/// Seconds up to a sample: hundredths where they are exact, otherwise enough to tell samples apart, so that what
/// somebody corrected by hand is kept as it is.
fn seconds(sample: usize) -> String {
    let digits = if sample.is_multiple_of(RATE as usize / 100) { 2 } else { 5 };
    format!("{:.digits$}", sample as f64 / f64::from(RATE))
}

/// Locates the crying in all cry clips that the file at `path` does not list yet, and writes the file; what is in it
/// stays as it is. Saves as it goes, so that a run that was stopped goes on where it was.
///
/// # Errors
/// One line for people.
pub fn write_labels(corpus: &Corpus, path: &Path, done: impl Fn(usize, usize)) -> Result<Labels, String> {
    let mut labels = if path.exists() { read_labels(path)? } else { Labels::new() };
    let clips: Vec<&Clip> =
        corpus.clips.iter().filter(|c| c.is_cry && !labels.contains_key(&c.path)).collect();
    for (i, clip) in clips.iter().enumerate() {
        labels.insert(clip.path.clone(), locate(&clip.samples));
        done(i + 1, clips.len());
        if (i + 1) % 50 == 0 {
            replace(path, text(&labels).as_bytes())?;
        }
    }
    replace(path, text(&labels).as_bytes())?;
    Ok(labels)
}

/// Area under the ROC curve of a value that is to tell `yes` from `no`: 0.5 says nothing, 0 and 1 everything.
fn area(yes: &[f32], no: &[f32]) -> f32 {
    let mut wins = 0.0;
    for y in yes {
        wins += no
            .iter()
            .map(|n| {
                if y > n {
                    1.0
                } else if y == n {
                    0.5
                } else {
                    0.0
                }
            })
            .sum::<f32>();
    }
    wins / (yes.len() * no.len()).max(1) as f32
}

/// dB of what is above 3.7 kHz over what is below: a telephone codec's mark.
fn brightness(planner: &mut RealFftPlanner<f32>, samples: &[f32]) -> f32 {
    const SIZE: usize = 1024;
    let fft = planner.plan_fft_forward(SIZE);
    let (mut frame, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
    let (mut low, mut high) = (1e-12f32, 1e-12f32);
    for part in samples.chunks_exact(SIZE) {
        for (i, (to, from)) in frame.iter_mut().zip(part).enumerate() {
            *to = from * (std::f32::consts::PI * i as f32 / SIZE as f32).sin().powi(2);
        }
        // The buffers have the plan's lengths, so the transform cannot fail.
        let _ = fft.process(&mut frame, &mut spectrum);
        let edge = 3_700 * SIZE / RATE as usize;
        low += spectrum[..edge].iter().map(|s| s.norm_sqr()).sum::<f32>();
        high += spectrum[edge..].iter().map(|s| s.norm_sqr()).sum::<f32>();
    }
    10.0 * (high / low).log10()
}

/// How well bandwidth alone tells clips with crying from the others, as recorded and after mixing (area under the ROC
/// curve): a network could learn the phones' codec instead of the cry where this is far from 0.5.
///
/// # Errors
/// A corpus without crying or without anything else.
pub fn codec_check(corpus: &Corpus) -> Result<String, String> {
    let mut planner = RealFftPlanner::new();
    let (mut cries, mut others, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for clip in &corpus.clips {
        let samples: Vec<f32> = clip.samples.iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let value = brightness(&mut planner, &samples);
        match (clip.is_cry, clip.class.as_str()) {
            (true, _) => cries.push(value),
            (false, "phone_bg") => same.push(value),
            (false, _) => others.push(value),
        }
    }
    let mut mixer = Mixer::new(corpus, 160_000, 800)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for seed in 0..400 {
        let example = mixer.example(seed);
        let value = brightness(&mut planner, &example.samples);
        if example.targets.contains(&1.0) { with.push(value) } else { without.push(value) }
    }
    Ok(format!(
        "bandwidth alone tells clips with crying from clips without (area under the ROC curve, 0.50 = not at all):\n  \
         as recorded, against everything else      {:.2}\n  \
         as recorded, against the same phones      {:.2}\n  \
         after mixing and channels                 {:.2}\n",
        area(&cries, &others),
        area(&cries, &same),
        area(&with, &without)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_come_back_as_they_were_written_and_bad_rows_are_named() {
        let path = std::env::temp_dir().join(format!("nursery-labels-{}.csv", std::process::id()));
        let cry = Stretch { start: 16_000, end: 32_000, kind: Kind::Cry };
        let unsure = Stretch { start: 40_000, end: 48_000, kind: Kind::Unsure };
        let labels =
            Labels::from([("a, b.flac".into(), vec![cry, unsure]), ("none.flac".into(), Vec::new())]);
        replace(&path, text(&labels).as_bytes()).unwrap();
        assert_eq!(read_labels(&path).unwrap(), labels);
        for (row, what) in [
            ("x,1,2,3,4,laugh", "kind must be"),
            ("x,2,1,cry", "before"),
            ("x,1.00001,1.00002,cry", "before"),
            ("x,NaN,1,cry", "seconds"),
            ("x", "four fields"),
        ] {
            std::fs::write(&path, format!("{HEADER}\n{row}\n")).unwrap();
            let error = read_labels(&path).unwrap_err();
            assert!(error.contains("row 2") && error.contains(what), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn stretches_corrected_by_hand_are_kept_to_the_sample() {
        let path = std::env::temp_dir().join(format!("nursery-labels-short-{}.csv", std::process::id()));
        std::fs::write(
            &path,
            format!("{HEADER}\nx,1.000,1.004,cry\ny,0,0.0000625,unsure\nz,0,86399.999999,cry\n"),
        )
        .unwrap();
        let labels = read_labels(&path).unwrap();
        let written = write_labels(&Corpus::default(), &path, |_, _| ()).unwrap();
        assert_eq!((read_labels(&path).unwrap(), written), (labels.clone(), labels));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn area_is_a_half_for_equal_and_one_for_separate_values() {
        assert_eq!(area(&[1.0, 2.0], &[1.0, 2.0]), 0.5);
        assert_eq!(area(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
    }
}
