#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{path::PathBuf, process::Command};

use nursery_shared::media::VideoCodec;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nursery-fmp4-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run_program(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
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

/// Access units of a slice each, with lengths instead of start codes, and whether they are key frames.
fn pictures(stream: &[u8]) -> (VideoTrack, Vec<(Vec<u8>, bool)>) {
    let (mut sps, mut pps, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for unit in units(stream) {
        match unit[0] & 31 {
            7 => sps = unit.to_vec(),
            8 => pps = unit.to_vec(),
            kind @ (1 | 5) => {
                let mut data = u32::try_from(unit.len()).unwrap().to_be_bytes().to_vec();
                data.extend_from_slice(unit);
                found.push((data, kind == 5));
            }
            _ => {}
        }
    }
    let mut config = vec![1, sps[1], sps[2], sps[3], 0xff, 0xe1];
    config.extend_from_slice(&u16::try_from(sps.len()).unwrap().to_be_bytes());
    config.extend_from_slice(&sps);
    config.push(1);
    config.extend_from_slice(&u16::try_from(pps.len()).unwrap().to_be_bytes());
    config.extend_from_slice(&pps);
    let codecs = format!("avc1.{:02X}{:02X}{:02X}", sps[1], sps[2], sps[3]);
    let track =
        VideoTrack { codec: VideoCodec::H264, codecs, width: 320, height: 240, config: config.into() };
    (track, found)
}

/// Raw frames out of ADTS ones.
fn frames(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut found) = (0, Vec::new());
    while at + 7 <= stream.len() {
        let len = usize::from(stream[at + 3] & 3) << 11
            | usize::from(stream[at + 4]) << 3
            | usize::from(stream[at + 5]) >> 5;
        found.push(stream[at + 7..at + len].to_vec());
        at += len;
    }
    found
}

fn aac() -> Sound {
    // AAC-LC, 16 kHz, one channel.
    let config = SoundCodec::Aac { config: Data::from(vec![0x14, 0x08]) };
    Sound { codec: config, rate: 16_000, channels: 1 }
}

const EPOCH: i64 = 1_790_000_000_000_000;

#[test]
fn what_a_camera_sends_is_read_by_ffprobe_with_all_its_packets_and_their_times() {
    let folder = Folder::new("camera");
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (h264, adts) = (file("v.h264"), file("a.aac"));
    let made = run_program(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=320x240:rate=25:duration=4",
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=440:sample_rate=16000:duration=4",
            "-map",
            "0:v",
            "-c:v",
            "libx264",
            "-profile:v",
            "baseline",
            "-pix_fmt",
            "yuv420p",
            "-g",
            "25",
            "-threads",
            "1",
            "-slices",
            "1",
            &h264,
            "-map",
            "1:a",
            "-c:a",
            "aac",
            "-b:a",
            "32k",
            &adts,
        ],
    );
    if made.is_none() || Command::new("ffprobe").arg("-version").output().is_err() {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    let (track, access_units) = pictures(&std::fs::read(h264).unwrap());
    assert_eq!(access_units.len(), 100);
    let sounds = frames(&std::fs::read(adts).unwrap());
    let mut samples: Vec<Sample<'_>> = Vec::new();
    for (n, (data, key)) in (0i64..).zip(&access_units) {
        let time_us = EPOCH + n * 40_000;
        samples.push(Sample { kind: Kind::Video, time_us, duration_us: 0, key: *key, data });
    }
    for (n, data) in (0i64..).zip(&sounds) {
        let time_us = EPOCH + n * 64_000;
        samples.push(Sample { kind: Kind::Audio, time_us, duration_us: 64_000, key: true, data });
    }
    samples.sort_by_key(|s| s.time_us);
    // As live video is written, one by one; and as a clip is, a second at a time.
    for (name, run) in [("live.mp4", 1), ("clip.mp4", 40)] {
        let mut muxer = Muxer::new(Some(&track), Some(&aac()), EPOCH).unwrap();
        let mut movie = muxer.init().to_vec();
        for chunk in samples.chunks(run) {
            let end = chunk.last().unwrap().time_us + 40_000;
            let until = (run > 1).then_some(end);
            movie.extend_from_slice(&muxer.fragment(chunk, until).unwrap().unwrap());
        }
        let movie_file = file(name);
        std::fs::write(&movie_file, movie).unwrap();
        let shown = run_program(
            "ffprobe",
            &[
                "-v",
                "warning",
                "-count_packets",
                "-show_streams",
                "-show_packets",
                "-of",
                "json",
                &movie_file,
            ],
        )
        .unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let streams = shown["streams"].as_array().unwrap();
        let counts: Vec<&str> = streams.iter().map(|s| s["nb_read_packets"].as_str().unwrap()).collect();
        assert_eq!(counts, [access_units.len().to_string(), sounds.len().to_string()], "{name}");
        assert_eq!((&streams[0]["codec_name"], &streams[1]["codec_name"]), (&"h264".into(), &"aac".into()));
        let times = |kind: &str, field: &str| -> Vec<f64> {
            let packets = shown["packets"].as_array().unwrap().iter().filter(|p| p["codec_type"] == kind);
            packets.map(|p| p[field].as_str().unwrap().parse().unwrap()).collect()
        };
        let pts = times("video", "pts_time");
        assert!(pts.iter().enumerate().all(|(n, t)| (t - n as f64 * 0.04).abs() < 0.001), "{pts:?}");
        let durations = times("video", "duration_time");
        assert!(durations.iter().all(|d| (d - 0.04).abs() < 0.025), "{durations:?}");
        let pts = times("audio", "pts_time");
        assert!(pts.iter().enumerate().all(|(n, t)| (t - n as f64 * 0.064).abs() < 0.001), "{pts:?}");
        let keys = shown["packets"].as_array().unwrap().iter();
        let keys =
            keys.filter(|p| p["codec_type"] == "video" && p["flags"].as_str().unwrap().starts_with('K'));
        assert_eq!(keys.count(), 4);
        // Every picture can be decoded.
        run_program("ffmpeg", &["-v", "error", "-xerror", "-i", &movie_file, "-f", "null", "-"]).unwrap();
    }
}

#[test]
fn flac_beside_nothing_is_read_by_ffprobe() {
    let folder = Folder::new("flac");
    let flac = folder.0.join("a.flac").to_str().unwrap().to_owned();
    let source = "sine=frequency=440:sample_rate=8000:duration=1";
    let encoder = ["-c:a", "flac", "-frame_size", "4000", "-sample_fmt", "s16"];
    let arguments = [&["-v", "error", "-y", "-f", "lavfi", "-i", source][..], &encoder, &[&flac]].concat();
    if run_program("ffmpeg", &arguments).is_none() {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    let bytes = std::fs::read(flac).unwrap();
    // Frames begin after the metadata, with their synchronisation code.
    let starts: Vec<usize> = (42..bytes.len() - 1)
        .filter(|at| bytes[*at] == 0xff && bytes[at + 1] == 0xf8 && *at > 42 + usize::from(bytes[45]))
        .collect();
    let sound = Sound { codec: SoundCodec::Flac { block: 4000, bits: 16 }, rate: 8000, channels: 1 };
    let mut muxer = Muxer::new(None, Some(&sound), 0).unwrap();
    assert_eq!(mime_of_sound(&sound), "audio/mp4; codecs=\"flac\"");
    let mut movie = muxer.init().to_vec();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let mut written = 0;
    for (n, (start, end)) in (0i64..).zip(starts.iter().zip(ends)) {
        let data = &bytes[*start..end];
        let sample =
            Sample { kind: Kind::Audio, time_us: n * 500_000, duration_us: 500_000, key: true, data };
        movie.extend_from_slice(&muxer.fragment(&[sample], None).unwrap().unwrap());
        written += 1;
    }
    assert_eq!(written, 2);
    let file = folder.0.join("a.mp4").to_str().unwrap().to_owned();
    std::fs::write(&file, movie).unwrap();
    let entries = "stream=codec_name,sample_rate,nb_read_packets";
    let shown = run_program(
        "ffprobe",
        &["-v", "error", "-count_packets", "-show_entries", entries, "-of", "csv=p=0", &file],
    );
    assert_eq!(shown.unwrap().trim(), "flac,8000,2");
    run_program("ffmpeg", &["-v", "error", "-xerror", "-i", &file, "-f", "null", "-"]).unwrap();
}

#[test]
fn what_is_broken_is_an_error() {
    let good = || VideoTrack {
        codec: VideoCodec::H264,
        codecs: "avc1.42C01E".into(),
        width: 320,
        height: 240,
        config: vec![1, 66, 192, 30, 0xff, 0xe1, 0, 2, 0x67, 66, 1, 0, 1, 0x68].into(),
    };
    let refused = |video: &VideoTrack| Muxer::new(Some(video), None, 0).unwrap_err().to_string();
    assert!(Muxer::new(Some(&good()), None, 0).is_ok());
    for len in 0..14 {
        let cut = VideoTrack { config: good().config[..len].into(), ..good() };
        assert!(refused(&cut).starts_with("MP4: configuration of the pictures: "), "{len}");
    }
    refused(&VideoTrack { config: vec![0xff; 14].into(), ..good() });
    refused(&VideoTrack { config: vec![1; 100_000].into(), ..good() });
    refused(&VideoTrack { width: 0, ..good() });
    refused(&VideoTrack { codec: VideoCodec::Jpeg, ..good() });
    for len in 0..40 {
        refused(&VideoTrack { codec: VideoCodec::H265, config: vec![0xff; len].into(), ..good() });
    }
    for sound in [
        Sound { rate: 0, ..aac() },
        Sound { rate: u32::MAX, ..aac() },
        Sound { channels: 0, ..aac() },
        Sound { channels: 200, ..aac() },
        Sound { codec: SoundCodec::Aac { config: Data::default() }, ..aac() },
        Sound { codec: SoundCodec::Aac { config: vec![0; 4096].into() }, ..aac() },
        Sound { codec: SoundCodec::Flac { block: 0, bits: 16 }, ..aac() },
    ] {
        assert!(Muxer::new(None, Some(&sound), 0).is_err(), "{sound:?}");
    }
    assert!(Muxer::new(None, None, 0).is_err());
    for codecs in ["", "avc1\"; x", &"a".repeat(100)] {
        assert_eq!(mime_of_video(&VideoTrack { codecs: codecs.into(), ..good() }), None);
    }
    assert_eq!(mime_of_video(&good()).unwrap(), "video/mp4; codecs=\"avc1.42C01E\"");
    assert_eq!(mime_of_sound(&aac()), "audio/mp4; codecs=\"mp4a.40.2\"");
    // Of other tracks, or nothing at all.
    let mut muxer = Muxer::new(Some(&good()), None, 0).unwrap();
    let sample = Sample { kind: Kind::Audio, time_us: 0, duration_us: 1, key: true, data: b"x" };
    assert_eq!(muxer.fragment(&[sample], None), Ok(None));
    assert_eq!(muxer.fragment(&[Sample { kind: Kind::Video, data: b"", ..sample }], None), Ok(None));
}
