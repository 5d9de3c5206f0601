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
                scene.crying = Some((Crying::new(rng.fork(), 8.0), 0.13));
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
pub mod tests {
    use super::*;
    use crate::media::level::dbfs;

    /// The first seconds of a scene.
    pub fn seconds(kind: Synthetic, camera: &str, seconds: usize) -> Vec<f32> {
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
