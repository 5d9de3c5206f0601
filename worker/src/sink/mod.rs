//! Role `sink`: scores in, stored events and delivered alerts out. One thread keeps the store and decides; one
//! reads from the supervisor; one runs the deliveries, which may be slow. What is decided is in [`keeper`].

pub mod camera;
pub mod clips;
pub mod curves;
pub mod export;
mod heartbeat;
pub mod history;
pub mod keeper;
mod motion;
mod outages;
mod outbox;
pub mod pictures;
mod place;
pub mod quarantine;
pub mod query;
pub mod receiver;
mod recorder;
pub mod records;
mod schema;
mod series;
pub mod sound;
pub mod store;
mod timeline;
mod vfs;
mod webhook;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver as Channel, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    clip::Found,
    history::Question,
    message::{FromWorker, Role, SinkConfig, ToWorker},
    timestamp,
};

use crate::{
    cage::{Cage, files, roles::Plan},
    link::{self, Inbox, Outbox as Link},
};
use clips::Clips;
use heartbeat::Heartbeat;
use keeper::{Keeper, Now};
use pictures::Album;
use receiver::{Attempt, Receiver};
use store::{Store, Tell};

/// Messages that wait for the working loop; the supervisor's socket holds the rest.
const QUEUE: usize = 1024;
/// How often in a row clips give way to what could not be stored.
const MOST_WAYS: usize = 8;
/// How long deliveries under way are waited for at a drain.
const DRAIN: Duration = Duration::from_secs(3);

/// What the working loop waits for.
enum Input {
    Message(ToWorker),
    /// The supervisor is gone, or said something that is no message.
    Closed(Option<String>),
    Attempted {
        receiver: String,
        delivery: i64,
        camera: String,
        outcome: Attempt,
    },
    /// A call of the heartbeat's URL has ended.
    Called(Result<(), String>),
}

/// What the delivering thread is asked for.
enum Job {
    Attempt(Delivery),
    Call(Heartbeat),
}

/// One attempt.
struct Delivery {
    receiver: Arc<Receiver>,
    delivery: i64,
    camera: String,
    message_id: String,
    body: String,
}

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let opened = link::open(Role::Sink)?;
    let mut cage = Cage::enter(opened.supervisor());
    let config = match opened.configuration()? {
        Some(ToWorker::ConfigureSink(config)) => config,
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    let directory = Path::new(&config.state_dir);
    place::enter(directory)?;
    let plan = Plan::sink(&config, Path::new(place::HERE), sound::BUILT_IN);
    cage.confine(&plan);
    let (mut inbox, link) = opened.start()?;
    let waiting = link.clone();
    // A large store takes longer than a start may; where nobody listens any more, that is found soon enough.
    let tell: Tell = Arc::new(move || drop(waiting.send(&FromWorker::Progress { done: 0 })));
    let store = Store::open_telling(Path::new(place::HERE), directory, Some(&tell))?;
    let clips =
        Clips::new(Path::new(place::HERE)).inspect_err(|e| tracing::error!("clips: none are kept: {e}"));
    let album =
        Album::new(Path::new(place::HERE)).inspect_err(|e| tracing::error!("no pictures are kept: {e}"));
    let (sender, inputs) = sync_channel(QUEUE);
    let jobs = start_deliveries(sender.clone())?;
    let mut sink = Sink {
        link,
        inputs,
        jobs,
        keeper: Keeper::new(store, fastrand::u64(..), now())?,
        receivers: HashMap::new(),
        draining: None,
        failures_logged: HashMap::new(),
        heartbeat: None,
        calling: false,
        calls_failed: 0,
        outdated: None,
        question: None,
        clips: clips.ok(),
        album: album.ok(),
        clip_wanted: None,
    };
    sink.configure(config);
    sink.link.send(&cage.close(&plan)?)?;
    sink.link.send(&FromWorker::Ready)?;
    std::thread::Builder::new()
        .name("inbox".into())
        .spawn(move || read_loop(&mut inbox, &sender))
        .map_err(|e| format!("cannot start the reading thread: {e}"))?;
    sink.work()
}

