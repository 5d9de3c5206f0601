//! Where audio goes: a WAV file whose header is true at every second, a pipe, or the sound card.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use nursery_shared::pcm::SAMPLE_RATE;

/// Samples between two corrections of a file's header, so that a file that was cut off can be played.
const CORRECTED: u64 = SAMPLE_RATE as u64;
/// Bytes before the samples of a WAV file.
const HEADER: u64 = 44;

/// Why there is no output.
pub struct Failure {
    pub message: String,
    /// The program's exit status.
    pub exit: u8,
}

/// 16 kHz mono.
pub struct Output {
    target: Target,
    written: u64,
}

enum Target {
    Pipe(io::Stdout),
    File {
        file: File,
        path: PathBuf,
        corrected: u64,
    },
    #[cfg(feature = "sound")]
    Card(card::Card),
}

impl Output {
    /// `-` is standard output, nothing the sound card.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let failed = |message: String| Failure { message, exit: 1 };
        let target = match path {
            Some(path) if path == Path::new("-") => {
                let mut pipe = io::stdout();
                // How long it will be nobody knows; who reads it reads to its end.
                ignore_closed(pipe.write_all(&header(u32::MAX))).map_err(failed)?;
                Target::Pipe(pipe)
            }
            Some(path) => {
                let at =
                    |e: io::Error| Failure { message: format!("--output {}: {e}", path.display()), exit: 2 };
                let mut file = File::create(path).map_err(at)?;
                file.write_all(&header(0)).map_err(at)?;
                Target::File { file, path: path.to_owned(), corrected: 0 }
            }
            #[cfg(feature = "sound")]
            None => Target::Card(card::Card::open().map_err(failed)?),
            #[cfg(not(feature = "sound"))]
            None => {
                return Err(Failure {
                    message: "nursery-worker was built without the feature `sound`: give -o FILE, or -o - and a player, as in `nursery listen CAMERA -o - | aplay`".into(),
                    exit: 2,
                });
            }
        };
        Ok(Self { target, written: 0 })
    }

    /// Samples so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// False where nobody takes it any more.
    pub fn write(&mut self, samples: &[i16]) -> Result<bool, String> {
        self.written += samples.len() as u64;
        let bytes = || -> Vec<u8> { samples.iter().flat_map(|s| s.to_le_bytes()).collect() };
        match &mut self.target {
            Target::Pipe(pipe) => {
                let outcome = pipe.write_all(&bytes()).and_then(|()| pipe.flush());
                ignore_closed(outcome)
            }
            Target::File { file, path, corrected } => {
                let written = self.written;
                let mut write = || -> io::Result<()> {
                    file.write_all(&bytes())?;
                    if written >= *corrected + CORRECTED {
                        *corrected = written;
                        correct(file, written)?;
                    }
                    Ok(())
                };
                write().map(|()| true).map_err(|e| format!("{}: {e}", path.display()))
            }
            #[cfg(feature = "sound")]
            Target::Card(card) => {
                card.play(samples);
                Ok(true)
            }
        }
    }

    /// To be called at the end.
    pub fn finish(self) -> Result<(), String> {
        match self.target {
            Target::File { mut file, path, .. } => correct(&mut file, self.written)
                .and_then(|()| file.sync_all())
                .map_err(|e| format!("{}: {e}", path.display())),
            Target::Pipe(_) => Ok(()),
            #[cfg(feature = "sound")]
            Target::Card(card) => {
                card.finish();
                Ok(())
            }
        }
    }
}

/// True where it was written, false where nobody reads it any more, which is a way to end.
fn ignore_closed(outcome: io::Result<()>) -> Result<bool, String> {
    match outcome {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(format!("standard output: {e}")),
    }
}

fn correct(file: &mut File, samples: u64) -> io::Result<()> {
    let bytes = u32::try_from(samples * 2).unwrap_or(u32::MAX);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(bytes))?;
    file.seek(SeekFrom::Start(HEADER + samples * 2)).map(|_| ())
}

/// Of so many bytes of samples.
fn header(bytes: u32) -> Vec<u8> {
    let mut header = b"RIFF".to_vec();
    header.extend_from_slice(&bytes.saturating_add(36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    header.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    header.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    header.extend_from_slice(b"\x02\0\x10\0data");
    header.extend_from_slice(&bytes.to_le_bytes());
    header
}

#[cfg(feature = "sound")]
mod card {
    use std::num::NonZero;

    use nursery_shared::pcm::SAMPLE_RATE;
    use rodio::{DeviceSinkBuilder, MixerDeviceSink, Player, buffer::SamplesBuffer};

    /// Pieces that may wait to be played. A sound card is never quite as fast as a camera; what is late is left out.
    const WAITING: usize = 25;

    pub struct Card {
        player: Player,
        _device: MixerDeviceSink,
    }

    impl Card {
        pub fn open() -> Result<Self, String> {
            let mut device =
                DeviceSinkBuilder::open_default_sink().map_err(|e| format!("no usable sound card: {e}"))?;
            device.log_on_drop(false);
            Ok(Self { player: Player::connect_new(device.mixer()), _device: device })
        }

        pub fn play(&self, samples: &[i16]) {
            let (Some(channels), Some(rate)) = (NonZero::new(1), NonZero::new(SAMPLE_RATE)) else { return };
            if self.player.len() < WAITING {
                let samples: Vec<f32> = samples.iter().map(|s| f32::from(*s) / 32_768.0).collect();
                self.player.append(SamplesBuffer::new(channels, rate, samples));
            }
        }

        pub fn finish(self) {
            self.player.sleep_until_end();
        }
    }
}
