//! Evaluates a detector: `evaluate --data DIR` builds mixtures of the corpus and lets a model hear them;
//! `evaluate --truth DIR` takes mixtures that exist, and with `--pred FILE` also what was detected in them.

use clap::{Args, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use nursery_models::evaluation::lasting::lasting;
use nursery_models::evaluation::report::Report;
use nursery_models::evaluation::score::{ALL, average_precision};
use nursery_models::evaluation::streams::in_streams;
use nursery_models::evaluation::truth::{self, QUIET};
use nursery_models::evaluation::{
    self, Listened, Mixtures, Predictions, Scores, Setup, Studio, Truth, json, listening, worst,
};
use nursery_models::events::EventParams;
use nursery_models::train::corpus::{Corpus, RATE};
use nursery_models::{Detector, ModelInfo, bounded};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Parser)]
#[command(about = "Evaluates nursery's detector on mixtures with known contents")]
struct Options {
    /// Build mixtures from this corpus: the folder that holds manifest.csv and the clips it names
    #[arg(long, value_name = "DIR", required_unless_present = "truth", conflicts_with = "truth")]
    data: Option<PathBuf>,
    /// Take mixtures that exist: the folder with their WAV files, ground_truth.csv and quiet_events.csv
    #[arg(long, value_name = "DIR")]
    truth: Option<PathBuf>,
    /// Score these detections (JSON lines of `nursery detect --json`) instead of asking a model
    #[arg(long, value_name = "FILE", requires = "truth", conflicts_with_all = ["model", "write"])]
    pred: Option<PathBuf>,
    /// Weights [default: the built-in ones]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    mixtures: MixtureOptions,
    #[command(flatten)]
    events: EventOptions,
    /// Thresholds of the table of sensitivities
    #[arg(long, value_delimiter = ',', default_value = "0.25,0.5,0.8", value_parser = probability)]
    thresholds: Vec<f64>,
    /// Misses and false alarms that are listed, each
    #[arg(long, default_value_t = 10)]
    worst: usize,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Write all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw here, as SVG, how often there is crying at each probability
    #[arg(long, value_name = "FILE", conflicts_with = "pred")]
    reliability: Option<PathBuf>,
    /// Write the tables here
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Mixtures (with --data)")]
struct MixtureOptions {
    /// Splits of the corpus, separated by commas
    #[arg(long, default_value = "dev", value_delimiter = ',')]
    split: Vec<String>,
    /// Take the crying of this source alone, from all splits, and everything else from --split: how well weights do that
    /// were trained with `train --leave-out` of the same source
    #[arg(long, value_name = "SOURCE")]
    left_out: Option<String>,
    /// Take the crying from these splits, and everything else from --split: whether it is the babies or what is heard
    /// beside them that a model does not know
    #[arg(long, value_name = "SPLIT", value_delimiter = ',', conflicts_with = "left_out")]
    cry_split: Vec<String>,
    /// Files with everyday backgrounds
    #[arg(long, default_value_t = 240)]
    n_dcase: usize,
    /// Files with noise machines, rooms and telephones
    #[arg(long, default_value_t = 160)]
    n_nursery: usize,
    /// Quiet nights
    #[arg(long, default_value_t = 12)]
    n_quiet: usize,
    /// Minutes of each quiet night
    #[arg(long, default_value_t = 10.0)]
    quiet_minutes: f64,
    /// Let the model hear, beside them, the crying of each clip over and over for 45 s: from before its onset, and
    /// from the middle of a cry
    #[arg(long, conflicts_with = "truth")]
    lasting: bool,
    /// Same seed, same samples
    #[arg(long, default_value_t = 20_261_120)]
    seed: u64,
    /// Write the mixtures and their truth into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "truth")]
    write: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Events, as for nursery detect")]
struct EventOptions {
    /// Probability from which a frame counts as crying
    #[arg(long, default_value_t = 0.5, value_parser = probability)]
    threshold: f64,
    /// Seconds of crying before an event is announced
    #[arg(long, default_value_t = 0.3, value_parser = seconds)]
    min_duration: f64,
    /// Seconds without crying after which an event has ended
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    end_after: f64,
    /// Seconds after an event in which no other is announced
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    cooldown: f64,
    /// Seconds of crying within the last minute before an event is announced; nursery detect asks for none
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    sustained: f64,
    /// A bar that does not follow the usual sounds of a recording
    #[arg(long)]
    fixed: bool,
}

impl EventOptions {
    fn at(&self, threshold: f64) -> EventParams {
        EventParams {
            threshold: threshold as f32,
            min_duration_s: self.min_duration,
            end_after_s: self.end_after,
            cooldown_s: self.cooldown,
            sustained_s: self.sustained,
            adaptive: !self.fixed,
        }
    }
}

fn probability(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 1.0);
    value.ok_or_else(|| "must be above 0 and at most 1".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s));
    value.ok_or_else(|| "must be 0 to 86400 seconds".into())
}

