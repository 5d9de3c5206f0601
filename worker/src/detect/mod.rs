//! `nursery detect`: runs the detector over recordings, with the same windows, the same network and the same event
//! logic as the service. Recordings are decoded one after another and scored on all cores; what is printed comes
//! in the order of the arguments.

mod output;
mod pipeline;
mod recordings;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use nursery_models::events::EventParams;
use nursery_shared::config::DetectionConfig;

use crate::info;
use output::Printer;

/// In the service an event ends after seconds of calm so that one bout of crying is one alert. Here separate cries
/// shall be listed separately: longer than the breath between two cries, shorter than a pause.
const END_AFTER_S: f64 = 1.0;

/// Arguments of `detect`.
#[derive(clap::Args)]
pub struct Args {
    /// Recordings (WAV, FLAC, Ogg Vorbis, MP3, M4A, AAC); `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON lines {"file","onset","offset","label","score"}, times in seconds, and nothing else
    #[arg(long)]
    json: bool,
    /// A model file instead of the embedded one
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Probability from which a moment counts as crying, above 0 and below 1
    #[arg(long, value_name = "X", default_value_t = DetectionConfig::default().threshold, value_parser = probability)]
    threshold: f64,
    /// Seconds of crying that make a cry
    #[arg(long, value_name = "S", default_value_t = DetectionConfig::default().min_duration_s, value_parser = seconds)]
    min_duration: f64,
    /// Seconds without crying after which a cry has ended
    #[arg(long, value_name = "S", default_value_t = END_AFTER_S, value_parser = seconds)]
    end_after: f64,
    /// Cores to use [default: all]
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

/// Runs the detector. Exit status 0: all recordings were read; 1: at least one was not; 2: wrong usage or an
/// unusable model.
pub fn run(args: Args) -> ExitCode {
    if args.files.iter().filter(|f| f.as_os_str() == "-").count() > 1 {
        eprintln!("nursery detect: `-` is given twice, but standard input can be read only once");
        return ExitCode::from(2);
    }
    let jobs =
        args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    let mut detectors = Vec::new();
    for _ in 0..jobs {
        match info::load_detector(args.model.as_deref()) {
            Ok(detector) => detectors.push(detector),
            Err(e) => {
                eprintln!("nursery detect: {e}");
                return ExitCode::from(2);
            }
        }
    }
    let shape = info::shape(&detectors[0]);
    let params = EventParams {
        threshold: args.threshold as f32,
        min_duration_s: args.min_duration,
        end_after_s: args.end_after,
        cooldown_s: 0.0,
    };
    let mut printer =
        Printer::new(io::stdout().lock(), args.json, io::stderr().is_terminal(), args.files.len());
    let all_read = pipeline::run(&args.files, &shape, &params, detectors, &mut printer);
    match (all_read, printer.finish()) {
        (true, Ok(())) => ExitCode::SUCCESS,
        (false, Ok(())) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        (_, Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        (_, Err(e)) => {
            eprintln!("nursery detect: standard output: {e}");
            ExitCode::FAILURE
        }
    }
}
