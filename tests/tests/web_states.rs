//! The page in a real browser, before states that a test makes: it says that all is quiet only where that is known, and what
//! it does not know.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs::{self, File},
    io::Write,
    thread,
    time::{Duration, Instant},
};

use nursery_shared::{
    clip::{About, Format},
    history::StoredEvent,
    status::Status,
    timestamp,
};
use nursery_tests::{
    browser::{self, Browser},
    skip,
    temp_dir::TempDir,
    wait::{PATIENCE, until},
    web_worker::{self, WebWorker},
};
use serde_json::{Value, json};

/// A camera that is heard and judged, and everybody who is needed for it; changed in one place.
fn state(pointer: &str, value: Value) -> Status {
    let mut all = serde_json::to_value(web_worker::status()).unwrap();
    let worker = |name: &str, role: &str| {
        json!({"name": name, "role": role, "pid": 1, "state": "running", "uptime_s": 1.0, "restarts": 0, "last_exit": null,
            "progress": 1, "progress_age_s": 0.1, "rss_bytes": 1, "cpu_s": 0.1, "cage": null})
    };
    all["workers"] = json!([worker("infer:0", "infer"), worker("sink", "sink")]);
    if !pointer.is_empty() {
        *all.pointer_mut(pointer).unwrap() = value;
    }
    serde_json::from_value(all).unwrap()
}

fn cry(id: i64, kind: &str, at_us: i64) -> StoredEvent {
    let time = timestamp::rfc3339(at_us);
    let data = json!({"camera": "crib", "event_id": format!("e{id}"), "onset": time, "offset": time, "score": 0.9,
        "peak_score": 0.9, "duration_s": 1.0});
    StoredEvent { id, json: json!({"type": kind, "timestamp": time, "data": data}).to_string() }
}

