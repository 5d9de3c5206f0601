//! The client's side of the control socket: one request, one line or many in reply, bounded in time and size.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    time::Duration,
};

use interprocess::{
    local_socket::{ConnectOptions, GenericFilePath, ToFsName, traits::Stream as _},
    os::unix::uds_local_socket::Stream,
};
use nursery_shared::{
    control::{MAX_REPLY, Reply, Request},
    status::Status,
};

use super::Failure;

/// A service that is well answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the service.
pub struct Client {
    stream: BufReader<Stream>,
    patience: Duration,
}

impl Client {
    /// Connects; the failure tells a service that does not run from one that may not be asked.
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let place = path.display();
        let name = path
            .to_fs_name::<GenericFilePath>()
            .map_err(|e| Failure::usage(format!("--control-socket {place}: {e}")))?;
        let stream =
            ConnectOptions::new().name(name).connect_sync_as::<Stream>().map_err(|e| match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Failure::failed(format!("no service at {place} (is `nursery run` running?)"))
                }
                io::ErrorKind::PermissionDenied => Failure::failed(format!(
                    "no permission for {place}: ask as root or as a member of the socket's group"
                )),
                _ => Failure::failed(format!("{place}: {e}")),
            })?;
        let limits = || -> io::Result<()> {
            stream.set_recv_timeout(Some(PATIENCE))?;
            stream.set_send_timeout(Some(PATIENCE))
        };
        limits().map_err(|e| Failure::failed(format!("{place}: {e}")))?;
        Ok(Self { stream: BufReader::new(stream), patience: PATIENCE })
    }

    /// Gives up later: what is asked for takes a while.
    pub fn wait_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.patience = time;
        self.stream.get_ref().set_recv_timeout(Some(time)).map_err(|e| Failure::failed(e.to_string()))
    }

    /// No longer gives up when nothing comes.
    pub fn wait_for_ever(&mut self) -> Result<(), Failure> {
        self.stream.get_ref().set_recv_timeout(None).map_err(|e| Failure::failed(e.to_string()))
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request).map_err(|e| Failure::failed(e.to_string()))?;
        line.push(b'\n');
        let patience = self.patience;
        self.stream.get_mut().write_all(&line).map_err(|e| broken(&e, patience))
    }

    /// The next reply line; `None` when the service has said everything.
    pub fn receive(&mut self) -> Result<Option<Reply>, Failure> {
        let mut line = Vec::new();
        let patience = self.patience;
        (&mut self.stream)
            .take(MAX_REPLY as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|e| broken(&e, patience))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > MAX_REPLY {
            return Err(Failure::failed(format!("the service's reply is longer than {MAX_REPLY} bytes")));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|e| Failure::failed(format!("the service's reply cannot be read: {e}")))
    }

    /// One request, one reply.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.send(request)?;
        self.receive()?.ok_or_else(|| Failure::failed("the service closed the connection without a reply"))
    }
}

fn broken(e: &io::Error, patience: Duration) -> Failure {
    match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Failure::failed(format!("the service did not answer within {} s", patience.as_secs()))
        }
        _ => Failure::failed(format!("connection to the service: {e}")),
    }
}

/// What to say about a reply that is no answer to the request.
pub fn unexpected(reply: &Reply) -> Failure {
    match reply {
        Reply::Error { message } => Failure::failed(message.clone()),
        Reply::Refused { message } => Failure::usage(message.clone()),
        _ => Failure::failed("the service answered something that was not asked"),
    }
}

/// Asks for the status.
pub fn status(path: &Path) -> Result<Status, Failure> {
    match Client::connect(path)?.ask(&Request::Status {})? {
        Reply::Status { status } => Ok(*status),
        other => Err(unexpected(&other)),
    }
}
