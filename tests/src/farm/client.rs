//! One connection to the farm.

use std::{
    io::{self, ErrorKind, Read},
    net::TcpStream,
};

use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use super::{
    backlog::{Backlog, Fate},
    exchange::Exchange,
    session::Session,
    stream::Stream,
};

/// Bytes that the kernel keeps for a client: as little as a camera's would, so that who does not read is known soon.
const KERNEL: usize = 16 << 10;

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    pub exchange: Exchange,
    pub backlog: Backlog,
    pub session: Option<Session>,
    /// The kernel has been asked to say when it takes more.
    pub wants_room: bool,
}

impl Client {
    /// Of a connection that was just made.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, SndBuf, &KERNEL)?;
        Ok(Self {
            stream,
            exchange: Exchange::default(),
            backlog: Backlog::default(),
            session: None,
            wants_room: false,
        })
    }

    /// Reads what there is. False at the end of the connection.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.exchange.feed(&bytes[..n]);
                    // Whoever sends without end shall not keep the others waiting.
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends the session's next packet, or keeps it. An error ends the connection.
    pub fn send_next(&mut self, prepared: &mut Stream) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let stamp = session.stamp(prepared);
        let packet = prepared.packet(session.next, stamp);
        session.counts.packets += 1;
        session.counts.bytes += packet.len() as u64;
        match self.backlog.packet(&mut self.stream, packet)? {
            Fate::Sent => {}
            Fate::Waits => session.counts.waited += 1,
            Fate::Dropped => session.counts.dropped += 1,
        }
        session.next += 1;
        Ok(())
    }
}
