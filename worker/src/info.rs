//! `nursery-worker info`: what the supervisor asks before it starts anything: is this binary of my version,
//! and how does the model want its windows?

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_models::Detector;
use nursery_shared::{VERSION, message::ModelShape, message::PROTOCOL};

use crate::cage::{self, privileges};

/// Arguments of `info`.
#[derive(clap::Args)]
pub struct Args {
    /// A model file instead of the embedded one
    #[arg(long)]
    model: Option<PathBuf>,
}

/// A model that is found but not looked at yet.
pub struct Found(Option<(File, String)>);

/// The embedded model, or the one in a file, which may take more rights to open than to read.
pub fn find_model(model: Option<&Path>) -> Result<Found, String> {
    let Some(path) = model else { return Ok(Found(None)) };
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    Ok(Found(Some((file, name))))
}

/// Loads a model that was found.
pub fn load_detector(found: Found) -> Result<Detector, String> {
    match found.0 {
        Some((file, name)) => Detector::read(file, &name),
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
    let loaded = find_model(args.model.as_deref()).and_then(|found| {
        // What is read now came from elsewhere. Somebody who has none to give away has none to lose either.
        privileges::drop_capabilities()?;
        load_detector(found)
    });
    match loaded {
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
