//! Whoever floods, stalls, hangs or kills the page's process harms the page for a moment, and no alert.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use nursery_shared::status::Status;
use nursery_tests::{
    audio,
    http::{Client, free_port, read_response},
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config, find_worker},
    wait::{PATIENCE, until},
};
use serde_json::json;

/// Connections of somebody who asks for nothing.
const IDLE: usize = 2_000;
/// How long somebody who is slow is waited for, at the most: 10 s for a header and as long for a body.
const SLOW: Duration = Duration::from_secs(25);

fn ready(client: &Client) {
    until("the page is there", PATIENCE, || {
        client.try_request("GET", "/readyz", "").ok().filter(|r| r.status == 200)
    });
}

fn restarts_of_others(status: &Status) -> u64 {
    status.workers.iter().filter(|w| w.name != "web").map(|w| w.restarts).sum()
}

fn memory(status: &Status) -> u64 {
    find_worker(status, "web").rss_bytes
}

/// What somebody gets who sends this, and how long it takes until the other side has enough.
fn send(client: &Client, bytes: &[u8], drip: Option<Duration>) -> (Option<u16>, Duration) {
    let start = Instant::now();
    let mut stream = client.connect().unwrap();
    stream.set_read_timeout(Some(SLOW * 2)).unwrap();
    match drip {
        None => drop(stream.write_all(bytes)),
        Some(pause) => {
            for byte in bytes {
                if stream.write_all(&[*byte]).is_err() || start.elapsed() > SLOW * 2 {
                    break;
                }
                std::thread::sleep(pause);
            }
        }
    }
    let mut reader = BufReader::new(stream);
    let status = read_response(&mut reader, false).ok().map(|r| r.status);
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    (status, start.elapsed())
}

