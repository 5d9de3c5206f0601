//! Role `light`: small pictures of cameras, made of the key frames of their video, and how much moves in them. Off the way
//! of alerts: what cameras send goes through decoders written in other languages here, so this process is expected to die
//! of it now and then, and nobody waits for it. One thread looks at all cameras, one picture after another.

mod annotate;
pub mod decode;
pub mod frame;
mod gallery;
pub mod jpeg;
pub mod motion;
mod studio;

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use nursery_shared::message::{FromWorker, Role, ToWorker};
use tokio::sync::mpsc;

use crate::{
    cage::{Cage, roles::Plan},
    link::{self, Outbox, WideInbox},
};
use studio::Studio;

/// How often the loop that looks says that it does.
const PROGRESS: Duration = Duration::from_millis(500);
/// Messages of the supervisor that wait; its socket holds the rest.
const QUEUE: usize = 16;

type Input = Result<(ToWorker, Option<OwnedFd>), Option<String>>;

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let opened = link::open(Role::Light)?;
    let mut cage = Cage::enter(opened.supervisor());
    let cameras = match opened.configuration()? {
        Some(ToWorker::ConfigureLight(cameras)) => cameras,
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    let plan = Plan::light();
    cage.confine(&plan);
    let (inbox, outbox) = opened.start()?;
    decode::begin()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the looking runtime: {e}"))?;
    outbox.send(&cage.close(&plan)?)?;
    outbox.send(&FromWorker::Ready)?;
    let (sender, inputs) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("inbox".into())
        .spawn(move || read_loop(inbox.with_descriptors(), &sender))
        .map_err(|e| format!("cannot start the reading thread: {e}"))?;
    let studio = Arc::new(Studio::new(outbox.clone()));
    let outcome = runtime.block_on(async {
        studio.set_cameras(cameras);
        tokio::select! {
            outcome = work(inputs, &studio) => outcome,
            never = report(&outbox, &studio) => never,
        }
    });
    runtime.shutdown_background();
    outbox.flush();
    outcome
}

fn read_loop(mut inbox: WideInbox, sender: &mpsc::Sender<Input>) {
    loop {
        let input = match inbox.recv() {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(None),
            Err(e) => Err(Some(format!("frame from the supervisor: {e}"))),
        };
        let last = input.is_err();
        if sender.blocking_send(input).is_err() || last {
            return;
        }
    }
}

async fn work(mut inputs: mpsc::Receiver<Input>, studio: &Arc<Studio>) -> Result<(), String> {
    loop {
        match inputs.recv().await {
            Some(Ok((ToWorker::Drain, _))) | Some(Err(None)) | None => return Ok(()),
            Some(Ok((message, descriptor))) => studio.take(message, descriptor)?,
            Some(Err(Some(e))) => return Err(e),
        }
    }
}

/// Says that pictures are looked at, from the loop that looks, whether there are any or not.
async fn report(outbox: &Outbox, studio: &Studio) -> Result<(), String> {
    loop {
        outbox.send(&FromWorker::Progress { done: studio.looked() })?;
        tokio::time::sleep(PROGRESS).await;
    }
}
