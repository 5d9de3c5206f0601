//! Source `rtsp://` and `rtsps://`: one session after another with crate retina, of which only the audio track is
//! set up, and a video track while somebody wants pictures.

pub mod audio;
mod encoded;
mod entrance;
mod explain;
mod former;
mod gathering;
pub mod message;
mod pictures;
mod reception;
mod tls;
pub mod tunnel;

use std::{pin::Pin, time::Duration};

use futures::StreamExt;
use nursery_shared::config::{CameraConfig, Transport};
use retina::{
    client::{
        Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions,
        UdpTransportOptions,
    },
    codec::{CodecItem, FrameFormat},
};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use url::Url;

use super::{
    retry::{Attempt, Failure, Outcome, keep_trying},
    source::{SourceEvent, SourceLink},
};
use audio::AudioDecoder;
use encoded::Encoded;
use explain::{Phase, Place};
use former::Former;
use gathering::Gathering;
use pictures::{Pictures, Without};
use reception::Reception;
use tunnel::Tunnel;

/// For name resolution, connection, DESCRIBE, SETUP and PLAY together.
const CONNECT: Duration = Duration::from_secs(10);

/// Without audio for this long a session is given up; retina itself would wait for ever.
const STALL: Duration = Duration::from_secs(5);

/// After this long in a session what is wrong in it from the beginning on has been seen.
const STEADY: Duration = Duration::from_secs(1);

/// Between two looks at whether pictures are to be asked for, or no longer.
const LOOK: Duration = Duration::from_secs(1);

/// Pictures that may come before the first audio of a session that takes over.
const EARLY: usize = 128;

/// Errors of single packets in a row after which the session is given up.
const HOPELESS: u32 = 100;

const USER_AGENT: &str = concat!("nursery/", env!("CARGO_PKG_VERSION"));

/// What is needed for a session.
struct Camera {
    /// Without user information.
    url: Url,
    place: Place,
    credentials: Option<Credentials>,
    transport: Transport,
    /// The only certificate that is trusted, for `rtsps://`.
    fingerprint: Option<String>,
    /// The camera's sessions, to know when an old one is gone.
    former: Former,
    pictures: Pictures,
}

/// Opens the port of this host that sessions connect to, where they go through TLS; the cage must let them.
pub fn entrance(url: &Url) -> Option<u16> {
    // That there may be none is said when it is needed.
    (url.scheme() == "rtsps").then(|| entrance::entrance().ok().map(|e| e.address().port())).flatten()
}

/// Reads what a camera takes that this process cannot read later.
pub fn prepare(config: &CameraConfig, url: &Url) {
    if url.scheme() == "rtsps" && config.tls_fingerprint.is_none() {
        // That there may be none is said when they are needed.
        let _ = tls::authorities();
    }
}

/// Listens until the source is stopped, then says goodbye.
pub async fn run(config: &CameraConfig, url: Url, link: &SourceLink) {
    let camera = Camera::new(config, url);
    keep_trying(link, &camera).await;
    camera.former.goodbye().await;
}

impl Attempt for Camera {
    async fn attempt(&self, link: &SourceLink) -> Outcome {
        // The last attempt may have ended in a panic.
        self.pictures.failed("what the camera sent could not be read", Instant::now());
        let failure = self.listen(link).await;
        self.pictures.failed(&failure.error, Instant::now());
        Outcome::Failed(failure)
    }
}

/// A session that plays.
struct Playing {
    /// Goes first, while the connection is the session's.
    gathering: Gathering,
    frames: Demuxed,
    decoder: AudioDecoder,
    encoded: Encoded,
    /// The camera has pictures that can be asked for.
    offers_video: bool,
}

/// A session, and what came in it already.
type Next = (Playing, Vec<CodecItem>);

/// One that is being brought about.
type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Next, String>> + Send + 'a>>;

impl Camera {
    fn new(config: &CameraConfig, mut url: Url) -> Self {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let username =
            if url.username().is_empty() { config.username.clone() } else { Some(decode(url.username())) };
        let password = match url.password() {
            Some(password) => Some(decode(password)),
            None => config.password.as_ref().map(|p| p.expose().to_owned()),
        };
        let credentials =
            username.map(|username| Credentials { username, password: password.unwrap_or_default() });
        // Both fail only for URLs without a host, which the configuration does not let through.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let place = Place::new(&url, credentials.is_some(), config.transport);
        let former = Former::new(&config.name, config.transport);
        let fingerprint = config.tls_fingerprint.clone();
        let pictures = Pictures::new(config.video);
        Self { url, place, credentials, transport: config.transport, fingerprint, former, pictures }
    }

