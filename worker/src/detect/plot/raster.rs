//! A page as pixels, written as PNG. Text comes from bitmap fonts inside the program, since a fresh machine or a
//! container has none; they hold Latin-1, other characters are shown as `?`.

use std::convert::Infallible;

use embedded_graphics::{
    Drawable, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{
        MonoTextStyle,
        iso_8859_1::{FONT_9X15, FONT_10X20},
    },
    pixelcolor::{Rgb888, RgbColor},
    text::{Alignment, Baseline, Text, TextStyleBuilder},
};

use super::surface::{Anchor, Area, Colour, Face, Pixels, Surface};

/// White pixels to draw on.
pub struct Raster {
    pixels: Pixels,
}

impl Raster {
    pub fn new(width: usize, height: usize) -> Self {
        Self { pixels: Pixels { width, height, rgb: vec![255; width * height * 3] } }
    }

    /// The page as a PNG file.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        png(&self.pixels)
    }

    /// Mixes `colour` into a pixel; outside of the page nothing happens.
    fn mix(&mut self, x: i64, y: i64, colour: Colour, share: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.pixels.width || y >= self.pixels.height {
            return;
        }
        let at = (y * self.pixels.width + x) * 3;
        for (to, from) in self.pixels.rgb[at..at + 3].iter_mut().zip([colour.0, colour.1, colour.2]) {
            *to = (f32::from(*to) + (f32::from(from) - f32::from(*to)) * share).round() as u8;
        }
    }
}

/// Share of the pixel from `at` to `at + 1` that lies between `from` and `to`.
fn covered(at: i64, from: f32, to: f32) -> f32 {
    ((at + 1) as f32).min(to) - (at as f32).max(from)
}

/// Pixels that a stretch touches, of `count` that there are.
fn touched(from: f32, to: f32, count: usize) -> std::ops::Range<i64> {
    let clip = |v: f32| (v as i64).clamp(0, count as i64);
    clip(from.floor())..clip(to.ceil())
}

impl Surface for Raster {
    fn fill(&mut self, area: Area, colour: Colour, opacity: f32) {
        for y in touched(area.y, area.bottom(), self.pixels.height) {
            let share = covered(y, area.y, area.bottom()) * opacity;
            for x in touched(area.x, area.right(), self.pixels.width) {
                self.mix(x, y, colour, (share * covered(x, area.x, area.right())).clamp(0.0, 1.0));
            }
        }
    }

    fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Colour) {
        let reach = width / 2.0 + 1.0;
        let (mut left, mut top, mut right, mut bottom) = (f32::MAX, f32::MAX, f32::MIN, f32::MIN);
        for &(x, y) in points {
            (left, top) = (left.min(x - reach), top.min(y - reach));
            (right, bottom) = (right.max(x + reach), bottom.max(y + reach));
        }
        let (width_of_page, height_of_page) = (self.pixels.width, self.pixels.height);
        let columns = touched(left, right, width_of_page);
        let rows = touched(top, bottom, height_of_page);
        if columns.is_empty() || rows.is_empty() {
            return;
        }
        // Coverage first, then colour: where segments meet, nothing is mixed in twice.
        let stride = (columns.end - columns.start) as usize;
        let mut cover = vec![0f32; stride * (rows.end - rows.start) as usize];
        for segment in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (segment[0], segment[1]);
            let (dx, dy) = (x1 - x0, y1 - y0);
            let length = (dx * dx + dy * dy).max(1e-12);
            // These lie within `rows` and `columns`, which the same points made.
            for y in touched(y0.min(y1) - reach, y0.max(y1) + reach, height_of_page) {
                for x in touched(x0.min(x1) - reach, x0.max(x1) + reach, width_of_page) {
                    let (px, py) = (x as f32 + 0.5 - x0, y as f32 + 0.5 - y0);
                    let along = ((px * dx + py * dy) / length).clamp(0.0, 1.0);
                    let distance = (px - along * dx).hypot(py - along * dy);
                    let at = (y - rows.start) as usize * stride + (x - columns.start) as usize;
                    cover[at] = cover[at].max((width / 2.0 + 0.5 - distance).clamp(0.0, 1.0));
                }
            }
        }
        for y in rows.clone() {
            for x in columns.clone() {
                let at = (y - rows.start) as usize * stride + (x - columns.start) as usize;
                self.mix(x, y, colour, cover[at]);
            }
        }
    }

    fn dashes(&mut self, from: (f32, f32), to: (f32, f32), colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let mut at = 0.0;
        while at < length {
            let end = (at + 6.0).min(length);
            let point = |along: f32| (from.0 + dx * along / length, from.1 + dy * along / length);
            let ((x0, y0), (x1, y1)) = (point(at), point(end));
            let area = Area {
                x: x0.min(x1),
                y: y0.min(y1),
                width: (x1 - x0).abs().max(1.0),
                height: (y1 - y0).abs().max(1.0),
            };
            self.fill(area, colour, 1.0);
            at += 10.0;
        }
    }

    fn band(&mut self, x: f32, edges: &[(f32, f32)], colour: Colour) {
        for (i, &(upper, lower)) in edges.iter().enumerate() {
            self.fill(Area { x: x + i as f32, y: upper, width: 1.0, height: lower - upper }, colour, 1.0);
        }
    }

    fn text(&mut self, at: (f32, f32), anchor: Anchor, face: Face, colour: Colour, text: &str) {
        let font = match face {
            Face::Label => &FONT_9X15,
            Face::Title => &FONT_10X20,
        };
        let alignment = match anchor {
            Anchor::Start => Alignment::Left,
            Anchor::Middle => Alignment::Center,
            Anchor::End => Alignment::Right,
        };
        let style = MonoTextStyle::new(font, Rgb888::new(colour.0, colour.1, colour.2));
        let place = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Alphabetic).build();
        let at = Point::new(at.0.round() as i32, at.1.round() as i32);
        // Drawing on this surface cannot fail: its error has no values.
        let _ = Text::with_text_style(text, at, style, place).draw(self);
    }

    fn picture(&mut self, area: Area, pixels: &Pixels) {
        if pixels.width == 0 || pixels.height == 0 {
            return;
        }
        let (width_of_page, height_of_page) = (self.pixels.width, self.pixels.height);
        for y in touched(area.y, area.bottom(), height_of_page) {
            for x in touched(area.x, area.right(), width_of_page) {
                let place = |at: i64, start: f32, size: f32, count: usize| {
                    (((at as f32 + 0.5 - start) / size * count as f32).max(0.0) as usize).min(count - 1)
                };
                let from = (place(y, area.y, area.height, pixels.height) * pixels.width
                    + place(x, area.x, area.width, pixels.width))
                    * 3;
                let rgb = &pixels.rgb[from..from + 3];
                self.mix(x, y, Colour(rgb[0], rgb[1], rgb[2]), 1.0);
            }
        }
    }
}

