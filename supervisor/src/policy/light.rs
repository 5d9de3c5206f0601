//! Role `light`, which makes small pictures of the cameras' video: which cameras it is given, who wants a picture of it,
//! and which camera is left out because a process died with a picture of it in hand. Nobody waits for any of it.

use std::{collections::BTreeMap, time::Duration};

use nursery_shared::{
    light::{Found, LightCamera, MAX_PICTURE, Wanted},
    message::{Record, RecordKind, Role, ToWorker},
};

use super::{Config, Key, Level, Policy, Time, worker::State};

/// How long a camera is left out after the first death; twice as long after each further one.
const LEFT_OUT: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3600);
/// What is known of motion holds for so many times what lies between two pictures, and so much longer.
const STALE: f64 = 3.0;
const STALE_S: f64 = 5.0;

/// Records of motion are left out while so many of all kinds wait for the sink.
const MOST_RECORDS: usize = 1_000;

/// What is known of pictures.
#[derive(Debug, Default)]
pub(super) struct Light {
    slot: Option<u32>,
    /// The camera whose picture its process is looking at.
    in_hand: Option<String>,
    blamed: BTreeMap<String, Blame>,
    motion: BTreeMap<String, (f64, Time)>,
    /// Who waits for a picture, by slot, under which of our numbers, and under which of his.
    asked: BTreeMap<u32, (u64, u64)>,
    next_number: u64,
}

/// A camera with pictures that processes die of.
#[derive(Debug)]
struct Blame {
    pause: Duration,
    until: Time,
    left_out: bool,
}

impl Policy {
    fn pictures(config: &Config) -> impl Iterator<Item = LightCamera> {
        config
            .cameras
            .iter()
            .filter_map(|c| Some(LightCamera { camera: c.name.clone(), pictures: c.pictures? }))
    }

    /// Has `light` run where pictures are configured.
    pub(super) fn begin_light(&mut self) {
        if self.light.slot.is_none() && Self::pictures(&self.config).next().is_some() {
            self.light.slot = Some(self.add_worker("light".into(), Role::Light, None));
        }
    }

    /// Goes over to another configuration, which the process that is there takes up as it runs.
    pub(super) fn reload_light(&mut self, old: &Config) {
        let new: Vec<LightCamera> = Self::pictures(&self.config).collect();
        if Self::pictures(old).eq(new.iter().cloned()) {
            return;
        }
        let has = |name: &String| new.iter().any(|c| c.camera == *name);
        self.light.blamed.retain(|name, _| has(name));
        self.light.motion.retain(|name, _| has(name));
        match self.light.slot {
            Some(slot) if new.is_empty() => {
                self.refuse_pictures();
                self.dismiss(slot);
                self.light.slot = None;
                self.light.in_hand = None;
            }
            Some(_) => self.tell_light_of_cameras(),
            None => self.begin_light(),
        }
    }

    pub(super) fn light_configuration(&self) -> ToWorker {
        let left_out = |c: &LightCamera| self.light.blamed.get(&c.camera).is_some_and(|b| b.left_out);
        ToWorker::ConfigureLight(Self::pictures(&self.config).filter(|c| !left_out(c)).collect())
    }

    fn tell_light_of_cameras(&mut self) {
        if let Some(slot) = self.light.slot.filter(|slot| self.runs(*slot)) {
            self.send(slot, self.light_configuration());
        }
    }

    pub(super) fn on_looking(&mut self, camera: String) -> Result<(), String> {
        // One that is not configured any more may still be in hand.
        if camera.len() > nursery_shared::history::MAX_CAMERA {
            return Err("looks at no camera".into());
        }
        self.light.in_hand = Some(camera);
        Ok(())
    }

    pub(super) fn on_looked(&mut self, camera: String, motion: Option<f32>) -> Result<(), String> {
        if self.light.in_hand.take().as_deref() != Some(&camera) {
            return Err("has looked at another camera than it said".into());
        }
        let now = self.now;
        // Long enough after it was taken up again: that was another picture.
        self.light.blamed.retain(|name, b| *name != camera || b.left_out || now.since(b.until) < b.pause);
        let known = self.config.cameras.iter().find(|c| c.name == camera);
        match motion.filter(|m| (0.0..=1.0).contains(m) && known.is_some()) {
            Some(motion) => {
                let rule = known.and_then(|c| self.config.detection.for_camera(c).motion);
                // What is heard goes before where the sink does not keep up.
                if rule.is_some() && self.ledger.extent().0 < MOST_RECORDS {
                    let what = RecordKind::Motion { at_us: self.wall_us, motion };
                    self.ledger.push(Record { camera: camera.clone(), what });
                }
                let rounded = (f64::from(motion) * 1000.0).round() / 1000.0;
                self.light.motion.insert(camera, (rounded, now));
            }
            None => {
                self.light.motion.remove(&camera);
            }
        }
        Ok(())
    }

