//! Whether probabilities mean what they say: of the frames that are given 0.7, seven in ten should hold crying.

/// Frames whose probability lies in one tenth.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Frames.
    pub frames: u64,
    /// Sum of their probabilities.
    predicted: f64,
    /// Those that lie in a cry.
    crying: u64,
}

impl Bin {
    /// Mean of the probabilities; NaN without frames.
    pub fn predicted(&self) -> f64 {
        self.predicted / self.frames as f64
    }

    /// Share of the frames that lie in a cry; NaN without frames.
    pub fn observed(&self) -> f64 {
        self.crying as f64 / self.frames as f64
    }
}

/// Reliability over frames.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reliability {
    /// Tenths, ascending.
    pub bins: [Bin; 10],
    squares: f64,
}

impl Reliability {
    /// Counts a frame.
    pub fn add(&mut self, probability: f32, crying: bool) {
        // Not a number counts as 0.
        let probability = if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) };
        let p = f64::from(probability);
        let bin = &mut self.bins[((probability * 10.0) as usize).min(9)];
        bin.frames += 1;
        bin.predicted += p;
        bin.crying += u64::from(crying);
        self.squares += (p - f64::from(u8::from(crying))).powi(2);
    }

    /// Frames in all.
    pub fn frames(&self) -> u64 {
        self.bins.iter().map(|b| b.frames).sum()
    }

    /// Share of the frames that lie in a cry.
    pub fn prior(&self) -> f64 {
        self.bins.iter().map(|b| b.crying).sum::<u64>() as f64 / self.frames() as f64
    }

    /// Expected calibration error (Guo et al., 2017): mean distance of what is predicted and what is observed, bins
    /// weighted by their frames.
    pub fn calibration_error(&self) -> f64 {
        let apart: f64 = self.bins.iter().map(|b| (b.predicted - b.crying as f64).abs()).sum();
        apart / self.frames() as f64
    }

    /// Mean square of the difference of probability and truth (Brier, 1950).
    pub fn brier(&self) -> f64 {
        self.squares / self.frames() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_probabilities_have_no_calibration_error() {
        let mut honest = Reliability::default();
        for i in 0..10 {
            honest.add(0.7, i < 7);
            honest.add(1.0, true);
        }
        assert!(honest.calibration_error() < 1e-6);
        assert!((honest.prior() - 0.85).abs() < 1e-9);
        assert!((honest.brier() - 0.105).abs() < 1e-6);
        assert_eq!((honest.bins[7].frames, honest.bins[9].frames), (10, 10));
        let mut boaster = Reliability::default();
        boaster.add(0.95, true);
        boaster.add(0.95, false);
        assert!((boaster.calibration_error() - 0.45).abs() < 1e-6);
        boaster.add(f32::NAN, false);
        assert_eq!((boaster.bins[0].frames, boaster.bins[0].predicted()), (1, 0.0));
    }
}
