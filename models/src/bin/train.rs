//! Trains, evaluates and measures detectors: `train --data DIR --out FILE`, `train --data DIR --evaluate FILE`,
//! `train --data DIR --attributions FILE`, `train --bench`.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nursery_models::detector::weights_bytes;
use nursery_models::net::NetConfig;
use nursery_models::train::average::average;
use nursery_models::train::calibrate::Label;
use nursery_models::train::cries::Kind;
use nursery_models::train::prepare::{Labels, codec_check, read_labels, write_labels};
use nursery_models::train::{self, Plan, corpus::Corpus, curves, evaluate};
use nursery_models::{Detector, bounded};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Trains, evaluates and measures nursery's detector")]
struct Options {
    /// Folder that holds manifest.csv and the clips it names
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train, and write the weights here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Stop after this many minutes of training
    #[arg(long)]
    minutes: Option<f64>,
    /// Stop after this many steps
    #[arg(long)]
    steps: Option<u64>,
    /// Examples per step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Seconds of an example
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(4..=60))]
    seconds: u8,
    /// Shape of the network: a name (crnn, tcn, gru, wide) or a JSON file
    #[arg(long, value_name = "NAME|FILE", default_value = "crnn")]
    network: String,
    /// Milliseconds of audio that the network hears before it says how likely crying was; a multiple of 50
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(..=5_000))]
    lookahead: u16,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f32,
    /// Seed of weights and examples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Checkpoint file [default: beside the weights]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint
    #[arg(long)]
    resume: bool,
    /// Share of the crying that is made by a model of source and throat instead of recorded, with adults and horns made
    /// against it; 0 for none
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    made: f64,
    /// Train, choose the step and calibrate without any clip of this source, to see how well unknown recordings do
    #[arg(long, value_name = "SOURCE")]
    leave_out: Option<String>,
    /// Calibrate these weights on split dev, as is done after a training, and write them to --out
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Average these weights, of trainings that began with the same --seed, calibrate the mean on split dev and write it
    /// to --out
    #[arg(long, value_name = "FILE", num_args = 2..=16, conflicts_with = "calibrate")]
    average: Vec<PathBuf>,
    /// Learn from examples that begin as streams are served, instead of taking their first frame for the quiet before them
    #[arg(long)]
    served_start: bool,
    /// Version written into the weights [default: that of this program]
    #[arg(long, value_name = "VERSION")]
    model_version: Option<String>,
    /// Commit of the code, written into the weights [default: that of the working directory]
    #[arg(long, value_name = "HASH")]
    commit: Option<String>,
    /// Evaluate these weights on split dev
    #[arg(long, value_name = "FILE")]
    evaluate: Option<PathBuf>,
    /// Locate the crying in all clips, write the stretches here (what is there already stays), and check that
    /// bandwidth alone gives nothing away
    #[arg(long, value_name = "FILE")]
    prepare: Option<PathBuf>,
    /// Use the stretches of crying of this file, made by --prepare and perhaps corrected by hand
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Write the attributions of all training clips here
    #[arg(long, value_name = "FILE")]
    attributions: Option<PathBuf>,
    /// Measure the time per window of the built-in weights
    #[arg(long)]
    bench: bool,
}

