//! `camera-farm`: hundreds of RTSP cameras in one process, for measurements; see [`nursery_tests::farm`].

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};
use nursery_tests::farm::{Farm, Kind, Options};

/// Hundreds of RTSP cameras on a loopback port: rtsp://127.0.0.1:PORT/KIND/NUMBER.
///
/// Each hears three minutes of a quiet room in which a baby cries twice, again and again, from another place in it. What
/// was sent when is written down as JSON lines; the first one tells the port.
#[derive(Parser)]
struct Cli {
    /// Kinds of cameras: pcmu (20 ms), pcmu40 (40 ms), aac (48 kHz stereo), aac16 (16 kHz mono). AAC takes ffmpeg once
    #[arg(long, value_delimiter = ',', default_value = "pcmu,aac")]
    kinds: Vec<Kind>,
    /// Where to write down what was sent, instead of standard output
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Where encoded AAC is kept; a folder beside this program where this is not given
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Niceness to ask for: other machines would not wait for those that listen to them
    #[arg(long, default_value_t = -10, allow_hyphen_values = true)]
    nice: i32,
    /// End when standard input, a pipe, does
    #[arg(long)]
    until_input_ends: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("camera-farm: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|e| format!("signals: {e}"))?;
    let signals = SignalFd::new(&signals).map_err(|e| format!("signals: {e}"))?;
    let beside = || std::env::current_exe().map(|exe| exe.with_file_name("camera-farm-cache"));
    let cache = cli.cache.map_or_else(beside, Ok).map_err(|e| format!("this program's place: {e}"))?;
    let ledger: Box<dyn Write> = match &cli.ledger {
        Some(path) => Box::new(File::create(path).map_err(|e| format!("{}: {e}", path.display()))?),
        None => Box::new(io::stdout()),
    };
    let mut farm =
        Farm::listen(&Options { kinds: cli.kinds, cache, nice: cli.nice }, BufWriter::new(ledger))?;
    let stdin = io::stdin();
    let mut ends = vec![signals.as_fd()];
    if cli.until_input_ends {
        ends.push(stdin.as_fd());
    }
    farm.run(&ends)
}
