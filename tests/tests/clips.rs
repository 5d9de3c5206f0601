//! Clips of events, on real processes: what is in them, that every program reads them, that they are all there and whole
//! whoever was killed when, and that they take no more of the disk than they may.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_shared::timestamp;
use nursery_tests::{
    audio,
    browser::{self, Browser},
    described::check,
    gst_camera::{self, GstCamera, Stream},
    http::{Client, free_port},
    rtsp_camera::{Codec, RtspCamera, Setup, film},
    service::{Service, camera, config},
    skip,
    temp_dir::TempDir,
    wait::{self, PATIENCE, until},
};
use serde_json::{Value, json};

const TOKEN: &str = "a token of some length";
/// An event with its seconds before and after, and the time until it is known to have ended.
const LONG: Duration = Duration::from_secs(60);

fn with_page(mut config: Value, port: u16) -> Value {
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "token": TOKEN});
    config
}

fn client(port: u16) -> Client {
    Client::new(port).with("Authorization", &format!("Bearer {TOKEN}"))
}

fn directory(service: &Service) -> PathBuf {
    service.dir().join("state/store/clips")
}

/// Files of events.
fn files(service: &Service) -> BTreeSet<PathBuf> {
    let all = fs::read_dir(directory(service)).into_iter().flatten().map(|entry| entry.unwrap().path());
    all.filter(|path| !is_lost(path)).collect()
}

/// Of no event that is stored.
fn is_lost(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with("lost-")
}

/// The ends of events that have a clip, with it.
fn clips(service: &Service) -> Vec<Value> {
    let events = service.must(["events", "--json"]);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["type"] == "cry.ended" && e["clip"].is_object()).collect()
}

fn wait_clip(service: &Service, camera: &str) -> Value {
    until(&format!("a clip of {camera}"), LONG, || {
        clips(service).into_iter().find(|event| event["data"]["camera"] == camera)
    })
}

fn ffmpeg() -> Option<&'static str> {
    let there = |program| Command::new(program).arg("-version").output().is_ok();
    (!(there("ffprobe") && there("ffmpeg"))).then_some("ffmpeg is not installed")
}

/// Seconds of a file, and the codecs in it, as ffprobe has it; what is wrong with it ends the test.
fn probe(file: &Path) -> (f64, Vec<String>) {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_format", "-show_streams"])
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{}: {said}", file.display());
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let codecs = told["streams"].as_array().unwrap().iter();
    let codecs = codecs.map(|s| s["codec_name"].as_str().unwrap().to_owned()).collect();
    (told["format"]["duration"].as_str().unwrap().parse().unwrap(), codecs)
}

/// Its sound, 16 kHz mono; every packet of every track is decoded, and what cannot be ends the test.
fn decode(file: &Path) -> Vec<i16> {
    let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(file).args(["-f", "null", "-"]).output();
    let said = String::from_utf8_lossy(&out.unwrap().stderr).into_owned();
    assert!(said.is_empty(), "{}: {said}", file.display());
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-f", "s16le", "-ar", "16000", "-ac", "1", "-"])
        .output()
        .unwrap();
    out.stdout.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

fn time(text: &Value) -> i64 {
    timestamp::parse_since(text.as_str().unwrap()).unwrap()
}

fn level(samples: &[i16]) -> f64 {
    let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    10.0 * (power / samples.len().max(1) as f64 / f64::from(i16::MAX).powi(2) + 1e-12).log10()
}

/// Holds a clip against its event: five seconds before and after. Returns the seconds before its onset.
fn around(client: &Client, event: &Value, codecs: &[&str]) -> f64 {
    let data = &event["data"];
    let file = PathBuf::from(event["clip"]["file"].as_str().unwrap());
    let (seconds, found) = probe(&file);
    assert_eq!(found, codecs, "{event}");
    let answer = client.get(&format!("/api/events/{}/clip", data["event_id"].as_str().unwrap()));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, fs::read(&file).unwrap());
    let start = time(&answer.header("x-clip-start").into());
    let (onset, offset) = (time(&data["onset"]), time(&data["offset"]));
    let before = (onset - start) as f64 / 1e6;
    let after = seconds - before - (offset - onset) as f64 / 1e6;
    assert!((4.9..8.0).contains(&before), "{before} s before: {event}");
    assert!((4.9..8.0).contains(&after), "{after} s after: {event}");
    assert!((event["clip"]["duration_s"].as_f64().unwrap() - seconds).abs() < 0.3, "{event}: {seconds}");
    before
}

