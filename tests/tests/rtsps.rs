//! A camera that is reached through TLS, within the cage that a capture process has anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    thread,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use nursery_shared::{config::CameraConfig, media::FromCapture, message::FromWorker};
use nursery_tests::{
    bare_worker::{self, BareWorker, configure_capture},
    rtsp_camera::{Codec, Credentials, RtspCamera, Scheme, Setup, film},
    skip,
    traced::Traced,
    wait,
};
use nursery_worker::cage::{policy::Policy, roles::Plan};
use rustls::{ServerConfig, ServerConnection, crypto, pki_types::PrivateKeyDer};

/// A way to a camera through TLS, until the test ends.
struct TlsFront {
    address: SocketAddr,
    /// SHA-256 of its certificate, in hex.
    fingerprint: String,
}

impl TlsFront {
    fn before(camera: &RtspCamera) -> Self {
        let camera: SocketAddr =
            camera.url().trim_start_matches("rtsp://").trim_end_matches("/live").parse().unwrap();
        let made = rcgen::generate_simple_self_signed(["camera".to_owned()]).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, made.cert.der());
        let fingerprint = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                // Either side may end it.
                thread::spawn(move || carry(client?, TcpStream::connect(camera)?, tls));
            }
        });
        Self { address, fingerprint }
    }

    /// A camera that is behind it.
    fn camera(&self, rest: &str) -> CameraConfig {
        bare_worker::crib(
            &format!("rtsps://{}/live", self.address),
            &format!(r#", "tls_fingerprint": "{}"{rest}"#, self.fingerprint),
        )
    }
}

fn carry(mut client: TcpStream, mut camera: TcpStream, mut tls: ServerConnection) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut bytes = [0; 16 << 10];
    loop {
        let mut sockets = [&client, &camera].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        poll(&mut sockets, PollTimeout::NONE)?;
        let [from_client, from_camera] = sockets.map(|socket| socket.any().unwrap_or(true));
        if from_client {
            if tls.read_tls(&mut client)? == 0 {
                return Ok(());
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            while let Ok(count @ 1..) = tls.reader().read(&mut bytes) {
                camera.write_all(&bytes[..count])?;
            }
        }
        if from_camera {
            let count = camera.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            tls.writer().write_all(&bytes[..count])?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
    }
}

#[test]
fn it_is_heard_with_the_calls_that_are_listed_and_packets_gather_only_without_tls() {
    let crib = RtspCamera::start(Codec::Pcmu);
    for (camera, tls) in
        [(TlsFront::before(&crib).camera(""), true), (bare_worker::crib(&crib.url(), ""), false)]
    {
        let mut worker = Traced::start("capture", &configure_capture(&camera));
        // Packets would gather from two seconds of audio on.
        for _ in 0..16 {
            worker.wait_for(|m| matches!(m, FromWorker::Window(_)).then_some(()));
        }
        let (status, calls) = worker.drain();
        assert_eq!(status, Some(0));
        // Who waits for the end of a window on the way through TLS waits for the kernel's acknowledgements.
        assert_eq!(calls.contains(&libc::SYS_setsockopt), !tls, "{:?}", camera.source.redacted());
        if tls {
            let plan = Plan::capture(&camera, &camera.source.parse().unwrap());
            assert!(plan.lists.contains(&"tls"));
            let rules = Policy::read(&["tls"]).unwrap().rules;
            let superfluous: Vec<_> =
                rules.iter().filter(|r| !r.rare && !calls.contains(&r.number)).map(|r| r.call).collect();
            assert!(superfluous.is_empty(), "on the list, but never made: {superfluous:?}");
        }
    }
    wait::until("both sessions to end", wait::PATIENCE, || (crib.count("TEARDOWN") == 2).then_some(()));
}

#[test]
fn it_is_seen_too_and_asked_for_a_password() {
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let credentials = Credentials { user: "viewer".into(), password: "right".into(), scheme: Scheme::Digest };
    let crib =
        RtspCamera::with(Setup { film: Some(film), credentials: Some(credentials), ..Setup::default() });
    let camera = TlsFront::before(&crib).camera(r#", "username": "viewer", "password": "right""#);
    let mut worker = BareWorker::start("capture", &configure_capture(&camera));
    while !matches!(worker.receive(), FromWorker::Window(_)) {}
    let said = worker.read_on();
    // Another session beside the first.
    let mut media = worker.connect();
    media.want(true);
    media.wait_for(|m| if let FromCapture::Tracks(t) = m { t.video } else { None });
    wait::until("the former session to end", wait::PATIENCE, || (crib.playing() == 1).then_some(()));
    let windows = |said: &[FromWorker]| said.iter().filter(|m| matches!(m, FromWorker::Window(_))).count();
    let before = windows(&said.lock().unwrap());
    wait::until("more windows", wait::PATIENCE, || {
        (windows(&said.lock().unwrap()) > before + 4).then_some(())
    });
    assert_eq!((crib.most_playing(), crib.connected()), (2, 2));
}
