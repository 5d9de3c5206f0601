//! Pictures: the newest one of a camera, of whoever makes them, and that of an event, out of the store.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use nursery_shared::{
    clip::is_event_id,
    history::{Answer, MAX_CAMERA, Question},
    light::{Found, Picture, Wanted},
    message::FromWorker,
    timestamp,
};
use tokio::sync::Semaphore;

use super::{
    feed::Feed,
    inquiry::Inquiry,
    routes::{Reply, no_events, refuse, whole},
};
use crate::link::Outbox;

/// Whoever wants one waits in a queue of this length.
const WAITING: usize = 64;
/// How long a picture is shown to others who ask, and of how many cameras.
const SHOWN_FOR: Duration = Duration::from_secs(1);
const KEPT: usize = 64;

/// Gets pictures of cameras.
pub struct Desk {
    light: Inquiry<Found>,
    queue: Semaphore,
    kept: Mutex<VecDeque<(Instant, String, Found)>>,
}

impl Desk {
    /// Nobody has asked yet.
    pub fn new(outbox: Outbox) -> Self {
        Self {
            light: Inquiry::new(outbox, "whoever makes pictures"),
            queue: Semaphore::new(WAITING),
            kept: Mutex::default(),
        }
    }

    /// Takes in what the supervisor says.
    pub fn answered(&self, ticket: u64, found: Found) {
        self.light.answered(ticket, found);
    }

    fn known(&self, camera: &str) -> Option<Found> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, ..)| since.elapsed() < SHOWN_FOR);
        kept.iter().find(|(_, name, _)| name == camera).map(|(.., found)| found.clone())
    }

    async fn newest(&self, camera: &str) -> Result<Found, String> {
        let turn = self.light.turn().await?;
        // Somebody before may have asked for the same.
        if let Some(found) = self.known(camera) {
            return Ok(found);
        }
        let wanted = Wanted { camera: camera.to_owned(), near_us: None, score: None };
        let found = turn.ask(|ticket| FromWorker::WantPicture { ticket, wanted }).await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front((Instant::now(), camera.to_owned(), found.clone()));
        Ok(found)
    }

    /// The newest picture of a camera.
    pub async fn picture(&self, camera: &str) -> Reply {
        if camera.len() > MAX_CAMERA {
            return refuse(StatusCode::NOT_FOUND, "there is no such camera");
        }
        let found = match self.known(camera) {
            Some(found) => Ok(found),
            None => match self.queue.try_acquire() {
                Ok(_place) => self.newest(camera).await,
                Err(_) => Err("too many ask for pictures: try again".to_owned()),
            },
        };
        match found {
            Ok(Ok(picture)) => show(&picture),
            Ok(Err(why)) => refuse(StatusCode::NOT_FOUND, &why),
            Err(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }
}

/// The picture of an event.
pub async fn of_event(feed: &Feed, event_id: &str) -> Reply {
    if !is_event_id(event_id) {
        return refuse(StatusCode::NOT_FOUND, "there is no such event");
    }
    match feed.answer(Question::Picture { event_id: event_id.to_owned() }).await {
        Ok(Answer::Picture(Some(picture))) => show(&picture),
        Ok(Answer::Picture(None)) => {
            refuse(StatusCode::NOT_FOUND, "there is no picture of this event, or no longer")
        }
        Ok(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the store answered another question"),
        Err(why) => no_events(why),
    }
}

fn show(picture: &Picture) -> Reply {
    let mut reply = whole(StatusCode::OK, "image/jpeg", Bytes::copy_from_slice(&picture.jpeg));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    if let Ok(time) = HeaderValue::from_str(&timestamp::rfc3339(picture.time_us)) {
        headers.insert(HeaderName::from_static("x-picture-time"), time);
    }
    reply
}
