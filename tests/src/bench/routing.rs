//! What it costs to hand windows from one process to another through the supervisor, which does nothing else here: its
//! workers (`effortless-worker`) make windows of nothing, score them at once and store nothing. Beside it, the same bytes
//! between two processes over a bare socket pair.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nursery_shared::{
    frame::{MAX_FROM_WORKER, MAX_TO_WORKER, encode_frame},
    message::{CapturedWindow, FromWorker, ModelShape, ToWorker, WindowJob, WindowScores},
    model_state::ModelState,
    pcm::Pcm,
    status::CameraState,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    machine, nursery,
    statistics::{Delays, Spread},
    system::role_of,
    usage::Accounts,
};
use crate::{
    audio,
    processes::Process,
    service::{Service, binary},
    temp_dir::TempDir,
};

/// Bytes of one window, as they travel between the two processes that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// To whom scores it: samples and state.
    pub there: usize,
    /// Back: scores and state.
    pub back: usize,
}

impl Exchange {
    /// Of windows of this shape, one in each frame.
    pub fn of(shape: &ModelShape) -> Self {
        let pcm = Pcm::from_f32(&vec![0.0; shape.window as usize]);
        let state = ModelState::from(vec![7; shape.state_bytes as usize]);
        let job = WindowJob { id: 1, state: state.clone(), pcm };
        let scores = vec![0.0; shape.scores_per_window()];
        let scores = WindowScores { id: 1, scores, state };
        Self {
            there: length(&ToWorker::Batch { batch: 1, windows: vec![job] }, MAX_TO_WORKER),
            back: length(&FromWorker::Scores { batch: 1, windows: vec![scores] }, MAX_FROM_WORKER),
        }
    }

    /// As `effortless-worker bare` is told.
    pub fn parse(text: &str) -> Option<Self> {
        let (there, back) = text.split_once('+')?;
        Some(Self { there: there.parse().ok()?, back: back.parse().ok()? })
    }
}

fn length(message: &impl Serialize, most: usize) -> usize {
    let mut bytes = Vec::new();
    encode_frame(message, most, &mut bytes).expect("a frame");
    bytes.len()
}

/// Bytes of a window on its way to the supervisor.
pub fn captured(shape: &ModelShape) -> usize {
    let pcm = Pcm::from_f32(&vec![0.0; shape.window as usize]);
    let window = CapturedWindow { end_us: 1 << 50, arrived_us: 1 << 40, level_dbfs: 0.0, mute: false, pcm };
    length(&FromWorker::Window(window), MAX_FROM_WORKER)
}

/// Windows through the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    pub cameras: u32,
    /// At their time, as cameras send them; otherwise as fast as they are taken.
    pub realtime: bool,
    pub seconds: f64,
    pub windows: u64,
    pub dropped: u64,
    /// Sent by the capture process to scored, as the supervisor counts it: p50 and p99, milliseconds. Where windows come as
    /// fast as they are taken, that they wait for each other is in it.
    pub latency_ms: (f64, f64),
    /// Seconds of processor, by role.
    pub cpu_s: BTreeMap<String, f64>,
    pub machine_busy: f64,
}

impl Routed {
    /// Windows per second.
    pub fn rate(&self) -> f64 {
        self.windows as f64 / self.seconds
    }

    /// Microseconds of the supervisor for each window.
    pub fn supervisor_us(&self) -> f64 {
        self.cpu_s.get("supervisor").copied().unwrap_or(0.0) * 1e6 / self.windows.max(1) as f64
    }
}

/// Windows over a bare socket pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bare {
    pub exchange: Exchange,
    pub seconds: f64,
    pub windows: u64,
    /// There and back, milliseconds.
    pub latency_ms: Option<Delays>,
    /// Seconds of processor of both ends.
    pub cpu_s: f64,
}

