#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
};

use nursery_shared::media::{AudioCodec, AudioTrack, Data, Kind, VideoCodec, VideoTrack};

use super::*;
use crate::media::clip::{Format, whole};

const PATIENCE: Duration = Duration::from_secs(10);
const START: i64 = 1_800_000_000_000_000;

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("nursery-capture-clip-{name}-{}", std::process::id())))
    }

    fn create(&self) -> OwnedFd {
        let mut options = File::options();
        options.read(true).append(true).create(true).open(&self.0).unwrap().into()
    }

    fn look(&self) -> whole::Whole {
        whole::look(&File::open(&self.0).unwrap()).unwrap().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn clips() -> (Clips, Receiver<(i64, ClipReport)>) {
    let (tx, rx) = channel();
    let tell = move |clip, report| tx.send((clip, report)).map_err(|e| e.to_string());
    (Clips::new(Arc::new(tell)), rx)
}

fn tracks() -> Tracks {
    let track = AudioTrack { codec: AudioCodec::Alaw, rate: 8_000, channels: 1, config: Data::default() };
    Tracks { audio: Some(track), ..Tracks::default() }
}

fn packet(n: i64) -> Packet {
    let data = Data::from(vec![n as u8; 160]);
    Packet { kind: Kind::Audio, time_us: START + n * 20_000, duration_us: 20_000, key: true, data }
}

#[test]
fn a_clip_has_what_was_remembered_and_what_comes_up_to_its_end() {
    let (mut clips, told) = clips();
    let file = TempFile::new("whole");
    let recent = (0..50).map(packet).collect();
    clips.open((7, START, 1 << 20), file.create(), &tracks(), recent).unwrap();
    (50..100).for_each(|n| clips.push(&packet(n)));
    clips.close(7, START + 3_000_000);
    (100..200).for_each(|n| clips.push(&packet(n)));
    let (clip, report) = told.recv_timeout(PATIENCE).unwrap();
    let found = file.look();
    assert_eq!((clip, &report.error, report.video), (7, &None, false));
    assert_eq!((report.from_us, report.until_us), (START, START + 3_000_000));
    assert_eq!((found.format, found.duration_us, found.bytes), (Format::Wav, 3_000_000, report.bytes));
    // Late packets go nowhere, and a clip that nobody knows is nothing.
    clips.push(&packet(200));
    clips.close(8, 0);
    clips.finish("x");
    assert!(told.try_recv().is_err());
}

#[test]
fn several_clips_overlap_and_more_than_there_may_be_are_refused() {
    let (mut clips, told) = clips();
    let files: Vec<TempFile> = (0..=MOST).map(|n| TempFile::new(&format!("many-{n}"))).collect();
    for (n, file) in (0i64..).zip(&files) {
        clips.open((n, START, 1 << 20), file.create(), &tracks(), Vec::new()).unwrap();
    }
    let (refused, report) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((refused, report.bytes), (MOST as i64, 0));
    assert!(report.error.unwrap().contains("already"));
    (0..100).for_each(|n| clips.push(&packet(n)));
    (0..MOST as i64).for_each(|n| clips.close(n, 0));
    for _ in 0..MOST {
        let (_, report) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((report.until_us, report.error), (START + 2_000_000, None));
    }
    // Their places are free again.
    clips.open((9, START, 1 << 20), files[MOST].create(), &tracks(), vec![packet(0)]).unwrap();
    clips.finish("the end");
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((report.until_us, report.error.as_deref()), (START + 20_000, Some("the end")));
}

#[test]
fn a_clip_ends_at_its_largest_size_and_where_the_disk_takes_no_more() {
    let (mut clips, told) = clips();
    let file = TempFile::new("large");
    clips.open((1, START, 4_096), file.create(), &tracks(), (0..100).map(packet).collect()).unwrap();
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert!(report.bytes <= 4_096 && report.error.unwrap().contains("larger than 4 KiB"));
    assert!(file.look().duration_us > 400_000);
    let full = File::options().write(true).open("/dev/full").unwrap();
    clips.open((2, START, 1 << 20), full.into(), &tracks(), vec![packet(0)]).unwrap();
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert!(report.bytes == 0 && report.error.unwrap().to_lowercase().contains("no space"));
}

#[test]
fn a_clip_ends_without_packets_and_nothing_is_said_of_one_without_sound() {
    let (mut clips, told) = clips();
    let file = TempFile::new("silent");
    clips.open((1, START, 1 << 20), file.create(), &tracks(), vec![packet(0)]).unwrap();
    clips.close(1, START + 1_000_000);
    clips.tick(START + 2_000_000);
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
    clips.tick(START + 4_000_000);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1.error, None);
    clips.open((2, START, 1 << 20), file.create(), &Tracks::default(), Vec::new()).unwrap();
    clips.close(2, 0);
    clips.tick(START);
    assert!(told.recv_timeout(PATIENCE).unwrap().1.error.unwrap().contains("nothing came"));
}

