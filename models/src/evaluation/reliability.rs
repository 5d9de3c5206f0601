//! Whether probabilities mean what they say: of the frames that are given 0.7, seven in ten should hold crying.

use std::fmt::Write;

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

/// Reliability diagrams (Niculescu-Mizil and Caruana, 2005) as one SVG picture: what was observed over what was
/// predicted, a line for each, larger dots for more frames; honest probabilities lie on the diagonal.
pub fn svg(all: &[(String, Reliability)]) -> String {
    const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
    let x = |p: f64| 60.0 + 400.0 * p;
    let y = |p: f64| 440.0 - 400.0 * p;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 500\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"640\" height=\"500\" fill=\"white\"/>\n\
         <text x=\"60\" y=\"24\" font-weight=\"bold\">share of frames with crying over predicted probability</text>\n",
    );
    // Writing to a string cannot fail.
    for i in 0..=5 {
        let p = f64::from(i) / 5.0;
        let _ = writeln!(
            svg,
            "<line x1=\"60\" x2=\"460\" y1=\"{0}\" y2=\"{0}\" stroke=\"#ddd\"/>\
             <text x=\"52\" y=\"{1}\" text-anchor=\"end\">{p}</text>\
             <text x=\"{2}\" y=\"458\" text-anchor=\"middle\">{p}</text>",
            y(p),
            y(p) + 4.0,
            x(p)
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0)
    );
    for (n, (name, reliability)) in all.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let bins: Vec<&Bin> = reliability.bins.iter().filter(|b| b.frames > 0).collect();
        let points: Vec<String> =
            bins.iter().map(|b| format!("{:.1},{:.1}", x(b.predicted()), y(b.observed()))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"475\" y=\"{}\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            60 + 18 * n,
            name.replace('&', "&amp;").replace('<', "&lt;")
        );
        for b in bins {
            let radius = 1.5 + (b.frames as f64).log10();
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\" fill=\"{colour}\"/>",
                x(b.predicted()),
                y(b.observed())
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
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

    #[test]
    fn honest_probabilities_lie_on_the_diagonal_of_the_picture() {
        let mut honest = Reliability::default();
        for i in 0..10 {
            honest.add(0.5, i < 5);
        }
        let picture = svg(&[("a < b".into(), honest), ("nothing".into(), Reliability::default())]);
        assert!(picture.contains("cx=\"260.0\" cy=\"240.0\"") && picture.contains("a &lt; b"), "{picture}");
        assert!(!picture.contains("NaN"));
    }
}
