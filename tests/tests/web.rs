//! The page's API on real processes and sockets: who is let in, what is answered, and that it is as it is described.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_tests::{
    audio,
    described::check,
    http::{Client, free_port},
    receiver::Receiver,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, camera, config},
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const PASSWORD: &str = "open sesame";
const TOKEN: &str = "a token of some length";

fn with_web(mut config: Value, web: Value) -> (Value, Client) {
    let port = free_port();
    config["web"] = web;
    config["web"]["listen"] = format!("127.0.0.1:{port}").into();
    (config, Client::new(port))
}

fn strict() -> Value {
    json!({"password": PASSWORD, "token": TOKEN})
}

fn ready(client: &Client) {
    until("the page is there", PATIENCE, || {
        client.try_request("GET", "/readyz", "").ok().filter(|r| r.status == 200)
    });
}

#[test]
fn who_has_logged_in_is_answered_and_nobody_else() {
    let (config, client) = with_web(config([camera("crib", "synthetic:noise")], []), strict());
    let service = Service::start(&config);
    ready(&client);
    let secret = [
        "/api/status",
        "/api/cameras",
        "/api/workers",
        "/api/events",
        "/api/stream",
        "/metrics",
        "/api/cameras/crib/live",
    ];
    for path in secret {
        let refused = client.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(!refused.text().contains("crib"), "{path}: {}", refused.text());
    }
    assert_eq!(client.get("/api/session").json(), json!({"login_required": true, "logged_in": false}));
    // The page itself, which holds nothing.
    for path in [
        "/",
        "/app.js",
        "/timeline.js",
        "/event.js",
        "/live.js",
        "/live-sound.js",
        "/app.css",
        "/icon.svg",
        "/manifest.json",
        "/healthz",
        "/api/openapi.json",
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        for elsewhere in ["http://", "https://", "//cdn"] {
            // The name of a kind of picture, which leads nowhere.
            let picture = ["/icon.svg", "/timeline.js"].contains(&path);
            let from = if picture { "http://www.w3.org/2000/svg" } else { "" };
            assert!(!answer.text().replace(from, "").contains(elsewhere), "{path} loads from elsewhere");
        }
    }
    let inside = client.log_in(PASSWORD);
    let json = client.with("Content-Type", "application/json");
    let login = |c: &Client, password: &str| {
        c.request("POST", "/api/login", &json!({ "password": password }).to_string())
    };
    let welcome = login(&json, PASSWORD);
    let cookie = welcome.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "there is no TLS");
    assert!(
        login(&json.with("X-Forwarded-Proto", "https"), PASSWORD).header("set-cookie").contains("Secure")
    );
    let bearer = client.with("Authorization", &format!("Bearer {TOKEN}"));
    for path in secret.iter().filter(|p| **p != "/api/stream" && !p.ends_with("/live")) {
        assert_eq!(inside.get(path).status, 200, "{path} by cookie");
        assert_eq!(bearer.get(path).status, 200, "{path} by token");
        assert_eq!(bearer.request("HEAD", path, "").body.len(), 0);
    }
    assert_eq!(inside.get("/api/cameras").json()["cameras"][0]["name"], "crib");
    assert!(inside.stream("/api/stream").is_ok() && client.stream("/api/stream").is_err());
    // A page of another site, a form of one, and a way that nothing is asked in.
    assert_eq!(login(&json.with("Origin", "http://evil.example"), PASSWORD).status, 403);
    assert_eq!(login(&json.with("Sec-Fetch-Site", "cross-site"), PASSWORD).status, 403);
    assert_eq!(login(&client.with("Content-Type", "text/plain"), PASSWORD).status, 415);
    assert_eq!(json.request("POST", "/api/login", "{}").status, 400);
    assert_eq!(inside.request("POST", "/api/status", "").status, 405);
    assert!(inside.request("POST", "/api/logout", "").header("set-cookie").contains("Max-Age=0"));
    // A cookie that was made up, one of yesterday.
    for made_up in ["nursery=9999999999.AAAA", "nursery=1.AAAA", "nursery="] {
        assert_eq!(client.with("Cookie", made_up).get("/api/status").status, 401, "{made_up}");
    }
    // Guessing is over soon, also for who guesses right in the end; whoever is inside stays inside.
    let guesses: Vec<u16> = (0..8).map(|n| login(&json, &format!("guess {n}")).status).collect();
    assert_eq!((guesses[0], guesses[7]), (401, 429), "{guesses:?}");
    let later = login(&json, PASSWORD);
    assert_eq!(later.status, 429);
    assert!(later.header("retry-after").parse::<u64>().is_ok_and(|s| s > 0));
    // Tokens are another door. An old one is refused as often as it comes, and whoever guesses has to wait.
    let token =
        |text: &str| client.with("Authorization", &format!("Bearer {text}")).get("/api/status").status;
    assert_eq!((0..8).map(|_| token("an old one")).collect::<Vec<_>>(), [401; 8]);
    assert_eq!((inside.get("/api/status").status, bearer.get("/api/status").status), (200, 200));
    let log = service.log().join("\n");
    assert!(log.contains("login from 127.0.0.1 failed"), "{log}");
    let guesses: Vec<u16> = (0..8).map(|n| token(&format!("guess {n}"))).collect();
    assert_eq!((guesses[0], guesses[7]), (401, 429), "{guesses:?}");
    assert_eq!((bearer.get("/api/status").status, inside.get("/api/status").status), (429, 200));
    for place in [log, service.must(["status", "--json"]), inside.get("/metrics").text()] {
        assert!(!place.contains(PASSWORD) && !place.contains(TOKEN));
    }
    // A cookie outlives the process.
    let page = service.process_of("web");
    page.signal(Signal::SIGKILL);
    service.wait_replaced("web", page);
    ready(&client);
    assert_eq!(inside.get("/api/status").status, 200);
}