#[test]
fn pictures_that_change_are_left_out_and_the_sound_goes_on() {
    let (mut clips, told) = clips();
    let file = TempFile::new("nightfall");
    let video = |config: &[u8]| {
        Some(VideoTrack {
            codec: VideoCodec::H264,
            codecs: "avc1.42001E".into(),
            width: 320,
            height: 240,
            config: config.into(),
        })
    };
    const DAY: &[u8] = &[1, 66, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 30, 1, 0, 4, 0x68, 0xce, 0x38, 0x80];
    const NIGHT: &[u8] = &[1, 66, 0, 31, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 31, 1, 0, 4, 0x68, 0xce, 0x38, 0x80];
    let picture = |n: i64| Packet { kind: Kind::Video, duration_us: 0, ..packet(n) };
    let film = |config| Tracks { video: video(config), ..tracks() };
    let begin = (0..50).flat_map(|n| [packet(n), picture(n)]).collect();
    clips.open((1, START, 1 << 20), file.create(), &film(DAY), begin).unwrap();
    clips.set_tracks(&film(NIGHT));
    (50..100).for_each(|n| [packet(n), picture(n)].iter().for_each(|p| clips.push(p)));
    clips.close(1, START + 2_000_000);
    (100..110).for_each(|n| clips.push(&packet(n)));
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((report.error, report.video, report.until_us), (None, true, START + 2_000_000));
    let found = file.look();
    assert!(found.video && (1_900_000..2_100_000).contains(&found.duration_us), "{found:?}");
}

#[test]
fn other_sound_ends_a_clip_and_pictures_that_come_or_go_do_not() {
    let (mut clips, told) = clips();
    let file = TempFile::new("tracks");
    clips.open((1, START, 1 << 20), file.create(), &tracks(), vec![packet(0)]).unwrap();
    clips.set_tracks(&Tracks { no_video: Some("refused".into()), ..tracks() });
    clips.set_tracks(&Tracks::default());
    clips.push(&packet(1));
    let track = AudioTrack { codec: AudioCodec::Ulaw, rate: 8_000, channels: 1, config: Data::default() };
    clips.set_tracks(&Tracks { audio: Some(track), ..Tracks::default() });
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(report.until_us, START + 40_000);
    assert!(report.error.unwrap().contains("something else"));
}

#[test]
fn a_disk_that_takes_nothing_costs_the_clip_and_nobodys_time() {
    let (mut clips, told) = clips();
    let (ours, theirs) = UnixStream::pair().unwrap();
    clips.open((1, START, u64::MAX), ours.into(), &tracks(), Vec::new()).unwrap();
    let begin = Instant::now();
    let large = Data::from(vec![0; 100_000]);
    for n in 0..2_000 {
        clips.push(&Packet { data: large.clone(), ..packet(n) });
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(clips.queue.lock().bytes <= MOST_WAITING);
    // It waits for the disk until there is an end to it.
    drop(theirs);
    let (_, report) = told.recv_timeout(PATIENCE).unwrap();
    assert!(report.error.is_some());
}
