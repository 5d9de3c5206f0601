//! Babies that cry on a schedule before every camera, whether anybody listens or not.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    ledger::{BOUT, Ledger, QUIET},
    stage::Stage,
};
use crate::audio;

/// How often it is seen to what the cameras hear.
const TICK: Duration = Duration::from_millis(50);
/// A camera whose packets have not gone out for so long is not listened to.
const UNHEARD: Duration = Duration::from_millis(150);

/// What is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Crying now and then.
    Night = 0,
    /// No new bouts.
    Quiet = 1,
    /// One bout more before each camera, then the end.
    Encore = 2,
}

/// The phase, as threads share it.
#[derive(Default)]
pub struct Baton(AtomicU8);

impl Baton {
    /// From now on it is this one.
    pub fn pass(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::SeqCst);
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Night,
            1 => Phase::Quiet,
            _ => Phase::Encore,
        }
    }
}

/// One before its camera.
struct Baby {
    camera: usize,
    bout: Option<usize>,
    /// When it cries next.
    next: Instant,
    encored: bool,
    /// Samples that went out so far, when that was seen first, and up to when what nobody heard is accounted for.
    heard: u64,
    heard_at: Instant,
    missed_to: Instant,
}

/// Plays until the encore is over.
pub fn play(stage: &Stage, ledger: &Ledger, baton: &Baton, mut random: fastrand::Rng) {
    let cry = audio::cry(BOUT.as_secs_f32());
    let now = Instant::now();
    let mut babies: Vec<Baby> = (0..stage.cameras.len())
        .map(|camera| Baby {
            camera,
            bout: None,
            next: now + Duration::from_millis(random.u64(1000..10_000)),
            encored: false,
            heard: 0,
            heard_at: now,
            missed_to: now,
        })
        .collect();
    while !babies.iter().all(|b| b.encored && b.bout.is_none()) {
        for baby in &mut babies {
            baby.tick(stage, ledger, baton.phase(), &cry, &mut random);
        }
        sleep(TICK);
    }
}

impl Baby {
    fn tick(
        &mut self,
        stage: &Stage,
        ledger: &Ledger,
        phase: Phase,
        cry: &[i16],
        random: &mut fastrand::Rng,
    ) {
        let now = Instant::now();
        let microphone = stage.cameras[self.camera].microphone();
        let heard = microphone.heard();
        if heard != self.heard {
            (self.heard, self.heard_at, self.missed_to) = (heard, now, now);
        } else if now - self.heard_at > UNHEARD {
            // Nobody is connected: the crying goes on all the same, and is over at its time.
            microphone.miss(((now - self.missed_to).as_secs_f64() * f64::from(audio::RATE)) as usize);
            self.missed_to = now;
        }
        if let Some(bout) = self.bout.take_if(|_| microphone.is_done()) {
            ledger.bout_ends(bout);
            self.next = now + QUIET + Duration::from_millis(random.u64(..8000));
        }
        if self.bout.is_some() || now < self.next {
            return;
        }
        match phase {
            Phase::Quiet => return,
            Phase::Encore if self.encored => return,
            Phase::Encore => self.encored = true,
            Phase::Night => {}
        }
        self.bout = Some(ledger.bout_begins(self.camera));
        microphone.play(cry);
    }
}