fn main() -> ExitCode {
    // SAFETY: no other thread has been started yet.
    unsafe {
        // There is a thread per recording; candle's pools would only spin beside them.
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            std::env::set_var(pool, "1");
        }
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("evaluate: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let report = match (&options.truth, &options.pred) {
        (Some(folder), Some(file)) => score_detections(options, folder, file)?,
        (Some(folder), None) => {
            let truths = truth::read(folder)?;
            let lengths: Vec<f64> = truths.iter().map(|t| t.duration_s).collect();
            let title = format!("recordings of {}", folder.display());
            listen(options, &title, &lengths, |i, _| {
                Ok((truths[i].clone(), read_wav(&folder.join(&truths[i].file))?))
            })?
        }
        (None, _) => mix(options)?,
    };
    print!("{}", report.text());
    if let Some(path) = &options.json {
        // Text, numbers and lists of them always have a JSON form.
        let text = serde_json::to_string_pretty(&json::value(&report)).unwrap_or_default();
        write_text(path, &text)?;
    }
    if let Some(path) = &options.reliability {
        write_text(path, &evaluation::reliability::svg(&report.reliability))?;
    }
    if let Some(path) = &options.markdown {
        write_text(path, &report.markdown())?;
    }
    Ok(())
}

/// Scores what somebody else detected.
fn score_detections(options: &Options, folder: &Path, file: &Path) -> Result<Report, String> {
    let truths = truth::read(folder)?;
    let name = file.display().to_string();
    let text = bounded::read_text(file).map_err(|e| format!("{name}: {e}"))?;
    let (predictions, unknown) = Predictions::from_json_lines(&text, &name, &truths)?;
    if unknown > 0 {
        eprintln!("evaluate: {name}: {unknown} detections in files without ground truth are left out");
    }
    let at = |threshold: f64| evaluation::score(&truths, &predictions, threshold);
    let threshold = options.events.threshold;
    let sure = predictions.above(threshold);
    Ok(Report {
        title: format!("{name} on {}", folder.display()),
        scores: at(threshold),
        sensitivities: options.thresholds.iter().map(|t| at(*t)).collect(),
        reliability: Vec::new(),
        frame_ap: Vec::new(),
        streams: Vec::new(),
        lasting: Vec::new(),
        misses: worst::misses(&truths, &sure, None, options.worst),
        false_alarms: worst::false_alarms(&truths, &sure, options.worst),
    })
}

