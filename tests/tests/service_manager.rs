//! What a service manager hears, on a socket like systemd's: from the supervisor and nobody else, and nothing more
//! from one that stands still.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::IoSliceMut,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, setsockopt, sockopt::PassCred},
    },
};
use nursery_shared::control::{Reply, Request};
use nursery_tests::{
    processes::Process,
    rtsp_camera::{Codec, Credentials, RtspCamera, Scheme, Setup},
    service::{Service, ask, camera, config, nursery},
    slot::Slot,
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

/// A watchdog that wants to be fed so often; the service feeds it twice as often.
const WATCHDOG: Duration = Duration::from_millis(600);

/// The other end of NOTIFY_SOCKET: remembers who said what.
struct Manager {
    socket: UnixDatagram,
    name: String,
    heard: Vec<(u32, String)>,
}

impl Manager {
    fn new(test: &str) -> Self {
        let name = format!("nursery-test-{test}-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        setsockopt(&socket, PassCred, &true).unwrap();
        Self { socket, name: format!("@{name}"), heard: Vec::new() }
    }

    /// The next message, with the process that sent it; `None` when none comes in time.
    fn next(&mut self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        let mut space = nix::cmsg_space!(nix::libc::ucred);
        let received = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::empty(),
            ) {
                Ok(message) => {
                    let sender = message.cmsgs().unwrap().find_map(|c| match c {
                        ControlMessageOwned::ScmCredentials(who) => Some(who.pid() as u32),
                        _ => None,
                    });
                    (message.bytes, sender.expect("a sender"))
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return None,
                Err(e) => panic!("{e}"),
            }
        };
        let text = String::from_utf8(bytes[..received.0].to_vec()).unwrap();
        self.heard.push((received.1, text.clone()));
        Some(text)
    }

    /// The next message that `wanted` likes; the others are passed over.
    fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(text) = self.next(Duration::from_millis(200)).filter(|text| wanted(text)) {
                return text;
            }
        }
        panic!("{what}: not heard; {:#?}", self.heard);
    }

    /// What comes within this time.
    fn listen(&mut self, within: Duration) -> Vec<String> {
        let end = Instant::now() + within;
        let mut all = Vec::new();
        while Instant::now() < end {
            all.extend(self.next(end.saturating_duration_since(Instant::now())));
        }
        all
    }
}

/// A `nursery run` that is not waited for, ended at the end of the test.
struct Run {
    dir: TempDir,
    child: Child,
    process: Process,
    _slot: Slot,
}

