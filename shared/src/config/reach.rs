//! Where alerts have to get to, which decides how the process that sends them is caged.

use std::collections::BTreeSet;

use super::{AlertConfig, AlertKind};
use crate::secret::Secret;

/// What the sink needs beyond its store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertReach {
    /// TCP ports of receivers and of the heartbeat.
    pub ports: BTreeSet<u16>,
    /// At least one of them is given by name.
    pub names: bool,
    /// Commands are run.
    pub programs: bool,
    /// Sounds are played.
    pub sounds: bool,
}

impl AlertReach {
    /// Of these alerts and this heartbeat.
    pub fn of(alerts: &[AlertConfig], heartbeat: Option<&Secret>) -> Self {
        let mut reach = Self::default();
        for alert in alerts {
            match alert.r#type {
                AlertKind::Webhook => reach.add(alert.url.as_ref()),
                AlertKind::Exec => reach.programs = true,
                AlertKind::Sound => reach.sounds = true,
                AlertKind::Log => {}
            }
        }
        reach.add(heartbeat);
        reach
    }

    /// One that cannot be read is not called either.
    fn add(&mut self, url: Option<&Secret>) {
        let Some(url) = url.and_then(|text| url::Url::parse(text.expose()).ok()) else { return };
        self.ports.extend(url.port_or_known_default());
        self.names |= matches!(url.host(), Some(url::Host::Domain(_)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn ports_names_and_programs_are_found_and_secrets_make_no_difference() {
        let alerts = |text: &str| serde_json::from_str::<Vec<AlertConfig>>(text).unwrap();
        let found = AlertReach::of(
            &alerts(
                r#"[{"type":"webhook","url":"http://192.0.2.1:9000/x","secret":"a"},{"type":"webhook","url":"https://[::1]/y"}]"#,
            ),
            Some(&Secret::new("http://pings.example/z")),
        );
        let ports = BTreeSet::from([80, 443, 9000]);
        assert_eq!(found, AlertReach { ports, names: true, ..AlertReach::default() });
        let found = AlertReach::of(&alerts(r#"[{"type":"exec","command":"x"},{"type":"log"}]"#), None);
        assert_eq!(found, AlertReach { programs: true, ..AlertReach::default() });
    }
}
