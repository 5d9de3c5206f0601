//! What is wrong with a camera, in words that tell the operator what to do. retina's errors tell the status code
//! and a text; the rest is read from that text's beginning, which the tests pin.

use std::{fmt, time::Duration};

use nursery_shared::config::Transport;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use url::{Host, Url};

/// How long a look at the port may take after a time-out.
const PROBE: Duration = Duration::from_secs(2);

/// Longest text of a server that is repeated.
const LONGEST: usize = 160;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Resolve,
    Describe,
    Setup,
    Play,
    Receive,
}

/// Where the camera is, for messages: host, port and path, never user information.
pub struct Place {
    host: String,
    port: u16,
    path: String,
    is_name: bool,
    credentials: bool,
    transport: Transport,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Place {
    /// `url` without user information; `credentials`: whether there are any.
    pub fn new(url: &Url, credentials: bool, transport: Transport) -> Self {
        let default_port = if url.scheme() == "rtsps" { 322 } else { 554 };
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        };
        Self {
            host,
            port: url.port().unwrap_or(default_port),
            path: url.path().to_owned(),
            is_name: matches!(url.host(), Some(Host::Domain(_))),
            credentials,
            transport,
        }
    }

    /// Host name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A connection to it.
    pub async fn connect(&self) -> Result<TcpStream, String> {
        TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| self.explain_connect(&e.to_string()))
    }

    /// Finds out whether the host's name is known; addresses always are.
    pub async fn resolve(&self) -> Result<(), String> {
        if !self.is_name {
            return Ok(());
        }
        let found = lookup_host((self.host.as_str(), self.port)).await;
        match found.map(|mut addresses| addresses.next()) {
            Ok(Some(_)) => Ok(()),
            _ => Err(format!(
                "{self}: the name {} cannot be resolved: check its spelling and this host's DNS, or use the camera's address",
                self.host
            )),
        }
    }

    /// The time limit passed; looks at the port to tell a dead host from a mute server.
    pub async fn timed_out(&self, phase: Phase, limit: Duration) -> String {
        let limit = limit.as_secs();
        let request = match phase {
            Phase::Resolve => {
                return format!(
                    "{self}: no answer from DNS for {} within {limit} s: check this host's network, or use the camera's address",
                    self.host
                );
            }
            Phase::Describe => "DESCRIBE",
            Phase::Setup => "SETUP",
            Phase::Play | Phase::Receive => "PLAY",
        };
        let connects = timeout(PROBE, TcpStream::connect((self.host.as_str(), self.port))).await;
        if phase == Phase::Describe && !matches!(connects, Ok(Ok(_))) {
            return format!(
                "{self}: no connection within {limit} s: check that the camera is switched on, its address, and firewalls between"
            );
        }
        format!(
            "{self}: accepts connections but did not answer {request} within {limit} s: restart the camera if it stays so"
        )
    }

    /// There is no audio track among `tracks`.
    pub fn no_audio(&self, tracks: usize) -> String {
        format!(
            "{self}: the stream {} has no audio track ({tracks} other track(s)): switch on audio in the camera's settings, or use another stream of it",
            self.path
        )
    }

    /// Connected, but nothing comes.
    pub fn silent(&self, limit: Duration, transport: Transport) -> String {
        let hint = match transport {
            Transport::Udp => "a firewall may drop its datagrams, try \"transport\": \"tcp\"",
            Transport::Tcp => "check that audio is switched on in the camera's settings",
        };
        format!("{self}: connected, but no audio arrived for {} s: {hint}", limit.as_secs())
    }

    /// Audio comes, but none of it can be decoded.
    pub fn undecodable(&self, errors: u32, last: Option<&str>) -> String {
        let last = last.unwrap_or("no reason known");
        format!(
            "{self}: audio arrives, but none of the last {errors} packets could be decoded ({last}): check the camera's audio settings"
        )
    }

    /// The server ended the connection while playing.
    pub fn closed(&self, last_error: Option<&str>) -> String {
        match last_error {
            Some(error) => format!("{self}: the stream ended after corrupt media ({error})"),
            None => format!(
                "{self}: the server closed the connection: it may have restarted, or serve too many viewers"
            ),
        }
    }

    /// What an error of retina means.
    pub fn explain(&self, phase: Phase, error: &retina::Error) -> String {
        if let Some(status) = error.status_code() {
            return self.explain_status(phase, status, &error.to_string());
        }
        let text = first_line(error);
        if let Some(io) = text.strip_prefix("Unable to connect to RTSP server: ") {
            return self.explain_connect(io);
        }
        if text.starts_with("Error reading from RTSP peer") || text.starts_with("Error writing to RTSP peer")
        {
            if text.contains("EOF while expecting response") {
                return format!(
                    "{self}: the server closed the connection instead of answering: check that this port speaks RTSP, and how many viewers the camera allows"
                );
            }
            if text.contains("failed to respond to keepalive") {
                return format!(
                    "{self}: the server stopped answering: it may hang or be cut off from the network"
                );
            }
            return format!("{self}: the connection broke off ({text})");
        }
        if is_corrupt(error) && phase == Phase::Receive {
            return format!(
                "{self}: what the camera sent cannot be read any further, so it is connected to anew"
            );
        }
        if is_corrupt(error) && phase == Phase::Describe {
            return format!("{self}: what answers there does not speak RTSP: check the port");
        }
        format!("{self}: {text}")
    }

    fn explain_status(&self, phase: Phase, status: u16, text: &str) -> String {
        match status {
            401 if self.credentials => {
                format!("{self}: wrong user name or password (401): check the user information of the source")
            }
            401 => format!(
                "{self}: the camera wants a user name and a password (401): add them to the source or as `username` and `password`"
            ),
            403 => format!(
                "{self}: the camera does not allow this user to watch (403): check the user's rights there"
            ),
            404 => format!("{self}: there is no stream {} (404): check the path of the source", self.path),
            454 => format!("{self}: the server lost the session (454)"),
            453 | 503 => format!("{self}: the camera is busy ({status}): it may serve too many viewers"),
            461 => {
                let other = match self.transport {
                    Transport::Tcp => "udp",
                    Transport::Udp => "tcp",
                };
                format!(
                    "{self}: the camera does not offer this transport (461): set \"transport\": \"{other}\""
                )
            }
            // The answer was fine by its status, but not by its content.
            200..300 => {
                let what =
                    text.lines().next().and_then(|l| l.split_once(": ")).map_or(text, |(_, what)| what);
                format!("{self}: cannot use the server's answer ({})", shorten(what))
            }
            _ => {
                let to = match phase {
                    Phase::Resolve | Phase::Describe => "DESCRIBE",
                    Phase::Setup => "SETUP",
                    Phase::Play | Phase::Receive => "PLAY",
                };
                format!("{self}: the server answered {to} with status {status}")
            }
        }
    }

    fn explain_connect(&self, io: &str) -> String {
        if io.contains("refused") {
            return format!(
                "{self}: connection refused: check the port, and that RTSP is switched on in the camera's settings"
            );
        }
        if io.contains("unreachable") || io.contains("No route") {
            return format!("{self}: not reachable from here ({io}): check the address and the network");
        }
        format!("{self}: no connection ({io})")
    }
}

/// True for errors after which the session goes on: one packet was bad, and the connection is fine.
pub fn is_of_one_packet(error: &retina::Error) -> bool {
    error.to_string().contains("\npkt: ")
}

/// True where a packet is not of the source (SSRC) whose packets came before.
pub fn is_of_other_source(error: &retina::Error) -> bool {
    error.to_string().contains("wrong ssrc")
}

/// True where bytes came that are no RTSP.
pub fn is_corrupt(error: &retina::Error) -> bool {
    error.to_string().starts_with("RTSP framing error")
}

/// The first line of an error, without what could disturb a log.
pub fn first_line(error: &retina::Error) -> String {
    shorten(error.to_string().lines().next().unwrap_or_default())
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
