//! What a camera sees: a test picture with a moving clock, encoded as H.264 by ffmpeg, in RTP packets as RFC 6184 has it.

use std::{
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Payload bytes of one packet.
const PAYLOAD: usize = 1_200;
/// Pictures per second, of which the first is a key frame.
const RATE: u32 = 25;

/// An endless film: its pictures, over and over.
#[derive(Debug)]
pub struct Film {
    /// NAL units of each picture.
    pictures: Vec<Vec<Vec<u8>>>,
    /// Sequence and picture parameter set.
    sets: [Vec<u8>; 2],
}

/// Why there are no films on this machine; `None` where there are.
pub fn missing() -> Option<&'static str> {
    film().is_none().then_some("ffmpeg with libx264 is not installed")
}

/// The film of all cameras; `None` where ffmpeg is not there.
pub fn film() -> Option<Arc<Film>> {
    static FILM: OnceLock<Option<Arc<Film>>> = OnceLock::new();
    FILM.get_or_init(|| make("320x240").map(Arc::new)).clone()
}

/// The same of another size, such as `1920x1080`.
pub fn of_size(size: &str) -> Option<Arc<Film>> {
    make(size).map(Arc::new)
}

fn make(size: &str) -> Option<Film> {
    let source = format!("testsrc=size={size}:rate={RATE}:duration=4");
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", &source, "-c:v", "libx264", "-profile:v", "baseline"])
        .args(["-preset", "veryfast", "-tune", "zerolatency", "-threads", "1", "-g", &RATE.to_string()])
        .args(["-pix_fmt", "yuv420p", "-x264-params", "aud=1:repeat-headers=1:scenecut=0", "-f", "h264", "-"])
        .output()
        .ok()
        .filter(|out| out.status.success())?;
    let mut film = Film { pictures: Vec::new(), sets: [Vec::new(), Vec::new()] };
    for unit in units(&out.stdout) {
        match kind(&unit) {
            // An access unit delimiter begins each picture.
            9 => film.pictures.push(Vec::new()),
            7 => film.sets[0].clone_from(&unit),
            8 => film.sets[1].clone_from(&unit),
            _ => {}
        }
        film.pictures.last_mut()?.push(unit);
    }
    Some(film)
}

fn kind(unit: &[u8]) -> u8 {
    unit[0] & 0x1f
}

/// The NAL units of a byte stream as annex B has it.
fn units(stream: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
    let unit = |(start, end): (&usize, usize)| {
        let bytes = &stream[*start..end];
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        bytes[..len].to_vec()
    };
    starts.iter().zip(ends).map(unit).filter(|unit| !unit.is_empty()).collect()
}

impl Film {
    /// Between two pictures.
    pub const PERIOD: Duration = Duration::from_millis(1000 / RATE as u64);

    /// The same with pictures that are random bytes, of the same number; what is said of them stays.
    pub fn garbled(&self) -> Self {
        let mut random = fastrand::Rng::with_seed(9);
        let mut garble = |unit: &Vec<u8>| {
            let mut unit = unit.clone();
            if matches!(kind(&unit), 1 | 5) {
                random.fill(&mut unit[1..]);
            }
            unit
        };
        let pictures = self.pictures.iter().map(|units| units.iter().map(&mut garble).collect()).collect();
        Self { pictures, sets: self.sets.clone() }
    }

    /// The value of `fmtp` in a session description.
    pub fn parameters(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let [sps, pps] = &self.sets;
        let profile: String = sps[1..4].iter().map(|b| format!("{b:02X}")).collect();
        format!(
            "packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={},{}",
            STANDARD.encode(sps),
            STANDARD.encode(pps)
        )
    }

    /// The packets of picture `n` of a session that began with `sequence`, which goes on.
    pub fn packets(&self, n: usize, sequence: &mut u16) -> Vec<Vec<u8>> {
        let timestamp = (n as u32).wrapping_mul(90_000 / RATE);
        let mut payloads = Vec::new();
        for unit in &self.pictures[n % self.pictures.len()] {
            if unit.len() <= PAYLOAD {
                payloads.push(unit.clone());
                continue;
            }
            let pieces = unit[1..].chunks(PAYLOAD);
            let last = pieces.len() - 1;
            for (i, piece) in pieces.enumerate() {
                let (start, end) = (u8::from(i == 0) << 7, u8::from(i == last) << 6);
                let head = [unit[0] & 0xe0 | 28, start | end | kind(unit)];
                payloads.push([&head[..], piece].concat());
            }
        }
        let last = payloads.len() - 1;
        let packet = |(i, payload): (usize, Vec<u8>)| {
            let mut packet = vec![0x80, u8::from(i == last) << 7 | 96];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&timestamp.to_be_bytes());
            packet.extend_from_slice(&0x00c0_ffee_u32.to_be_bytes());
            packet.extend_from_slice(&payload);
            *sequence = sequence.wrapping_add(1);
            packet
        };
        payloads.into_iter().enumerate().map(packet).collect()
    }
}
