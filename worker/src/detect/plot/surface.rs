//! What a picture is drawn on: few shapes, in pixels from the top left corner, with text whose width is known
//! beforehand, so that the same page can be laid out as pixels and as SVG.

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Area {
    pub fn right(&self) -> f32 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f32 {
        self.y + self.height
    }
}

/// Two sizes of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Label,
    Title,
}

impl Face {
    /// Width of every character in pixels.
    pub fn advance(self) -> f32 {
        match self {
            Self::Label => 9.0,
            Self::Title => 10.0,
        }
    }
}

/// Which point of a text its position is; always on the base line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Pixels of a picture within the picture, three bytes each, row by row.
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// Something that can be drawn on. What is drawn later lies on top.
pub trait Surface {
    /// A filled rectangle; `opacity` from 0 to 1.
    fn fill(&mut self, area: Area, colour: Colour, opacity: f32);
    /// A line through `points`.
    fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Colour);
    /// A dashed straight line, horizontal or vertical.
    fn dashes(&mut self, from: (f32, f32), to: (f32, f32), colour: Colour);
    /// An area between an upper and a lower edge (y), one pair for each pixel column from `x` on.
    fn band(&mut self, x: f32, edges: &[(f32, f32)], colour: Colour);
    /// Text on one line.
    fn text(&mut self, at: (f32, f32), anchor: Anchor, face: Face, colour: Colour, text: &str);
    /// A picture, stretched over `area`.
    fn picture(&mut self, area: Area, pixels: &Pixels);
}
