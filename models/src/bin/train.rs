//! Trains, evaluates and measures detectors: `train --data DIR --out FILE`, `train --data DIR --evaluate FILE`,
//! `train --data DIR --attributions FILE`, `train --bench`.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nursery_models::Detector;
use nursery_models::train::{self, Plan, corpus::Corpus, evaluate};
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
    /// Windows per step
    #[arg(long, default_value_t = 32)]
    batch: usize,
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
    /// Train without the cries of this source, to see how well unknown recordings do
    #[arg(long, value_name = "SOURCE")]
    leave_out: Option<String>,
    /// Share of dev clips without crying that may be taken for crying at the threshold
    #[arg(long, default_value_t = 0.03)]
    false_positives: f32,
    /// Version written into the weights
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    model_version: String,
    /// Evaluate these weights on split dev
    #[arg(long, value_name = "FILE")]
    evaluate: Option<PathBuf>,
    /// Write the attributions of all training clips here
    #[arg(long, value_name = "FILE")]
    attributions: Option<PathBuf>,
    /// Measure the time per window of the built-in weights
    #[arg(long)]
    bench: bool,
}

fn main() -> ExitCode {
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
    if let Some(path) = &options.evaluate {
        let mut detector = Detector::load(path).map_err(|e| e.to_string())?;
        let dev = read(data, "dev", None)?;
        let scores = evaluate::score_clips(&mut detector, &dev).map_err(|e| e.to_string())?;
        println!("{}", detector.info().id);
        print!("{}", evaluate::report(&scores, detector.info().threshold));
        let frames = evaluate::mixtures(&mut detector, &dev, 400).map_err(|e| e.to_string())?;
        print!("{frames}");
        return Ok(());
    }
    let out =
        options.out.as_deref().ok_or("nothing to do: give --out, --evaluate, --attributions or --bench")?;
    if options.minutes.is_none() && options.steps.is_none() {
        return Err("--minutes or --steps must say when to stop".into());
    }
    let plan = Plan {
        minutes: options.minutes,
        steps: options.steps,
        batch: options.batch.max(2),
        rate: options.rate,
        seed: options.seed,
        checkpoint: options.checkpoint.clone().unwrap_or_else(|| out.with_extension("checkpoint")),
        resume: options.resume,
        version: options.model_version.clone(),
    };
    let corpus = read(data, "train", options.leave_out.as_deref())?;
    let bar = bar(1_000, "training");
    let mut logged = 0;
    let bytes = train::train(&corpus, &plan, |p| {
        bar.set_position((p.done * 1_000.0) as u64);
        bar.set_message(format!("step {} loss {:.4}", p.step, p.loss));
        if p.step >= logged + 100 {
            logged = p.step;
            let line = format!(
                "step {} loss {:.4} rate {:.5} {:.2} steps/s {:.1} %",
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
    let dev = read(data, "dev", None)?;
    let (bytes, scores) = train::calibrate(&bytes, &dev, options.false_positives)?;
    train::checkpoint::replace(out, &bytes)?;
    println!("{}: {} bytes", out.display(), bytes.len());
    print!("{}", evaluate::report(&scores, 0.5));
    Ok(())
}

fn read(data: &Path, split: &str, leave_out: Option<&str>) -> Result<Corpus, String> {
    let bar = bar(1, "decoding");
    let corpus = Corpus::read(
        data,
        2,
        |clip| clip.split == split && !(clip.is_cry && leave_out == Some(clip.source.as_str())),
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
