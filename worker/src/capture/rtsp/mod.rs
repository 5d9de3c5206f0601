//! Source `rtsp://` and `rtsps://`: one session after another with crate retina, of which only the audio track is
//! set up.

pub mod audio;
mod explain;
pub mod message;
mod tls;
pub mod tunnel;

use std::{
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use futures::StreamExt;
use nursery_shared::config::{CameraConfig, Transport};
use retina::{
    client::{
        Credentials, Demuxed, PlayOptions, Session, SessionGroup, SessionOptions, SetupOptions,
        UdpTransportOptions,
    },
    codec::{CodecItem, FrameFormat},
};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{
    retry::{Attempt, Failure, Outcome, keep_trying},
    source::{SourceEvent, SourceLink},
};
use audio::{AudioDecoder, Decoded};
use explain::{Phase, Place};
use tunnel::Tunnel;

/// For name resolution, connection, DESCRIBE, SETUP and PLAY together.
const CONNECT: Duration = Duration::from_secs(10);

/// Without audio for this long a session is given up; retina itself would wait for ever.
const STALL: Duration = Duration::from_secs(5);

/// For TEARDOWN when this process ends.
const TEARDOWN: Duration = Duration::from_secs(1);

/// Longest wait for sessions over TCP that the server may still hold for us: retina keeps track of them only for
/// servers that are known to mix up old and new connections, for 65 s.
const STALE_TCP: Duration = Duration::from_secs(70);

/// Longest wait for sessions over UDP that the server did not confirm the end of; a new one has ports of its own.
const STALE_UDP: Duration = Duration::from_secs(3);

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
    group: Arc<SessionGroup>,
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
    // Dropping the session has started a TEARDOWN in the background; the server's answer is worth a moment.
    let _ = timeout(TEARDOWN, camera.group.await_teardown()).await;
}

impl Attempt for Camera {
    async fn attempt(&self, link: &SourceLink) -> Outcome {
        Outcome::Failed(self.listen(link).await)
    }
}

