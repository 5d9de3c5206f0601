//! Pictures of the page as a phone and a desk have it, from a running service in a real browser.

use std::path::PathBuf;

use nursery_tests::{
    browser::{self, Browser},
    http::free_port,
    rtsp_camera::{RtspCamera, Setup, film},
    service::{Service, camera, config},
    wait::PATIENCE,
};
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// Where to put them
    #[arg(default_value = "target/screenshots")]
    directory: PathBuf,
}

/// Takes them; false where there is no browser.
pub fn run(args: &Args) -> bool {
    if let Some(why) = browser::missing() {
        eprintln!("{why}");
        return false;
    }
    std::fs::create_dir_all(&args.directory).expect("make the directory");
    let port = free_port();
    let cameras = ["cry", "noise", "babble"].map(|kind| camera(kind, format!("synthetic:{kind}")));
    // Has pictures where ffmpeg is there to make some.
    let crib = RtspCamera::with(Setup { film: film::film(), ..Setup::default() });
    let away = camera("attic", "rtsp://127.0.0.1:9/none");
    let mut config = config(cameras.into_iter().chain([camera("crib", crib.url()), away]), []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}")});
    config["detection"] = json!({"offline_after_s": 2, "cooldown_s": 5});
    let service = Service::start(&config);
    service.wait_live(&["cry", "noise", "babble"]);
    service.process_of("web");
    for (device, width, height) in [("phone", 390, 844), ("desktop", 1280, 800)] {
        let browser = Browser::start(width, height);
        browser.open(&format!("http://127.0.0.1:{port}/"));
        browser.until("somebody cries", PATIENCE, "return document.querySelector('.card.crying') !== null");
        for view in ["wall", "events", "workers"] {
            browser.run(&format!("location.hash = '{view}'"));
            browser.until(view, PATIENCE, &format!("return !document.getElementById('{view}').hidden"));
            let path = args.directory.join(format!("{device}-{view}.png"));
            browser.screenshot(&path);
            println!("{}", path.display());
        }
        // One whose clip is complete soon.
        let over = "document.querySelectorAll('#event-list li.cry').values() \
                    .find((e) => e.textContent.startsWith('Cry ended'))?.querySelector('a').getAttribute('href').slice(1)";
        browser.until("a cry that is over", 3 * PATIENCE, &format!("return {over} !== undefined"));
        let event = browser.run(&format!("return {over}"));
        let event = event.as_str().expect("its address").to_owned();
        for (name, view, drawn) in [
            ("timeline", "timeline/cry", "#timeline path.score"),
            ("event", &event, "#event:has(path.score) #clip canvas[data-seconds]"),
        ] {
            browser.run(&format!("location.hash = '{view}'"));
            let drawn = format!("return document.querySelector('{drawn}') !== null");
            browser.until(name, 3 * PATIENCE, &drawn);
            let path = args.directory.join(format!("{device}-{name}.png"));
            browser.screenshot(&path);
            println!("{}", path.display());
        }
        if film::missing().is_some() {
            continue;
        }
        browser.run("location.hash = 'live/crib'");
        browser.until(
            "live pictures",
            PATIENCE,
            "return document.getElementById('live-video').currentTime > 1.5",
        );
        let path = args.directory.join(format!("{device}-live.png"));
        browser.screenshot(&path);
        println!("{}", path.display());
    }
    true
}