#[test]
fn all_is_quiet_only_where_everybody_is_heard_and_judged_and_cries_are_known_and_told() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let web = WebWorker::showing(state("", Value::Null), None);
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/", web.client.address));
    let says = |text: &str| {
        let script = format!("return document.getElementById('summary').textContent === '{text}'");
        browser.until(text, PATIENCE, &script);
    };
    // The store has not answered yet, and it cries.
    says("Not known what cries: events are awaited.");
    assert!(web.client.get("/api/status").json()["cameras"][0]["crying"].is_null());
    web.shown().events = Some(vec![cry(1, "cry.started", timestamp::now_us() - 3_600_000_000)]);
    says("Crying: crib.");
    assert_eq!(browser.run("return document.title"), json!("CRYING: crib"));
    let over = cry(2, "cry.ended", timestamp::now_us() - 1_800_000_000);
    web.shown().events.as_mut().unwrap().push(over);
    says("1 cameras, all quiet.");
    assert_eq!(browser.run("return document.getElementById('announcer').textContent"), json!(""), "old news");
    for (pointer, value, text) in [
        ("/cameras/0/state", json!("stalled"), "Not heard at the moment: crib."),
        ("/cameras/0/state", json!("connecting"), "Not heard at the moment: crib."),
        ("/cameras/0/state", json!("offline"), "Not heard: crib."),
        ("/cameras/0/score", Value::Null, "Heard, but not judged yet: crib."),
        ("/workers/0/state", json!("backoff"), "Nobody judges what is heard: no inference process runs."),
        (
            "/workers/1/state",
            json!("backoff"),
            "Cries are not stored or told at the moment: the sink does not run.",
        ),
        (
            "/workers",
            json!([]),
            "Nobody judges what is heard: no inference process runs. \
            Cries are not stored or told at the moment: the sink does not run.",
        ),
        ("/cameras", json!([]), "There is no camera."),
    ] {
        web.shown().status = state(pointer, value);
        says(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    web.shown().status = state("/alerts/failing_since", json!("2026-01-31T02:03:04.500Z"));
    browser.until(
        "that nobody is told",
        PATIENCE,
        "return document.getElementById('summary').textContent.startsWith('Alerts have not been delivered since ')",
    );
    web.shown().status = state("/cameras/0/state", json!("ended"));
    says("1 cameras, all quiet.");
    web.shown().status = state("/cameras/0/dropped", json!(1_000));
    says("Part of what is heard is not judged: there is too much of it.");
    says("1 cameras, all quiet.");
}

#[test]
fn what_happened_before_the_page_was_there_is_no_news() {
    let web = WebWorker::showing(web_worker::status(), None);
    let mut fresh = web.client.stream("/api/stream").unwrap();
    let mut known = web.client.with("Last-Event-ID", "2").stream("/api/stream").unwrap();
    let hello = fresh.wait_for("hello", PATIENCE, |e| e.kind == "hello");
    assert_eq!(hello.data["newest"], Value::Null);
    known.wait_for("that nothing is known", PATIENCE, |e| {
        assert!(!["reset", "event"].contains(&e.kind.as_str()));
        e.kind == "status" && e.data["cameras"][0]["crying"].is_null()
    });
    let old = |id| cry(id, "cry.ended", timestamp::now_us() - 3_600_000_000);
    web.shown().events = Some((1..=3).map(old).collect());
    // Who was here before gets what is missing, and is not told to begin anew; who was not gets what is new.
    let missed = known.wait_for("what was missed", PATIENCE, |e| {
        assert_ne!(e.kind, "reset");
        e.kind == "event"
    });
    assert_eq!(missed.id, Some(3));
    web.shown().events.as_mut().unwrap().push(cry(4, "cry.started", timestamp::now_us()));
    let first = fresh.wait_for("an event", PATIENCE, |e| e.kind == "event" || e.kind == "reset");
    assert_eq!((first.kind.as_str(), first.id), ("event", Some(4)));
}

#[test]
fn where_there_are_too_many_streams_the_page_says_so_and_who_only_hears_it_is_not_told_every_second() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let web = WebWorker::showing(state("", Value::Null), Some(Vec::new()));
    let streams: Vec<_> = (0..64).map(|_| web.client.stream("/api/stream").unwrap()).collect();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/", web.client.address));
    let said = "return document.getElementById('freshness-said').textContent";
    browser.until(
        "why it is not up to date",
        Duration::from_secs(9),
        "return document.getElementById('freshness').textContent.includes('too many streams are open') && \
         document.title.startsWith('NOT UP TO DATE')",
    );
    let first = browser.run(said);
    assert!(first.as_str().unwrap().starts_with("Not up to date: "), "{first}");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(browser.run(said), first);
    drop(streams);
    browser.until("that it is up to date", PATIENCE, "return document.getElementById('freshness').hidden");
    // By keyboard: what a link leads to has the focus, and the tab says what it is.
    browser.until(
        "a camera",
        PATIENCE,
        "return document.querySelector('#cameras a[aria-label=\"Watch crib\"]') !== null",
    );
    browser.run(
        "const a = document.querySelector('#cameras a[aria-label=\"Watch crib\"]'); a.focus(); a.click()",
    );
    browser.until(
        "the focus",
        PATIENCE,
        "return document.activeElement.id === 'live-title' && document.title === 'Live: crib – nursery'",
    );
    // Another name for the same place moves nothing.
    browser.run(
        "document.getElementById('live-picture').focus(); document.getElementById('live-picture').click()",
    );
    browser.until("sound only", PATIENCE, "return location.hash === '#live/crib/sound' && !live.pictures");
    assert_eq!(browser.run("return document.activeElement.id"), json!("live-picture"));
    browser.run("location.hash = 'timeline/crob'");
    browser.until(
        "that nobody has this name",
        PATIENCE,
        "return document.activeElement.id === 'timeline-title'",
    );
}

/// Three seconds of a tone, 16 bit, 8 kHz.
fn wav() -> Vec<u8> {
    let samples: Vec<u8> =
        (0..24_000).flat_map(|n| (((f64::from(n) * 0.35).sin() * 8000.0) as i16).to_le_bytes()).collect();
    let length = samples.len() as u32;
    let mut all = b"RIFF".to_vec();
    all.extend((length + 36).to_le_bytes());
    all.extend(b"WAVEfmt ");
    all.extend(16u32.to_le_bytes());
    [1u16, 1].iter().for_each(|x| all.extend(x.to_le_bytes()));
    [8000u32, 16_000].iter().for_each(|x| all.extend(x.to_le_bytes()));
    [2u16, 16].iter().for_each(|x| all.extend(x.to_le_bytes()));
    all.extend(b"data");
    all.extend(length.to_le_bytes());
    all.extend(samples);
    all
}

fn about(bytes: u64) -> About {
    let now = timestamp::now_us();
    About {
        format: Format::Wav,
        camera: "crib".into(),
        from_us: now - 3_000_000,
        until_us: now,
        bytes,
        note: None,
    }
}

