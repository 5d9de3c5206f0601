//! `nursery-worker sink` as a process at the end of a real socket pair, with a real HTTP receiver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{TempDir, WORKER, Worker};
use nursery_shared::{
    config::DetectionConfig,
    control::STORE_DIRECTORY,
    message::{CameraDetection, FromWorker, Record, RecordKind, SetAside, SinkConfig, ToWorker},
    pcm::Pcm,
    secret::Secret,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const STEP_US: u32 = 40_000;
const HOP_US: i64 = 500_000;

/// What a receiver got: webhook-id and body, in order.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// An HTTP receiver on a port of its own; answers 500 while `refuses` is set.
struct Receiver {
    url: String,
    received: Received,
    refuses: Arc<AtomicBool>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (received, refuses) = (Received::default(), Arc::new(AtomicBool::new(false)));
        let (r, f) = (Arc::clone(&received), Arc::clone(&refuses));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (r, f) = (Arc::clone(&r), Arc::clone(&f));
                std::thread::spawn(move || serve(stream, &r, &f));
            }
        });
        Self { url, received, refuses }
    }

    fn all(&self) -> Vec<(String, Value)> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, received: &Received, refuses: &AtomicBool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut length, mut id) = (0, String::new());
        loop {
            let mut line = String::new();
            if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                return;
            }
            let Some((name, value)) = line.split_once(':') else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "webhook-id" => id = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let status = if refuses.load(Ordering::SeqCst) {
            "500 No"
        } else {
            received.lock().unwrap().push((id, serde_json::from_slice(&body).unwrap()));
            "204 Thanks"
        };
        if write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn configuration(dir: &Path, receivers: &[&Receiver]) -> ToWorker {
    let alerts = receivers
        .iter()
        .map(|r| serde_json::from_value(serde_json::json!({"type": "webhook", "url": r.url})).unwrap())
        .collect();
    ToWorker::ConfigureSink(SinkConfig {
        run: 1,
        state_dir: dir.to_str().unwrap().to_owned(),
        alerts,
        detection: DetectionConfig { min_duration_s: 0.6, cooldown_s: 2.0, ..DetectionConfig::default() },
        cameras: Vec::new(),
        heartbeat: None,
        clips: Default::default(),
        keep_days: 30,
    })
}

/// One hop of scores; hop `n` of a camera.
fn scores(camera: &str, n: i64, probability: f32) -> Record {
    let count = HOP_US / i64::from(STEP_US) + 1;
    Record {
        camera: camera.to_owned(),
        what: RecordKind::Scores {
            start_us: 1_800_000_000_000_000 + n * HOP_US,
            step_us: STEP_US,
            values: vec![probability; count as usize],
            level_dbfs: -30.0,
            arrived_us: 0,
        },
    }
}

/// For each camera cries of three seconds, ten seconds apart, the cameras mixed.
fn a_night(cameras: &[&str], cries: i64) -> Vec<Record> {
    let hops = cries * 26;
    let mut records = Vec::new();
    for n in 0..hops {
        for camera in cameras {
            records.push(scores(camera, n, if n % 26 < 6 { 0.95 } else { 0.02 }));
        }
    }
    records
}

