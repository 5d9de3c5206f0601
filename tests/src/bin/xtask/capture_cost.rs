//! What listening costs: capture processes beside as many ffmpeg processes on the same streams, in turns.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nursery_shared::status::WorkerState;
use nursery_tests::{
    audio,
    gst_camera::{self, GstCamera, Stream},
    processes::Process,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    temp_dir::TempDir,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

#[derive(clap::Args)]
pub struct Args {
    /// Streams: pcmu, l16, aac-16k, aac-48k-stereo, or NAME=URL of cameras that are there already, {n} in it being the
    /// number of one (from 0)
    #[arg(long = "stream", default_values_t = ["pcmu".to_owned(), "aac-48k-stereo".to_owned()])]
    streams: Vec<String>,
    /// Cameras of each stream, listened to at once
    #[arg(long, default_value_t = 8)]
    cameras: usize,
    /// How long each side is looked at in each round
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only nursery, without ffmpeg beside it
    #[arg(long)]
    alone: bool,
    /// With the page, so that capture processes remember media for clips
    #[arg(long)]
    clips: bool,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// Before anything is measured, for whatever happens once.
const SETTLE: Duration = Duration::from_secs(6);

/// The cameras of one stream.
enum Cameras {
    Rtsp(RtspCamera),
    Gst(GstCamera, #[expect(dead_code, reason = "holds the recording")] TempDir),
    There(String),
}

impl Cameras {
    fn new(stream: &str, span: Duration) -> Result<Self, String> {
        let gst = |kind| {
            if let Some(why) = gst_camera::missing() {
                return Err(why);
            }
            let dir = TempDir::new();
            let wav = dir.join("recording.wav");
            // Whoever connects hears it from its start.
            let seconds = span.as_secs_f32() / 8.0;
            let bout = [audio::cry(seconds), audio::room_noise(seconds)].concat();
            audio::write_wav(&wav, &bout.repeat(4));
            Ok(Self::Gst(GstCamera::start(kind, &wav), dir))
        };
        match (stream, stream.split_once('=')) {
            ("pcmu", _) => Ok(Self::Rtsp(RtspCamera::start(Codec::Pcmu))),
            ("l16", _) => Ok(Self::Rtsp(RtspCamera::start(Codec::L16))),
            ("aac-16k", _) => gst(Stream::Aac16k),
            ("aac-48k-stereo", _) => gst(Stream::Aac48kStereo),
            (_, Some((_, url))) => Ok(Self::There(url.to_owned())),
            _ => Err(format!("{stream}: is no stream, see --help")),
        }
    }

    fn url(&self, n: usize) -> String {
        match self {
            Self::Rtsp(camera) => camera.url(),
            Self::Gst(camera, _) => camera.url(),
            Self::There(url) => url.replace("{n}", &n.to_string()),
        }
    }
}

/// What processes have used so far, or hold now.
#[derive(Default, Clone, Copy)]
struct Usage {
    cpu_s: f64,
    /// Proportional set size: what is shared is divided by how many share it.
    memory: f64,
    private: f64,
    switches: f64,
}

impl Usage {
    /// `None` where one of them is gone.
    fn of(processes: &[Process]) -> Option<Self> {
        let mut sum = Self::default();
        for process in processes {
            let pid = process.pid;
            for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
                let task = task.ok()?.path();
                let spent = fs::read_to_string(task.join("schedstat")).ok()?;
                sum.cpu_s += spent.split(' ').next()?.parse::<f64>().ok()? / 1e9;
                sum.switches +=
                    figure(&fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches:")?;
            }
            // Of processes that let nobody look into them only root is told.
            let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.memory += figure(&memory, "Pss:").unwrap_or(f64::NAN) * 1024.0;
            sum.private += ["Private_Clean:", "Private_Dirty:"]
                .iter()
                .map(|name| figure(&memory, name).unwrap_or(f64::NAN) * 1024.0)
                .sum::<f64>();
        }
        Some(sum)
    }
}

fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// One side of one round, per camera.
struct Cost {
    /// Seconds of a processor per hour.
    cpu: f64,
    memory: f64,
    private: f64,
    /// Per second.
    wakes: f64,
}

type Figure = fn(&Cost) -> f64;

/// Looks at processes for a while.
fn look(processes: &[Process], span: Duration) -> Cost {
    let usage = || Usage::of(processes).expect("a process ended while it was looked at");
    let (before, start) = (usage(), Instant::now());
    thread::sleep(span);
    let (after, took) = (usage(), start.elapsed().as_secs_f64());
    let each = processes.len() as f64;
    Cost {
        cpu: (after.cpu_s - before.cpu_s) / took * 3600.0 / each,
        memory: after.memory / each,
        private: after.private / each,
        wakes: (after.switches - before.switches) / took / each,
    }
}

fn nursery(cameras: &Cameras, args: &Args) -> Cost {
    let names: Vec<String> = (0..args.cameras).map(|n| format!("c{n}")).collect();
    let sources = names.iter().enumerate().map(|(n, name)| camera(name, cameras.url(n)));
    let mut config = config(sources, []);
    config["clips"] = json!({"enabled": args.clips});
    let service = Service::start(&config);
    service.wait_live(&names.iter().map(String::as_str).collect::<Vec<_>>());
    thread::sleep(SETTLE);
    let processes: Vec<Process> = service
        .status()
        .workers
        .iter()
        .filter(|w| w.name.starts_with("capture:") && w.state == WorkerState::Running)
        .filter_map(|w| Process::of(w.pid?))
        .collect();
    assert_eq!(processes.len(), args.cameras, "capture processes");
    let cost = look(&processes, Duration::from_secs(args.seconds));
    let status = service.status();
    let dropped: u64 = status.cameras.iter().map(|c| c.dropped).sum();
    if dropped > 0 {
        eprintln!("{dropped} windows were dropped: the machine is too busy for these figures");
    }
    cost
}

struct Programs(Vec<Child>);

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ffmpeg(cameras: &Cameras, args: &Args) -> Cost {
    let start = |n: usize| {
        Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-i", &cameras.url(n), "-vn"])
            // Nothing that is cheaper takes it.
            .args(["-ac", "1", "-ar", "16000", "-f", "s16le", "-y", "/dev/null"])
            .stdin(Stdio::null())
            .spawn()
            .expect("start ffmpeg")
    };
    let programs = Programs((0..args.cameras).map(start).collect());
    let processes: Vec<Process> = programs.0.iter().filter_map(|child| Process::of(child.id())).collect();
    assert_eq!(processes.len(), args.cameras, "an ffmpeg ended at once");
    let written = |process: &Process| {
        let text = fs::read_to_string(format!("/proc/{}/io", process.pid)).ok()?;
        figure(&text, "wchar:").filter(|bytes| *bytes > 0.0)
    };
    until("audio from every ffmpeg", 4 * PATIENCE, || {
        processes.iter().all(|process| written(process).is_some()).then_some(())
    });
    thread::sleep(SETTLE);
    look(&processes, Duration::from_secs(args.seconds))
}

/// Median and extremes.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Self(sorted[sorted.len() / 2], sorted[0], sorted[last])
    }

    fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.0, self.1, self.2)
    }

    fn json(&self) -> Value {
        json!({"median": self.0, "min": self.1, "max": self.2})
    }
}

