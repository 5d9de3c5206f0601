//! The farm of cameras that measurements run on: what it sends is what real servers send, each packet at its time, and no
//! client waits for another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nursery_tests::{
    farm::{
        CameraFarm, Kind,
        content::{self, CRIES_MS, LOOP_MS},
        ledger::{Counts, Entry},
        stream::{Stamp, Stream},
    },
    gst_camera::{self, GstCamera},
    processes::Process,
    rtsp_camera::{Codec, RtspCamera},
    service, skip,
    temp_dir::TempDir,
    wait::{PATIENCE, output, until},
};
use nursery_worker::media::g711;

/// A client of the farm that plays.
struct Client {
    stream: BufReader<TcpStream>,
}

/// A packet, and when it came.
struct Packet {
    sequence: u16,
    timestamp: u32,
    len: usize,
    at: Instant,
}

impl Client {
    fn play(farm: &CameraFarm, kind: Kind, camera: u32) -> Self {
        Self::play_url(&farm.url(kind, camera))
    }

    fn play_url(url: &str) -> Self {
        let address = url.strip_prefix("rtsp://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.ask("DESCRIBE", url, "").contains("m=audio"));
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
        client.ask("SETUP", &format!("{url}/audio"), transport);
        client.ask("PLAY", url, "");
        client
    }

    fn ask(&mut self, method: &str, url: &str, headers: &str) -> String {
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n");
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the farm hung up");
            head += &line;
        }
        assert!(head.starts_with("RTSP/1.0 200 OK"), "{method}: {head}");
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    /// The next packet of media; reports are passed over.
    fn packet(&mut self) -> Packet {
        loop {
            let mut head = [0; 4];
            self.stream.read_exact(&mut head).unwrap();
            assert_eq!(head[0], b'$', "what came is no packet");
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).unwrap();
            if head[1] == 0 {
                return Packet {
                    sequence: u16::from_be_bytes([body[2], body[3]]),
                    timestamp: u32::from_be_bytes([body[4], body[5], body[6], body[7]]),
                    len,
                    at: Instant::now(),
                };
            }
        }
    }
}

fn has_ffmpeg() -> bool {
    Command::new("ffmpeg").arg("-version").output().is_ok_and(|out| out.status.success())
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn packets_come_one_after_the_other_at_their_pace() {
    let farm = CameraFarm::start(&[Kind::Pcmu, Kind::Pcmu40]);
    for (kind, ticks) in [(Kind::Pcmu, 160), (Kind::Pcmu40, 320)] {
        let mut client = Client::play(&farm, kind, 3);
        let packets: Vec<Packet> = (0..100).map(|_| client.packet()).collect();
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(ticks));
            assert_eq!(pair[1].len, 12 + ticks as usize);
        }
        let period = Duration::from_micros(kind.period_us() as u64);
        let typical = median(packets.windows(2).map(|p| p[1].at - p[0].at).collect());
        assert!(typical > period / 2 && typical < period * 2, "{kind:?}: {typical:?}");
    }
}

#[test]
fn every_camera_is_at_its_own_place_in_the_loop_and_cries_are_written_down() {
    let farm = CameraFarm::start(&[Kind::Pcmu]);
    // So many that one of them cries soon.
    let mut clients: Vec<Client> = (0..60).map(|n| Client::play(&farm, Kind::Pcmu, n)).collect();
    for client in &mut clients {
        client.packet();
    }
    let cries = until("three cries", PATIENCE, || {
        let cries: Vec<(u32, i64)> = farm
            .ledger()
            .iter()
            .filter_map(|e| match e {
                Entry::Cry { camera, at_us, .. } => Some((*camera, *at_us)),
                _ => None,
            })
            .collect();
        (cries.len() >= 3).then_some(cries)
    });
    // Two cries a loop: 60 cameras cry every 1.5 s, and no two at once.
    for pair in cries.windows(2) {
        assert_ne!(pair[0].0, pair[1].0);
        assert!(pair[1].1 - pair[0].1 > 100_000, "{cries:?}");
    }
    drop(clients);
    until("the end of all sessions", PATIENCE, || {
        (farm.ledger().iter().filter(|e| matches!(e, Entry::Ended { .. })).count() == 60).then_some(())
    });
    let ledger = farm.finish();
    let totals = ledger.iter().rev().find_map(|e| match e {
        Entry::Totals { counts, playing, .. } => Some((*counts, *playing)),
        _ => None,
    });
    let mut all = Counts::default();
    for entry in &ledger {
        if let Entry::Ended { counts, .. } = entry {
            all.add(counts);
        }
    }
    assert_eq!(totals, Some((all, 0)));
}

