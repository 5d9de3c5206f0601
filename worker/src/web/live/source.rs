//! Gets a camera's media for as long as somebody wants it: asks for a socket to its capture process, says what is wanted,
//! reads, and asks again where the socket ends.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use nursery_shared::{
    frame::{FrameBuffer, encode_frame},
    media::{MAX_MEDIA, MAX_WISH, ToCapture},
};
use tokio::{io::Interest, net::UnixStream};

use super::{Camera, Live, intake::Intake};

/// Wait before the socket is asked for again: it grows up to a bound while nothing comes.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_AT_MOST: Duration = Duration::from_secs(4);
/// A socket that brought something for so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// What is read at once, and how often before others have their turn.
const READ: usize = 64 << 10;
const READS: usize = 8;

/// Serves a camera until nobody wants it any more.
pub async fn tend(live: Arc<Live>, camera: Arc<Camera>) {
    let mut wait = AGAIN;
    loop {
        let begun = Instant::now();
        let trouble = match live.connect(&camera.name).await {
            Ok(socket) => follow(&live, &camera, socket).await,
            Err(why) => Some(why),
        };
        if live.forget(&camera) {
            return;
        }
        let Some(trouble) = trouble else { continue };
        camera.buffer().set_trouble(&trouble);
        if begun.elapsed() > GOOD {
            wait = AGAIN;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN_AT_MOST);
        if live.forget(&camera) {
            return;
        }
    }
}

/// Reads until the socket ends, which is why, or until nobody has wanted anything for a while.
async fn follow(live: &Live, camera: &Camera, socket: UnixStream) -> Option<String> {
    let (mut frames, mut intake) = (FrameBuffer::new(MAX_MEDIA), Intake::default());
    let mut bytes = vec![0; READ];
    let (mut said, mut unsent) = (false, Vec::new());
    let (mut heard_at, mut seen_at) = (Instant::now(), None);
    loop {
        let (viewers, lookers) = camera.audience();
        let now = Instant::now();
        if viewers > 0 {
            heard_at = now;
        } else if now.duration_since(heard_at) >= live.linger {
            return None;
        }
        if lookers > 0 {
            seen_at = Some(now);
        }
        // Whoever loads the page again finds the pictures going on.
        let video = seen_at.is_some_and(|at| now.duration_since(at) < live.linger);
        if video != said && unsent.is_empty() {
            said = video;
            if encode_frame(&ToCapture::Want { video }, MAX_WISH, &mut unsent).is_err() {
                return Some("what is wanted cannot be said".into());
            }
        }
        let interest =
            if unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = tokio::select! {
            ready = socket.ready(interest) => ready,
            () = camera.changed.notified() => continue,
            // Nobody says so when it is time to go.
            () = tokio::time::sleep((live.linger / 4).max(Duration::from_millis(10))) => continue,
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(e) => return Some(format!("the way to the camera's process broke: {e}")),
        };
        if ready.is_writable() && !unsent.is_empty() {
            match socket.try_write(&unsent) {
                Ok(n) => {
                    unsent.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Some(format!("the camera's process does not listen any more: {e}")),
            }
        }
        if !ready.is_readable() {
            continue;
        }
        for _ in 0..READS {
            match socket.try_read(&mut bytes) {
                Ok(0) => {
                    return Some(
                        "the camera's process has ended or is busy with another; asking again".into(),
                    );
                }
                Ok(n) => frames.feed(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Some(format!("the way to the camera's process broke: {e}")),
            }
            let mut buffer = camera.buffer();
            loop {
                match frames.next_frame() {
                    Ok(Some(message)) => intake.take(message, &mut buffer, live.share(), Instant::now()),
                    Ok(None) => break,
                    Err(e) => return Some(format!("what the camera's process sends cannot be read: {e}")),
                }
            }
        }
        tokio::task::yield_now().await;
    }
}