fn read_loop(inbox: &mut Inbox, sender: &SyncSender<Input>) {
    loop {
        let input = match inbox.recv() {
            Ok(Some(message)) => Input::Message(message),
            Ok(None) => Input::Closed(None),
            Err(e) => Input::Closed(Some(e.to_string())),
        };
        let last = matches!(input, Input::Closed(_));
        if sender.send(input).is_err() || last {
            return;
        }
    }
}

/// A thread that makes attempts, all at once, and reports each outcome.
fn start_deliveries(results: SyncSender<Input>) -> Result<tokio::sync::mpsc::UnboundedSender<Job>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(|e| format!("cannot start the delivering runtime: {e}"))?;
    // Bounded by the outbox, which has at most eight attempts per receiver under way, and one call of the heartbeat.
    let (sender, mut jobs) = tokio::sync::mpsc::unbounded_channel::<Job>();
    std::thread::Builder::new()
        .name("deliveries".into())
        .spawn(move || {
            runtime.block_on(async {
                while let Some(job) = jobs.recv().await {
                    let results = results.clone();
                    tokio::spawn(async move {
                        let result = match job {
                            Job::Attempt(job) => {
                                let receiver = job.receiver.id.clone();
                                let outcome = job.receiver.attempt(&job.message_id, &job.body).await;
                                let (delivery, camera) = (job.delivery, job.camera);
                                Input::Attempted { receiver, delivery, camera, outcome }
                            }
                            Job::Call(heartbeat) => Input::Called(heartbeat.call().await),
                        };
                        // Waits only while the working loop is busy storing, which never waits for this.
                        let _ = results.send(result);
                    });
                }
            });
        })
        .map_err(|e| format!("cannot start the delivering thread: {e}"))?;
    Ok(sender)
}

struct Sink {
    link: Link,
    inputs: Channel<Input>,
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
    keeper: Keeper<Store>,
    receivers: HashMap<String, Arc<Receiver>>,
    draining: Option<Instant>,
    /// Failures in a row of each receiver, to log the first and then ever fewer.
    failures_logged: HashMap<String, u64>,
    heartbeat: Option<Heartbeat>,
    /// A call of it is under way.
    calling: bool,
    /// Calls in a row that failed.
    calls_failed: u64,
    /// In the place of this file, which deliveries take, there is another.
    outdated: Option<&'static Path>,
    /// What somebody wants to know of the store.
    question: Option<(u64, Question)>,
    /// Clips of events; `None` where they cannot be kept.
    clips: Option<Clips>,
    /// Pictures of events; `None` where they cannot be kept.
    album: Option<Album>,
    /// Somebody wants the clip of this event.
    clip_wanted: Option<(u64, String)>,
}

fn now() -> Now {
    Now { instant: Instant::now(), wall_us: timestamp::now_us() }
}

