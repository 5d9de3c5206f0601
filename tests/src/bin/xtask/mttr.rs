//! How long it takes from SIGKILL of a worker to the first progress of the process that replaces it, per role.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nursery_shared::status::WorkerState;
use nursery_tests::{
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config, find_camera, find_worker, has_progressed},
};

use crate::figures::Figures;

#[derive(clap::Args)]
pub struct Args {
    /// Kills of each role
    #[arg(long, default_value_t = 50)]
    kills: u32,
}

/// How often the status is read; with the time of one reading, the resolution of what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Measures and prints. Every round starts a fresh service, since a worker that dies again within a minute is
/// restarted later on purpose (backoff).
pub fn run(args: &Args) {
    let workers = [("capture:crib", "capture (RTSP)"), ("infer:0", "infer"), ("sink", "sink")];
    let mut progress: [Figures; 3] = Default::default();
    let mut running: [Figures; 3] = Default::default();
    let (mut window, mut look) = (Figures::default(), Figures::default());
    for round in 0..args.kills {
        eprint!("\rround {} of {} ", round + 1, args.kills);
        let crib = RtspCamera::start(Codec::L16);
        let quiet = ["a", "b", "c"].map(|name| camera(name, "synthetic:noise"));
        let service = Service::start(&config(quiet.into_iter().chain([camera("crib", crib.url())]), []));
        service.wait_live(&["crib", "a", "b", "c"]);
        for (i, (worker, _)) in workers.iter().enumerate() {
            service.wait_for("progress of every worker", |status| {
                status
                    .workers
                    .iter()
                    .all(|w| w.state == WorkerState::Running && has_progressed(w))
                    .then_some(())
            });
            let old = service.process_of(worker);
            let windows = service.camera("crib").windows;
            let start = Instant::now();
            assert!(old.signal(Signal::SIGKILL), "{worker} died by itself");
            let (mut seen_running, mut seen_progress, mut seen_window) = (false, false, i != 0);
            while !(seen_running && seen_progress && seen_window) {
                let before = Instant::now();
                let status = service.status();
                look.add(before.elapsed());
                let found = find_worker(&status, worker);
                let replaced = found.pid.is_some_and(|pid| pid != old.pid);
                if !seen_running && replaced && found.state == WorkerState::Running {
                    seen_running = true;
                    running[i].add(start.elapsed());
                }
                if !seen_progress && replaced && has_progressed(found) {
                    seen_progress = true;
                    progress[i].add(start.elapsed());
                }
                if !seen_window && find_camera(&status, "crib").windows > windows + 1 {
                    seen_window = true;
                    window.add(start.elapsed());
                }
                assert!(start.elapsed() < Duration::from_secs(60), "{worker} is not replaced");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
    eprintln!();
    println!(
        "From SIGKILL of a worker, first failure (restart after the shortest backoff), to its replacement's"
    );
    for (i, (_, role)) in workers.iter().enumerate() {
        println!("{}", running[i].line(&format!("{role}: running")));
        println!("{}", progress[i].line(&format!("{role}: first progress")));
    }
    println!("{}", window.line("capture (RTSP): next window"));
    println!("{}", look.line(&format!("one look (then {} ms pause)", LOOK_EVERY.as_millis())));
    println!(
        "Four cameras, a pool of one; first progress of infer and sink includes waiting for the next window."
    );
}
