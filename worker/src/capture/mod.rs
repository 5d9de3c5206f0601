//! Role `capture`: one camera in, windows out. The working loop here owns the camera's state and never waits for
//! anything but its next event; whatever may take long (names, connections, files, programs) happens in the
//! source's own task, which reports through a bounded channel.

pub mod aac;
mod backoff;
pub mod clips;
mod clock;
mod exec;
mod file;
mod listener;
mod orders;
mod pace;
mod retry;
pub mod rtsp;
pub mod source;
mod synthetic;
pub mod tap;

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nursery_shared::{
    config::CameraConfig,
    media::Kind,
    message::{CapturedWindow, FromWorker, ModelShape, PROGRESS_INTERVAL, Role, StreamState, ToWorker},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    cage::{Cage, roles::Plan},
    link::{self, Inbox, Outbox},
};
use clips::Clips;
use listener::{Listener, Now};
use orders::{Order, Orders};
use source::{Ready, SourceEvent, SourceLink};
use tap::{Media, Tap};

/// Audio of a live camera that may wait for the supervisor; the newest windows win.
const LIVE_BACKLOG: Duration = Duration::from_secs(10);

/// Audio of a recording that may wait for the supervisor; decoding pauses meanwhile.
const RECORDING_BACKLOG: Duration = Duration::from_secs(4);

/// Most windows that may wait, however short they are.
const MAX_WINDOWS: usize = 128;

/// Messages that may wait before the regular reports are left out; a live camera's windows leave room for some.
const REPORT_QUEUE: usize = 192;

/// A regular report goes with the first window that is complete so long after the last report, or by itself where none
/// is for longer.
const WITH_WINDOW: Duration = Duration::from_millis(375);
const WITHOUT: Duration = Duration::from_millis(750);

/// How long a source may take to say goodbye (RTSP TEARDOWN, ending a program).
const GOODBYE: Duration = Duration::from_millis(1_200);

/// Data that this process may hold: some hundred times what it needs, for a camera whose answer never ends. Beyond
/// it the process aborts and is replaced; the host goes on.
const MEMORY: nix::libc::rlim_t = 512 << 20;

/// Takes no more memory than any camera needs.
pub fn limit_memory() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_DATA) {
        // Where it cannot be set, the supervisor's limit has to do.
        let _ = setrlimit(Resource::RLIMIT_DATA, MEMORY.min(soft), hard);
    }
}

/// Writes no larger file than a clip may be: whoever takes this process over cannot fill the disk with one.
fn limit_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_FSIZE) {
        let most = nursery_shared::clip::MAX_BYTES;
        // Where it cannot be set, what honest processes do has to do.
        let _ = setrlimit(Resource::RLIMIT_FSIZE, most.min(soft), most.min(hard));
    }
}

