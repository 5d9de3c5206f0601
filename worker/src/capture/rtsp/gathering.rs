//! Lets audio gather in the kernel until a window can be made of it: a packet that completes nothing need wake nobody.
//! The socket becomes readable when as many bytes are there (SO_RCVLOWAT) as are missing to the end of the window, and a
//! timer lifts that where they do not come. An end of the connection is told of at once, whatever is asked for.

use std::{collections::BTreeSet, os::fd::RawFd, time::Duration};

use nix::libc;
use tokio::time::Instant;

/// Descriptors that a worker may have (`RLIMIT_NOFILE` of its cage).
const DESCRIPTORS: RawFd = 256;

/// Longest wait, in samples of 16 kHz: windows of other models may be longer.
const LONGEST: u64 = 4_000;

/// How much later than the last packet of a window is due it is waited for before the socket is looked at. No less than
/// the 64 ms by which the runtime's timers may wake a process before they are due.
const LATE: Duration = Duration::from_millis(70);

/// After the first audio of a session packets are taken as they come: many cameras send what they have in store.
const SETTLE: Duration = Duration::from_secs(2);

/// Most bytes that are waited for; the kernel has room for several times as many.
const MOST_BYTES: u64 = 24 << 10;

/// Connections of this process to some host's port.
pub fn connections(port: u16) -> BTreeSet<RawFd> {
    (0..DESCRIPTORS).filter(|fd| peer_port(*fd) == Some(port)).collect()
}

/// The one among them that was not there `before`; none where there are several, of which another may be the session's.
pub fn new_connection(port: u16, before: &BTreeSet<RawFd>) -> Option<RawFd> {
    let now = connections(port);
    let mut new = now.difference(before);
    new.next().copied().filter(|_| new.next().is_none())
}

/// What tells the address of a socket, its own or its peer's.
type AddressOf = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn peer_port(fd: RawFd) -> Option<u16> {
    port(fd, libc::getpeername)
}

/// This end's port of a connection.
pub fn own_port(fd: RawFd) -> Option<u16> {
    port(fd, libc::getsockname)
}

fn port(fd: RawFd, address_of: AddressOf) -> Option<u16> {
    // SAFETY: zeros are a valid value of it.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address and its length are there for as long as the call takes, and it writes no more than that; a
    // number that is no socket is an error.
    let outcome = unsafe { address_of(fd, std::ptr::from_mut(&mut address).cast(), &mut length) };
    let family = i32::from(address.sin6_family);
    // The port of a `sockaddr_in` is in the same place.
    (outcome == 0 && [libc::AF_INET, libc::AF_INET6].contains(&family))
        .then(|| u16::from_be(address.sin6_port))
}

/// What is known of one session's packets, and what the socket waits for.
pub struct Gathering {
    socket: Option<RawFd>,
    /// Bytes of the stream that the socket waits for now; 0: not known yet.
    threshold: i32,
    /// Samples (16 kHz) and bytes of a packet, of late.
    samples: f32,
    bytes: f32,
    /// Packets are all of one size.
    exact: bool,
    /// When the first audio came.
    since: Option<Instant>,
    /// Something came since it was decided how long to wait.
    fresh: bool,
    /// When to look although fewer bytes have come; `None` where whatever comes is taken.
    look: Option<Instant>,
}

impl Gathering {
    /// `socket`: the session's connection, as long as the session lasts; none: packets are taken as they come. `exact`:
    /// its packets are all of one size.
    pub fn new(socket: Option<RawFd>, exact: bool) -> Self {
        Self { socket, threshold: 0, samples: 0.0, bytes: 0.0, exact, since: None, fresh: false, look: None }
    }

    /// A packet of so many bytes of the connection became so many samples (silence before it is none of them).
    pub fn came(&mut self, bytes: usize, samples: usize, now: Instant) {
        self.since.get_or_insert(now);
        self.fresh = true;
        let first = self.samples == 0.0;
        let follow = |mean: &mut f32, value: f32| *mean += if first { value } else { (value - *mean) / 16.0 };
        follow(&mut self.samples, samples as f32);
        follow(&mut self.bytes, bytes as f32);
    }

    /// Nothing is there: lets the socket wait for what is missing to the end of a window. `missing`: in samples of
    /// 16 kHz; `None`: for whatever comes. Returns when to call [`lift`](Self::lift) although nothing has come.
    pub fn wait(&mut self, missing: Option<u64>, now: Instant) -> Option<Instant> {
        let settled = self.since.is_some_and(|since| now - since >= SETTLE);
        let Some(missing) = missing.filter(|_| settled && self.samples >= 1.0) else {
            self.lift();
            return None;
        };
        if std::mem::take(&mut self.fresh) {
            let missing = missing.min(LONGEST);
            let packets = (missing as f32 / self.samples).ceil();
            // Sizes that vary come to less now and then; who looks too early looks again.
            let share = if self.exact { 1.0 } else { 0.9 };
            let bytes = (packets * self.bytes * share) as u64;
            let wait = packets >= 2.0 && self.set(bytes.clamp(1, MOST_BYTES) as i32);
            self.look = wait.then(|| now + Duration::from_micros(missing * 125 / 2) + LATE);
            if !wait {
                self.lift();
            }
        }
        self.look
    }

