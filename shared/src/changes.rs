//! What a reload changed, key by key, as people are told and scripts are answered.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{AlertConfig, AlertKind, Config};

/// Names that a line shows; the document has all of them.
const SHOWN: usize = 8;

/// What came, went and is another now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

/// The difference between two configurations, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    pub cameras: Difference,
    /// By kind and place; URLs and commands may hold secrets.
    pub receivers: Difference,
    /// Keys with another value, such as `inference.max_batch`.
    pub settings: Vec<String>,
    /// The model that the pool goes over to now.
    pub model: Option<String>,
    /// Workers whose processes are replaced for it.
    pub restarted: Vec<String>,
    /// What is in the file and not in force, or not yet, and why.
    pub notes: Vec<String>,
}

impl Changes {
    /// From `old` to `new`, cameras told apart by their names. Processes and notes are the caller's.
    pub fn between(old: &Config, new: &Config) -> Self {
        let name = |c: &crate::config::CameraConfig| c.name.clone();
        Self {
            cameras: difference(&old.cameras, &new.cameras, name, name),
            receivers: difference(&old.alerts, &new.alerts, identity, label),
            settings: settings(old, new),
            ..Self::default()
        }
    }

    /// Nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn difference<T: PartialEq, K: PartialEq>(
    old: &[T],
    new: &[T],
    identity: impl Fn(&T) -> K,
    label: impl Fn(&T) -> String,
) -> Difference {
    let mut found = Difference::default();
    // The same one may be there twice, so each is matched with one that is not taken.
    let mut left: Vec<&T> = old.iter().collect();
    for item in new {
        let same = left.iter().position(|o| *o == item);
        let akin = || left.iter().position(|o| identity(o) == identity(item));
        match same.map(|at| (at, false)).or_else(|| akin().map(|at| (at, true))) {
            Some((at, changed)) => {
                left.swap_remove(at);
                if changed {
                    found.changed.push(label(item));
                }
            }
            None => found.added.push(label(item)),
        }
    }
    found.removed = left.into_iter().map(label).collect();
    found
}

/// What makes a receiver the same one, to which what is owed stays owed.
fn identity(alert: &AlertConfig) -> (AlertKind, String) {
    let target = match alert.r#type {
        AlertKind::Webhook => alert.url.as_ref().map(|u| u.expose().to_owned()),
        AlertKind::Exec => alert.command.clone(),
        AlertKind::Sound => alert.file.clone(),
        AlertKind::Log => None,
    };
    (alert.r#type.clone(), target.unwrap_or_default())
}

/// Kind and place, without what may be secret.
fn label(alert: &AlertConfig) -> String {
    match alert.r#type {
        AlertKind::Webhook => {
            let url = alert.url.as_ref().and_then(|u| url::Url::parse(u.expose()).ok());
            let place = url.as_ref().and_then(|u| {
                let port = u.port().map_or_else(String::new, |p| format!(":{p}"));
                Some(format!(" {}{port}", u.host_str()?))
            });
            format!("webhook{}", place.unwrap_or_default())
        }
        AlertKind::Exec => {
            let words = alert.command.as_deref().and_then(shlex::split).unwrap_or_default();
            format!("exec {}", words.first().map_or("", String::as_str))
        }
        AlertKind::Sound => "sound".to_owned(),
        AlertKind::Log => "log".to_owned(),
    }
}