/// The same of a cry, which is where it was.
fn judge(client: &Client, event: &Value, codecs: &[&str]) {
    let before = around(client, event, codecs);
    let samples = decode(Path::new(event["clip"]["file"].as_str().unwrap()));
    let part = |from: f64, until: f64| &samples[(from * 16_000.0) as usize..(until * 16_000.0) as usize];
    let (room, cry) = (level(part(1.0, 3.0)), level(part(before + 0.2, before + 1.2)));
    assert!(cry > -40.0 && cry > room + 10.0, "{cry} dBFS, {room} before: {event}");
}

#[test]
fn every_event_has_a_clip_of_what_the_camera_sent_from_before_its_onset_to_after_its_end() {
    if let Some(why) = ffmpeg() {
        skip!("{why}");
    }
    let port = free_port();
    let (hall, attic) = (RtspCamera::start(Codec::Pcmu), RtspCamera::start(Codec::Pcma));
    let door = film::film()
        .map(|film| RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() }));
    let mut cameras = vec![camera("hall", hall.url()), camera("attic", attic.url())];
    cameras.push(camera("crib", "synthetic:cry"));
    if let Some(door) = &door {
        let mut filmed = camera("door", door.url());
        filmed["video"] = "always".into();
        cameras.push(filmed);
    }
    let dir = TempDir::new();
    let nap = match gst_camera::missing() {
        None => {
            let wav = dir.join("nap.wav");
            let mut heard = audio::room_noise(12.0);
            heard.extend(audio::cry(4.0));
            heard.extend(audio::room_noise(14.0));
            audio::write_wav(&wav, &heard);
            Some(GstCamera::start(Stream::Aac16k, &wav))
        }
        Some(why) => {
            eprintln!("no camera with AAC: {why}");
            None
        }
    };
    cameras.extend(nap.as_ref().map(|nap| camera("nap", nap.url())));
    let service = Service::start(&with_page(config(cameras, []), port));
    service.wait_live(&["hall", "attic", "crib"]);
    // There must be something to remember.
    service.wait_windows("attic", 28);
    for camera in [Some(&hall), Some(&attic), door.as_ref()].into_iter().flatten() {
        camera.microphone().play(&audio::cry(4.0));
    }
    let client = client(port);
    judge(&client, &wait_clip(&service, "hall"), &["pcm_mulaw"]);
    judge(&client, &wait_clip(&service, "attic"), &["pcm_alaw"]);
    if door.is_some() {
        judge(&client, &wait_clip(&service, "door"), &["h264", "flac"]);
    }
    if nap.is_some() {
        judge(&client, &wait_clip(&service, "nap"), &["aac"]);
    }
    // The first cry may come before there is anything to remember; it is heard all the same.
    let file = wait_clip(&service, "crib")["clip"]["file"].as_str().unwrap().to_owned();
    let (seconds, codecs) = probe(Path::new(&file));
    assert!(seconds > 6.0 && codecs == ["pcm_s16le"], "{seconds} {codecs:?}");
    assert!(level(&decode(Path::new(&file))) > -60.0);
}

