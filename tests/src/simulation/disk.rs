//! What outlives the sink's process: the real store in a directory, or a model of it in memory, both with a disk that
//! may be full. Every transaction that came about is told to the truth.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    rc::Rc,
};

use nursery_shared::{
    history::{Answer, History, Question},
    message::SetAside,
};
use nursery_worker::sink::{
    camera::CameraState,
    curves::Curves,
    store::{Batch, Mark, Pending, Storage, Store},
};

use super::{
    alerts::Alerts,
    truth::{Broken, number_in},
};

/// One row of the model's deliveries.
struct Row {
    pending: Pending,
    receiver: String,
}

/// What [`Store`] keeps, without SQL: for runs of which a million faults are asked.
#[derive(Default)]
pub struct Model {
    /// By number; what is done with is gone.
    deliveries: BTreeMap<i64, Row>,
    next: i64,
    delivered: u64,
    cameras: HashMap<String, String>,
    mark: Option<Mark>,
}

enum Medium {
    Model(Model),
    Directory(PathBuf),
}

/// The disk and what it takes to break it.
pub struct Disk {
    medium: Medium,
    pub full: bool,
    /// Writes that failed, to be counted.
    pub failures: u64,
    pub alerts: Alerts,
    pub broken: Option<Broken>,
    /// Windows that were kept for study.
    pub set_aside: BTreeSet<u64>,
    /// A bug: a store that was opened again gives messages other ids.
    pub renames: bool,
    opened: u32,
}

impl Disk {
    /// Empty; with the real store where a directory for it is given.
    pub fn new(directory: Option<PathBuf>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            medium: directory.map_or_else(|| Medium::Model(Model::default()), Medium::Directory),
            full: false,
            failures: 0,
            alerts: Alerts::default(),
            broken: None,
            set_aside: BTreeSet::new(),
            renames: false,
            opened: 0,
        }))
    }
}

/// The store as one sink process has it open.
pub struct SimStore {
    disk: Rc<RefCell<Disk>>,
    real: Option<Store>,
    renames: bool,
}

impl SimStore {
    /// Opens what is on the disk.
    pub fn open(disk: &Rc<RefCell<Disk>>) -> Result<Self, String> {
        let mut inside = disk.borrow_mut();
        inside.opened += 1;
        let real = match &inside.medium {
            Medium::Directory(directory) => Some(Store::open(directory)?),
            Medium::Model(_) => None,
        };
        let renames = inside.renames && inside.opened > 1;
        drop(inside);
        Ok(Self { disk: Rc::clone(disk), real, renames })
    }

    /// Refuses where the disk is full.
    fn write(&mut self) -> Result<(), String> {
        let mut disk = self.disk.borrow_mut();
        if disk.full {
            disk.failures += 1;
            return Err("database or disk is full".into());
        }
        Ok(())
    }

    /// With the model, where that is the medium.
    fn with<R>(&self, act: impl FnOnce(&mut Model) -> R) -> Option<R> {
        match &mut self.disk.borrow_mut().medium {
            Medium::Model(model) => Some(act(model)),
            Medium::Directory(_) => None,
        }
    }
}

impl Model {
    fn commit(&mut self, batch: &Batch, receivers: &[String]) {
        self.mark = Some(batch.mark);
        for alert in &batch.alerts {
            for receiver in receivers {
                self.next += 1;
                let pending = Pending {
                    delivery: self.next,
                    camera: alert.camera.clone(),
                    message_id: alert.message_id.clone(),
                    body: alert.body.clone(),
                };
                self.deliveries.insert(self.next, Row { pending, receiver: receiver.clone() });
            }
        }
        for (name, state) in &batch.cameras {
            self.cameras.insert(name.clone(), serde_json::to_string(state).unwrap_or_default());
        }
    }

