//! What is where: each path with its method, who may ask for it, and the answer.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use nursery_shared::{status::Status, timestamp};
use serde_json::{Value, json};

use super::{
    connections::Connections,
    doorman::{Doorman, Login},
    feed::{Feed, NoEvents},
    hub::{Event, Hub},
    live::Live,
    lookback, metrics, pictures,
    stream::{self, Answer, Counted},
};

/// Longest body of a request, and how long it may take.
const BODY: usize = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// How old a state is shown at once; an older one is asked for, for so long.
const FRESH: Duration = Duration::from_millis(1500);
const WAIT: Duration = Duration::from_secs(3);
/// A state older than this means that nobody shows it any more.
const STALE: Duration = Duration::from_secs(8);
/// Events of one answer, unless another number is asked for; and at the most.
const EVENTS: usize = 50;
const MOST_EVENTS: usize = 200;

/// Nothing is loaded from elsewhere, and nobody shows this page inside of another one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who gets here.
    Open,
    /// Whoever has said who he is, where that is asked for.
    Login,
}

/// Something that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    File(&'static str, &'static str),
    Healthz,
    Readyz,
    Metrics,
    Openapi,
    Session,
    LogIn,
    LogOut,
    Status,
    Cameras,
    Workers,
    Events,
    Clip,
    Stream,
    Timeline,
    Event,
    Feedback,
    Picture,
    EventPicture,
    Live,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json";

/// All there is. The page's files hold nothing of the house and may be seen by everybody.
pub const ROUTES: &[(&str, &str, Access, Resource)] = &[
    ("GET", "/", Access::Open, Resource::File(HTML, include_str!("page/index.html"))),
    ("GET", "/app.js", Access::Open, Resource::File(SCRIPT, include_str!("page/app.js"))),
    ("GET", "/clip.js", Access::Open, Resource::File(SCRIPT, include_str!("page/clip.js"))),
    ("GET", "/timeline.js", Access::Open, Resource::File(SCRIPT, include_str!("page/timeline.js"))),
    ("GET", "/event.js", Access::Open, Resource::File(SCRIPT, include_str!("page/event.js"))),
    ("GET", "/pictures.js", Access::Open, Resource::File(SCRIPT, include_str!("page/pictures.js"))),
    ("GET", "/app.css", Access::Open, Resource::File(STYLE, include_str!("page/app.css"))),
    ("GET", "/live.js", Access::Open, Resource::File(SCRIPT, include_str!("page/live.js"))),
    ("GET", "/live-sound.js", Access::Open, Resource::File(SCRIPT, include_str!("page/live-sound.js"))),
    ("GET", "/icon.svg", Access::Open, Resource::File("image/svg+xml", include_str!("page/icon.svg"))),
    (
        "GET",
        "/manifest.json",
        Access::Open,
        Resource::File("application/manifest+json", include_str!("page/manifest.json")),
    ),
    ("GET", "/healthz", Access::Open, Resource::Healthz),
    ("GET", "/readyz", Access::Open, Resource::Readyz),
    ("GET", "/metrics", Access::Login, Resource::Metrics),
    ("GET", "/api/openapi.json", Access::Open, Resource::Openapi),
    ("GET", "/api/session", Access::Open, Resource::Session),
    ("POST", "/api/login", Access::Open, Resource::LogIn),
    ("POST", "/api/logout", Access::Open, Resource::LogOut),
    ("GET", "/api/status", Access::Login, Resource::Status),
    ("GET", "/api/cameras", Access::Login, Resource::Cameras),
    ("GET", "/api/workers", Access::Login, Resource::Workers),
    ("GET", "/api/events", Access::Login, Resource::Events),
    ("GET", "/api/events/{event_id}/clip", Access::Login, Resource::Clip),
    ("GET", "/api/stream", Access::Login, Resource::Stream),
    ("GET", "/api/cameras/{name}/timeline", Access::Login, Resource::Timeline),
    ("GET", "/api/events/{event_id}", Access::Login, Resource::Event),
    ("POST", "/api/events/{event_id}/feedback", Access::Login, Resource::Feedback),
    ("GET", "/api/cameras/{name}/picture", Access::Login, Resource::Picture),
    ("GET", "/api/events/{event_id}/picture", Access::Login, Resource::EventPicture),
    ("GET", "/api/cameras/{name}/live", Access::Login, Resource::Live),
];

