//! Kills and freezes random workers for a while, then expects everything to be as if nothing had happened.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nursery_shared::status::WorkerState;
use nursery_tests::{
    audio,
    processes::Process,
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    wait::poll,
};
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// How long workers are hit
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Repeats a run (as far as the machine does)
    #[arg(long)]
    seed: Option<u64>,
}

/// False when the service did not recover, or a cry was not announced.
pub fn run(args: &Args) -> bool {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cameras = [Codec::Pcmu, Codec::Pcma, Codec::L16].map(RtspCamera::start);
    let names = ["a", "b", "c"];
    let receiver = Receiver::start();
    let list = names.iter().zip(&cameras).map(|(name, c)| camera(name, c.url()));
    let mut config = config(list, [receiver.alert()]);
    config["inference"]["workers"] = json!(2);
    let service = Service::start(&config);
    service.wait_live(&names);
    let (end, mut hits) = (Instant::now() + Duration::from_secs(args.seconds), 0);
    while Instant::now() < end {
        let status = service.status();
        let hit = random.choice(&status.workers).expect("workers");
        let signal = if random.u8(..) < 64 { Signal::SIGSTOP } else { Signal::SIGKILL };
        if let Some(process) = hit.pid.and_then(Process::of)
            && service.process().descendants().contains(&process)
        {
            println!("{signal} {}", hit.name);
            process.signal(signal);
            hits += 1;
        }
        std::thread::sleep(Duration::from_millis(random.u64(50..2000)));
    }
    println!("{hits} hits; waiting for everything to be well again");
    // A worker that was hit often is restarted after up to 30 s, on purpose.
    let well = poll(Duration::from_secs(120), || {
        let status = service.status();
        status.workers.iter().all(|w| w.state == WorkerState::Running).then_some(())
    });
    if well.is_none() {
        println!("not recovered: {}", serde_json::to_string_pretty(&service.status()).expect("JSON"));
        return false;
    }
    service.wait_live(&names);
    for (name, camera) in names.iter().zip(&cameras) {
        camera.microphone().play(&audio::cry(5.0));
        receiver.wait_for("cry.started", name, Duration::from_secs(30));
    }
    let quarantined = service.status().inference.quarantined;
    println!("recovered; every camera's cry was announced; {quarantined} windows set aside");
    true
}