    /// From now on whatever comes is taken at once.
    pub fn lift(&mut self) {
        self.look = None;
        self.set(1);
    }

    fn set(&mut self, threshold: i32) -> bool {
        let Some(socket) = self.socket else { return false };
        if self.threshold != threshold {
            // SAFETY: the value is there for as long as the call takes, and as long as is said. The session, which lasts
            // longer than this, has the socket open; another's would at worst wait for more than it must.
            let outcome = unsafe {
                libc::setsockopt(
                    socket,
                    libc::SOL_SOCKET,
                    libc::SO_RCVLOWAT,
                    std::ptr::from_ref(&threshold).cast(),
                    size_of_val(&threshold) as libc::socklen_t,
                )
            };
            if outcome != 0 {
                // It is none that can wait.
                self.socket = None;
                return false;
            }
            self.threshold = threshold;
        }
        true
    }
}

impl Drop for Gathering {
    /// The session says goodbye then, and the answer is short.
    fn drop(&mut self) {
        self.lift();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd,
    };

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// Waits until there is something to read, at most so long.
    fn is_readable(socket: &TcpStream, milliseconds: u16) -> bool {
        use std::os::fd::AsFd;
        let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut sockets, PollTimeout::from(milliseconds)).unwrap() > 0
    }

    /// A connection, found by its port, whose packets of 172 bytes hold 20 ms.
    fn connect() -> (TcpStream, TcpStream, Gathering, Instant) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connections(port).is_empty());
        let ours = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        assert_eq!(new_connection(port, &BTreeSet::new()), Some(ours.as_raw_fd()));
        assert_eq!(new_connection(port, &connections(port)), None);
        let another = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(new_connection(port, &BTreeSet::new()), None);
        assert_eq!(new_connection(port, &BTreeSet::from([another.as_raw_fd()])), Some(ours.as_raw_fd()));
        let mut gathering = Gathering::new(Some(ours.as_raw_fd()), true);
        let begun = Instant::now();
        for n in 0..200 {
            gathering.came(172, 320, begun + Duration::from_millis(20) * n);
        }
        (ours, theirs, gathering, begun + Duration::from_secs(4))
    }

    #[test]
    fn packets_wake_when_a_window_is_complete_and_the_end_of_the_connection_at_once() {
        let (mut ours, mut theirs, mut gathering, now) = connect();
        let look = gathering.wait(Some(1_000), now).unwrap();
        // Four packets, which last longer than the 62.5 ms.
        assert!((look - now).as_millis() >= 62 && (look - now).as_millis() < 200);
        theirs.write_all(&[0; 3 * 172 + 171]).unwrap();
        assert!(!is_readable(&ours, 100), "it wakes too early");
        theirs.write_all(&[0]).unwrap();
        assert!(is_readable(&ours, 10_000));
        let mut bytes = [0; 2_000];
        assert_eq!(ours.read(&mut bytes).unwrap(), 4 * 172);
        gathering.came(172, 320, now);
        assert!(gathering.wait(Some(4_000), now).is_some());
        drop(theirs);
        assert!(is_readable(&ours, 10_000), "nobody is told of the end");
    }

    #[test]
    fn what_does_not_come_is_not_waited_for() {
        let (ours, mut theirs, mut gathering, now) = connect();
        assert!(gathering.wait(Some(4_000), now).is_some());
        theirs.write_all(&[0; 172]).unwrap();
        assert!(!is_readable(&ours, 100), "it wakes too early");
        gathering.lift();
        assert!(is_readable(&ours, 10_000));
        // It stays so until something has come.
        assert!(gathering.wait(Some(4_000), now).is_none());
    }

    #[test]
    fn who_lets_go_of_a_session_hears_the_answer_to_goodbye() {
        let (ours, mut theirs, mut gathering, now) = connect();
        assert!(gathering.wait(Some(4_000), now).is_some());
        theirs.write_all(&[0; 80]).unwrap();
        assert!(!is_readable(&ours, 100), "it wakes too early");
        drop(gathering);
        assert!(is_readable(&ours, 10_000));
    }

    #[test]
    fn what_another_session_left_at_a_socket_of_this_number_is_lifted() {
        let (ours, mut theirs, mut former, now) = connect();
        assert!(former.wait(Some(4_000), now).is_some());
        std::mem::forget(former);
        let mut gathering = Gathering::new(Some(ours.as_raw_fd()), true);
        assert!(gathering.wait(None, now).is_none());
        theirs.write_all(&[0]).unwrap();
        assert!(is_readable(&ours, 10_000));
    }

    #[test]
    fn nobody_waits_in_haste_or_at_the_beginning_or_for_the_last_packet() {
        let (ours, mut theirs, mut gathering, now) = connect();
        assert!(gathering.wait(None, now).is_none());
        assert!(gathering.wait(Some(320), now).is_none());
        let mut new = Gathering::new(Some(ours.as_raw_fd()), true);
        assert!(new.wait(Some(4_000), now).is_none());
        new.came(172, 320, now);
        assert!(new.wait(Some(4_000), now).is_none());
        theirs.write_all(&[0]).unwrap();
        assert!(is_readable(&ours, 10_000));
    }
}