impl Bare {
    /// Windows per second.
    pub fn rate(&self) -> f64 {
        self.windows as f64 / self.seconds
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// Bytes of a window from its camera to the supervisor.
    pub captured: usize,
    pub exchange: Exchange,
    pub paced: Vec<Routed>,
    pub flooded: Vec<Routed>,
    pub bare: Vec<Bare>,
    /// Windows per second, bare over routed, round by round.
    pub rate_ratio: Option<Spread>,
}

/// Rounds of all three.
pub fn compare(cameras: u32, lasting: Duration, rounds: u32, mut tell: impl FnMut(&str)) -> Routing {
    let shape = nursery::shape();
    let mut routing = Routing {
        captured: captured(&shape),
        exchange: Exchange::of(&shape),
        paced: Vec::new(),
        flooded: Vec::new(),
        bare: Vec::new(),
        rate_ratio: None,
    };
    for round in 1..=rounds {
        let paced = routed(cameras, true, lasting);
        tell(&format!(
            "round {round}: {cameras} cameras in real time: {:.0} windows a second, p50 {:.2} ms, p99 {:.2} ms, {:.0} µs of the \
             supervisor each",
            paced.rate(),
            paced.latency_ms.0,
            paced.latency_ms.1,
            paced.supervisor_us()
        ));
        let flooded = routed(cameras.min(16), false, lasting);
        tell(&format!(
            "round {round}: {} cameras as fast as it goes: {:.0} windows a second, {:.0} µs of the supervisor each",
            flooded.cameras,
            flooded.rate(),
            flooded.supervisor_us()
        ));
        let bare = bare(routing.exchange, lasting);
        tell(&format!(
            "round {round}: bare: {:.0} windows a second, {:.0} µs of both ends each",
            bare.rate(),
            bare.cpu_s * 1e6 / bare.windows.max(1) as f64
        ));
        routing.paced.push(paced);
        routing.flooded.push(flooded);
        routing.bare.push(bare);
    }
    let pairs = routing.bare.iter().zip(&routing.flooded);
    routing.rate_ratio = Spread::of(pairs.map(|(bare, routed)| bare.rate() / routed.rate()));
    routing
}

/// Through a real supervisor.
pub fn routed(cameras: u32, realtime: bool, lasting: Duration) -> Routed {
    let dir = TempDir::new();
    let silence = dir.join("nothing.wav");
    // Only its name is used.
    audio::write_wav(&silence, &[0; 16_000]);
    let source = if realtime { "synthetic:noise".to_owned() } else { format!("file:{}", silence.display()) };
    let list: Vec<_> = (0..cameras)
        .map(|n| json!({"name": format!("c{n}"), "source": source, "realtime": realtime, "loop": !realtime}))
        .collect();
    let service = Service::start_with_worker(&json!({"cameras": list}), &binary("effortless-worker"));
    service.wait_for("windows of all cameras", |status| {
        status.cameras.iter().all(|c| c.state == CameraState::Live && c.score.is_some()).then_some(())
    });
    // Until those at the start have come and gone.
    thread::sleep(Duration::from_secs(2));
    let figures = || {
        let status = service.status();
        let known = status.workers.iter().filter_map(|w| Some((w.pid?, w.role.as_str().to_owned())));
        let known = known.chain([(status.pid, "supervisor".to_owned())]).collect();
        let accounts = Accounts::of(service.process(), |process| role_of(process, service.process(), &known));
        let dropped: u64 = status.cameras.iter().map(|c| c.dropped).sum();
        (status.inference, dropped, accounts, machine::seconds(), Instant::now())
    };
    let before = figures();
    thread::sleep(lasting);
    let after = figures();
    let latency = after.0.latency_ms;
    Routed {
        cameras,
        realtime,
        seconds: (after.4 - before.4).as_secs_f64(),
        windows: after.0.scored - before.0.scored,
        dropped: after.1 - before.1,
        latency_ms: (latency.p50, latency.p99),
        cpu_s: after.2.since(&before.2),
        machine_busy: (after.3.0 - before.3.0) / (after.3.1 - before.3.1).max(0.01),
    }
}

/// Between two processes: first one window at a time, for the delay, then as many as the socket takes.
pub fn bare(exchange: Exchange, lasting: Duration) -> Bare {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut child = Command::new(binary("effortless-worker"))
        .arg("bare")
        .arg(format!("{}+{}", exchange.there, exchange.back))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("start the other end");
    let (there, mut back) = (vec![1; exchange.there], vec![0; exchange.back]);
    let mut delays = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < lasting / 4 {
        let start = Instant::now();
        ours.write_all(&there).expect("the other end");
        ours.read_exact(&mut back).expect("the other end");
        delays.push(start.elapsed().as_micros() as i64);
        // As far apart as windows of some cameras are.
        thread::sleep(Duration::from_millis(1));
    }
    let other = Process::of(child.id()).expect("the other end");
    let this = Process::of(std::process::id()).expect("this process");
    let (start, before) = (Instant::now(), Accounts::alone(other) + Accounts::alone(this));
    let mut writing = ours.try_clone().expect("the socket again");
    let writer = thread::spawn(move || {
        while start.elapsed() < lasting && writing.write_all(&there).is_ok() {}
        // The other end answers what it has, and ends.
        let _ = writing.shutdown(Shutdown::Write);
    });
    let mut windows = 0_u64;
    while ours.read_exact(&mut back).is_ok() {
        windows += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    writer.join().expect("the writing thread");
    // What is dead and was not waited for is still accounted for.
    let cpu_s = Accounts::alone(other) + Accounts::alone(this) - before;
    let _ = child.kill();
    let _ = child.wait();
    Bare { exchange, seconds, windows, latency_ms: Delays::of(&delays), cpu_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_are_exchanged_as_a_window_has() {
        let exchange = Exchange::of(&nursery::shape());
        // 250 ms of 16-bit samples and the state of a stream; state and scores.
        assert!(exchange.there > 8_000 + exchange.back - 100 && exchange.back > 10_000, "{exchange:?}");
        let text = format!("{}+{}", exchange.there, exchange.back);
        assert_eq!(Exchange::parse(&text), Some(exchange));
        assert!(captured(&nursery::shape()) > 8_000);
    }
}
