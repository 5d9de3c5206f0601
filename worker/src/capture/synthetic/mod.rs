//! Source `synthetic:`: cameras for the demo and for tests, made of nothing but arithmetic and the same for the
//! same camera name every time.

mod babble;
mod cry;
mod noise;
mod voice;

use fastrand::Rng;
use nursery_shared::config::Synthetic;
use nursery_shared::pcm::SAMPLE_RATE;

use super::{
    pace::Pace,
    source::{SourceEvent, SourceLink},
};
use babble::Babble;
use cry::Crying;
use noise::{Brown, Pink};

/// Samples of one piece.
const PIECE: usize = SAMPLE_RATE as usize / 20;

const RATE: f32 = SAMPLE_RATE as f32;

/// Plays until the source is stopped.
pub async fn run(kind: Synthetic, camera: &str, link: &SourceLink) {
    let play = async {
        let (mut scene, mut pace) = (Scene::new(kind, camera), Pace::new());
        link.send(SourceEvent::Connecting).await;
        link.send(SourceEvent::Connected).await;
        loop {
            pace.wait_for(PIECE).await;
            let mut samples = vec![0.0; PIECE];
            scene.play(&mut samples);
            link.send(SourceEvent::Audio(samples)).await;
        }
    };
    tokio::select! {
        biased;
        () = link.stopped() => {}
        () = play => {}
    }
}

/// Everything that a synthetic camera hears.
pub struct Scene {
    crying: Option<(Crying, f32)>,
    babble: Option<Babble>,
    room: Option<(Pink, f32)>,
    machine: Option<(Brown, f32, f32)>,
    rng: Rng,
}

impl Scene {
    /// `camera` is the seed.
    pub fn new(kind: Synthetic, camera: &str) -> Self {
        let mut rng = Rng::with_seed(fnv1a(camera));
        let mut scene = Self { crying: None, babble: None, room: None, machine: None, rng: rng.fork() };
        match kind {
            Synthetic::Cry => {
                scene.crying = Some((Crying::new(rng.fork(), 3.0), 0.32));
                scene.room = Some((Pink::default(), 0.0015));
            }
            Synthetic::NoiseCry => {
                scene.crying = Some((Crying::new(rng.fork(), 8.0), 0.26));
                scene.machine = Some((Brown::default(), 0.06, 0.025));
            }
            Synthetic::Babble => {
                scene.babble = Some(Babble::new(rng.fork()));
                scene.room = Some((Pink::default(), 0.0015));
            }
            Synthetic::Noise => scene.room = Some((Pink::default(), 0.004)),
            Synthetic::Silence => {}
        }
        scene
    }

    /// The next samples.
    pub fn play(&mut self, out: &mut [f32]) {
        for sample in out {
            let mut sum = 0.0;
            if let Some((crying, gain)) = &mut self.crying {
                sum += crying.next() * *gain;
            }
            if let Some(babble) = &mut self.babble {
                sum += babble.next();
            }
            if let Some((pink, gain)) = &mut self.room {
                sum += pink.next(&mut self.rng) * *gain;
            }
            if let Some((brown, low, white)) = &mut self.machine {
                sum += brown.next(&mut self.rng) * *low + noise::white(&mut self.rng) * *white;
            }
            *sample = sum.clamp(-1.0, 1.0);
        }
    }
}