const NO_CAMERA: &str = "there is no camera of this name, see /api/cameras";

/// The description of the API for programs.
pub const OPENAPI: &str = include_str!("page/openapi.json");

/// An answer to a browser.
pub type Reply = Response<Answer>;

/// Everything that answers take.
pub struct Site {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    doorman: Arc<Doorman>,
    connections: Arc<Connections>,
    live: Arc<Live>,
    streams: Arc<AtomicUsize>,
    requests: AtomicU64,
    failed_logins: AtomicU64,
}

impl Site {
    /// Of these parts.
    pub fn new(
        hub: Arc<Hub>,
        feed: Arc<Feed>,
        doorman: Arc<Doorman>,
        connections: Arc<Connections>,
        live: Arc<Live>,
    ) -> Self {
        Self {
            hub,
            feed,
            doorman,
            connections,
            live,
            streams: Arc::default(),
            requests: AtomicU64::new(0),
            failed_logins: AtomicU64::new(0),
        }
    }

    /// Requests so far.
    pub fn answered(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers a request of somebody at `from`, who came here by TLS or not.
    pub async fn answer(&self, request: Request<Incoming>, from: IpAddr, tls: bool) -> Reply {
        let head = request.method() == Method::HEAD;
        let tls = tls || request.headers().get("x-forwarded-proto").is_some_and(|v| v == "https");
        let mut reply = match self.find(&request, from) {
            Ok(resource) => self.give(resource, request, from).await,
            Err(refusal) => *refusal,
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let headers = reply.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // What is asked for again is asked of us: states and files may be others by then.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if tls
            && let Some(cookie) = headers.get(header::SET_COOKIE).and_then(|c| c.to_str().ok())
            && let Ok(secure) = HeaderValue::from_str(&format!("{cookie}; Secure"))
        {
            headers.insert(header::SET_COOKIE, secure);
        }
        if head {
            *reply.body_mut() = Answer::Whole(Full::default());
        }
        reply
    }

    /// What a request asks for, if whoever asks may have it.
    fn find(&self, request: &Request<Incoming>, from: IpAddr) -> Result<Resource, Box<Reply>> {
        let headers = request.headers();
        if !self.doorman.is_strict() && !is_local(headers) {
            // Another site's name may lead here, and its scripts would be let in by the browser.
            return Err(refuse(
                StatusCode::FORBIDDEN,
                "asked for under a name that is not this host's: without web.password only localhost and 127.0.0.1 are answered",
            ).into());
        }
        let path = request.uri().path();
        let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
        let mut found = ROUTES.iter().filter(|(_, known, ..)| is_at(known, path)).peekable();
        let Some(first) = found.peek() else {
            return Err(refuse(StatusCode::NOT_FOUND, "there is nothing here, see /api/openapi.json").into());
        };
        let allowed = first.0;
        let Some((_, _, access, resource)) = found.find(|(known, ..)| *known == method) else {
            let mut reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "not asked for in this way");
            reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            return Err(reply.into());
        };
        if method == "POST" && !is_same_site(headers) {
            return Err(refuse(StatusCode::FORBIDDEN, "asked for by the page of another site").into());
        }
        if *access == Access::Login {
            self.let_in(headers, from)?;
        }
        Ok(*resource)
    }

    fn let_in(&self, headers: &HeaderMap, from: IpAddr) -> Result<(), Box<Reply>> {
        if !self.doorman.is_strict() || self.is_logged_in(headers) {
            return Ok(());
        }
        let token = text(headers, &header::AUTHORIZATION).and_then(|value| {
            let (kind, token) = value.split_once(' ')?;
            kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(token) = token else {
            return Err(unauthorised("log in, or send `Authorization: Bearer TOKEN`").into());
        };
        self.doorman.knows_token(from, token).map_err(|login| self.turn_away(login).into())
    }

    fn is_logged_in(&self, headers: &HeaderMap) -> bool {
        text(headers, &header::COOKIE).is_some_and(|cookies| self.doorman.knows_cookie(cookies))
    }

    fn turn_away(&self, login: Login) -> Reply {
        match login {
            Login::Later(wait) => later(
                StatusCode::TOO_MANY_REQUESTS,
                wait,
                "too many wrong passwords or tokens: try again later",
            ),
            _ => {
                self.failed_logins.fetch_add(1, Ordering::Relaxed);
                unauthorised("the password or token is wrong")
            }
        }
    }

    async fn give(&self, resource: Resource, request: Request<Incoming>, from: IpAddr) -> Reply {
        match resource {
            Resource::File(kind, content) => {
                whole(StatusCode::OK, kind, Bytes::from_static(content.as_bytes()))
            }
            Resource::Openapi => whole(StatusCode::OK, JSON, Bytes::from_static(OPENAPI.as_bytes())),
            Resource::Healthz => {
                whole(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok\n"))
            }
            Resource::Readyz => self.readyz().await,
            Resource::Metrics => self.metrics().await,
            Resource::Session => {
                let required = self.doorman.is_strict();
                let inside = !required || self.is_logged_in(request.headers());
                document(&json!({"login_required": required, "logged_in": inside}))
            }
            Resource::LogIn => self.log_in(request, from).await,
            Resource::LogOut => with_cookie(document(&json!({"logged_in": false})), &Doorman::farewell()),
            Resource::Status => match self.fresh().await {
                Some(()) => self.hub.document().map_or_else(no_status, |d| whole(StatusCode::OK, JSON, d)),
                None => no_status(),
            },
            Resource::Cameras => self.part("cameras").await,
            Resource::Workers => self.part("workers").await,
            Resource::Timeline => {
                let (camera, query) = (part_of(&request, 3), request.uri().query().unwrap_or_default());
                // Where nobody says which ones there are it may be one.
                let is_there = self.has_camera(camera).await != Some(false);
                lookback::timeline(&self.feed, camera, query, is_there).await
            }
            Resource::Event => lookback::event(&self.feed, part_of(&request, 3)).await,
            Resource::Feedback => {
                let (event_id, by) = (part_of(&request, 3).to_owned(), lookback::way(request.headers()));
                match json_body(request).await {
                    Ok(body) => lookback::feedback(&self.feed, &event_id, by, &body).await,
                    Err(refusal) => *refusal,
                }
            }
            Resource::Events => self.events(request.uri().query().unwrap_or_default()).await,
            Resource::Clip => self.feed.clips.clip(part_of(&request, 3), request.headers()).await,
            Resource::Picture => self.feed.pictures.picture(part_of(&request, 3)).await,
            Resource::EventPicture => pictures::of_event(&self.feed, part_of(&request, 3)).await,
            Resource::Live => {
                let uri = request.uri();
                self.live(uri.path(), uri.query().unwrap_or_default()).await
            }
            Resource::Stream => {
                let last = text(request.headers(), &HeaderName::from_static("last-event-id"));
                let last = last.and_then(|id| id.parse().ok()).filter(|id: &i64| *id >= 0);
                match Counted::enter(&self.streams) {
                    Some(counted) => {
                        let body = stream::begin(Arc::clone(&self.hub), last, counted);
                        reply(StatusCode::OK, "text/event-stream", body)
                    }
                    None => later(
                        StatusCode::SERVICE_UNAVAILABLE,
                        Duration::from_secs(5),
                        "too many streams are open: close other pages",
                    ),
                }
            }
        }
    }

    /// What a camera sends now, for as long as somebody takes it.
    async fn live(&self, path: &str, query: &str) -> Reply {
        let Some(name) = camera_of(path) else { return refuse(StatusCode::NOT_FOUND, NO_CAMERA) };
        let video = match query {
            "" | "video=1" => true,
            "video=0" => false,
            _ => return refuse(StatusCode::BAD_REQUEST, "expected only video=0 or video=1"),
        };
        match self.has_camera(&name).await {
            None => return no_status(),
            Some(false) => return refuse(StatusCode::NOT_FOUND, NO_CAMERA),
            Some(true) => {}
        }
        match self.live.watch(&name, video) {
            Ok(viewer) => reply(StatusCode::OK, "application/octet-stream", Answer::Live(viewer)),
            Err(why) => later(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(10), &why),
        }
    }

    /// Whether there is a camera of this name; `None` where nobody says.
    async fn has_camera(&self, name: &str) -> Option<bool> {
        self.fresh().await?;
        self.hub.with_status(|s| s.cameras.iter().any(|c| c.name == name))
    }

    /// Waits for a state that is not old.
    async fn fresh(&self) -> Option<()> {
        self.hub.want();
        let mut changes = self.hub.subscribe();
        let is_fresh = || self.hub.status_age().is_some_and(|age| age <= FRESH);
        let arrived = async { while !is_fresh() && changes.changed().await.is_ok() {} };
        tokio::time::timeout(WAIT, arrived).await.ok()
    }

    async fn part(&self, key: &str) -> Reply {
        let found = match self.fresh().await {
            Some(()) => self.hub.document(),
            None => None,
        };
        match found.and_then(|d| serde_json::from_slice::<Value>(&d).ok()) {
            Some(mut value) => document(&json!({ key: value[key].take() })),
            None => no_status(),
        }
    }

    async fn readyz(&self) -> Reply {
        let known = self.fresh().await.is_some();
        let cameras = |s: &Status| {
            use nursery_shared::status::{CameraState, WorkerState};
            let lost = s.cameras.iter().filter(|c| c.state == CameraState::Offline).count();
            let sink = s.workers.iter().any(|w| w.name == "sink" && w.state == WorkerState::Running);
            (lost, sink)
        };
        match self.hub.with_status(cameras).filter(|_| known) {
            Some((_, true)) => {
                whole(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ready\n"))
            }
            Some((_, false)) => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, "events are not stored at the moment")
            }
            None => no_status(),
        }
    }

    async fn metrics(&self) -> Reply {
        // Without the state there are still figures of this process.
        let _ = self.fresh().await;
        let age = self.hub.status_age();
        let own = metrics::Own {
            connections: self.connections.figures(),
            streams: self.streams.load(Ordering::Relaxed),
            requests: self.answered(),
            failed_logins: self.failed_logins.load(Ordering::Relaxed),
            live: self.live.figures(),
            status_age_s: age.map(|a| (a.as_secs_f64() * 1000.0).round() / 1000.0),
        };
        let text = match age.filter(|age| *age < STALE) {
            Some(_) => self.hub.with_status(|s| metrics::render(Some(s), &own)),
            None => None,
        };
        let text = text.unwrap_or_else(|| metrics::render(None, &own));
        whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(text))
    }

    async fn log_in(&self, request: Request<Incoming>, from: IpAddr) -> Reply {
        let body = match json_body(request).await {
            Ok(body) => body,
            Err(refusal) => return *refusal,
        };
        let Some(password) = body["password"].as_str() else {
            return refuse(StatusCode::BAD_REQUEST, "expected {\"password\": \"…\"}");
        };
        if !self.doorman.is_strict() {
            return document(&json!({"logged_in": true}));
        }
        match self.doorman.log_in(from, password.to_owned()).await {
            Login::Welcome(cookie) => with_cookie(document(&json!({"logged_in": true})), &cookie),
            other => self.turn_away(other),
        }
    }

    async fn events(&self, query: &str) -> Reply {
        let asked = match Asked::parse(query) {
            Ok(asked) => asked,
            Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
        };
        match self.feed.events(asked.before, asked.camera, asked.since_us, asked.limit).await {
            Ok(page) => {
                let events: Vec<Value> =
                    page.events.iter().filter_map(Event::new).map(|event| event.value).collect();
                document(&json!({"events": events, "next": page.next}))
            }
            Err(why) => no_events(why),
        }
    }
}

/// Why there is nothing of the store.
pub fn no_events(why: NoEvents) -> Reply {
    match why {
        NoEvents::Busy => later(
            StatusCode::SERVICE_UNAVAILABLE,
            Duration::from_secs(1),
            "too many ask for events: try again",
        ),
        NoEvents::Failed(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

/// Whether a path is one of those that a route is for; `{…}` in it stands for anything but nothing.
fn is_at(route: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let fits = |known: &str, part: &str| known == part || (known.starts_with('{') && !part.is_empty());
    route.split('/').all(|known| parts.next().is_some_and(|part| fits(known, part))) && parts.next().is_none()
}

/// A part of the path that is asked for, counted from the slash that it begins with.
fn part_of(request: &Request<Incoming>, number: usize) -> &str {
    request.uri().path().split('/').nth(number).unwrap_or_default()
}

/// The body of a request as JSON; where it is none, null.
async fn json_body(request: Request<Incoming>) -> Result<Value, Box<Reply>> {
    let kind = text(request.headers(), &header::CONTENT_TYPE).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some(JSON) {
        let why = "expected Content-Type: application/json";
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into());
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default()),
        Ok(Err(_)) => {
            Err(closing(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken")).into())
        }
        Err(_) => Err(closing(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")).into()),
    }
}

/// What `/api/events` was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    before: i64,
    camera: Option<String>,
    since_us: Option<i64>,
    limit: usize,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Self { before: i64::MAX, camera: None, since_us: None, limit: EVENTS };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "since" => {
                    asked.since_us = Some(timestamp::parse_since(&value).map_err(|e| format!("since: {e}"))?)
                }
                "camera" if (1..=64).contains(&value.len()) => asked.camera = Some(value.into_owned()),
                "camera" => return Err("camera: expected a name of 1 to 64 characters".into()),
                "limit" => {
                    asked.limit = value
                        .parse()
                        .ok()
                        .filter(|n| (1..=MOST_EVENTS).contains(n))
                        .ok_or_else(|| format!("limit: expected a number from 1 to {MOST_EVENTS}"))?;
                }
                "before" => {
                    asked.before = value
                        .parse()
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or("before: expected the number of an event")?;
                }
                _ => return Err("expected only since, camera, limit and before".into()),
            }
        }
        Ok(asked)
    }
}

/// The camera that a path below `/api/cameras/` names.
fn camera_of(path: &str) -> Option<String> {
    let name = path.split('/').nth(3)?;
    percent_encoding::percent_decode_str(name).decode_utf8().ok().map(Into::into)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Asked for under a name that only this host has.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = text(headers, &header::HOST) else { return false };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Not by a page of another site, as far as browsers say; scripts say nothing.
fn is_same_site(headers: &HeaderMap) -> bool {
    let said = text(headers, &HeaderName::from_static("sec-fetch-site"));
    let origin = text(headers, &header::ORIGIN).map(|o| o.split_once("://").map_or(o, |(_, host)| host));
    said.is_none_or(|site| matches!(site, "same-origin" | "none"))
        && origin.is_none_or(|origin| text(headers, &header::HOST) == Some(origin))
}

fn reply(status: StatusCode, kind: &'static str, body: Answer) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// An answer of this kind that is there as a whole.
pub fn whole(status: StatusCode, kind: &'static str, content: Bytes) -> Reply {
    reply(status, kind, Answer::Whole(Full::new(content)))
}

/// An answer that is a JSON document.
pub fn document(value: &Value) -> Reply {
    whole(StatusCode::OK, JSON, Bytes::from(value.to_string()))
}

/// An answer that says why there is none.
pub fn refuse(status: StatusCode, why: &str) -> Reply {
    whole(status, JSON, Bytes::from(json!({ "error": why }).to_string()))
}

fn no_status() -> Reply {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the supervisor does not say how it is: try again")
}

fn unauthorised(why: &str) -> Reply {
    let mut reply = refuse(StatusCode::UNAUTHORIZED, why);
    reply
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nursery\""));
    reply
}

fn later(status: StatusCode, wait: Duration, why: &str) -> Reply {
    let mut reply = refuse(status, why);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    reply
}

/// What is left of the request is not read.
fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn with_cookie(mut reply: Reply, cookie: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        reply.headers_mut().insert(header::SET_COOKIE, value);
    }
    reply
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn names_of_others_are_not_this_hosts() {
        for (host, local) in [
            ("localhost:8790", true),
            ("127.0.0.1", true),
            ("127.1.2.3:80", true),
            ("[::1]:8790", true),
            ("evil.example:8790", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.1.2", false),
            ("", false),
        ] {
            assert_eq!(is_local(&headers(&[("host", host)])), local, "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn a_part_in_braces_is_any_one() {
        let is = |path| is_at("/api/cameras/{name}/live", path);
        assert!(is("/api/cameras/crib/live") && is("/api/cameras/a%2Fb/live"));
        for other in
            ["/api/cameras//live", "/api/cameras/crib", "/api/cameras/a/b/live", "/api/cameras/a/live/", ""]
        {
            assert!(!is(other), "{other}");
        }
        assert_eq!(camera_of("/api/cameras/a%2Fb%20c/live").as_deref(), Some("a/b c"));
        assert_eq!(camera_of("/api/cameras/%ff/live"), None);
    }

    #[test]
    fn pages_of_other_sites_post_nothing() {
        let same = |pairs: &[(&'static str, &'static str)]| is_same_site(&headers(pairs));
        assert!(same(&[("host", "h:1")]));
        assert!(same(&[("host", "h:1"), ("origin", "http://h:1"), ("sec-fetch-site", "same-origin")]));
        assert!(!same(&[("host", "h:1"), ("origin", "http://evil")]));
        assert!(!same(&[("host", "h:1"), ("origin", "null")]));
        assert!(!same(&[("host", "h:1"), ("sec-fetch-site", "cross-site")]));
        assert!(!same(&[("host", "h:1"), ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn what_is_asked_for_of_events_is_bounded_and_understood() {
        let asked = Asked::parse("camera=crib&limit=200&before=7&since=2026-01-31T02:03:04Z").unwrap();
        assert_eq!((asked.camera.as_deref(), asked.limit, asked.before), (Some("crib"), 200, 7));
        assert!(asked.since_us.is_some());
        assert_eq!(Asked::parse("").unwrap().limit, EVENTS);
        for bad in ["limit=0", "limit=201", "limit=x", "before=0", "since=never", "camera=", "x=1", "%ff=%00"]
        {
            assert!(Asked::parse(bad).is_err(), "{bad}");
        }
        assert!(Asked::parse(&format!("camera={}", "x".repeat(65))).is_err());
    }

    #[test]
    fn a_part_of_a_path_may_stand_for_something_and_never_for_nothing_or_more() {
        let route = "/api/cameras/{name}/timeline";
        assert!(is_at(route, "/api/cameras/crib/timeline") && is_at("/", "/"));
        for other in ["/api/cameras//timeline", "/api/cameras/a/b/timeline", "/api/cameras/crib", "", "/"] {
            assert!(!is_at(route, other), "{other}");
        }
        assert!(!is_at("/api/events/{event_id}", "/api/events/") && !is_at("/api/events", "/api/events/x"));
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut known: Vec<(String, String)> = Vec::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                known.push((method.to_uppercase(), path.clone()));
            }
        }
        let mut routes: Vec<(String, String)> = ROUTES
            .iter()
            .filter(|(.., resource)| !matches!(resource, Resource::File(..)))
            .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        known.sort();
        routes.sort();
        assert_eq!(known, routes);
        for (method, path, access, _) in ROUTES {
            let operation = &described["paths"][path][method.to_lowercase()];
            if operation.is_null() {
                continue;
            }
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert!(open == (*access == Access::Open), "{path}");
            // What any answer may be, by who asks and how.
            let mut refusals = vec!["403"];
            if !open {
                refusals.extend(["401", "429"]);
            }
            if *method == "POST" && *path != "/api/logout" {
                refusals.extend(["400", "408", "413", "415"]);
            }
            for status in refusals {
                assert!(operation["responses"][status].is_object(), "{method} {path}: {status}");
            }
        }
    }
}
