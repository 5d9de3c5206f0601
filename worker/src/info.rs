//! `nursery-worker info`: what the supervisor asks before it starts anything: is this binary of my version,
//! and how does the model want its windows?

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_models::Detector;
use nursery_shared::{VERSION, message::ModelShape, message::PROTOCOL};

use crate::cage::{self, Cage, roles::Plan};

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
    let fail = |what: String| format!("{name}: {what}");
    // Of a pipe nobody waits for the other end.
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|e| fail(e.to_string()))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err(fail("is not a regular file".into()));
    }
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
    let kernel = cage::kernel();
    let loaded = find_model(args.model.as_deref()).and_then(|found| {
        // What is read now came from elsewhere. What of the cage cannot be put up here is told by who scores with it.
        let mut cage = Cage::enter(None);
        cage.confine(&Plan::infer());
        load_detector(found)
    });
    match loaded {
        Ok(detector) => {
            println!(
                "{}",
                serde_json::json!({"version": VERSION, "protocol": PROTOCOL, "model": shape(&detector),
                    "kernel": kernel})
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