/// Runs until the supervisor drains this process or is gone, or the recording ends.
pub fn run() -> Result<(), String> {
    limit_memory();
    let link = link::open(Role::Capture)?;
    let mut cage = Cage::enter(link.supervisor());
    let (camera, model, remember_s) = match link.configuration()? {
        Some(ToWorker::ConfigureCapture { camera, model, remember_s }) => (camera, model, remember_s),
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    let source = camera.source.parse().map_err(|e| format!("source {}: {e}", camera.source.redacted()))?;
    let mut plan = Plan::capture(&camera, &source);
    // A program of the configuration may have files of its own.
    if !plan.programs {
        limit_files();
    }
    let source = Ready::from(source);
    if let Ready::Rtsp(url) = &source {
        plan.reach = plan.reach.ports(rtsp::entrance(url));
    }
    cage.confine(&plan);
    let (inbox, outbox) = link.start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    if let Ready::Rtsp(url) = &source {
        rtsp::prepare(&camera, url);
    }
    outbox.send(&cage.close(&plan)?)?;
    outbox.send(&FromWorker::Ready)?;
    let memory = Duration::from_secs(u64::from(remember_s));
    let outcome = runtime.block_on(work(camera, source, model, memory, inbox, outbox));
    // A name look-up or a file that hangs must not keep the process: its thread ends with it.
    runtime.shutdown_background();
    outcome
}

async fn work(
    camera: CameraConfig,
    source: Ready,
    model: ModelShape,
    memory: Duration,
    inbox: Inbox,
    outbox: Outbox,
) -> Result<(), String> {
    let mut orders = Orders::new(inbox)?;
    let lossless = matches!(source, Ready::File(_)) && !camera.realtime;
    let live_queue = model.windows_in(LIVE_BACKLOG).min(MAX_WINDOWS);
    let recording_queue = model.windows_in(RECORDING_BACKLOG).min(MAX_WINDOWS);
    let mut listener = Listener::new(&model, !lossless).with_noise_gate(camera.noise_gate);
    let (link, mut events, controls) = SourceLink::new();
    let link = link.for_windows_of(model.hop);
    // What is read faster than time nobody can watch.
    let encoded = matches!(source, Ready::Rtsp(_));
    let mut tap = (!lossless).then(|| Tap::new(controls.wishes, encoded, memory));
    let teller = outbox.clone();
    let mut clips =
        Clips::new(Arc::new(move |clip, report| teller.send(&FromWorker::ClipClosed { clip, report })));
    let mut task = tokio::spawn(source::run(camera, source, link));
    let mut sender = lossless.then(|| RecordingSender::start(outbox.clone(), recording_queue)).transpose()?;
    let mut pending = VecDeque::new();
    let mut windows = Vec::new();
    let mut ticks = interval(PROGRESS_INTERVAL / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Instant::now();
    let outcome = loop {
        tokio::select! {
            biased;
            order = orders.next() => match order {
                Order::End(outcome) => break outcome,
                // Its end is closed where there is nothing to be had.
                Order::Media(socket, operator) => if let Some(tap) = &mut tap {
                    tap.connect(socket, operator);
                },
                Order::Remember(memory) => if let Some(tap) = &mut tap {
                    tap.remember(memory);
                },
                Order::OpenClip(what, file) => open_clip(&mut clips, tap.as_ref(), what, file)?,
                Order::CloseClip(clip, until_us) => clips.close(clip, until_us),
            },
            _ = ticks.tick() => {
                reported = Instant::now();
                regular(&outbox, &mut listener, &clips)?;
            }
            taken = hand_over(&mut sender, &mut pending), if !pending.is_empty() => taken?,
            () = async { match &mut tap { Some(tap) => tap.left().await, None => std::future::pending().await } } => {}
            event = events.recv(), if pending.is_empty() => {
                let Some(event) = event else { break Err(gone(&mut task).await) };
                if let SourceEvent::Outdated(path) = event {
                    break Err(outdated(path));
                }
                let ended = matches!(event, SourceEvent::Ended);
                let now = Now::read();
                if let Some(tap) = &mut tap {
                    match event {
                        SourceEvent::Media(media) => {
                            // What is passed on may have another time than what came.
                            match &media {
                                Media::Tracks(tracks) => clips.set_tracks(tracks),
                                Media::Packet(_) => {}
                            }
                            if let Some(packet) = tap.on_media(media).filter(|_| clips.are_open()) {
                                clips.push(&packet);
                            }
                            continue;
                        }
                        SourceEvent::Connected => tap.on_connected(),
                        SourceEvent::Audio(ref samples) => {
                            if let Some(packet) = tap.on_samples(samples, now).filter(|_| clips.are_open()) {
                                clips.push(&packet);
                            }
                        }
                        _ => {}
                    }
                }
                let changed = listener.on_event(event, now, &mut windows);
                if lossless {
                    pending.extend(windows.drain(..));
                } else {
                    for window in windows.drain(..) {
                        listener.dropped += outbox.send_newest(&FromWorker::Window(window), live_queue)?;
                    }
                }
                if ended {
                    clips.finish("the recording came to its end");
                    break finish_recording(&outbox, &listener, sender.take(), pending, &mut orders).await;
                }
                if changed {
                    report(&outbox, &listener)?;
                }
                // Rather now than in a moment, when it would wake this process once more.
                if reported.elapsed() >= WITH_WINDOW {
                    reported = Instant::now();
                    ticks.reset_after(WITHOUT);
                    regular(&outbox, &mut listener, &clips)?;
                }
            }
        }
    };
    controls.stop.send_replace(true);
    drop(events);
    clips.finish("its capture process ended");
    // The task reports its own troubles; here it only matters that it does not hold the process up.
    let _ = timeout(GOODBYE, task).await;
    outcome
}

/// What is done about twice a second.
fn regular(outbox: &Outbox, listener: &mut Listener, clips: &Clips) -> Result<(), String> {
    let now = Now::read();
    listener.tick(now);
    clips.tick(now.wall_us);
    if outbox.queued() < REPORT_QUEUE { report(outbox, listener) } else { Ok(()) }
}

/// Begins a clip with what is remembered, or says why not.
fn open_clip(
    clips: &mut Clips,
    tap: Option<&Tap>,
    what: (i64, i64, u64),
    file: Option<OwnedFd>,
) -> Result<(), String> {
    match (tap, file) {
        (Some(tap), Some(file)) => {
            // Pictures begin at a key frame before; so does the sound then.
            let pictures = tap.remembered(what.1).filter(|p| p.kind == Kind::Video).map(|p| p.time_us);
            let from_us = pictures.min().map_or(what.1, |time| time.min(what.1));
            clips.open(what, file, tap.tracks(), tap.remembered(from_us).cloned().collect())
        }
        (None, _) => clips.refuse(what.0, "it is a recording that is read faster than time".into()),
        (_, None) => clips.refuse(what.0, "its file was lost on the way".into()),
    }
}

/// Why this process ends, so that the next one is caged for the files of now.
fn outdated(path: &std::path::Path) -> String {
    format!("{}: was replaced, and the new one is out of reach: begins anew", path.display())
}

/// Tells the supervisor how it stands.
fn report(outbox: &Outbox, listener: &Listener) -> Result<(), String> {
    let progress = FromWorker::Progress { done: listener.heard() };
    outbox.send_all(&[FromWorker::Camera(listener.report()), progress])
}

/// What became of a source that ended without saying so.
async fn gone(task: &mut tokio::task::JoinHandle<()>) -> String {
    match task.await {
        Err(e) if e.is_panic() => "the source's task panicked".into(),
        _ => "the source's task ended by itself".into(),
    }
}

/// Waits for the end of a recording to be taken, reporting all the while, then says that it ended.
async fn finish_recording(
    outbox: &Outbox,
    listener: &Listener,
    mut sender: Option<RecordingSender>,
    mut pending: VecDeque<CapturedWindow>,
    orders: &mut Orders,
) -> Result<(), String> {
    debug_assert_eq!(listener.report().state, StreamState::Ended);
    let mut ticks = interval(PROGRESS_INTERVAL);
    let mut flushed = None;
    loop {
        if pending.is_empty() && flushed.is_none() {
            let (sender, outbox, last) = (sender.take(), outbox.clone(), listener.report());
            flushed = Some(tokio::task::spawn_blocking(move || {
                if let Some(sender) = sender {
                    sender.finish();
                }
                outbox.send(&FromWorker::Camera(last))?;
                outbox.flush();
                Ok(())
            }));
        }
        tokio::select! {
            biased;
            order = orders.next() => if let Order::End(outcome) = order {
                return outcome;
            },
            _ = ticks.tick() => {
                if outbox.queued() < REPORT_QUEUE {
                    outbox.send(&FromWorker::Progress { done: listener.heard() })?;
                }
            }
            taken = hand_over(&mut sender, &mut pending), if !pending.is_empty() => taken?,
            done = async { match &mut flushed { Some(f) => f.await, None => std::future::pending().await } } => {
                return done.unwrap_or_else(|e| Err(format!("handing over the last windows: {e}")));
            }
        }
    }
}

/// Gives the oldest pending window to the sending thread as soon as it has room.
async fn hand_over(
    sender: &mut Option<RecordingSender>,
    pending: &mut VecDeque<CapturedWindow>,
) -> Result<(), String> {
    let Some(sender) = sender else { return Ok(()) };
    let permit = sender.windows.reserve().await.map_err(|_| "the supervisor is gone".to_owned())?;
    if let Some(window) = pending.pop_front() {
        permit.send(window);
    }
    Ok(())
}

/// A thread that hands every window of a recording to the supervisor, at the supervisor's pace.
struct RecordingSender {
    windows: mpsc::Sender<CapturedWindow>,
    thread: std::thread::JoinHandle<()>,
}

impl RecordingSender {
    /// Keeps at most `queue` windows waiting for the supervisor.
    fn start(outbox: Outbox, queue: usize) -> Result<Self, String> {
        let (windows, mut rx) = mpsc::channel::<CapturedWindow>(1);
        let send = move || {
            while let Some(window) = rx.blocking_recv() {
                outbox.wait_below(queue);
                if outbox.send(&FromWorker::Window(window)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("recording-sender".into())
            .spawn(send)
            .map_err(|e| format!("cannot start the sending thread: {e}"))?;
        Ok(Self { windows, thread })
    }

    /// Waits until all windows are queued. Blocks.
    fn finish(self) {
        drop(self.windows);
        // The thread holds nothing that could panic; if it did, its windows are lost and the log says so.
        let _ = self.thread.join();
    }
}
