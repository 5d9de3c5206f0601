//! The configuration and what is in it: every error is one line that shows no secret, and what is accepted travels to
//! the workers unchanged.

use nursery_shared::{
    codec,
    config::{self, Config, Source},
    redact, timestamp,
};
use serde_json::Value;

use crate::{
    mutate::Mutator,
    scratch::Scratch,
    target::{ROOM, Target, Verdict, one_line, size, way, way_of_text},
};

/// Stands where a secret stands, and nowhere else in the samples.
const SECRET: &str = "hunter2";

pub const CONFIGURATION: Target = Target {
    name: "configuration",
    about: "the configuration file",
    mutator: Mutator::Json,
    words: &[
        "cameras",
        "name",
        "source",
        "loop",
        "realtime",
        "transport",
        "udp",
        "tcp",
        "username",
        "password",
        "tls_fingerprint",
        "sensitivity",
        "low",
        "normal",
        "high",
        "threshold",
        "sustained_s",
        "inference",
        "workers",
        "auto",
        "max_batch",
        "threads",
        "model",
        "detection",
        "min_duration_s",
        "end_after_s",
        "cooldown_s",
        "offline_after_s",
        "adaptive",
        "alerts",
        "type",
        "webhook",
        "exec",
        "sound",
        "log",
        "url",
        "secret",
        "command",
        "file",
        "timeout_s",
        "supervision",
        "healthy_after_s",
        "worker_memory_mb",
        "uid_base",
        "users",
        "env:HOME",
        "env:NO_SUCH",
        "file:key",
        "file:crib.wav",
        "rtsp://u:p@192.0.2.10:554/s",
        "exec:cat x",
        "synthetic:cry",
        "whsec_AAAA",
        "http://h/",
    ],
    longest: 64 << 10,
    memory: |len| 200 * len + 4 * ROOM,
    seconds: 2.0,
    short: 10_000,
    seeds: Vec::new,
    check: || {
        let folder = Scratch::new("configuration");
        for name in ["crib.wav", "key", "chime.wav", "m.safetensors"] {
            std::fs::write(folder.path().join(name), "whsec_AAAA\n").expect("a folder of our own");
        }
        Box::new(move |input| configuration(&folder, input))
    },
};

fn configuration(folder: &Scratch, input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(way("no text")) };
    match config::from_json(text, folder.path()) {
        Ok(config) => accepted(&config),
        Err(error) => {
            one_line(&error)?;
            let hidden = serde_json::from_str(text).is_ok_and(|value| is_secret_everywhere(&value, false));
            if error.contains(SECRET) && hidden {
                return Err(format!("an error shows a secret: {error}"));
            }
            Ok(way_of_text(&error))
        }
    }
}

fn accepted(config: &Config) -> Verdict {
    if config.cameras.is_empty() {
        return Err("a configuration without cameras".into());
    }
    let mut names: Vec<&str> = config.cameras.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two cameras of one name".into());
    }
    let mut bytes = Vec::new();
    codec::encode_into(config, &mut bytes).map_err(|e| format!("accepted, but cannot travel: {e}"))?;
    let travelled: Config =
        codec::decode(&bytes).map_err(|e| format!("travels, but does not arrive: {e}"))?;
    if travelled != *config {
        return Err("what arrives is not what was sent".into());
    }
    let shown = format!("{config:?} {}", serde_json::to_string(config).map_err(|e| e.to_string())?);
    let in_the_open = config.cameras.iter().any(|c| {
        c.name.contains(SECRET)
            || c.username.as_ref().is_some_and(|u| u.contains(SECRET))
            || is_elsewhere(c.source.expose())
    }) || config
        .alerts
        .iter()
        .any(|a| [&a.command, &a.file].into_iter().flatten().any(|t| t.contains(SECRET)))
        || config.inference.model.as_ref().is_some_and(|m| m.contains(SECRET));
    if shown.contains(SECRET) && !in_the_open {
        return Err(format!("a configuration shows a secret: {shown}"));
    }
    for camera in &config.cameras {
        camera.source.parse().map_err(|e| format!("accepted, but its source is none: {e}"))?;
        let detection = config.detection.for_camera(camera);
        if !(detection.threshold > 0.0 && detection.threshold < 1.0) {
            return Err(format!("accepted, with threshold {}", detection.threshold));
        }
    }
    let kinds: Vec<_> = config.cameras.iter().take(4).map(|c| c.source.redacted().len().min(8)).collect();
    Ok(way((kinds, size(config.cameras.len()), size(config.alerts.len()))))
}

