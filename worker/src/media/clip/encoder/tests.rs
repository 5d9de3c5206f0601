#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use nursery_shared::media::VideoTrack;

use super::*;
use crate::media::{
    clip::{Format, whole},
    decode::Recording,
};

const START: i64 = 1_800_000_000_123_456;

struct TempFile(PathBuf, File);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("nursery-clip-{name}-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all_at(content, 0).unwrap();
        Self(path, file)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn sound(codec: AudioCodec, rate: u32, config: &[u8]) -> Tracks {
    let audio = AudioTrack { codec, rate, channels: 1, config: config.into() };
    Tracks { audio: Some(audio), video: None, no_video: None }
}

fn pictures() -> VideoTrack {
    let config: &[u8] = &[
        1, 66, 0, 30, 0xff, 0xe1, 0, 10, 0x67, 66, 0, 30, 0xab, 0x40, 0x50, 0x1e, 0xd0, 0x80, 1, 0, 4, 0x68,
        0xce, 0x38, 0x80,
    ];
    VideoTrack {
        codec: VideoCodec::H264,
        codecs: "avc1.42001E".into(),
        width: 320,
        height: 240,
        config: config.into(),
    }
}

fn audio(time_us: i64, ms: u32, data: Vec<u8>) -> Packet {
    Packet { kind: Kind::Audio, time_us, duration_us: ms * 1000, key: true, data: data.into() }
}

/// 20 ms of a tone at 8 kHz in µ-law, as far as its shape matters.
fn tone(time_us: i64) -> Packet {
    audio(time_us, 20, (0..160u32).map(|n| if n / 8 % 2 == 0 { 0x90 } else { 0x10 }).collect())
}

fn encode(tracks: &Tracks, packets: &[Packet]) -> (Encoder, Vec<u8>, Result<(), End>) {
    let mut encoder = Encoder::new(tracks).unwrap();
    let mut bytes = Vec::new();
    let outcome = packets.iter().try_for_each(|packet| encoder.push(packet, &mut bytes));
    encoder.finish(&mut bytes).unwrap();
    (encoder, bytes, outcome)
}

/// Five seconds of pictures and sound.
fn film(codec: AudioCodec) -> (Tracks, Vec<Packet>) {
    let config: &[u8] = if codec == AudioCodec::Aac { &[0x14, 0x08] } else { &[] };
    let tracks = Tracks { video: Some(pictures()), ..sound(codec, 8_000, config) };
    let mut packets = Vec::new();
    for n in 0..250 {
        let at = START + n * 20_000;
        if n % 2 == 1 {
            let key = n % 50 == 1;
            let data = vec![n as u8; 900].into();
            packets.push(Packet { kind: Kind::Video, time_us: at, duration_us: 0, key, data });
        }
        packets.push(tone(at));
    }
    (tracks, packets)
}

#[test]
fn g711_stays_as_it_was_sent_and_what_was_lost_is_silence() {
    let tracks = sound(AudioCodec::Ulaw, 8_000, &[]);
    // Half a second is missing after the first one.
    let packets: Vec<Packet> =
        (0..100).map(|n| tone(START + n * 20_000 + if n < 50 { 0 } else { 500_000 })).collect();
    let (encoder, bytes, outcome) = encode(&tracks, &packets);
    assert_eq!(outcome, Ok(()));
    let span = encoder.span().unwrap();
    assert_eq!((span.from_us, span.until_us), (START, START + 2_500_000));
    let file = TempFile::new("wav", &bytes);
    let found = whole::mend(&file.1).unwrap().unwrap();
    assert_eq!((found.format, found.from_us, found.duration_us), (Format::Wav, Some(START), 2_500_000));
    assert_eq!(bytes[super::wav::HEADER..][..160], packets[0].data[..]);
    assert!(bytes[super::wav::HEADER + 8_000..][..4_000].iter().all(|b| *b == 0xff));
    let mut recording = Recording::open(&file.0).unwrap();
    let mut heard = Vec::new();
    while recording.read(&mut heard).unwrap() {}
    assert!((39_000..=41_000).contains(&heard.len()), "{} samples", heard.len());
    assert!(heard[1_000..10_000].iter().any(|s| s.abs() > 0.1));
    assert!(heard[18_000..22_000].iter().all(|s| s.abs() < 0.01));
}

#[test]
fn gaps_that_are_too_long_and_clocks_that_are_set_back_end_a_clip() {
    for (tracks, packet) in [
        (sound(AudioCodec::Ulaw, 8_000, &[]), tone as fn(i64) -> Packet),
        (sound(AudioCodec::Aac, 8_000, &[0x15, 0x88]), tone),
    ] {
        for (jump, why) in [(61_000_000, "61 s"), (-3_000_000, "clock")] {
            let (encoder, bytes, outcome) = encode(&tracks, &[packet(START), packet(START + 20_000 + jump)]);
            assert!(outcome.unwrap_err().0.contains(why));
            assert_eq!(encoder.span().unwrap().until_us, START + 20_000);
            let file = TempFile::new("jump", &bytes);
            assert_eq!(whole::look(&file.1).unwrap().unwrap().duration_us, 20_000);
        }
    }
    assert!(Encoder::new(&Tracks::default()).is_err());
    // Silence has an end too, and rates are those of sound.
    let fast = AudioTrack { rate: 192_000, channels: 8, ..sound(AudioCodec::S16le, 1, &[]).audio.unwrap() };
    let tracks = Tracks { audio: Some(fast.clone()), ..Tracks::default() };
    let (_, bytes, outcome) = encode(&tracks, &[tone(START), tone(START + 50_000_000)]);
    assert!(outcome.unwrap_err().0.contains("49 s") && bytes.len() < 1000);
    for (rate, channels) in [(u32::MAX, 1), (8_000, 255), (0, 1), (8_000, 0)] {
        let tracks =
            Tracks { audio: Some(AudioTrack { rate, channels, ..fast.clone() }), ..Tracks::default() };
        assert!(Encoder::new(&tracks).is_err(), "{rate} Hz, {channels} channels");
    }
}

#[test]
fn pictures_that_nobody_could_decode_cost_no_sound() {
    let broken = VideoTrack { config: [1, 2][..].into(), ..pictures() };
    let tracks = Tracks { video: Some(broken), ..sound(AudioCodec::Ulaw, 8_000, &[]) };
    let (encoder, bytes, outcome) = encode(&tracks, &[tone(START), tone(START + 20_000)]);
    assert_eq!((outcome, encoder.has_video(), bytes.len()), (Ok(()), false, wav::HEADER + 320));
}

#[test]
fn pictures_and_sound_of_any_kind_make_a_movie_that_says_when_it_was() {
    for codec in [AudioCodec::Aac, AudioCodec::Ulaw, AudioCodec::Alaw, AudioCodec::S16le] {
        let (tracks, packets) = film(codec);
        let (encoder, bytes, outcome) = encode(&tracks, &packets);
        assert_eq!(outcome, Ok(()), "{codec:?}");
        assert!(encoder.has_video());
        let file = TempFile::new("film", &bytes);
        let found = whole::mend(&file.1).unwrap().unwrap();
        assert_eq!((found.format, found.from_us, found.video), (Format::Mp4, Some(START), true), "{codec:?}");
        assert!((4_900_000..=5_100_000).contains(&found.duration_us), "{codec:?}: {}", found.duration_us);
        assert_eq!(found.bytes, bytes.len() as u64);
    }
    let aac = sound(AudioCodec::Aac, 8_000, &[0x15, 0x88]);
    let packets: Vec<Packet> = (0..100).map(|n| tone(START + n * 20_000)).collect();
    let (_, bytes, _) = encode(&aac, &packets);
    let file = TempFile::new("sound", &bytes);
    let found = whole::look(&file.1).unwrap().unwrap();
    assert_eq!((found.format, found.from_us, found.duration_us), (Format::M4a, Some(START), 2_000_000));
}

#[test]
fn a_clip_that_is_torn_anywhere_is_whole_up_to_there() {
    let (tracks, packets) = film(AudioCodec::Ulaw);
    let movie = encode(&tracks, &packets).1;
    let wave = encode(&sound(AudioCodec::Ulaw, 8_000, &[]), &packets).1;
    for (name, bytes, step) in [("torn-movie", movie, 97), ("torn-wave", wave, 31)] {
        let mut last = 0;
        for length in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
            let file = TempFile::new(name, &bytes[..length]);
            let Some(found) = whole::mend(&file.1).unwrap() else {
                assert_eq!(last, 0, "there was more in less");
                assert_eq!(file.1.metadata().unwrap().len(), length as u64, "touched");
                continue;
            };
            assert!(found.duration_us >= last && found.bytes <= length as u64);
            last = found.duration_us;
            assert_eq!(file.1.metadata().unwrap().len(), found.bytes);
            assert_eq!(whole::mend(&file.1).unwrap(), Some(found), "mended again it stays as it is");
        }
        assert!(last > 4_500_000, "{name}: {last}");
    }
}

#[test]
fn whatever_is_in_a_file_is_survived() {
    let (tracks, packets) = film(AudioCodec::Aac);
    let movie = encode(&tracks, &packets).1;
    let wave = encode(&sound(AudioCodec::S16le, 8_000, &[]), &packets).1;
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..3_000 {
        let mut bytes = match round % 3 {
            0 => movie.clone(),
            1 => wave.clone(),
            _ => (0..random.usize(..2_000)).map(|_| random.u8(..)).collect(),
        };
        bytes.truncate(random.usize(..=bytes.len().min(20_000)));
        for _ in 0..random.usize(..8) {
            if let Some(at) = bytes.len().checked_sub(1).map(|last| random.usize(..=last.min(3_000))) {
                bytes[at] = if random.bool() {
                    random.u8(..)
                } else {
                    *random.choice(&[0, 0xff, 0x80, 0x7f]).unwrap()
                };
            }
        }
        let file = TempFile::new("garbage", &bytes);
        if let Some(found) = whole::mend(&file.1).unwrap() {
            assert!(found.bytes <= bytes.len() as u64 && found.duration_us > 0);
            assert_eq!(whole::look(&file.1).unwrap(), Some(found));
        }
    }
}