#[test]
fn who_does_not_read_loses_packets_and_delays_nobody() {
    let farm = CameraFarm::start(&[Kind::Pcmu]);
    let slow = Client::play(&farm, Kind::Pcmu, 1);
    nix::sys::socket::setsockopt(slow.stream.get_ref(), nix::sys::socket::sockopt::RcvBuf, &1024).unwrap();
    let mut quick = Client::play(&farm, Kind::Pcmu, 2);
    let (start, mut gaps, mut last) = (Instant::now(), Vec::new(), quick.packet());
    let counts = || match farm.totals() {
        Some(Entry::Totals { counts, .. }) => counts,
        _ => Counts::default(),
    };
    while counts().dropped == 0 {
        assert!(start.elapsed() < 2 * PATIENCE, "nothing is dropped: {:?}", counts());
        let packet = quick.packet();
        assert_eq!(packet.sequence, last.sequence.wrapping_add(1));
        gaps.push(packet.at - last.at);
        last = packet;
    }
    assert!(counts().waited > 0);
    let typical = median(gaps);
    assert!(typical < Duration::from_millis(40), "{typical:?}");
}

/// What ffmpeg hears of a stream: 16-bit samples, as many seconds as that.
fn hear(url: &str, kind: Kind, seconds: f64) -> Vec<i16> {
    let out = output(
        Command::new("ffmpeg")
            .args(["-v", "error", "-rtsp_transport", "tcp", "-i", url])
            .args(["-t", &seconds.to_string(), "-f", "s16le", "-c:a", "pcm_s16le"])
            .args(["-ar", &kind.rate().to_string(), "-ac", &kind.channels().to_string(), "-"]),
        PATIENCE,
    );
    assert!(out.status.success(), "{url}: {}", String::from_utf8_lossy(&out.stderr));
    samples(&out.stdout)
}

/// Times of a stream's packets in seconds, from the first one on, and of how long each is.
fn times(url: &str, seconds: u32) -> Vec<(f64, f64)> {
    let out = output(
        Command::new("ffprobe")
            .args(["-v", "error", "-rtsp_transport", "tcp", "-show_entries", "packet=pts_time,duration_time"])
            .args(["-read_intervals", &format!("%+{seconds}"), "-of", "csv=p=0", "-i", url]),
        PATIENCE,
    );
    assert!(out.status.success(), "{url}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let all: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(|f| f.parse::<f64>());
            Some((fields.next()?.ok()?, fields.next().and_then(Result::ok).unwrap_or(0.0)))
        })
        .collect();
    all.iter().map(|(time, duration)| (time - all[0].0, *duration)).collect()
}

/// Where `needle` begins in `hay`, a ring.
fn find(hay: &[i16], needle: &[i16]) -> Option<usize> {
    (0..hay.len()).find(|&at| needle.iter().enumerate().all(|(i, s)| *s == hay[(at + i) % hay.len()]))
}

/// What was heard must be a piece of the loop, sample for sample, that begins at a packet.
fn expect_piece(ring: &[i16], heard: &[i16], packet: usize) {
    let at = find(ring, &heard[..2_000]).expect("what was heard is in the loop");
    assert_eq!(at % packet, 0, "it begins in the middle of a packet");
    for (i, sample) in heard.iter().enumerate() {
        assert_eq!(*sample, ring[(at + i) % ring.len()], "sample {i} of {}", heard.len());
    }
}