/// Builds mixtures and lets the model hear them.
fn mix(options: &Options) -> Result<Report, String> {
    let wanted = &options.mixtures;
    let Some(data) = &options.data else { return Err("--data DIR or --truth DIR is missing".into()) };
    let setup = Setup {
        dcase: wanted.n_dcase,
        nursery: wanted.n_nursery,
        quiet: wanted.n_quiet,
        quiet_minutes: wanted.quiet_minutes,
        seed: wanted.seed,
        ..Setup::default()
    };
    if setup.dcase + setup.nursery + setup.quiet == 0 && !wanted.lasting {
        return Err("nothing to do: --n-dcase, --n-nursery and --n-quiet are all 0, and no --lasting".into());
    }
    let bar = progress("decoding");
    let corpus = Corpus::read(
        data,
        jobs(options),
        |clip| match &wanted.left_out {
            Some(source) if clip.is_cry => clip.source == *source,
            None if clip.is_cry && !wanted.cry_split.is_empty() => wanted.cry_split.contains(&clip.split),
            _ => wanted.split.contains(&clip.split),
        },
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    let mut split = wanted.split.join(",");
    if let Some(source) = &wanted.left_out {
        if !corpus.clips.iter().any(|c| c.is_cry) {
            return Err(format!("{}: no crying is of source {source}", data.join("manifest.csv").display()));
        }
        split += &format!(", crying of {source}");
    }
    if !wanted.cry_split.is_empty() {
        split += &format!(", crying of split {}", wanted.cry_split.join(","));
    }
    if corpus.clips.is_empty() {
        return Err(format!("{}: no clip is of split {split}", data.join("manifest.csv").display()));
    }
    let mixtures = evaluation::build(&corpus, &setup)
        .map_err(|e| format!("{}: split {split}: {e}", data.join("manifest.csv").display()))?;
    let (cries, recordings, classes) = mixtures.material();
    eprintln!("{split}: {cries} isolated cries of {recordings} recordings, {classes} classes without crying");
    let lengths: Vec<f64> = (0..mixtures.len()).map(|i| mixtures.seconds(i)).collect();
    if let Some(folder) = &wanted.write {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let title = format!("mixtures of split {split}, seed {}", wanted.seed);
    let mut report =
        listen(options, &title, &lengths, |i, studio| build(&mixtures, i, studio, wanted.write.as_deref()))?;
    if wanted.lasting {
        let bar = progress("crying that goes on");
        let params = options.events.at(options.events.threshold);
        let mut detectors = detectors(options, usize::MAX)?;
        report.lasting = lasting(&corpus, wanted.seed, &mut detectors, params, |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })
        .map_err(|e| format!("{}: split {split}: {e}", data.join("manifest.csv").display()))?;
        bar.finish_and_clear();
    }
    Ok(report)
}

/// Mixture `i`, written to a folder where that is wanted.
fn build(
    mixtures: &Mixtures<'_>,
    i: usize,
    studio: &mut Studio,
    folder: Option<&Path>,
) -> Result<(Truth, Vec<i16>), String> {
    let mixture = mixtures.mixture(i, studio).ok_or_else(|| format!("there is no mixture {i}"))?;
    if let Some(folder) = folder {
        write_wav(&folder.join(&mixture.truth.file), &mixture.samples)?;
    }
    Ok((mixture.truth, mixture.samples))
}

/// A detector for each thread, but for no more than `most` recordings.
fn detectors(options: &Options, most: usize) -> Result<Vec<Detector>, String> {
    let load = |_| match &options.model {
        Some(path) => Detector::load(path).map_err(|e| e.to_string()),
        None => Detector::embedded().map_err(|e| e.to_string()),
    };
    (0..jobs(options).clamp(1, most.max(1))).map(load).collect()
}

/// Lets the model hear recordings of these lengths, and scores it.
fn listen(
    options: &Options,
    what: &str,
    lengths: &[f64],
    fetch: impl Fn(usize, &mut Studio) -> Result<(Truth, Vec<i16>), String> + Sync,
) -> Result<Report, String> {
    let mut detectors = detectors(options, lengths.len())?;
    let info = detectors[0].info().clone();
    let bar = progress("listening");
    bar.set_length(lengths.iter().sum::<f64>() as u64);
    let heard_ms = AtomicU64::new(0);
    let heard = evaluation::listen_all(lengths.len(), &mut detectors, fetch, |i| {
        let ms = (lengths[i] * 1e3) as u64;
        bar.set_position((heard_ms.fetch_add(ms, Ordering::Relaxed) + ms) / 1_000);
    })?;
    bar.finish_and_clear();
    if let Some(folder) = &options.mixtures.write {
        let truths: Vec<Truth> = heard.iter().map(|l| l.truth.clone()).collect();
        truth::write(folder, &truths)?;
    }
    Ok(report(options, format!("{} on {what}", info.id), &heard, &info))
}

fn report(options: &Options, title: String, heard: &[Listened], info: &ModelInfo) -> Report {
    let truths: Vec<Truth> = heard.iter().map(|l| l.truth.clone()).collect();
    let at = |threshold: f64| -> (Predictions, Scores) {
        let params = options.events.at(threshold);
        let predictions = evaluation::predict(heard, info, params);
        let mut scores = evaluation::score(&truths, &predictions, f64::from(params.threshold));
        scores.threshold = threshold;
        (predictions, scores)
    };
    let (predictions, scores) = at(options.events.threshold);
    let of = |condition: &'static str| {
        heard.iter().filter(move |l| match condition {
            ALL => l.truth.condition != QUIET,
            _ => l.truth.condition == condition,
        })
    };
    let groups = ["dcase", "nursery", ALL];
    let peaks = |condition| -> Vec<(f64, bool)> {
        let peak = |l: &Listened| f64::from(l.frames.iter().copied().fold(0.0, f32::max));
        of(condition).map(|l| (peak(l), l.truth.cry.is_some())).collect()
    };
    let reliability =
        [("dcase", "dcase"), ("nursery", "nursery"), (ALL, "dcase and nursery"), (QUIET, QUIET)];
    Report {
        title,
        misses: worst::misses(&truths, &predictions, Some((heard, info)), options.worst),
        false_alarms: worst::false_alarms(&truths, &predictions, options.worst),
        scores,
        streams: in_streams(heard, info, options.events.at(options.events.threshold)),
        lasting: Vec::new(),
        sensitivities: options.thresholds.iter().map(|t| at(*t).1).collect(),
        frame_ap: groups.map(|c| (c.to_owned(), average_precision(&peaks(c)))).to_vec(),
        reliability: reliability
            .into_iter()
            .map(|(condition, name)| (name.to_owned(), listening::reliability(of(condition), info)))
            .filter(|(_, r)| r.frames() > 0)
            .collect(),
    }
}

