//! What many cameras cost, nursery beside what people would run instead; see [`nursery_tests::bench`].

use std::{fs, path::PathBuf, time::Duration};

use nursery_tests::bench::{
    Machine, Measurement, Mix, Plan, Rivals, Which,
    measure::measure,
    report::{Summary, picture, sum_up, table},
};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// Who listens: nursery, segments, pipes, broker, queues
    #[arg(long, value_delimiter = ',', default_value = "nursery")]
    systems: Vec<Which>,
    /// Cameras before each of them
    #[arg(long, default_value_t = 16)]
    cameras: u32,
    /// How long each is measured
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long all cameras have been live before that
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// So often, by turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Kinds of cameras by turns: pcmu (8 kHz, 20 ms), pcmu40 (40 ms), aac (48 kHz stereo), aac16 (16 kHz mono)
    #[arg(long, default_value_t = Mix::default())]
    mix: Mix,
    /// nursery with its page; otherwise it has no settings but cameras and a receiver
    #[arg(long)]
    web: bool,
    /// Rivals: the Python that has what they require
    #[arg(long)]
    python: Option<PathBuf>,
    /// Rivals: the network as ONNX
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// Rivals: where they are, instead of tests/rivals
    #[arg(long)]
    rivals: Option<PathBuf>,
    /// Rivals: another threshold than theirs
    #[arg(long)]
    threshold: Option<f64>,
    /// Write all measurements there
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw them there
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// The file of results.
#[derive(Serialize)]
struct Results {
    command: Vec<String>,
    machine: Machine,
    summary: std::collections::BTreeMap<Which, Summary>,
    measurements: Vec<Measurement>,
}

impl Args {
    fn plan(&self, which: Which, cameras: u32) -> Plan {
        Plan {
            which,
            cameras,
            mix: self.mix.clone(),
            warm_up: Duration::from_secs(self.warm_up),
            lasting: Duration::from_secs(self.seconds),
            web: self.web,
            rivals: Rivals {
                python: self.python.clone(),
                onnx: self.onnx.clone(),
                folder: self.rivals.clone(),
                threshold: self.threshold,
            },
        }
    }
}

/// Measures, prints and writes; false where something could not be measured.
pub fn run(args: &Args) -> bool {
    let mut measurements = Vec::new();
    let done = rounds(args, &mut measurements);
    let summary = sum_up(&measurements);
    println!("{}", table(&summary));
    let results =
        Results { command: std::env::args().collect(), machine: Machine::this(), summary, measurements };
    let written = write(args.svg.as_ref(), || picture(&results.summary))
        && write(args.json.as_ref(), || serde_json::to_string_pretty(&results).expect("JSON") + "\n");
    done && written
}

fn rounds(args: &Args, measurements: &mut Vec<Measurement>) -> bool {
    for round in 1..=args.rounds {
        // Who comes first changes, so that nobody is always measured on a machine that has just rested.
        let turn = round as usize % args.systems.len().max(1);
        for which in args.systems.iter().cycle().skip(turn).take(args.systems.len()) {
            eprintln!("round {round} of {}: {}, {} cameras", args.rounds, which.as_str(), args.cameras);
            match measure(&args.plan(*which, args.cameras), round) {
                Ok(measured) => {
                    tell(&measured);
                    measurements.push(measured);
                }
                Err(e) => {
                    eprintln!("{}: {e}", which.as_str());
                    return false;
                }
            }
        }
    }
    true
}

/// A line for who waits.
fn tell(m: &Measurement) {
    let alert = m.alerts.last_sample.map_or("-".into(), |d| format!("{:.0}/{:.0} ms", d.p50, d.p99));
    eprintln!(
        "  {:.1} s per camera-hour, {:.1} MB per camera, alerts {alert}, missed {} of {}, dropped {}, machine {:.0} % busy, \
         farm {:.2} s",
        m.cpu_per_camera_hour(),
        m.memory_per_camera() / 1e6,
        m.alerts.missed,
        m.alerts.cries,
        m.counters.dropped,
        m.machine_busy * 100.0,
        m.farm.cpu_s,
    );
    m.complaints().iter().for_each(|complaint| eprintln!("  not borne: {complaint}"));
    m.doubts().iter().for_each(|doubt| eprintln!("  in doubt: {doubt}"));
}

fn write(path: Option<&PathBuf>, text: impl FnOnce() -> String) -> bool {
    let Some(path) = path else { return true };
    match fs::write(path, text()) {
        Ok(()) => true,
        Err(e) => {
            eprintln!("{}: {e}", path.display());
            false
        }
    }
}
