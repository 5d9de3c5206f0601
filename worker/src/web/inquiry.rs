//! One question at a time to somebody behind the supervisor, and the wait for the answer.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nursery_shared::message::FromWorker;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::QUEUE;
use crate::link::Outbox;

/// How long an answer may be on its way.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks questions whose answers are of the type `T`.
pub struct Inquiry<T> {
    outbox: Outbox,
    /// Who is asked, in words.
    whom: &'static str,
    /// Who waits for the answer that is under way.
    asked: Mutex<Option<(u64, oneshot::Sender<T>)>>,
    tickets: AtomicU64,
    turn: Semaphore,
}

/// Nobody else asks while this is held.
pub struct Turn<'a, T> {
    inquiry: &'a Inquiry<T>,
    _permit: SemaphorePermit<'a>,
}

impl<T> Inquiry<T> {
    /// Nobody has asked yet.
    pub fn new(outbox: Outbox, whom: &'static str) -> Self {
        Self { outbox, whom, asked: Mutex::new(None), tickets: AtomicU64::new(0), turn: Semaphore::new(1) }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<(u64, oneshot::Sender<T>)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the supervisor says; an answer that nobody waits for any more is dropped.
    pub fn answered(&self, ticket: u64, answer: T) {
        if let Some((_, asker)) = self.waiting().take_if(|(waiting, _)| *waiting == ticket) {
            let _ = asker.send(answer);
        }
    }

    /// Waits until nobody else asks.
    ///
    /// # Errors
    /// One line.
    pub async fn turn(&self) -> Result<Turn<'_, T>, String> {
        let permit = self.turn.acquire().await.map_err(|_| "this process is about to end")?;
        Ok(Turn { inquiry: self, _permit: permit })
    }

    /// Waits until nobody else asks, asks, and waits for the answer.
    ///
    /// # Errors
    /// One line.
    pub async fn ask(&self, question: impl FnOnce(u64) -> FromWorker) -> Result<T, String> {
        self.turn().await?.ask(question).await
    }
}

impl<T> Turn<'_, T> {
    /// Asks what `question` makes of the ticket that the answer will have, and waits for it.
    ///
    /// # Errors
    /// One line: the question cannot be sent, or is not answered.
    pub async fn ask(self, question: impl FnOnce(u64) -> FromWorker) -> Result<T, String> {
        let inquiry = self.inquiry;
        let ticket = inquiry.tickets.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        *inquiry.waiting() = Some((ticket, asker));
        inquiry.outbox.send_newest(&question(ticket), QUEUE)?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(format!("{} does not answer", inquiry.whom)),
        }
    }
}
