//! RTSP messages as the TLS tunnel sees them: cut out of a byte stream, with a few headers read and changed, and
//! everything else passed on as it came.

use bytes::{Buf, BytesMut};

/// Longest head of a message, and longest body; cameras need a few kilobytes.
const LONGEST_HEAD: usize = 64 << 10;
const LONGEST_BODY: usize = 1 << 20;

/// A message, or a packet of media between messages.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// `$`, channel, length and data, passed on as it is.
    Media(BytesMut),
    Text(Text),
}

/// A request or a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// `DESCRIBE rtsp://… RTSP/1.0` or `RTSP/1.0 200 OK`.
    pub start: String,
    /// Lines as they came, without their ends.
    headers: Vec<String>,
    body: Vec<u8>,
}

/// Takes the next message out of `buffer`; `None` where more bytes are needed.
pub fn next(buffer: &mut BytesMut) -> Result<Option<Message>, String> {
    // Some servers send blank lines between messages.
    let blank = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    buffer.advance(blank);
    match buffer.first() {
        None => Ok(None),
        Some(b'$') => {
            let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
            let length = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
            Ok((buffer.len() >= length).then(|| Message::Media(buffer.split_to(length))))
        }
        Some(_) => next_text(buffer),
    }
}

fn next_text(buffer: &mut BytesMut) -> Result<Option<Message>, String> {
    let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if buffer.len() > LONGEST_HEAD { Err("a message without an end".into()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&buffer[..end]).map_err(|_| "a message that is no text".to_owned())?;
    let mut lines = head.split("\r\n").map(str::to_owned);
    let start = lines.next().unwrap_or_default();
    let mut text = Text { start, headers: lines.collect(), body: Vec::new() };
    let length: usize = match text.header("Content-Length") {
        Some(length) => length.parse().map_err(|_| "a bad Content-Length".to_owned())?,
        None => 0,
    };
    if end > LONGEST_HEAD || length > LONGEST_BODY {
        return Err("a message that is too long".into());
    }
    if buffer.len() < end + 4 + length {
        return Ok(None);
    }
    buffer.advance(end + 4);
    text.body = buffer.split_to(length).to_vec();
    Ok(Some(Message::Text(text)))
}

impl Text {
    /// A header's first value; names are compared without case.
    pub fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All values of a header that may come more than once.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter_map(|line| line.split_once(':'))
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }

    /// Replaces a header, or adds it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push(format!("{name}: {value}"));
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|line| line.split_once(':').is_none_or(|(n, _)| !n.eq_ignore_ascii_case(name)));
    }

    /// Method and URI of a request.
    pub fn request(&self) -> Option<(&str, &str)> {
        let mut words = self.start.split(' ');
        let (method, uri, version) = (words.next()?, words.next()?, words.next()?);
        version.starts_with("RTSP/").then_some((method, uri))
    }

    /// Status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("RTSP/")?.split(' ').nth(1)?.parse().ok()
    }

    /// The bytes that travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.start.clone().into_bytes();
        for line in &self.headers {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(line.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STREAM: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-length: 4\r\n\r\nv=0\n$\x00\x00\x03abc\r\nOPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n";

    #[test]
    fn messages_and_media_are_cut_out_wherever_the_stream_is_split() {
        let mut expected = None;
        for split in 0..STREAM.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in [&STREAM[..split], &STREAM[split..]] {
                buffer.extend_from_slice(part);
                while let Some(message) = next(&mut buffer).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got.len(), 3);
            assert!(buffer.is_empty());
            assert_eq!(expected.get_or_insert_with(|| format!("{got:?}")), &format!("{got:?}"));
        }
    }

    #[test]
    fn what_is_changed_is_changed_and_the_rest_travels_as_it_came() {
        let mut buffer = BytesMut::from(STREAM);
        let Some(Message::Text(mut text)) = next(&mut buffer).unwrap() else { panic!() };
        assert_eq!((text.status(), text.header("CSEQ")), (Some(200), Some("2")));
        text.set("CSeq", "7");
        assert_eq!(text.to_bytes(), b"RTSP/1.0 200 OK\r\ncontent-length: 4\r\nCSeq: 7\r\n\r\nv=0\n");
    }

    #[test]
    fn endless_messages_are_refused() {
        assert!(next(&mut BytesMut::from(&vec![b'x'; LONGEST_HEAD + 1][..])).is_err());
        assert!(
            next(&mut BytesMut::from(&b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n"[..])).is_err()
        );
    }
}