fn jobs(options: &Options) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    options.jobs.map_or_else(cores, usize::from)
}

/// The samples of a file as the mixtures are written: 16-bit PCM, mono, 16 kHz.
fn read_wav(path: &Path) -> Result<Vec<i16>, String> {
    let at = |what: String| format!("{}: {what}", path.display());
    let reader = hound::WavReader::open(path).map_err(|e| at(e.to_string()))?;
    let spec = reader.spec();
    let pcm = spec.sample_format == hound::SampleFormat::Int && spec.bits_per_sample == 16;
    if !pcm || spec.channels != 1 || spec.sample_rate != RATE {
        return Err(at(format!("must be 16-bit PCM, mono, {RATE} Hz")));
    }
    reader.into_samples().collect::<Result<_, _>>().map_err(|e| at(e.to_string()))
}

fn write_wav(path: &Path, samples: &[i16]) -> Result<(), String> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || {
        let mut writer = hound::WavWriter::create(path, spec)?;
        let mut block = writer.get_i16_writer(samples.len() as u32);
        samples.iter().for_each(|&x| block.write_sample(x));
        block.flush()?;
        writer.finalize()
    };
    write().map_err(|e: hound::Error| format!("{}: {e}", path.display()))
}

fn write_text(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn progress(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent} % {eta} {msg}");
    let bar = ProgressBar::new(1).with_prefix(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