impl OriginDimensions for Raster {
    fn size(&self) -> Size {
        Size::new(self.pixels.width as u32, self.pixels.height as u32)
    }
}

impl DrawTarget for Raster {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            self.mix(at.x.into(), at.y.into(), Colour(colour.r(), colour.g(), colour.b()), 1.0);
        }
        Ok(())
    }
}

/// Pixels as a PNG file.
pub fn png(pixels: &Pixels) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixels.width as u32, pixels.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(&pixels.rgb)?;
            writer.finish()
        })
        .map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RED: Colour = Colour(200, 0, 0);

    fn at(raster: &Raster, x: usize, y: usize) -> Colour {
        let i = (y * raster.pixels.width + x) * 3;
        Colour(raster.pixels.rgb[i], raster.pixels.rgb[i + 1], raster.pixels.rgb[i + 2])
    }

    #[test]
    fn a_rectangle_covers_its_pixels_wholly_and_its_edges_in_part() {
        let mut raster = Raster::new(10, 10);
        raster.fill(Area { x: 2.0, y: 3.0, width: 2.5, height: 1.0 }, RED, 1.0);
        assert_eq!(at(&raster, 2, 3), RED);
        assert_eq!(at(&raster, 3, 3), RED);
        assert_eq!(at(&raster, 4, 3), Colour(228, 128, 128));
        assert_eq!(at(&raster, 5, 3), Colour(255, 255, 255));
        assert_eq!(at(&raster, 2, 4), Colour(255, 255, 255));
    }

    #[test]
    fn whatever_lies_outside_the_page_is_left_out() {
        let mut raster = Raster::new(8, 8);
        raster.fill(Area { x: -5.0, y: -5.0, width: 100.0, height: 100.0 }, RED, 1.0);
        raster.line(&[(-50.0, 2.0), (50.0, 2.0), (4.0, -1e9)], 2.0, RED);
        raster.line(&[], 2.0, RED);
        raster.text((-20.0, 0.0), Anchor::Middle, Face::Title, RED, "beyond");
        raster.dashes((0.0, 4.0), (0.0, 4.0), RED);
        assert_eq!(at(&raster, 7, 7), RED);
    }

    #[test]
    fn the_file_decodes_to_what_was_drawn() {
        let mut raster = Raster::new(30, 20);
        raster.line(&[(5.0, 10.5), (25.0, 10.5)], 3.0, RED);
        let bytes = raster.encode().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.width, info.height), (30, 20));
        assert_eq!(rgb, raster.pixels.rgb);
        assert_eq!(at(&raster, 15, 10), RED);
    }

    #[test]
    fn text_needs_no_font_of_the_system_and_shows_what_it_cannot_as_a_question_mark() {
        let ink = |text: &str| {
            let mut raster = Raster::new(200, 30);
            raster.text((5.0, 20.0), Anchor::Start, Face::Label, RED, text);
            raster.pixels.rgb
        };
        assert_ne!(ink("w"), ink("m"));
        assert_ne!(ink("ä"), ink("a"));
        assert_eq!(ink("泣"), ink("?"));
    }
}
