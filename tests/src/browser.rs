//! A real browser without a screen, driven by chromedriver as the W3C's WebDriver has it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    http::{Client, free_port},
    temp_dir::TempDir,
    wait,
};

/// Why there is no browser here; `None`: there is one.
pub fn missing() -> Option<String> {
    let there = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let absent: Vec<_> = ["chromedriver", "chromium"].into_iter().filter(|p| !there(p)).collect();
    (!absent.is_empty())
        .then(|| format!("no {} here (apt-get install chromium chromium-driver)", absent.join(" and ")))
}

/// A browser with one page; gone when dropped.
pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    /// Whatever it leaves behind, which it does by the megabyte.
    _files: TempDir,
}

impl Browser {
    /// Starts one with a window of this size.
    pub fn start(width: u32, height: u32) -> Self {
        let port = free_port();
        let files = TempDir::new();
        let driver = Command::new("chromedriver")
            .env("TMPDIR", files.path())
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start chromedriver");
        let client = Client::new(port).with("Content-Type", "application/json");
        let mut browser = Self { driver, client, session: String::new(), _files: files };
        let is_ready = || {
            let answer = browser.client.try_request("GET", "/status", "").ok()?;
            answer.json()["value"]["ready"].as_bool().filter(|ready| *ready)
        };
        wait::until("chromedriver ready", wait::PATIENCE, is_ready);
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            // Nobody is there to touch what is to be played.
            "--autoplay-policy=no-user-gesture-required".to_owned(),
            format!("--window-size={width},{height}"),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments,
                "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}}}}});
        let session = browser.ask("POST", "/session", &wanted)["sessionId"].clone();
        browser.session = format!("/session/{}", session.as_str().expect("a session"));
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.client.request(method, path, &body.to_string());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()["value"].clone()
    }

    fn command(&self, method: &str, command: &str, body: &Value) -> Value {
        self.ask(method, &format!("{}/{command}", self.session), body)
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.command("POST", "url", &json!({ "url": url }));
    }

    /// What a script in the page returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script in the page returns true.
    pub fn until(&self, what: &str, within: Duration, script: &str) {
        wait::until(what, within, || self.run(script).as_bool().filter(|is| *is));
    }

    /// Types into the element that has the focus.
    pub fn type_text(&self, text: &str) {
        let focused = self.command("GET", "element/active", &json!({}));
        let id =
            focused.as_object().and_then(|o| o.values().next()).and_then(Value::as_str).expect("an element");
        self.command("POST", &format!("element/{id}/value"), &json!({ "text": text }));
    }

    /// Taps the element that a selector finds, as a finger would.
    pub fn click(&self, selector: &str) {
        let found = self.command("POST", "element", &json!({"using": "css selector", "value": selector}));
        let id =
            found.as_object().and_then(|o| o.values().next()).and_then(Value::as_str).expect("an element");
        self.command("POST", &format!("element/{id}/click"), &json!({}));
    }

    /// What the page complained of in the browser's console since this was asked last, but for what a test that reads a
    /// canvas again and again is told itself.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "se/log", &json!({"type": "browser"}));
        let lines = log.as_array().into_iter().flatten();
        let lines = lines.filter_map(|line| line["message"].as_str().map(str::to_owned));
        lines.filter(|line| !line.contains("willReadFrequently")).collect()
    }

    /// A picture of the page as PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.command("GET", "screenshot", &json!({}));
        let bytes = BASE64_STANDARD.decode(picture.as_str().expect("a picture")).expect("base64");
        std::fs::write(path, bytes).expect("write the picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.client.try_request("DELETE", &self.session, "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
