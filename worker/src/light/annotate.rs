//! Words in a picture: camera, time and score, white on a darkened strip along its lower edge. The letters are those that
//! plots have, inside the program.

use std::convert::Infallible;

use embedded_graphics::{
    Drawable, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{
        MonoFont, MonoTextStyle,
        iso_8859_1::{FONT_6X10, FONT_9X15, FONT_10X20},
    },
    pixelcolor::BinaryColor,
    text::{Baseline, Text},
};

use super::frame::Frame;

/// Pixels around the words.
const MARGIN: usize = 3;
/// What is left of the brightness below them, of 256.
const DARKENED: u32 = 90;

struct Ink<'a>(&'a mut Frame);

impl OriginDimensions for Ink<'_> {
    fn size(&self) -> Size {
        Size::new(self.0.width as u32, self.0.height as u32)
    }
}

impl DrawTarget for Ink<'_> {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { continue };
            if x < self.0.width && y < self.0.height && colour.is_on() {
                self.0.y[y * self.0.width + x] = 255;
            }
        }
        Ok(())
    }
}

/// Writes the parts into the picture, on one line where there is room, else on lines of their own; what does not fit is
/// cut. Nothing is written into pictures that are too low.
pub fn write(frame: &mut Frame, parts: &[String]) {
    let font: &MonoFont<'_> = match frame.width {
        ..400 => &FONT_6X10,
        400..1000 => &FONT_9X15,
        _ => &FONT_10X20,
    };
    let (letter, line) = (font.character_size.width as usize, font.character_size.height as usize);
    let room = frame.width.saturating_sub(2 * MARGIN) / letter;
    let together = parts.join("  ");
    let lines = if together.chars().count() <= room { vec![together] } else { parts.to_vec() };
    let height = lines.len() * line + 2 * MARGIN;
    if height * 2 > frame.height || room == 0 {
        return;
    }
    let top = frame.height - height;
    darken(frame, top);
    let style = MonoTextStyle::new(font, BinaryColor::On);
    for (n, text) in lines.iter().enumerate() {
        let text: String = text.chars().take(room).collect();
        let place = Point::new(MARGIN as i32, (top + MARGIN + n * line) as i32);
        // It cannot fail: pixels outside are passed over.
        let _ = Text::with_baseline(&text, place, style, Baseline::Top).draw(&mut Ink(frame));
    }
}

/// Takes brightness and half of the colour away from row `top` on.
fn darken(frame: &mut Frame, top: usize) {
    let half = frame.half().0;
    frame.y[top * frame.width..].iter_mut().for_each(|b| *b = (u32::from(*b) * DARKENED / 256) as u8);
    for plane in frame.colours.iter_mut().flatten() {
        plane[top / 2 * half..].iter_mut().for_each(|b| *b = b.midpoint(128));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn grey(width: usize, height: usize) -> Frame {
        let half = width.div_ceil(2) * height.div_ceil(2);
        Frame {
            width,
            height,
            y: vec![100; width * height],
            colours: Some([vec![200; half], vec![60; half]]),
        }
    }

    fn white(frame: &Frame) -> usize {
        frame.y.iter().filter(|b| **b == 255).count()
    }

    #[test]
    fn words_stand_on_the_lower_edge_and_the_rest_is_left_alone() {
        let mut frame = grey(640, 360);
        write(&mut frame, &["crib".into(), "2026-01-31 02:03:04 UTC".into(), "cry 97 %".into()]);
        assert!(white(&frame) > 300);
        let top = 360 - 15 - 2 * MARGIN;
        assert!(frame.y[..top * 640].iter().all(|b| *b == 100));
        assert_eq!(frame.y[top * 640], 35);
        let mut other = grey(640, 360);
        write(&mut other, &["cot".into()]);
        assert_ne!(frame.y, other.y);
    }

    #[test]
    fn what_does_not_fit_is_on_lines_of_its_own_or_cut_or_left_out() {
        let mut frame = grey(101, 77);
        write(&mut frame, &["a-name-that-is-much-too-long-for-this".into(), "02:03:04 UTC".into()]);
        assert!(white(&frame) > 100);
        assert!(frame.y[..(77 - 26) * 101].iter().all(|b| *b == 100));
        for (width, height) in [(101, 20), (4, 400), (1, 1)] {
            let mut frame = grey(width, height);
            write(&mut frame, &["crib".into()]);
            assert_eq!(frame, grey(width, height));
        }
    }
}
