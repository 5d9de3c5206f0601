//! Fragmented MP4 as it is written for viewers and clips, read by ffprobe and decoded by ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use nursery_shared::media::Kind;
use nursery_tests::{recorded_media, skip, temp_dir::TempDir};
use nursery_worker::media::fmp4::{Muxer, Sample, Sound, SoundCodec, mime_of_sound};
use serde_json::Value;

const EPOCH: i64 = 1_790_000_000_000_000;

/// What a program says; `None` where it is not there.
fn run_program(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_a_camera_sends_is_read_by_ffprobe_with_all_its_packets_and_their_times() {
    let Some(recorded) = recorded_media::record(4) else { skip!("ffmpeg with libx264 is not installed") };
    let dir = TempDir::new();
    let count = |kind| recorded.packets.iter().filter(|p| p.kind == kind).count();
    let (pictures, sounds) = (count(Kind::Video), count(Kind::Audio));
    assert_eq!(pictures, 100);
    let sound = Sound::of(recorded.tracks.audio.as_ref().unwrap()).unwrap();
    let video = recorded.tracks.video.as_ref();
    let samples: Vec<Sample<'_>> =
        recorded.packets.iter().map(|p| Sample { time_us: EPOCH + p.time_us, ..Sample::from(p) }).collect();
    // As live video is written, one by one; and as a clip is, a second at a time.
    for (name, run) in [("live.mp4", 1), ("clip.mp4", 40)] {
        let mut muxer = Muxer::new(video, Some(&sound), EPOCH).unwrap();
        let mut movie = muxer.init().to_vec();
        let mut rest = &samples[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(run.min(rest.len()));
            let next = later.iter().find(|s| s.kind == Kind::Video).map(|s| s.time_us);
            let until = if run > 1 { next } else { None };
            movie.extend_from_slice(&muxer.fragment(chunk, until).unwrap().unwrap());
            rest = later;
        }
        let file = dir.join(name).display().to_string();
        std::fs::write(&file, movie).unwrap();
        let arguments =
            ["-v", "warning", "-count_packets", "-show_streams", "-show_packets", "-of", "json", &file];
        let shown: Value = serde_json::from_str(&run_program("ffprobe", &arguments).unwrap()).unwrap();
        let streams = shown["streams"].as_array().unwrap();
        let counts: Vec<&str> = streams.iter().map(|s| s["nb_read_packets"].as_str().unwrap()).collect();
        assert_eq!(counts, [pictures.to_string(), sounds.to_string()], "{name}");
        assert_eq!((&streams[0]["codec_name"], &streams[1]["codec_name"]), (&"h264".into(), &"aac".into()));
        let figures = |kind: &str, field: &str| -> Vec<f64> {
            let packets = shown["packets"].as_array().unwrap().iter().filter(|p| p["codec_type"] == kind);
            packets.map(|p| p[field].as_str().unwrap().parse().unwrap()).collect()
        };
        let times = figures("video", "pts_time");
        assert!(times.iter().enumerate().all(|(n, t)| (t - n as f64 * 0.04).abs() < 0.001), "{times:?}");
        let durations = figures("video", "duration_time");
        assert!(durations.iter().all(|d| (d - 0.04).abs() < 0.001), "{durations:?}");
        let times = figures("audio", "pts_time");
        assert!(times.iter().enumerate().all(|(n, t)| (t - n as f64 * 0.064).abs() < 0.001), "{times:?}");
        let packets = shown["packets"].as_array().unwrap().iter();
        let keys =
            packets.filter(|p| p["codec_type"] == "video" && p["flags"].as_str().unwrap().starts_with('K'));
        assert_eq!(keys.count(), 4);
        // Every picture and every frame of sound can be decoded.
        run_program("ffmpeg", &["-v", "error", "-xerror", "-i", &file, "-f", "null", "-"]).unwrap();
    }
}

#[test]
fn flac_beside_nothing_is_read_by_ffprobe() {
    let dir = TempDir::new();
    let flac = dir.join("a.flac").display().to_string();
    let source = "sine=frequency=440:sample_rate=8000:duration=1";
    let encoder = ["-c:a", "flac", "-frame_size", "4000", "-sample_fmt", "s16"];
    let arguments = [&["-v", "error", "-y", "-f", "lavfi", "-i", source][..], &encoder, &[&flac]].concat();
    if run_program("ffmpeg", &arguments).is_none() {
        skip!("ffmpeg is not installed");
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
    let file = dir.join("a.mp4").display().to_string();
    std::fs::write(&file, movie).unwrap();
    let entries = "stream=codec_name,sample_rate,nb_read_packets";
    let shown = run_program(
        "ffprobe",
        &["-v", "error", "-count_packets", "-show_entries", entries, "-of", "csv=p=0", &file],
    );
    assert_eq!(shown.unwrap().trim(), "flac,8000,2");
    run_program("ffmpeg", &["-v", "error", "-xerror", "-i", &file, "-f", "null", "-"]).unwrap();
}
