//! `nursery detect`: runs the detector over recordings, with the same windows, the same network and the same event
//! logic as the service. Several recordings are listened to at once, one per core; what is printed comes in the order
//! of the arguments.

mod backlog;
mod curve;
mod inputs;
mod listen;
mod output;
mod pipeline;
mod plot;
mod targets;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use nursery_models::{Detector, events::EventParams};
use nursery_shared::config::{DetectionConfig, Sensitivity};

use crate::info;
use listen::Wish;
use output::Printer;
use targets::Refusal;

/// In the service an event ends after seconds of calm so that one bout of crying is one alert. Here separate cries
/// shall be listed separately: longer than the breath between two cries, shorter than a pause.
const END_AFTER_S: f64 = 1.0;

/// Arguments of `detect`.
#[derive(clap::Args)]
pub struct Args {
    /// Recordings (WAV, FLAC, Ogg Vorbis, MP3, M4A, AAC); a directory stands for all in it, `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON lines {"file","onset","offset","label","score","sustained_s"}, times in seconds, and nothing else
    #[arg(long)]
    json: bool,
    /// Write the score of every frame: JSON lines {"file","time","score","judged","level_dbfs"}, or CSV where the name ends in
    /// .csv. `-` is standard output; the cries then go to standard error
    #[arg(long, value_name = "FILE|-")]
    curve: Option<PathBuf>,
    /// Draw waveform, spectrogram, score and cries. For several recordings a directory, or a name with {} for the
    /// recording's, such as plots/{}.svg
    #[arg(long, value_name = "OUT.png|OUT.svg")]
    plot: Option<PathBuf>,
    /// A model file instead of the embedded one
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Probability from which a moment counts as crying, above 0 and below 1
    #[arg(long, value_name = "X", default_value_t = DetectionConfig::default().threshold, value_parser = probability)]
    threshold: f64,
    /// Instead of it, as a camera has it: low, normal, high or a number from 0 to 1
    #[arg(long, value_name = "X", conflicts_with = "threshold")]
    sensitivity: Option<Sensitivity>,
    /// Seconds of crying that make a cry
    #[arg(long, value_name = "S", default_value_t = DetectionConfig::default().min_duration_s, value_parser = seconds)]
    min_duration: f64,
    /// Seconds without crying after which a cry has ended
    #[arg(long, value_name = "S", default_value_t = END_AFTER_S, value_parser = seconds)]
    end_after: f64,
    /// Do not let the bar follow what is usual in a recording, see detection.adaptive
    #[arg(long)]
    fixed: bool,
    /// Recordings listened to at once, each on one core [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if x > 0.0 && x < 1.0 => Ok(x),
        _ => Err("expected a number above 0 and below 1".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=3600.0).contains(&x) => Ok(x),
        _ => Err("expected a number of seconds from 0 to 3600".into()),
    }
}

/// Runs the detector. Exit status 0: all was done; 1: a recording could not be read or something not be written;
/// 2: wrong usage or an unusable model.
pub fn run(args: Args) -> ExitCode {
    match prepare_and_run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Refusal::Usage(why)) => {
            eprintln!("nursery detect: {why}");
            ExitCode::from(2)
        }
        Err(Refusal::Failed(why)) => {
            eprintln!("nursery detect: {why}");
            ExitCode::FAILURE
        }
    }
}

/// False where something went wrong that was said already.
fn prepare_and_run(args: &Args) -> Result<bool, Refusal> {
    let usage = |why: &str| Err(Refusal::Usage(why.to_owned()));
    if args.files.iter().filter(|f| f.as_os_str() == "-").count() > 1 {
        return usage("`-` is given twice, but standard input can be read only once");
    }
    let curve_to_stdout = args.curve.as_ref().is_some_and(|c| c.as_os_str() == "-");
    if curve_to_stdout && args.json {
        return usage("--curve - and --json both write to standard output: give --curve a file");
    }
    let inputs = inputs::expand(&args.files);
    let several = inputs.len() > 1 || args.files.iter().any(|f| f.is_dir());
    let pictures = match &args.plot {
        Some(target) => targets::pictures(target, &inputs, several)?,
        None => Vec::new(),
    };
    if pictures.iter().any(|picture| args.curve.as_ref() == Some(&picture.path)) {
        return usage("--curve and --plot name the same file");
    }
    let detectors = detectors(args, inputs.len())?;
    // Last, since it begins a file.
    let curve = match &args.curve {
        Some(target) => {
            let place = if curve_to_stdout {
                "standard output".into()
            } else {
                format!("--curve {}", target.display())
            };
            Some((place, targets::curve(target, &inputs)?))
        }
        None => None,
    };
    let params = EventParams {
        threshold: args.sensitivity.map_or(args.threshold, Sensitivity::threshold) as f32,
        min_duration_s: args.min_duration,
        end_after_s: args.end_after,
        cooldown_s: 0.0,
        sustained_s: 0.0,
        adaptive: !args.fixed,
    };
    let wish = Wish { params, curve: curve.is_some() };
    let out: Box<dyn Write> =
        if curve_to_stdout { Box::new(io::stderr()) } else { Box::new(io::stdout().lock()) };
    let mut printer = Printer::new(out, args.json, curve, io::stderr().is_terminal(), inputs.len());
    let all_well = pipeline::run(&inputs, &pictures, &wish, detectors, &mut printer);
    match printer.finish() {
        Ok(()) => Ok(all_well),
        // Whoever read our output has seen enough.
        Err(e) if e.error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Refusal::Failed(format!("{}: {}", e.place, e.error))),
    }
}

/// One for each recording that is listened to at once.
fn detectors(args: &Args, inputs: usize) -> Result<Vec<Detector>, Refusal> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or_else(cores, usize::from).min(inputs.max(1));
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    (0..jobs)
        .map(|_| {
            info::find_model(args.model.as_deref()).and_then(info::load_detector).map_err(Refusal::Usage)
        })
        .collect()
}
