//! The way from the supervisor to what is shown: asks for the state while somebody looks, and for events when there are
//! new ones; gets answers of the store for others.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use nursery_shared::{
    history::{Answer, From, History, Listing, MAX_EVENTS, Question},
    message::{FromWorker, ToWorker},
};
use tokio::sync::{Notify, Semaphore};

use super::{
    QUEUE,
    clips::Desk,
    hub::{Hub, KEPT},
    inquiry::Inquiry,
    pictures,
};
use crate::link::Outbox;

/// How long the supervisor has to show the state before it is asked again.
const STATUS: Duration = Duration::from_secs(2);
/// How often the store is asked for events although nobody spoke of any: a sink may die between storing and saying so.
const LOOK: Duration = Duration::from_secs(10);
/// Wait after a question that was not answered.
const AGAIN: Duration = Duration::from_millis(500);
/// Whoever wants something of the store waits in a queue of this length.
const WAITING: usize = 16;
/// Questions that one request may take, of 2,000 rows each.
const QUESTIONS: usize = 10;

/// The channel to the supervisor, and who waits for what.
pub struct Feed {
    outbox: Outbox,
    hub: Arc<Hub>,
    store: Inquiry<Answer>,
    queue: Semaphore,
    stored: Notify,
    /// Clips of events.
    pub clips: Desk,
    /// Pictures of cameras.
    pub pictures: pictures::Desk,
}

/// Why events cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub enum NoEvents {
    /// Too many ask.
    Busy,
    /// One line.
    Failed(String),
}

/// Some events, in the order that was asked for.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<nursery_shared::history::StoredEvent>,
    /// Where to go on, if there may be more.
    pub next: Option<i64>,
}

impl Feed {
    /// Nothing is known yet.
    pub fn new(outbox: Outbox, hub: Arc<Hub>) -> Self {
        Self {
            clips: Desk::new(outbox.clone()),
            pictures: pictures::Desk::new(outbox.clone()),
            store: Inquiry::new(outbox.clone(), "the store"),
            outbox,
            hub,
            queue: Semaphore::new(WAITING),
            stored: Notify::new(),
        }
    }

    /// Takes in what the supervisor says.
    ///
    /// # Errors
    /// One line: that is not for this role.
    pub fn take(&self, message: ToWorker) -> Result<(), String> {
        match message {
            ToWorker::Status(status) => self.hub.set_status(*status),
            ToWorker::Stored => self.stored.notify_one(),
            ToWorker::History { ticket, answer } => self.store.answered(ticket, answer),
            _ => return Err("the supervisor sent a message that is not for this role".into()),
        }
        Ok(())
    }

    /// Keeps the state up to date while somebody wants it; the supervisor sets the pace. Ends when it is gone.
    pub async fn keep_status(&self) {
        let mut changes = self.hub.subscribe();
        loop {
            self.hub.wanted().await;
            let version = self.hub.status_version();
            if self.outbox.send_newest(&FromWorker::WantStatus, QUEUE).is_err() {
                return;
            }
            let shown =
                async { while self.hub.status_version() == version && changes.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(STATUS, shown).await;
        }
    }

    /// Keeps the newest events here. Ends never.
    pub async fn keep_events(&self) {
        while let Err(e) = self.fill().await {
            tracing::debug!("events: {e:?}");
            tokio::time::sleep(AGAIN).await;
        }
        loop {
            let _ = tokio::time::timeout(LOOK, self.stored.notified()).await;
            while let Err(e) = self.catch_up().await {
                tracing::debug!("events: {e:?}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// The newest events there are.
    async fn fill(&self) -> Result<(), NoEvents> {
        let mut found = VecDeque::new();
        let mut from = i64::MAX;
        while found.len() < KEPT {
            let history = self.list(listing(From::Before(from), MAX_EVENTS)).await?;
            history.events.into_iter().for_each(|event| found.push_front(event));
            match history.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let surplus = found.len().saturating_sub(KEPT);
        self.hub.fill(&found.make_contiguous()[surplus..]);
        Ok(())
    }

    /// Those that were stored since.
    async fn catch_up(&self) -> Result<(), NoEvents> {
        loop {
            let newest = self.hub.newest();
            let history = self.list(listing(From::After(newest), MAX_EVENTS)).await?;
            if history.newest < newest {
                // The store was moved aside, and another one begun.
                self.hub.begin_anew();
                while let Err(e) = self.fill().await {
                    tracing::debug!("events: {e:?}");
                    tokio::time::sleep(AGAIN).await;
                }
                return Ok(());
            }
            self.hub.add_events(&history.events);
            if history.next.is_none() {
                return Ok(());
            }
        }
    }

    /// Stored events before the number `before`, newest first, for somebody who waits.
    pub async fn events(
        &self,
        before: i64,
        camera: Option<String>,
        since_us: Option<i64>,
        limit: usize,
    ) -> Result<Page, NoEvents> {
        let _place = self.queue.try_acquire().map_err(|_| NoEvents::Busy)?;
        let mut page = Page { events: Vec::new(), next: Some(before) };
        for _ in 0..QUESTIONS {
            let (Some(from), left) = (page.next, limit - page.events.len()) else { break };
            if left == 0 {
                break;
            }
            let limit = u32::try_from(left).unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
            let listing = Listing { from: From::Before(from), since_us, camera: camera.clone(), limit };
            let history = self.list(listing).await?;
            page.events.extend(history.events);
            page.next = history.next;
        }
        Ok(page)
    }

    /// The store's answer to a question of somebody who waits.
    ///
    /// # Errors
    /// Too many ask, or there is no answer.
    pub async fn answer(&self, question: Question) -> Result<Answer, NoEvents> {
        let _place = self.queue.try_acquire().map_err(|_| NoEvents::Busy)?;
        self.ask(question).await
    }

    async fn list(&self, listing: Listing) -> Result<History, NoEvents> {
        match self.ask(Question::Events(listing)).await? {
            Answer::Events(history) => Ok(history),
            _ => Err(NoEvents::Failed("the store answered another question".into())),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, NoEvents> {
        match self.store.ask(|ticket| FromWorker::Question { ticket, question }).await {
            Ok(Answer::Failed(why)) | Err(why) => Err(NoEvents::Failed(why)),
            Ok(answer) => Ok(answer),
        }
    }
}

fn listing(from: From, limit: u32) -> Listing {
    Listing { from, since_us: None, camera: None, limit }
}
