//! `rtsps://` for a client that speaks `rtsp://` only: it connects to this process itself, which carries that one connection
//! through TLS to the camera. Requests get the camera's own URL, and authentication is done here,
//! because a Digest response covers that URL.

use std::time::Duration;

use bytes::BytesMut;
use http_auth::{PasswordClient, PasswordParams};
use retina::client::Credentials;
use ring::rand::SecureRandom;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use url::Url;

use super::{
    USER_AGENT,
    entrance::entrance,
    message::{self, Message, Text},
};

/// How long the client may take to connect, right after it was told the address.
const ACCEPT: Duration = Duration::from_secs(5);

/// What the client must know. The tunnel ends with the client's connection, so that its TEARDOWN still passes.
pub struct Tunnel {
    /// What to connect to.
    pub url: Url,
    /// What to call itself, so that nobody else on this host is let in.
    pub user_agent: String,
    /// To be kept until it has connected.
    pub waiting: Waiting,
}

/// The wait for the client; over when dropped, since whoever comes then comes to another tunnel.
pub struct Waiting(AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tunnel {
    /// Offers `camera` (an `rtsps://` URL without user information), reached through `stream`, on loopback.
    pub async fn open(
        stream: TlsStream<TcpStream>,
        camera: &Url,
        credentials: Option<Credentials>,
    ) -> Result<Self, String> {
        let failed = |what: String| format!("cannot open the way to the TLS connection: {what}");
        let entrance = entrance().map_err(|e| failed(e.to_owned()))?;
        let base = format!("rtsp://{}", entrance.address());
        let query = camera.query().map(|q| format!("?{q}")).unwrap_or_default();
        let url =
            Url::parse(&format!("{base}{}{query}", camera.path())).map_err(|e| failed(e.to_string()))?;
        let mut secret = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut secret).map_err(|_| failed("no random numbers".into()))?;
        let user_agent: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let mut target = camera.clone();
        target.set_path("");
        target.set_query(None);
        let target = target.as_str().trim_end_matches('/').to_owned();
        let relay = Relay::new(base, target, user_agent.clone(), credentials);
        let waiting = tokio::spawn(async move {
            let Ok(Ok(client)) = timeout(ACCEPT, entrance.accept()).await else { return };
            tokio::spawn(async move {
                if let Err(e) = relay.run(client, stream).await {
                    tracing::debug!("TLS tunnel: {e}");
                }
            });
        });
        Ok(Self { url, user_agent, waiting: Waiting(waiting.abort_handle()) })
    }
}

/// What is changed in the messages that pass.
pub struct Relay {
    /// What the client puts in front of its paths, and what the camera gets instead.
    base: String,
    target: String,
    user_agent: String,
    credentials: Option<Credentials>,
    auth: Option<PasswordClient>,
    /// Last number that was used towards the camera: repeated requests need numbers of their own.
    cseq: u32,
    pending: Option<Pending>,
}

/// The request that waits for its response.
struct Pending {
    request: Text,
    client_cseq: String,
    cseq: u32,
    authenticated: bool,
}

/// Where a response goes.
pub enum Answer {
    Client(Text),
    /// The request once more, authenticated.
    Camera(Text),
}

impl Relay {
    /// For a client that calls itself `user_agent` and finds at `base` (scheme, host and port) what the camera has at
    /// `target`.
    pub fn new(base: String, target: String, user_agent: String, credentials: Option<Credentials>) -> Self {
        Self { base, target, user_agent, credentials, auth: None, cseq: 0, pending: None }
    }

    /// Until either end is over; then both are closed.
    async fn run(mut self, mut client: TcpStream, camera: TlsStream<TcpStream>) -> Result<(), String> {
        let (mut client_in, mut client_out) = client.split();
        let (mut camera_in, mut camera_out) = tokio::io::split(camera);
        let (mut from_client, mut from_camera) = (BytesMut::new(), BytesMut::new());
        let io = |e: std::io::Error| e.to_string();
        loop {
            tokio::select! {
                n = client_in.read_buf(&mut from_client) => {
                    if n.map_err(io)? == 0 {
                        return Ok(());
                    }
                    while let Some(message) = message::next(&mut from_client)? {
                        let Message::Text(request) = message else { continue };
                        let request = self.request(request)?;
                        camera_out.write_all(&request.to_bytes()).await.map_err(io)?;
                    }
                    camera_out.flush().await.map_err(io)?;
                }
                n = camera_in.read_buf(&mut from_camera) => {
                    if n.map_err(io)? == 0 {
                        return Ok(());
                    }
                    while let Some(message) = message::next(&mut from_camera)? {
                        match message {
                            Message::Media(packet) => client_out.write_all(&packet).await.map_err(io)?,
                            Message::Text(text) => match self.answer(text) {
                                Answer::Client(text) => client_out.write_all(&text.to_bytes()).await.map_err(io)?,
                                Answer::Camera(text) => {
                                    camera_out.write_all(&text.to_bytes()).await.map_err(io)?;
                                    camera_out.flush().await.map_err(io)?;
                                }
                            },
                        }
                    }
                }
            }
        }
    }

