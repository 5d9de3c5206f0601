//! Reads and validates a configuration file. Every error names the file, the key and what was expected.

use std::{
    collections::HashSet,
    io::Read,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    AlertConfig, AlertKind, CameraConfig, Config, MAX_BATCH, MAX_POOL, Source, SourceText, exposure,
};
use crate::{
    line::{one_line, shortened},
    secret::Secret,
};

/// Files larger than this are not read.
const MAX_CONFIG: u64 = 4 << 20;
/// Longest secret that `file:` reads.
const MAX_SECRET: u64 = 64 << 10;
/// What nursery.service calls its directory of credentials, which systemd puts before the name of each file in it.
const CREDENTIALS_LOADED_AS: &str = "nursery";
/// More cameras than one host can hold; a bound on everything that is kept per camera.
const MAX_CAMERAS: usize = 4096;

/// What may be asked for as a worker's memory: with less than this no worker of any role is sure to start.
const WORKER_MEMORY_MB: std::ops::RangeInclusive<u64> = 128..=1_048_576;

/// Where the workers' users may begin: after those of people and services, before those that mean `nobody`.
const UID_BASES: std::ops::RangeInclusive<u32> = 1000..=2_147_000_000;

/// Most seconds of crying within a minute that may be asked for: babies breathe, and hardly ever cry for more than
/// half of a minute, so that more would mean never.
const MAX_SUSTAINED_S: f64 = 30.0;

/// Characters of a message about a configuration. No path that anybody has is as long.
const LONGEST_PROBLEM: usize = 4_096;

/// A configuration that cannot be used: one line with file, key and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ConfigError {
    pub file: String,
    pub problem: String,
}

/// Reads, validates and resolves a file: relative paths are looked up beside it (then in the current
/// directory), `env:`, `credential:` and `file:` secrets are replaced by their values.
pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
    let fail = |problem: String| ConfigError { file: path.display().to_string(), problem };
    let text = read_capped(path, MAX_CONFIG).map_err(&fail)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let read = || {
        let mut config = parse(&text)?;
        match exposure::find(path, base, &config) {
            Some(problem) if !config.supervision.allow_readable_secrets => {
                // A service of the whole host keeps the secrets of others.
                if nix::unistd::geteuid().is_root() {
                    return Err(format!("{problem}, or set supervision.allow_readable_secrets"));
                }
                tracing::warn!("{}: {}", path.display(), one_line(&problem));
            }
            _ => {}
        }
        validate(&mut config, base)?;
        Ok(config)
    };
    read().map_err(|problem: String| fail(told(&problem)))
}

/// The same for text that is already here; `base` is where relative paths begin.
pub fn from_json(text: &str, base: &Path) -> Result<Config, String> {
    let read = || {
        let mut config = parse(text)?;
        validate(&mut config, base)?;
        Ok(config)
    };
    read().map_err(|problem: String| told(&problem))
}

/// A problem as people are told of it: keys, names and paths of the file are repeated in it, whatever they hold.
fn told(problem: &str) -> String {
    shortened(&one_line(problem), LONGEST_PROBLEM).into_owned()
}

/// What is written, as it is written.
fn parse(text: &str) -> Result<Config, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))?;
    let value = match value {
        Value::Array(cameras) => serde_json::json!({ "cameras": cameras }),
        Value::Object(_) => value,
        _ => return Err("expected an object with the key `cameras`, or a list of cameras".into()),
    };
    say_it_once(&value)?;
    serde_path_to_error::deserialize(value).map_err(|e| explain(&e))
}

/// `sensitivity` and `threshold` say the same, so only one of them may stand in one place. Looked at before
/// defaults hide which of them was written.
fn say_it_once(value: &Value) -> Result<(), String> {
    let both = |at: &Value| ["sensitivity", "threshold"].iter().all(|key| !at[*key].is_null());
    let cameras = value["cameras"].as_array().into_iter().flatten().enumerate();
    let places = cameras.map(|(i, camera)| (format!("cameras[{i}]"), camera));
    match places.chain([("detection".to_owned(), &value["detection"])]).find(|(_, at)| both(at)) {
        Some((place, _)) => Err(format!(
            "{place}.sensitivity: `threshold` is given too and sets the same, expected only one of them"
        )),
        None => Ok(()),
    }
}

