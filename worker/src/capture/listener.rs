//! State of one camera as its capture process knows it: events of the source in, windows and reports out. No
//! clock and no socket inside; the time comes with each event.

use nursery_models::window::WindowCutter;
use nursery_shared::{
    message::{CameraReport, CapturedWindow, ModelShape, StreamState},
    pcm::Pcm,
    timestamp,
};

use super::{clock::StreamClock, source::SourceEvent};
use crate::media::level::{dbfs, is_mute};

/// Quiet time after which corrupt packets are a new burst.
const BURST_GAP_US: u64 = 10_000_000;

/// A moment on both clocks, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub wall_us: i64,
    pub mono_us: u64,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        Self { wall_us: timestamp::now_us(), mono_us: timestamp::monotonic_us() }
    }
}

/// The camera's state.
pub struct Listener {
    cutter: WindowCutter,
    clock: StreamClock,
    hop: usize,
    lookahead: usize,
    state: StreamState,
    error: Option<String>,
    level_dbfs: Option<f32>,
    last_audio_us: Option<u64>,
    /// Digital silence is nothing unusual.
    noise_gate: bool,
    /// Windows that the supervisor did not take.
    pub dropped: u64,
    heard: u64,
    connects: u64,
    corrupt: u64,
    burst: Option<Burst>,
}

struct Burst {
    before: u64,
    last_us: u64,
}

impl Listener {
    /// `live`: the source keeps pace with the clock.
    pub fn new(model: &ModelShape, live: bool) -> Self {
        Self {
            cutter: WindowCutter::new(model.window as usize, model.hop as usize),
            clock: StreamClock::new(live),
            hop: (model.hop.clamp(1, model.window.max(1))) as usize,
            lookahead: model.lookahead as usize,
            state: StreamState::Connecting,
            error: None,
            level_dbfs: None,
            last_audio_us: None,
            noise_gate: false,
            dropped: 0,
            heard: 0,
            connects: 0,
            corrupt: 0,
            burst: None,
        }
    }

    /// The camera's own noise gate sends digital silence, which is not to be taken for a muted microphone.
    pub fn with_noise_gate(self, noise_gate: bool) -> Self {
        Self { noise_gate, ..self }
    }

    /// Samples heard since the start.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// What the supervisor gets to know.
    pub fn report(&self) -> CameraReport {
        CameraReport {
            state: self.state,
            error: self.error.clone(),
            level_dbfs: self.level_dbfs,
            last_audio_us: self.last_audio_us,
            dropped: self.dropped,
            corrupt: self.corrupt,
            connects: self.connects,
        }
    }

    /// Takes an event in; windows that became complete are appended to `windows`. True where the state or the
    /// error changed.
    pub fn on_event(&mut self, event: SourceEvent, now: Now, windows: &mut Vec<CapturedWindow>) -> bool {
        match event {
            // A camera that stalls and is reconnected to stays `stalled` until something else is known of it.
            SourceEvent::Connecting if self.state == StreamState::Stalled => false,
            SourceEvent::Connecting => self.become_(StreamState::Connecting, self.error.clone()),
            SourceEvent::Connected => {
                self.connects += 1;
                self.cutter.reset();
                self.clock.reset();
                false
            }
            SourceEvent::Audio(samples) => self.on_audio(samples, now, windows),
            SourceEvent::Corrupt { count, what } => {
                self.on_corrupt(count, &what, now);
                false
            }
            SourceEvent::Down { stalled, error } => {
                let state = if stalled { StreamState::Stalled } else { StreamState::Connecting };
                self.become_(state, Some(error))
            }
            // The working loop's business.
            SourceEvent::Outdated(_) | SourceEvent::Media(_) => false,
            SourceEvent::Ended => {
                let (clock, hop, gate) = (&self.clock, self.hop, self.noise_gate);
                self.cutter.finish(self.lookahead, |w| {
                    windows.push(captured(&w.samples, w.end, hop, clock, now, gate));
                });
                self.become_(StreamState::Ended, None)
            }
        }
    }