#[test]
fn motion_has_a_clip_of_what_was_seen_and_heard_and_is_looked_back_on() {
    if let Some(why) = ffmpeg() {
        skip!("{why}");
    }
    let Some(film) = film::film() else { skip!("{}", film::missing().unwrap_or_default()) };
    let port = free_port();
    let door = RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() });
    let mut filmed = camera("door", door.url());
    filmed["pictures"] = json!({"every_s": 0.5});
    let mut config = config([filmed], []);
    // Whoever is at this machine need not log in.
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    let service = Service::start(&config);
    service.wait_live(&["door"]);
    service.wait_for("pictures", |s| s.cameras[0].motion);
    // There must be something to remember.
    service.wait_windows("door", 40);
    let still = config.clone();
    config["detection"]["motion"] = json!({"threshold": 0.001, "min_duration_s": 1});
    service.write_config(&config);
    service.must(["reload"]);
    let client = Client::new(port);
    let event = |kind: &str| {
        let events = client.get("/api/events?camera=door").json();
        events["events"].as_array().unwrap().iter().find(|e| e["type"] == kind).cloned()
    };
    let began = until("motion", PATIENCE, || event("motion.started"));
    let id = began["data"]["event_id"].as_str().unwrap();
    let clip = format!("/api/events/{id}/clip");
    assert_eq!(client.get(&clip).status, 503, "it goes on");
    service.write_config(&still);
    service.must(["reload"]);
    let over = until("a clip of motion", LONG, || {
        let events = service.must(["events", "--json"]);
        let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.find(|e| e["type"] == "motion.ended" && e["clip"].is_object())
    });
    around(&client, &over, &["h264", "flac"]);
    let sound = decode(Path::new(over["clip"]["file"].as_str().unwrap()));
    assert!(sound.len() > 10 * 16_000, "what was heard is in it");

    let description = client.get("/api/openapi.json").json();
    let file = client.get(&format!("/api/events/{id}")).json();
    check(&json!({"$ref": "#/components/schemas/EventFile"}), &file, &description, "event").unwrap();
    assert_eq!(
        (&file["kind"], &file["score"], &file["feedback"]),
        (&json!("motion"), &Value::Null, &Value::Null)
    );
    assert_eq!(file["peak_motion"], over["data"]["peak_motion"]);
    assert_eq!((&file["onset"], &file["offset"]), (&over["data"]["onset"], &over["data"]["offset"]));
    let timeline = client.get("/api/cameras/door/timeline").json();
    check(&json!({"$ref": "#/components/schemas/Timeline"}), &timeline, &description, "timeline").unwrap();
    assert_eq!(timeline["motions"].as_array().unwrap().len(), 1, "{timeline}");
    assert_eq!(timeline["motions"][0]["event_id"], id);
    let said = client.with("Content-Type", "application/json").request(
        "POST",
        &format!("/api/events/{id}/feedback"),
        r#"{"verdict": "cry"}"#,
    );
    assert_eq!(said.status, 404, "nobody is asked whether what moved was a cry: {}", said.text());

    if let Some(why) = browser::missing() {
        eprintln!("its page is not looked at: {why}");
        return;
    }
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/#events"));
    let details = "return document.querySelector('#event-list li.motion a')?.getAttribute('aria-label')";
    browser.until("it in the list", PATIENCE, &format!("{details} !== undefined"));
    assert!(browser.run(details).as_str().unwrap().starts_with("Details of the motion at door"));
    browser.run("document.querySelector('#event-list li.motion a').click()");
    browser.until(
        "its title",
        PATIENCE,
        "return document.querySelector('#event-title').textContent.startsWith('Motion at door')",
    );
    browser.until("a player", PATIENCE, "return document.querySelector('#clip video')?.duration > 5");
    browser.run("const p = document.querySelector('#clip video'); p.muted = true; p.play()");
    browser.until("it plays", PATIENCE, "return document.querySelector('#clip video').currentTime > 2");
    assert_eq!(browser.run("return document.querySelector('#event-verdict').hidden"), json!(true));
    let facts = browser.run("return document.querySelector('#event-facts').textContent");
    assert!(facts.as_str().unwrap().contains("of the picture"), "{facts}");
    browser.run("location.hash = '#timeline/door'");
    let mark = format!(
        "return document.querySelector('#timeline-marks li.motion a[href=\"#event/{id}\"]') !== null"
    );
    browser.until("it in the timeline", PATIENCE, &mark);
    let complaints: Vec<String> =
        browser.complaints().into_iter().filter(|line| !line.contains("Failed to load resource")).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn clips_are_served_in_parts_to_who_has_logged_in_and_to_nobody_else() {
    let port = free_port();
    let crib = RtspCamera::start(Codec::Pcmu);
    let service = Service::start(&with_page(config([camera("crib", crib.url())], []), port));
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(3.0));
    let event = wait_clip(&service, "crib");
    let path = format!("/api/events/{}/clip", event["data"]["event_id"].as_str().unwrap());
    let content = fs::read(event["clip"]["file"].as_str().unwrap()).unwrap();
    let client = client(port);
    let whole = client.get(&path);
    assert_eq!((whole.status, whole.header("content-type")), (200, "audio/wav"));
    assert_eq!(whole.header("content-length"), content.len().to_string());
    assert_eq!(whole.body, content);
    let name = whole.header("content-disposition").to_owned();
    assert!(name.starts_with("inline; filename=\"crib-20") && name.ends_with("Z.wav\""), "{name}");
    for (header, value) in [
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(whole.header(header), value);
    }
    let part = client.with("Range", "bytes=100-199").get(&path);
    assert_eq!((part.status, &part.body[..]), (206, &content[100..200]));
    assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", content.len()));
    let end = client.with("Range", "bytes=-50").get(&path);
    assert_eq!((end.status, &end.body[..]), (206, &content[content.len() - 50..]));
    let beyond = client.with("Range", "bytes=99999999-").get(&path);
    assert_eq!(
        (beyond.status, beyond.header("content-range").to_owned()),
        (416, format!("bytes */{}", content.len()))
    );
    let head = client.request("HEAD", &path, "");
    assert_eq!((head.status, head.header("content-length")), (200, &*content.len().to_string()));
    assert_eq!(Client::new(port).get(&path).status, 401);
    for other in [
        "/api/events/0198c2a1-0000/clip",
        "/api/events/..%2f..%2fnursery.sqlite/clip",
        "/api/events/%00/clip",
    ] {
        assert_eq!(client.get(other).status, 404, "{other}");
    }
    // Removed behind everybody's back: said, and no harm done.
    fs::remove_file(event["clip"]["file"].as_str().unwrap()).unwrap();
    until("the file is not there any more", LONG, || (client.get(&path).status == 503).then_some(()));
    drop(service);
}

