//! `--plot`: a picture of a recording with its waveform, spectrogram, score and cries, so that people can look
//! instead of read. What it shows is summed up while the recording is being scored, so that neither the picture
//! nor the memory grows with the length.

mod axis;
mod page;
mod raster;
mod series;
mod spectrogram;
mod surface;
mod svg;

use nursery_shared::pcm::SAMPLE_RATE;

use super::output::Cry;
use raster::Raster;
use series::{Extremes, Series};
use spectrogram::Spectrogram;
use svg::Svg;

/// Bins of waveform and score that are kept at most.
const BINS: usize = 2 * page::COLUMNS;

/// How a picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    Svg,
}

impl Format {
    /// By the end of a file name.
    pub fn of(path: &std::path::Path) -> Option<Self> {
        let extension = path.extension()?;
        if extension.eq_ignore_ascii_case("png") {
            Some(Self::Png)
        } else if extension.eq_ignore_ascii_case("svg") {
            Some(Self::Svg)
        } else {
            None
        }
    }
}

/// Takes in a recording while it is being scored.
pub struct Sketch {
    samples: u64,
    wave: Series<Extremes>,
    spectrogram: Spectrogram,
    scores: Series<Extremes>,
    /// The scores as they were judged.
    judged: Series<Extremes>,
    /// Samples per score.
    frame_step: u32,
}

impl Sketch {
    /// `frame_step`: samples per score; the first score belongs to the first sample.
    pub fn new(frame_step: u32) -> Self {
        Self {
            samples: 0,
            wave: Series::new(BINS),
            spectrogram: Spectrogram::new(),
            scores: Series::new(BINS),
            judged: Series::new(BINS),
            frame_step,
        }
    }

    /// The next samples.
    pub fn audio(&mut self, samples: &[f32]) {
        self.samples += samples.len() as u64;
        for &sample in samples {
            self.wave.push(if sample.is_finite() { sample } else { 0.0 }.into());
        }
        self.spectrogram.push(samples);
    }

    /// The next score, and the probability by which it was judged.
    pub fn score(&mut self, probability: f32, judged: f32) {
        self.scores.push(probability.into());
        self.judged.push(judged.into());
    }

    /// The finished picture as a file; `name` and `threshold` are written on it.
    pub fn draw(
        mut self,
        format: Format,
        name: &str,
        threshold: f32,
        cries: &[Cry],
    ) -> Result<Vec<u8>, String> {
        self.spectrogram.finish();
        let page = page::Page { sketch: &self, name, threshold, cries };
        match format {
            Format::Png => {
                let mut raster = Raster::new(page::WIDTH, page::HEIGHT);
                page.draw(&mut raster);
                raster.encode()
            }
            Format::Svg => {
                let mut svg = Svg::new(page::WIDTH, page::HEIGHT);
                page.draw(&mut svg);
                svg.finish()
            }
        }
    }

    fn duration_s(&self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE)
    }
}