#[test]
fn a_clip_whose_connection_breaks_is_said_to_and_asked_for_again_and_its_player_is_there_before() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let dir = TempDir::new();
    let web = WebWorker::start();
    let content = wav();
    let mut file = File::create(dir.join("clip")).unwrap();
    file.write_all(&content[..20_000]).unwrap();
    let path = dir.join("clip");
    web.shown().clip = Some((about(content.len() as u64), File::open(&path).unwrap()));
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://{}/#event/e1", web.client.address));
    browser.until(
        "that it is tried again",
        PATIENCE,
        "return document.getElementById('clip').textContent.includes('it will be tried again')",
    );
    assert_eq!(browser.run("return document.querySelector('#clip audio') !== null"), json!(true));
    file.write_all(&content[20_000..]).unwrap();
    let seconds = "return Number(document.querySelector('#clip canvas').dataset.seconds) === 3";
    browser.until("its spectrogram", PATIENCE, seconds);
    // One that is too large for a phone's memory is played, and not looked at.
    let large = 31_000_000;
    File::options().write(true).open(&path).unwrap().set_len(large).unwrap();
    web.shown().clip = Some((about(large), File::open(&path).unwrap()));
    browser.run("location.hash = 'event/e2'");
    browser.until(
        "a player alone",
        PATIENCE,
        "return document.querySelector('#clip audio') !== null && document.querySelector('#clip canvas').hidden && \
         document.getElementById('clip').textContent.includes('too large for a spectrogram')",
    );
}

#[test]
fn the_file_of_a_clip_is_closed_soon_although_nobody_asks_any_more() {
    let dir = TempDir::new();
    let web = WebWorker::start();
    let path = dir.join("removed-clip");
    fs::write(&path, wav()).unwrap();
    web.shown().clip = Some((about(wav().len() as u64), File::open(&path).unwrap()));
    let is_open = || {
        let all = fs::read_dir(format!("/proc/{}/fd", web.pid())).unwrap();
        all.flatten()
            .filter_map(|d| fs::read_link(d.path()).ok())
            .any(|p| p.to_string_lossy().contains("removed-clip"))
    };
    assert_eq!(web.client.get("/api/events/e1/clip").body, wav());
    assert!(is_open(), "kept for a player that asks for its next part");
    let asked = Instant::now();
    fs::remove_file(&path).unwrap();
    until("its room is free", Duration::from_secs(60), || (!is_open()).then_some(()));
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
}

/// Texts that stand out too little from what is behind them, by the formula of WCAG 2: `TEXT RATIO`, one to a line.
const TOO_FAINT: &str = r#"
    const parse = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const [r, g, b, a] = parse(getComputedStyle(at).backgroundColor);
            if (a === undefined || a === 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const node of document.body.querySelectorAll("*")) {
        const text = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
        if (!text || !node.checkVisibility() || node.tagName === "OPTION") continue;
        const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))].sort((a, b) => b - a);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.push(`${text} ${ratio.toFixed(2)}`);
    }
    return faint.join("\n");
"#;

#[test]
fn every_word_can_be_read_by_day_and_by_night() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let mut status = serde_json::to_value(state("", Value::Null)).unwrap();
    let camera = status["cameras"][0].clone();
    let states = ["live", "live", "offline", "stalled", "connecting", "ended"];
    let cameras: Vec<Value> = ["crib", "cot", "attic", "hall", "yard", "tape"]
        .iter()
        .zip(states)
        .map(|(name, state)| {
            let mut camera = camera.clone();
            (camera["name"], camera["state"], camera["last_error"]) =
                ((*name).into(), state.into(), "why".into());
            camera
        })
        .collect();
    status["cameras"] = cameras.into();
    let web = WebWorker::showing(serde_json::from_value(status).unwrap(), None);
    web.shown().events = Some(vec![cry(1, "cry.started", timestamp::now_us() - 5_000_000)]);
    // A desk has it light, a phone dark.
    for (width, height) in [(1280, 800), (390, 844)] {
        let browser = Browser::start(width, height);
        for view in ["", "#events", "#workers"] {
            browser.open(&format!("http://{}/{view}", web.client.address));
            browser.until(
                "a crying camera",
                PATIENCE,
                "return Boolean(document.querySelector('.card.crying'))",
            );
            assert_eq!(browser.run(TOO_FAINT), json!(""), "{width} {view:?}");
        }
    }
}
