//! A receiver of webhooks: a real HTTP server that records what comes, checks the signature, and answers well,
//! badly or not at all.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::{Value, json};

use crate::wait;

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// Not at all, with the connection open.
    Hang,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The header `webhook-id`.
    pub id: String,
    /// The body.
    pub body: Value,
    /// What is wrong with its headers or its signature.
    pub faults: Vec<String>,
    /// The status that it was answered with; `None`: not at all.
    pub answered: Option<u16>,
    /// When it had arrived.
    pub at: Instant,
}

impl Request {
    /// `cry.started` and so on.
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    /// The camera that it is about.
    pub fn camera(&self) -> &str {
        self.body["data"]["camera"].as_str().unwrap_or_default()
    }

    /// The event's id.
    pub fn event_id(&self) -> &str {
        self.body["data"]["event_id"].as_str().unwrap_or_default()
    }

    fn accepted(&self) -> bool {
        self.answered.is_some_and(|s| (200..300).contains(&s))
    }
}

/// A running receiver; gone when dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    address: SocketAddr,
    key: Vec<u8>,
    answer: Mutex<Answer>,
    up: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    requests: Mutex<Vec<Request>>,
}

impl Receiver {
    /// Starts a receiver that says yes.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a loopback port");
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("bound"),
            key: (0..24).map(|_| fastrand::u8(..)).collect(),
            answer: Mutex::new(Answer::Status(204)),
            up: AtomicBool::new(false),
            connections: Mutex::default(),
            requests: Mutex::default(),
        });
        let receiver = Self { shared, accepting: Mutex::new(None) };
        receiver.accept_on(listener);
        receiver
    }

    /// The entry for `alerts` in a configuration.
    pub fn alert(&self) -> Value {
        json!({"type": "webhook", "url": self.url(), "secret": self.secret(), "timeout_s": 3})
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/alert", self.shared.address)
    }

    /// The key of the signatures, as it stands in a configuration.
    pub fn secret(&self) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(&self.shared.key))
    }

    /// From now on requests are answered like this.
    pub fn set_answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Closes the port and all connections.
    pub fn go_down(&self) {
        if self.shared.up.swap(false, Ordering::SeqCst) {
            // Wakes the accepting thread, which then sees that it is over.
            let _ = TcpStream::connect(self.shared.address);
        }
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.join().expect("the accepting thread");
        }
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again on the same port.
    pub fn come_up(&self) {
        let listener = wait::until("the receiver's port to be free again", Duration::from_secs(10), || {
            TcpListener::bind(self.shared.address).ok()
        });
        self.accept_on(listener);
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// What was accepted so far: the first request of each id, in the order of arrival. Panics when a
    /// signature was wrong, or when two requests of one id differ.
    pub fn accepted(&self) -> Vec<Request> {
        let mut first: HashMap<String, Request> = HashMap::new();
        let mut accepted = Vec::new();
        for request in self.requests() {
            assert!(request.faults.is_empty(), "{:?} of {}", request.faults, request.body);
            let earlier = first.entry(request.id.clone()).or_insert_with(|| request.clone());
            assert_eq!(earlier.body, request.body, "two requests with the id {}", request.id);
            if request.accepted() && !accepted.iter().any(|r: &Request| r.id == request.id) {
                accepted.push(request);
            }
        }
        accepted
    }

    /// What was accepted of this kind for this camera.
    pub fn accepted_of(&self, kind: &str, camera: &str) -> Vec<Request> {
        self.accepted().into_iter().filter(|r| r.kind() == kind && r.camera() == camera).collect()
    }

    /// Waits for the first accepted request of this kind for this camera.
    pub fn wait_for(&self, kind: &str, camera: &str, within: Duration) -> Request {
        let found = wait::poll(within, || self.accepted_of(kind, camera).into_iter().next());
        found.unwrap_or_else(|| {
            let came: Vec<_> = self.requests().iter().map(|r| (r.body.clone(), r.answered)).collect();
            panic!("no {kind} of {camera} within {within:?}; what came: {came:?}")
        })
    }

    fn accept_on(&self, listener: TcpListener) {
        self.shared.up.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let accept = move || {
            for stream in listener.incoming() {
                if !shared.up.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut connections = shared.connections.lock().unwrap();
                if let Ok(handle) = stream.try_clone() {
                    connections.push(handle);
                }
                drop(connections);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = shared.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        };
        *self.accepting.lock().unwrap() = Some(std::thread::spawn(accept));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_down();
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let mut reading = BufReader::new(stream);
        loop {
            let Some((first, headers, body)) = read_request(&mut reading)? else { return Ok(()) };
            let answer = *self.answer.lock().unwrap();
            let answered = match answer {
                Answer::Status(status) => Some(status),
                Answer::Hang => None,
            };
            let request = Request {
                id: headers.get("webhook-id").cloned().unwrap_or_default(),
                faults: self.faults(&first, &headers, &body),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                answered,
                at: Instant::now(),
            };
            self.requests.lock().unwrap().push(request);
            match answered {
                Some(status) => {
                    let text = format!("HTTP/1.1 {status} As Told\r\nContent-Length: 0\r\n\r\n");
                    (&*stream).write_all(text.as_bytes())?;
                }
                // Until the client has had enough.
                None => return io::copy(&mut reading, &mut io::sink()).map(|_| ()),
            }
        }
    }

    fn faults(&self, first: &str, headers: &HashMap<String, String>, body: &[u8]) -> Vec<String> {
        let mut faults = Vec::new();
        if !first.starts_with("POST /alert HTTP/1.1") {
            faults.push(format!("request line {first:?}"));
        }
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        if !header("content-type").starts_with("application/json") {
            faults.push(format!("content-type {:?}", header("content-type")));
        }
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        if id.is_empty() || id.contains('.') {
            faults.push(format!("webhook-id {id:?}"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        if timestamp.parse().map_or(true, |t: u64| t.abs_diff(now) > 60) {
            faults.push(format!("webhook-timestamp {timestamp:?}"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let good = header("webhook-signature").split(' ').any(|part| {
            part.strip_prefix("v1,")
                .and_then(|text| BASE64_STANDARD.decode(text).ok())
                .is_some_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
        });
        if !good {
            faults.push(format!("webhook-signature {:?}", header("webhook-signature")));
        }
        faults
    }
}

type Parts = (String, HashMap<String, String>, Vec<u8>);

/// Request line, headers by lower-case name, body; `None` at the end of the connection.
fn read_request(from: &mut impl BufRead) -> io::Result<Option<Parts>> {
    let mut first = String::new();
    if from.take(16 << 10).read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if from.take(16 << 10).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|v: &String| v.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((first.trim_end().to_owned(), headers, body)))
}
