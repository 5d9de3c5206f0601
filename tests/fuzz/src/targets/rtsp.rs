//! RTSP messages as the TLS tunnel cuts them out of what a camera sends, and what the tunnel makes of them.

use bytes::BytesMut;
use nursery_worker::capture::rtsp::{
    message::{self, Message, Text},
    tunnel::{Answer, Relay},
};

use crate::{
    mutate::Mutator,
    target::{Target, Verdict, one_line, pieces, size, way},
};

const WORDS: &[&str] = &[
    "RTSP/1.0",
    "200",
    "401",
    "OK",
    "\r\n",
    "\r\n\r\n",
    "CSeq: 1",
    "CSeq: 2",
    "Content-Length: 5",
    "$\0\0\u{8}",
    "DESCRIBE",
    "WWW-Authenticate: Basic realm=\"x\"",
    "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\"",
    "algorithm=SHA-256",
    "qop=\"auth\"",
    "stale=true",
    "opaque=\"\"",
];

/// Longest head and body, and what is read at once.
const ROOM_FOR_MESSAGES: usize = 2 << 20;

pub const MESSAGES: Target = Target {
    name: "rtsp-messages",
    about: "RTSP messages and packets in a camera's stream",
    mutator: Mutator::Text,
    words: WORDS,
    longest: 128 << 10,
    memory: |len| 16 * len + ROOM_FOR_MESSAGES,
    seconds: 2.0,
    short: 10_000,
    seeds: Vec::new,
    check: || Box::new(messages),
};

/// Everything in the stream, and how it ends.
fn cut(parts: &[&[u8]]) -> (Vec<Message>, Option<String>, usize) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match message::next(&mut buffer) {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(e) => return (found, Some(e), buffer.len()),
            }
        }
    }
    (found, None, buffer.len())
}

fn messages(input: &[u8]) -> Verdict {
    let (at_once, error, left) = cut(&[input]);
    let (in_pieces, again, _) = cut(&pieces(input, 4));
    if at_once != in_pieces || error.is_some() != again.is_some() {
        return Err(format!("at once: {at_once:?} {error:?}; in pieces: {in_pieces:?} {again:?}"));
    }
    // What passes is what came, without blank lines between.
    let mut rest = input;
    for message in &at_once {
        let bytes = match message {
            Message::Media(packet) => packet.to_vec(),
            Message::Text(text) => text.to_bytes(),
        };
        while rest.first().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            rest = &rest[1..];
        }
        rest =
            rest.strip_prefix(bytes.as_slice()).ok_or_else(|| format!("{message:?} is written otherwise"))?;
    }
    if let Some(error) = &error {
        one_line(error)?;
    }
    let texts = at_once.iter().filter_map(|m| if let Message::Text(t) = m { t.status() } else { None });
    Ok(way((error, size(at_once.len()), size(left), texts.take(3).collect::<Vec<_>>())))
}

pub const TUNNEL: Target = Target {
    name: "rtsp-tunnel",
    about: "a camera's answers, as the TLS tunnel passes them on",
    mutator: Mutator::Text,
    words: WORDS,
    longest: 64 << 10,
    memory: |len| 16 * len + ROOM_FOR_MESSAGES,
    seconds: 2.0,
    short: 10_000,
    seeds: Vec::new,
    check: || Box::new(tunnel),
};

const BASE: &str = "rtsp://127.0.0.1:40000";
const TARGET: &str = "rtsps://camera:8322";

fn request(cseq: usize) -> Result<Text, String> {
    let text = format!("DESCRIBE {BASE}/a?b RTSP/1.0\r\nUser-Agent: token\r\nCSeq: {cseq}\r\n\r\n");
    match message::next(&mut BytesMut::from(text.as_str()))? {
        Some(Message::Text(text)) => Ok(text),
        _ => Err("a request is none".into()),
    }
}

fn tunnel(input: &[u8]) -> Verdict {
    let credentials = credentials();
    let mut relay = Relay::new(BASE.into(), TARGET.into(), "token".into(), Some(credentials));
    let mut client = 1;
    let mut sent = relay.request(request(client)?)?;
    to_camera(&sent)?;
    let (mut repeated, mut ways) = (false, Vec::new());
    let (messages, _, _) = cut(&[input]);
    for message in messages {
        let Message::Text(text) = message else { continue };
        let ours = text.header("CSeq") == sent.header("CSeq");
        match relay.answer(text) {
            Answer::Camera(again) => {
                if repeated {
                    return Err("a request was repeated twice".into());
                }
                repeated = true;
                to_camera(&again)?;
                if again.header("CSeq") == sent.header("CSeq") {
                    return Err("a repeated request has the number of the first".into());
                }
                ways.push(again.header("Authorization").map_or(0, |a| way(a.split(' ').next())));
                sent = again;
            }
            Answer::Client(text) if ours => {
                if text.header("CSeq") != Some(client.to_string().as_str()) {
                    return Err(format!(
                        "the client asked {client} and is answered {:?}",
                        text.header("CSeq")
                    ));
                }
                ways.push(u64::from(text.status().unwrap_or(0)));
                client += 1;
                repeated = false;
                sent = relay.request(request(client)?)?;
                to_camera(&sent)?;
            }
            Answer::Client(_) => ways.push(1),
        }
    }
    ways.truncate(6);
    Ok(way(ways))
}

fn credentials() -> retina::client::Credentials {
    retina::client::Credentials { username: "u".into(), password: "hunter2".into() }
}

/// What goes to the camera is one request to the camera, and shows it the password only where it asks for Basic.
fn to_camera(text: &Text) -> Result<(), String> {
    let mut buffer = BytesMut::from(text.to_bytes().as_slice());
    match message::next(&mut buffer) {
        Ok(Some(Message::Text(again))) if again.to_bytes() == text.to_bytes() && buffer.is_empty() => {}
        other => return Err(format!("{text:?} is understood as {other:?}")),
    }
    let uri = text.request().map(|(_, uri)| uri);
    if !uri.is_some_and(|uri| uri.starts_with(TARGET)) {
        return Err(format!("a request for {uri:?}"));
    }
    if text.to_bytes().windows(7).any(|w| w == b"hunter2") {
        return Err("the password is sent as it is".into());
    }
    Ok(())
}
