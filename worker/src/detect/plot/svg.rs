//! A page as SVG text; pictures in it are PNG inside the file, so that it is one file and needs nothing else.

use std::fmt::Write;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    raster,
    surface::{Anchor, Area, Colour, Face, Pixels, Surface},
};

/// SVG that is being written.
pub struct Svg {
    text: String,
    failed: Option<String>,
}

impl Svg {
    pub fn new(width: usize, height: usize) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, \
             monospace\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        Self { text, failed: None }
    }

    /// The file.
    pub fn finish(mut self) -> Result<Vec<u8>, String> {
        self.text.push_str("</svg>\n");
        self.failed.map_or_else(|| Ok(self.text.into_bytes()), Err)
    }

    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(element);
        self.text.push('\n');
    }
}

fn hex(colour: Colour) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

/// Text as XML may hold it: characters that it may not become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn path(points: impl Iterator<Item = (f32, f32)>) -> String {
    let mut text = String::new();
    for (i, (x, y)) in points.enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
    }
    text
}

impl Surface for Svg {
    fn fill(&mut self, area: Area, colour: Colour, opacity: f32) {
        let Area { x, y, width, height } = area;
        let opacity = if opacity < 1.0 { format!(" fill-opacity=\"{opacity}\"") } else { String::new() };
        self.add(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{}\"{opacity}/>",
            hex(colour)
        ));
    }

    fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Colour) {
        if points.len() > 1 {
            self.add(format_args!(
                "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>",
                path(points.iter().copied()),
                hex(colour)
            ));
        }
    }

    fn dashes(&mut self, from: (f32, f32), to: (f32, f32), colour: Colour) {
        // On the middle of pixels, so that it is as sharp as the bitmap's.
        let half = if from.0 == to.0 { (0.5, 0.0) } else { (0.0, 0.5) };
        let points = [from, to].map(|(x, y)| (x + half.0, y + half.1));
        self.add(format_args!(
            "<path d=\"{}\" stroke=\"{}\" stroke-dasharray=\"6 4\"/>",
            path(points.into_iter()),
            hex(colour)
        ));
    }

    fn band(&mut self, x: f32, edges: &[(f32, f32)], colour: Colour) {
        let middle = |i: usize| x + i as f32 + 0.5;
        let upper = edges.iter().enumerate().map(|(i, e)| (middle(i), e.0));
        let lower = edges.iter().enumerate().rev().map(|(i, e)| (middle(i), e.1));
        if !edges.is_empty() {
            self.add(format_args!("<path d=\"{}Z\" fill=\"{}\"/>", path(upper.chain(lower)), hex(colour)));
        }
    }

    fn text(&mut self, at: (f32, f32), anchor: Anchor, face: Face, colour: Colour, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // Whatever font there is, a text is as wide as it was taken for; wide letters may be wider.
        let width = if text.is_ascii() && !text.is_empty() {
            format!(
                " textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"",
                text.len() as f32 * face.advance()
            )
        } else {
            String::new()
        };
        self.add(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{}\" \
             xml:space=\"preserve\"{width}>{}</text>",
            at.0,
            at.1,
            face.advance() / 0.6,
            hex(colour),
            escape(text)
        ));
    }

    fn picture(&mut self, area: Area, pixels: &Pixels) {
        match raster::png(pixels) {
            Ok(bytes) => self.add(format_args!(
                "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
                 href=\"data:image/png;base64,{}\"/>",
                area.x,
                area.y,
                area.width,
                area.height,
                BASE64_STANDARD.encode(bytes)
            )),
            Err(e) => self.failed = Some(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_text_gives_well_formed_xml() {
        let mut svg = Svg::new(100, 50);
        let odd = "a <b> & \"c\" 'd' \u{0}\u{1b}[31m\u{fffe} ]]> 泣\n";
        svg.text((1.0, 2.0), Anchor::End, Face::Title, Colour(1, 2, 3), odd);
        svg.picture(
            Area { x: 0.0, y: 0.0, width: 2.0, height: 1.0 },
            &Pixels { width: 2, height: 1, rgb: vec![0; 6] },
        );
        svg.line(&[], 1.0, Colour(0, 0, 0));
        svg.band(0.0, &[], Colour(0, 0, 0));
        svg.fill(Area { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }, Colour(0, 0, 0), 0.5);
        let text = String::from_utf8(svg.finish().unwrap()).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let shown = document.descendants().find(|n| n.has_tag_name("text")).unwrap().text().unwrap();
        assert!(shown.starts_with("a <b> & \"c\" 'd' \u{fffd}") && shown.contains("泣"), "{shown:?}");
    }
}
