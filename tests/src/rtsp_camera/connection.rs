//! One client's connection to a camera: requests in, answers and interleaved media out.

use std::{
    io::{self, BufReader, Write},
    net::{Shutdown, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    Fault, PATH, Shared,
    film::Film,
    media::Packetiser,
    request::{self, Request},
};

/// Where a session's audio goes.
enum Carrier {
    Interleaved { channel: u8 },
    Udp { media: UdpSocket, _control: UdpSocket },
}

impl Carrier {
    fn send(&self, stream: &Mutex<TcpStream>, packet: &[u8]) -> io::Result<()> {
        match self {
            Carrier::Udp { media, .. } => {
                // Nobody listens there any more, or not yet: cameras do not care.
                let _ = media.send(packet);
                Ok(())
            }
            Carrier::Interleaved { channel } => {
                let length = (packet.len() as u16).to_be_bytes();
                let frame = [&[b'$', *channel, length[0], length[1]], packet].concat();
                stream.lock().unwrap().write_all(&frame)
            }
        }
    }
}

struct Connection<'a> {
    camera: &'a Arc<Shared>,
    stream: Arc<Mutex<TcpStream>>,
    audio: Option<Carrier>,
    video: Option<Carrier>,
    playing: bool,
    /// When goodbye was answered.
    goodbye: Option<Instant>,
    /// Tells the thread that sends media to end.
    over: Arc<AtomicBool>,
}

/// Serves a client until either side ends the connection.
pub fn serve(camera: &Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let Ok(reading) = stream.try_clone() else { return };
    let over = Arc::new(AtomicBool::new(false));
    let mut connection = Connection {
        camera,
        stream: Arc::new(Mutex::new(stream)),
        audio: None,
        video: None,
        playing: false,
        goodbye: None,
        over: Arc::clone(&over),
    };
    let mut reading = BufReader::new(reading);
    while let Ok(Some(request)) = request::read(&mut reading) {
        camera.requests.lock().unwrap().push((request.method.clone(), request.uri.clone()));
        camera.wait_while(Fault::Freeze);
        if connection.answer(&request).is_err() {
            break;
        }
    }
    over.store(true, Ordering::SeqCst);
    connection.stop_playing();
    if let Some(goodbye) = connection.goodbye {
        camera.goodbyes.lock().unwrap().push(goodbye.elapsed());
    }
    let _ = reading.get_ref().shutdown(Shutdown::Both);
}