#[test]
fn what_ffmpeg_decodes_is_the_loop_and_its_cry() {
    if !has_ffmpeg() {
        skip!("ffmpeg is not installed");
    }
    let farm = CameraFarm::start(&[Kind::Pcmu, Kind::Aac, Kind::Aac16]);
    let dir = TempDir::new();
    for kind in [Kind::Pcmu, Kind::Aac, Kind::Aac16] {
        let heard = hear(&farm.url(kind, 5), kind, 4.0);
        assert_eq!(heard.len(), 4 * kind.rate() as usize * kind.channels());
        if kind == Kind::Pcmu {
            continue;
        }
        // The encoded loop decodes to the content, in its place: the cry begins where it should.
        let cache = service::binary("camera-farm").with_file_name("camera-farm-cache");
        let file = dir.join("loop.adts");
        fs::write(&file, Stream::adts(kind, &cache).unwrap()).unwrap();
        let out = output(
            Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(&file).args(["-f", "s16le", "-"]),
            PATIENCE,
        );
        let pcm = samples(&out.stdout);
        let (rate, channels) = (kind.rate(), kind.channels());
        assert_eq!(pcm.len(), content::samples(LOOP_MS, rate) * channels);
        let level = |from: u64, to: u64| {
            let piece = &pcm[content::samples(from, rate) * channels..content::samples(to, rate) * channels];
            piece.iter().map(|s| f64::from(*s).abs()).sum::<f64>() / piece.len() as f64
        };
        for cry in CRIES_MS {
            let (before, after) = (level(cry - 300, cry - 100), level(cry + 30, cry + 230));
            assert!(after > 20.0 * before, "{kind:?}: {before} and {after}");
        }
    }
}

#[test]
fn the_farm_sends_what_gstreamers_rtsp_server_sends() {
    if let Some(why) = gst_camera::missing() {
        skip!("{why}");
    }
    if !has_ffmpeg() {
        skip!("ffmpeg is not installed");
    }
    let farm = CameraFarm::start(&[Kind::Pcmu, Kind::Aac, Kind::Aac16]);
    let cache = service::binary("camera-farm").with_file_name("camera-farm-cache");
    let dir = TempDir::new();
    for kind in [Kind::Pcmu, Kind::Aac, Kind::Aac16] {
        // The same audio for gstreamer's server: the loop as µ-law, or the very access units.
        let file = dir.join(kind.as_str());
        let gstreamer = if kind == Kind::Pcmu {
            write_wav_8k(&file, &ulaw_loop());
            GstCamera::start(gst_camera::Stream::Pcmu8k, &file)
        } else {
            fs::write(&file, Stream::adts(kind, &cache).unwrap()).unwrap();
            GstCamera::start(gst_camera::Stream::AacUnits, &file)
        };
        let (farms, theirs) = (hear(&farm.url(kind, 5), kind, 6.0), hear(&gstreamer.url(), kind, 6.0));
        let ring = decoded_loop(kind, &file);
        let skip = match kind {
            Kind::Pcmu => 0,
            // The first frame of a decoder lacks the one before.
            _ => 2 * 1024 * kind.channels(),
        };
        let step = if kind == Kind::Pcmu { 160 } else { 1024 * kind.channels() };
        // Both are the loop, bit for bit; packets of gstreamer's are as long as it likes.
        expect_piece(&ring, &farms[skip..], step);
        expect_piece(&ring, &theirs[skip..], if kind == Kind::Pcmu { 1 } else { step });
        for (name, url) in [("farm", farm.url(kind, 5)), ("gstreamer", gstreamer.url())] {
            let times = times(&url, 4);
            assert!(times.len() > 20, "{name}, {kind:?}: {} packets", times.len());
            for pair in times.windows(2) {
                let ((at, mut duration), (next, _)) = (pair[0], pair[1]);
                // What ffprobe does not know of AAC.
                if kind != Kind::Pcmu {
                    duration = kind.period_us() / 1e6;
                }
                assert!(
                    (at + duration - next).abs() < 0.002,
                    "{name}, {kind:?}: {at} + {duration}, then {next}"
                );
            }
        }
    }
}

