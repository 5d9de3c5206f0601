#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use nursery_shared::media::{AudioCodec, AudioTrack, Data};

use super::*;
use crate::{
    media::clip::wav,
    sink::{
        camera::alert,
        store::{Batch, Storage, Store},
    },
};

struct World {
    dir: PathBuf,
    store: Store,
    clips: Clips,
    now: Instant,
    events: u32,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn config(keep_mb: u64) -> ClipsConfig {
    ClipsConfig { enabled: Some(true), keep_mb, ..ClipsConfig::default() }
}

impl World {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("nursery-sink-clips-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let store = Store::open(&dir).unwrap();
        let mut clips = Clips::new(&dir).unwrap();
        clips.configure(config(1024));
        Self { dir, store, clips, now: Instant::now(), events: 0 }
    }

    /// The process ends and another one begins.
    fn again(&mut self) {
        self.clips = Clips::new(&self.dir).unwrap();
        self.clips.configure(config(1024));
    }

    fn tell(&mut self, kind: &'static str, event_id: &str, data: serde_json::Value) -> Option<Said> {
        let alert = alert(kind, event_id, "crib", timestamp::now_us(), data);
        let body = alert.body.clone();
        let batch = Batch { alerts: vec![alert], ..Batch::default() };
        Storage::commit(&mut self.store, &batch, &[]).unwrap();
        self.clips.on_alert(&body, self.now)
    }

    /// A cry that begins now; its id, and what is said of it.
    fn cry(&mut self) -> (String, Option<Said>) {
        self.events += 1;
        let event_id = format!("e-{}", self.events);
        let onset = timestamp::rfc3339(timestamp::now_us());
        let data = serde_json::json!({"event_id": event_id, "camera": "crib", "onset": onset});
        let said = self.tell("cry.started", &event_id, data);
        (event_id, said)
    }

    fn quiet(&mut self, event_id: &str) -> Option<Said> {
        let now = timestamp::rfc3339(timestamp::now_us());
        let data = serde_json::json!({"event_id": event_id, "camera": "crib", "onset": now, "offset": now});
        self.tell("cry.ended", event_id, data)
    }

    /// A cry, written and over; its number.
    fn whole(&mut self, bytes: usize) -> i64 {
        let (event_id, said) = self.cry();
        let (number, _, mut file) = opened(said);
        file.write_all(&sound(bytes)).unwrap();
        self.quiet(&event_id).unwrap();
        self.clips.on_closed(number, report(None), self.now);
        number
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.join(DIR))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn rows(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.clips.table.all().unwrap().iter().map(|e| name(e.number, e.about.format)).collect();
        names.sort();
        names
    }

