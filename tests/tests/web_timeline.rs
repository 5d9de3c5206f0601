//! Looking back, on real processes: the curves of a camera, its cries and outages, and what people say of them, over the
//! API, as a table and in a real browser; and that all of it outlives the process that stored it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nix::sys::signal::Signal;
use nursery_tests::{
    audio,
    browser::{self, Browser},
    http::{Client, free_port},
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    skip,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const TOKEN: &str = "a token of some length";
const PASSWORD: &str = "open sesame";

/// A camera before which a baby cries once, and its event when that is over.
fn after_a_cry(port: u16) -> (Service, Client, RtspCamera, Value) {
    let crib = RtspCamera::start(Codec::L16);
    let mut config = config([camera("crib", crib.url()), camera("attic", "synthetic:noise")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "token": TOKEN, "password": PASSWORD});
    config["detection"]["offline_after_s"] = 3.into();
    let service = Service::start(&config);
    service.wait_live(&["crib", "attic"]);
    service.process_of("web");
    crib.microphone().play(&audio::cry(5.0));
    let client = Client::new(port).with("Authorization", &format!("Bearer {TOKEN}"));
    let ended = until("the cry is over", PATIENCE, || {
        let events =
            client.try_request("GET", "/api/events?camera=crib", "").ok().filter(|r| r.status == 200)?.json();
        events["events"].as_array()?.iter().find(|e| e["type"] == "cry.ended").cloned()
    });
    (service, client, crib, ended)
}

/// The score of each second between two times of a curve, where there is one.
fn scores(curve: &Value) -> Vec<f64> {
    curve["score"].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
}

fn say(client: &Client, event: &str, body: &str) -> nursery_tests::http::Response {
    let client = client.with("Content-Type", "application/json");
    client.request("POST", &format!("/api/events/{event}/feedback"), body)
}

#[test]
fn what_was_heard_and_what_people_say_of_it_is_there_afterwards_and_survives_the_sink() {
    let (service, client, crib, ended) = after_a_cry(free_port());
    let event = ended["data"]["event_id"].as_str().unwrap().to_owned();
    let path = "/api/cameras/crib/timeline?from=5m&points=600";
    let seen = client.get(path).json();
    assert_eq!((&seen["camera"], &seen["threshold"]), (&json!("crib"), &json!(0.5)));
    let cry = &seen["cries"][0];
    assert_eq!((&cry["event_id"], &cry["onset"]), (&ended["data"]["event_id"], &ended["data"]["onset"]));
    assert_eq!((&cry["offset"], &cry["feedback"]), (&ended["data"]["offset"], &Value::Null));
    // What is not stored yet is in it, too.
    let heard = scores(&seen["curve"]);
    assert!(
        heard.len() >= 5 && heard.iter().any(|p| *p > 0.8) && heard.iter().any(|p| *p < 0.5),
        "{heard:?}"
    );
    let levels = seen["curve"]["level_dbfs"].as_array().unwrap();
    assert_eq!(levels.len(), seen["curve"]["score"].as_array().unwrap().len());
    assert!(levels.iter().filter_map(Value::as_f64).any(|l| l > -60.0));
    let nobody = client.get("/api/cameras/nobody/timeline");
    assert_eq!(nobody.status, 404, "a name that was mistyped is no quiet night: {}", nobody.text());
    let before = client.get("/api/cameras/crib/timeline?from=10d&until=9d");
    assert_eq!((before.status, &before.json()["cries"]), (200, &json!([])), "of one that is there, nothing");
    for bad in ["points=0", "from=never", "from=1m&until=2m", "from=100d"] {
        assert_eq!(client.get(&format!("/api/cameras/crib/timeline?{bad}")).status, 400, "{bad}");
    }
    // The event alone, from before its onset to after its end.
    let file = client.get(&format!("/api/events/{event}")).json();
    assert_eq!((&file["camera"], &file["feedback"]), (&json!("crib"), &Value::Null));
    assert!(file["curve"]["from"].as_str().unwrap() < file["onset"].as_str().unwrap());
    assert!(scores(&file["curve"]).iter().any(|p| *p > 0.8), "{file}");
    for unknown in ["0198c2a1-0000-7000-8000-000000000000", "..", "a%20b", &"x".repeat(70)] {
        assert_eq!(client.get(&format!("/api/events/{unknown}")).status, 404, "{unknown}");
    }
    // What people say: by who may, from here, and of something that is there.
    let stranger = Client::new(client.address.port());
    let verdict = r#"{"verdict": "not_cry"}"#;
    assert_eq!(say(&stranger, &event, verdict).status, 401);
    assert_eq!(say(&client.with("Sec-Fetch-Site", "cross-site"), &event, verdict).status, 403);
    assert_eq!(client.request("POST", &format!("/api/events/{event}/feedback"), verdict).status, 415);
    for bad in [r#"{"verdict": "maybe"}"#, "{}", "verdict"] {
        assert_eq!(say(&client, &event, bad).status, 400, "{bad}");
    }
    assert_eq!(say(&client, "0198c2a1-0000-7000-8000-000000000000", verdict).status, 404);
    assert_eq!(say(&client, &event, r#"{"verdict": "cry"}"#).status, 200);
    let noted = say(&client.with("Sec-Fetch-Site", "same-origin"), &event, verdict).json();
    assert_eq!(noted["feedback"]["verdict"], "not_cry");
    assert_eq!(noted["feedback"]["by"], "page");
    // It is on the disk when it is acknowledged; curves are a few seconds later.
    let before = scores(&client.get(path).json()["curve"]).len();
    until("curves are stored", PATIENCE, || {
        let stored = service.must(["export", "--since", "10m", "--what", "scores", "--camera", "crib"]);
        (stored.lines().count() > before).then_some(())
    });
    let sink = service.process_of("sink");
    sink.signal(Signal::SIGKILL);
    service.wait_replaced("sink", sink);
    let again = until("the store answers", PATIENCE, || {
        client.try_request("GET", &format!("/api/events/{event}"), "").ok().filter(|r| r.status == 200)
    });
    assert_eq!(again.json()["feedback"], noted["feedback"]);
    assert!(scores(&client.get(path).json()["curve"]).len() >= before, "nothing that was stored is gone");
    // As labels, and for people.
    let labels = service.must(["export", "--since", "1h", "--what", "feedback"]);
    let expected = format!(
        "crib,{},{},not_cry,{event},",
        ended["data"]["onset"].as_str().unwrap(),
        ended["data"]["offset"].as_str().unwrap()
    );
    assert_eq!(labels.lines().next(), Some("camera,onset,offset,verdict,event_id,at,by"));
    assert!(labels.lines().nth(1).is_some_and(|line| line.starts_with(&expected)), "{labels}\n{expected}");
    assert_eq!(labels.lines().count(), 2);
    assert!(service.must(["events", "--camera", "crib"]).contains("(said to be no cry)"));
    assert!(service.must(["events", "--json"]).contains(r#""feedback":"not_cry""#));
    let told = service.must(["export", "--since", "1h", "--format", "jsonl"]);
    let first: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["event_id"]), (&json!("cry.started"), &json!(event)));
    assert_eq!(
        service.must(["export", "--since", "1h", "--until", "30m"]).lines().count(),
        1,
        "the head alone"
    );
    let wrong = service.cli(["export", "--since", "1h", "--until", "2h"]);
    assert_eq!(wrong.status.code(), Some(2));
    // A camera that goes is an outage, with its end when it is over.
    drop(crib);
    let lost = until("the outage is on the timeline", PATIENCE, || {
        client.get(path).json()["outages"].as_array()?.first().cloned()
    });
    assert_eq!(lost["until"], Value::Null);
    let lines = service.must(["export", "--since", "1h", "--what", "outages", "--camera", "crib"]);
    assert!(lines.contains(lost["event_id"].as_str().unwrap()), "{lines}");
    assert_eq!(
        service.must(["export", "--since", "1h", "--what", "outages", "--camera", "attic"]).lines().count(),
        1
    );
    for text in [lines, labels, service.log().join("\n")] {
        assert!(!text.contains(TOKEN) && !text.contains(PASSWORD));
    }
}

#[test]
fn a_night_is_seen_in_a_browser_and_what_this_was_is_said_there() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let port = free_port();
    let (service, client, _crib, ended) = after_a_cry(port);
    let event = ended["data"]["event_id"].as_str().unwrap();
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.until("a login", PATIENCE, "return document.activeElement?.id === 'password'");
    browser.type_text(&format!("{PASSWORD}\n"));
    browser.until(
        "the wall leads on",
        PATIENCE,
        "return document.querySelector('a[href=\"#timeline/crib\"]') !== null",
    );
    browser.run("document.querySelector('a[href=\"#timeline/crib\"]').click()");
    let drawn = "return (document.querySelector('#timeline-picture path.score')?.getAttribute('d') ?? '').length > 10";
    browser.until("the score is drawn", PATIENCE, drawn);
    browser.run("[...document.querySelectorAll('#timeline-spans button')].find((b) => b.textContent === '1 h').click()");
    let marked =
        format!("return document.querySelector('#timeline-picture a[href=\"#event/{event}\"]') !== null");
    browser.until("the cry is on it", PATIENCE, &marked);
    let pressed = "return document.querySelector('#timeline-spans [aria-pressed=true]').textContent";
    assert_eq!(browser.run(pressed), json!("1 h"));
    let table = "return document.querySelectorAll('#timeline-rows tr').length";
    assert!(browser.run(table).as_i64().is_some_and(|rows| rows > 5), "the same in words");
    let narrow = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.run(narrow), json!(true), "nothing is wider than a phone");
    // By the link in the list, as a keyboard would.
    browser.run("document.querySelector('#timeline-marks a').focus(); document.activeElement.click()");
    browser.until(
        "the event is shown",
        PATIENCE,
        "return document.querySelectorAll('#event-facts dd').length > 3",
    );
    browser.until(
        "with its curve",
        PATIENCE,
        "return document.querySelector('#event-picture path.score') !== null",
    );
    assert_eq!(browser.run("return document.getElementById('clip') !== null"), json!(true));
    assert_eq!(browser.run(narrow), json!(true));
    browser.run("document.getElementById('said-not-cry').click()");
    let noted = "return document.getElementById('said-not-cry').getAttribute('aria-pressed') === 'true' && \
                 document.getElementById('event-said').textContent.includes('not a cry')";
    browser.until("the answer is acknowledged", PATIENCE, noted);
    let feedback = client.get(&format!("/api/events/{event}")).json()["feedback"].clone();
    assert_eq!((&feedback["verdict"], &feedback["by"]), (&json!("not_cry"), &json!("page")));
    // Loaded anew at this place, the answer is still there.
    browser.open("about:blank");
    browser.open(&format!("http://127.0.0.1:{port}/#event/{event}"));
    browser.until("it is shown again", PATIENCE, noted);
    let unnamed = browser.run(
        "return [...document.querySelectorAll('button, a, input, select, meter')].filter((e) => \
         !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length",
    );
    assert_eq!(unnamed, json!(0), "everything that can be used has a name");
    let strange: Vec<String> =
        browser.complaints().into_iter().filter(|line| !line.contains("Failed to load resource")).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    drop(service);
}