    /// To be called about once a second.
    pub fn tick(&mut self, now: Now) {
        if let Some(burst) = &self.burst
            && now.mono_us.saturating_sub(burst.last_us) > BURST_GAP_US
        {
            tracing::info!("corrupt media is over: {} packets or frames in all", self.corrupt - burst.before);
            self.burst = None;
        }
    }

    fn become_(&mut self, state: StreamState, error: Option<String>) -> bool {
        let changed = self.state != state || self.error != error;
        self.state = state;
        self.error = error;
        changed
    }

    fn on_audio(&mut self, mut samples: Vec<f32>, now: Now, windows: &mut Vec<CapturedWindow>) -> bool {
        if samples.is_empty() {
            return false;
        }
        for s in &mut samples {
            // A decoder that is fed rubbish may give anything.
            *s = if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 };
        }
        self.heard += samples.len() as u64;
        if self.noise_gate || !is_mute(&samples) {
            self.last_audio_us = Some(now.mono_us);
        }
        let position = self.cutter.position() + samples.len() as u64;
        if self.clock.arrived(position, samples.len(), now.wall_us) {
            tracing::info!(
                "the stream and the host's clock have come apart by over a second: times follow the clock"
            );
        }
        let (clock, hop, gate, made) = (&self.clock, self.hop, self.noise_gate, windows.len());
        self.cutter.push(&samples, |w| windows.push(captured(&w.samples, w.end, hop, clock, now, gate)));
        match windows[made..].last() {
            Some(window) => self.level_dbfs = Some(window.level_dbfs),
            None => {
                self.level_dbfs.get_or_insert_with(|| dbfs(&samples));
            }
        }
        if self.state != StreamState::Live {
            match &self.error {
                Some(error) => tracing::info!("live again after: {error}"),
                None => tracing::info!("live"),
            }
        }
        self.become_(StreamState::Live, None)
    }

    fn on_corrupt(&mut self, count: u64, what: &str, now: Now) {
        match &mut self.burst {
            Some(burst) => burst.last_us = now.mono_us,
            None => {
                tracing::warn!("corrupt media ({what}); it is counted and the rest is used");
                self.burst = Some(Burst { before: self.corrupt, last_us: now.mono_us });
            }
        }
        self.corrupt += count;
    }
}

