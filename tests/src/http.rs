//! A client for HTTP that says exactly what it is told to, well-formed or not, and a reader of server-sent events.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    listener.local_addr().expect("its address").port()
}

/// A server, and what is said to it with every request.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in small letters.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// A header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Client {
    /// Of a server on this host.
    pub fn new(port: u16) -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), headers: Vec::new() }
    }

    /// The same, saying one thing more.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name.to_owned(), value.to_owned()));
        other
    }

    /// A connection with time limits.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let own: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let named = self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host"));
        let host = if named { String::new() } else { format!("Host: {}\r\n", self.address) };
        format!("{method} {path} HTTP/1.1\r\n{host}{own}{more}\r\n")
    }

    /// One request on a connection of its own.
    pub fn try_request(&self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let mut stream = self.connect()?;
        let more = match method {
            "POST" => format!("Connection: close\r\nContent-Length: {}\r\n", body.len()),
            _ => "Connection: close\r\n".to_owned(),
        };
        stream.write_all(self.head(method, path, &more).as_bytes())?;
        // A server may have said no before it has read everything.
        let _ = stream.write_all(body.as_bytes());
        read_response(&mut BufReader::new(stream), method == "HEAD")
    }

    /// The same where an answer is sure to come.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Response {
        self.try_request(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, "")
    }

    /// Logs in; a client that has the cookie.
    pub fn log_in(&self, password: &str) -> Self {
        let body = serde_json::json!({ "password": password }).to_string();
        let answer = self.with("Content-Type", "application/json").request("POST", "/api/login", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let cookie = answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        self.with("Cookie", &cookie)
    }

    /// Opens a stream of events.
    pub fn stream(&self, path: &str) -> io::Result<EventStream> {
        let stream = self.connect()?;
        (&stream).write_all(self.head("GET", path, "Accept: text/event-stream\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader)?;
        let kind = headers.get("content-type").cloned().unwrap_or_default();
        if status != 200 || kind != "text/event-stream" {
            return Err(io::Error::other(format!("status {status}, {kind}")));
        }
        Ok(EventStream { reader: BufReader::new(Chunked { inner: reader, left: 0 }) })
    }
}

impl Client {
    /// Asks for something on a connection, and leaves the answer there.
    pub fn ask(&self, stream: &mut TcpStream, path: &str) -> io::Result<()> {
        stream.write_all(self.head("GET", path, "").as_bytes())
    }

    /// Opens a camera's live media.
    pub fn live(&self, path: &str) -> io::Result<LiveStream> {
        let stream = self.connect()?;
        (&stream).write_all(self.head("GET", path, "").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader)?;
        let kind = headers.get("content-type").cloned().unwrap_or_default();
        if status != 200 || kind != "application/octet-stream" {
            return Err(io::Error::other(format!("status {status}, {kind}")));
        }
        Ok(LiveStream { reader: Chunked { inner: reader, left: 0 } })
    }
}

/// A record of live media.
#[derive(Debug, Clone)]
pub struct LiveRecord {
    pub kind: u8,
    pub time_us: i64,
    pub content: Vec<u8>,
    /// When it had arrived.
    pub at: Instant,
}

impl LiveRecord {
    /// The content as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Live media as it comes.
pub struct LiveStream {
    reader: Chunked<BufReader<TcpStream>>,
}

impl LiveStream {
    /// The next record; an error where the stream has ended or nothing came for long.
    pub fn try_next(&mut self) -> io::Result<LiveRecord> {
        let mut head = [0; 13];
        self.reader.read_exact(&mut head)?;
        let [a, b, c, d, kind, time @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let mut content = vec![0; length.saturating_sub(9)];
        self.reader.read_exact(&mut content)?;
        Ok(LiveRecord { kind, time_us: i64::from_le_bytes(time), content, at: Instant::now() })
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, HashMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no answer: {line:?}")))?;
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return Ok((status, headers)),
        };
    }
}

/// Reads an answer to its end.
pub fn read_response(reader: &mut impl BufRead, head_only: bool) -> io::Result<Response> {
    let (status, headers) = read_head(reader)?;
    let mut body = Vec::new();
    match headers.get("content-length").and_then(|n| n.parse().ok()) {
        _ if head_only => {}
        Some(length) => {
            reader.take(length).read_to_end(&mut body)?;
        }
        None => {
            Chunked { inner: reader, left: 0 }.read_to_end(&mut body)?;
        }
    }
    Ok(Response { status, headers, body })
}

/// A body in chunks.
struct Chunked<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            self.inner.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.inner.read_line(&mut line)?;
            }
            self.left = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// One of the server's events.
#[derive(Debug, Clone)]
pub struct ServerEvent {
    pub id: Option<i64>,
    pub kind: String,
    pub data: Value,
    /// When it had arrived.
    pub at: Instant,
}

/// Events as they come.
pub struct EventStream {
    reader: BufReader<Chunked<BufReader<TcpStream>>>,
}

impl EventStream {
    /// The next event; an error where the stream has ended or nothing came for long.
    pub fn try_next(&mut self) -> io::Result<ServerEvent> {
        let (mut id, mut kind, mut data) = (None, String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("id", value)) => id = value.parse().ok(),
                Some(("event", value)) => kind = value.to_owned(),
                Some(("data", value)) => data += value,
                Some(_) => {}
                None if kind.is_empty() => {}
                None => {
                    let data =
                        serde_json::from_str(&data).map_err(|e| io::Error::other(format!("{e}: {data}")))?;
                    return Ok(ServerEvent { id, kind, data, at: Instant::now() });
                }
            }
        }
    }

    /// The next event that is wanted; panics where none comes within the time.
    pub fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&ServerEvent) -> bool,
    ) -> ServerEvent {
        let end = Instant::now() + within;
        while Instant::now() < end {
            let event = self.try_next().unwrap_or_else(|e| panic!("{what}: {e}"));
            if wanted(&event) {
                return event;
            }
        }
        panic!("{what}: not within {within:?}");
    }
}