#[test]
fn what_is_too_large_too_slow_or_elsewhere_is_refused_and_two_thousand_idle_connections_keep_nobody_out() {
    let port = free_port();
    let mut config = config([camera("crib", "synthetic:noise")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "password": "open sesame"});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let client = Client::new(port);
    ready(&client);
    let inside = client.log_in("open sesame");
    let page = service.process_of("web");
    // Elsewhere: there are no files here.
    for path in [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/app.js/../../etc/passwd",
        "/app.js%00",
        "/.git/config",
        "/api/../app.js",
        "/API/STATUS",
        "/api/status/",
        "/\\..\\etc\\passwd",
    ] {
        let answer = inside.try_request("GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains("root:"), "{path}");
    }
    // Too large.
    let host = "Host: localhost\r\n";
    let post = "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let long = "x".repeat(1 << 20);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (request, expected) in [
        (format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{host}{many}\r\n"), 431),
        (format!("{post}Content-Length: 1048576\r\n\r\n{long}"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n100000\r\n{long}\r\n0\r\n\r\n"), 413),
        (format!("{post}Content-Length: 99999999999999999999\r\n\r\n"), 400),
        ("\u{0}\u{1}\u{2} what is this\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
    ] {
        let (status, took) = send(&client, request.as_bytes(), None);
        // Who is still sending may lose the answer with the connection.
        assert!(
            status.is_none_or(|s| s == expected || (expected == 414 && s == 431)),
            "{expected}: {status:?}"
        );
        assert!(took < SLOW, "{expected}: {took:?}");
    }
    // Too slow, both at once.
    let drips = [
        (format!("GET / HTTP/1.1\r\n{host}X: {}", "y".repeat(10_000)), None),
        (format!("{post}Content-Length: 4000\r\n\r\n{}", "z".repeat(4_000)), Some(408)),
    ];
    let slow = drips.map(|(text, expected)| {
        let client = client.clone();
        let drip = Some(Duration::from_millis(100));
        std::thread::spawn(move || (send(&client, text.as_bytes(), drip), expected))
    });
    for thread in slow {
        let ((status, took), expected) = thread.join().unwrap();
        // Who is still sending may lose the answer with the connection.
        assert!(status.is_none() || status == Some(408), "{status:?} instead of {expected:?}");
        assert!(took < SLOW, "{expected:?}: {took:?}");
    }
    // Two thousand who say nothing.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(8_192).min(hard), hard).unwrap();
    }
    let before = service.status();
    let mut idle: Vec<TcpStream> = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..IDLE {
        idle.push(TcpStream::connect(client.address).unwrap());
        if n % 100 == 99 {
            let start = Instant::now();
            assert_eq!(inside.get("/api/status").status, 200, "after {n} connections");
            slowest = slowest.max(start.elapsed());
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", page.pid)).unwrap().count();
            assert!(descriptors < 1024, "{descriptors}");
        }
    }
    let figures = inside.get("/metrics").text();
    let figure = |name: &str| -> f64 {
        let line = figures.lines().find(|l| l.starts_with(&format!("{name} "))).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (open, evicted) =
        (figure("nursery_web_connections"), figure("nursery_web_connections_evicted_total"));
    assert!(open <= 660.0 && evicted >= 1_300.0, "{open} open, {evicted} evicted");
    let after = service.status();
    let grown = memory(&after).saturating_sub(memory(&before));
    eprintln!(
        "FIGURE {IDLE} idle connections: {open} kept, memory +{} KiB, slowest answer {} ms",
        grown >> 10,
        slowest.as_millis()
    );
    assert!(grown < 16 << 20, "{grown}");
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    drop(idle);
    assert_eq!(service.process_of("web"), page, "it lives through all of it");
    let status = service.status();
    assert_eq!(restarts_of_others(&status), 0);
    service.wait_windows("crib", 8);
}

#[test]
fn no_alert_is_later_for_a_page_that_is_killed_hangs_or_is_flooded() {
    let port = free_port();
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let mut config = config([camera("crib", crib.url())], [receiver.alert()]);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    config["supervision"] = json!({"healthy_after_s": 0});
    config["detection"] = json!({"end_after_s": 1, "cooldown_s": 0, "adaptive": false});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    let client = Client::new(port);
    ready(&client);
    let mut bout = 0;
    let mut cry = || {
        let start = Instant::now();
        crib.microphone().play(&audio::cry(3.0));
        bout += 1;
        until("the alert of a cry and of its end", PATIENCE, || {
            (receiver.accepted_of("cry.ended", "crib").len() == bout).then_some(())
        });
        let alert =
            receiver.accepted_of("cry.started", "crib").last().cloned().expect("a cry before its end");
        alert.at.saturating_duration_since(start)
    };
    let calm: Vec<Duration> = (0..3).map(|_| cry()).collect();
    // Killed again and again.
    let over = AtomicBool::new(false);
    let killed: Vec<Duration> = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let pid = service.status().workers.iter().find(|w| w.name == "web").and_then(|w| w.pid);
                if let Some(process) = pid.and_then(nursery_tests::processes::Process::of) {
                    process.signal(Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let killed = (0..3).map(|_| cry()).collect();
        over.store(true, Ordering::Relaxed);
        killed
    });
    let deaths = service.worker("web").restarts;
    assert!(deaths >= 5, "{deaths}");
    // Flooded by many who ask without end, some of whom never read.
    ready(&client);
    over.store(false, Ordering::Relaxed);
    let flooded: Vec<Duration> = std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = client.try_request("GET", "/api/events?limit=200", "");
                }
            });
        }
        let deaf: Vec<_> = (0..32).filter_map(|_| client.stream("/api/stream").ok()).collect();
        let flooded = (0..2).map(|_| cry()).collect();
        over.store(true, Ordering::Relaxed);
        drop(deaf);
        flooded
    });
    // Hangs.
    let page = service.process_of("web");
    page.signal(Signal::SIGSTOP);
    let hung = vec![cry()];
    service.wait_replaced("web", page);
    let worst = |all: &[Duration]| all.iter().max().copied().unwrap_or_default();
    eprintln!(
        "FIGURE alerts after {:?} in peace, {:?} with the page killed {deaths} times, {:?} flooded, {:?} hung",
        worst(&calm),
        worst(&killed),
        worst(&flooded),
        worst(&hung)
    );
    for (what, times) in [("killed", &killed), ("flooded", &flooded), ("hung", &hung)] {
        // What differs between two cries in peace, and a little for a busy machine.
        let allowed = worst(&calm) + Duration::from_millis(1_000);
        assert!(worst(times) <= allowed, "{what}: {times:?}, in peace {calm:?}");
    }
    assert_eq!(restarts_of_others(&service.status()), 0);
    let started = receiver.accepted_of("cry.started", "crib").len();
    assert_eq!(started, bout, "every cry once");
}