    async fn listen(&self, link: &SourceLink) -> Failure {
        self.former.wait_out(&self.place).await;
        let mut phase = Phase::Resolve;
        let video = self.pictures.due(link.wishes(), Instant::now());
        let playing = match timeout(CONNECT, self.play(&mut phase, video)).await {
            Ok(Ok(playing)) => playing,
            Ok(Err(error)) => return Failure::new(error),
            Err(_) => return Failure::new(self.place.timed_out(phase, CONNECT).await),
        };
        link.send(SourceEvent::Connected).await;
        tracing::info!("{}: playing {}", self.place, playing.decoder.describe());
        self.receive(playing, link).await
    }

    async fn play(&self, phase: &mut Phase, video: bool) -> Result<Playing, String> {
        self.place.resolve().await?;
        *phase = Phase::Describe;
        let (url, credentials, user_agent, _waiting) = if self.url.scheme() == "rtsps" {
            let tunnel = self.tunnel().await?;
            (tunnel.url, None, tunnel.user_agent, Some(tunnel.waiting))
        } else {
            (self.url.clone(), self.credentials.clone(), USER_AGENT.to_owned(), None)
        };
        let explain = |phase| move |e: retina::Error| self.place.explain(phase, &e);
        let options = SessionOptions::default()
            .creds(credentials)
            .user_agent(user_agent)
            .session_group(self.former.group());
        let port = url.port().unwrap_or(554);
        // Through TLS every packet wakes this process anyway, and each would wait on loopback for the one before it to be
        // acknowledged, which the kernel does late where nobody reads.
        let gathers = self.transport == Transport::Tcp && self.url.scheme() != "rtsps";
        let others = gathers.then(|| gathering::connections(port));
        let mut session = Session::describe(url, options).await.map_err(explain(Phase::Describe))?;
        let (index, decoder) = self.choose_audio(session.streams())?;
        let offered = encoded::choose_video(session.streams());
        *phase = Phase::Setup;
        let setup = || {
            let setup = SetupOptions::default().frame_format(FrameFormat::MP4);
            match self.transport {
                Transport::Tcp => setup,
                Transport::Udp => {
                    setup.transport(retina::client::Transport::Udp(UdpTransportOptions::default()))
                }
            }
        };
        session.setup(index, setup()).await.map_err(explain(Phase::Setup))?;
        let pictures = offered.clone().ok().filter(|_| video);
        if let Some((index, _)) = pictures {
            // Nothing before this was different for the pictures' sake.
            self.pictures.begin(Instant::now());
            session.setup(index, setup()).await.map_err(explain(Phase::Setup))?;
        }
        *phase = Phase::Play;
        // The tracks' times need not be brought together exactly, and not every camera says how.
        let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let session = session.play(options).await.map_err(explain(Phase::Play))?;
        let frames = session.demuxed().map_err(explain(Phase::Play))?;
        let streams = frames.streams();
        let config = streams.get(index).and_then(|s| audio::Track::from(s).aac).unwrap_or_default();
        let mut encoded = Encoded::new(decoder.track(config), pictures, streams);
        // None where another one was closed meanwhile and ours has its number: then it does not wait.
        let socket = others.and_then(|others| gathering::new_connection(port, &others));
        let gathering = Gathering::new(socket, decoder.is_constant());
        let offers_video = offered.is_ok();
        encoded.no_video = offered.err();
        Ok(Playing { gathering, frames, decoder, encoded, offers_video })
    }

    /// A way through TLS, since retina speaks `rtsp://` only.
    async fn tunnel(&self) -> Result<Tunnel, String> {
        if self.transport == Transport::Udp {
            return Err(format!(
                "{}: rtsps:// with \"transport\": \"udp\" would send the audio unencrypted: use \"tcp\"",
                self.place
            ));
        }
        let stream = self.place.connect().await?;
        let stream = tls::connect(stream, self.place.host(), self.fingerprint.as_deref())
            .await
            .map_err(|e| format!("{}: {e}", self.place))?;
        Tunnel::open(stream, &self.url, self.credentials.clone()).await
    }

