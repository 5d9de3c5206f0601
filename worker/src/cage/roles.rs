//! What each role may reach and which system calls it makes, from its configuration.

use std::{net::IpAddr, path::Path};

use nursery_shared::{
    config::{AlertReach, CameraConfig, Source, Transport},
    message::SinkConfig,
};
use url::Url;

use super::files::Reach;

const PROGRAMS: &str = "it starts a program of the configuration, which may need any";
const SOUNDS: &str = "it plays sounds, which takes devices and libraries that differ from host to host";

/// How a process is to be caged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub reach: Reach,
    /// Names of the lists of system calls.
    pub lists: Vec<&'static str>,
    /// The lists say what is refused, not what is allowed.
    pub programs: bool,
}

impl Plan {
    fn with(reach: Reach, lists: impl IntoIterator<Item = &'static str>) -> Self {
        Self { reach, lists: lists.into_iter().collect(), programs: false }
    }

    fn open(why: &'static str) -> Self {
        Self { reach: Reach::default().unlimited(why), lists: vec!["program"], programs: true }
    }

    /// Of an inference process, whose model is open already: nothing.
    pub fn infer() -> Self {
        Self::with(Reach::default(), ["infer"])
    }

    /// Of the page's process, whose socket listens already: no file, no connection to anybody, no other port.
    pub fn web() -> Self {
        Self::with(Reach::default(), ["web"])
    }

    /// Of the process that makes pictures, which is handed all that it looks at: nothing.
    pub fn light() -> Self {
        Self::with(Reach::default(), ["light"])
    }

    /// Of a capture process: its camera, and how to get there.
    pub fn capture(camera: &CameraConfig, source: &Source) -> Self {
        match source {
            Source::Synthetic(_) => Self::with(Reach::default(), ["capture"]),
            Source::File(path) => Self::with(Reach::default().read([path]), ["capture", "file"]),
            Source::Exec(_) => Self::open(PROGRAMS),
            Source::Rtsp(url) => Self::rtsp(camera, url),
        }
    }

    fn rtsp(camera: &CameraConfig, url: &Url) -> Self {
        let tls = url.scheme() == "rtsps";
        let port = url.port().unwrap_or(if tls { 322 } else { 554 });
        let mut plan = Self::with(Reach::default().ports([port]), ["capture", "rtsp"]);
        if !is_address(url) {
            plan.reach = plan.reach.names();
            plan.lists.push("names");
        }
        if tls {
            plan.lists.push("tls");
        }
        if tls && camera.tls_fingerprint.is_none() {
            // Read once, before the list of calls is closed.
            plan.reach = plan.reach.roots();
        }
        if camera.transport == Transport::Udp {
            plan.lists.push("udp");
        }
        plan
    }

    /// Of a sink: its store, as it may be reached in the current directory, and its receivers.
    pub fn sink(config: &SinkConfig, store: &Path, sounds_can_be_played: bool) -> Self {
        let needs = AlertReach::of(&config.alerts, config.heartbeat.as_ref());
        if needs.programs {
            return Self::open(PROGRAMS);
        }
        if needs.sounds && sounds_can_be_played {
            return Self::open(SOUNDS);
        }
        let receivers = !needs.ports.is_empty();
        let mut plan = Self::with(Reach::default().write(store).ports(needs.ports), ["sink"]);
        if receivers {
            // The client for HTTP asks for the authorities whoever is called.
            plan.reach = plan.reach.roots();
            plan.lists.push("http");
        }
        if needs.names {
            plan.reach = plan.reach.names();
            plan.lists.push("names");
        }
        plan
    }
}

/// Whether the host is given by its address. The crate `url` looks for those of version 4 in web addresses only.
fn is_address(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn addresses_take_no_resolver() {
        for (url, address) in [
            ("rtsp://192.0.2.1/x", true),
            ("rtsp://[2001:db8::1]:554/x", true),
            ("rtsp://u:p@192.0.2.1:8554/x", true),
            ("rtsps://camera.example/x", false),
            ("rtsp://localhost:1/x", false),
        ] {
            assert_eq!(is_address(&Url::parse(url).unwrap()), address, "{url}");
        }
    }
}
