//! Where it all happens: cameras, receiver and service, and what those who hurt them have to agree on.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Mutex, RwLock},
    time::{Duration, Instant},
};

use nursery_shared::{
    control::{Reply, Request},
    message::Role,
    status::{CameraState, CameraStatus, Status, WorkerState, WorkerStatus},
};

use super::{
    Impostors,
    ledger::Ledger,
    report::{Entry, Violations},
};
use crate::{processes::Process, receiver::Receiver, rtsp_camera::RtspCamera, service, wait};

/// From the end of a fault until everything must be well again. Waits for a restart, or for the next attempt to connect
/// to a camera, take up to 30 s on purpose.
pub const RECOVERY: Duration = Duration::from_secs(90);

/// Everything that is shared.
pub struct Stage {
    pub names: Vec<String>,
    pub cameras: Vec<RtspCamera>,
    pub receiver: Receiver,
    pub ledger: Ledger,
    pub entries: Mutex<Vec<Entry>>,
    pub violations: Violations,
    pub impostors: Impostors,
    pub socket: PathBuf,
    pub supervisor: Mutex<Process>,
    pub begun: Instant,
    /// No new fault after this.
    pub end: Instant,
    /// Held for reading while something is hurt, for writing by what concerns everything.
    pub calm: RwLock<()>,
    /// Workers and cameras that something is done to at present, and until when something was done to others.
    hurt: Mutex<HashSet<String>>,
    healed: Mutex<HashMap<String, Instant>>,
}

/// For so long after a fault what becomes of it may still show.
const SHOWS: Duration = Duration::from_secs(3);

/// Marks a worker or camera as being hurt, until dropped.
pub struct Hurting<'a> {
    stage: &'a Stage,
    names: Vec<String>,
}

impl Drop for Hurting<'_> {
    fn drop(&mut self) {
        let mut hurt = self.stage.hurt.lock().unwrap();
        let mut healed = self.stage.healed.lock().unwrap();
        for name in &self.names {
            hurt.remove(name);
            healed.insert(name.clone(), Instant::now());
        }
    }
}

impl Stage {
    /// A stage without anything done to anybody yet.
    pub fn new(
        names: Vec<String>,
        cameras: Vec<RtspCamera>,
        receiver: Receiver,
        impostors: Impostors,
        socket: PathBuf,
        supervisor: Process,
        lasting: Duration,
    ) -> Self {
        let begun = Instant::now();
        Self {
            names,
            cameras,
            receiver,
            ledger: Ledger::default(),
            entries: Mutex::default(),
            violations: Violations::default(),
            impostors,
            socket,
            supervisor: Mutex::new(supervisor),
            begun,
            end: begun + lasting,
            calm: RwLock::new(()),
            hurt: Mutex::default(),
            healed: Mutex::default(),
        }
    }

    /// There is time for another fault.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Sleeps for so long, or until there is no time for another fault.
    pub fn pause(&self, time: Duration) {
        std::thread::sleep(time.min(self.end.saturating_duration_since(Instant::now())));
    }

    /// Claims a worker or camera for something that is done to it; `None` where somebody else has it.
    pub fn hurt(&self, names: &[&str]) -> Option<Hurting<'_>> {
        let mut hurt = self.hurt.lock().unwrap();
        if names.iter().any(|name| hurt.contains(*name)) {
            return None;
        }
        hurt.extend(names.iter().map(|name| (*name).to_owned()));
        Some(Hurting { stage: self, names: names.iter().map(|name| (*name).to_owned()).collect() })
    }

    /// Something is being done to it, or was a moment ago.
    pub fn is_hurt(&self, name: &str) -> bool {
        let hurt = self.hurt.lock().unwrap();
        let healed = self.healed.lock().unwrap();
        hurt.contains(name) || healed.get(name).is_some_and(|at| at.elapsed() < SHOWS)
    }

    /// The service's status, if it answers.
    pub fn status(&self) -> Option<Status> {
        match service::ask(&self.socket, &Request::Status {}) {
            Ok(Reply::Status { status }) => Some(*status),
            _ => None,
        }
    }

    /// Looks at the status every few milliseconds until `look` finds something in it, or `within` is over.
    pub fn watch<T>(&self, within: Duration, mut look: impl FnMut(&Status) -> Option<T>) -> Option<T> {
        let end = Instant::now() + within;
        loop {
            if let Some(found) = self.status().and_then(|status| look(&status)) {
                return Some(found);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until every worker works and every camera is heard; otherwise says who is not well.
    pub fn wait_well(&self, within: Duration) -> Result<(), String> {
        let mut last = None;
        let well = wait::poll(within, || {
            let status = self.status()?;
            let ill = ailing(&status);
            let well = ill.is_empty();
            last = Some(ill);
            well.then_some(())
        });
        well.ok_or_else(|| last.map_or_else(|| "the service does not answer".into(), |ill| ill.join(", ")))
    }

    /// Waits until a camera is heard again: new windows since now, and no error.
    pub fn wait_heard(&self, camera: usize, within: Duration) -> bool {
        let name = &self.names[camera];
        let mut first = None;
        let heard = self.watch(within, |status| {
            let camera = status.cameras.iter().find(|c| c.name == *name)?;
            if !is_live(camera) {
                first = None;
                return None;
            }
            let first = *first.get_or_insert(camera.windows);
            (camera.windows >= first + 2).then_some(())
        });
        heard.is_some()
    }

    /// Adds to the record.
    pub fn note(&self, mut entry: Entry) {
        entry.at_s = self.begun.elapsed().as_secs_f64() - entry.took_s;
        self.entries.lock().unwrap().push(entry);
    }
}

fn is_live(camera: &CameraStatus) -> bool {
    camera.state == CameraState::Live && camera.last_error.is_none()
}

/// Who is not well.
fn ailing(status: &Status) -> Vec<String> {
    // An inference process may have nothing to do.
    let works = |w: &WorkerStatus| w.role == Role::Infer || service::has_progressed(w);
    let is_well = |w: &&WorkerStatus| w.state == WorkerState::Running && works(w);
    let workers = status.workers.iter().filter(|w| !is_well(w));
    let workers = workers.map(|w| format!("{} {:?} ({:?})", w.name, w.state, w.last_exit));
    let cameras = status.cameras.iter().filter(|c| !is_live(c));
    workers.chain(cameras.map(|c| format!("{} {:?} ({:?})", c.name, c.state, c.last_error))).collect()
}

/// The worker of this name in a status.
pub fn worker<'a>(status: &'a Status, name: &str) -> Option<&'a WorkerStatus> {
    status.workers.iter().find(|w| w.name == name)
}

/// The camera of a capture process.
pub fn camera_of(worker: &str) -> Option<&str> {
    worker.strip_prefix("capture:")
}

/// Every role, in the order of reports.
pub const ROLES: [Role; 4] = [Role::Capture, Role::Infer, Role::Sink, Role::Web];
