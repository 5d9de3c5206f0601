//! `/api/stream`: server-sent events. Each stream looks at what is new when its browser has taken what was before, so that
//! nothing piles up for whoever is slow: it sees fewer states, and every event.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use nursery_shared::VERSION;
use tokio::sync::mpsc;

use super::{clips::Pieces, hub::Hub, live::Viewer};

/// Streams at once.
pub const MOST: usize = 64;
/// What a browser hears at the least, so that it knows whether it is up to date.
const PING: Duration = Duration::from_secs(3);

/// The body of an answer: all at once, or as things happen.
pub enum Answer {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
    Part(Pieces),
    Live(Viewer),
}

impl Answer {
    /// It ends when somebody leaves.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Part(_) | Self::Live(_))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Stream(chunks) => chunks.poll_recv(context).map(|chunk| Some(Ok(Frame::data(chunk?)))),
            Self::Part(pieces) => pieces.poll_next(context).map(|piece| Some(Ok(Frame::data(piece?)))),
            Self::Live(viewer) => viewer.poll_next(context).map(|chunk| Some(Ok(Frame::data(chunk)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(_) | Self::Live(_) => false,
            Self::Part(pieces) => pieces.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) | Self::Live(_) => SizeHint::default(),
            Self::Part(pieces) => SizeHint::with_exact(pieces.left()),
        }
    }
}

/// Counts a stream for as long as it lives.
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, unless there are too many.
    pub fn enter(count: &Arc<AtomicUsize>) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        count
            .fetch_update(Relaxed, Relaxed, |n| (n < MOST).then_some(n + 1))
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Begins a stream for somebody who has seen events up to `last_seen`.
pub fn begin(hub: Arc<Hub>, last_seen: Option<i64>, counted: Counted) -> Answer {
    // One that waits and one that is being written: more would only be older.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _counted = counted;
        follow(&hub, last_seen, &sender).await;
    });
    Answer::Stream(receiver)
}

async fn follow(hub: &Hub, last_seen: Option<i64>, to: &mpsc::Sender<Bytes>) {
    let _watcher = hub.watch();
    let mut changes = hub.subscribe();
    let now = hub.news(None, 0, 0);
    // Who has seen nothing begins with what is new from the moment on in which that is known.
    let (mut seen, mut epoch, mut version) = (last_seen.or(now.newest), now.epoch, 0);
    let newest = now.newest.map_or("null".to_owned(), |id| id.to_string());
    let hello =
        format!("retry: 1000\nevent: hello\ndata: {{\"version\":\"{VERSION}\",\"newest\":{newest}}}\n\n");
    if to.send(Bytes::from(hello)).await.is_err() {
        return;
    }
    while !hub.is_closing() {
        // Before looking, so that what happens meanwhile is a change.
        changes.mark_unchanged();
        let news = hub.news(seen, epoch, version);
        let mut text = BytesMut::new();
        if let (true, Some(newest)) = (news.reset, news.newest) {
            text.extend_from_slice(
                format!("id: {newest}\nevent: reset\ndata: {{\"newest\":{newest}}}\n\n").as_bytes(),
            );
            seen = Some(newest);
        }
        for event in &news.events {
            text.extend_from_slice(format!("id: {}\nevent: event\ndata: ", event.id).as_bytes());
            text.extend_from_slice(&event.text());
            text.extend_from_slice(b"\n\n");
            seen = Some(event.id);
        }
        if let Some(status) = &news.status {
            text.extend_from_slice(b"event: status\ndata: ");
            text.extend_from_slice(status);
            text.extend_from_slice(b"\n\n");
        }
        version = news.status_version;
        if news.newest.is_some() {
            epoch = news.epoch;
            seen = seen.or(news.newest);
        }
        if !text.is_empty() && to.send(text.freeze()).await.is_err() {
            return;
        }
        let change = tokio::select! {
            change = tokio::time::timeout(PING, changes.changed()) => change,
            () = to.closed() => return,
        };
        if change.is_err() {
            let age = hub.status_age().map_or("null".to_owned(), |age| format!("{:.1}", age.as_secs_f64()));
            let ping = format!("event: ping\ndata: {{\"status_age_s\":{age}}}\n\n");
            if to.send(Bytes::from(ping)).await.is_err() {
                return;
            }
        }
    }
}
