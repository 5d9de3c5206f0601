#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use nursery_shared::{
    config::{DetectionConfig, MotionRule},
    media::{AudioCodec, AudioTrack, Data},
    message::RecordKind,
};

use super::*;
use crate::{
    media::clip::wav,
    sink::{
        camera::{CameraState, alert},
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
        Self::within(dir)
    }

    fn within(dir: PathBuf) -> Self {
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
        self.closed(number, None);
        number
    }

    /// The same, of nothing but a length.
    fn whole_of_nothing(&mut self, bytes: u64) -> i64 {
        let (event_id, said) = self.cry();
        let (number, _, mut file) = opened(said);
        file.write_all(&sound(1_000)).unwrap();
        file.set_len(bytes).unwrap();
        self.quiet(&event_id).unwrap();
        self.closed(number, None);
        number
    }

    /// What a camera's process says when it is done.
    fn closed(&mut self, number: i64, error: Option<&str>) {
        self.clips.on_closed(number, report(error), self.now);
        assert!(self.clips.tick(self.now).is_empty());
    }

    /// What files take.
    fn size(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.join(DIR)).into_iter().flatten();
        files.map(|file| on_disk(file.unwrap().metadata().unwrap().len())).sum()
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
    sound_of(timestamp::now_us(), bytes)
}

fn sound_of(from_us: i64, bytes: usize) -> Vec<u8> {
    let track = AudioTrack { codec: AudioCodec::Ulaw, rate: 8_000, channels: 1, config: Data::default() };
    let mut content = wav::header(&track, from_us).unwrap();
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
    world.closed(number, None);
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
    world.closed(number, Some("its capture process does not run"));
    assert!(world.names().is_empty() && world.rows().is_empty());
    let (event_id, said) = world.cry();
    let (number, _, mut file) = opened(said);
    file.write_all(&sound(4_074)).unwrap();
    world.closed(number, Some("its capture process ended"));
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
    assert!(matches!(world.clips.find(&torn_id).0, Found::NotYet));
    world.now += Duration::from_secs(5);
    world.clips.tick(world.now);
    let mut expected: Vec<String> =
        [kept, torn, unnoted, shorter].iter().map(|n| format!("{n}.wav")).collect();
    expected.sort();
    assert_eq!(world.rows(), expected);
    let mut names = world.names();
    names.retain(|n| n != "README" && n != "007.wav");
    let lost = names.iter().filter(|n| n.ends_with("-77.wav") || n.ends_with("-78.part")).count();
    names.retain(|n| !n.starts_with("lost-"));
    assert_eq!((lost, names), (2, expected), "{empty}, {gone}");
    let (Found::Clip(about), _) = world.clips.find(&torn_id) else { panic!() };
    assert!(about.note.is_some() && about.until_us - about.from_us == 615_750);
}