/// A session that plays.
struct Playing {
    frames: Demuxed,
    decoder: AudioDecoder,
}

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
        let group = Arc::new(SessionGroup::default().named(config.name.clone()));
        let fingerprint = config.tls_fingerprint.clone();
        Self { url, place, credentials, transport: config.transport, fingerprint, group }
    }

    async fn listen(&self, link: &SourceLink) -> Failure {
        self.wait_out_stale_sessions().await;
        let mut phase = Phase::Resolve;
        let playing = match timeout(CONNECT, self.play(&mut phase)).await {
            Ok(Ok(playing)) => playing,
            Ok(Err(error)) => return Failure::new(error),
            Err(_) => return Failure::new(self.place.timed_out(phase, CONNECT).await),
        };
        link.send(SourceEvent::Connected).await;
        tracing::info!("{}: playing {}", self.place, playing.decoder.describe());
        self.receive(playing, link).await
    }

    /// A server may hold sessions that it did not see the end of; some answer a new one with nothing until
    /// those are gone.
    async fn wait_out_stale_sessions(&self) {
        let stale = self.group.stale_sessions();
        if stale.num_sessions == 0 {
            return;
        }
        let longest = if self.transport == Transport::Udp { STALE_UDP } else { STALE_TCP };
        let left =
            stale.max_expires.map_or(longest, |at| at.saturating_duration_since(Instant::now())).min(longest);
        tracing::info!(
            "{}: waiting up to {:.0} s for the server to forget {} old session(s)",
            self.place,
            left.as_secs_f64(),
            stale.num_sessions
        );
        // Whether they are gone or not, another attempt is due then.
        let _ = timeout(left, self.group.await_stale_sessions(&stale)).await;
    }

    async fn play(&self, phase: &mut Phase) -> Result<Playing, String> {
        self.place.resolve().await?;
        *phase = Phase::Describe;
        let (url, credentials, user_agent) = if self.url.scheme() == "rtsps" {
            let tunnel = self.tunnel().await?;
            (tunnel.url, None, tunnel.user_agent)
        } else {
            (self.url.clone(), self.credentials.clone(), USER_AGENT.to_owned())
        };
        let explain = |phase| move |e: retina::Error| self.place.explain(phase, &e);
        let options = SessionOptions::default()
            .creds(credentials)
            .user_agent(user_agent)
            .session_group(Arc::clone(&self.group));
        let mut session = Session::describe(url, options).await.map_err(explain(Phase::Describe))?;
        let (index, decoder) = self.choose_audio(session.streams())?;
        *phase = Phase::Setup;
        let mut setup = SetupOptions::default().frame_format(FrameFormat::MP4);
        if self.transport == Transport::Udp {
            setup = setup.transport(retina::client::Transport::Udp(UdpTransportOptions::default()));
        }
        session.setup(index, setup).await.map_err(explain(Phase::Setup))?;
        *phase = Phase::Play;
        let session = session.play(PlayOptions::default()).await.map_err(explain(Phase::Play))?;
        let frames = session.demuxed().map_err(explain(Phase::Play))?;
        Ok(Playing { frames, decoder })
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

    async fn receive(&self, mut playing: Playing, link: &SourceLink) -> Failure {
        let mut started = None;
        let mut due = Instant::now() + STALL;
        let (mut errors, mut last_error) = (0, None);
        let fail = |stalled, error, started: Option<StdInstant>| Failure {
            stalled,
            error,
            heard: started.map_or(Duration::ZERO, |s| s.elapsed()),
        };
        loop {
            let item = match timeout_at(due, playing.frames.next()).await {
                Ok(item) => item,
                Err(_) if errors > 0 => {
                    let error = self.place.undecodable(errors, last_error.as_deref());
                    return fail(true, error, started);
                }
                Err(_) => return fail(true, self.place.silent(STALL, self.transport), started),
            };
            let frame = match item {
                Some(Ok(CodecItem::AudioFrame(frame))) => frame,
                Some(Ok(_)) => continue,
                Some(Err(e)) => {
                    let what = explain::first_line(&e);
                    errors += 1;
                    if !explain::is_of_one_packet(&e) || errors >= HOPELESS {
                        if explain::is_corrupt(&e) {
                            link.send(SourceEvent::Corrupt { count: 1, what }).await;
                        }
                        return fail(false, self.place.explain(Phase::Receive, &e), started);
                    }
                    link.send(SourceEvent::Corrupt { count: 1, what: what.clone() }).await;
                    last_error = Some(what);
                    continue;
                }
                None => {
                    let error = self.place.closed(last_error.as_deref());
                    return fail(false, error, started);
                }
            };
            let lost = u64::from(frame.loss());
            if lost > 0 {
                let what = format!("{lost} RTP packet(s) lost");
                link.send(SourceEvent::Corrupt { count: lost, what }).await;
            }
            let mut samples = Vec::new();
            let decoded = playing.decoder.decode(&(&frame).into(), &mut samples);
            if matches!(decoded, Ok(Decoded::AudioAfterShortPacket)) {
                let what = "a packet held less audio than its time".to_owned();
                link.send(SourceEvent::Corrupt { count: 1, what }).await;
            }
            match decoded {
                Ok(Decoded::Audio | Decoded::AudioAfterShortPacket) if samples.is_empty() => {}
                Ok(Decoded::Audio | Decoded::AudioAfterShortPacket) => {
                    started.get_or_insert_with(StdInstant::now);
                    due = Instant::now() + STALL;
                    errors = 0;
                    link.send(SourceEvent::Audio(samples)).await;
                }
                Ok(Decoded::Corrupt(what)) => {
                    errors += 1;
                    link.send(SourceEvent::Corrupt { count: 1, what: what.clone() }).await;
                    last_error = Some(what);
                }
                Err(error) => return fail(false, format!("{}: {error}", self.place), started),
            }
        }
    }
}