/// What is in the directory and what the store knows of are the same, and all of it can be read.
fn agree(service: &Service) -> Result<usize, String> {
    let known: BTreeSet<PathBuf> =
        clips_of_any(service).iter().map(|c| PathBuf::from(c["file"].as_str().unwrap())).collect();
    let there = files(service);
    if known != there {
        return Err(format!("known: {known:?}, there: {there:?}"));
    }
    Ok(there.len())
}

fn clips_of_any(service: &Service) -> Vec<Value> {
    let events = service.must(["events", "--json"]);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|e| e["clip"].clone()).filter(Value::is_object).collect()
}

#[test]
fn whoever_is_killed_while_a_clip_is_written_every_file_is_whole_or_gone_and_known() {
    if let Some(why) = ffmpeg() {
        skip!("{why}");
    }
    let port = free_port();
    let (hall, attic) = (RtspCamera::start(Codec::Pcmu), RtspCamera::start(Codec::L16));
    let door = film::film()
        .map(|film| RtspCamera::with(Setup { codec: Codec::Pcmu, film: Some(film), ..Setup::default() }));
    let mut cameras = vec![camera("hall", hall.url()), camera("attic", attic.url())];
    if let Some(door) = &door {
        let mut filmed = camera("door", door.url());
        filmed["video"] = "always".into();
        cameras.push(filmed);
    }
    let mut config = with_page(config(cameras, []), port);
    config["detection"]["cooldown_s"] = 0.into();
    config["clips"] = json!({"before_s": 2, "after_s": 1});
    let mut service = Service::start(&config);
    let all: Vec<&RtspCamera> = [Some(&hall), Some(&attic), door.as_ref()].into_iter().flatten().collect();
    service.wait_live(&["hall", "attic"]);
    for victim in ["capture:hall", "sink", "supervisor", "capture:attic", "web"] {
        let is_part = |path: &PathBuf| path.extension().is_some_and(|e| e == "part");
        let before = files(&service).len();
        all.iter().for_each(|camera| camera.microphone().play(&audio::cry(5.0)));
        // Each has begun, and something of it is in its file.
        until(&format!("clips are being written before {victim} is killed"), LONG, || {
            let parts: Vec<PathBuf> = files(&service).into_iter().filter(is_part).collect();
            let begun = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.len() > 8_000);
            (parts.len() == all.len() && parts.iter().all(begun)).then_some(())
        });
        if victim == "supervisor" {
            service.kill();
            service.start_again();
        } else {
            let process = service.process_of(victim);
            process.signal(Signal::SIGKILL);
            service.wait_replaced(victim, process);
        }
        until(&format!("after {victim} was killed all is in order"), LONG, || {
            let whole = files(&service).iter().all(|path| !is_part(path));
            (whole && agree(&service).is_ok_and(|n| n >= before + all.len())).then_some(())
        });
        for file in files(&service) {
            let (seconds, _) = probe(&file);
            assert!(seconds > 0.5 && !decode(&file).is_empty(), "{}", file.display());
        }
        // Until all of them are heard again, and quiet.
        service.wait_live(&["hall", "attic"]);
        until("all cries are over", LONG, || {
            let events = service.must(["events", "--json"]);
            let count = |kind: &str| events.lines().filter(|l| l.contains(kind)).count();
            (count("cry.started") == count("cry.ended")).then_some(())
        });
    }
    // What has no file is not known for long, and what is of no event is told apart.
    let file = files(&service).pop_first().unwrap();
    service.stop();
    fs::remove_file(&file).unwrap();
    fs::write(directory(&service).join("99999.wav"), b"RIFF").unwrap();
    fs::write(directory(&service).join("99998.part"), b"").unwrap();
    service.start_again();
    until("rows and files agree", LONG, || agree(&service).ok());
    assert!(!files(&service).contains(&file));
    let lost = fs::read_dir(directory(&service)).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(lost.filter(|path| is_lost(path)).count(), 2);
}

