//! Pictures of results: bars beside each other and lines over the number of cameras, as SVG.

use std::fmt::Write;

const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#666666"];
const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 610.0;

/// A bar: what it is called, how long it is, and between which values it was when repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub between: (f64, f64),
}

/// Bars that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    pub title: String,
    pub unit: String,
    pub bars: Vec<Bar>,
}

/// A line: what it is called, and its points.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines that can be compared, the horizontal axis in powers of two.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub title: String,
    pub unit: String,
    pub curves: Vec<Curve>,
}

/// Charts below each other.
#[derive(Debug, Default)]
pub struct Page {
    body: String,
    height: f64,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// As many digits as one can use.
pub fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Page {
    fn title(&mut self, title: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.body,
            "<text x=\"10\" y=\"{:.0}\" font-weight=\"bold\">{}</text>",
            self.height + 22.0,
            escaped(title)
        );
        self.height += 32.0;
    }

    /// Adds bars.
    pub fn add_bars(&mut self, bars: &Bars) {
        self.title(&format!("{} ({})", bars.title, bars.unit));
        let longest = bars.bars.iter().map(|b| b.between.1.max(b.value)).fold(1e-9, f64::max);
        let x = |value: f64| LEFT + (RIGHT - LEFT) * value / longest;
        for (n, bar) in bars.bars.iter().enumerate() {
            let (y, colour) = (self.height, COLOURS[n % COLOURS.len()]);
            let _ = writeln!(
                self.body,
                "<text x=\"{0}\" y=\"{1:.0}\" text-anchor=\"end\">{2}</text>\
                 <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{3:.1}\" height=\"16\" fill=\"{colour}\"/>\
                 <line x1=\"{4:.1}\" x2=\"{5:.1}\" y1=\"{6:.0}\" y2=\"{6:.0}\" stroke=\"black\"/>\
                 <text x=\"{7:.1}\" y=\"{1:.0}\">{8}</text>",
                LEFT - 8.0,
                y + 13.0,
                escaped(&bar.name),
                x(bar.value) - LEFT,
                x(bar.between.0),
                x(bar.between.1),
                y + 8.0,
                x(bar.value.max(bar.between.1)) + 6.0,
                shown(bar.value)
            );
            self.height += 22.0;
        }
        self.height += 10.0;
    }

    /// Adds lines.
    pub fn add_chart(&mut self, chart: &Chart) {
        self.title(&format!("{} ({})", chart.title, chart.unit));
        let points = || chart.curves.iter().flat_map(|c| &c.points);
        let top = points().map(|p| p.1).fold(1e-9, f64::max);
        let ends = points().map(|p| p.0.max(1.0).log2());
        let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        let left = 60.0;
        let (bottom, tall) = (self.height + 190.0, 180.0);
        let x =
            |cameras: f64| left + (RIGHT - left) * (cameras.max(1.0).log2() - low) / (high - low).max(1e-9);
        let y = |value: f64| bottom - tall * value / top;
        for i in 0..=4 {
            let value = top * f64::from(i) / 4.0;
            let _ = writeln!(
                self.body,
                "<line x1=\"{left}\" x2=\"{RIGHT}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
                y(value),
                left - 6.0,
                y(value) + 4.0,
                shown(value)
            );
        }
        let mut marks: Vec<f64> = points().map(|p| p.0).collect();
        marks.sort_unstable_by(f64::total_cmp);
        marks.dedup();
        for cameras in marks {
            let _ = writeln!(
                self.body,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{cameras:.0}</text>",
                x(cameras),
                bottom + 16.0
            );
        }
        for (n, curve) in chart.curves.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let points: Vec<String> =
                curve.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            let _ = writeln!(
                self.body,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <text x=\"{}\" y=\"{:.0}\" fill=\"{colour}\">{}</text>",
                points.join(" "),
                RIGHT + 8.0,
                bottom - tall + 14.0 + 16.0 * n as f64,
                escaped(&curve.name)
            );
            for p in &curve.points {
                let (x, y) = (x(p.0), y(p.1));
                let _ =
                    writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        self.height = bottom + 34.0;
    }

    /// The whole picture.
    pub fn svg(&self) -> String {
        let height = self.height + 10.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height:.0}\" \
             fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_every_bar_and_every_line() {
        let bar = |name: &str, value: f64| Bar { name: name.into(), value, between: (value, value * 1.2) };
        let mut page = Page::default();
        page.add_bars(&Bars {
            title: "memory".into(),
            unit: "MB".into(),
            bars: vec![bar("a<b", 3.0), bar("c", 1.0)],
        });
        let points = vec![(1.0, 2.0), (4.0, 1.0)];
        page.add_chart(&Chart {
            title: "cost".into(),
            unit: "s".into(),
            curves: vec![Curve { name: "nursery".into(), points }],
        });
        let svg = page.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("memory (MB)") && svg.contains("<polyline"), "{svg}");
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        assert!(!Page::default().svg().contains("NaN"));
    }
}
