//! `nursery-worker info`: what the supervisor asks before it starts anything: is this binary of my version,
//! and how does the model want its windows?

use std::{path::PathBuf, process::ExitCode};

use nursery_models::Detector;
use nursery_shared::{VERSION, message::ModelShape, message::PROTOCOL};

use crate::cage;

/// Arguments of `info`.
#[derive(clap::Args)]
pub struct Args {
    /// A model file instead of the embedded one
    #[arg(long)]
    model: Option<PathBuf>,
}

/// The embedded model, or the one in a file.
pub fn load_detector(model: Option<&std::path::Path>) -> Result<Detector, String> {
    match model {
        Some(path) => Detector::load(path),
        None => Detector::embedded(),
    }
    .map_err(|e| e.to_string())
}

/// The figures that other roles need.
pub fn shape(detector: &Detector) -> ModelShape {
    let info = detector.info();
    ModelShape {
        id: info.id.clone(),
        window: info.window as u32,
        hop: info.hop as u32,
        lookahead: info.lookahead as u32,
        frame_step: info.frame_step as u32,
        state_bytes: info.state_bytes as u32,
    }
}

/// Prints one JSON object; exit status 2 and one line on standard error where the model does not load.
pub fn run(args: Args) -> ExitCode {
    match load_detector(args.model.as_deref()) {
        Ok(detector) => {
            println!(
                "{}",
                serde_json::json!({"version": VERSION, "protocol": PROTOCOL, "model": shape(&detector),
                    "kernel": cage::kernel()})
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
