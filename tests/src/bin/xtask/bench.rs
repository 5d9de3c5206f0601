//! What many cameras cost, nursery beside what people would run instead; see [`nursery_tests::bench`].

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use nursery_tests::bench::{
    Machine, Measurement, Mix, Plan, Rivals, Spread, Which, growth,
    measure::measure,
    recovery,
    report::{Summary, picture, sum_up, table},
    routing, scale, start, sustain,
};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub struct Args {
    /// Who listens: nursery, segments, pipes, broker, queues
    #[arg(long, value_delimiter = ',', default_value = "nursery")]
    systems: Vec<Which>,
    /// Cameras before each of them
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    cameras: u32,
    /// How long each is measured
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long all cameras have been live before that
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// So often, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
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
    /// Instead: cost of a camera at each of these numbers of cameras
    #[arg(long, value_delimiter = ',', value_name = "CAMERAS", num_args = 0..,
          value_parser = clap::value_parser!(u32).range(1..=4096),
          default_missing_value = "1,4,16,64,128,256", group = "mode")]
    scale: Option<Vec<u32>>,
    /// Instead: the largest number of cameras that is borne, beginning with --cameras
    #[arg(long, group = "mode")]
    sustain: bool,
    /// The most that are tried by --sustain
    #[arg(long, default_value_t = 1024)]
    most: u32,
    /// Instead: from the start to the moment when all cameras are heard and scored
    #[arg(long, group = "mode")]
    start: bool,
    /// Instead: from the death or the standstill of what listens to a camera to the moment when it is listened to again
    #[arg(long, group = "mode")]
    recovery: bool,
    /// Instead: memory after each of so many minutes
    #[arg(long, value_name = "MINUTES", group = "mode")]
    growth: Option<u32>,
    /// Instead: windows per second and their delay through the supervisor alone, against a bare socket pair
    #[arg(long, group = "mode")]
    routing: bool,
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
    command: String,
    machine: Machine,
    summary: BTreeMap<Which, Summary>,
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
    let done = if let Some(sizes) = &args.scale {
        by_size(args, sizes)
    } else if args.sustain {
        by_most(args)
    } else if args.start {
        by_start(args)
    } else if args.recovery {
        by_recovery(args)
    } else if let Some(minutes) = args.growth {
        by_minute(args, minutes)
    } else if args.routing {
        Ok(by_route(args))
    } else {
        return by_round(args);
    };
    match done {
        Ok(results) => write(args.json.as_ref(), || pretty(&results)),
        Err(e) => {
            eprintln!("{e}");
            false
        }
    }
}

fn pretty(results: &impl Serialize) -> String {
    serde_json::to_string_pretty(results).expect("JSON") + "\n"
}

/// What every file of results begins with.
fn file(results: Value) -> Value {
    json!({"command": command(), "machine": Machine::this(), "results": results})
}

