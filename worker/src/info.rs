//! `nursery-worker info`: what the supervisor asks before it starts anything: is this binary of my version,
//! and how does the model want its windows?

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_models::Detector;
use nursery_shared::{VERSION, config::TlsConfig, message::ModelShape, message::PROTOCOL};

use crate::{
    cage::{self, Cage, roles::Plan},
    web,
};

/// Arguments of `info`.
#[derive(clap::Args)]
pub struct Args {
    /// A model file instead of the embedded one
    #[arg(long)]
    model: Option<PathBuf>,
    /// Certificate and key of the page, to be looked at
    #[arg(long, requires = "key")]
    certificate: Option<String>,
    #[arg(long, requires = "certificate")]
    key: Option<String>,
}

/// Exit status where the model does not load, and where the page's certificate or key cannot be used.
const NO_MODEL: u8 = 2;
const NO_TLS: u8 = 3;

/// Opens a regular file.
///
/// # Errors
/// One line with the file.
pub fn open(path: &Path) -> Result<File, String> {
    let fail = |what: String| format!("{}: {what}", path.display());
    // Of a pipe nobody waits for the other end.
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|e| fail(e.to_string()))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err(fail("is not a regular file".into()));
    }
    Ok(file)
}

/// A model that is found but not looked at yet.
pub struct Found(Option<(File, String)>);

/// The embedded model, or the one in a file, which may take more rights to open than to read.
pub fn find_model(model: Option<&Path>) -> Result<Found, String> {
    let Some(path) = model else { return Ok(Found(None)) };
    Ok(Found(Some((open(path)?, path.display().to_string()))))
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

/// Prints one JSON object; exit status 2 and one line on standard error where the model does not load, 3 where the page's
/// certificate or key cannot be used.
pub fn run(args: Args) -> ExitCode {
    let kernel = cage::kernel();
    let tls = args.certificate.zip(args.key).map(|(certificate, key)| TlsConfig::new(certificate, key));
    let found = find_model(args.model.as_deref()).map_err(|e| (e, NO_MODEL)).and_then(|model| {
        let tls = tls.as_ref().map(web::tls::find).transpose().map_err(|e| (e, NO_TLS))?;
        Ok((model, tls))
    });
    let loaded = found.and_then(|(model, tls)| {
        // What is read now came from elsewhere. What of the cage cannot be put up here is told by who scores with it.
        let mut cage = Cage::enter(None);
        cage.confine(&Plan::infer());
        tls.as_ref().map(web::tls::load).transpose().map_err(|e| (e, NO_TLS))?;
        load_detector(model).map_err(|e| (e, NO_MODEL))
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
        Err((message, status)) => {
            eprintln!("{message}");
            ExitCode::from(status)
        }
    }
}