fn captured(
    samples: &[f32],
    end: u64,
    hop: usize,
    clock: &StreamClock,
    now: Now,
    noise_gate: bool,
) -> CapturedWindow {
    let newest = &samples[samples.len().saturating_sub(hop)..];
    CapturedWindow {
        end_us: clock.at(end),
        arrived_us: now.mono_us,
        level_dbfs: dbfs(newest),
        mute: !noise_gate && is_mute(newest),
        pcm: Pcm::from_f32(samples),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn model() -> ModelShape {
        ModelShape {
            id: "m".into(),
            window: 3_200,
            hop: 1_600,
            lookahead: 800,
            frame_step: 640,
            state_bytes: 0,
        }
    }

    fn at(us: i64) -> Now {
        Now { wall_us: us, mono_us: us as u64 }
    }

    fn audio(n: usize, value: f32) -> SourceEvent {
        SourceEvent::Audio((0..n).map(|i| value * (1.0 - 2e-4 * (i % 3) as f32)).collect())
    }

    #[test]
    fn windows_carry_the_time_of_their_last_sample_and_the_level_of_their_newest_hop() {
        let (mut listener, mut windows) = (Listener::new(&model(), true), Vec::new());
        listener.on_event(SourceEvent::Connected, at(0), &mut windows);
        assert!(listener.on_event(audio(1_600, 0.5), at(1_000_000), &mut windows));
        listener.on_event(audio(1_700, 0.0), at(1_100_000), &mut windows);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0].end_us, 1_000_000);
        assert_eq!(windows[1].end_us, 1_100_000);
        assert_eq!(windows[0].pcm.len(), 3_200);
        assert!((windows[0].level_dbfs + 6.02).abs() < 0.01);
        assert_eq!(windows[1].level_dbfs, -120.0);
        let report = listener.report();
        assert_eq!((report.state, report.connects, report.error), (StreamState::Live, 1, None));
        assert_eq!(report.last_audio_us, Some(1_000_000), "the rest was digital silence");
        assert_eq!(listener.heard(), 3_300);
    }

    #[test]
    fn a_reconnection_does_not_join_what_was_heard_before() {
        let (mut listener, mut windows) = (Listener::new(&model(), true), Vec::new());
        listener.on_event(SourceEvent::Connected, at(0), &mut windows);
        listener.on_event(audio(1_000, 0.5), at(1_000_000), &mut windows);
        listener.on_event(SourceEvent::Down { stalled: false, error: "x".into() }, at(1), &mut windows);
        assert_eq!(listener.report().error.as_deref(), Some("x"));
        listener.on_event(SourceEvent::Connected, at(0), &mut windows);
        listener.on_event(audio(1_600, 0.25), at(60_000_000), &mut windows);
        assert_eq!(windows.len(), 1);
        assert_eq!(windows[0].end_us, 60_000_000);
        assert_eq!(windows[0].pcm.to_f32()[..1_600], [0.0; 1_600]);
        assert_eq!(listener.report().error, None);
    }

    #[test]
    fn a_stalled_camera_stays_stalled_while_it_is_tried_again() {
        let (mut listener, mut windows) = (Listener::new(&model(), true), Vec::new());
        listener.on_event(SourceEvent::Down { stalled: true, error: "silent".into() }, at(1), &mut windows);
        assert!(!listener.on_event(SourceEvent::Connecting, at(2), &mut windows));
        assert_eq!(listener.report().state, StreamState::Stalled);
        assert!(listener.on_event(audio(10, 0.1), at(3), &mut windows));
        assert_eq!(listener.report().state, StreamState::Live);
    }

    #[test]
    fn the_end_of_a_recording_is_scored_too() {
        let (mut listener, mut windows) = (Listener::new(&model(), false), Vec::new());
        listener.on_event(SourceEvent::Connected, at(0), &mut windows);
        listener.on_event(audio(2_000, 0.5), at(0), &mut windows);
        listener.on_event(SourceEvent::Ended, at(0), &mut windows);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[1].end_us, 200_000);
        assert_eq!(listener.report().state, StreamState::Ended);
    }

    #[test]
    fn digital_silence_is_no_audio_unless_the_camera_has_a_noise_gate() {
        for gate in [false, true] {
            let mut listener = Listener::new(&model(), true).with_noise_gate(gate);
            let mut windows = Vec::new();
            listener.on_event(SourceEvent::Connected, at(0), &mut windows);
            let hiss = (0..1_600).map(|i| if i % 3 == 0 { 1e-3 } else { -1e-3 * (i % 2) as f32 }).collect();
            listener.on_event(SourceEvent::Audio(hiss), at(1_000_000), &mut windows);
            listener.on_event(audio(3_200, 0.0), at(2_000_000), &mut windows);
            assert_eq!(windows.iter().map(|w| w.mute).collect::<Vec<_>>(), [false, !gate, !gate]);
            let last = if gate { 2_000_000 } else { 1_000_000 };
            let report = listener.report();
            assert_eq!((report.state, report.last_audio_us), (StreamState::Live, Some(last)));
        }
    }

    #[test]
    fn what_is_no_number_becomes_silence() {
        let (mut listener, mut windows) = (Listener::new(&model(), true), Vec::new());
        listener.on_event(audio(1_600, f32::NAN), at(1), &mut windows);
        assert_eq!(listener.report().level_dbfs, Some(-120.0));
    }
}
