//! Reads RTSP requests off a connection; what a client sends interleaved is skipped.

use std::io::{self, BufRead, Read};

/// One request.
pub struct Request {
    pub method: String,
    pub uri: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// The next request; `None` at the end of the connection.
pub fn read(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    loop {
        match from.fill_buf()?.first() {
            None => return Ok(None),
            Some(b'$') => {
                let mut head = [0; 4];
                from.read_exact(&mut head)?;
                let length = u64::from(u16::from_be_bytes([head[2], head[3]]));
                io::copy(&mut from.take(length), &mut io::sink())?;
            }
            Some(_) => break,
        }
    }
    let first = line(from)?;
    let mut words = first.split(' ');
    let (Some(method), Some(uri)) = (words.next(), words.next()) else {
        return Err(io::Error::other(format!("not a request line: {first:?}")));
    };
    let mut request = Request { method: method.into(), uri: uri.into(), headers: Vec::new() };
    loop {
        let text = line(from)?;
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':') {
            request.headers.push((name.trim().into(), value.trim().into()));
        }
    }
    let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    io::copy(&mut from.take(length), &mut io::sink())?;
    Ok(Some(request))
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    if from.take(16 << 10).read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}
