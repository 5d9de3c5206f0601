//! RTSP between a client and the farm: bytes in, answers out, and what the client wants after them.

use std::io;

use super::{session::Camera, stream::Kind};
use crate::rtsp_camera::request::{self, Request};

/// Longest head of a request.
const MAX_HEAD: usize = 16 << 10;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To hear this camera on this channel; the answer waits for the session's numbers.
    Play { camera: Camera, channel: u8 },
    /// To hear it no longer.
    Stop,
}

/// What is known of a client.
#[derive(Debug, Default)]
pub struct Exchange {
    input: Vec<u8>,
    track: Option<(Camera, u8)>,
    sequence: String,
    uri: String,
}

const SESSION: &str = "Session: fa43;timeout=60\r\n";
const TRACK: &str = "audio";

impl Exchange {
    /// Takes in what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Handles the next request, if it is whole: its answer is appended to `out`. An error ends the connection.
    /// `describe` gives the session description of a kind that there is.
    pub fn next(
        &mut self,
        out: &mut Vec<u8>,
        describe: impl Fn(Kind, &str) -> Option<String>,
    ) -> io::Result<Option<Option<Wish>>> {
        let Some(request) = self.take_request()? else { return Ok(None) };
        self.sequence = request.header("cseq").unwrap_or("0").to_owned();
        let wish = match request.method.as_str() {
            "OPTIONS" => {
                let methods = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n";
                self.reply(out, "200 OK", methods, "");
                None
            }
            "DESCRIBE" => {
                let text = camera_of(&request.uri).and_then(|camera| describe(camera.kind, TRACK));
                match text {
                    Some(text) => {
                        let base = request.uri.trim_end_matches('/');
                        let headers = format!("Content-Type: application/sdp\r\nContent-Base: {base}/\r\n");
                        self.reply(out, "200 OK", &headers, &text);
                    }
                    None => self.reply(out, "404 Not Found", "", ""),
                }
                None
            }
            "SETUP" => {
                self.set_up(&request, out, describe);
                None
            }
            // The answer needs what the session begins with.
            "PLAY" => match self.track {
                Some((camera, channel)) => {
                    self.uri = request.uri.trim_end_matches('/').to_owned();
                    Some(Wish::Play { camera, channel })
                }
                None => {
                    self.reply(out, "455 Method Not Valid in This State", "", "");
                    None
                }
            },
            "GET_PARAMETER" | "SET_PARAMETER" => {
                self.reply(out, "200 OK", SESSION, "");
                None
            }
            "TEARDOWN" => {
                self.track = None;
                self.reply(out, "200 OK", SESSION, "");
                Some(Wish::Stop)
            }
            _ => {
                self.reply(out, "501 Not Implemented", "", "");
                None
            }
        };
        Ok(Some(wish))
    }

    /// The answer to PLAY.
    pub fn playing(&self, out: &mut Vec<u8>, sequence: u16, timestamp: u32) {
        let info = format!(
            "{SESSION}Range: npt=0.000-\r\nRTP-Info: url={}/{TRACK};seq={sequence};rtptime={timestamp}\r\n",
            self.uri
        );
        self.reply(out, "200 OK", &info, "");
    }

    fn set_up(
        &mut self,
        request: &Request,
        out: &mut Vec<u8>,
        describe: impl Fn(Kind, &str) -> Option<String>,
    ) {
        let camera = request.uri.strip_suffix(TRACK).and_then(camera_of);
        let Some(camera) = camera.filter(|camera| describe(camera.kind, TRACK).is_some()) else {
            return self.reply(out, "404 Not Found", "", "");
        };
        let wanted = request.header("transport").unwrap_or_default();
        if !wanted.contains("RTP/AVP/TCP") {
            return self.reply(out, "461 Unsupported Transport", "", "");
        }
        let channel = wanted
            .split(';')
            .find_map(|part| part.trim().strip_prefix("interleaved=")?.split('-').next()?.parse().ok())
            .unwrap_or(0)
            // The next one is for reports.
            .min(254);
        self.track = Some((camera, channel));
        let transport =
            format!("{SESSION}Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n", channel + 1);
        self.reply(out, "200 OK", &transport, "");
    }

