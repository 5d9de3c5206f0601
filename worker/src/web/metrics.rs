//! `/metrics`: the state as Prometheus reads it. Base units, no secrets, and nothing in labels that changes with every
//! process: those who store them keep every combination for ever.

use std::fmt::Write as _;

use nursery_shared::status::{CameraState, Status, WorkerState};

use super::{connections::Figures, live};

/// What this process counts itself.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    pub connections: Figures,
    pub streams: usize,
    pub requests: u64,
    pub failed_logins: u64,
    pub live: live::Figures,
    /// Seconds since the supervisor showed the state.
    pub status_age_s: Option<f64>,
}

/// The text, in the exposition format 0.0.4.
pub fn render(status: Option<&Status>, own: &Own) -> String {
    let mut page = Page::default();
    page.own(own);
    if let Some(status) = status {
        page.service(status);
        page.cameras(status);
        page.workers(status);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

/// Names of cameras and versions hold none of what has to be escaped, but nobody has to know that here.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP nursery_{name} {help}\n# TYPE nursery_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "nursery_{name}");
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
            let _ = write!(self.0, "{{{}}}", pairs.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }

    fn own(&mut self, own: &Own) {
        let c = own.connections;
        for (name, kind, help, value) in [
            ("web_connections", "gauge", "Open connections to the page.", c.open as f64),
            ("web_connections_accepted_total", "counter", "Connections taken.", c.accepted as f64),
            (
                "web_connections_evicted_total",
                "counter",
                "Idle connections closed for others.",
                c.evicted as f64,
            ),
            ("web_connections_refused_total", "counter", "Connections turned away.", c.refused as f64),
            ("web_streams", "gauge", "Open event streams.", own.streams as f64),
            ("web_viewers", "gauge", "Viewers of live media.", own.live.viewers as f64),
            ("web_viewed_cameras", "gauge", "Cameras whose live media comes in.", own.live.cameras as f64),
            ("web_requests_total", "counter", "Requests answered.", own.requests as f64),
            ("web_logins_failed_total", "counter", "Wrong passwords and tokens.", own.failed_logins as f64),
        ] {
            self.one(name, kind, help, value);
        }
        if let Some(age) = own.status_age_s {
            self.one("status_age_seconds", "gauge", "Age of the figures below.", age);
        }
    }

    fn service(&mut self, status: &Status) {
        self.head("info", "gauge", "Version and model.");
        let labels = [("version", status.version.as_str()), ("model", status.inference.model.id.as_str())];
        self.sample("info", &labels, 1.0);
        let i = &status.inference;
        for (name, kind, help, value) in [
            ("uptime_seconds", "gauge", "Since the service began.", status.uptime_s),
            ("inference_workers", "gauge", "Inference processes that are wanted.", f64::from(i.workers)),
            ("windows_queued", "gauge", "Windows that wait to be scored.", i.queued as f64),
            ("windows_in_flight", "gauge", "Windows that are being scored.", i.in_flight as f64),
            ("windows_scored_total", "counter", "Windows scored.", i.scored as f64),
            ("windows_quarantined_total", "counter", "Windows set aside.", i.quarantined as f64),
            ("alerts_pending", "gauge", "Deliveries not confirmed yet.", status.alerts.pending as f64),
            ("alerts_delivered_total", "counter", "Deliveries confirmed.", status.alerts.delivered as f64),
            (
                "alerts_failing",
                "gauge",
                "1 while a receiver does not take its alerts.",
                f64::from(u8::from(status.alerts.failing_since.is_some())),
            ),
        ] {
            self.one(name, kind, help, value);
        }
        let name = "score_latency_seconds";
        self.head(name, "gauge", "From a window's last sample to its scores, of the newest windows.");
        self.sample(name, &[("quantile", "0.5")], i.latency_ms.p50 / 1000.0);
        self.sample(name, &[("quantile", "0.99")], i.latency_ms.p99 / 1000.0);
    }

    fn cameras(&mut self, status: &Status) {
        type Value = fn(&nursery_shared::status::CameraStatus) -> Option<f64>;
        let figures: [(&str, &str, &str, Value); 6] = [
            ("camera_live", "gauge", "1 while the camera is heard.", |c| {
                Some(f64::from(u8::from(c.state == CameraState::Live)))
            }),
            ("camera_level_dbfs", "gauge", "Level of its sound.", |c| c.level_dbfs),
            ("camera_score_ratio", "gauge", "Highest probability of crying in the newest window.", |c| {
                c.score
            }),
            ("camera_windows_total", "counter", "Windows that arrived.", |c| Some(c.windows as f64)),
            ("camera_windows_dropped_total", "counter", "Windows given up.", |c| Some(c.dropped as f64)),
            ("camera_audio_age_seconds", "gauge", "Since its last sound arrived.", |c| c.last_audio_age_s),
        ];
        for (name, kind, help, value) in figures {
            self.head(name, kind, help);
            for camera in &status.cameras {
                if let Some(value) = value(camera) {
                    self.sample(name, &[("camera", &camera.name)], value);
                }
            }
        }
    }

    fn workers(&mut self, status: &Status) {
        type Value = fn(&nursery_shared::status::WorkerStatus) -> f64;
        let figures: [(&str, &str, &str, Value); 5] = [
            ("worker_running", "gauge", "1 while it works.", |w| {
                f64::from(u8::from(w.state == WorkerState::Running))
            }),
            ("worker_restarts_total", "counter", "Times it was started again.", |w| w.restarts as f64),
            ("worker_uptime_seconds", "gauge", "Since its process began.", |w| w.uptime_s),
            ("worker_resident_memory_bytes", "gauge", "Its memory.", |w| w.rss_bytes as f64),
            // Of the present process, so it may fall.
            ("worker_cpu_seconds", "gauge", "Processor time of its process.", |w| w.cpu_s),
        ];
        for (name, kind, help, value) in figures {
            self.head(name, kind, help);
            for worker in &status.workers {
                let labels = [("worker", worker.name.as_str()), ("role", worker.role.as_str())];
                self.sample(name, &labels, value(worker));
            }
        }
    }
}
