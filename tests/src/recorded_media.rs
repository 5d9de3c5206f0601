//! Media as cameras send it, made by ffmpeg: H.264 pictures of a test picture with a clock and AAC of a tone, in packets.

use std::process::Command;

use nursery_shared::media::{AudioCodec, AudioTrack, Data, Kind, Packet, Tracks, VideoCodec, VideoTrack};

/// Samples per second of the sound, and samples of a frame.
pub const RATE: u32 = 16_000;
const FRAME: i64 = 1024;

/// Some seconds of a camera.
pub struct Recorded {
    pub tracks: Tracks,
    /// By time, which begins at 0.
    pub packets: Vec<Packet>,
    pub duration_us: i64,
}

fn encoded(arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("ffmpeg").args(["-v", "error"]).args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// So many seconds, 25 pictures in each, of which the first is a key frame; `None` where ffmpeg with libx264 is not
/// installed.
pub fn record(seconds: u32) -> Option<Recorded> {
    record_at(seconds, 25, 25)
}

/// The same with so many pictures a second, of which one in `keys` is a key frame.
pub fn record_at(seconds: u32, rate: u32, keys: u32) -> Option<Recorded> {
    let picture = format!("testsrc=size=320x240:rate={rate}:duration={seconds}");
    let keys = keys.to_string();
    let picture_us = 1_000_000 / i64::from(rate);
    let h264 = encoded(&[
        "-f",
        "lavfi",
        "-i",
        &picture,
        "-c:v",
        "libx264",
        "-profile:v",
        "baseline",
        "-preset",
        "veryfast",
        "-tune",
        "zerolatency",
        "-pix_fmt",
        "yuv420p",
        "-g",
        &keys,
        "-threads",
        "1",
        "-x264-params",
        "slices=1:scenecut=0",
        "-f",
        "h264",
        "-",
    ])?;
    let tone = format!("sine=frequency=440:sample_rate={RATE}:duration={seconds}");
    let adts = encoded(&["-f", "lavfi", "-i", &tone, "-c:a", "aac", "-b:a", "32k", "-f", "adts", "-"])?;
    let (video, pictures) = pictures(&h264);
    let packet = |kind, time_us, duration_us, key, data| Packet { kind, time_us, duration_us, key, data };
    let pictures =
        (0i64..).zip(pictures).map(|(n, (data, key))| packet(Kind::Video, n * picture_us, 0, key, data));
    let frame_us = FRAME * 1_000_000 / i64::from(RATE);
    let sounds = (0i64..)
        .zip(frames(&adts))
        .map(|(n, data)| packet(Kind::Audio, n * frame_us, frame_us as u32, true, data));
    let mut packets: Vec<Packet> = pictures.chain(sounds).collect();
    packets.sort_by_key(|p| p.time_us);
    // AAC-LC, 16 kHz, one channel.
    let config = Data::from(vec![0x14, 0x08]);
    let audio = AudioTrack { codec: AudioCodec::Aac, rate: RATE, channels: 1, config };
    let tracks = Tracks { audio: Some(audio), video: Some(video), no_video: None };
    Some(Recorded { tracks, packets, duration_us: i64::from(seconds) * 1_000_000 })
}

/// Access units of one slice each, with lengths instead of start codes, and whether they are key frames.
fn pictures(stream: &[u8]) -> (VideoTrack, Vec<(Data, bool)>) {
    let (mut sps, mut pps, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for unit in units(stream) {
        match unit[0] & 31 {
            7 => sps = unit.to_vec(),
            8 => pps = unit.to_vec(),
            kind @ (1 | 5) => {
                let length = u32::try_from(unit.len()).expect("a small unit").to_be_bytes();
                found.push((Data::from([&length[..], unit].concat()), kind == 5));
            }
            _ => {}
        }
    }
    let length = |set: &[u8]| u16::try_from(set.len()).expect("a small set").to_be_bytes();
    let config =
        [&[1, sps[1], sps[2], sps[3], 0xff, 0xe1][..], &length(&sps), &sps, &[1], &length(&pps), &pps]
            .concat();
    let codecs = format!("avc1.{:02X}{:02X}{:02X}", sps[1], sps[2], sps[3]);
    let track =
        VideoTrack { codec: VideoCodec::H264, codecs, width: 320, height: 240, config: config.into() };
    (track, found)
}

/// NAL units of a stream with start codes.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|s| s - 3).chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let unit = &stream[*start..end];
            &unit[..unit.len() - unit.iter().rev().take_while(|b| **b == 0).count()]
        })
        .collect()
}

/// Raw frames out of ADTS ones.
fn frames(stream: &[u8]) -> Vec<Data> {
    let (mut at, mut found) = (0, Vec::new());
    while at + 7 <= stream.len() {
        let length = usize::from(stream[at + 3] & 3) << 11
            | usize::from(stream[at + 4]) << 3
            | usize::from(stream[at + 5]) >> 5;
        found.push(Data::from(&stream[at + 7..at + length]));
        at += length;
    }
    found
}