/// Keys of the sections with another value. Of secrets only the heartbeat is among them, compared as it is.
fn settings(old: &Config, new: &Config) -> Vec<String> {
    let sections = |config: &Config| -> Vec<(&'static str, Value)> {
        let value = |v: Result<Value, serde_json::Error>| v.unwrap_or_default();
        vec![
            ("inference", value(serde_json::to_value(&config.inference))),
            ("detection", value(serde_json::to_value(config.detection))),
            ("supervision", value(serde_json::to_value(&config.supervision))),
            ("control", value(serde_json::to_value(&config.control))),
            ("clips", value(serde_json::to_value(config.clips))),
            ("store", value(serde_json::to_value(config.store))),
        ]
    };
    let mut keys = Vec::new();
    for ((section, old), (_, new)) in sections(old).iter().zip(&sections(new)) {
        let names = new.as_object().into_iter().flat_map(|o| o.keys());
        keys.extend(names.filter(|k| old.get(k) != new.get(k)).map(|k| format!("{section}.{k}")));
    }
    if old.heartbeat != new.heartbeat {
        keys.push("heartbeat".to_owned());
    }
    match (&old.web, &new.web) {
        (Some(was), Some(is)) => {
            let differ = [
                ("listen", was.listen != is.listen),
                ("password", was.password != is.password),
                ("token", was.token != is.token),
                ("tls", was.tls != is.tls),
            ];
            keys.extend(differ.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("web.{key}")));
        }
        (was, is) if was != is => keys.push("web".to_owned()),
        _ => {}
    }
    keys
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (what, difference) in [("camera", &self.cameras), ("receiver", &self.receivers)] {
            for (list, how) in [
                (&difference.added, "added"),
                (&difference.removed, "removed"),
                (&difference.changed, "changed"),
            ] {
                let plural = if list.len() == 1 { "" } else { "s" };
                if !list.is_empty() {
                    parts.push(format!("{} {what}{plural} {how} ({})", list.len(), names(list)));
                }
            }
        }
        if !self.settings.is_empty() {
            parts.push(format!("changed {}", self.settings.join(", ")));
        }
        if let Some(model) = &self.model {
            parts.push(format!("going over to model {model}"));
        }
        if !self.restarted.is_empty() {
            parts.push(format!("restarting {}", names(&self.restarted)));
        }
        parts.extend(self.notes.iter().cloned());
        let text = if parts.is_empty() { "nothing changed".to_owned() } else { parts.join("; ") };
        write!(f, "reloaded: {text}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn config(text: &str) -> Config {
        crate::config::from_json(text, std::path::Path::new(".")).unwrap()
    }

    #[test]
    fn what_is_different_is_named_and_secrets_are_not() {
        let old = config(
            r#"{"cameras":[{"name":"a","source":"rtsp://h/1"},{"name":"b","source":"synthetic:cry"}],
                "alerts":[{"type":"webhook","url":"http://h:9/token","secret":"one"},{"type":"log"}]}"#,
        );
        let new = config(
            r#"{"cameras":[{"name":"a","source":"rtsp://u:pass@h/1"},{"name":"c","source":"synthetic:cry"}],
                "alerts":[{"type":"webhook","url":"http://h:9/token","secret":"two"},
                          {"type":"exec","command":"/bin/tell --key sesame"}],
                "inference":{"max_batch":2},"detection":{"cooldown_s":1},"heartbeat":"http://h/pulse"}"#,
        );
        let changes = Changes::between(&old, &new);
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let cameras = Difference { added: list(&["c"]), removed: list(&["b"]), changed: list(&["a"]) };
        assert_eq!(changes.cameras, cameras);
        assert_eq!(changes.receivers.added, ["exec /bin/tell"]);
        assert_eq!(changes.receivers.removed, ["log"]);
        assert_eq!(changes.receivers.changed, ["webhook h:9"]);
        assert_eq!(changes.settings, ["inference.max_batch", "detection.cooldown_s", "heartbeat"]);
        let all = format!("{changes} {}", serde_json::to_string(&changes).unwrap());
        for secret in ["pass", "token", "sesame", "pulse", "two"] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }

    #[test]
    fn the_same_configuration_is_no_change_and_long_lists_are_cut_in_the_line_alone() {
        let text = |n: usize| {
            let cameras: Vec<String> =
                (0..n).map(|i| format!(r#"{{"name":"c{i}","source":"synthetic:cry"}}"#)).collect();
            config(&format!("[{}]", cameras.join(",")))
        };
        let same = Changes::between(&text(3), &text(3));
        assert!(same.is_empty());
        assert_eq!(same.to_string(), "reloaded: nothing changed");
        let more = Changes::between(&text(1), &text(21));
        assert_eq!(more.cameras.added.len(), 20);
        assert!(
            more.to_string().contains("20 cameras added (c1, c2") && more.to_string().contains("and 12 more")
        );
    }
}