#[test]
fn a_camera_whose_process_is_sent_home_while_a_clip_is_written_leaves_a_whole_one_and_goes_in_peace() {
    if let Some(why) = ffmpeg() {
        skip!("{why}");
    }
    let film = RtspCamera::with(Setup { film: film::film(), ..Setup::default() });
    let plain = RtspCamera::start(Codec::L16);
    let mut filming = camera("film", film.url());
    filming["video"] = json!("always");
    let cameras = [filming, camera("plain", plain.url()), camera("toy", "synthetic:cry")];
    let service = Service::start(&with_page(config(cameras, []), free_port()));
    let names = ["film", "plain", "toy"];
    service.wait_live(&names);
    [&film, &plain].iter().for_each(|camera| camera.microphone().play(&audio::cry(20.0)));
    until("a clip of each that is being written", LONG, || {
        let parts = files(&service).into_iter().filter(|f| f.extension().is_some_and(|e| e == "part"));
        (parts.count() == names.len()).then_some(())
    });
    for name in names {
        service.must(["restart", &format!("capture:{name}")]);
    }
    for name in names {
        let worker = format!("capture:{name}");
        let exit = service.wait_for("another process", |s| {
            let worker = s.workers.iter().find(|w| w.name == worker)?;
            (worker.restarts > 0).then(|| worker.last_exit.clone())
        });
        let said: Vec<String> = service.log().into_iter().filter(|l| l.contains(&worker)).collect();
        assert_eq!(exit.as_deref(), Some("exit status 0"), "{name}: {}", said.join("\n"));
    }
    until("three whole clips", LONG, || {
        let whole: Vec<PathBuf> = files(&service)
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| ["wav", "m4a", "mp4"].iter().any(|known| e == *known)))
            .collect();
        (whole.len() >= 3).then(|| whole.iter().for_each(|file| assert!(probe(file).0 > 1.0)))
    });
}

