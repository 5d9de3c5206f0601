//! What a client has not taken yet, within bounds.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
};

/// Bytes of packets that may wait for a client: 2.4 s of PCMU, 3 s of AAC.
const PACKETS: usize = 24 << 10;
/// Bytes of answers beyond that; who asks and does not read gets no more.
const ANSWERS: usize = 16 << 10;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Sent,
    /// It waits, or a part of it.
    Waits,
    /// There was no room.
    Dropped,
}

/// Bytes that wait. Takes no memory before the first of them.
#[derive(Debug, Default)]
pub struct Backlog(VecDeque<u8>);

impl Backlog {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends a packet, or keeps as much as cannot be sent: all of it or, where there is no room, nothing.
    pub fn packet(&mut self, to: &mut impl Write, packet: &[u8]) -> io::Result<Fate> {
        if self.is_empty() {
            let sent = write(to, packet)?;
            if sent == packet.len() {
                return Ok(Fate::Sent);
            }
            if self.0.capacity() == 0 {
                self.0.reserve_exact(PACKETS + ANSWERS);
            }
            // Of a packet that was begun there is always room for the rest.
            if sent > 0 || packet.len() <= PACKETS {
                self.0.extend(&packet[sent..]);
                return Ok(Fate::Waits);
            }
        } else if self.0.len() + packet.len() <= PACKETS {
            self.0.extend(packet);
            return Ok(Fate::Waits);
        }
        Ok(Fate::Dropped)
    }

    /// Sends an answer, or keeps it. An error where the client takes none.
    pub fn answer(&mut self, to: &mut impl Write, text: &[u8]) -> io::Result<()> {
        let sent = if self.is_empty() { write(to, text)? } else { 0 };
        if self.0.len() + text.len() - sent > PACKETS + ANSWERS {
            return Err(io::Error::other("the client asks and does not read"));
        }
        self.0.extend(&text[sent..]);
        Ok(())
    }

    /// Sends what waits, as far as it is taken.
    pub fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            let sent = write(to, self.0.as_slices().0)?;
            if sent == 0 {
                break;
            }
            self.0.drain(..sent);
        }
        Ok(())
    }
}

/// Bytes that were taken; 0 where none are taken now.
fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        return match to.write(bytes) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(n) => Ok(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes.
    #[derive(Default)]
    struct Socket {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_reads_late_gets_whole_packets_in_order_and_the_rest_is_dropped() {
        let (mut backlog, mut socket) = (Backlog::default(), Socket { room: 150, taken: Vec::new() });
        let fates: Vec<Fate> = (0..=255).map(|n| backlog.packet(&mut socket, &[n; 100]).unwrap()).collect();
        assert_eq!(fates[..3], [Fate::Sent, Fate::Waits, Fate::Waits]);
        assert_eq!(fates[255], Fate::Dropped);
        let kept = fates.iter().filter(|f| **f != Fate::Dropped).count();
        backlog.answer(&mut socket, &[255; 100]).unwrap();
        socket.room = usize::MAX;
        backlog.flush(&mut socket).unwrap();
        assert!(backlog.is_empty());
        let whole: Vec<u8> = (0..kept as u8).chain([255]).flat_map(|n| [n; 100]).collect();
        assert_eq!(socket.taken, whole);
        assert_eq!(backlog.packet(&mut socket, &[1; 100]).unwrap(), Fate::Sent);
    }

    #[test]
    fn who_asks_and_does_not_read_gets_no_more() {
        let (mut backlog, mut socket) = (Backlog::default(), Socket::default());
        let refused = (0..1_000).find(|_| backlog.answer(&mut socket, &[0; 100]).is_err());
        assert!(refused.is_some_and(|n| n * 100 <= PACKETS + ANSWERS));
    }
}