impl Connection<'_> {
    fn answer(&mut self, request: &Request) -> io::Result<()> {
        if let Some(credentials) = &self.camera.setup.credentials
            && request.method != "OPTIONS"
            && !credentials.admit(request)
        {
            let challenge = format!("WWW-Authenticate: {}\r\n", credentials.challenge());
            return self.reply(request, "401 Unauthorized", &challenge, "");
        }
        match request.method.as_str() {
            "OPTIONS" => {
                let methods = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n";
                self.reply(request, "200 OK", methods, "")
            }
            "DESCRIBE" => self.describe(request),
            "SETUP" => self.set_up(request),
            "PLAY" => self.play(request),
            "GET_PARAMETER" | "SET_PARAMETER" => self.reply(request, "200 OK", SESSION, ""),
            "TEARDOWN" => {
                self.over.store(true, Ordering::SeqCst);
                self.stop_playing();
                self.reply(request, "200 OK", SESSION, "")?;
                self.goodbye = Some(Instant::now());
                Ok(())
            }
            _ => self.reply(request, "501 Not Implemented", "", ""),
        }
    }

    fn stop_playing(&mut self) {
        if std::mem::take(&mut self.playing) {
            self.camera.playing.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn reply(&self, request: &Request, status: &str, headers: &str, body: &str) -> io::Result<()> {
        let text = self.compose(request, status, headers, body);
        self.stream.lock().unwrap().write_all(text.as_bytes())
    }

    fn compose(&self, request: &Request, status: &str, headers: &str, body: &str) -> String {
        let sequence = request.header("cseq").unwrap_or("0");
        let length = body.len();
        format!("RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    }

    fn describe(&self, request: &Request) -> io::Result<()> {
        let fault = self.camera.fault();
        if fault == Fault::NotFound || !request.uri.trim_end_matches('/').ends_with(PATH) {
            return self.reply(request, "404 Not Found", "", "");
        }
        let headers = format!("Content-Type: application/sdp\r\nContent-Base: {}/\r\n", request.uri);
        let text = self.compose(request, "200 OK", &headers, &self.session_description(fault));
        let mut stream = self.stream.lock().unwrap();
        match fault {
            Fault::GarbageAnswer => {
                let mut random = fastrand::Rng::with_seed(4);
                stream.write_all(&(0..4096).map(|_| random.u8(..)).collect::<Vec<_>>())
            }
            Fault::Drip => text.bytes().try_for_each(|byte| {
                sleep(Duration::from_millis(500));
                stream.write_all(&[byte])
            }),
            Fault::EndlessHeader => {
                stream.write_all(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nX-Endless: ")?;
                self.flood(fault, &mut stream)
            }
            Fault::EndlessBody => {
                let sequence = request.header("cseq").unwrap_or("0");
                let head = format!(
                    "RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{headers}Content-Length: 4000000000\r\n\r\n"
                );
                stream.write_all(head.as_bytes())?;
                self.flood(fault, &mut stream)
            }
            _ => stream.write_all(text.as_bytes()),
        }
    }

    /// Writes some megabytes a second until the client has had enough or the fault has passed.
    fn flood(&self, fault: Fault, stream: &mut TcpStream) -> io::Result<()> {
        let block = vec![b'a'; 64 << 10];
        while self.camera.fault() == fault {
            stream.write_all(&block)?;
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn session_description(&self, fault: Fault) -> String {
        let mut text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=test camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
                        a=control:*\r\n"
            .to_owned();
        if let Some(film) = &self.camera.setup.film {
            text += &format!(
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 {}\r\na=control:video\r\n",
                film.parameters()
            );
        } else if self.camera.setup.video || fault == Fault::NoAudio {
            text += "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;\
                     profile-level-id=42C01E;sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==\r\n\
                     a=control:video\r\n";
        }
        if fault != Fault::NoAudio {
            let (payload_type, encoding) = match fault {
                Fault::Encoding(rtpmap) => (98, rtpmap),
                _ => self.camera.setup.codec.description(),
            };
            text += &format!(
                "m=audio 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {encoding}\r\na=control:audio\r\n"
            );
        }
        text
    }

    fn set_up(&mut self, request: &Request) -> io::Result<()> {
        if self.camera.fault() == Fault::NoPictures && request.uri.ends_with("/video") {
            return self.reply(request, "453 Not Enough Bandwidth", SESSION, "");
        }
        let wanted = request.header("transport").unwrap_or_default();
        let (carrier, transport) = if wanted.contains("TCP") {
            let channel = value(wanted, "interleaved").unwrap_or(0) as u8;
            (
                Carrier::Interleaved { channel },
                format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1),
            )
        } else {
            let Some(port) = value(wanted, "client_port") else {
                return self.reply(request, "461 Unsupported Transport", "", "");
            };
            let client = self.stream.lock().unwrap().peer_addr()?.ip();
            let (media, control) = udp_pair()?;
            media.connect((client, port))?;
            let ours = media.local_addr()?.port();
            (
                Carrier::Udp { media, _control: control },
                format!("RTP/AVP;unicast;client_port={port}-{};server_port={ours}-{}", port + 1, ours + 1),
            )
        };
        if request.uri.ends_with("/audio") {
            self.audio = Some(carrier);
        } else if request.uri.ends_with("/video") {
            self.video = Some(carrier);
        }
        self.reply(request, "200 OK", &format!("{SESSION}Transport: {transport}\r\n"), "")
    }

    fn play(&mut self, request: &Request) -> io::Result<()> {
        let others = self.camera.playing.fetch_add(1, Ordering::SeqCst);
        self.playing = true;
        if others >= self.camera.setup.most_sessions {
            self.stop_playing();
            return self.reply(request, "453 Not Enough Bandwidth", SESSION, "");
        }
        self.camera.most_playing.fetch_max(others + 1, Ordering::SeqCst);
        let (sequence, timestamp) = (1000, 160_000);
        let info = format!(
            "{SESSION}Range: npt=0.000-\r\nRTP-Info: url={}/audio;seq={sequence};rtptime={timestamp}\r\n",
            request.uri.trim_end_matches('/'),
        );
        self.reply(request, "200 OK", &info, "")?;
        if let Some(carrier) = self.audio.take() {
            let packetiser = Packetiser::new(self.camera.setup.codec, sequence, timestamp);
            let (camera, stream, over) =
                (Arc::clone(self.camera), Arc::clone(&self.stream), Arc::clone(&self.over));
            std::thread::spawn(move || send_media(&camera, &stream, &carrier, packetiser, &over));
        }
        if let (Some(carrier), Some(film)) = (self.video.take(), self.camera.setup.film.clone()) {
            let (camera, stream, over) =
                (Arc::clone(self.camera), Arc::clone(&self.stream), Arc::clone(&self.over));
            std::thread::spawn(move || send_film(&camera, &stream, &carrier, &film, &over));
        }
        Ok(())
    }
}

const SESSION: &str = "Session: 5eed1234;timeout=60\r\n";

/// The first number after `name=` in a Transport header.
fn value(transport: &str, name: &str) -> Option<u16> {
    let parameter = transport.split(';').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='))?;
    parameter.split('-').next()?.parse().ok()
}

/// An even port for RTP and the next one for RTCP, as clients expect them.
fn udp_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..100 {
        let media = UdpSocket::bind("127.0.0.1:0")?;
        let port = media.local_addr()?.port();
        if port.is_multiple_of(2)
            && let Ok(control) = UdpSocket::bind(("127.0.0.1", port + 1))
        {
            return Ok((media, control));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Sends a picture every period until the session is over.
fn send_film(camera: &Shared, stream: &Mutex<TcpStream>, carrier: &Carrier, film: &Film, over: &AtomicBool) {
    let (mut sequence, mut due) = (1, Instant::now());
    for n in 0.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let fault = camera.fault();
        if matches!(fault, Fault::StallMedia | Fault::Freeze) {
            camera.wait_while(fault);
            due = Instant::now();
        }
        if film.packets(n, &mut sequence).iter().any(|packet| carrier.send(stream, packet).is_err()) {
            return;
        }
        due += Film::PERIOD;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Sends a packet every period until the session is over.
fn send_media(
    camera: &Shared,
    stream: &Mutex<TcpStream>,
    carrier: &Carrier,
    mut packetiser: Packetiser,
    over: &AtomicBool,
) {
    let period = Duration::from_millis(Packetiser::PERIOD_MS);
    let mut due = Instant::now();
    let mut anew = camera.fault() == Fault::OtherSource;
    for count in 0_u64.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let fault = camera.fault();
        if matches!(fault, Fault::StallMedia | Fault::Freeze | Fault::Encoding(_)) {
            camera.wait_while(fault);
            due = Instant::now();
            continue;
        }
        let broken = fault == Fault::CorruptMedia && count.is_multiple_of(5);
        if std::mem::replace(&mut anew, fault == Fault::OtherSource) != (fault == Fault::OtherSource) {
            packetiser.begin_anew();
        }
        let mut packet = packetiser.next(&camera.microphone, broken);
        let sent = match carrier {
            Carrier::Udp { .. } => carrier.send(stream, &packet),
            Carrier::Interleaved { .. } if fault == Fault::GarbageStream => {
                fastrand::Rng::with_seed(count).fill(&mut packet);
                stream.lock().unwrap().write_all(&packet)
            }
            Carrier::Interleaved { .. } => carrier.send(stream, &packet),
        };
        if sent.is_err() {
            return;
        }
        due += period;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}