fn main() -> ExitCode {
    // SAFETY: no other thread has been started yet.
    unsafe {
        // The learner is one thread, the mixer another; candle's pool would only spin beside them.
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            std::env::set_var(pool, "1");
        }
    }
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("train: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if options.bench {
        return train::bench::run().map(|text| println!("{text}"));
    }
    let data = options.data.as_deref().ok_or("--data DIR is missing (the folder with manifest.csv)")?;
    if let Some(path) = &options.attributions {
        let clips = train::corpus::read_manifest(&data.join("manifest.csv"))?;
        let text = train::attributions::list(&clips);
        return train::checkpoint::replace(path, text.as_bytes());
    }
    if let Some(path) = &options.prepare {
        return prepare(data, path);
    }
    if let Some(path) = &options.evaluate {
        let mut detector = Detector::load(path).map_err(|e| e.to_string())?;
        let dev = read(data, "dev", None, &Labels::new())?;
        let scores = evaluate::score_clips(&mut detector, &dev).map_err(|e| e.to_string())?;
        println!("{}", detector.info().id);
        print!("{}", evaluate::report(&scores, detector.info().threshold));
        return Ok(());
    }
    let out =
        options.out.as_deref().ok_or("nothing to do: give --out, --evaluate, --attributions or --bench")?;
    train::checkpoint::can_be_written(out)?;
    if let Some(path) = &options.calibrate {
        let bytes = weights_bytes(path).map_err(|e| e.to_string())?;
        let label = Label { version: options.model_version.clone(), commit: options.commit.clone() };
        let dev = read(data, "dev", options.leave_out.as_deref(), &Labels::new())?;
        return calibrate(&bytes, &dev, &label, out);
    }
    if !options.average.is_empty() {
        let files = options.average.iter().map(|path| {
            let name = path.display().to_string();
            weights_bytes(path).map_err(|e| e.to_string()).map(|bytes| (name, bytes))
        });
        let bytes = average(&files.collect::<Result<Vec<_>, _>>()?, &version(options), &commit_of(options))?;
        let dev = read(data, "dev", options.leave_out.as_deref(), &Labels::new())?;
        return calibrate(&bytes, &dev, &Label::default(), out);
    }
    if options.minutes.is_none() && options.steps.is_none() {
        return Err("--minutes or --steps must say when to stop".into());
    }
    let plan = Plan {
        minutes: options.minutes,
        steps: options.steps,
        batch: options.batch.max(2),
        rate: options.rate,
        made: options.made,
        seed: options.seed,
        checkpoint: options.checkpoint.clone().unwrap_or_else(|| out.with_extension("checkpoint")),
        resume: options.resume,
        version: version(options),
        commit: commit_of(options),
        seconds: usize::from(options.seconds),
        network: network(&options.network)?,
        lookahead: usize::from(options.lookahead) * 16,
        served_start: options.served_start,
    };
    keep_memory();
    let labels = options.labels.as_deref().map_or(Ok(Labels::new()), read_labels)?;
    let corpus = read(data, "train", options.leave_out.as_deref(), &labels)?;
    // What is left out chooses neither the step nor the operating point.
    let dev = read(data, "dev", options.leave_out.as_deref(), &labels)?;
    let bar = bar(1_000, "training");
    let mut logged = 0;
    let trained = train::train(&corpus, &dev, &plan, |p| {
        bar.set_position((p.done * 1_000.0) as u64);
        bar.set_message(format!("step {} loss {:.4}", p.step, p.loss));
        if p.step >= logged + 200 {
            logged = p.step;
            let dev =
                p.last.map_or(String::new(), |l| format!(" dev loss {:.4} AP {:.4}", l.dev_loss, l.dev_ap));
            let line = format!(
                "step {} loss {:.4} rate {:.5} {:.2} steps/s {:.1} %{dev}",
                p.step,
                p.loss,
                p.rate,
                p.speed,
                100.0 * p.done
            );
            if bar.is_hidden() {
                eprintln!("{line}");
            } else {
                bar.println(line);
            }
        }
    })?;
    bar.finish_and_clear();
    drop(corpus);
    train::checkpoint::replace(&out.with_extension("curve.csv"), curves::csv(&trained.curve).as_bytes())?;
    let title = format!("{} after {} steps", out.display(), trained.steps);
    train::checkpoint::replace(
        &out.with_extension("curve.svg"),
        curves::svg(&trained.curve, &title).as_bytes(),
    )?;
    calibrate(&trained.weights, &dev, &Label::default(), out)
}

fn version(options: &Options) -> String {
    options.model_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
}

