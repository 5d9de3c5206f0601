//! A port on loopback at which this process reaches itself, opened before its cage is closed: within it none can be.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

use nix::sys::socket::{SockFlag, accept4};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    sync::Mutex,
};

use super::gathering;

/// The port.
pub struct Entrance {
    listener: TcpListener,
    address: SocketAddr,
    /// One waits at a time.
    turn: Mutex<()>,
}

/// This process's, opened at the first call.
pub fn entrance() -> Result<&'static Entrance, &'static str> {
    static ENTRANCE: OnceLock<Result<Entrance, String>> = OnceLock::new();
    let open = || Entrance::open().map_err(|e| e.to_string());
    ENTRANCE.get_or_init(open).as_ref().map_err(String::as_str)
}

impl Entrance {
    fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, turn: Mutex::default() })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection that this process makes; others are closed.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let _turn = self.turn.lock().await;
        // SAFETY: the listener is borrowed, and so it stays open for longer.
        let listener = unsafe { AsyncFd::register_with_interest(self.listener.as_fd(), Interest::READABLE)? };
        loop {
            let stream = listener.async_io(Interest::READABLE, accept).await?;
            if self.is_ours(&stream) {
                return TcpStream::from_std(stream);
            }
        }
    }

    /// The other end is a socket of this process.
    fn is_ours(&self, stream: &std::net::TcpStream) -> bool {
        let Ok(peer) = stream.peer_addr() else { return false };
        let mut ours = gathering::connections(self.address.port()).into_iter();
        peer.ip() == self.address.ip() && ours.any(|fd| gathering::own_port(fd) == Some(peer.port()))
    }
}

/// Without waiting, here and later, and in one call.
fn accept(listener: &BorrowedFd<'_>) -> io::Result<std::net::TcpStream> {
    let descriptor = accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: it was opened by that call and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Read, process::Command, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn strangers_are_sent_away() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let entrance = Entrance::open().unwrap();
            let knock = format!("exec 3<>/dev/tcp/127.0.0.1/{}; echo; cat <&3", entrance.address().port());
            let mut stranger = Command::new("bash")
                .args(["-c", &knock])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // It is there first.
            stranger.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            let second = Duration::from_secs(1);
            assert!(timeout(second, entrance.accept()).await.is_err(), "a stranger was let in");
            assert!(stranger.wait().unwrap().success());
            // Who waited and gave up is in nobody's way.
            let ours = TcpStream::connect(entrance.address()).await.unwrap();
            let theirs = timeout(second * 10, entrance.accept()).await.unwrap().unwrap();
            assert_eq!(theirs.peer_addr().unwrap(), ours.local_addr().unwrap());
        });
    }
}
