//! Whole RTSP sessions of the capture process with a camera that answers from a script, over a real socket: session
//! description, answers, RTP packets. Whatever comes, the session ends, says why in one line without the password, and
//! what was heard are numbers.
//!
//! A script is cut by lines `%%`: the first part answers the first request, and so on; after the last the connection is
//! closed. `{cseq}` and `{uri}` stand for those of the request, `{length}` for the length of the body.

use std::time::Duration;

use nursery_shared::config::{self, CameraConfig};
use nursery_worker::capture::{
    rtsp,
    source::{SourceEvent, SourceLink, Wishes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use url::Url;

use crate::{
    child,
    mutate::Mutator,
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

pub const SESSION: Target = Target {
    name: "rtsp-session",
    about: "RTSP sessions: description, answers, packets",
    mutator: Mutator::Text,
    words: &[
        "RTSP/1.0 200 OK",
        "401 Unauthorized",
        "404",
        "454",
        "461",
        "m=audio 0 RTP/AVP 0",
        "a=rtpmap:97 L16/16000",
        "a=rtpmap:97 L16/768000/65535",
        "PCMU/8000",
        "PCMA/8000",
        "MPEG4-GENERIC/16000",
        "G726-32/8000",
        "opus/48000/2",
        "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1408",
        "a=control:audio",
        "{cseq}",
        "{uri}",
        "{length}",
        "\r\n%%\r\n",
        "$\0\0",
        "Session: 1;timeout=60",
        "Transport: RTP/AVP/TCP;unicast;interleaved=0-1",
        "RTP-Info: url={uri}/audio;seq=1;rtptime=1",
        "Content-Base: {uri}/",
        "WWW-Authenticate: Basic realm=\"x\"",
    ],
    longest: 32 << 10,
    memory: |len| 200 * len + 16 * ROOM,
    seconds: 2.0,
    short: 600,
    seeds,
    check: || {
        let text = r#"[{"name": "crib", "source": "rtsp://u:hunter2@127.0.0.1/s"}]"#;
        let config = config::from_json(text, std::path::Path::new("")).expect("a valid configuration");
        let camera = config.cameras.into_iter().next().expect("one camera");
        Box::new(move |input| session(&camera, input))
    },
};

const DESCRIBE: &str = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\nContent-Base: {uri}/\r\n\
    Content-Length: {length}\r\n\r\nv=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n";
const SETUP: &str = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 5eed;timeout=60\r\n\
    Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nContent-Length: 0\r\n\r\n";
const PLAY: &str = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 5eed;timeout=60\r\nRange: npt=0.000-\r\n\
    RTP-Info: url={uri}/audio;seq=1000;rtptime=160000\r\nContent-Length: 0\r\n\r\n";

fn seeds() -> Vec<Vec<u8>> {
    let tracks = [
        (0, "PCMU/8000", "", 160, 160),
        (8, "PCMA/8000", "", 160, 160),
        (97, "L16/16000", "", 640, 320),
        (97, "L16/44100/2", "", 1764, 441),
        (
            97,
            "MPEG4-GENERIC/16000/1",
            "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;\
             indexdeltalength=3;config=1408\r\n",
            64,
            1024,
        ),
        (98, "G726-32/8000", "", 80, 160),
    ];
    let mut seeds: Vec<Vec<u8>> = tracks
        .into_iter()
        .map(|(kind, encoding, format, bytes, samples)| {
            let track = format!(
                "m=audio 0 RTP/AVP {kind}\r\na=rtpmap:{kind} {encoding}\r\n{format}a=control:audio\r\n"
            );
            let mut script = format!("{DESCRIBE}{track}\r\n%%\r\n{SETUP}\r\n%%\r\n{PLAY}").into_bytes();
            for n in 0..4_u16 {
                script.extend(packet(kind, n, samples, bytes, format.is_empty()));
            }
            script
        })
        .collect();
    let video = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:video\r\n";
    seeds.push(format!("{DESCRIBE}{video}").into());
    seeds.push(b"RTSP/1.0 404 Not Found\r\nCSeq: {cseq}\r\n\r\n".to_vec());
    seeds.push(
        format!(
            "RTSP/1.0 401 Unauthorized\r\nCSeq: {{cseq}}\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"n\"\r\n\r\n\r\n%%\r\n{DESCRIBE}"
        )
        .into(),
    );
    seeds
}

/// An interleaved RTP packet; AAC comes with its header of one unit.
fn packet(kind: u8, n: u16, samples: u32, bytes: usize, raw: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    if !raw {
        payload.extend_from_slice(&[0, 16]);
        payload.extend_from_slice(&((bytes as u16) << 3).to_be_bytes());
    }
    payload.extend((0..bytes).map(|i| (i as u8).wrapping_mul(31)));
    let mut rtp = vec![0x80, kind];
    rtp.extend_from_slice(&(1000 + n).to_be_bytes());
    rtp.extend_from_slice(&(160_000 + u32::from(n) * samples).to_be_bytes());
    rtp.extend_from_slice(&[0, 0, 0, 7]);
    rtp.extend_from_slice(&payload);
    let mut out = vec![b'$', 0];
    out.extend_from_slice(&(rtp.len() as u16).to_be_bytes());
    out.extend(rtp);
    out
}

fn session(camera: &CameraConfig, script: &[u8]) -> Verdict {
    // A runtime for each session: what the last one left in the background ends with it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let url = Url::parse(&format!("rtsp://u:hunter2@127.0.0.1:{port}/s")).map_err(|e| e.to_string())?;
        let (link, mut events, controls) = SourceLink::new();
        // Pictures too, so that what they come in is read.
        controls.wishes.send_replace(Wishes { media: true, video: true, live: true });
        let mut heard = Vec::new();
        let listen = async {
            let mut ways = Vec::new();
            while let Some(event) = events.recv().await {
                match event {
                    SourceEvent::Down { stalled, error } => return (ways, Some((stalled, error))),
                    SourceEvent::Audio(samples) => {
                        ways.push(1);
                        heard.extend(samples);
                    }
                    SourceEvent::Corrupt { what, .. } => ways.push(way_of_text(&what)),
                    _ => {}
                }
            }
            (ways, None)
        };
        let end = async {
            tokio::select! {
                end = listen => end,
                // Neither ends before the source is down.
                () = rtsp::run(camera, url, &link) => (Vec::new(), None),
                () = play(listener, script) => (Vec::new(), None),
            }
        };
        let (mut ways, down) =
            timeout(Duration::from_secs(20), end).await.map_err(|_| "the session never ends")?;
        let Some((stalled, error)) = down else { return Err("the session ended without a word".into()) };
        one_line(&error)?;
        if error.contains("hunter2") {
            return Err(format!("an error shows the password: {error}"));
        }
        let mut words = error.replace(&port.to_string(), "");
        if error.contains("a bug in it") {
            // Panics of libraries are caught, and the session begins anew; there are none of ours to be caught.
            words = child::last_panic();
            if !words.contains("/registry/") {
                return Err(format!("{error}: {words}"));
            }
        }
        if let Some(x) = heard.iter().find(|x| !x.is_finite()) {
            return Err(format!("{x} was heard"));
        }
        ways.truncate(8);
        Ok(way((ways, stalled, way_of_text(&words), size(heard.len()))))
    })
}

/// Answers the first connection by the script, then none any more.
async fn play(listener: TcpListener, script: &[u8]) {
    if let Ok((mut client, _)) = listener.accept().await {
        drop(listener);
        for part in parts(script) {
            let Some(request) = request(&mut client).await else { break };
            if client.write_all(&answer(part, &request)).await.is_err() {
                break;
            }
        }
        // What was not read would make the kernel throw away what was sent.
        let _ = client.shutdown().await;
        let mut rest = [0; 4096];
        while timeout(QUIET, client.read(&mut rest)).await.is_ok_and(|read| read.is_ok_and(|n| n > 0)) {}
    }
    std::future::pending().await
}

/// A client that says nothing for this long waits for more than the script has.
const QUIET: Duration = Duration::from_millis(50);

fn parts(script: &[u8]) -> Vec<&[u8]> {
    const CUT: &[u8] = b"\r\n%%\r\n";
    let (mut parts, mut rest) = (Vec::new(), script);
    while let Some(at) = rest.windows(CUT.len()).position(|w| w == CUT) {
        parts.push(&rest[..at]);
        rest = &rest[at + CUT.len()..];
    }
    parts.push(rest);
    parts
}

async fn request(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let read = timeout(QUIET, client.read(&mut bytes)).await.ok()?.ok()?;
        if read == 0 {
            return None;
        }
        request.extend_from_slice(&bytes[..read]);
    }
    Some(String::from_utf8_lossy(&request).into_owned())
}

fn answer(part: &[u8], request: &str) -> Vec<u8> {
    let body = part.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| part.len() - at - 4);
    let uri = request.split(' ').nth(1).unwrap_or_default();
    let cseq = request.lines().find_map(|l| l.strip_prefix("CSeq: ")).unwrap_or("1");
    let mut out = part.to_vec();
    for (name, value) in [("{cseq}", cseq), ("{uri}", uri), ("{length}", &body.to_string())] {
        // Twice at most: mutation makes many of one.
        for _ in 0..2 {
            if let Some(at) = out.windows(name.len()).position(|w| w == name.as_bytes()) {
                out.splice(at..at + name.len(), value.bytes());
            }
        }
    }
    out
}