    fn reply(&self, out: &mut Vec<u8>, status: &str, headers: &str, body: &str) {
        let (sequence, length) = (&self.sequence, body.len());
        let text = format!(
            "RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        out.extend_from_slice(text.as_bytes());
    }

    /// The next whole request; what the client sends interleaved (receiver reports) is passed over.
    fn take_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            match self.input.first() {
                None => return Ok(None),
                Some(b'$') => {
                    let Some(head) = self.input.get(..4) else { return Ok(None) };
                    let length = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
                    if self.input.len() < length {
                        return Ok(None);
                    }
                    self.input.drain(..length);
                }
                Some(_) => break,
            }
        }
        let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else {
            return match self.input.len() > MAX_HEAD {
                true => Err(io::Error::other("a request without end")),
                false => Ok(None),
            };
        };
        let request = request::read(&mut &self.input[..end + 4])?;
        let Some(request) = request else { return Ok(None) };
        let body: usize = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        if body > MAX_HEAD {
            return Err(io::Error::other("a request with a large body"));
        }
        if self.input.len() < end + 4 + body {
            return Ok(None);
        }
        self.input.drain(..end + 4 + body);
        Ok(Some(request))
    }
}

/// `rtsp://HOST/KIND/NUMBER`, with or without a slash at the end.
fn camera_of(uri: &str) -> Option<Camera> {
    let (_, path) = uri.strip_prefix("rtsp://")?.split_once('/')?;
    let (kind, number) = path.trim_end_matches('/').split_once('/')?;
    Some(Camera { kind: kind.parse().ok()?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(exchange: &mut Exchange, text: &str) -> (String, Option<Wish>) {
        let mut out = Vec::new();
        // However it is cut into pieces.
        let mut wish = None;
        for byte in text.as_bytes() {
            exchange.feed(&[*byte]);
            if let Some(found) = exchange.next(&mut out, |_, track| Some(format!("a={track}\r\n"))).unwrap() {
                wish = found;
            }
        }
        (String::from_utf8(out).unwrap(), wish)
    }

    #[test]
    fn a_client_gets_as_far_as_play_over_tcp_and_no_other_way() {
        let mut exchange = Exchange::default();
        let base = "rtsp://127.0.0.1:1/pcmu/007";
        let (text, _) = ask(&mut exchange, &format!("DESCRIBE {base} RTSP/1.0\r\nCSeq: 2\r\n\r\n"));
        assert!(
            text.starts_with("RTSP/1.0 200 OK\r\nCSeq: 2\r\n") && text.ends_with("a=audio\r\n"),
            "{text}"
        );
        let (text, _) = ask(&mut exchange, "DESCRIBE rtsp://127.0.0.1:1/opus/1 RTSP/1.0\r\n\r\n");
        assert!(text.contains("404"), "{text}");
        let (text, wish) = ask(&mut exchange, &format!("PLAY {base} RTSP/1.0\r\n\r\n"));
        assert!(text.contains("455") && wish.is_none(), "{text}");
        let set_up = format!("SETUP {base}/audio RTSP/1.0\r\nTransport: ");
        let (text, _) = ask(&mut exchange, &format!("{set_up}RTP/AVP;unicast;client_port=4000-4001\r\n\r\n"));
        assert!(text.contains("461"), "{text}");
        let (text, _) = ask(&mut exchange, &format!("{set_up}RTP/AVP/TCP;unicast;interleaved=2-3\r\n\r\n"));
        assert!(text.contains("interleaved=2-3"), "{text}");
        let (_, wish) = ask(&mut exchange, &format!("PLAY {base}/ RTSP/1.0\r\n\r\n"));
        let camera = Camera { kind: Kind::Pcmu, number: 7 };
        assert_eq!(wish, Some(Wish::Play { camera, channel: 2 }));
        let (text, _) = ask(&mut exchange, "$\x01\x00\x04abcdGET_PARAMETER * RTSP/1.0\r\nCSeq: 9\r\n\r\n");
        assert!(text.contains("CSeq: 9"), "{text}");
        assert_eq!(ask(&mut exchange, "TEARDOWN * RTSP/1.0\r\n\r\n").1, Some(Wish::Stop));
    }

    #[test]
    fn a_request_without_end_ends_the_connection() {
        let mut exchange = Exchange::default();
        exchange.feed(&[b'a'; MAX_HEAD + 1]);
        assert!(exchange.next(&mut Vec::new(), |_, _| None).is_err());
    }
}