    /// How much moves before a camera, 0 to 1.
    pub(super) fn motion_of(&self, camera: &nursery_shared::config::CameraConfig, now: Time) -> Option<f64> {
        let every_s = camera.pictures?.every_s;
        let (motion, at) = self.light.motion.get(&camera.name)?;
        (now.since(*at).as_secs_f64() <= every_s * STALE + STALE_S).then_some(*motion)
    }

    pub(super) fn on_want_picture(
        &mut self,
        asker: Key,
        ticket: u64,
        mut wanted: Wanted,
    ) -> Result<(), String> {
        if wanted.camera.len() > nursery_shared::history::MAX_CAMERA {
            return Err("asked for a picture of no camera".into());
        }
        let Some(slot) = self.light.slot.filter(|slot| self.runs(*slot)) else {
            let why = match self.light.slot {
                Some(_) => "whoever makes pictures does not run at the moment",
                None => "no camera has `pictures`",
            };
            self.send(asker.slot, ToWorker::PictureOf { ticket, found: Err(why.to_owned()) });
            return Ok(());
        };
        wanted.score = wanted.score.or_else(|| {
            self.cameras.values().find(|c| c.config.name == wanted.camera && !c.removed).and_then(|c| c.score)
        });
        let number = self.light.next_number;
        self.light.next_number += 1;
        // Whoever asks again waits no longer for what he asked before, which bounds what may be under way to him.
        self.light.asked.insert(asker.slot, (number, ticket));
        self.send(slot, ToWorker::WantPicture { number, wanted });
        Ok(())
    }

    pub(super) fn on_picture_of(&mut self, number: u64, found: Found) -> Result<(), String> {
        if number >= self.light.next_number {
            return Err(format!("sent picture {number}, which it was never asked for"));
        }
        if found.as_ref().is_ok_and(|p| p.jpeg.len() > MAX_PICTURE) {
            return Err(format!("sent a picture of more than {} KiB", MAX_PICTURE >> 10));
        }
        let asker = self.light.asked.iter().find(|(_, (n, _))| *n == number).map(|(slot, _)| *slot);
        if let Some(slot) = asker
            && let Some((_, ticket)) = self.light.asked.remove(&slot)
            && self.runs(slot)
        {
            let found = found.map_err(|why| super::presentable(&why));
            self.send(slot, ToWorker::PictureOf { ticket, found });
        }
        Ok(())
    }

    fn refuse_pictures(&mut self) {
        for (slot, (_, ticket)) in std::mem::take(&mut self.light.asked) {
            if self.runs(slot) {
                let found = Err("whoever makes pictures has ended: try again".to_owned());
                self.send(slot, ToWorker::PictureOf { ticket, found });
            }
        }
    }

    /// A worker is gone that may have waited for a picture.
    pub(super) fn picture_seeker_lost(&mut self, slot: u32) {
        self.light.asked.remove(&slot);
    }

    /// A process of `light` is gone: what it had in hand is left out for a while.
    pub(super) fn light_lost(&mut self, slot: u32, asked_for: bool) {
        if self.light.slot != Some(slot) {
            return;
        }
        self.refuse_pictures();
        let Some(camera) = self.light.in_hand.take().filter(|_| !asked_for) else { return };
        if !Self::pictures(&self.config).any(|c| c.camera == camera) {
            return;
        }
        let before = self.light.blamed.get(&camera).map(|b| b.pause);
        let pause = before.map_or(LEFT_OUT, |p| p.saturating_mul(2)).min(LONGEST);
        let until = self.now + pause;
        let text = format!(
            "light: died with a picture of camera {camera} in hand: no pictures of it for {} s",
            pause.as_secs()
        );
        self.light.blamed.insert(camera, Blame { pause, until, left_out: true });
        self.log(Level::Warn, text);
    }

    /// When the next camera is to be taken up again.
    pub(super) fn light_deadline(&self) -> Option<Time> {
        self.light.blamed.values().filter(|b| b.left_out).map(|b| b.until).min()
    }

    /// Whatever is due.
    pub(super) fn serve_light(&mut self) {
        let now = self.now;
        let mut any = false;
        for blame in self.light.blamed.values_mut().filter(|b| b.left_out && b.until <= now) {
            blame.left_out = false;
            any = true;
        }
        if any {
            self.tell_light_of_cameras();
        }
    }

    /// One that has said hello but was not ready when cameras changed knows the old ones.
    pub(super) fn light_ready(&mut self, slot: u32) {
        if self.light.slot == Some(slot) && self.workers.get(&slot).is_some_and(|w| w.state == State::Running)
        {
            self.tell_light_of_cameras();
        }
    }
}