fn acknowledged(message: &FromWorker) -> Option<u64> {
    if let FromWorker::Ack { up_to } = message { Some(*up_to) } else { None }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Sends all records to one sink process and waits for the last acknowledgement.
fn send_all(sink: &mut Worker, records: &[Record]) {
    for (seq, record) in records.iter().enumerate() {
        sink.send(&ToWorker::Record { seq: seq as u64, record: record.clone() });
    }
    let last = records.len() as u64 - 1;
    sink.wait_for(|m| acknowledged(&m).filter(|up_to| *up_to == last));
}

fn drain(mut sink: Worker) {
    sink.send(&ToWorker::Drain);
    assert!(sink.finish().1.success());
}

#[test]
fn a_sink_that_is_killed_again_and_again_loses_nothing_and_announces_nothing_twice() {
    let (dir, receiver) = (TempDir::new(), Receiver::start());
    let cameras = ["a", "b", "c"];
    let cries = 6;
    let records = a_night(&cameras, cries);
    let ToWorker::ConfigureSink(mut config) = configuration(dir.path(), &[&receiver]) else { unreachable!() };
    // What is kept is asked for here; the bar that follows a camera is not, and learns its sounds again.
    config.detection.adaptive = false;
    let configure = ToWorker::ConfigureSink(config);
    let mut rng = fastrand::Rng::with_seed(11);
    // What the supervisor's ledger does: keep what is not acknowledged, send it again to the next process.
    let (mut done, mut kills) = (0, 0);
    while done < records.len() {
        let mut sink = Worker::start("sink", &configure);
        let end = (done + rng.usize(20..120)).min(records.len());
        for (i, record) in records[done..end].iter().enumerate() {
            sink.send(&ToWorker::Record { seq: (done + i) as u64, record: record.clone() });
        }
        // Killed after a random one of its acknowledgements, or after the last.
        let stop_at = rng.u64(done as u64..end as u64);
        let mut up_to = sink.wait_for(|m| acknowledged(&m).filter(|n| *n >= stop_at));
        for message in sink.kill() {
            up_to = acknowledged(&message).unwrap_or(up_to);
        }
        done = up_to as usize + 1;
        kills += 1;
    }
    assert!(kills > 4, "{kills}");
    let last = Worker::start("sink", &configure);
    let wanted = cameras.len() * cries as usize * 2;
    let ids = |all: &[(String, Value)]| all.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    wait_until("every alert has arrived", || ids(&receiver.all()).len() >= wanted);
    drain(last);
    let all = receiver.all();
    assert_eq!(ids(&all).len(), wanted, "no alert has two ids");
    for camera in cameras {
        let mut seen = BTreeSet::new();
        let first_time: Vec<&Value> = all
            .iter()
            .filter(|(id, body)| body["data"]["camera"] == camera && seen.insert(id.clone()))
            .map(|(_, body)| body)
            .collect();
        let kinds: Vec<&str> = first_time.iter().map(|b| b["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["cry.started", "cry.ended"].repeat(cries as usize), "in order");
        let times: Vec<&str> = first_time.iter().map(|b| b["data"]["onset"].as_str().unwrap()).collect();
        assert!(times.is_sorted());
        for pair in first_time.chunks(2) {
            assert_eq!(pair[0]["data"]["event_id"], pair[1]["data"]["event_id"]);
        }
        // Cries of 3 s every 13 s: the minute before the end of one holds five at most.
        let sustained: Vec<&Value> = first_time.iter().map(|b| &b["data"]["sustained_s"]).collect();
        let expected = [0.6, 3.0, 3.6, 6.0, 6.6, 9.0, 9.6, 12.0, 12.6, 15.0, 12.6, 15.0];
        assert_eq!(
            sustained,
            expected.map(Value::from).iter().collect::<Vec<_>>(),
            "nothing of it is forgotten"
        );
    }
}

#[test]
fn a_refusing_receiver_gets_each_cameras_alerts_in_order_when_it_is_back_and_another_does_not_wait_for_it() {
    let (dir, refusing, good) = (TempDir::new(), Receiver::start(), Receiver::start());
    refusing.refuses.store(true, Ordering::SeqCst);
    let mut sink = Worker::start("sink", &configuration(dir.path(), &[&refusing, &good]));
    send_all(&mut sink, &a_night(&["a", "b"], 3));
    wait_until("the other receiver has everything", || good.all().len() == 12);
    assert!(refusing.all().is_empty());
    let failing = sink.wait_for(|m| match m {
        FromWorker::Deliveries(report) if report.pending == 12 && report.delivered == 12 => Some(report),
        _ => None,
    });
    assert!(failing.failing_since_us.is_some());
    assert!(failing.last_error.unwrap().contains("answered 500"));
    refusing.refuses.store(false, Ordering::SeqCst);
    wait_until("the refusing receiver has everything", || refusing.all().len() == 12);
    let by_camera = |r: &Receiver| -> BTreeMap<String, Vec<String>> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, body) in r.all() {
            map.entry(body["data"]["camera"].as_str().unwrap().to_owned()).or_default().push(id);
        }
        map
    };
    assert_eq!(by_camera(&refusing), by_camera(&good), "same ids, same order");
    sink.wait_for(|m| match m {
        FromWorker::Deliveries(report) => {
            (report.pending == 0 && report.failing_since_us.is_none()).then_some(())
        }
        _ => None,
    });
    drain(sink);
}

#[test]
fn a_store_that_cannot_be_written_costs_time_and_nothing_else() {
    let (dir, receiver) = (TempDir::new(), Receiver::start());
    let configure = configuration(dir.path(), &[&receiver]);
    drain(Worker::start("sink", &configure));
    let mut sink = Worker::start("sink", &configure);
    sink.wait_for(|m| (m == FromWorker::Ready).then_some(()));
    let other = rusqlite::Connection::open(dir.path().join("nursery.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let records = a_night(&["a"], 1);
    for (seq, record) in records.iter().enumerate() {
        sink.send(&ToWorker::Record { seq: seq as u64, record: record.clone() });
    }
    // It says what is wrong, goes on reporting, and acknowledges nothing of what needs storing.
    let mut reports = 0;
    sink.wait_for(|m| match m {
        FromWorker::Deliveries(report) => {
            reports += u32::from(report.last_error.is_some_and(|e| e.contains("locked")));
            (reports >= 2).then_some(())
        }
        FromWorker::Event { .. } => panic!("an event that is not stored was shown"),
        _ => None,
    });
    other.execute_batch("COMMIT").unwrap();
    let last = records.len() as u64 - 1;
    sink.wait_for(|m| acknowledged(&m).filter(|n| *n == last));
    wait_until("both alerts have arrived", || receiver.all().len() == 2);
    drain(sink);
}

#[test]
fn other_settings_for_a_camera_hold_from_the_next_record_on() {
    let dir = TempDir::new();
    let configure = |threshold: f64, sustained_s: f64| {
        let ToWorker::ConfigureSink(mut config) = configuration(dir.path(), &[]) else { unreachable!() };
        // One bar for all that follows: what was heard before would move it.
        config.detection.adaptive = false;
        let own = DetectionConfig { threshold, sustained_s, ..config.detection };
        config.cameras = vec![CameraDetection { camera: "a".into(), detection: own }];
        ToWorker::ConfigureSink(config)
    };
    let mut sink = Worker::start("sink", &configure(0.8, 0.0));
    let (mut seq, mut hop) = (0, 0);
    // Crying of `seconds` at a probability of 0.6 on both cameras, then calm; what came of it.
    let mut cry = |sink: &mut Worker, seconds: i64| {
        for n in 0..seconds * 2 + 20 {
            for camera in ["a", "b"] {
                let probability = if n < seconds * 2 { 0.6 } else { 0.02 };
                sink.send(&ToWorker::Record { seq, record: scores(camera, hop, probability) });
                seq += 1;
            }
            hop += 1;
        }
        let (mut events, mut all_stored) = (Vec::new(), false);
        sink.wait_for(|m| match m {
            FromWorker::Event { json } => {
                let event: Value = serde_json::from_str(&json).unwrap();
                events.push(format!("{} {}", event["data"]["camera"], event["type"]).replace('"', ""));
                None
            }
            FromWorker::Ack { up_to } => {
                all_stored = up_to == seq - 1;
                None
            }
            // What was stored is told after its acknowledgement and before the next report of deliveries.
            FromWorker::Deliveries(_) => all_stored.then_some(()),
            _ => None,
        });
        events.sort();
        events
    };
    let of = |cameras: &[&str]| -> Vec<String> {
        cameras.iter().flat_map(|c| [format!("{c} cry.ended"), format!("{c} cry.started")]).collect()
    };
    assert_eq!(cry(&mut sink, 3), of(&["b"]), "0.6 is below the camera's own threshold");
    sink.send(&configure(0.55, 0.0));
    assert_eq!(cry(&mut sink, 3), of(&["a", "b"]));
    sink.send(&configure(0.55, 20.0));
    assert_eq!(cry(&mut sink, 3), of(&["b"]), "three seconds are not lasting crying");
    assert_eq!(cry(&mut sink, 25), of(&["a", "b"]));
    drain(sink);
}

#[test]
fn stored_events_are_printed_as_json_lines_and_as_a_table() {
    let dir = TempDir::new();
    let events = |more: &[&str]| {
        let out = Command::new(WORKER)
            .args(["events", "--state-dir", dir.path().to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, out, err) = events(&[]);
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "no store yet: {err}");
    let store = dir.path().join(STORE_DIRECTORY);
    std::fs::create_dir(&store).unwrap();
    let mut sink = Worker::start("sink", &configuration(&store, &[]));
    send_all(&mut sink, &a_night(&["a", "b"], 2));
    // While the service runs.
    let (code, out, _) = events(&["--json"]);
    let bodies: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((code, bodies.len()), (Some(0), 8));
    assert!(bodies.iter().all(|b| b["data"]["label"] == "baby_cry"));
    assert!(bodies.iter().all(|b| b["data"]["sustained_s"].as_f64().is_some_and(|s| s >= 0.6)), "{out}");
    assert_eq!(events(&["--json", "--camera", "a"]).1.lines().count(), 4);
    assert_eq!(events(&["--json", "--camera", "nobody"]).1, "");
    assert_eq!(events(&["--json", "--since", "2099-01-01T00:00:00Z"]).1, "");
    assert_eq!(events(&["--since", "yesterday-ish"]).0, Some(2));
    let table = events(&[]).1;
    assert_eq!(table.lines().count(), 9);
    assert!(table.lines().all(|l| l.chars().count() <= 100), "{table}");
    drain(sink);
}

#[test]
fn a_window_that_was_set_aside_is_kept_and_listed_and_can_be_listened_to() {
    let dir = TempDir::new();
    let store = dir.path().join(STORE_DIRECTORY);
    std::fs::create_dir(&store).unwrap();
    let mut sink = Worker::start("sink", &configuration(&store, &[]));
    let window = |n: u64| Record {
        camera: "hall".into(),
        what: RecordKind::SetAside(SetAside {
            window: n,
            end_us: 1_800_000_000_000_000 + n as i64,
            pcm: Pcm::from_f32(&[0.25; 4_000]),
            state: vec![7; 100].into(),
            deaths: vec!["infer:0: signal 11".into(), "infer:1: signal 6".into()],
        }),
    };
    send_all(&mut sink, &[scores("hall", 0, 0.1), window(1), window(2)]);
    drain(sink);
    let list = |more: &[&str]| {
        let out = Command::new(WORKER)
            .args(["quarantine", "--state-dir", dir.path().to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let lines: Vec<Value> = list(&["--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["camera"], &lines[1]["window"]), (&"hall".into(), &2.into()));
    assert_eq!(lines[0]["deaths"], serde_json::json!(["infer:0: signal 11", "infer:1: signal 6"]));
    assert_eq!(std::fs::read(lines[0]["state"].as_str().unwrap()).unwrap(), [7; 100]);
    let audio = lines[0]["audio"].as_str().unwrap();
    let table = list(&[]);
    assert!(table.contains("signal 6") && table.contains(&format!("nursery detect {audio}")), "{table}");
    let heard = Command::new(WORKER).args(["detect", "--curve", "-", audio]).output().unwrap();
    assert!(heard.status.success(), "{}", String::from_utf8_lossy(&heard.stderr));
    assert_eq!(String::from_utf8_lossy(&heard.stdout).lines().count(), 5, "a quarter of a second");
}

#[test]
fn the_heartbeat_is_called_and_called_again_after_a_failure() {
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/ping/token", listener.local_addr().unwrap());
    let ToWorker::ConfigureSink(mut config) = configuration(dir.path(), &[]) else { unreachable!() };
    config.heartbeat = Some(Secret::new(url));
    let mut sink = Worker::start("sink", &ToWorker::ConfigureSink(config));
    for status in ["204 Thanks", "500 No", "200 OK"] {
        // One that comes while another is still on its way is passed over.
        let stream = loop {
            sink.send(&ToWorker::Heartbeat);
            sink.wait_for(|m| matches!(m, FromWorker::Deliveries(_)).then_some(()));
            if let Ok((stream, _)) = listener.accept() {
                break stream;
            }
        };
        stream.set_nonblocking(false).unwrap();
        let mut lines = BufReader::new(&stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "GET /ping/token HTTP/1.1");
        assert!(lines.map_while(Result::ok).any(|line| line.is_empty()), "the end of the header");
        write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    }
    drain(sink);
}
