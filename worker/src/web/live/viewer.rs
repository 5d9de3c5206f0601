//! Somebody who hears or sees a camera: what he gets next is looked for when his connection has taken what was before.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep};

use super::{
    Camera, Live,
    buffer::Cursor,
    record::{What, record},
};

/// How long a viewer hears nothing at the most.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// What is handed over at once: a slow connection holds no more than this of what is no longer kept for others.
const AT_ONCE: usize = 64 << 10;

/// A viewer's place; he is gone when it is dropped.
pub struct Viewer {
    live: Arc<Live>,
    camera: Arc<Camera>,
    id: u64,
    cursor: Cursor,
    waiting: VecDeque<Bytes>,
    quiet: Pin<Box<Sleep>>,
}

impl Viewer {
    pub(super) fn new(live: Arc<Live>, camera: Arc<Camera>, id: u64, video: bool) -> Self {
        let quiet = Box::pin(tokio::time::sleep(KEEP_ALIVE));
        Self { live, camera, id, cursor: Cursor::new(video), waiting: VecDeque::new(), quiet }
    }

    /// What comes next. Never ends by itself.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        if self.waiting.is_empty() {
            let mut found = Vec::new();
            let mut buffer = self.camera.buffer();
            buffer.next(&mut self.cursor, AT_ONCE, &mut found);
            if found.is_empty() {
                buffer.wake_later(self.id, context.waker().clone());
            }
            drop(buffer);
            self.queue(found);
        }
        if self.waiting.is_empty() {
            match self.quiet.as_mut().poll(context) {
                Poll::Ready(()) => {
                    self.waiting.push_back(record(What::KeepAlive, nursery_shared::timestamp::now_us(), b""));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.waiting.pop_front() {
            Some(bytes) => {
                self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
                Poll::Ready(bytes)
            }
            None => Poll::Pending,
        }
    }

    /// Small ones together, large ones in parts.
    fn queue(&mut self, found: Vec<Bytes>) {
        let mut small = BytesMut::new();
        for mut bytes in found {
            if small.len() + bytes.len() <= AT_ONCE {
                small.extend_from_slice(&bytes);
                continue;
            }
            if !small.is_empty() {
                self.waiting.push_back(small.split().freeze());
            }
            while bytes.len() > AT_ONCE {
                self.waiting.push_back(bytes.split_to(AT_ONCE));
            }
            small.extend_from_slice(&bytes);
        }
        if !small.is_empty() {
            self.waiting.push_back(small.freeze());
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.camera.buffer().forget(self.id);
        self.live.leave(&self.camera, self.cursor.video());
    }
}
