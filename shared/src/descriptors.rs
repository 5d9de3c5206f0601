//! Open files and sockets that travel beside frames (SCM_RIGHTS): each goes with the first byte of the frame that it
//! belongs to, so it is there when the frame is whole.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::{offset_of, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};

/// Descriptors that may wait for their frames; more than that are closed.
const WAITING: usize = 16;
/// Descriptors that one reception takes; the kernel closes the others. A reception never reaches beyond bytes that came
/// with descriptors, and who keeps to the rule sends one with each.
const AT_ONCE: usize = 4;

/// One control message with as many descriptors.
#[repr(C)]
struct Control {
    head: libc::cmsghdr,
    numbers: [i32; AT_ONCE],
}

impl Control {
    fn new() -> Self {
        Self { head: libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 }, numbers: [-1; AT_ONCE] }
    }

    /// Those that the kernel made for this process, of which it now is the owner, also where there were more than had
    /// room.
    fn take(&self, filled: usize) -> impl Iterator<Item = OwnedFd> {
        let length = self.head.cmsg_len.min(filled);
        let is_rights = (self.head.cmsg_level, self.head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let count = length.saturating_sub(offset_of!(Control, numbers)) / size_of::<i32>();
        let numbers = self.numbers.iter().take(if is_rights { count } else { 0 });
        #[allow(unsafe_code, reason = "what arrives is a number, of which somebody must become the owner")]
        // SAFETY: the kernel has just made it for this process, and nobody else has seen its number.
        numbers.map(|number| unsafe { OwnedFd::from_raw_fd(*number) })
    }
}

/// Receives bytes, and puts the descriptors that came with them behind those in `waiting`.
///
/// # Errors
/// As recv(2); ENOBUFS where more descriptors came at once than one reception takes: all of them are closed.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    waiting: &mut VecDeque<OwnedFd>,
    flags: MsgFlags,
) -> nix::Result<usize> {
    let mut control = Control::new();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    #[allow(unsafe_code, reason = "nix leaves descriptors open whose control message was cut")]
    // SAFETY: a header of zeros is one without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    #[allow(unsafe_code, reason = "as above")]
    // SAFETY: the header points to bytes and to room for a control message that outlive the call, with their lengths.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags.bits()) };
    let received = Errno::result(received)?;
    let arrived = control.take(message.msg_controllen as usize);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        arrived.for_each(drop);
        return Err(Errno::ENOBUFS);
    }
    for descriptor in arrived {
        if waiting.len() < WAITING {
            waiting.push_back(descriptor);
        }
    }
    Ok(received as usize)
}

/// Sends bytes, and a descriptor with the first of them. Where any are sent the descriptor is.
///
/// # Errors
/// As send(2); ETOOMANYREFS where too many descriptors are on their way.
pub fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
    flags: MsgFlags,
) -> nix::Result<usize> {
    let rights = [descriptor.as_raw_fd()];
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&rights)], flags, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn each_descriptor_is_there_when_its_frame_is_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ends = Vec::new();
        for n in 0..3u8 {
            let (near, far) = UnixStream::pair().unwrap();
            (&ours).write_all(b"plain").unwrap();
            assert_eq!(send_with(ours.as_fd(), &[n; 4], far.as_fd(), MsgFlags::empty()).unwrap(), 4);
            ends.push(near);
        }
        drop(ours);
        let (mut got, mut waiting) = (Vec::new(), VecDeque::new());
        let mut bytes = [0; 64];
        loop {
            match receive(theirs.as_fd(), &mut bytes, &mut waiting, MsgFlags::empty()).unwrap() {
                0 => break,
                n => got.extend_from_slice(&bytes[..n]),
            }
            assert!(waiting.len() >= got.len() / 9);
        }
        assert_eq!(got, b"plain\0\0\0\0plain\x01\x01\x01\x01plain\x02\x02\x02\x02");
        for (mut near, far) in ends.into_iter().zip(waiting) {
            UnixStream::from(far).write_all(b"x").unwrap();
            let mut text = String::new();
            near.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x");
        }
    }

    #[test]
    fn a_flood_of_descriptors_is_bounded() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut waiting = VecDeque::new();
        for _ in 0..100 {
            send_with(ours.as_fd(), b"x", ours.as_fd(), MsgFlags::empty()).unwrap();
            receive(theirs.as_fd(), &mut [0; 8], &mut waiting, MsgFlags::empty()).unwrap();
        }
        assert_eq!(waiting.len(), WAITING);
        // As many as one message may hold, in one message.
        waiting.clear();
        let many = [ours.as_raw_fd(); 200];
        let parts = [IoSlice::new(b"x")];
        let rights = [ControlMessage::ScmRights(&many)];
        sendmsg::<()>(ours.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        // The control message that did not fit is cut, and what it held is closed.
        let socket = ours.as_fd().try_clone_to_owned().unwrap();
        drop(ours);
        let received = receive(theirs.as_fd(), &mut [0; 8], &mut waiting, MsgFlags::empty());
        assert_eq!((received, waiting.len()), (Err(Errno::ENOBUFS), 0));
        drop(socket);
        // Nobody holds the other end any more, so it is closed for this one.
        assert_eq!(receive(theirs.as_fd(), &mut [0; 8], &mut waiting, MsgFlags::empty()), Ok(0));
    }
}
