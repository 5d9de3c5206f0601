//! How long it takes from a baby's first cry at the camera to the arrival of the webhook; with `--page-killed-every`,
//! whether it takes longer while the page's process is killed again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{message::Role, status::WorkerState};
use nursery_tests::{
    audio,
    http::{Client, free_port},
    processes::Process,
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    wait::{PATIENCE, until},
};
use serde_json::json;

use crate::figures::Figures;

#[derive(clap::Args)]
pub struct Args {
    /// How often the baby cries
    #[arg(long, default_value_t = 20)]
    cries: usize,
    /// Have a page that is asked all the time, and kill its process so often during every second cry
    #[arg(long, value_name = "SECONDS")]
    page_killed_every: Option<f64>,
}

/// Measures and prints.
pub fn run(args: &Args) {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut config = config([camera("crib", crib.url())], [receiver.alert()]);
    config["detection"]["cooldown_s"] = json!(0);
    config["detection"]["end_after_s"] = json!(1);
    let port = free_port();
    if args.page_killed_every.is_some() {
        config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
        config["supervision"] = json!({"healthy_after_s": 1});
    }
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let (mut calm, mut hurt) = (Figures::default(), Figures::default());
    let (killing, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let killed = std::thread::scope(|scope| {
        let killer = args.page_killed_every.map(|every| {
            let every = Duration::from_secs_f64(every.clamp(0.2, 60.0));
            let (service, killing, over) = (&service, &killing, &over);
            scope.spawn(move || kill_page(service, every, killing, over))
        });
        if args.page_killed_every.is_some() {
            scope.spawn(|| ask_page(port, &over));
        }
        for n in 0..args.cries {
            eprint!("\rcry {} of {} ", n + 1, args.cries);
            let is_hurt = args.page_killed_every.is_some() && n % 2 == 1;
            killing.store(is_hurt, Ordering::SeqCst);
            let start = Instant::now();
            crib.microphone().play(&audio::cry(4.0));
            let started = until("cry.started", PATIENCE, || {
                receiver.accepted_of("cry.started", "crib").into_iter().nth(n)
            });
            if is_hurt { &mut hurt } else { &mut calm }.add(started.at - start);
            until("cry.ended", PATIENCE, || receiver.accepted_of("cry.ended", "crib").into_iter().nth(n));
            // Not always at the same place between two windows.
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
        }
        over.store(true, Ordering::SeqCst);
        killer.map_or(0, |killer| killer.join().unwrap_or(0))
    });
    eprintln!();
    println!("{}", calm.line("first cry to webhook"));
    if args.page_killed_every.is_some() {
        println!("{}", hurt.line(&format!("the same while the page is killed ({killed} times)")));
    }
    let latency = service.status().inference.latency_ms;
    println!(
        "of it, last sample to scores: p50 {:.1} p99 {:.1} ms; the rest is the model's window, its lookahead and",
        latency.p50, latency.p99
    );
    println!("detection.min_duration_s (0.4 s of crying before it is announced)");
}

/// Kills the page's process every so often while it is to be killed; how often that was.
fn kill_page(service: &Service, every: Duration, killing: &AtomicBool, over: &AtomicBool) -> usize {
    let mut killed = 0;
    let mut next = Instant::now();
    while !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
        if !killing.load(Ordering::SeqCst) || Instant::now() < next {
            continue;
        }
        let status = service.status();
        let page = status.workers.iter().find(|w| w.role == Role::Web && w.state == WorkerState::Running);
        if let Some(process) = page.and_then(|w| w.pid).and_then(Process::of) {
            killed += usize::from(process.signal(Signal::SIGKILL));
            next = Instant::now() + every;
        }
    }
    killed
}

/// Asks the page for everything, again and again.
fn ask_page(port: u16, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        for path in ["/api/status", "/api/events?limit=100", "/metrics"] {
            // Whoever is killed answers nobody.
            let _ = Client::new(port).try_request("GET", path, "");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
