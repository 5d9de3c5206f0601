//! The page in a real browser: it shows the wall, a cry as it begins, and says when it is not up to date.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nix::sys::signal::Signal;
use nursery_tests::{
    audio,
    browser::{self, Browser},
    http::free_port,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    skip,
    wait::PATIENCE,
};
use serde_json::json;

#[test]
fn the_wall_shows_a_cry_as_it_begins_and_says_when_it_is_not_up_to_date() {
    if let Some(why) = browser::missing() {
        skip!("{why}");
    }
    let port = free_port();
    let crib = RtspCamera::start(Codec::L16);
    let mut config = config([camera("crib", crib.url()), camera("attic", "synthetic:noise")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "password": "open sesame"});
    let service = Service::start(&config);
    service.wait_live(&["crib", "attic"]);
    service.process_of("web");
    let browser = Browser::start(390, 844);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    // By keyboard alone: the password has the focus.
    browser.until("a login", PATIENCE, "return document.activeElement?.id === 'password'");
    browser.type_text("open sesame\n");
    let card = |name: &str| {
        format!(
            "[...document.querySelectorAll('#cameras .card')].find((c) => c.querySelector('h3').textContent === '{name}')"
        )
    };
    for name in ["crib", "attic"] {
        let script = format!("return {}?.classList.contains('good') ?? false", card(name));
        browser.until(&format!("{name} is live on the wall"), PATIENCE, &script);
    }
    let narrow = browser.run("return document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(narrow, json!(true), "nothing is wider than a phone");
    crib.microphone().play(&audio::cry(6.0));
    let crying = format!("return {}?.classList.contains('crying') ?? false", card("crib"));
    browser.until("the cry is on the wall", PATIENCE, &crying);
    browser.until(
        "and is said",
        PATIENCE,
        "return document.getElementById('announcer').textContent === 'Crying: crib'",
    );
    assert_eq!(browser.run("return document.title"), json!("CRYING: crib"));
    let first = "return document.querySelector('#cameras h3').textContent";
    assert_eq!(browser.run(first), json!("crib"), "who cries is first");
    browser.run("location.hash = 'events'");
    browser.until(
        "the event is listed",
        PATIENCE,
        "return document.querySelectorAll('#event-list li.cry').length >= 2",
    );
    browser.run("location.hash = 'workers'");
    browser.until(
        "workers are listed",
        PATIENCE,
        "return [...document.querySelectorAll('#worker-list h3')].some((h) => h.textContent === 'web')",
    );
    let unnamed = browser.run(
        "return [...document.querySelectorAll('button, a, input, select, meter')].filter((e) => \
         !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length",
    );
    assert_eq!(unnamed, json!(0), "everything that can be used has a name");
    // Stopped, it says so; back, it goes on by itself.
    let page = service.process_of("web");
    page.signal(Signal::SIGSTOP);
    browser.until(
        "it says that it is not up to date",
        Duration::from_secs(30),
        "return !document.getElementById('freshness').hidden",
    );
    service.wait_replaced("web", page);
    browser.until("it is up to date again", PATIENCE, "return document.getElementById('freshness').hidden");
    let strange: Vec<String> = browser
        .complaints()
        .into_iter()
        // What fails while nobody serves, and before the login, is told by the page itself.
        .filter(|line| !line.contains("Failed to load resource") && !line.contains("net::ERR"))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
}