    /// The first audio track that can be decoded.
    fn choose_audio(&self, streams: &[retina::client::Stream]) -> Result<(usize, AudioDecoder), String> {
        let mut refused = Vec::new();
        for (index, stream) in streams.iter().enumerate().filter(|(_, s)| s.media() == "audio") {
            match AudioDecoder::new(&stream.into()) {
                Ok(decoder) => return Ok((index, decoder)),
                Err(reason) => refused.push(reason),
            }
        }
        if refused.is_empty() {
            return Err(self.place.no_audio(streams.len()));
        }
        Err(format!(
            "{}: {}; set the camera's audio to G.711 (PCMU or PCMA), AAC-LC or L16",
            self.place,
            refused.join(", ")
        ))
    }

    /// Delivers what is heard, until it is over. When pictures are wanted, or no longer, another session takes the place
    /// of this one as soon as there is audio in it: nobody hears less for who looks.
    async fn receive(&self, playing: Playing, link: &SourceLink) -> Failure {
        let mut reception = Reception::new(self, playing, link);
        let mut wishes = link.watch_wishes();
        let mut next: Option<Dialing<'_>> = None;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut without = Without::default();
        reception.tell_tracks().await;
        loop {
            // Nothing to look for: nobody need be woken for it.
            let wished = *wishes.borrow();
            let wanted = reception.playing.offers_video && self.pictures.wanted(wished);
            let looking = wanted || wished.video || reception.playing.encoded.has_video();
            tokio::select! {
                biased;
                item = reception.next() => if let Err(failure) = reception.take(item).await {
                    return failure;
                },
                taken_over = or_never(&mut next) => {
                    next = None;
                    match taken_over {
                        Ok((playing, early)) => {
                            without = Without::default();
                            reception.take_over(playing).await;
                            for item in early {
                                if let Err(failure) = reception.take(Ok(Some(Ok(item)))).await {
                                    return failure;
                                }
                            }
                        }
                        Err(why) if reception.playing.encoded.has_video() => {
                            tracing::info!("{}: another session, without pictures: {why}", self.place);
                            without.failed(Instant::now());
                        }
                        Err(why) => {
                            tracing::info!("{}: pictures: {why}", self.place);
                            self.pictures.failed(&why, Instant::now());
                            reception.tell_tracks().await;
                        }
                    }
                }
                _ = looks.tick(), if looking => {
                    let (now, wished) = (Instant::now(), *wishes.borrow_and_update());
                    let has = reception.playing.encoded.has_video();
                    let more = !has && reception.playing.offers_video && self.pictures.due(wished, now);
                    let less = has && self.pictures.superfluous(wished, now) && without.due(now);
                    if next.is_none() && (more || less) {
                        next = Some(Box::pin(self.play_another(more)));
                    }
                    reception.tell_why_not(wished).await;
                }
                changed = wishes.changed() => match changed {
                    Ok(()) => looks.reset_immediately(),
                    // Nobody has any wishes any more.
                    Err(_) => looks = tokio::time::interval(Duration::from_secs(3600)),
                },
            }
        }
    }

    /// Another session beside the one that plays, and what came in it up to its first audio.
    async fn play_another(&self, video: bool) -> Result<Next, String> {
        let mut phase = Phase::Resolve;
        if video {
            // A second session is had for their sake only.
            self.pictures.begin(Instant::now());
        }
        let mut playing = match timeout(CONNECT, self.play(&mut phase, video)).await {
            Ok(playing) => playing?,
            Err(_) => return Err(self.place.timed_out(phase, CONNECT).await),
        };
        let mut early = Vec::new();
        let due = Instant::now() + STALL;
        loop {
            match timeout_at(due, playing.frames.next()).await {
                Ok(Some(Ok(item @ CodecItem::AudioFrame(_)))) => {
                    early.push(item);
                    return Ok((playing, early));
                }
                Ok(Some(Ok(item))) if early.len() < EARLY => early.push(item),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(e))) if explain::is_of_one_packet(&e) => {}
                Ok(Some(Err(e))) => return Err(self.place.explain(Phase::Receive, &e)),
                Ok(None) => return Err(self.place.closed(None)),
                Err(_) => return Err(self.place.silent(STALL, self.transport)),
            }
        }
    }
}

/// Resolves when there is something to resolve.
async fn or_never(next: &mut Option<Dialing<'_>>) -> Result<Next, String> {
    match next {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
