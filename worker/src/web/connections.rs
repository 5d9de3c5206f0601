//! Connections of browsers: how many there are, whose turn it is to go when there are too many, and how long anybody may
//! take over a request or an answer. Nobody who is slow or silent keeps anybody else out.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::libc;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{live, routes::Site};

/// Connections at once: all viewers of live media, and others beside. The cage allows 1,024 descriptors, and those that
/// were told to go take a moment.
pub const MOST: usize = live::MOST_VIEWERS + 160;
/// Bytes that wait in the kernel before it sends them: what a slow connection gets is not to be older than it must. What is
/// on its way to a fast one is not counted.
static UNSENT: libc::c_int = 32 << 10;
/// Until the header of a request is there, counted from the end of the answer before: a connection that nothing is asked
/// on has no longer either.
const HEADER: Duration = Duration::from_secs(10);
/// A connection on which nothing is answered, whatever comes in on it.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of a header, and how many fields.
const HEADER_BYTES: usize = 16 << 10;
const HEADER_FIELDS: usize = 64;
/// How long a browser may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(20);
/// Wait where no connection can be taken for want of descriptors.
const DEAF: Duration = Duration::from_millis(100);

struct Entry {
    from: IpAddr,
    /// Since when it has no request; `None`: one is being answered.
    idle_since: Option<Instant>,
    leave: Arc<Notify>,
}

/// All connections there are.
#[derive(Default)]
pub struct Connections {
    all: Mutex<BTreeMap<u64, Entry>>,
    next: AtomicU64,
    accepted: AtomicU64,
    /// Told to go for others, or turned away because nobody could be.
    evicted: AtomicU64,
    refused: AtomicU64,
}

/// Figures of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub open: usize,
    pub accepted: u64,
    pub evicted: u64,
    pub refused: u64,
}

/// The place of one connection.
struct Place {
    connections: Arc<Connections>,
    id: u64,
    from: IpAddr,
    leave: Arc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}

impl Place {
    fn set_idle(&self, idle: bool) {
        if let Some(entry) = self.connections.lock().get_mut(&self.id) {
            entry.idle_since = idle.then(Instant::now);
        }
    }

    /// How long it may stay without a request; `None`: one is being answered.
    fn patience(&self) -> Option<Duration> {
        let all = self.connections.lock();
        let since = all.get(&self.id)?.idle_since?;
        Some(IDLE.saturating_sub(since.elapsed()))
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        Figures {
            open: self.lock().len(),
            accepted: self.accepted.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// A place for one more. Where all are taken, somebody goes who asks for nothing: of whoever has most connections the
    /// one that has been idle for longest.
    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut all = self.lock();
        if all.len() >= MOST {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            all.values().for_each(|entry| *counts.entry(entry.from).or_default() += 1);
            let idle = all.iter().filter_map(|(id, e)| Some((counts.get(&e.from)?, e.idle_since?, *id)));
            let Some((_, _, id)) = idle.max_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1))) else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            if let Some(entry) = all.remove(&id) {
                entry.leave.notify_one();
            }
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let leave = Arc::new(Notify::new());
        all.insert(id, Entry { from, idle_since: Some(Instant::now()), leave: Arc::clone(&leave) });
        Some(Place { connections: Arc::clone(self), id, from, leave })
    }

    /// Takes connections for as long as this process lives.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        acceptor: Option<TlsAcceptor>,
        site: &Arc<Site>,
    ) -> Result<(), String> {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(place) = self.enter(peer.ip()) {
                        tokio::spawn(welcome(stream, acceptor.clone(), place, Arc::clone(site)));
                    }
                    // Whoever was told to go closes his descriptor before another one is taken.
                    tokio::task::yield_now().await;
                }
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    return Err(format!("web.listen: no connection can be taken any more: {e}"));
                }
                // Gone before it was taken, or no descriptor is left.
                Err(e) => {
                    tracing::debug!("a connection was not taken: {e}");
                    tokio::time::sleep(DEAF).await;
                }
            }
        }
    }
}

/// Has the kernel take no more than [`UNSENT`] bytes that it cannot send yet (tcp(7), TCP_NOTSENT_LOWAT).
fn keep_little_unsent(stream: &TcpStream) {
    // SAFETY: the descriptor is open for as long as the stream is borrowed; the kernel reads a number of ours of the length
    // that is given, and keeps nothing of it. Where it refuses, the connection has the buffer that others have.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const UNSENT).cast(),
            size_of_val(&UNSENT) as libc::socklen_t,
        );
    }
}

/// A connection that has just come: hands are shaken first, where there is TLS, within the time of a header.
async fn welcome(stream: TcpStream, acceptor: Option<TlsAcceptor>, place: Place, site: Arc<Site>) {
    let _ = stream.set_nodelay(true);
    keep_little_unsent(&stream);
    let stream = Patient::new(stream);
    let Some(acceptor) = acceptor else { return talk(stream, false, place, site).await };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HEADER, acceptor.accept(stream)) => shaken,
        () = place.leave.notified() => return,
    };
    match shaken {
        Ok(Ok(stream)) => talk(stream, true, place, site).await,
        // Browsers that do not trust the certificate end it here, and so does whoever speaks no TLS.
        Ok(Err(e)) => tracing::debug!("no TLS with {}: {e}", place.from),
        Err(_) => {}
    }
}

/// One connection from its first request to its end; `tls`: nobody on the way can read it.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: bool,
    place: Place,
    site: Arc<Site>,
) {
    let place = Arc::new(place);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (place, site) = (Arc::clone(&place), Arc::clone(&site));
        async move {
            // Who has yet to send a body asks for nothing so far, and may have to go for others.
            if request.method() != hyper::Method::POST {
                place.set_idle(false);
            }
            let answer = site.answer(request, place.from, tls).await;
            // An answer that goes on is one that is being given.
            if !answer.body().goes_on() {
                place.set_idle(true);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_FIELDS)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        let patience = place.patience().unwrap_or(IDLE);
        tokio::select! {
            // What was wrong with a request was said to whoever made it.
            _ = &mut connection => return,
            () = place.leave.notified() => return,
            () = tokio::time::sleep(patience.max(Duration::from_millis(10))) => {
                if place.patience().is_some_and(|left| left.is_zero()) {
                    return;
                }
            }
        }
    }
}

/// A stream to somebody who must take what he is sent, sooner or later.
struct Patient {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn when_all_places_are_taken_the_greediest_idle_one_goes_and_nobody_who_is_served() {
        let all = Arc::new(Connections::default());
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let parent = all.enter(ip(1)).unwrap();
        let mut flood: Vec<Place> = (1..MOST).map(|_| all.enter(ip(2)).unwrap()).collect();
        let oldest = Arc::clone(&flood[0].leave);
        let second = all.enter(ip(3)).unwrap();
        assert!(parent.patience().is_some() && second.patience().is_some());
        assert!(flood[0].patience().is_none(), "it has no place any more");
        drop(oldest);
        assert_eq!(all.figures().open, MOST);
        // Those that are being served stay.
        flood.iter().for_each(|place| place.set_idle(false));
        [&parent, &second].iter().for_each(|place| place.set_idle(false));
        assert!(all.enter(ip(4)).is_none());
        flood.remove(1);
        assert!(all.enter(ip(4)).is_some());
        let figures = all.figures();
        assert_eq!((figures.evicted, figures.refused), (1, 1));
    }
}
