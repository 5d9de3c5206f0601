//! Role `web`: the page and the API, for browsers and scripts. Off the way of alerts: it is told the state when somebody
//! looks, and asks the store through the supervisor for what happened; nobody waits for it. One thread serves everybody.

mod clips;
mod connections;
mod doorman;
mod feed;
mod hub;
mod inquiry;
pub mod live;
mod lookback;
mod metrics;
mod pictures;
pub mod routes;
mod stream;
pub mod tls;

use std::{net::TcpListener, os::fd::OwnedFd, sync::Arc, time::Duration};

use nursery_shared::message::{FromWorker, Role, ToWorker};

use crate::{
    cage::{Cage, roles::Plan},
    link::{self, Outbox, WideInbox},
};
use connections::Connections;
use doorman::Doorman;
use feed::Feed;
use hub::Hub;
use live::Live;
use routes::Site;

/// How often the loop that serves says that it does.
const PROGRESS: Duration = Duration::from_millis(500);
/// Messages that may wait for the supervisor; then the oldest gives way.
const QUEUE: usize = 64;

/// Descriptors that this process may have: a connection each, a socket per camera that is watched, and some more.
const DESCRIPTORS: u64 = 1024;

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let opened = link::open(Role::Web)?;
    let mut cage = Cage::enter_with(opened.supervisor(), DESCRIPTORS);
    let config = match opened.configuration()? {
        Some(ToWorker::ConfigureWeb(config)) => config,
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    // The only socket that this process will ever open by itself; nobody is taken in before the cage is closed.
    let listener = listen(&config.listen)?;
    let found = config.tls.as_ref().map(tls::find).transpose()?;
    let plan = Plan::web();
    cage.confine(&plan);
    let (inbox, outbox) = opened.start()?;
    let acceptor = found.as_ref().map(tls::acceptor).transpose()?;
    drop(found);
    let doorman = Arc::new(Doorman::new(&config)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A password that is tried, and a piece of a clip that is read.
        .max_blocking_threads(2)
        .build()
        .map_err(|e| format!("cannot start the serving runtime: {e}"))?;
    let hub = Arc::new(Hub::default());
    let feed = Arc::new(Feed::new(outbox.clone(), Arc::clone(&hub)));
    let connections = Arc::new(Connections::default());
    let asker = outbox.clone();
    let live = Arc::new(Live::new(move |question| asker.send_newest(question, QUEUE).map(|_| ())));
    let address = config.address().ok_or("web.listen: expected ADDRESS:PORT")?;
    let site = Arc::new(Site::new(
        Arc::clone(&hub),
        Arc::clone(&feed),
        doorman,
        Arc::clone(&connections),
        Arc::clone(&live),
    ));
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)
            .map_err(|e| format!("web.listen: {address}: the socket cannot be watched: {e}"))?
    };
    outbox.send(&cage.close(&plan)?)?;
    outbox.send(&FromWorker::Ready)?;
    match acceptor {
        Some(_) => tracing::info!("the page is at https://{address}/"),
        None => tracing::info!("the page is at http://{address}/"),
    }
    if acceptor.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            "web.listen: {address} without web.tls: passwords and what is seen travel readable, unless a reverse proxy is \
             all that can get here"
        );
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    let reader = Arc::clone(&feed);
    std::thread::Builder::new()
        .name("inbox".into())
        .spawn(move || {
            let _ = ended.send(read_loop(inbox.with_descriptors(), &reader, &live));
        })
        .map_err(|e| format!("cannot start the reading thread: {e}"))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = end => outcome.unwrap_or_else(|_| Err("the reading thread is gone".into())),
            never = connections.serve(listener, acceptor, &site) => never,
            never = report(&outbox) => never,
            () = feed.keep_status() => Ok(()),
            () = feed.keep_events() => Ok(()),
            () = feed.clips.tidy() => Ok(()),
        }
    });
    hub.close();
    // Whoever still looks is not waited for, nor is a password that is still being tried.
    runtime.shutdown_background();
    outbox.flush();
    outcome
}

/// Listens at ADDRESS:PORT, where a process before this one may have left connections that are about to end.
fn listen(address: &str) -> Result<TcpListener, String> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::PermissionDenied => format!(
            "web.listen: {address}: {e}: ports below 1024 are root's, take a greater one, or a reverse proxy"
        ),
        _ => format!("web.listen: {address}: {e}: give another address or port"),
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn read_loop(mut inbox: WideInbox, feed: &Feed, live: &Live) -> Result<(), String> {
    loop {
        match inbox.recv() {
            Ok(Some((ToWorker::Drain, _)) | None) => return Ok(()),
            Ok(Some((ToWorker::ClipOf { ticket, found }, file))) => feed.clips.answered(ticket, found, file),
            Ok(Some((ToWorker::PictureOf { ticket, found }, _))) => feed.pictures.answered(ticket, found),
            Ok(Some((ToWorker::MediaOf { ticket, why_not }, socket))) => {
                live.answered(ticket, media(why_not, socket));
            }
            Ok(Some((message, _))) => feed.take(message)?,
            Err(e) => return Err(format!("frame from the supervisor: {e}")),
        }
    }
}

fn media(why_not: Option<String>, socket: Option<OwnedFd>) -> Result<OwnedFd, String> {
    match why_not {
        Some(why) => Err(why),
        None => socket.ok_or_else(|| "the socket to its process was lost on the way; asking again".into()),
    }
}

/// Says that requests are answered, from the loop that answers them, whether there are any or not.
async fn report(outbox: &Outbox) -> Result<(), String> {
    let mut done = 0;
    loop {
        outbox.send_newest(&FromWorker::Progress { done }, QUEUE)?;
        done += 1;
        tokio::time::sleep(PROGRESS).await;
    }
}
