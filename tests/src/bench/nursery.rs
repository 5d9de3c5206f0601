//! nursery itself, as it is without any settings but cameras and the receiver.

use std::collections::HashMap;

use nursery_shared::{message::ModelShape, pcm::SAMPLE_RATE, status::CameraState};
use serde_json::json;

use super::system::{Counters, Setup, System};
use crate::{http::free_port, processes::Process, service::Service};

/// A running service.
pub struct Nursery {
    service: Service,
    hop_s: f64,
}

/// The shape of the model inside `nursery-worker`.
pub fn shape() -> ModelShape {
    let found = nursery_worker::info::find_model(None).expect("the model inside");
    nursery_worker::info::shape(&nursery_worker::info::load_detector(found).expect("the model inside"))
}

impl Nursery {
    /// Starts it with a configuration of cameras and one receiver.
    pub fn start(setup: &Setup<'_>) -> Self {
        let cameras: Vec<_> =
            setup.cameras.iter().map(|c| json!({"name": c.name, "source": c.url})).collect();
        let mut config = json!({"cameras": cameras, "alerts": [setup.receiver.alert()]});
        if setup.web {
            config["web"] = json!({"listen": format!("127.0.0.1:{}", free_port())});
        }
        let service = Service::start_in_slot(&config, setup.slot);
        Self { service, hop_s: f64::from(shape().hop) / f64::from(SAMPLE_RATE) }
    }
}

impl System for Nursery {
    fn root(&self) -> Process {
        self.service.process()
    }

    fn live(&self) -> usize {
        let status = self.service.status();
        status.cameras.iter().filter(|c| c.state == CameraState::Live && c.score.is_some()).count()
    }

    fn failed(&mut self) -> Option<String> {
        (!self.service.process().is_alive()).then(|| "the supervisor has ended".into())
    }

    fn counters(&self) -> Option<Counters> {
        let status = self.service.status();
        let windows = status.inference.scored;
        Some(Counters {
            windows,
            dropped: status.cameras.iter().map(|c| c.dropped).sum::<u64>() + status.inference.quarantined,
            late: None,
            scored_s: windows as f64 * self.hop_s,
            restarts: status.workers.iter().map(|w| w.restarts).sum(),
        })
    }

    fn window_latency_ms(&self) -> Option<(f64, f64)> {
        let latency = self.service.status().inference.latency_ms;
        Some((latency.p50, latency.p99))
    }

    fn roles(&self) -> HashMap<u32, String> {
        let status = self.service.status();
        let workers = status.workers.iter().filter_map(|w| Some((w.pid?, w.role.as_str().to_owned())));
        workers.chain([(status.pid, "supervisor".to_owned())]).collect()
    }

    fn stop(mut self: Box<Self>) {
        self.service.stop();
    }
}
