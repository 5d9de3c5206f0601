//! `nursery listen`: a camera's live audio on this machine's sound card, or as WAV into a file or a pipe. The control
//! socket becomes the way that the media takes, from the capture process itself.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use nursery_shared::{
    control::{MAX_REPLY, Reply, Request, default_socket},
    frame,
    line::one_line,
    media::{AudioCodec, AudioTrack, FromCapture, Kind, MAX_MEDIA, Packet},
    pcm::SAMPLE_RATE,
};

use crate::capture::rtsp::audio::{AudioDecoder, Decoded, Piece, Track};

mod output;

use output::Output;

/// Between two attempts at a camera whose process, or whose service, is gone for the moment.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Without media for so long something is wrong with the camera, which is said.
const SILENCE: Duration = Duration::from_secs(5);

/// Arguments of `listen`.
#[derive(clap::Args)]
#[command(name = "nursery listen")]
pub struct Args {
    /// The camera
    #[arg(value_name = "CAMERA")]
    camera: String,
    /// Write 16 kHz mono WAV to this file, `-` for standard output, instead of playing it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Stop after so many seconds of audio
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Control socket of the service [default: /run/nursery/control.sock as root]
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
}

/// Why listening ends.
enum End {
    /// Whoever took the audio has had enough, or all that was asked for is there.
    Done,
    /// For good.
    Failed(String),
    /// For the moment.
    Lost(String),
}

/// Listens until there is nothing more to be heard, or nobody to hear it. Exit status 1 where the camera cannot be
/// listened to, 2 where this program cannot play.
pub fn run(args: Args) -> ExitCode {
    let mut output = match Output::open(args.output.as_deref()) {
        Ok(output) => output,
        Err(failure) => {
            eprintln!("nursery: {}", failure.message);
            return ExitCode::from(failure.exit);
        }
    };
    let limit = args.seconds.map(|s| s.saturating_mul(u64::from(SAMPLE_RATE)));
    let socket = args.control_socket.unwrap_or_else(default_socket);
    let mut heard_any = false;
    loop {
        let end = attempt(&socket, &args.camera, &mut output, limit, &mut heard_any);
        match end {
            End::Done => break,
            End::Lost(why) if heard_any => eprintln!("nursery: {why}; trying again"),
            End::Failed(why) | End::Lost(why) => {
                eprintln!("nursery: {why}");
                return ExitCode::FAILURE;
            }
        }
        std::thread::sleep(AGAIN);
    }
    match output.finish() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("nursery: {e}");
            ExitCode::FAILURE
        }
    }
}

fn attempt(
    socket: &std::path::Path,
    camera: &str,
    output: &mut Output,
    limit: Option<u64>,
    heard_any: &mut bool,
) -> End {
    let place = socket.display();
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(e) => {
            return match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    End::Lost(format!("no service at {place} (is `nursery run` running?)"))
                }
                io::ErrorKind::PermissionDenied => End::Failed(format!(
                    "no permission for {place}: ask as root or as a member of the socket's group"
                )),
                _ => End::Failed(format!("{place}: {e}")),
            };
        }
    };
    if let Err(e) = ask(&mut stream, camera) {
        return e;
    }
    if let Err(e) = stream.set_read_timeout(Some(SILENCE)) {
        return End::Failed(format!("{place}: {e}"));
    }
    let mut reader = Whole { stream, told: false, camera };
    let mut ear = None;
    loop {
        match frame::read_frame(&mut reader, MAX_MEDIA) {
            Ok(Some(FromCapture::Tracks(tracks))) => match tracks.audio.map(|track| Ear::new(&track)) {
                Some(Ok(new)) => {
                    eprintln!("nursery: {camera}: {}", new.describe());
                    ear = Some(new);
                }
                Some(Err(why)) => return End::Failed(format!("{camera}: {why}")),
                // It is being connected to.
                None => ear = None,
            },
            Ok(Some(FromCapture::Packet(packet))) if packet.kind == Kind::Audio => {
                let Some(ear) = &mut ear else { continue };
                let samples = ear.hear(&packet);
                *heard_any |= !samples.is_empty();
                let left = limit.map(|limit| limit.saturating_sub(output.written()) as usize);
                let end = left.map_or(samples.len(), |left| left.min(samples.len()));
                match output.write(&samples[..end]) {
                    Ok(true) if left.is_none_or(|left| left > end) => {}
                    Ok(_) => return End::Done,
                    Err(e) => return End::Failed(e),
                }
            }
            Ok(Some(FromCapture::Packet(_))) => {}
            Ok(None) => return End::Lost(format!("{camera}: nothing more comes")),
            Err(e) => return End::Lost(format!("{camera}: {e}")),
        }
    }
}