impl Sink {
    fn work(&mut self) -> Result<(), String> {
        self.report()?;
        loop {
            self.start_due();
            if let Some(since) = self.draining
                && self.keeper.is_settled()
                && (self.keeper.in_flight() == 0 || since.elapsed() >= DRAIN)
            {
                self.keeper.store_curves(now());
                self.report()?;
                self.link.flush();
                return Ok(());
            }
            let mut input = match self.inputs.recv_timeout(self.patience()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // Everything that is already here goes in with one transaction.
            while let Some(next) = input {
                if let Some(end) = self.take(next) {
                    return end;
                }
                input = match self.keeper.has_room() {
                    true => self.inputs.try_recv().ok(),
                    false => None,
                };
            }
            self.store_waiting()?;
            if let Some(path) = self.outdated {
                self.report()?;
                self.link.flush();
                let path = path.display();
                return Err(format!("{path}: was replaced, and the new one is out of reach: begins anew"));
            }
            // Whoever looks waits for what is to be stored, and never the other way round.
            if let Some((number, question)) = self.question.take() {
                let answer = self.keeper.answer(&question);
                self.link.send(&FromWorker::History { number, answer })?;
            }
            self.tend_clips()?;
            self.tend_album()?;
            if self.keeper.must_report(now()) {
                self.report()?;
            }
            self.keeper.purge_if_due(now());
            self.keeper.tend_curves(now());
            if self.keeper.lacked_room() {
                self.make_way();
            }
        }
    }

    /// How long there is nothing to do but wait.
    fn patience(&self) -> Duration {
        let deadline = self.keeper.next_deadline(self.draining.is_none());
        let drained = self.draining.map(|t| t + DRAIN);
        drained.map_or(deadline, |t| t.min(deadline)).saturating_duration_since(Instant::now())
    }

    /// Takes one input in; `Some` when it ends the process.
    fn take(&mut self, input: Input) -> Option<Result<(), String>> {
        match input {
            Input::Message(ToWorker::Record { seq, record }) => self.keeper.take(seq, record),
            Input::Message(ToWorker::ConfigureSink(config)) => self.configure(config),
            Input::Message(ToWorker::Heartbeat) => self.call(),
            Input::Message(ToWorker::Question { number, question }) => {
                self.question = Some((number, question))
            }
            Input::Message(ToWorker::WantClip { number, event_id }) => {
                self.clip_wanted = Some((number, event_id));
            }
            Input::Message(ToWorker::ClipClosed { clip, report }) => {
                if let Some(clips) = &mut self.clips {
                    clips.on_closed(clip, report, Instant::now());
                }
            }
            Input::Message(ToWorker::PictureOf { ticket, found }) => {
                if let Some(album) = &mut self.album {
                    album.on_picture(ticket, found, Instant::now());
                }
            }
            Input::Message(ToWorker::Drain) => self.draining = Some(Instant::now()),
            Input::Message(_) => {
                return Some(Err("the supervisor sent a message that is not for this role".into()));
            }
            Input::Closed(error) => {
                // Nobody is left to acknowledge to; what is not stored, the next supervisor's cameras tell anew.
                let _ = self.store_waiting();
                self.keeper.store_curves(now());
                return Some(error.map_or(Ok(()), |e| Err(format!("frame from the supervisor: {e}"))));
            }
            Input::Attempted { receiver, delivery, camera, outcome } => {
                self.attempted(&receiver, delivery, &camera, outcome);
            }
            Input::Called(outcome) => self.called(outcome),
        }
        None
    }

    /// Everything listens, as far as the supervisor knows; the store has its say too.
    fn call(&mut self) {
        if let Some(heartbeat) = self.heartbeat.clone().filter(|_| !self.calling && self.keeper.is_storing())
        {
            self.calling = self.jobs.send(Job::Call(heartbeat)).is_ok();
        }
    }

    fn called(&mut self, outcome: Result<(), String>) {
        self.calling = false;
        let place = self.heartbeat.as_ref().map(Heartbeat::place).unwrap_or_default();
        match outcome {
            Ok(()) if self.calls_failed == 0 => {}
            Ok(()) => {
                self.calls_failed = 0;
                tracing::info!("heartbeat {place}: works again");
            }
            Err(error) => {
                self.calls_failed += 1;
                if self.calls_failed.is_power_of_two() {
                    let count = self.calls_failed;
                    tracing::warn!(
                        "heartbeat {place}: {error}; {count} failures in a row, the next call is in a minute"
                    );
                }
            }
        }
    }

    fn configure(&mut self, config: SinkConfig) {
        self.heartbeat = config.heartbeat.as_ref().and_then(|url| {
            Heartbeat::new(url)
                .inspect_err(|e| tracing::error!("the URL of the heartbeat cannot be used: {e}"))
                .ok()
        });
        self.receivers.clear();
        let mut movers = Vec::new();
        for alert in &config.alerts {
            match Receiver::new(alert) {
                Ok(receiver) => {
                    if alert.motion {
                        movers.push(receiver.id.clone());
                    }
                    self.receivers.insert(receiver.id.clone(), Arc::new(receiver));
                }
                Err(e) => tracing::error!("an alert receiver cannot be used: {e}"),
            }
        }
        let wants_sound = config.alerts.iter().any(|a| a.r#type == nursery_shared::config::AlertKind::Sound);
        if wants_sound && !sound::BUILT_IN {
            tracing::warn!("alerts of type sound: nursery-worker was built without the feature `sound`");
        }
        if let Some(clips) = &mut self.clips {
            clips.configure(config.clips);
        }
        if let Some(album) = &mut self.album {
            album.keep(config.clips.keep_days);
        }
        let ids = self.receivers.keys().cloned().collect();
        self.keeper.tell_of_motion(movers);
        self.keeper.keep_curves(config.keep_days, now());
        self.keeper.configure(config.run, config.detection, config.cameras, ids, now());
    }

    /// Stores what waits. Where the disk has no room for it clips give way, and it is tried again.
    fn store_waiting(&mut self) -> Result<(), String> {
        for _ in 0..MOST_WAYS {
            self.store_what_waits()?;
            if !self.keeper.lacked_room() || !self.make_way() {
                break;
            }
        }
        Ok(())
    }

    /// Clips give way to the store.
    fn make_way(&mut self) -> bool {
        let now = now();
        let made = self.clips.as_mut().is_some_and(|clips| clips.give_way(now.instant));
        if made {
            self.keeper.try_again(now);
        }
        made
    }

    fn store_what_waits(&mut self) -> Result<(), String> {
        for message in self.keeper.store_waiting(now()) {
            self.link.send(&message)?;
            if let (FromWorker::Event { json }, Some(album)) = (&message, &mut self.album) {
                album.on_alert(json, Instant::now());
            }
            if let (FromWorker::Event { json }, Some(clips)) = (&message, &mut self.clips)
                && let Some(said) = clips.on_alert(json, Instant::now())
            {
                self.say(said)?;
            }
        }
        Ok(())
    }

    fn say(&self, (message, descriptor): clips::Said) -> Result<(), String> {
        match descriptor {
            Some(descriptor) => self.link.send_with(&message, descriptor),
            None => self.link.send(&message),
        }
    }

    /// Whatever is due of the clips, and what somebody wants of them.
    fn tend_clips(&mut self) -> Result<(), String> {
        let due = self.clips.as_mut().map(|clips| clips.tick(Instant::now())).unwrap_or_default();
        due.into_iter().try_for_each(|said| self.say(said))?;
        let Some((number, event_id)) = self.clip_wanted.take() else { return Ok(()) };
        let (found, file) = match &self.clips {
            Some(clips) => clips.find(&event_id),
            None => (Found::Failed("clips cannot be kept, see the log".into()), None),
        };
        self.say((FromWorker::ClipOf { number, found }, file))
    }

    /// Asks for the next picture of an event.
    fn tend_album(&mut self) -> Result<(), String> {
        let due = self.album.as_mut().and_then(|album| album.due(Instant::now()));
        due.map_or(Ok(()), |message| self.link.send(&message))
    }

    fn start_due(&mut self) {
        if self.draining.is_some() {
            return;
        }
        for (id, pending) in self.keeper.due(now()) {
            let Some(receiver) = self.receivers.get(&id) else { continue };
            let job = Delivery {
                receiver: Arc::clone(receiver),
                delivery: pending.delivery,
                camera: pending.camera,
                message_id: pending.message_id,
                body: pending.body,
            };
            if self.jobs.send(Job::Attempt(job)).is_err() {
                tracing::error!("the delivering thread is gone");
            }
        }
    }

    fn attempted(&mut self, receiver: &str, delivery: i64, camera: &str, outcome: Attempt) {
        let label = self.receivers.get(receiver).map_or("a former receiver", |r| &r.label).to_owned();
        if let Attempt::Impossible(why) = &outcome {
            tracing::error!("{label}: alert of camera {camera} given up: {why}");
        }
        let Err(failure) = self.keeper.attempted(receiver, delivery, camera, outcome, now()) else {
            if self.failures_logged.remove(receiver).is_some() {
                tracing::info!("{label}: works again");
            }
            return;
        };
        self.outdated = files::replaced();
        let count = self.failures_logged.entry(receiver.to_owned()).or_default();
        *count += 1;
        if count.is_power_of_two() {
            tracing::warn!(
                "{label}: {}; {count} failures in a row, next attempt in {:.1} s",
                failure.error,
                failure.wait.as_secs_f64()
            );
        }
    }

    /// Progress and deliveries, from the working loop itself.
    fn report(&mut self) -> Result<(), String> {
        self.keeper.report(now()).iter().try_for_each(|message| self.link.send(message))
    }
}