#[test]
fn without_a_password_only_this_host_is_answered_under_its_own_name() {
    let (config, client) = with_web(config([camera("crib", "synthetic:noise")], []), json!({}));
    let service = Service::start(&config);
    ready(&client);
    assert_eq!(client.get("/api/status").status, 200);
    assert_eq!(client.get("/api/session").json(), json!({"login_required": false, "logged_in": true}));
    for name in ["evil.example", "192.168.1.2:8790", "localhost.evil.example"] {
        assert_eq!(client.with("Host", name).get("/api/status").status, 403, "{name}");
    }
    // Others may look once there is a password, and not before.
    let mut open = config.clone();
    open["web"]["listen"] = "0.0.0.0:8790".into();
    service.write_config(&open);
    let refused = service.cli(["reload"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{why}");
    assert!(why.contains("web.listen: 0.0.0.0:8790 lets others than this host look"), "{why}");
    // Taken up by a reload that touches nobody else, and gone by the next one.
    let crib = service.process_of("capture:crib");
    let mut locked = config.clone();
    locked["web"]["password"] = PASSWORD.into();
    service.write_config(&locked);
    assert!(service.must(["reload"]).contains("web.password"));
    until("a login is asked for", PATIENCE, || {
        client.try_request("GET", "/api/status", "").ok().filter(|r| r.status == 401)
    });
    let mut gone = config;
    gone.as_object_mut().unwrap().remove("web");
    service.write_config(&gone);
    service.must(["reload"]);
    until("nobody listens", PATIENCE, || client.connect().is_err().then_some(()));
    service.wait_for("no page", |s| s.workers.iter().all(|w| w.name != "web").then_some(()));
    assert_eq!(service.process_of("capture:crib"), crib);
}

#[test]
fn a_cry_reaches_who_looks_within_a_second_of_its_storing_and_a_stream_goes_on_where_it_was() {
    let crib = RtspCamera::start(Codec::L16);
    let receiver = Receiver::start();
    let base = config([camera("crib", crib.url())], [receiver.alert()]);
    let (config, client) = with_web(base, json!({ "token": TOKEN }));
    let service = Service::start(&config);
    let client = client.with("Authorization", &format!("Bearer {TOKEN}"));
    service.wait_live(&["crib"]);
    ready(&client);
    let mut stream = client.stream("/api/stream").unwrap();
    let hello = stream.wait_for("hello", PATIENCE, |e| e.kind == "hello");
    // Null until the store has answered.
    assert!([Value::Null, json!(0)].contains(&hello.data["newest"]), "{}", hello.data);
    stream.wait_for("that it is quiet", PATIENCE, |e| {
        assert!(e.kind != "status" || e.data["cameras"][0]["crying"] != true);
        e.kind == "status" && e.data["cameras"][0]["crying"] == false
    });
    crib.microphone().play(&audio::cry(5.0));
    let started = stream.wait_for("a cry", PATIENCE, |e| e.kind == "event");
    assert_eq!(started.data["type"], "cry.started");
    // The receiver, too, is told after the storing.
    let told = receiver.wait_for("cry.started", "crib", PATIENCE);
    let late = started.at.saturating_duration_since(told.at);
    eprintln!("FIGURE the page heard of a cry {} ms after the receiver", late.as_millis());
    assert!(late < Duration::from_secs(1), "{late:?}");
    assert_eq!(started.data["data"]["event_id"], told.event_id());
    let crying =
        stream.wait_for("crying", PATIENCE, |e| e.kind == "status" && e.data["cameras"][0]["crying"] == true);
    assert_eq!(crying.data["cameras"][0]["last_cry"]["event_id"], told.event_id());
    let ended = stream.wait_for("its end", PATIENCE, |e| e.kind == "event");
    assert_eq!((&ended.data["type"], ended.id), (&json!("cry.ended"), started.id.map(|id| id + 1)));
    let calm =
        stream.wait_for("quiet", PATIENCE, |e| e.kind == "status" && e.data["cameras"][0]["crying"] == false);
    assert!(!calm.data["cameras"][0]["last_cry"]["offset"].is_null());
    // A stream that broke goes on after what was seen, whoever serves it.
    let page = service.process_of("web");
    page.signal(Signal::SIGKILL);
    assert!(
        stream.try_next().is_err()
            || std::iter::repeat_with(|| stream.try_next()).take(50).any(|e| e.is_err())
    );
    service.wait_replaced("web", page);
    ready(&client);
    until("the store is known", PATIENCE, || {
        let events = client.get("/api/status").json()["cameras"][0]["last_cry"].clone();
        (!events.is_null()).then_some(())
    });
    let last = started.id.unwrap().to_string();
    let mut again = client.with("Last-Event-ID", &last).stream("/api/stream").unwrap();
    let missed = again.wait_for("what was missed", PATIENCE, |e| e.kind == "event");
    assert_eq!(missed.data, ended.data);
    let mut odd = client.with("Last-Event-ID", "999999").stream("/api/stream").unwrap();
    odd.wait_for("to begin anew", PATIENCE, |e| e.kind == "reset");
    // The same in pages.
    let page = client.get("/api/events?limit=1").json();
    assert_eq!(page["events"], json!([ended.data]));
    let next = client.get(&format!("/api/events?limit=1&before={}", page["next"])).json();
    assert_eq!(next["events"], json!([started.data]));
    for (query, count) in
        [("camera=crib&since=10m", 2), ("camera=attic", 0), ("since=2126-01-01T00:00:00Z", 0)]
    {
        let found = client.get(&format!("/api/events?{query}")).json();
        assert_eq!(found["events"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(client.get("/api/events?limit=1000").status, 400);
}

#[test]
fn everything_is_as_it_is_described() {
    let (base, client) = with_web(
        config([camera("crib", "synthetic:cry"), camera("attic", "synthetic:silence")], []),
        strict(),
    );
    let mut config = base;
    config["inference"] = json!({"workers": "auto"});
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    ready(&client);
    let inside = client.with("Authorization", &format!("Bearer {TOKEN}"));
    let event = until("a cry", PATIENCE, || {
        let events = inside.get("/api/events").json()["events"].clone();
        let cry = events.as_array()?.iter().find(|e| e["type"] == "cry.started")?;
        cry["data"]["event_id"].as_str().map(str::to_owned)
    });
    let description = client.get("/api/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut checked = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let body = match path.ends_with("/feedback") {
                true => json!({"verdict": "cry"}).to_string(),
                false => json!({ "password": PASSWORD }).to_string(),
            };
            let path = &path.replace("{name}", "crib").replace("{event_id}", &event);
            let ask = |c: &Client| {
                let c = c.with("Content-Type", "application/json");
                c.request(&method.to_uppercase(), path, if method == "post" { &body } else { "" })
            };
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert!(open || ask(&client).status == 401, "{path} is not open to all");
            let described = &operation["responses"]["200"]["content"];
            if path == "/api/stream" {
                assert!(!described["text/event-stream"].is_null());
                let mut stream = inside.stream(path).unwrap();
                let status = stream.wait_for("the state", PATIENCE, |e| e.kind == "status");
                let schema = json!({"$ref": "#/components/schemas/Status"});
                check(&schema, &status.data, &description, "status").unwrap();
                continue;
            }
            if path.ends_with("/picture") {
                // Nobody films here; what it is like where somebody does is in pictures.rs.
                assert!(!described["image/jpeg"].is_null());
                let answer = ask(&inside);
                assert_eq!(answer.status, 404, "{}", answer.text());
                let schema = &operation["responses"]["404"]["content"]["application/json"]["schema"];
                check(schema, &answer.json(), &description, path).unwrap();
                continue;
            }
            if path.ends_with("/live") {
                assert!(!described["application/octet-stream"].is_null());
                let mut stream = inside.live(path).unwrap();
                let (mut kinds, mut tracks) = (Vec::new(), Value::Null);
                while !kinds.contains(&6) {
                    let record = stream.try_next().unwrap();
                    if record.kind == 1 {
                        tracks = record.json();
                    }
                    kinds.push(record.kind);
                }
                let schema = json!({"$ref": "#/components/schemas/LiveTracks"});
                check(&schema, &tracks, &description, "tracks").unwrap();
                assert_eq!(tracks["audio"]["codec"], "s16le");
                continue;
            }
            // A clip is there some seconds after the end of its event.
            let answer = until("an answer", PATIENCE, || {
                Some(ask(&inside)).filter(|a| a.status != 503 || !path.ends_with("/clip"))
            });
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
            let kind = answer.header("content-type").split(';').next().unwrap().to_owned();
            let schema = &described[&kind]["schema"];
            assert!(!schema.is_null(), "{path}: {kind} is not described");
            if kind == "application/json" {
                check(schema, &answer.json(), &description, path).unwrap();
                checked += 1;
            }
        }
    }
    assert!(checked >= 8, "{checked}");
    let errors = [
        ("GET", "/api/events?limit=0", 400),
        ("GET", "/nowhere", 404),
        ("GET", "/api/events/nobody", 404),
        ("GET", "/api/cameras/crib/timeline?points=0", 400),
        ("GET", "/api/cameras/nobody/live", 404),
        ("GET", "/api/cameras/crib/live?video=2", 400),
        ("GET", "/api/cameras/crib/live/", 404),
        ("DELETE", "/api/status", 405),
        ("GET", "/api/login", 405),
    ];
    for (method, path, status) in errors {
        let answer = inside.request(method, path, "");
        assert_eq!(answer.status, status, "{method} {path}");
        let schema = json!({"$ref": "#/components/schemas/Error"});
        check(&schema, &answer.json(), &description, path).unwrap();
    }
}

/// Samples by name and labels, if this is the text that Prometheus reads.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert!(known.insert(name, kind).is_none(), "{name} is declared twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(known.contains_key(name), "{line}: no TYPE");
        assert!(labels.ends_with('}'), "{line}");
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert!(found.insert(series.to_owned(), value).is_none(), "{series} is there twice");
    }
    found
}

#[test]
fn figures_can_be_read_by_prometheus_and_name_no_process() {
    let (config, client) = with_web(config([camera("crib", "synthetic:noise")], []), json!({}));
    let service = Service::start(&config);
    service.wait_live(&["crib"]);
    ready(&client);
    let score = r#"nursery_camera_score_ratio{camera="crib"}"#;
    let first = until("the first score", PATIENCE, || {
        Some(samples(&client.get("/metrics").text())).filter(|figures| figures.contains_key(score))
    });
    let page = service.process_of("web");
    assert_eq!(first[r#"nursery_camera_live{camera="crib"}"#], 1.0);
    assert!(first[r#"nursery_worker_resident_memory_bytes{worker="web",role="web"}"#] > 1e6);
    // Half of them may have come after the state that is shown.
    service.wait_windows("crib", 16);
    let second = client.get("/metrics").text();
    assert!(!second.contains(&page.pid.to_string()), "{second}");
    let second = samples(&second);
    let counter = r#"nursery_camera_windows_total{camera="crib"}"#;
    assert!(second[counter] >= first[counter] + 8.0);
    let names: BTreeSet<&String> = first.keys().collect();
    assert_eq!(names, second.keys().collect(), "series do not come and go");
}