/// The JSON Schema of the file.
pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

fn read_capped(path: &Path, max: u64) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(|e| format!("cannot be read: {e}"))?;
    if text.len() as u64 > max {
        return Err(format!("is larger than {max} bytes"));
    }
    Ok(text)
}

/// Turns serde's message into one that names the key first and suggests the likely one.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let message = error.inner().to_string();
    let place = if path == "." { String::new() } else { format!("{path}: ") };
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((word, known))
            if message.starts_with("unknown field") || message.starts_with("unknown variant") =>
        {
            let what = if message.starts_with("unknown field") { "key" } else { "value" };
            let end = path.rsplit('.').next().unwrap_or_default();
            let place = if end == *word { path } else { place.trim_end_matches(": ").to_owned() };
            let at = if place.is_empty() { String::new() } else { format!("{place}: ") };
            match crate::suggest::nearest(word, known.iter().copied()) {
                Some(near) => format!("{at}unknown {what} {word:?}, did you mean {near:?}?"),
                None => format!("{at}unknown {what} {word:?}, expected one of: {}", known.join(", ")),
            }
        }
        _ => format!("{place}{message}"),
    }
}

fn validate(config: &mut Config, base: &Path) -> Result<(), String> {
    if config.cameras.is_empty() {
        return Err("cameras: the list is empty, expected at least one camera".into());
    }
    if config.cameras.len() > MAX_CAMERAS {
        return Err(format!("cameras: {} cameras, at most {MAX_CAMERAS} are allowed", config.cameras.len()));
    }
    let mut names = HashSet::new();
    for (i, camera) in config.cameras.iter_mut().enumerate() {
        let at = |key: &str, what: String| format!("cameras[{i}].{key}: {what}");
        let name = &camera.name;
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            let rule = "expected 1 to 64 letters, digits, '.', '_' or '-'";
            return Err(at("name", format!("{name:?} cannot be a name, {rule}")));
        }
        if !names.insert(name.clone()) {
            return Err(at("name", format!("{name:?} is used twice, names must be unique")));
        }
        validate_camera(camera, base).map_err(|(key, what)| at(key, what))?;
    }
    let inference = &mut config.inference;
    if !(1..=MAX_BATCH).contains(&inference.max_batch) {
        return Err(format!(
            "inference.max_batch: {}, expected a number from 1 to {MAX_BATCH}",
            inference.max_batch
        ));
    }
    for (key, bound) in [("min_workers", inference.min_workers), ("max_workers", inference.max_workers)] {
        if let Some(n) = bound.filter(|n| !(1..=MAX_POOL).contains(n)) {
            return Err(format!("inference.{key}: {n}, expected a number from 1 to {MAX_POOL}"));
        }
    }
    if let (Some(min), Some(max)) = (inference.min_workers, inference.max_workers)
        && min > max
    {
        return Err(format!("inference.min_workers: {min}, expected no more than `max_workers`, {max}"));
    }
    if !(1..=64).contains(&inference.threads) {
        return Err(format!("inference.threads: {}, expected a number from 1 to 64", inference.threads));
    }
    if let Some(model) = &mut inference.model {
        *model = existing(Path::new(&*model), base).map_err(|e| format!("inference.model: {e}"))?;
    }
    let d = &mut config.detection;
    if let Some(sensitivity) = d.sensitivity.take() {
        d.threshold = sensitivity.threshold();
    }
    probability(d.threshold).map_err(|e| format!("detection.threshold: {e}"))?;
    for (key, value, low, high) in [
        ("min_duration_s", d.min_duration_s, 0.0, 60.0),
        ("end_after_s", d.end_after_s, 0.1, 3600.0),
        ("cooldown_s", d.cooldown_s, 0.0, 86_400.0),
        ("offline_after_s", d.offline_after_s, 1.0, 86_400.0),
        ("sustained_s", d.sustained_s, 0.0, MAX_SUSTAINED_S),
    ] {
        if !(low..=high).contains(&value) {
            return Err(format!(
                "detection.{key}: {value}, expected a number of seconds from {low} to {high}"
            ));
        }
    }
    if let Some(rule) = &d.motion {
        rule.validate().map_err(|what| format!("detection.motion: {what}"))?;
    }
    let healthy = config.supervision.healthy_after_s;
    if !(0.0..=86_400.0).contains(&healthy) {
        return Err(format!(
            "supervision.healthy_after_s: {healthy}, expected a number of seconds from 0 to 86400"
        ));
    }
    let memory = config.supervision.worker_memory_mb;
    if !WORKER_MEMORY_MB.contains(&memory) {
        return Err(format!(
            "supervision.worker_memory_mb: {memory}, expected a number of mebibytes from {} to {}",
            WORKER_MEMORY_MB.start(),
            WORKER_MEMORY_MB.end()
        ));
    }
    if let Some(base) = config.supervision.uid_base
        && !UID_BASES.contains(&base)
    {
        return Err(format!(
            "supervision.uid_base: {base}, expected a user number from {} to {}",
            UID_BASES.start(),
            UID_BASES.end()
        ));
    }
    if let Some(url) = &mut config.heartbeat {
        validate_url(url, base).map_err(|e| format!("heartbeat: {e}"))?;
    }
    config.store.validate().map_err(|(key, what)| format!("store.{key}: {what}"))?;
    if let Some(web) = &mut config.web {
        let wrong = |(key, what): KeyProblem| format!("web.{key}: {what}");
        web.validate(|secret| resolve(secret, base)).map_err(wrong)?;
        if let Some(tls) = &mut web.tls {
            tls.validate(|path| existing(Path::new(path), base)).map_err(wrong)?;
        }
    }
    config.clips.validate().map_err(|(key, what)| format!("clips.{key}: {what}"))?;
    for (i, alert) in config.alerts.iter_mut().enumerate() {
        validate_alert(alert, base).map_err(|(key, what)| format!("alerts[{i}].{key}: {what}"))?;
    }
    Ok(())
}