/// The secret stands only where it is known to be one: as a password, as a webhook's secret or URL, or in the user
/// information of a source.
fn is_secret_everywhere(value: &Value, secret: bool) -> bool {
    match value {
        // What stands after `env:` and `file:` is a name.
        Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => {
            !text.contains(SECRET)
        }
        Value::String(text) => secret || !text.contains(SECRET),
        Value::Array(items) => items.iter().all(|item| is_secret_everywhere(item, secret)),
        Value::Object(map) => map.iter().all(|(key, item)| {
            let named = match item {
                Value::String(text) if key == "source" => !is_elsewhere(text),
                Value::String(_) => matches!(key.as_str(), "password" | "secret" | "url"),
                _ => false,
            };
            !key.contains(SECRET) && is_secret_everywhere(item, named)
        }),
        _ => true,
    }
}

/// A source that holds the secret elsewhere than in the user information of an RTSP URL.
fn is_elsewhere(source: &str) -> bool {
    let is_url = source.starts_with("rtsp://") || source.starts_with("rtsps://");
    source.contains(SECRET) && !(is_url && source.rfind('@').is_some_and(|at| !source[at..].contains(SECRET)))
}

pub const SOURCE: Target = Target {
    name: "source",
    about: "a camera's source, and what is shown of it",
    mutator: Mutator::Text,
    words: &[
        "rtsp://",
        "rtsps://",
        "file:",
        "exec:",
        "synthetic:",
        "cry",
        "u:hunter2@",
        "@",
        "[::1]",
        ":554",
        "/",
        "%40",
        "?a=b",
        "#",
    ],
    longest: 1000,
    memory: |len| 100 * len + ROOM,
    seconds: 1.0,
    short: 20_000,
    seeds: Vec::new,
    check: || Box::new(source),
};

fn source(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(way("no text")) };
    let shown = redact::source(text);
    if redact::source(&shown) != shown {
        return Err(format!("{shown:?} is redacted further"));
    }
    match Source::parse(text) {
        Ok(Source::Rtsp(url)) => {
            let password = url.password().unwrap_or_default();
            let user_information = format!("{}:{password}@", url.username());
            // What stands there twice is hidden where it is user information.
            let read = text.replace(['\t', '\n', '\r'], "");
            let once = |part: &str| read.matches(part).count() < 2;
            if !password.is_empty() && once(&user_information) && shown.contains(&user_information) {
                return Err(format!("{shown:?} shows the password"));
            }
            if password == SECRET && once(SECRET) && shown.contains(SECRET) {
                return Err(format!("{shown:?} shows the password"));
            }
            Ok(way((
                url.scheme(),
                url.host().map(|h| std::mem::discriminant(&h)),
                url.port().is_some(),
                password.is_empty(),
            )))
        }
        Ok(other) => Ok(way(std::mem::discriminant(&other))),
        Err(e) => {
            one_line(&e.to_string())?;
            Ok(way_of_text(&e.to_string()))
        }
    }
}

pub const TIME: Target = Target {
    name: "time",
    about: "times and ages on the command line",
    mutator: Mutator::Text,
    words: &["10m", "2h", "30s", "years", "T", "Z", "2026-01-31", "02:03:04.5", "9999", "1969"],
    longest: 200,
    memory: |len| 100 * len + ROOM,
    seconds: 1.0,
    short: 20_000,
    seeds: Vec::new,
    check: || Box::new(time),
};

fn time(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(way("no text")) };
    match timestamp::parse_since(text) {
        Ok(us) => {
            let shown = timestamp::rfc3339(us);
            let again =
                timestamp::parse_since(&shown).map_err(|e| format!("{shown} cannot be read again: {e}"))?;
            let inside = us.clamp(0, 253_402_300_799_000_000);
            if inside - again >= 1000 || again > inside {
                return Err(format!("{us} is shown as {shown}, which is {again}"));
            }
            Ok(way((us < 0, text.contains(':'), size(text.len()))))
        }
        Err(e) => {
            one_line(&e)?;
            Ok(way_of_text(&e))
        }
    }
}