    /// A request as the camera shall get it.
    pub fn request(&mut self, mut request: Text) -> Result<Text, String> {
        if request.header("User-Agent") != Some(&self.user_agent) {
            return Err("a stranger has connected".into());
        }
        request.set("User-Agent", USER_AGENT);
        let (method, uri) = request.request().ok_or("the client sent something that is no request")?;
        if let Some(rest) = uri.strip_prefix(&self.base) {
            request.start = format!("{method} {}{rest} RTSP/1.0", self.target);
        }
        let client_cseq = request.header("CSeq").unwrap_or_default().to_owned();
        Ok(self.send(request, client_cseq, false))
    }

    fn send(&mut self, mut request: Text, client_cseq: String, again: bool) -> Text {
        self.cseq += 1;
        request.set("CSeq", &self.cseq.to_string());
        self.authenticate(&mut request);
        self.pending =
            Some(Pending { request: request.clone(), client_cseq, cseq: self.cseq, authenticated: again });
        request
    }

    fn authenticate(&mut self, request: &mut Text) {
        let (Some(auth), Some(credentials), Some((method, uri))) =
            (&mut self.auth, &self.credentials, request.request())
        else {
            return;
        };
        let parameters = PasswordParams {
            username: &credentials.username,
            password: &credentials.password,
            uri,
            method,
            body: Some(&[]),
        };
        match auth.respond(&parameters) {
            Ok(authorization) => request.set("Authorization", &authorization),
            Err(e) => tracing::debug!("TLS tunnel: cannot answer the challenge: {e}"),
        }
    }

    /// What to do with something the camera said.
    pub fn answer(&mut self, mut text: Text) -> Answer {
        let ours = |p: &Pending| text.header("CSeq").is_some_and(|c| c == p.cseq.to_string());
        let Some(pending) = self.pending.take_if(|p| ours(p)) else { return Answer::Client(text) };
        if text.status() == Some(401) && !pending.authenticated && self.credentials.is_some() {
            let challenges = text.headers("WWW-Authenticate");
            let builder = challenges.fold(PasswordClient::builder(), |b, challenge| b.challenges(challenge));
            if let Ok(client) = builder.build() {
                self.auth = Some(client);
                return Answer::Camera(self.send(pending.request, pending.client_cseq, true));
            }
        }
        text.set("CSeq", &pending.client_cseq);
        Answer::Client(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn relay() -> Relay {
        let credentials = Credentials { username: "u".into(), password: "p".into() };
        let (base, target) = ("rtsp://127.0.0.1:40000", "rtsps://camera:8322");
        Relay::new(base.into(), target.into(), "token".into(), Some(credentials))
    }

    fn text(bytes: &str) -> Text {
        match message::next(&mut BytesMut::from(bytes)).unwrap().unwrap() {
            Message::Text(text) => text,
            Message::Media(_) => panic!(),
        }
    }

    const DESCRIBE: &str =
        "DESCRIBE rtsp://127.0.0.1:40000/a?b RTSP/1.0\r\nUser-Agent: token\r\nCSeq: 1\r\n\r\n";
    const UNAUTHORIZED: &str = "RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"n\"\r\n\r\n";

    #[test]
    fn the_camera_gets_its_own_url_and_a_digest_over_it() {
        let mut relay = relay();
        let first = relay.request(text(DESCRIBE)).unwrap();
        assert_eq!(first.start, "DESCRIBE rtsps://camera:8322/a?b RTSP/1.0");
        assert_eq!((first.header("User-Agent"), first.header("Authorization")), (Some(USER_AGENT), None));
        let Answer::Camera(again) = relay.answer(text(UNAUTHORIZED)) else { panic!() };
        let authorization = again.header("Authorization").unwrap();
        assert!(authorization.starts_with("Digest "), "{authorization}");
        assert!(authorization.contains("uri=\"rtsps://camera:8322/a?b\""), "{authorization}");
        assert_eq!(again.header("CSeq"), Some("2"));
        let Answer::Client(ok) = relay.answer(text("RTSP/1.0 200 OK\r\nCSeq: 2\r\n\r\n")) else { panic!() };
        assert_eq!(ok.header("CSeq"), Some("1"));
    }

    #[test]
    fn a_wrong_password_is_refused_once_and_not_tried_for_ever() {
        let mut relay = relay();
        relay.request(text(DESCRIBE)).unwrap();
        assert!(matches!(relay.answer(text(UNAUTHORIZED)), Answer::Camera(_)));
        let Answer::Client(refused) = relay.answer(text(&UNAUTHORIZED.replace("CSeq: 1", "CSeq: 2"))) else {
            panic!()
        };
        assert_eq!((refused.status(), refused.header("CSeq")), (Some(401), Some("1")));
    }

    #[test]
    fn a_stranger_on_this_host_is_not_let_in() {
        assert!(relay().request(text(&DESCRIBE.replace("token", "curl"))).is_err());
    }
}