#[test]
fn clips_never_take_more_of_the_disk_than_they_may() {
    let port = free_port();
    let cameras: Vec<RtspCamera> = (0..3).map(|_| RtspCamera::start(Codec::L16)).collect();
    let named = cameras.iter().enumerate().map(|(n, c)| camera(&format!("c{n}"), c.url()));
    let mut config = with_page(config(named, []), port);
    config["detection"]["cooldown_s"] = 0.into();
    config["detection"]["end_after_s"] = 1.into();
    config["clips"] = json!({"keep_mb": 1, "before_s": 2, "after_s": 1});
    let service = Service::start(&config);
    service.wait_live(&["c0", "c1", "c2"]);
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = {
        let (done, most, directory) = (Arc::clone(&done), Arc::clone(&most), directory(&service));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let files = fs::read_dir(&directory).into_iter().flatten().flatten();
                let bytes =
                    files.filter_map(|f| f.metadata().ok()).map(|m| m.len().next_multiple_of(4096)).sum();
                most.fetch_max(bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    // 32 KB a second each; with what is remembered more than a megabyte of each.
    let mut cry = audio::cry(3.0);
    cry.extend(audio::room_noise(4.0));
    for _ in 0..6 {
        cameras.iter().for_each(|camera| camera.microphone().play(&cry));
    }
    let ended = until("many events are over", Duration::from_secs(120), || {
        let events = service.must(["events", "--json"]);
        let ended = events.lines().filter(|l| l.contains("cry.ended")).count();
        (ended >= 12).then_some(ended)
    });
    done.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let most = most.load(Ordering::Relaxed);
    eprintln!("{ended} events, {most} bytes at the most");
    assert!(most <= 1 << 20, "{most} bytes");
    assert!(most > 300_000, "{most} bytes: hardly anything was kept");
    let kept = until("rows and files agree", LONG, || agree(&service).ok());
    assert!(kept >= 2 && kept < ended, "{kept} of {ended}");
}

#[test]
fn without_a_page_nothing_is_kept_unless_it_is_asked_for_and_a_reload_asks() {
    let crib = RtspCamera::start(Codec::Pcmu);
    let mut config = config([camera("crib", crib.url())], []);
    config["detection"]["cooldown_s"] = 0.into();
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(3.0));
    let over = |count: usize| {
        let events = service.must(["events", "--json"]);
        (events.lines().filter(|l| l.contains("cry.ended")).count() >= count).then_some(())
    };
    until("a cry is over", LONG, || over(1));
    assert!(files(&service).is_empty());
    config["clips"] = json!({"enabled": true, "after_s": 1});
    service.write_config(&config);
    let capture = service.process_of("capture:crib");
    assert!(service.must(["reload"]).contains("clips.enabled"), "{}", service.must(["reload"]));
    service.wait_windows("crib", 24);
    crib.microphone().play(&audio::cry(3.0));
    let event = wait_clip(&service, "crib");
    assert!(event["clip"]["duration_s"].as_f64().unwrap() > 6.0, "{event}");
    assert_eq!(service.process_of("capture:crib"), capture, "nobody had to begin anew");
}

#[test]
fn a_disk_without_room_ends_the_clip_and_not_the_event() {
    let port = free_port();
    let crib = RtspCamera::start(Codec::L16);
    let mut config = with_page(config([camera("crib", crib.url())], []), port);
    config["detection"]["cooldown_s"] = 0.into();
    config["clips"] = json!({"before_s": 2, "after_s": 1});
    let mut service = Service::start(&config);
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(2.0));
    wait_clip(&service, "crib");
    service.stop();
    let small = SmallDisk::mount(&directory(&service), "100k");
    let Some(small) = small else {
        skip!("no file system can be mounted here");
    };
    service.start_again();
    service.wait_live(&["crib"]);
    crib.microphone().play(&audio::cry(8.0));
    let event = until("the event is over, and its clip is short", LONG, || {
        clips(&service).into_iter().find(|e| Path::new(e["clip"]["file"].as_str().unwrap()).exists())
    });
    assert!(event["data"]["duration_s"].as_f64().unwrap() > 4.0, "{event}");
    assert!(event["clip"]["duration_s"].as_f64().unwrap() < 6.0, "{event}");
    let said = client(port).get(&format!("/api/events/{}/clip", event["data"]["event_id"].as_str().unwrap()));
    assert!(said.header("x-clip-note").to_lowercase().contains("no space"), "{}", said.header("x-clip-note"));
    if ffmpeg().is_none() {
        probe(Path::new(event["clip"]["file"].as_str().unwrap()));
    }
    service.stop();
    drop(small);
}