    fn heads(&self, receiver: &str, camera: Option<&str>) -> Vec<Pending> {
        let mut heads: Vec<Pending> = Vec::new();
        for row in self.deliveries.values().filter(|r| r.receiver == receiver) {
            let asked = camera.is_none_or(|c| c == row.pending.camera);
            if asked && !heads.iter().any(|h| h.camera == row.pending.camera) {
                heads.push(row.pending.clone());
                if camera.is_some() {
                    break;
                }
            }
        }
        heads
    }
}

impl Storage for SimStore {
    fn cameras(&self) -> Result<HashMap<String, CameraState>, String> {
        match &self.real {
            Some(store) => Storage::cameras(store),
            None => self
                .with(|m| {
                    let read = |(name, text): (&String, &String)| {
                        Some((name.clone(), serde_json::from_str(text).ok()?))
                    };
                    m.cameras.iter().filter_map(read).collect()
                })
                .ok_or_else(|| "no store".to_owned()),
        }
    }

    fn mark(&self) -> Result<Option<Mark>, String> {
        match &self.real {
            Some(store) => Storage::mark(store),
            None => Ok(self.with(|m| m.mark).flatten()),
        }
    }

    fn commit(&mut self, batch: &Batch, receivers: &[String]) -> Result<(), String> {
        self.write()?;
        match &mut self.real {
            Some(store) => Storage::commit(store, batch, receivers)?,
            None => {
                self.with(|m| m.commit(batch, receivers));
            }
        }
        let mut disk = self.disk.borrow_mut();
        if let Err(broken) = disk.alerts.committed(&batch.alerts, receivers) {
            disk.broken.get_or_insert(broken);
        }
        Ok(())
    }

    fn heads(&self, receiver: &str, camera: Option<&str>) -> Result<Vec<Pending>, String> {
        let mut heads = match &self.real {
            Some(store) => Storage::heads(store, receiver, camera)?,
            None => self.with(|m| m.heads(receiver, camera)).unwrap_or_default(),
        };
        if self.renames {
            heads.iter_mut().for_each(|h| h.message_id.push('x'));
        }
        Ok(heads)
    }

    fn delivered(&mut self, delivery: i64) -> Result<(), String> {
        self.write()?;
        match &mut self.real {
            Some(store) => Storage::delivered(store, delivery),
            None => {
                self.with(|m| m.delivered += u64::from(m.deliveries.remove(&delivery).is_some()));
                Ok(())
            }
        }
    }

    fn give_up(&mut self, delivery: i64, why: &str) -> Result<(), String> {
        self.write()?;
        match &mut self.real {
            Some(store) => Storage::give_up(store, delivery, why),
            None => {
                self.with(|m| m.deliveries.remove(&delivery));
                Ok(())
            }
        }
    }

    fn counts(&self) -> Result<(u64, u64), String> {
        match &self.real {
            Some(store) => Storage::counts(store),
            None => Ok(self.with(|m| (m.deliveries.len() as u64, m.delivered)).unwrap_or_default()),
        }
    }

    fn answer(&mut self, question: &Question, fresh: &Curves) -> Result<Answer, String> {
        match &mut self.real {
            Some(store) => Storage::answer(store, question, fresh),
            // What people look at is no part of the model.
            None => Ok(Answer::Events(History::default())),
        }
    }

    fn store_curves(&mut self, curves: &Curves) -> Result<(), String> {
        self.write()?;
        self.real.as_mut().map_or(Ok(()), |store| store.store_curves(curves))
    }

    fn thin_curves(&mut self, now_us: i64, keep_days: u32) -> Result<bool, String> {
        self.write()?;
        self.real.as_mut().map_or(Ok(false), |store| store.thin_curves(now_us, keep_days))
    }

    fn purge(&mut self, receivers: &[String]) -> Result<(), String> {
        match &mut self.real {
            Some(store) => Storage::purge(store, receivers),
            None => Ok(()),
        }
    }

    fn set_aside(&mut self, camera: &str, window: &SetAside) {
        if let Some(store) = &mut self.real {
            store.set_aside(camera, window);
        }
        self.disk.borrow_mut().set_aside.insert(number_in(window.pcm.as_bytes()));
    }
}
