//! The learning curve of a training: its points, as CSV and as a picture.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One look at the development clips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps taken.
    pub step: u64,
    /// Minutes of training.
    pub minutes: f32,
    /// Cross-entropy on the examples of training, averaged over the last steps.
    pub loss: f32,
    /// Cross-entropy on the mixtures of the development clips.
    pub dev_loss: f32,
    /// Average precision over the frames of these mixtures.
    pub dev_ap: f32,
}

/// One line per point, after a line of names.
pub fn csv(curve: &[Point]) -> String {
    let mut text = String::from("step,minutes,loss,dev_loss,dev_ap\n");
    for p in curve {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{:.2},{:.5},{:.5},{:.5}", p.step, p.minutes, p.loss, p.dev_loss, p.dev_ap);
    }
    text
}

const WIDTH: f32 = 720.0;
const HEIGHT: f32 = 400.0;
const LEFT: f32 = 60.0;
const BOTTOM: f32 = 350.0;
const TOP: f32 = 30.0;
const RIGHT: f32 = 660.0;

/// The curve as an SVG picture: both losses on the left axis, the average precision on the right one.
pub fn svg(curve: &[Point], title: &str) -> String {
    let last = curve.last().map_or(1.0, |p| p.step as f32).max(1.0);
    let top = curve.iter().map(|p| p.loss.max(p.dev_loss)).fold(0.1f32, f32::max);
    let x = |step: f32| LEFT + (RIGHT - LEFT) * step / last;
    let y = |share: f32| BOTTOM - (BOTTOM - TOP) * share;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        title.replace('&', "&amp;").replace('<', "&lt;")
    );
    for i in 0..=5 {
        let share = i as f32 / 5.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3:.2}</text>\
             <text x=\"{4}\" y=\"{2:.1}\">{share:.1}</text>\
             <text x=\"{5:.1}\" y=\"{6}\" text-anchor=\"middle\">{7:.0}</text>",
            y(share),
            LEFT - 6.0,
            y(share) + 4.0,
            top * share,
            RIGHT + 6.0,
            x(last * share),
            BOTTOM + 18.0,
            last * share
        );
    }
    type Line = (&'static str, &'static str, fn(&Point, f32) -> f32);
    let lines: [Line; 3] = [
        ("training loss", "#999999", |p, top| p.loss / top),
        ("dev loss", "#0072b2", |p, top| p.dev_loss / top),
        ("dev average precision (right axis)", "#d55e00", |p, _| p.dev_ap),
    ];
    for (i, (name, colour, value)) in lines.into_iter().enumerate() {
        let points: Vec<String> =
            curve.iter().map(|p| format!("{:.1},{:.1}", x(p.step as f32), y(value(p, top)))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            LEFT + 10.0 + 190.0 * i as f32,
            HEIGHT - 10.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_becomes_lines_and_a_picture() {
        let point = |step| Point { step, minutes: 1.0, loss: 0.5, dev_loss: 0.25, dev_ap: 0.75 };
        let curve = [point(100), point(200)];
        assert_eq!(csv(&curve).lines().count(), 3);
        assert!(csv(&curve).ends_with("200,1.00,0.50000,0.25000,0.75000\n"));
        let picture = svg(&curve, "a < b");
        assert!(picture.contains("a &lt; b") && picture.contains("360.0,190.0 660.0,190.0"), "{picture}");
        assert!(svg(&[], "nothing").contains("</svg>"));
    }
}