#[test]
fn a_disk_that_is_full_costs_clips_and_no_event() {
    let crib = RtspCamera::start(Codec::L16);
    let mut config = config([camera("crib", crib.url())], []);
    config["detection"]["cooldown_s"] = 0.into();
    config["clips"] = json!({"enabled": true, "before_s": 2, "after_s": 1});
    let mut service = Service::start(&config);
    service.wait_live(&["crib"]);
    service.stop();
    let store = service.dir().join("state/store");
    let Some(small) = SmallDisk::mount(&store, "16m") else {
        skip!("no file system can be mounted here");
    };
    service.start_again();
    service.wait_live(&["crib"]);
    let ended = |service: &Service| {
        let events = service.must(["events", "--json"]);
        events.lines().filter(|l| l.contains("cry.ended")).count()
    };
    for n in 1..=2 {
        crib.microphone().play(&audio::cry(4.0));
        until(&format!("{n} clips are there"), LONG, || {
            let parts = files(&service).iter().any(|path| path.extension().is_some_and(|e| e != "wav"));
            (clips(&service).len() == n && !parts).then_some(())
        });
    }
    let first = files(&service).pop_first().unwrap();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(store.join("of-somebody")).unwrap();
    for size in [1 << 16, 1] {
        while file.write(&vec![1; size]).is_ok_and(|n| n > 0) {}
    }
    crib.microphone().play(&audio::cry(4.0));
    until("the cry is stored", LONG, || (ended(&service) == 3).then_some(()));
    assert!(!first.exists(), "the oldest clip is still there");
    let log = service.must(["logs"]);
    assert!(log.contains("clips give way to the store") || log.contains("the oldest were removed"), "{log}");
    service.stop();
    drop(small);
}

/// A file system of such a size in the place of a directory, which belongs to whom it belonged.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: &Path, size: &str) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(place).unwrap();
        let options = format!("size={size},mode=700,uid={},gid={}", owner.uid(), owner.gid());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place);
        wait::output(&mut mount, PATIENCE).status.success().then(|| Self(place.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn the_page_plays_a_clip_and_shows_its_spectrogram() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let port = free_port();
    let crib = RtspCamera::start(Codec::Pcmu);
    let mut config = config([camera("crib", crib.url())], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    service.wait_windows("crib", 24);
    crib.microphone().play(&audio::cry(4.0));
    let event = wait_clip(&service, "crib");
    let id = event["data"]["event_id"].as_str().unwrap();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/#event/{id}"));
    browser.until("a player", PATIENCE, "return document.querySelector('#clip audio')?.duration > 5");
    browser.until(
        "a spectrogram",
        PATIENCE,
        "return Number(document.querySelector('#clip canvas')?.dataset.seconds) > 5",
    );
    let seconds = browser.run("return document.querySelector('#clip canvas').dataset.seconds");
    let seconds: f64 = seconds.as_str().unwrap().parse().unwrap();
    assert!((seconds - event["clip"]["duration_s"].as_f64().unwrap()).abs() < 0.2, "{seconds}");
    // Bright where it cries, and darker before. The detector's scores are said, too.
    let brightness = |from: f64, until: f64| {
        let script = format!(
            "const c = document.querySelector('#clip canvas'); const g = c.getContext('2d'); \
             const x = Math.floor(c.width * {from}), w = Math.max(1, Math.floor(c.width * {until}) - x); \
             const d = g.getImageData(x, Math.floor(c.height * 0.1), w, Math.floor(c.height * 0.6)).data; \
             let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i]; return sum / (d.length / 4);"
        );
        browser.run(&script).as_f64().unwrap()
    };
    let at = |second: f64| second / seconds;
    let (room, cry) = (brightness(at(1.5), at(4.0)), brightness(at(5.5), at(7.5)));
    assert!(cry > room + 10.0, "{cry} in the cry, {room} before");
    let label = browser.run("return document.querySelector('#clip canvas').getAttribute('aria-label')");
    assert!(label.as_str().unwrap().contains("percent sure"), "{label}");
    browser.run(
        "const c = document.querySelector('#clip canvas'), r = c.getBoundingClientRect(); \
         c.dispatchEvent(new MouseEvent('click', {clientX: r.left + r.width / 2, clientY: r.top + 9}));",
    );
    let there = "const p = document.querySelector('#clip audio'); \
                 return !p.seeking && p.readyState >= 2 && Math.abs(p.currentTime - p.duration / 2) < 1";
    browser.until("it goes where it was clicked", PATIENCE, there);
    browser.run("const p = document.querySelector('#clip audio'); p.muted = true; p.play()");
    let plays =
        "const p = document.querySelector('#clip audio'); return p.currentTime > p.duration / 2 + 1.5";
    browser.until("it plays", PATIENCE, plays);
    browser.run("location.hash = '#wall'");
    browser.until("nothing plays on", PATIENCE, "return document.querySelector('#clip audio') === null");
    let narrow = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.run(narrow), json!(true));
    let strange: Vec<String> =
        browser.complaints().into_iter().filter(|line| !line.contains("Failed to load resource")).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    drop(service);
}