type KeyProblem = (&'static str, String);

fn validate_camera(camera: &mut CameraConfig, base: &Path) -> Result<(), KeyProblem> {
    let source =
        camera.source.parse().map_err(|e| ("source", format!("{}: {e}", camera.source.redacted())))?;
    if let Source::File(path) = &source {
        let found = existing(path, base).map_err(|e| ("source", e))?;
        camera.source = SourceText::new(format!("file:{found}"));
    }
    if let Source::Exec(command) = &source {
        splits(command).map_err(|e| ("source", e))?;
    }
    if let Some(sensitivity) = camera.sensitivity.take() {
        camera.threshold = Some(sensitivity.threshold());
    }
    if let Some(seconds) = camera.sustained_s
        && !(0.0..=MAX_SUSTAINED_S).contains(&seconds)
    {
        let what = format!("{seconds}, expected a number of seconds from 0 to {MAX_SUSTAINED_S}");
        return Err(("sustained_s", what));
    }
    if let Some(threshold) = camera.threshold {
        probability(threshold).map_err(|e| ("threshold", e))?;
    }
    if let Some(password) = &mut camera.password {
        resolve(password, base).map_err(|e| ("password", e))?;
    }
    let is_rtsp = matches!(source, Source::Rtsp(_));
    for (key, given) in [("username", camera.username.is_some()), ("password", camera.password.is_some())] {
        if given && !is_rtsp {
            return Err((key, "only rtsp:// and rtsps:// sources take it".into()));
        }
    }
    if let Some(pictures) = &camera.pictures {
        if !is_rtsp {
            return Err(("pictures", "only rtsp:// and rtsps:// sources have any".into()));
        }
        if camera.video == super::VideoUse::Never {
            return Err(("pictures", "\"video\" is \"never\", so that there are none".into()));
        }
        pictures.validate().map_err(|what| ("pictures", what))?;
    }
    if let Some(rule) = &camera.motion {
        if camera.pictures.is_none() {
            return Err(("motion", "there is none without `pictures`".into()));
        }
        rule.validate().map_err(|what| ("motion", what))?;
    }
    if camera.password.is_some() && camera.username.is_none() {
        return Err(("username", "is missing, a password needs one".into()));
    }
    if let Some(fingerprint) = &mut camera.tls_fingerprint {
        if !matches!(&source, Source::Rtsp(url) if url.scheme() == "rtsps") {
            return Err(("tls_fingerprint", "only rtsps:// sources take it".into()));
        }
        let hex: String = fingerprint.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err((
                "tls_fingerprint",
                "expected a SHA-256 in hex: 64 digits, with or without colons".into(),
            ));
        }
        *fingerprint = hex;
    }
    if camera.r#loop && !matches!(source, Source::File(_)) {
        return Err(("loop", "only file: sources take it".into()));
    }
    Ok(())
}