/// Asks for the camera's media, which follows the reply on the same socket.
fn ask(stream: &mut UnixStream, camera: &str) -> Result<(), End> {
    let lost = |e: io::Error| End::Lost(format!("connection to the service: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
    let mut request = serde_json::to_vec(&Request::Listen { camera: camera.to_owned() })
        .map_err(|e| End::Failed(e.to_string()))?;
    request.push(b'\n');
    stream.write_all(&request).map_err(lost)?;
    // Not a byte of what comes after it.
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') && line.len() < MAX_REPLY {
        match stream.read(&mut byte) {
            Ok(0) => return Err(End::Lost("the service closed the connection without a reply".into())),
            Ok(_) => line.push(byte[0]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(lost(e)),
        }
    }
    match serde_json::from_slice(&line) {
        Ok(Reply::Done { .. }) => Ok(()),
        Ok(Reply::Error { message }) => Err(End::Failed(message)),
        Ok(Reply::Refused { message }) => Err(End::Lost(message)),
        _ => Err(End::Failed("the service answered something that was not asked".into())),
    }
}

/// Reads whole frames: silence between two of them is said once and waited out, in the middle of one it is not.
struct Whole<'a> {
    stream: UnixStream,
    told: bool,
    camera: &'a str,
}

impl Read for Whole<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            match self.stream.read(bytes) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if !std::mem::replace(&mut self.told, true) {
                        let silent = began.elapsed().as_secs();
                        eprintln!(
                            "nursery: {}: nothing came for {silent} s, see `nursery status`",
                            self.camera
                        );
                    }
                }
                outcome => {
                    self.told &= !matches!(outcome, Ok(1..));
                    return outcome;
                }
            }
        }
    }
}

/// Decodes what comes.
enum Ear {
    Samples,
    Encoded { decoder: Box<AudioDecoder>, rate: u32 },
}

impl Ear {
    fn new(track: &AudioTrack) -> Result<Self, String> {
        let encoding = match track.codec {
            AudioCodec::Aac => "mpeg4-generic",
            AudioCodec::Ulaw => "pcmu",
            AudioCodec::Alaw => "pcma",
            AudioCodec::S16le if (track.rate, track.channels) == (SAMPLE_RATE, 1) => {
                return Ok(Self::Samples);
            }
            // As it came before its bytes were swapped.
            AudioCodec::S16le => "l16",
        };
        let track =
            Track { encoding, rate: track.rate, channels: track.channels.into(), aac: Some(&track.config) };
        Ok(Self::Encoded { decoder: Box::new(AudioDecoder::new(&track)?), rate: track.rate })
    }

    fn describe(&self) -> String {
        match self {
            Self::Samples => format!("PCM {SAMPLE_RATE} Hz, 1 channel(s)"),
            Self::Encoded { decoder, .. } => decoder.describe(),
        }
    }

    /// 16 kHz mono; nothing of what cannot be decoded.
    fn hear(&mut self, packet: &Packet) -> Vec<i16> {
        let Self::Encoded { decoder, rate } = self else {
            return packet.data.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        };
        let clock = std::num::NonZeroU32::MIN.saturating_add(999_999);
        let samples = u64::from(packet.duration_us) * u64::from(*rate) / 1_000_000;
        let length = std::num::NonZeroU32::new(samples as u32).unwrap_or(std::num::NonZeroU32::MIN);
        let swapped: Vec<u8>;
        let data: &[u8] = match decoder.describe().starts_with("L16") {
            true => {
                swapped = packet.data.chunks_exact(2).flat_map(|b| [b[1], b[0]]).collect();
                &swapped
            }
            false => &packet.data,
        };
        let piece = Piece { data, timestamp: packet.time_us, clock, length, lost: 0 };
        let mut out = Vec::new();
        match decoder.decode(&piece, &mut out) {
            Ok(Decoded::Audio | Decoded::AudioAfterShortPacket) => {}
            Ok(Decoded::Corrupt(_)) => return Vec::new(),
            Err(why) => {
                eprintln!("nursery: {}", one_line(&why));
                return Vec::new();
            }
        }
        // Clipped like everywhere else; NaN becomes 0.
        out.iter().map(|s| (s * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nursery_shared::media::Data;

    use super::*;

    fn packet(data: &[u8], time_us: i64) -> Packet {
        Packet { kind: Kind::Audio, time_us, duration_us: 20_000, key: true, data: Data::from(data) }
    }

    fn track(codec: AudioCodec, rate: u32) -> AudioTrack {
        AudioTrack { codec, rate, channels: 1, config: Data::default() }
    }

    #[test]
    fn samples_are_what_they_were() {
        let mut ear = Ear::new(&track(AudioCodec::S16le, SAMPLE_RATE)).unwrap();
        assert_eq!(ear.hear(&packet(&[0xe8, 3, 0x18, 0xfc], 0)), [1000, -1000]);
    }

    #[test]
    fn what_cameras_send_becomes_16_khz() {
        let mut ear = Ear::new(&track(AudioCodec::Ulaw, 8_000)).unwrap();
        let heard: usize = (0..50).map(|n| ear.hear(&packet(&[0x80; 160], n * 20_000)).len()).sum();
        assert!((15_000..=16_000).contains(&heard), "{heard}");
        let mut linear = Ear::new(&track(AudioCodec::S16le, 8_000)).unwrap();
        let loud: Vec<i16> =
            (0..50).flat_map(|n| linear.hear(&packet(&[0, 0x10].repeat(160), n * 20_000))).collect();
        assert!(loud[8_000..12_000].iter().all(|s| (3_900..4_300).contains(s)), "{:?}", &loud[8_000..8_010]);
    }
}
