//! What many viewers of one camera cost, some of them slow, and how evenly the others get their pictures; and what it costs
//! where each viewer has a session with the camera.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use nursery_shared::timestamp;
use nursery_tests::{
    http::{Client, free_port},
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    service::{Service, camera, config, find_worker},
    wait::{PATIENCE, until},
};
use serde_json::json;

use crate::figures::Figures;

/// Records of live media: a picture, and a notice.
const PICTURE: u8 = 4;
const NOTICE: u8 = 8;
/// Bytes that a slow viewer reads a second: less than the camera sends.
const SLOW: usize = 4 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// Viewers, of whom
    #[arg(long, default_value_t = 200)]
    viewers: usize,
    /// so many read slowly
    #[arg(long, default_value_t = 50)]
    slow: usize,
    /// How long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Instead, so many programs (ffmpeg) with a session of the camera each
    #[arg(long)]
    sessions: Option<usize>,
}

/// Measures and prints; false where there is no camera to measure with.
pub fn run(args: &Args) -> bool {
    let Some(film) = film::film() else {
        eprintln!("{}", film::missing().unwrap_or_default());
        return false;
    };
    let crib = RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() });
    match args.sessions {
        Some(sessions) => sessions_each(&crib, sessions, args.seconds),
        None => from_one(&crib, args),
    }
    true
}

fn from_one(crib: &RtspCamera, args: &Args) {
    let port = free_port();
    let mut config = config([camera("crib", crib.url())], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let client = Client::new(port);
    until("the page", PATIENCE, || client.try_request("GET", "/readyz", "").ok().filter(|r| r.status == 200));
    let used = || {
        let status = service.status();
        ["web", "capture:crib"].map(|name| {
            let worker = find_worker(&status, name);
            (worker.cpu_s, worker.rss_bytes)
        })
    };
    let idle = used();
    let (stop, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let fast: Vec<_> = (args.slow..args.viewers)
        .map(|_| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            thread::spawn(move || watch(&client, &stop))
        })
        .collect();
    for _ in 0..args.slow {
        let (client, stop, moved) = (client.clone(), Arc::clone(&stop), Arc::clone(&moved));
        thread::spawn(move || crawl(&client, &stop, &moved));
    }
    until("all viewers", PATIENCE, || {
        let figures = client.get("/metrics").text();
        figures.contains(&format!("nursery_web_viewers {}\n", args.viewers)).then_some(())
    });
    thread::sleep(Duration::from_secs(3));
    // From here on.
    crib.most_playing();
    let (before, start) = (used(), Instant::now());
    thread::sleep(Duration::from_secs(args.seconds));
    let (after, span) = (used(), start.elapsed().as_secs_f64());
    let sessions = crib.most_playing();
    stop.store(true, Ordering::Relaxed);
    let (mut gaps, mut delays, mut pictures, mut notices) = (Figures::default(), Figures::default(), 0, 0);
    for viewer in fast {
        let seen = viewer.join().expect("a viewer");
        pictures += seen.gaps.len();
        notices += seen.notices;
        seen.gaps.into_iter().for_each(|gap| gaps.add(gap));
        seen.delays.into_iter().for_each(|delay| delays.add(delay));
    }
    println!("{} viewers, {} of them slow, for {span:.0} s:", args.viewers, args.slow);
    println!("  sessions that the camera saw: {sessions}");
    println!("  pictures of the others: {pictures}, notices of something left out: {notices}");
    println!("  {}", gaps.line("between two pictures"));
    println!("  {}", delays.line("from the camera's time to here"));
    println!("  slow viewers that were moved forward: {}", moved.load(Ordering::Relaxed));
    for (n, name) in ["web", "capture:crib"].iter().enumerate() {
        println!(
            "  {name}: {:.1} % of a processor, {:.1} MB (before anybody looked {:.1} MB)",
            (after[n].0 - before[n].0) / span * 100.0,
            after[n].1 as f64 / 1e6,
            idle[n].1 as f64 / 1e6
        );
    }
}

#[derive(Default)]
struct Seen {
    gaps: Vec<Duration>,
    delays: Vec<Duration>,
    notices: u64,
}

fn watch(client: &Client, stop: &AtomicBool) -> Seen {
    let mut stream = client.live("/api/cameras/crib/live").expect("live media");
    let (mut seen, mut last) = (Seen::default(), None);
    // The first ones come at once, up to the newest.
    let settled = Instant::now() + Duration::from_secs(3);
    while !stop.load(Ordering::Relaxed) {
        let record = stream.try_next().expect("a record");
        seen.notices += u64::from(record.kind == NOTICE);
        if record.kind != PICTURE {
            continue;
        }
        if let Some(last) = last.replace(record.at)
            && record.at > settled
        {
            seen.gaps.push(record.at - last);
            let delay = timestamp::now_us() - record.time_us;
            seen.delays.push(Duration::from_micros(delay.max(0).unsigned_abs()));
        }
    }
    seen
}

fn crawl(client: &Client, stop: &AtomicBool, moved: &AtomicU64) {
    let mut stream = client.connect().expect("a connection");
    let _ = setsockopt(&stream, RcvBuf, &(4 << 10));
    client.ask(&mut stream, "/api/cameras/crib/live").expect("a request");
    let (mut tail, mut piece, mut told) = (Vec::new(), [0; SLOW / 4], false);
    while !stop.load(Ordering::Relaxed) {
        let Ok(n @ 1..) = stream.read(&mut piece) else { return };
        tail.extend_from_slice(&piece[..n]);
        if !told && tail.windows(16).any(|w| w == br#""notice":"moved""#) {
            told = true;
            moved.fetch_add(1, Ordering::Relaxed);
        }
        tail.drain(..tail.len().saturating_sub(64));
        thread::sleep(Duration::from_millis(250));
    }
}

fn sessions_each(crib: &RtspCamera, sessions: usize, seconds: u64) {
    let viewers: Vec<Child> = (0..sessions)
        .map(|_| {
            Command::new("ffmpeg")
                .args(["-v", "error", "-rtsp_transport", "tcp", "-i", &crib.url()])
                .args(["-c", "copy", "-f", "null", "-"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start ffmpeg")
        })
        .collect();
    until("all sessions", 4 * PATIENCE, || (crib.playing() == sessions).then_some(()));
    thread::sleep(Duration::from_secs(3));
    let used =
        || viewers.iter().filter_map(|v| usage(v.id())).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let (before, start) = (used(), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (after, span) = (used(), start.elapsed().as_secs_f64());
    println!("{sessions} programs with a session each, for {span:.0} s:");
    println!("  sessions that the camera saw: {}", crib.most_playing());
    println!(
        "  all of them: {:.1} % of a processor, {:.0} MB",
        (after.0 - before.0) / span * 100.0,
        after.1 / 1e6
    );
    for mut viewer in viewers {
        let _ = viewer.kill();
        let _ = viewer.wait();
    }
}

/// Seconds of processor, and bytes in memory.
fn usage(pid: u32) -> Option<(f64, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<f64> = text.rsplit(')').next()?.split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
    // Counted from the state, the third field: utime and stime in hundredths, rss in pages.
    Some(((fields.get(12)? + fields.get(13)?) / 100.0, fields.get(22)? * 4096.0))
}
