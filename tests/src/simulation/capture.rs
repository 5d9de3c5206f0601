//! Simulated capture processes: windows of a camera that cries now and then, falls silent, comes in bursts; a
//! recording that ends.

use std::rc::Rc;

use nursery_shared::{
    message::{CapturedWindow, FromWorker, Role, StreamState},
    pcm::Pcm,
};
use nursery_supervisor::policy::{Exit, Key, Time};

use super::{
    faults::Fault,
    process::{Act, Body},
    truth,
    world::{Due, WINDOW, World, millis},
};

/// The working state of a capture process.
pub struct Capture {
    silent_until: Time,
    last_audio: Option<u64>,
    /// Windows that a recording played, and when it began.
    played: u32,
    began_us: i64,
    /// Windows that were held up on their way and come at once.
    held_up: u32,
}

impl Capture {
    /// Nothing heard yet.
    pub fn new(now: Time) -> Self {
        Self { silent_until: now, last_audio: None, played: 0, began_us: 0, held_up: 0 }
    }
}

/// Windows of a recording.
const RECORDING: u32 = 400;

impl World {
    fn capture(&mut self, key: Key) -> Option<&mut Capture> {
        match &mut self.working(key)?.body {
            Body::Capture(capture) => Some(capture),
            _ => None,
        }
    }

    /// A window with this number in its samples and in its level, which travels on into the record.
    pub(super) fn window_of(&self, number: u64, end_us: i64, cries: bool) -> FromWorker {
        let mut samples = [0_u8; WINDOW * 2];
        samples[..8].copy_from_slice(&number.to_le_bytes());
        samples[8] = u8::from(cries);
        FromWorker::Window(CapturedWindow {
            end_us,
            arrived_us: self.now.0,
            level_dbfs: number as f32,
            mute: false,
            pcm: Pcm::from(&samples[..]),
        })
    }

    /// Cries of a second with pauses of one and a half, each camera at its own time.
    fn cries(&self, name: &str) -> bool {
        let phase = name.bytes().fold(0, |sum, b| sum * 31 + u64::from(b)) * 130_000;
        self.crying.unwrap_or((self.now.0 + phase) % 2_500_000 < 1_000_000)
    }

    pub(super) fn capture_beat(&mut self, key: Key) {
        let now = self.now;
        let Some(capture) = self.capture(key) else { return };
        let state = match capture.last_audio {
            None => StreamState::Connecting,
            Some(_) if capture.silent_until > now => StreamState::Stalled,
            Some(_) => StreamState::Live,
        };
        let report = truth::report(state, capture.last_audio);
        self.say(key, FromWorker::Progress { done: now.0 });
        self.say(key, FromWorker::Camera(report));
    }

    /// Audio arrives, or not.
    pub(super) fn hear(&mut self, key: Key) {
        let (now, mute, hop, stopped) = (self.now, self.mute, self.hop_us, self.stopped);
        let Some(process) = self.working(key) else { return };
        if process.draining {
            return;
        }
        let (name, held_back) = (Rc::clone(&process.name), process.held.is_some());
        let recording = self.recordings.contains(&key.slot);
        let wait = if recording { 20_000 } else { hop };
        self.plan(std::time::Duration::from_micros(wait), Due::Act(key, Act::Window));
        let Some(capture) = self.capture(key) else { return };
        if mute || held_back || (recording && stopped) || capture.silent_until > now {
            return;
        }
        if !recording && self.befalls(&name, Role::Capture, 0.01) {
            self.fault(Fault::Silence, &name);
            let longest = if self.stream(&name).u8(..8) == 0 { 50_000 } else { 4_000 };
            let silence = self.millis_of(&name, 300..longest);
            if let Some(capture) = self.capture(key) {
                capture.silent_until = now + silence;
            }
            return;
        }
        if !recording && self.befalls(&name, Role::Capture, 0.06) {
            self.fault(Fault::WindowsInBursts, &name);
            let windows = self.stream(&name).u32(2..30);
            if let Some(capture) = self.capture(key) {
                capture.held_up = windows;
                capture.silent_until =
                    now + std::time::Duration::from_micros(hop * u64::from(windows) - hop / 2);
            }
            return;
        }
        let wall_us = self.wall_us();
        let Some(capture) = self.capture(key) else { return };
        capture.last_audio = Some(now.0);
        let windows = std::mem::take(&mut capture.held_up).max(1);
        if capture.played == 0 {
            capture.began_us = wall_us;
        }
        capture.played += windows;
        // A recording's time runs faster than the clock.
        let ahead = i64::from(capture.played) * hop as i64;
        let last_us = if recording { capture.began_us + ahead } else { wall_us };
        let ends = recording && capture.played >= RECORDING;
        let cries = self.cries(&name);
        for n in (0..windows).rev() {
            let number = self.next_window;
            self.next_window += 1;
            let message = self.window_of(number, last_us - i64::from(n) * hop as i64, cries);
            self.say(key, message);
        }
        if ends {
            self.say(key, FromWorker::Camera(truth::report(StreamState::Ended, Some(now.0))));
            if let Some(process) = self.working(key) {
                process.finished = true;
            }
            self.plan(millis(5), Due::Act(key, Act::End(Exit::Code(0))));
        }
    }

    /// A window that the model cannot take.
    pub(super) fn misshapen(&mut self, key: Key) {
        let mut message = self.window_of(u64::MAX, 0, false);
        if let FromWorker::Window(window) = &mut message {
            window.pcm = Pcm::from(&[0_u8; 2][..]);
        }
        self.say(key, message);
    }
}
