//! How long it takes from a baby's first cry at the camera to the arrival of the webhook.

use std::time::{Duration, Instant};

use nursery_tests::{
    audio,
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
}

impl Default for Args {
    fn default() -> Self {
        Self { cries: 20 }
    }
}

/// Measures and prints.
pub fn run(args: &Args) {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut config = config([camera("crib", crib.url())], [receiver.alert()]);
    config["detection"]["cooldown_s"] = json!(0);
    config["detection"]["end_after_s"] = json!(1);
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let mut figures = Figures::default();
    for n in 0..args.cries {
        eprint!("\rcry {} of {} ", n + 1, args.cries);
        let start = Instant::now();
        crib.microphone().play(&audio::cry(4.0));
        let started =
            until("cry.started", PATIENCE, || receiver.accepted_of("cry.started", "crib").into_iter().nth(n));
        figures.add(started.at - start);
        until("cry.ended", PATIENCE, || receiver.accepted_of("cry.ended", "crib").into_iter().nth(n));
        // Not always at the same place between two windows.
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
    }
    eprintln!();
    println!("{}", figures.line("first cry to webhook"));
    let latency = service.status().inference.latency_ms;
    println!(
        "of it, last sample to scores: p50 {:.1} p99 {:.1} ms; the rest is the model's window, its lookahead and",
        latency.p50, latency.p99
    );
    println!("detection.min_duration_s (0.4 s of crying before it is announced)");
}