/// FNV-1a: the seed of a name must be the same in every version.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nursery_models::{
        Detector,
        events::{EventLogic, EventParams, Transition},
        window::WindowCutter,
    };
    use nursery_shared::config::DetectionConfig;

    use super::*;
    use crate::media::level::dbfs;

    /// The first seconds of a scene.
    fn seconds(kind: Synthetic, camera: &str, seconds: usize) -> Vec<f32> {
        let mut out = vec![0.0; seconds * SAMPLE_RATE as usize];
        Scene::new(kind, camera).play(&mut out);
        out
    }

    #[test]
    fn a_camera_sounds_the_same_every_time_and_unlike_another() {
        for (_, kind) in Synthetic::ALL.into_iter().filter(|(_, k)| *k != Synthetic::Silence) {
            let first = seconds(kind, "nursery", 8);
            assert!(first == seconds(kind, "nursery", 8));
            assert!(first != seconds(kind, "hall", 8));
        }
    }

    /// Onsets in seconds of what the embedded detector announces with default settings.
    fn announced(kind: Synthetic, camera: &str) -> Vec<f64> {
        let mut detector = Detector::embedded().unwrap();
        let shape = crate::info::shape(&detector);
        let detection = DetectionConfig::default();
        let mut logic = EventLogic::new(EventParams {
            threshold: detection.threshold as f32,
            min_duration_s: detection.min_duration_s,
            end_after_s: detection.end_after_s,
            cooldown_s: detection.cooldown_s,
            sustained_s: detection.sustained_s,
            adaptive: detection.adaptive,
        });
        let us = |samples: i64| samples * 1_000_000 / i64::from(SAMPLE_RATE);
        let mut transitions = Vec::new();
        let mut cutter = WindowCutter::new(shape.window as usize, shape.hop as usize);
        let mut states = [detector.fresh()];
        cutter.push(&seconds(kind, camera, 60), |window| {
            let scores = detector.score_batch(&[&window.samples], &mut states).unwrap().remove(0);
            let first = window.end as i64 - i64::from(shape.lookahead + shape.hop);
            for (k, score) in scores.into_iter().enumerate() {
                let start = us(first + k as i64 * i64::from(shape.frame_step));
                logic.push(start, us(i64::from(shape.frame_step)) as u32, score, &mut transitions);
            }
        });
        let onset = |t: &Transition| match t {
            Transition::Started { onset_us, .. } => Some(*onset_us as f64 / 1e6),
            Transition::Ended { .. } => None,
        };
        transitions.iter().filter_map(onset).collect()
    }

    #[test]
    fn the_embedded_detector_announces_the_cries_and_nothing_else() {
        for camera in ["nursery", "hall", "bedroom", "cry", "noise-cry", "babble"] {
            let cries = announced(Synthetic::Cry, camera);
            assert!((2.8..4.5).contains(&cries[0]), "{camera}: {cries:?}");
            let in_noise = announced(Synthetic::NoiseCry, camera);
            assert!((7.5..11.0).contains(&in_noise[0]), "{camera}: {in_noise:?}");
            for kind in [Synthetic::Babble, Synthetic::Noise, Synthetic::Silence] {
                assert_eq!(announced(kind, camera), [0.0; 0], "{kind:?} {camera}");
            }
        }
    }

    #[test]
    fn the_cry_in_the_noise_machine_is_about_as_loud_as_the_noise() {
        let both = seconds(Synthetic::NoiseCry, "nursery", 16);
        let rate = SAMPLE_RATE as usize;
        let (noise, cry) = (dbfs(&both[..7 * rate]), dbfs(&both[8 * rate..16 * rate]));
        let cry_alone = 10.0 * (10_f32.powf(cry / 10.0) - 10_f32.powf(noise / 10.0)).log10();
        assert!((-3.0..=3.0).contains(&(cry_alone - noise)), "{} dB", cry_alone - noise);
    }

    #[test]
    fn levels_are_what_they_claim_to_be() {
        let level = |kind, from: usize, to: usize| {
            dbfs(&seconds(kind, "x", to)[from * SAMPLE_RATE as usize..to * SAMPLE_RATE as usize])
        };
        assert_eq!(level(Synthetic::Silence, 0, 3), -120.0);
        assert!((-60.0..-45.0).contains(&level(Synthetic::Noise, 0, 3)));
        assert!(level(Synthetic::Cry, 0, 3) < -50.0);
        let cry = level(Synthetic::Cry, 3, 10);
        assert!((-28.0..-12.0).contains(&cry), "{cry}");
        let machine = level(Synthetic::NoiseCry, 0, 7);
        assert!((-35.0..-20.0).contains(&machine), "{machine}");
        let babble = level(Synthetic::Babble, 0, 20);
        assert!((-40.0..-15.0).contains(&babble), "{babble}");
    }
}