fn validate_alert(alert: &mut AlertConfig, base: &Path) -> Result<(), KeyProblem> {
    use AlertKind::{Exec, Log, Sound, Webhook};
    let kind = alert.r#type.clone();
    let word = match kind {
        Webhook => "webhook",
        Log => "log",
        Exec => "exec",
        Sound => "sound",
    };
    for (key, given, takes) in [
        ("url", alert.url.is_some(), kind == Webhook),
        ("secret", alert.secret.is_some(), kind == Webhook),
        ("command", alert.command.is_some(), kind == Exec),
        ("file", alert.file.is_some(), kind == Sound),
        ("timeout_s", alert.timeout_s.is_some(), kind == Webhook || kind == Exec),
    ] {
        if given && !takes {
            return Err((key, format!("an alert of type {word} does not take it")));
        }
    }
    if alert.timeout_s.is_some_and(|t| !(0.1..=600.0).contains(&t)) {
        return Err(("timeout_s", "expected a number of seconds from 0.1 to 600".into()));
    }
    match kind {
        Webhook => {
            let Some(url) = &mut alert.url else {
                return Err(("url", "is missing, a webhook needs one".into()));
            };
            validate_url(url, base).map_err(|e| ("url", e))?;
            if let Some(secret) = &mut alert.secret {
                resolve(secret, base).map_err(|e| ("secret", e))?;
                if secret.expose().is_empty() {
                    return Err(("secret", "is empty".into()));
                }
                if let Some(text) = secret.expose().strip_prefix("whsec_")
                    && BASE64_STANDARD.decode(text).is_err()
                {
                    return Err(("secret", "expected base64 after `whsec_`".into()));
                }
            }
        }
        Exec => {
            if alert.command.as_deref().is_none_or(|c| c.trim().is_empty()) {
                return Err(("command", "is missing, an alert of type exec needs one".into()));
            }
            splits(alert.command.as_deref().unwrap_or_default()).map_err(|e| ("command", e))?;
        }
        Sound => {
            if let Some(file) = &mut alert.file {
                *file = existing(Path::new(&*file), base).map_err(|e| ("file", e))?;
            }
        }
        Log => {}
    }
    Ok(())
}

/// A command must be words like a shell makes them; it may hold secrets, so it is not repeated.
fn splits(command: &str) -> Result<(), String> {
    match shlex::split(command) {
        Some(words) if !words.is_empty() => Ok(()),
        _ => Err("the command cannot be split into words, a quote is open".into()),
    }
}

fn probability(value: f64) -> Result<(), String> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(format!("{value}, expected a number between 0 and 1"))
}

/// The absolute path of a file that exists beside the configuration or in the current directory.
fn existing(path: &Path, base: &Path) -> Result<String, String> {
    let found = [base.join(path), path.to_path_buf()]
        .into_iter()
        .find(|p| p.exists())
        .ok_or_else(|| format!("{}: no such file beside the configuration", path.display()))?;
    let absolute: PathBuf = found.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    if absolute.is_dir() {
        return Err(format!("{}: is a directory, expected a file", path.display()));
    }
    absolute.into_os_string().into_string().map_err(|p| format!("{}: not valid UTF-8", p.display()))
}

