//! Open files and sockets that travel beside frames (SCM_RIGHTS): each goes with the first byte of the frame that it
//! belongs to, so it is there when the frame is whole.

use std::{
    collections::VecDeque,
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors that may wait for their frames; more than that are closed.
const WAITING: usize = 16;
/// Descriptors that one reception takes; the kernel closes the others. A reception never reaches beyond bytes that came
/// with descriptors, and who keeps to the rule sends one with each.
const AT_ONCE: usize = 4;

/// Receives bytes, and puts the descriptors that came with them behind those in `waiting`.
///
/// # Errors
/// As recv(2).
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    waiting: &mut VecDeque<OwnedFd>,
    flags: MsgFlags,
) -> nix::Result<usize> {
    let mut space = nix::cmsg_space!([i32; AT_ONCE]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(numbers) = part else { continue };
        for number in numbers {
            #[allow(
                unsafe_code,
                reason = "what arrives is a number, of which somebody must become the owner"
            )]
            // SAFETY: the kernel has just made it for this process, and nobody else has seen its number.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            if waiting.len() < WAITING {
                waiting.push_back(descriptor);
            }
        }
    }
    Ok(message.bytes)
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
        let received = receive(theirs.as_fd(), &mut [0; 8], &mut waiting, MsgFlags::empty());
        assert!(received.is_err() || waiting.len() <= AT_ONCE, "{received:?}, {}", waiting.len());
    }
}