    fn put(&self, name: &str, content: &[u8]) {
        std::fs::create_dir_all(self.dir.join(DIR)).unwrap();
        std::fs::write(self.dir.join(DIR).join(name), content).unwrap();
    }
}

fn opened(said: Option<Said>) -> (i64, u64, File) {
    match said {
        Some((FromWorker::OpenClip { clip, camera, max_bytes, .. }, Some(file))) => {
            assert_eq!(camera, "crib");
            (clip, max_bytes, File::from(file))
        }
        other => panic!("{other:?}"),
    }
}

fn report(error: Option<&str>) -> ClipReport {
    ClipReport { from_us: 0, until_us: 0, bytes: 0, video: false, error: error.map(Into::into) }
}

/// A file of so many bytes.
fn sound(bytes: usize) -> Vec<u8> {
    let track = AudioTrack { codec: AudioCodec::Ulaw, rate: 8_000, channels: 1, config: Data::default() };
    let mut content = wav::header(&track, 1_800_000_000_000_000).unwrap();
    content.resize(bytes, 0x55);
    content
}

#[test]
fn a_cry_has_a_clip_from_before_its_onset_to_after_its_end() {
    let mut world = World::new("whole");
    let before = timestamp::now_us();
    let (event_id, said) = world.cry();
    let Some((FromWorker::OpenClip { from_us, .. }, _)) = &said else { panic!("{said:?}") };
    assert!((from_us - (before - 5_000_000)).abs() < 2_000_000);
    let (number, _, mut file) = opened(said);
    assert!(matches!(world.clips.find(&event_id), (Found::NotYet, None)));
    // Whoever writes only adds: where the file stands does not matter.
    file.write_all(&sound(8_074)).unwrap();
    let Some((FromWorker::CloseClip { clip, until_us, .. }, None)) = world.quiet(&event_id) else { panic!() };
    assert_eq!(clip, number);
    assert!((until_us - (timestamp::now_us() + 5_000_000)).abs() < 2_000_000);
    world.clips.on_closed(number, report(None), world.now);
    assert_eq!(world.names(), [format!("{number}.wav")]);
    assert_eq!(world.rows(), world.names());
    let (Found::Clip(about), Some(file)) = world.clips.find(&event_id) else { panic!() };
    assert_eq!((about.until_us - about.from_us, about.bytes, about.note), (1_000_000, 8_074, None));
    let mut content = Vec::new();
    File::from(file).read_to_end(&mut content).unwrap();
    assert_eq!(content[4..8], 8_066u32.to_le_bytes(), "its length is in it");
    assert!(matches!(world.clips.find("e-9"), (Found::Nothing, None)));
}

#[test]
fn without_being_told_to_nobody_keeps_anything() {
    let mut world = World::new("off");
    world.clips.configure(ClipsConfig { enabled: Some(false), ..config(1024) });
    assert!(world.cry().1.is_none());
    assert!(world.names().is_empty());
}

#[test]
fn what_was_never_written_leaves_nothing_and_what_was_torn_is_mended() {
    let mut world = World::new("torn");
    let (_, said) = world.cry();
    let (number, ..) = opened(said);
    world.clips.on_closed(number, report(Some("its capture process does not run")), world.now);
    assert!(world.names().is_empty() && world.rows().is_empty());
    let (event_id, said) = world.cry();
    let (number, _, mut file) = opened(said);
    file.write_all(&sound(4_074)).unwrap();
    world.clips.on_closed(number, report(Some("its capture process ended")), world.now);
    let (Found::Clip(about), _) = world.clips.find(&event_id) else { panic!() };
    assert_eq!(about.note.as_deref(), Some("its capture process ended"));
    // Nobody says anything any more.
    let (silent, said) = world.cry();
    opened(said).2.write_all(&sound(4_074)).unwrap();
    world.quiet(&silent);
    world.now += Duration::from_secs(10);
    world.clips.tick(world.now);
    assert!(matches!(world.clips.find(&silent).0, Found::NotYet));
    world.now += Duration::from_secs(30);
    world.clips.tick(world.now);
    assert!(matches!(world.clips.find(&silent).0, Found::Clip(_)));
}

#[test]
fn an_event_without_end_has_a_clip_that_ends() {
    let mut world = World::new("long");
    let (_, said) = world.cry();
    let (number, ..) = opened(said);
    world.clips.tick(world.now);
    world.now += Duration::from_secs(181);
    let told = world.clips.tick(world.now);
    assert!(matches!(&told[..], [(FromWorker::CloseClip { clip, .. }, None)] if *clip == number));
    assert!(world.clips.tick(world.now).is_empty(), "told twice");
}

#[test]
fn what_another_process_left_is_mended_noted_or_removed() {
    let mut world = World::new("left");
    let kept = world.whole(8_074);
    let (torn_id, said) = world.cry();
    let (torn, _, mut file) = opened(said);
    file.write_all(&sound(5_000)).unwrap();
    let (_, said) = world.cry();
    let (empty, ..) = opened(said);
    let unnoted = world.whole(6_000);
    world.clips.table.remove(unnoted).unwrap();
    let shorter = world.whole(6_000);
    world.put(&format!("{shorter}.wav"), &sound(3_000));
    let gone = world.whole(6_000);
    std::fs::remove_file(world.dir.join(DIR).join(format!("{gone}.wav"))).unwrap();
    world.put("77.wav", &sound(3_000));
    world.put("78.part", &sound(3_000));
    let garbage = world.whole(6_000);
    world.put(&format!("{garbage}.wav"), b"RIFF and no more");
    world.put("README", b"of somebody");
    world.put("007.wav", b"of somebody");
    world.again();
    world.clips.tick(world.now);
    assert!(world.names().contains(&format!("{torn}.part")), "somebody may still write to it");
    world.now += Duration::from_secs(5);
    world.clips.tick(world.now);
    let mut expected: Vec<String> =
        [kept, torn, unnoted, shorter].iter().map(|n| format!("{n}.wav")).collect();
    expected.sort();
    assert_eq!(world.rows(), expected);
    let mut names = world.names();
    names.retain(|n| n != "README" && n != "007.wav");
    assert_eq!(names, expected, "{empty}, {gone}");
    let (Found::Clip(about), _) = world.clips.find(&torn_id) else { panic!() };
    assert!(about.note.is_some() && about.until_us - about.from_us == 615_750);
}

#[test]
fn all_of_them_stay_within_their_bounds_and_the_oldest_go_but_not_those_of_events_that_go_on() {
    let mut world = World::new("bounds");
    world.clips.configure(config(1));
    let size = || -> u64 {
        let files = std::fs::read_dir(
            std::env::temp_dir().join(format!("nursery-sink-clips-bounds-{}/clips", std::process::id())),
        );
        files.into_iter().flatten().map(|f| on_disk(f.unwrap().metadata().unwrap().len())).sum()
    };
    // As long as it may be, while its event goes on.
    let (lasting, said) = world.cry();
    let (first, _, mut file) = opened(said);
    file.write_all(&sound(100_000)).unwrap();
    world.clips.on_closed(first, report(None), world.now);
    let mut numbers = Vec::new();
    for _ in 0..12 {
        let (event_id, said) = world.cry();
        let (number, max_bytes, mut file) = opened(said);
        assert!(max_bytes <= 256 << 10);
        // Not more than was allowed, at once.
        file.write_all(&sound(max_bytes as usize)).unwrap();
        assert!(size() <= 1 << 20, "{}", size());
        world.quiet(&event_id);
        world.clips.on_closed(number, report(None), world.now);
        assert!(size() <= 1 << 20, "{}", size());
        numbers.push(number);
    }
    assert!(matches!(world.clips.find(&lasting).0, Found::Clip(_)), "its event goes on");
    let kept: Vec<i64> = world.clips.table.all().unwrap().iter().map(|e| e.number).collect();
    assert!(kept.len() > 2 && kept.ends_with(&numbers[numbers.len() - 2..]), "{kept:?}");
    world.quiet(&lasting);
    world.clips.configure(ClipsConfig { keep_days: 1.0, ..config(1) });
    world.now += Duration::from_secs(2);
    world.clips.tick(world.now);
    assert_eq!(world.rows().len(), kept.len(), "they are of the future");
    world.again();
    world.clips.tick(world.now);
    assert_eq!(world.clips.kept, size());
}

#[test]
fn clips_that_are_too_old_go() {
    let mut world = World::new("old");
    let number = world.whole(8_074);
    let mut entry = world.clips.table.all().unwrap().remove(0);
    entry.about.from_us = timestamp::now_us() - 15 * 86_400_000_000;
    entry.about.until_us = entry.about.from_us + 1_000_000;
    world.clips.table.put(&entry).unwrap();
    world.clips.configure(ClipsConfig { keep_days: 16.0, ..config(1024) });
    world.clips.tick(world.now);
    assert_eq!(world.names(), [format!("{number}.wav")]);
    world.clips.configure(config(1024));
    world.clips.tick(world.now);
    assert!(world.names().is_empty() && world.rows().is_empty());
}