/// Measures and prints; false where a stream is not to be had.
pub fn run(args: &Args) -> bool {
    let rounds = args.rounds.max(1);
    let span = (SETTLE + Duration::from_secs(args.seconds)) * 2 + PATIENCE;
    let mut documents = Vec::new();
    for stream in &args.streams {
        let cameras = match Cameras::new(stream, span) {
            Ok(cameras) => cameras,
            Err(why) => {
                eprintln!("{why}");
                return false;
            }
        };
        let name = stream.split('=').next().unwrap_or(stream);
        let costs: Vec<(Cost, Option<Cost>)> = (0..rounds)
            .map(|_| (nursery(&cameras, args), (!args.alone).then(|| ffmpeg(&cameras, args))))
            .collect();
        let ours = |of: Figure| Spread::of(costs.iter().map(|(ours, _)| of(ours)));
        let theirs =
            |of: Figure| Spread::of(costs.iter().filter_map(|(_, theirs)| Some(of(theirs.as_ref()?))));
        let ratio = |of: Figure| {
            Spread::of(costs.iter().filter_map(|(ours, theirs)| Some(of(ours) / of(theirs.as_ref()?))))
        };
        let kinds: [(&str, &str, f64, Figure); 4] = [
            ("cpu_s_per_camera_hour", "CPU s per camera-hour", 1.0, |c| c.cpu),
            ("pss_bytes", "proportional memory, MB", 1e-6, |c| c.memory),
            ("private_bytes", "of it private, MB", 1e-6, |c| c.private),
            ("wakes_per_s", "wake-ups per second", 1.0, |c| c.wakes),
        ];
        if !args.json {
            println!("{name}, {} cameras, {rounds} × {} s:", args.cameras, args.seconds);
        }
        let mut document =
            json!({"stream": name, "cameras": args.cameras, "rounds": rounds, "seconds": args.seconds});
        for (key, title, scale, of) in kinds {
            let scaled = |Spread(a, b, c)| Spread(a * scale, b * scale, c * scale);
            let mut line = format!("  {title:<26} nursery {}", scaled(ours(of)).text(2));
            document[key] = json!({"nursery": ours(of).json()});
            if !args.alone {
                line += &format!("  ffmpeg {}  ratio {}", scaled(theirs(of)).text(2), ratio(of).text(3));
                document[key]["ffmpeg"] = theirs(of).json();
                document[key]["ratio"] = ratio(of).json();
            }
            if !args.json {
                println!("{line}");
            }
        }
        documents.push(document);
    }
    if args.json {
        println!("{}", Value::Array(documents));
    }
    true
}