impl Run {
    fn start(manager: &Manager, config: &Value, environment: &[(&str, String)]) -> Self {
        let slot = Slot::take();
        let dir = TempDir::new();
        std::fs::write(dir.join("cameras.json"), config.to_string()).unwrap();
        let child = nursery(["run", "--config"])
            .arg(dir.join("cameras.json"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--control-socket")
            .arg(dir.join("control.sock"))
            .env("NOTIFY_SOCKET", &manager.name)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        Self { dir, child, process, _slot: slot }
    }

    fn ask(&self, request: &Request) -> Result<Reply, String> {
        ask(&self.dir.join("control.sock"), request)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGCONT);
        self.process.signal(Signal::SIGTERM);
        if wait::for_exit(&mut self.child, Duration::from_secs(15)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn usec(time: Duration) -> String {
    time.as_micros().to_string()
}

fn fed(messages: &[String]) -> usize {
    messages.iter().filter(|m| *m == "WATCHDOG=1").count()
}

#[test]
fn the_manager_hears_of_start_cameras_crying_reload_and_stop_from_the_supervisor_alone() {
    let mut manager = Manager::new("life");
    let config = config([camera("crib", "synthetic:cry")], []);
    let mut run = Run::start(&manager, &config, &[("WATCHDOG_USEC", usec(WATCHDOG))]);
    manager.wait("READY", |m| m == "READY=1");
    // Nobody is told that it is ready before it answers, with its workers begun.
    let Ok(Reply::Status { status }) = run.ask(&Request::Status {}) else { panic!("no answer after READY") };
    assert_eq!(status.workers.len(), 3, "{:?}", status.workers);
    assert!(status.workers.iter().all(|w| w.pid.is_some()), "{:?}", status.workers);
    let started = &manager.heard[0].1;
    assert!(started.starts_with("EXTEND_TIMEOUT_USEC=") && started.contains("\nSTATUS="), "{started}");

    manager.wait("a live camera", |m| m == "STATUS=1 of 1 cameras live; 1 inference processes");
    manager.wait("crying", |m| m == "STATUS=1 of 1 cameras live; crying: crib; 1 inference processes");

    // The second one is refused: the service goes on as it was.
    for (file, good) in [(config.to_string(), true), ("{".to_owned(), false)] {
        std::fs::write(run.dir.join("cameras.json"), file).unwrap();
        assert_eq!(matches!(run.ask(&Request::Reload {}).unwrap(), Reply::Reloaded { .. }), good);
        let begun = manager.wait("RELOADING", |m| m.starts_with("RELOADING=1\n"));
        let (_, time) = begun.split_once("\nMONOTONIC_USEC=").expect("the time of it");
        assert!(time.parse::<u64>().unwrap() > 0);
        manager.wait("READY after a reload", |m| m == "READY=1");
    }

    for worker in run.process.descendants() {
        let environment = String::from_utf8_lossy(&worker.environment()).into_owned();
        assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    }
    run.process.signal(Signal::SIGTERM);
    let stopping = manager.wait("STOPPING", |m| m.starts_with("STOPPING=1\n"));
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert!(wait::for_exit(&mut run.child, PATIENCE).expect("an end").success());
    manager.listen(Duration::from_millis(50));
    let others: Vec<_> = manager.heard.iter().filter(|(pid, _)| *pid != run.process.pid).collect();
    assert!(others.is_empty(), "not from the supervisor: {others:?}");
}

#[test]
fn the_watchdog_is_fed_while_the_loop_turns_and_not_while_it_stands_still() {
    let mut manager = Manager::new("watchdog");
    let config = config([camera("crib", "synthetic:noise")], []);
    let run = Run::start(&manager, &config, &[("WATCHDOG_USEC", usec(WATCHDOG))]);
    manager.wait("READY", |m| m == "READY=1");
    let healthy = fed(&manager.listen(WATCHDOG * 6));
    assert!(healthy >= 6, "fed {healthy} times in six intervals");
    run.process.signal(Signal::SIGSTOP);
    let stopped = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", run.process.pid)).unwrap();
        text.contains("State:\tT").then_some(())
    };
    wait::until("a stopped supervisor", PATIENCE, stopped);
    // What was on its way.
    while manager.next(Duration::from_millis(1)).is_some() {}
    // Its workers run on, and none of them may feed in its place.
    let frozen = manager.listen(WATCHDOG * 4);
    assert!(frozen.is_empty(), "{frozen:?}");
    run.process.signal(Signal::SIGCONT);
    manager.wait("the watchdog fed again", |m| m == "WATCHDOG=1");
}

#[test]
fn a_watchdog_that_means_another_process_is_not_fed() {
    let mut manager = Manager::new("other");
    let config = config([camera("crib", "synthetic:noise")], []);
    let variables = [("WATCHDOG_USEC", usec(WATCHDOG)), ("WATCHDOG_PID", "1".to_owned())];
    let _run = Run::start(&manager, &config, &variables);
    manager.wait("a live camera", |m| m.starts_with("STATUS=1 of 1 cameras live"));
    manager.listen(WATCHDOG * 3);
    let all: Vec<String> = manager.heard.iter().map(|(_, m)| m.clone()).collect();
    assert_eq!(fed(&all), 0, "{all:?}");
}

#[test]
fn a_manager_that_is_not_there_costs_one_line_on_the_log() {
    let config = config([camera("crib", "synthetic:noise")], []);
    let variables = [("NOTIFY_SOCKET", "/nonexistent/notify"), ("WATCHDOG_USEC", "100000")];
    let mut service = Service::start_with(&config, variables.map(|(n, v)| (n.to_owned(), v.to_owned())));
    service.wait_live(&["crib"]);
    service.must(["reload"]);
    assert!(service.stop().status.success());
    let said: Vec<String> = service.log().into_iter().filter(|l| l.contains("service manager:")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_camera_opens_with_a_password_that_systemd_handed_over() {
    const PASSWORD: &str = "planted-credential-41d7";
    let locked = RtspCamera::with(Setup {
        codec: Codec::L16,
        credentials: Some(Credentials {
            user: "viewer".into(),
            password: PASSWORD.into(),
            scheme: Scheme::Digest,
        }),
        ..Setup::default()
    });
    let credentials = TempDir::new();
    std::fs::write(credentials.join("crib"), format!("{PASSWORD}\n")).unwrap();
    let camera =
        json!({"name": "crib", "source": locked.url(), "username": "viewer", "password": "credential:crib"});
    let directory = credentials.path().display().to_string();
    let service =
        Service::start_with(&config([camera], []), [("CREDENTIALS_DIRECTORY".to_owned(), directory)]);
    service.wait_live(&["crib"]);
    for process in service.process().descendants() {
        let environment = String::from_utf8_lossy(&process.environment()).into_owned();
        assert!(!environment.contains("CREDENTIALS_DIRECTORY"), "{environment}");
    }
    assert!(!service.log().join("\n").contains(PASSWORD));
    let without = service.check();
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(
        said.contains("cameras[0].password: credential:crib: CREDENTIALS_DIRECTORY is not set"),
        "{said}"
    );
    assert_eq!(without.status.code(), Some(2));
}
