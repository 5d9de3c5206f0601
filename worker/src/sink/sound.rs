//! Alerts of type `sound`: a chime, or a file, on this machine's sound card. Needs the cargo feature `sound`.

use super::receiver::Attempt;

/// Whether this program can play sounds at all.
pub const BUILT_IN: bool = cfg!(feature = "sound");

/// Plays `file`, or the chime, to its end (at most ten seconds of it). Blocks.
#[cfg(not(feature = "sound"))]
pub fn play(_file: Option<&str>) -> Attempt {
    Attempt::Impossible("sound: nursery-worker was built without the feature `sound`".into())
}

/// Plays `file`, or the chime, to its end (at most ten seconds of it). Blocks.
#[cfg(feature = "sound")]
pub fn play(file: Option<&str>) -> Attempt {
    match playback::play(file) {
        Ok(()) => Attempt::Delivered,
        Err(e) => Attempt::Failed(format!("sound: {e}")),
    }
}

#[cfg(feature = "sound")]
mod playback {
    use std::{fs::File, time::Duration};

    use rodio::{Decoder, DeviceSinkBuilder, Player, Source, source::SineWave};

    const LONGEST: Duration = Duration::from_secs(10);

    pub fn play(file: Option<&str>) -> Result<(), String> {
        let mut device =
            DeviceSinkBuilder::open_default_sink().map_err(|e| format!("no usable sound card: {e}"))?;
        device.log_on_drop(false);
        let player = Player::connect_new(device.mixer());
        match file {
            Some(path) => {
                let file = File::open(path).map_err(|e| format!("{path}: {e}"))?;
                let decoder = Decoder::try_from(file).map_err(|e| format!("{path}: {e}"))?;
                player.append(decoder.take_duration(LONGEST));
            }
            // Two falling tones, three times.
            None => {
                for frequency in [880.0, 660.0].repeat(3) {
                    let tone = SineWave::new(frequency).take_duration(Duration::from_millis(350));
                    player.append(tone.amplify(0.3).fade_in(Duration::from_millis(20)));
                }
            }
        }
        player.sleep_until_end();
        Ok(())
    }
}