fn commit_of(options: &Options) -> String {
    options.commit.clone().unwrap_or_else(commit)
}

/// Commit of the working directory, with `+` where tracked files were changed; empty where there is none.
fn commit() -> String {
    let git = |args: &[&str]| {
        let out =
            std::process::Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(out.stdout).ok()
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|s| !s.is_empty());
    format!("{}{}", head.trim(), if changed { "+" } else { "" })
}

/// Calibrates weights, writes them and prints how they do on the development clips.
fn calibrate(bytes: &[u8], dev: &Corpus, label: &Label, out: &Path) -> Result<(), String> {
    let (bytes, report) = train::calibrate::calibrate(bytes, dev, label)?;
    train::checkpoint::replace(out, &bytes)?;
    print!("{report}");
    let mut detector = Detector::from_bytes(&bytes, "new weights").map_err(|e| e.to_string())?;
    let scores = evaluate::score_clips(&mut detector, dev).map_err(|e| e.to_string())?;
    print!("{}", evaluate::report(&scores, detector.info().threshold));
    println!("{}: {}, {} bytes", out.display(), detector.info().id, bytes.len());
    Ok(())
}

/// Writes the file of labels and prints what was found.
fn prepare(data: &Path, path: &Path) -> Result<(), String> {
    let corpus = read(data, "train,dev", None, &Labels::new())?;
    let progress = bar(1, "locating");
    let labels = write_labels(&corpus, path, |done, total| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    })?;
    progress.finish_and_clear();
    let seconds = |kind: Kind| {
        let all = labels.values().flatten().filter(|s| s.kind == kind);
        all.map(|s| s.end - s.start).sum::<usize>() as f64 / 16_000.0
    };
    println!(
        "{}: {} clips, {:.0} s of crying, {:.0} s unsure, nothing in {} clips",
        path.display(),
        labels.len(),
        seconds(Kind::Cry),
        seconds(Kind::Unsure),
        labels.values().filter(|l| l.is_empty()).count()
    );
    print!("{}", codec_check(&corpus)?);
    Ok(())
}

/// A shape of network by name, or from a file.
fn network(name: &str) -> Result<NetConfig, String> {
    let default = NetConfig::default();
    let config = match name {
        "crnn" => default,
        "tcn" => NetConfig { dilations: vec![1, 2, 4, 8, 16], recurrent: 0, ..default },
        "gru" => NetConfig { dilations: Vec::new(), ..default },
        "wide" => {
            let mut wide = default;
            for (conv, channels) in wide.convs.iter_mut().zip([24, 40, 56, 72]) {
                conv.channels = channels;
            }
            wide
        }
        file => {
            let text = bounded::read_text(Path::new(file))
                .map_err(|e| format!("--network {file}: is no known name, and as a file: {e}"))?;
            serde_json::from_str(&text).map_err(|e| format!("{file}: is no network: {e}"))?
        }
    };
    config.check()?;
    Ok(config)
}

/// Keeps freed memory for the next step: every step allocates the same large blocks anew, and handing them back to
/// the system each time costs as much as the arithmetic.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only sets two parameters of the allocator, before any other thread is started.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|s| (0.0..=1.0).contains(s));
    value.ok_or_else(|| "must be 0 to 1".into())
}

fn read(data: &Path, split: &str, leave_out: Option<&str>, labels: &Labels) -> Result<Corpus, String> {
    let bar = bar(1, "decoding");
    let corpus = Corpus::read_labelled(
        data,
        2,
        labels,
        |clip| split.split(',').any(|s| s == clip.split) && leave_out != Some(clip.source.as_str()),
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    let minutes = corpus.clips.iter().map(|c| c.samples.len()).sum::<usize>() as f64 / 960_000.0;
    eprintln!("{split}: {} clips, {minutes:.0} minutes", corpus.clips.len());
    Ok(corpus)
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent} % {eta} {msg}");
    let bar = ProgressBar::new(length).with_prefix(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