#[test]
fn all_of_them_stay_within_their_bounds_and_the_oldest_go_but_not_those_of_events_that_go_on() {
    let mut world = World::new("bounds");
    world.clips.configure(config(1));
    // As long as it may be, while its event goes on.
    let (lasting, said) = world.cry();
    let (first, _, mut file) = opened(said);
    file.write_all(&sound(100_000)).unwrap();
    world.closed(first, None);
    let mut numbers = Vec::new();
    for _ in 0..12 {
        let (event_id, said) = world.cry();
        let (number, max_bytes, mut file) = opened(said);
        assert!(max_bytes <= 256 << 10);
        // Not more than was allowed, at once.
        file.write_all(&sound(max_bytes as usize)).unwrap();
        assert!(world.size() <= 1 << 20, "{}", world.size());
        world.quiet(&event_id);
        world.closed(number, None);
        assert!(world.size() <= 1 << 20, "{}", world.size());
        numbers.push(number);
    }
    assert!(matches!(world.clips.find(&lasting).0, Found::Clip(_)), "its event goes on");
    let kept: Vec<i64> = world.clips.table.all().unwrap().iter().map(|e| e.number).collect();
    assert!(kept.len() > 2 && kept.ends_with(&numbers[numbers.len() - 2..]), "{kept:?}");
    world.quiet(&lasting);
    world.clips.configure(ClipsConfig { keep_days: 1.0, ..config(1) });
    world.now += Duration::from_secs(2);
    world.clips.tick(world.now);
    assert_eq!(world.rows().len(), kept.len(), "none is that old");
    world.again();
    world.clips.tick(world.now);
    assert_eq!(world.clips.kept, world.size());
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

/// A disk of so many bytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a word about it, where nothing can be mounted.
    fn mount(name: &str, bytes: u64) -> Option<Self> {
        let place = std::env::temp_dir().join(format!("nursery-small-disk-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&place);
        let mounted = mount.status().is_ok_and(|status| status.success());
        let disk = Self(place);
        if !mounted {
            eprintln!("SKIPPED: no file system can be mounted here");
        }
        mounted.then_some(disk)
    }

    fn free(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.0).unwrap();
        found.blocks_available() * found.fragment_size()
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.0.join("of-somebody")).unwrap();
        for size in [1 << 16, 1] {
            while file.write(&vec![1; size]).is_ok_and(|n| n > 0) {}
        }
        assert_eq!(self.free(), 0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn clips_leave_the_disk_to_the_store() {
    let Some(disk) = SmallDisk::mount("floor", 12 << 20) else { return };
    let mut world = World::within(disk.0.join("store"));
    let mut numbers = Vec::new();
    for n in 0..30 {
        numbers.push(world.whole(600_000));
        assert!(disk.free() > 1 << 20, "{} bytes are left after {n}", disk.free());
    }
    let names = world.names();
    assert!(names.len() > 3 && names.contains(&format!("{}.wav", numbers[29])), "{names:?}");
}

fn long_alert(n: u32) -> Batch {
    let data = serde_json::json!({"event_id": format!("long-{n}"), "camera": "x".repeat(300_000)});
    let alert = alert("cry.started", &format!("long-{n}"), "crib", timestamp::now_us(), data);
    Batch { alerts: vec![alert], ..Batch::default() }
}

#[test]
fn where_the_store_finds_no_room_the_oldest_clips_give_way() {
    let Some(disk) = SmallDisk::mount("way", 12 << 20) else { return };
    let mut world = World::within(disk.0.join("store"));
    let numbers: Vec<i64> = (0..6).map(|_| world.whole(600_000)).collect();
    disk.fill();
    let failed = (0..40).find(|n| Storage::commit(&mut world.store, &long_alert(*n), &[]).is_err());
    let failed = failed.expect("there was room for everything");
    assert!(world.store.lacked_room() && !world.store.lacked_room(), "it is said once");
    assert!(world.clips.give_way(world.now));
    Storage::commit(&mut world.store, &long_alert(failed), &[]).unwrap();
    assert!(!world.store.lacked_room());
    let last = |n: usize| format!("{}.wav", numbers[n]);
    let names = world.names();
    assert!(!names.contains(&last(0)) && names.contains(&last(5)), "{names:?}");
    assert_eq!(world.clips.kept, world.size());
    assert_eq!(world.rows(), names);
    while world.clips.give_way(world.now) {}
    assert!(world.names().is_empty(), "nothing is left to give way");
}

#[test]
fn a_store_is_opened_on_a_full_disk_since_the_oldest_clips_give_way() {
    let Some(disk) = SmallDisk::mount("open", 12 << 20) else { return };
    let mut world = World::within(disk.0.join("store"));
    (0..6).for_each(|_| assert!(world.whole(600_000) > 0));
    let dir = world.dir.clone();
    // What is there stays there.
    world.dir = disk.0.join("nowhere");
    drop(world);
    disk.fill();
    let before = std::fs::read_dir(dir.join(DIR)).unwrap().count();
    let store = Store::open(&dir).unwrap();
    let after = std::fs::read_dir(dir.join(DIR)).unwrap().count();
    assert!(after < before && after > 0, "{before}, {after}");
    drop(store);
}

#[test]
fn what_is_written_at_once_has_room_as_soon_as_it_is_begun() {
    let mut world = World::new("remembered");
    world.clips.configure(config(128));
    for _ in 0..4 {
        world.whole_of_nothing((59 << 20) / 2);
    }
    assert!(world.size() > 112 << 20);
    let (_, said) = world.cry();
    let (_, max_bytes, file) = opened(said);
    file.set_len(REMEMBERED.min(max_bytes)).unwrap();
    assert!(world.size() <= 128 << 20, "{}", world.size());
    world.clips.tick(world.now);
    file.set_len((REMEMBERED + GROWTH).min(max_bytes)).unwrap();
    assert!(world.size() <= 128 << 20, "{}", world.size());
}

#[test]
fn clips_of_a_store_that_was_damaged_are_kept_apart_and_within_the_same_bounds() {
    let mut world = World::new("damaged");
    let first = world.whole(300_000);
    world.whole(300_000);
    let (_, said) = world.cry();
    opened(said).2.write_all(&sound(5_000)).unwrap();
    let size = world.size();
    for end in ["-wal", "-shm", ""] {
        let file = world.dir.join(format!("{}{end}", crate::sink::store::FILE));
        std::fs::write(file, vec![0x5a; 20_000]).unwrap();
    }
    world.store = Store::open(&world.dir).unwrap();
    world.again();
    let lost = |world: &World| world.names().iter().filter(|n| n.starts_with("lost-")).count();
    assert_eq!((lost(&world), world.size(), world.clips.kept), (3, size, size), "{:?}", world.names());
    // The first event of the new store has the number of the first of the old one.
    assert_eq!((world.whole(7_000), first), (1, 1));
    assert_eq!((lost(&world), world.rows()), (3, vec!["1.wav".to_owned()]));
    assert_eq!(world.clips.kept, world.size());
    // They give way before others do.
    world.clips.configure(config(1));
    for _ in 0..4 {
        world.whole(200_000);
    }
    assert!(lost(&world) < 3 && world.names().contains(&"1.wav".to_owned()), "{:?}", world.names());
    world.clips.configure(ClipsConfig { keep_days: 1e-6, ..config(1) });
    world.now += Duration::from_secs(3600);
    std::thread::sleep(Duration::from_millis(1100));
    world.clips.tick(world.now);
    assert_eq!(lost(&world), 0, "they are too old");
}

#[test]
fn what_cannot_be_made_whole_is_counted_and_tried_again_and_keeps_nobody_else() {
    let mut world = World::new("again");
    let (event_id, said) = world.cry();
    let (number, _, mut file) = opened(said);
    file.write_all(&sound(8_074)).unwrap();
    let part = world.dir.join(DIR).join(format!("{number}.part"));
    let aside = world.dir.join("aside");
    std::fs::rename(&part, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &part).unwrap();
    world.closed(number, None);
    assert!(matches!(world.clips.find(&event_id).0, Found::NotYet));
    std::fs::remove_file(&part).unwrap();
    std::fs::rename(&aside, &part).unwrap();
    world.clips.tick(world.now);
    assert!(matches!(world.clips.find(&event_id).0, Found::NotYet), "not at once");
    world.now += Duration::from_secs(61);
    world.clips.tick(world.now);
    assert_eq!(world.names(), [format!("{number}.wav")]);
    // Two files that are not as they were noted, in the place of one there is something.
    let (bad, good) = (world.whole(6_000), world.whole(6_000));
    world.put(&format!("{bad}.wav"), &sound(3_000));
    world.put(&format!("{good}.wav"), &sound(3_000));
    std::fs::create_dir(world.dir.join(DIR).join(format!("{bad}.part"))).unwrap();
    world.again();
    world.clips.tick(world.now);
    assert_eq!(world.clips.kept, on_disk(8_074) + on_disk(3_000) + on_disk(3_000));
    let bytes =
        |n| world.clips.table.all().unwrap().into_iter().find(|e| e.number == n).map(|e| e.about.bytes);
    assert_eq!((bytes(bad), bytes(good)), (Some(6_000), Some(3_000)));
}

#[test]
fn a_file_that_processes_die_of_is_given_up() {
    let mut world = World::new("deadly");
    let (once, said) = world.cry();
    let (first, _, mut file) = opened(said);
    file.write_all(&sound(5_000)).unwrap();
    let (twice, said) = world.cry();
    let (second, _, mut file) = opened(said);
    file.write_all(&sound(5_000)).unwrap();
    let at = |name: String| world.dir.join(DIR).join(name);
    std::fs::rename(at(format!("{first}.part")), at(format!("{first}.part1"))).unwrap();
    std::fs::rename(at(format!("{second}.part")), at(format!("{second}.part2"))).unwrap();
    world.again();
    world.clips.tick(world.now);
    world.now += Duration::from_secs(5);
    world.clips.tick(world.now);
    assert_eq!(world.names(), [format!("{first}.wav")]);
    assert!(matches!(world.clips.find(&once).0, Found::Clip(_)));
    assert!(matches!(world.clips.find(&twice).0, Found::Nothing));
}

#[test]
fn for_how_long_a_clip_is_kept_is_not_for_its_writer_to_say() {
    let mut world = World::new("times");
    for from_us in [253_402_300_799_000_000, -1, i64::MAX, i64::MIN] {
        let (event_id, said) = world.cry();
        let (number, _, mut file) = opened(said);
        file.write_all(&sound_of(from_us, 8_074)).unwrap();
        world.closed(number, None);
        let (Found::Clip(about), _) = world.clips.find(&event_id) else { panic!("{from_us}") };
        let off = timestamp::now_us() - about.from_us;
        assert!((0..1_000_000_000).contains(&off), "{from_us}: {about:?}");
    }
}

/// A camera in whose room it cries.
fn cries() -> RecordKind {
    let start_us = timestamp::now_us() - 4_000_000;
    RecordKind::Scores {
        start_us,
        step_us: 100_000,
        values: vec![0.97; 40],
        level_dbfs: -30.0,
        arrived_us: 0,
    }
}

/// A camera before which something moves.
fn moves() -> RecordKind {
    RecordKind::Motion { at_us: timestamp::now_us() - 4_000_000, motion: 0.5 }
}

/// What goes on before a camera, and the alert of that, which is stored; its id.
fn goes_on(world: &mut World, what: &RecordKind) -> String {
    let motion = Some(MotionRule { min_duration_s: 0.0, ..MotionRule::default() });
    let mut camera = CameraState::new(&DetectionConfig { motion, ..DetectionConfig::default() });
    let mut alerts = Vec::new();
    camera.apply("crib", what, &mut alerts);
    assert_eq!(alerts.len(), 1);
    let event_id = alerts[0].event_id.clone();
    let cameras = [("crib".to_owned(), camera)].into();
    Storage::commit(&mut world.store, &Batch { alerts, cameras, ..Batch::default() }, &[]).unwrap();
    event_id
}

#[test]
fn an_event_that_was_stored_by_a_process_that_died_has_a_clip_from_the_next_one() {
    for (name, what) in [("next-cry", cries()), ("next-motion", moves())] {
        let mut world = World::new(name);
        goes_on(&mut world, &what);
        world.again();
        let mut said = world.clips.tick(world.now);
        assert_eq!(said.len(), 1, "{name}");
        let (number, _, mut file) = opened(said.pop());
        file.write_all(&sound(5_000)).unwrap();
        assert!(world.clips.tick(world.now).is_empty());
        world.again();
        assert!(world.clips.tick(world.now).is_empty(), "it is there already");
        world.now += Duration::from_secs(5);
        assert!(world.clips.tick(world.now).is_empty());
        assert_eq!(world.names(), [format!("{number}.wav")]);
        world.again();
        assert!(world.clips.tick(world.now).is_empty());
    }
}

#[test]
fn motion_has_a_clip_beside_that_of_a_cry_of_the_same_camera() {
    let mut world = World::new("motion");
    let (cry, said) = world.cry();
    let (of_cry, _, mut file) = opened(said);
    file.write_all(&sound(5_000)).unwrap();
    let now = timestamp::rfc3339(timestamp::now_us());
    let data = serde_json::json!({"event_id": "m-1", "camera": "crib", "onset": now, "motion": 0.5});
    let (of_motion, _, mut file) = opened(world.tell("motion.started", "m-1", data.clone()));
    file.write_all(&sound(6_000)).unwrap();
    world.quiet(&cry).unwrap();
    world.closed(of_cry, None);
    assert!(matches!(world.clips.find("m-1").0, Found::NotYet), "the end of a cry is not that of motion");
    let mut over = data;
    over["offset"] = now.into();
    let Some((FromWorker::CloseClip { clip, .. }, None)) = world.tell("motion.ended", "m-1", over) else {
        panic!()
    };
    assert_eq!(clip, of_motion);
    world.closed(of_motion, None);
    let (Found::Clip(about), Some(_)) = world.clips.find("m-1") else { panic!() };
    assert_eq!((about.bytes, about.camera.as_str()), (6_000, "crib"));
    // Neither is taken for one of no event.
    world.again();
    world.clips.tick(world.now);
    let mut expected = [of_cry, of_motion].map(|n| format!("{n}.wav"));
    expected.sort();
    assert_eq!((world.names(), world.rows()), (expected.to_vec(), expected.to_vec()));
    let oldest = world.clips.table.oldest(timestamp::now_us(), 9).unwrap();
    assert_eq!(oldest.len(), 2, "both are over, and give way");
}

#[test]
fn a_clock_that_was_set_forward_ends_no_motion() {
    let mut world = World::new("forward-motion");
    goes_on(&mut world, &moves());
    world.again();
    let (number, _, mut file) = opened(world.clips.tick(world.now).pop());
    file.write_all(&sound(5_000)).unwrap();
    world.closed(number, None);
    let days = timestamp::now_us() + 3 * 86_400_000_000;
    assert!(world.clips.table.oldest(days, 9).unwrap().is_empty(), "its camera says that it goes on");
}

#[test]
fn a_clock_that_was_set_forward_ends_no_event() {
    let mut world = World::new("forward");
    let event_id = goes_on(&mut world, &cries());
    world.again();
    let (number, _, mut file) = opened(world.clips.tick(world.now).pop());
    file.write_all(&sound(5_000)).unwrap();
    world.closed(number, None);
    let days = timestamp::now_us() + 3 * 86_400_000_000;
    assert!(world.clips.table.oldest(days, 9).unwrap().is_empty(), "its camera says that it goes on");
    assert!(world.clips.table.bytes_of_open_events(days).unwrap() > 0);
    world.quiet(&event_id);
    assert_eq!(world.clips.table.oldest(days, 9).unwrap().len(), 1);
    let (other, said) = world.cry();
    let (number, _, mut file) = opened(said);
    file.write_all(&sound(5_000)).unwrap();
    world.closed(number, None);
    let over = world.clips.table.oldest(days, 9).unwrap();
    assert!(over.iter().any(|e| e.event_id == other), "no camera says that it goes on");
}
