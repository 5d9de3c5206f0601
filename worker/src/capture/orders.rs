//! What the supervisor wants of a capture process.

use std::{os::fd::OwnedFd, time::Duration};

use nursery_shared::message::ToWorker;

use crate::link::{Inbox, PolledInbox};

/// What the supervisor wants.
pub(super) enum Order {
    /// This process to end, for this reason.
    End(Result<(), String>),
    /// Media to be written to this socket, of an operator or not.
    Media(OwnedFd, bool),
    /// So much of it to be remembered.
    Remember(Duration),
    /// A clip to be begun: its number, time and bytes at the most, and its file, unless that was lost on the way.
    OpenClip((i64, i64, u64), Option<OwnedFd>),
    /// A clip to end at this time.
    CloseClip(i64, i64),
}

/// The supervisor's orders as they come.
pub(super) struct Orders(PolledInbox);

impl Orders {
    /// To be called within a runtime.
    pub fn new(inbox: Inbox) -> Result<Self, String> {
        inbox.polled().map(Self).map_err(|e| format!("cannot wait for the supervisor: {e}"))
    }

    /// Waits for the next one. May be dropped where it waits.
    pub async fn next(&mut self) -> Order {
        loop {
            return match self.0.recv().await {
                Ok(Some((ToWorker::Drain, _)) | None) => Order::End(Ok(())),
                Ok(Some((ToWorker::Media { operator }, Some(socket)))) => Order::Media(socket, operator),
                // It was lost on the way; who waits for media asks again.
                Ok(Some((ToWorker::Media { .. }, None))) => continue,
                Ok(Some((ToWorker::Remember { seconds }, _))) => {
                    Order::Remember(Duration::from_secs(seconds.into()))
                }
                Ok(Some((ToWorker::OpenClip { clip, from_us, max_bytes }, file))) => {
                    Order::OpenClip((clip, from_us, max_bytes), file)
                }
                Ok(Some((ToWorker::CloseClip { clip, until_us }, _))) => Order::CloseClip(clip, until_us),
                Ok(Some(_)) => {
                    Order::End(Err("the supervisor sent a message that is not for this role".into()))
                }
                Err(e) => Order::End(Err(format!("frame from the supervisor: {e}"))),
            };
        }
    }
}
