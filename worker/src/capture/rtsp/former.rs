//! Sessions that have ended here and perhaps not at the camera yet: what is asked of it too early may be answered with
//! nothing, or with their media.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nursery_shared::config::Transport;
use retina::client::SessionGroup;
use tokio::time::{Instant, timeout};

use super::explain::Place;

/// For TEARDOWN when this process ends.
const TEARDOWN: Duration = Duration::from_secs(1);

/// Longest wait for sessions over TCP that the server may still hold for us: retina keeps track of them only for
/// servers that are known to mix up old and new connections, for 65 s.
const STALE_TCP: Duration = Duration::from_secs(70);

/// Longest wait for sessions over UDP that the server did not confirm the end of; a new one has ports of its own.
const STALE_UDP: Duration = Duration::from_secs(3);

/// A camera's former sessions.
pub struct Former {
    camera: String,
    transport: Transport,
    group: Mutex<Arc<SessionGroup>>,
    /// An encoder began anew: packets that came were the camera's own, although of another source.
    anew: AtomicBool,
}

impl Former {
    /// Of a camera of this name, of which there were none.
    pub fn new(camera: &str, transport: Transport) -> Self {
        let group = Mutex::new(group(camera));
        Self { camera: camera.to_owned(), transport, group, anew: AtomicBool::new(false) }
    }

    /// What a session belongs to, to become one of them.
    pub fn group(&self) -> Arc<SessionGroup> {
        // There is one at any time.
        Arc::clone(&self.group.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// In the midst of a session packets of another source came. retina takes any such for those of a session that the
    /// server has forgotten to end, which would come from the beginning on.
    pub fn encoder_began_anew(&self) {
        self.anew.store(true, Ordering::Relaxed);
    }

    /// A server may hold sessions that it did not see the end of; some answer a new one with nothing until those are
    /// gone.
    pub async fn wait_out(&self, place: &Place) {
        let anew = self.anew.swap(false, Ordering::Relaxed);
        let group = self.group();
        let stale = group.stale_sessions();
        if stale.num_sessions == 0 {
            return;
        }
        let longest = if self.transport == Transport::Udp { STALE_UDP } else { STALE_TCP };
        let left =
            stale.max_expires.map_or(longest, |at| at.saturating_duration_since(Instant::now())).min(longest);
        let until = Instant::now() + left;
        // When the end of all that were ours is known, nothing is left but those that never were.
        if anew && matches!(timeout(left, group.await_teardown()).await, Ok(Ok(()))) {
            *self.group.lock().unwrap_or_else(PoisonError::into_inner) = self::group(&self.camera);
            return;
        }
        tracing::info!(
            "{place}: waiting up to {:.0} s for the server to forget {} old session(s)",
            until.saturating_duration_since(Instant::now()).as_secs_f64(),
            stale.num_sessions
        );
        // Whether they are gone or not, another attempt is due then.
        let _ = tokio::time::timeout_at(until, group.await_stale_sessions(&stale)).await;
    }

    /// The last session's end was told to the server in the background; its answer is worth a moment.
    pub async fn goodbye(&self) {
        let _ = timeout(TEARDOWN, self.group().await_teardown()).await;
    }
}

fn group(camera: &str) -> Arc<SessionGroup> {
    Arc::new(SessionGroup::default().named(camera.to_owned()))
}