/// How this was called; of paths the last part says enough.
fn command() -> String {
    let shown = |argument: String| match argument.rsplit_once('/') {
        Some((_, name)) => name.to_owned(),
        None => argument,
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(shown).collect();
    format!("cargo xtask {}", arguments.join(" "))
}

fn by_round(args: &Args) -> bool {
    let mut measurements = Vec::new();
    let done = rounds(args, &mut measurements);
    let summary = sum_up(&measurements);
    println!("{}", table(&summary));
    let results = Results { command: command(), machine: Machine::this(), summary, measurements };
    let written = write(args.svg.as_ref(), || picture(&results.summary))
        && write(args.json.as_ref(), || pretty(&results));
    done && written
}

fn by_size(args: &Args, sizes: &[u32]) -> Result<Value, String> {
    let mut systems = BTreeMap::new();
    for which in &args.systems {
        eprintln!("{}: {sizes:?} cameras", which.as_str());
        let all = scale::measure_sizes(&args.plan(*which, 0), sizes, tell)?;
        systems.insert(*which, all);
    }
    let slopes: BTreeMap<_, _> = systems.iter().map(|(which, all)| (*which, scale::slopes(all))).collect();
    for (which, all) in &systems {
        println!("{}", scale::table(all));
        let slopes = &slopes[which];
        if let (Some(cpu), Some(memory)) = (slopes.cpu_per_camera, slopes.memory_per_camera) {
            println!(
                "{}: with each camera more a camera costs {:+.4} s per hour and {:+.5} MB (least squares)",
                which.as_str(),
                cpu.slope,
                memory.slope
            );
        }
        if let Some(what) = &slopes.gave_out {
            println!("{}: gives out at {what}", which.as_str());
        }
    }
    write(args.svg.as_ref(), || scale::picture(&systems));
    Ok(file(json!({"slopes": slopes, "measurements": systems})))
}

fn by_most(args: &Args) -> Result<Value, String> {
    let mut found = Vec::new();
    for which in &args.systems {
        let sustained = sustain::find(&args.plan(*which, 0), (args.cameras, args.most), tell)?;
        println!(
            "{}: {} cameras are borne{}",
            which.as_str(),
            sustained.cameras,
            sustained.not.map_or_else(String::new, |not| format!(", {not} are not"))
        );
        found.push(sustained);
    }
    Ok(file(json!(found)))
}

fn by_start(args: &Args) -> Result<Value, String> {
    let mut starts = Vec::new();
    for round in 1..=args.rounds {
        for which in &args.systems {
            let start = start::start(&args.plan(*which, args.cameras), round)?;
            let live = &start.readiness;
            let after = live.after_s.map_or("never".into(), |s| format!("after {s:.1} s"));
            eprintln!(
                "round {round}: {}: {} of {} cameras live, all of them {after}, {:.1} s of processor",
                which.as_str(),
                live.live,
                start.cameras,
                start.cpu_s
            );
            starts.push(start);
        }
    }
    for which in &args.systems {
        let own = starts.iter().filter(|s| s.system == *which);
        if let Some(s) = Spread::of(own.filter_map(|s| s.readiness.after_s)) {
            println!(
                "{}: {} cameras live after {:.1} s ({:.1}-{:.1})",
                which.as_str(),
                args.cameras,
                s.median,
                s.min,
                s.max
            );
        }
    }
    Ok(file(json!(starts)))
}

fn by_recovery(args: &Args) -> Result<Value, String> {
    let mut all = Vec::new();
    for round in 1..=args.rounds {
        for which in &args.systems {
            eprintln!("round {round} of {}: {}", args.rounds, which.as_str());
            all.push(recovery::recovery(&args.plan(*which, args.cameras), round)?);
        }
    }
    for which in &args.systems {
        let own = || all.iter().filter(|r| r.system == *which);
        let said = |delays: Vec<Option<f64>>| {
            let back: Vec<f64> = delays.iter().copied().flatten().collect();
            let (lost, all) = (delays.len() - back.len(), delays.len());
            let lost =
                if lost > 0 { format!(", {lost} of {all} not within a minute") } else { String::new() };
            let back = Spread::of(back).map(|s| format!("{:.2} s ({:.2}-{:.2})", s.median, s.min, s.max));
            back.unwrap_or_else(|| "never".into()) + &lost
        };
        println!(
            "{}: listened to again after it was killed: {}; after it was stopped: {}",
            which.as_str(),
            said(own().flat_map(|r| r.killed.clone()).collect()),
            said(own().flat_map(|r| r.stopped.clone()).collect())
        );
    }
    Ok(file(json!(all)))
}

fn by_minute(args: &Args, minutes: u32) -> Result<Value, String> {
    let mut all = Vec::new();
    for which in &args.systems {
        let growth = growth::watch(&args.plan(*which, args.cameras), minutes, |sample| {
            eprintln!("{}: {:.0} min: {:.1} MB", which.as_str(), sample.minutes, sample.total() as f64 / 1e6);
        })?;
        println!(
            "{}: memory at the end {:.3} times that after a minute, {:+.1} KB a minute (least squares)",
            which.as_str(),
            growth.ratio().unwrap_or(f64::NAN),
            growth.slope.unwrap_or(f64::NAN) / 1e3
        );
        all.push(growth);
    }
    Ok(file(json!(all)))
}

fn by_route(args: &Args) -> Value {
    let lasting = Duration::from_secs(args.seconds);
    let routing = routing::compare(args.cameras, lasting, args.rounds, |line| eprintln!("{line}"));
    let of = |values: Vec<f64>| {
        Spread::of(values).map_or("-".into(), |s| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max))
    };
    println!(
        "a window is {} bytes to the supervisor, {} from there to whom scores it, {} back",
        routing.captured, routing.exchange.there, routing.exchange.back
    );
    println!(
        "windows a second through the supervisor: {}",
        of(routing.flooded.iter().map(|r| r.rate()).collect())
    );
    println!(
        "windows a second over a bare socket pair: {}",
        of(routing.bare.iter().map(|r| r.rate()).collect())
    );
    if let Some(ratio) = routing.rate_ratio {
        println!("  times the supervisor's: {:.1} ({:.1}-{:.1})", ratio.median, ratio.min, ratio.max);
    }
    let costs = routing.paced.iter().map(|r| r.supervisor_us()).collect();
    println!("µs of the supervisor per window, {} cameras in real time: {}", args.cameras, of(costs));
    for (routed, bare) in routing.paced.iter().zip(&routing.bare) {
        let (p50, p99) = bare.latency_ms.map_or((f64::NAN, f64::NAN), |d| (d.p50, d.p99));
        println!(
            "delay, p50 and p99: {:.2} and {:.2} ms; bare, there and back: {p50:.2} and {p99:.2} ms",
            routed.latency_ms.0, routed.latency_ms.1
        );
    }
    file(json!(routing))
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
    if m.seconds == 0.0 {
        return eprintln!("  nothing to measure: {}", m.complaints().join(", "));
    }
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