/// A URL that is called; it may hold a token, so it is not repeated in the message.
fn validate_url(url: &mut Secret, base: &Path) -> Result<(), String> {
    resolve(url, base)?;
    let parsed = url::Url::parse(url.expose()).map_err(|e| format!("not a URL: {e}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err("expected http://HOST/… or https://HOST/…".into());
    }
    Ok(())
}

/// Replaces `env:NAME`, `credential:NAME` and `file:PATH` by what they stand for.
fn resolve(secret: &mut Secret, base: &Path) -> Result<(), String> {
    if let Some(name) = secret.expose().strip_prefix("env:") {
        let value = std::env::var(name)
            .map_err(|_| format!("environment variable {name} is not set (or not valid UTF-8)"))?;
        *secret = Secret::new(value);
    } else if let Some(name) = secret.expose().strip_prefix("credential:") {
        let dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        *secret = credential(name, dir.as_deref())?;
    } else if let Some(path) = secret.expose().strip_prefix("file:") {
        let found = existing(Path::new(path), base)?;
        // A pipe would be waited for.
        if !std::fs::metadata(&found).is_ok_and(|m| m.is_file()) {
            return Err(format!("{path}: not a regular file"));
        }
        let value = read_capped(Path::new(&found), MAX_SECRET).map_err(|e| format!("{path}: {e}"))?;
        *secret = Secret::new(value.trim_end_matches(['\r', '\n']));
    }
    Ok(())
}

/// What systemd hands a service over in a directory for it alone (`LoadCredential=`): the file of this name, or the
/// one that was in a directory which the unit loads as a whole.
fn credential(name: &str, dir: Option<&Path>) -> Result<Secret, String> {
    let odd = |c: char| c == '/' || c == ':' || c.is_control();
    if name.is_empty() || name.starts_with('.') || name.len() > 200 || name.contains(odd) {
        return Err(format!("credential:{name}: expected the name of a file, without directories"));
    }
    let dir = dir.ok_or_else(|| {
        format!(
            "credential:{name}: CREDENTIALS_DIRECTORY is not set, as systemd does for a unit with LoadCredential=; \
             set it to a directory with such a file, or use file:PATH"
        )
    })?;
    let places = [dir.join(name), dir.join(format!("{CREDENTIALS_LOADED_AS}_{name}"))];
    let found = places.iter().find(|p| p.is_file()).ok_or_else(|| {
        format!("credential:{name}: no such file in {}, is there a LoadCredential={name}:… ?", dir.display())
    })?;
    let value = read_capped(found, MAX_SECRET).map_err(|e| format!("credential:{name}: {e}"))?;
    Ok(Secret::new(value.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PoolSize;

    fn load(text: &str) -> Result<Config, String> {
        from_json(text, Path::new("."))
    }

    #[test]
    fn a_bare_list_is_a_configuration() {
        let c = load(r#"[{"name": "a", "source": "synthetic:cry"}]"#).unwrap();
        assert_eq!(c.cameras.len(), 1);
        assert!(c.cameras[0].realtime && !c.cameras[0].r#loop);
        assert_eq!(c.inference.workers, PoolSize::Auto);
        assert_eq!(c.detection.cooldown_s, 60.0);
    }

    #[test]
    fn the_pool_is_a_number_or_auto() {
        let with = |w: &str| {
            load(&format!(
                r#"{{"cameras":[{{"name":"a","source":"synthetic:cry"}}],"inference":{{"workers":{w}}}}}"#
            ))
        };
        assert_eq!(with("3").unwrap().inference.workers, PoolSize::Fixed(3));
        assert_eq!(with("\"auto\"").unwrap().inference.workers, PoolSize::Auto);
        for bad in ["0", "65", "-1", "\"many\"", "1.5", "null"] {
            let e = with(bad).unwrap_err();
            assert!(e.contains("inference.workers") && e.contains("auto"), "{e}");
        }
    }

    #[test]
    fn every_error_names_key_and_expectation() {
        let camera = |rest: &str| format!(r#"[{{"name": "a", "source": "synthetic:cry"{rest}}}]"#);
        let alert =
            |a: &str| format!(r#"{{"cameras": [{{"name":"a","source":"synthetic:cry"}}], "alerts": [{a}]}}"#);
        let detection = |d: &str| {
            format!(r#"{{"cameras": [{{"name":"a","source":"synthetic:cry"}}], "detection": {{{d}}}}}"#)
        };
        let cases = [
            ("{".to_owned(), "not valid JSON"),
            ("3".to_owned(), "cameras"),
            ("[]".to_owned(), "cameras: the list is empty"),
            (r#"{"cameras": [], "detecton": {}}"#.to_owned(), r#"did you mean "detection"?"#),
            (camera(r#", "lop": true"#), r#"cameras[0].lop: unknown key "lop", did you mean "loop"?"#),
            (camera(r#", "realtime": 3"#), "cameras[0].realtime: invalid type"),
            (camera(r#", "transport": "tpc""#), r#"did you mean "tcp"?"#),
            (camera(r#", "threshold": 1.5"#), "cameras[0].threshold"),
            (camera(r#", "sensitivty": 1"#), r#"did you mean "sensitivity"?"#),
            (
                camera(r#", "sensitivity": "hihg""#),
                r#"cameras[0].sensitivity: unknown value "hihg", did you mean "high"?"#,
            ),
            (
                camera(r#", "sensitivity": "loud""#),
                r#"unknown value "loud", expected low, normal, high or a number from 0 to 1"#,
            ),
            (camera(r#", "sensitivity": 2"#), "cameras[0].sensitivity: 2, expected low, normal, high or a"),
            (camera(r#", "sensitivity": -0.5"#), "cameras[0].sensitivity: -0.5, expected"),
            (camera(r#", "sensitivity": true"#), "cameras[0].sensitivity: invalid type"),
            (camera(r#", "sensitivity": {}"#), "cameras[0].sensitivity: invalid type"),
            (
                camera(r#", "sensitivity": "low", "threshold": 0.7"#),
                "cameras[0].sensitivity: `threshold` is given too and sets the same, expected only one",
            ),
            (camera(r#", "sustained_s": 31"#), "cameras[0].sustained_s: 31, expected a number of seconds"),
            (detection(r#""sensitivity": 1.5"#), "detection.sensitivity: 1.5, expected"),
            (detection(r#""sensitivity": "Normal""#), r#"did you mean "normal"?"#),
            (detection(r#""sensitivity": 0.5, "threshold": 0.5"#), "detection.sensitivity: `threshold`"),
            (detection(r#""threshold": null"#), "detection.threshold: invalid type"),
            (detection(r#""sustained_s": -1"#), "detection.sustained_s: -1, expected"),
            (camera(r#", "loop": true"#), "cameras[0].loop: only file:"),
            (r#"[{"name": "a"}]"#.to_owned(), "cameras[0]: missing field `source`"),
            (r#"[{"name": "a b", "source": "synthetic:cry"}]"#.to_owned(), "cameras[0].name"),
            (r#"[{"name": "a", "source": "rtps://h/"}]"#.to_owned(), r#"did you mean "rtsp"?"#),
            (r#"[{"name": "a", "source": "rtsp://"}]"#.to_owned(), "cameras[0].source"),
            (r#"[{"name": "a", "source": "rtsp://u:pw@h:99999/"}]"#.to_owned(), "cameras[0].source"),
            (r#"[{"name": "a", "source": "file:nowhere.wav"}]"#.to_owned(), "nowhere.wav: no such file"),
            (r#"[{"name": "a", "source": "file:/"}]"#.to_owned(), "is a directory"),
            (
                r#"[{"name":"a","source":"synthetic:cry"},{"name":"a","source":"synthetic:cry"}]"#.to_owned(),
                "cameras[1].name: \"a\" is used twice",
            ),
            (
                r#"{"cameras": [{"name":"a","source":"synthetic:cry"}], "heartbeat": "ping me"}"#.into(),
                "heartbeat: not a URL",
            ),
            (
                r#"{"cameras": [{"name":"a","source":"synthetic:cry"}], "heartbeat": "env:NURSERY_NO_SUCH"}"#
                    .into(),
                "heartbeat: environment variable NURSERY_NO_SUCH is not set",
            ),
            (alert(r#"{"type": "webhook"}"#), "alerts[0].url: is missing"),
            (alert(r#"{"type": "webhok"}"#), r#"did you mean "webhook"?"#),
            (alert(r#"{"type": "webhook", "url": "ftp://h/"}"#), "alerts[0].url: expected http"),
            (
                alert(r#"{"type": "webhook", "url": "http://h/", "secret": "env:NURSERY_NO_SUCH"}"#),
                "alerts[0].secret: environment variable NURSERY_NO_SUCH is not set",
            ),
            (alert(r#"{"type": "log", "url": "http://h/"}"#), "alerts[0].url"),
            (alert(r#"{"type": "exec"}"#), "alerts[0].command"),
            (
                alert(r#"{"type": "exec", "command": "mail 'x"}"#),
                "alerts[0].command: the command cannot be split",
            ),
            (
                alert(r#"{"type": "webhook", "url": "http://h/", "secret": "whsec_!!"}"#),
                "alerts[0].secret: expected base64",
            ),
            (r#"[{"name": "a", "source": "exec:ffmpeg 'x"}]"#.to_owned(), "cameras[0].source: the command"),
            (
                r#"{"cameras": [{"name":"a","source":"synthetic:cry"}], "supervision": {"worker_memory_mb": 64}}"#
                    .to_owned(),
                "supervision.worker_memory_mb: 64, expected a number of mebibytes from 128",
            ),
        ];
        for (text, expected) in cases {
            let e = load(&text).expect_err(&text);
            assert!(e.contains(expected), "{text}\n gave {e:?}\n not {expected:?}");
            assert!(!e.contains("pw") && !e.contains('\n'), "{e}");
        }
    }

    #[test]
    fn secrets_that_stand_in_the_wrong_place_are_not_repeated() {
        let camera = r#"{"name": "a", "source": "rtsp://u:hunter2@h/", "password": "hunter2"}"#;
        for text in [
            format!(r#"{{"cameras": [{camera}], "inference": {{"workers": {camera}}}}}"#),
            format!(r#"{{"cameras": [{camera}], "inference": [{camera}]}}"#),
            format!(r#"{{"cameras": {camera}}}"#),
            format!(r#"{{"cameras": [{camera}], "detection": [{camera}]}}"#),
        ] {
            let e = load(&text).expect_err(&text);
            assert!(!e.contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_repeats() {
        let cases = [
            r#"[{"name": "a", "source": "file:no\n\u001b[31m such"}]"#,
            r#"[{"name": "a", "source": "synthetic:cry", "x\ny`z": 1}]"#,
            r#"[{"name": "a", "source": "rtsp://h/", "username": "u", "password": "env:NO\nSUCH"}]"#,
            r#"[{"name": "a", "source": "synthetic:cry", "transport": "t\np"}]"#,
        ];
        for text in cases {
            let e = load(text).expect_err(text);
            assert!(!e.contains(char::is_control), "{text} gave {e:?}");
        }
    }

    #[test]
    fn a_cameras_own_sensitivity_or_threshold_goes_before_the_default_whichever_it_is() {
        let thresholds = |detection: &str| -> Vec<f64> {
            let camera =
                |name: &str, rest: &str| format!(r#"{{"name": "{name}", "source": "synthetic:cry"{rest}}}"#);
            let cameras = [
                camera("plain", ""),
                camera("word", r#", "sensitivity": "high""#),
                camera("number", r#", "sensitivity": 1"#),
                camera("threshold", r#", "threshold": 0.7, "sensitivity": null"#),
            ];
            let text = format!(r#"{{"cameras": [{}], "detection": {{{detection}}}}}"#, cameras.join(", "));
            let config = load(&text).unwrap();
            config.cameras.iter().map(|c| config.detection.for_camera(c).threshold).collect()
        };
        let of = |text: &str| text.parse::<super::super::Sensitivity>().unwrap().threshold();
        for (detection, default) in [
            ("", 0.5),
            (r#""sensitivity": "normal""#, 0.5),
            (r#""sensitivity": "low""#, of("low")),
            (r#""sensitivity": 0"#, of("0")),
            (r#""threshold": 0.6"#, 0.6),
        ] {
            assert_eq!(thresholds(detection), [default, of("high"), of("1"), 0.7], "{detection}");
        }
        // The same file always reads the same, which is how a reload finds what changed.
        let text = r#"[{"name": "a", "source": "synthetic:cry", "sensitivity": "high", "sustained_s": 10}]"#;
        let config = load(text).unwrap();
        assert_eq!(config, load(text).unwrap());
        assert_eq!(config.detection.for_camera(&config.cameras[0]).sustained_s, 10.0);
    }

    #[test]
    fn secrets_come_from_files_without_their_newline() {
        let dir = std::env::temp_dir().join(format!("nursery-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // Whoever runs this may be root, who keeps secrets from others.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(dir.join("key"), "sesame\n").unwrap();
        let path = dir.join("c.json");
        std::fs::write(
            &path,
            r#"{"cameras":[{"name":"a","source":"rtsp://h/x","username":"u","password":"file:key"}]}"#,
        )
        .unwrap();
        let config = from_file(&path).unwrap();
        assert_eq!(config.cameras[0].password.as_ref().unwrap().expose(), "sesame");
        assert!(!format!("{config:?}").contains("sesame"));
        assert!(!serde_json::to_string(&config).unwrap().contains("sesame"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_credential_is_a_file_of_its_directory_and_nothing_outside_of_it() {
        let dir = std::env::temp_dir().join(format!("nursery-credentials-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("directory")).unwrap();
        std::fs::write(dir.join("hook"), "sesame\n").unwrap();
        std::fs::write(dir.join("nursery_bedroom"), "open").unwrap();
        std::fs::write(dir.join("large"), "x".repeat(MAX_SECRET as usize + 1)).unwrap();
        let of = |name: &str| credential(name, Some(&dir));
        assert_eq!(of("hook").unwrap().expose(), "sesame");
        assert_eq!(of("bedroom").unwrap().expose(), "open");
        for (name, expected) in [
            ("nowhere", "LoadCredential=nowhere:"),
            ("directory", "no such file"),
            ("large", "is larger than"),
            ("../hook", "expected the name of a file"),
            ("", "expected the name of a file"),
            ("..", "expected the name of a file"),
            ("a\nb", "expected the name of a file"),
        ] {
            let e = of(name).unwrap_err();
            assert!(e.contains(expected) && e.contains("credential:"), "{name}: {e}");
        }
        assert!(credential("hook", None).unwrap_err().contains("CREDENTIALS_DIRECTORY is not set"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_configuration_survives_a_frame_with_its_secrets() {
        let config = load(r#"[{"name":"a","source":"rtsp://u:p@h/x"}]"#).unwrap();
        let mut bytes = Vec::new();
        crate::codec::encode_into(&config, &mut bytes).unwrap();
        assert_eq!(crate::codec::decode::<Config>(&bytes).unwrap(), config);
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        // A cheap deterministic fuzz: every prefix and every single-byte change of a full file.
        let text =
            r#"{"cameras":[{"name":"a","source":"rtsp://u:p@h/x","loop":false}],"inference":{"workers":2}}"#;
        for i in 0..text.len() {
            let _ = load(&text[..i]);
            for b in [b'"', b'{', b'0', b':', 0x7f] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[i] = b;
                let _ = load(std::str::from_utf8(&bytes).unwrap());
            }
        }
    }

    #[test]
    fn the_schema_names_every_top_level_key() {
        let text = schema().to_string();
        for key in
            ["cameras", "inference", "detection", "alerts", "min_duration_s", "env:NAME", "sensitivity"]
        {
            assert!(text.contains(key), "{key}");
        }
    }
}