/// The whole loop as a decoder that heard it from the end into the beginning has it.
fn decoded_loop(kind: Kind, file: &Path) -> Vec<i16> {
    if kind == Kind::Pcmu {
        return ulaw_loop();
    }
    let (bytes, twice) = (fs::read(file).unwrap(), file.with_extension("twice"));
    fs::write(&twice, [bytes.clone(), bytes].concat()).unwrap();
    let mut command = Command::new("ffmpeg");
    let out = output(
        command.args(["-v", "error", "-f", "aac", "-i"]).arg(&twice).args(["-f", "s16le", "-"]),
        PATIENCE,
    );
    let once = content::samples(LOOP_MS, kind.rate()) * kind.channels();
    samples(&out.stdout)[once..2 * once].to_vec()
}

/// The loop in values that µ-law has, which every encoder leaves as they are.
fn ulaw_loop() -> Vec<i16> {
    let stamp = Stamp { channel: 0, sequence: 0, timestamp: 0, source: 0 };
    let mut stream = Stream::prepare(Kind::Pcmu, Path::new("/nowhere")).unwrap();
    let packet = |n| stream.packet(n, stamp)[16..].to_vec();
    (0..9_008).flat_map(packet).map(g711::ulaw).collect()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

fn write_wav_8k(path: &Path, pcm: &[i16]) {
    nursery_tests::audio::write_wav(path, pcm);
    let mut bytes = fs::read(path).unwrap();
    bytes[24..28].copy_from_slice(&8_000_u32.to_le_bytes());
    bytes[28..32].copy_from_slice(&16_000_u32.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

const CAMERAS: u32 = 48;

/// Cameras with threads of their own, in a process of their own: this one, started by the next test.
#[test]
#[ignore = "started by the test of what the farm costs"]
fn cameras_with_threads_of_their_own() {
    let cameras: Vec<RtspCamera> = (0..CAMERAS).map(|_| RtspCamera::start(Codec::Pcmu)).collect();
    for camera in &cameras {
        println!("\ncamera {}", camera.url());
    }
    // Until whoever started this has seen enough.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Seconds of processor of a process for each megabyte that it sends, while somebody reads for some seconds.
fn cost(process: Process, clients: Vec<Client>) -> f64 {
    let seconds = || {
        let text = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        let fields: Vec<f64> = text.rsplit(')').next().unwrap().split(' ').flat_map(str::parse).collect();
        // utime and stime, the 14th and 15th; the third is no number.
        (fields[10] + fields[11]) / 100.0
    };
    let mut streams: Vec<TcpStream> = clients.into_iter().map(|c| c.stream.into_inner()).collect();
    streams.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let (mut bytes, mut read) = ([0; 16 << 10], 0);
    let (start, before) = (Instant::now(), seconds());
    while start.elapsed() < Duration::from_secs(6) {
        for stream in &mut streams {
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                read += n;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (seconds() - before) / (read as f64 / 1e6)
}

#[test]
fn the_farm_costs_less_than_cameras_with_threads_of_their_own() {
    let farm = CameraFarm::start(&[Kind::Pcmu]);
    let clients = (0..CAMERAS).map(|n| Client::play(&farm, Kind::Pcmu, n)).collect();
    let ours = cost(farm.process(), clients);
    drop(farm);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "cameras_with_threads_of_their_own"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let urls = lines.by_ref().filter_map(|line| Some(line.strip_prefix("camera ")?.to_owned()));
    let clients = urls.take(CAMERAS as usize).map(|url| Client::play_url(&url)).collect();
    let theirs = cost(Process::of(child.id()).unwrap(), clients);
    drop(child.stdin.take());
    assert!(lines.any(|line| line.contains("1 passed")) && child.wait().unwrap().success());
    eprintln!("{ours:.4} s of processor per MB of the farm, {theirs:.4} s of cameras with threads");
    assert!(ours > 0.0 && ours < theirs, "{ours} and {theirs}");
}
