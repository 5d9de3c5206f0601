//! The layout of a picture, the same for PNG and SVG: title, waveform, spectrogram, score, cries, time axis.
//! Colours are told apart without seeing colour: ink, blue from light to dark, and one orange for cries.

use super::series::Series;
use super::{
    Sketch, axis,
    series::Extremes,
    spectrogram::{BANDS, mel},
    surface::{Anchor, Area, Colour, Face, Pixels, Surface},
};
use crate::detect::output::Cry;

/// Size of the picture in pixels.
pub const WIDTH: usize = 1600;
pub const HEIGHT: usize = 900;
/// Pixel columns of the time axis.
pub const COLUMNS: usize = 1400;
/// The column where the recording begins.
pub const LEFT: f32 = 90.0;

const RIGHT: f32 = LEFT + COLUMNS as f32;
const WAVE: Area = panel(106.0, 110.0);
const SPECTRUM: Area = panel(248.0, 280.0);
const SCORE: Area = panel(560.0, 140.0);
const LANE: Area = panel(732.0, 22.0);
/// Base line of the first row of the cries' times, distance of the rows, and their number.
const LABELS: (f32, f32, usize) = (771.0, 18.0, 4);
const AXIS: f32 = 842.0;

const INK: Colour = Colour(26, 26, 26);
const GREY: Colour = Colour(90, 90, 90);
const GRID: Colour = Colour(222, 222, 222);
const BLUE: Colour = Colour(0, 114, 178);
/// Cries, and nothing else.
pub const CRY: Colour = Colour(213, 94, 0);
/// From nothing to loud; lightness falls all the way.
const RAMP: [Colour; 6] = [
    Colour(255, 255, 255),
    Colour(216, 231, 245),
    Colour(143, 187, 218),
    Colour(66, 130, 180),
    Colour(22, 68, 120),
    Colour(6, 18, 48),
];

/// Levels that the spectrogram tells apart, below the loudest.
const RANGE_DB: f32 = 70.0;
/// Cries whose edges are drawn through all panels, at most; more would hide what they frame.
const EDGES: usize = 60;
/// Longest name that is shown whole.
const NAME: usize = 100;

const fn panel(y: f32, height: f32) -> Area {
    Area { x: LEFT, y, width: COLUMNS as f32, height }
}

/// What is drawn.
pub struct Page<'a> {
    pub sketch: &'a Sketch,
    pub name: &'a str,
    pub threshold: f32,
    pub cries: &'a [Cry],
}

impl Page<'_> {
    /// Draws everything.
    pub fn draw(&self, on: &mut dyn Surface) {
        self.title(on);
        let (ticks, step) = axis::ticks(self.sketch.duration_s(), 14);
        for panel in [WAVE, SCORE, LANE] {
            for &tick in &ticks {
                on.fill(Area { x: self.x(tick).min(RIGHT - 1.0), width: 1.0, ..panel }, GRID, 1.0);
            }
        }
        self.shade(on);
        self.wave(on);
        self.spectrum(on);
        self.score(on);
        self.lane(on);
        self.axis(on, &ticks, step);
    }

    /// The place of a time.
    fn x(&self, time_s: f64) -> f32 {
        let share = time_s / self.sketch.duration_s().max(1e-9);
        LEFT + (share.clamp(0.0, 1.0) * COLUMNS as f64) as f32
    }

    /// Left and right end of a cry, at least two pixels apart.
    fn span(&self, cry: &Cry) -> (f32, f32) {
        let (left, right) = (self.x(cry.onset_us as f64 / 1e6), self.x(cry.offset_us as f64 / 1e6));
        let left = left.min(RIGHT - 2.0);
        (left, right.max(left + 2.0))
    }

    /// Where there are cries, those that touch on the picture as one: nothing is painted twice, and there are never
    /// more of them than columns.
    fn stretches(&self) -> Vec<(f32, f32)> {
        let mut stretches: Vec<(f32, f32)> = Vec::new();
        for (left, right) in self.cries.iter().map(|cry| self.span(cry)) {
            match stretches.last_mut() {
                Some(last) if left <= last.1 => last.1 = last.1.max(right),
                _ => stretches.push((left, right)),
            }
        }
        stretches
    }

    fn title(&self, on: &mut dyn Surface) {
        let duration = self.sketch.duration_s();
        let length = |seconds: f64, decimals| {
            let unit = if seconds < axis::PLAIN_S { " s" } else { "" };
            axis::clock(seconds, seconds, decimals) + unit
        };
        let title = format!("{}  ({})", shorten(self.name), length(duration, 2));
        on.text((LEFT, 36.0), Anchor::Start, Face::Title, INK, &title);
        let crying: i64 = self.cries.iter().map(|c| c.offset_us - c.onset_us).sum();
        let lasting = length(crying as f64 / 1e6, 1);
        let found = match self.cries.len() {
            0 => "no cry".to_owned(),
            1 => format!("1 cry of {lasting}"),
            n => format!("{n} cries, together {lasting}"),
        };
        on.text((LEFT, 60.0), Anchor::Start, Face::Label, GREY, &found);
    }

    /// Where there is a cry, in the panels with a white ground.
    fn shade(&self, on: &mut dyn Surface) {
        for (left, right) in self.stretches() {
            for panel in [WAVE, SCORE] {
                on.fill(Area { x: left, width: right - left, ..panel }, CRY, 0.16);
            }
        }
    }

    fn caption(on: &mut dyn Surface, panel: Area, text: &str) {
        on.text((LEFT, panel.y - 8.0), Anchor::Start, Face::Label, INK, text);
    }

    /// A value at the left of a panel.
    fn mark(on: &mut dyn Surface, y: f32, text: &str) {
        on.fill(Area { x: LEFT - 6.0, y: y - 0.5, width: 5.0, height: 1.0 }, GREY, 1.0);
        on.text((LEFT - 10.0, y + 4.0), Anchor::End, Face::Label, GREY, text);
    }

    fn frame(on: &mut dyn Surface, panel: Area) {
        for (y, height) in [(panel.y - 1.0, 1.0), (panel.bottom(), 1.0)] {
            on.fill(Area { x: LEFT - 1.0, y, width: panel.width + 2.0, height }, GREY, 1.0);
        }
        for x in [LEFT - 1.0, RIGHT] {
            on.fill(Area { x, width: 1.0, ..panel }, GREY, 1.0);
        }
    }

    fn wave(&self, on: &mut dyn Surface) {
        let columns = self.sketch.wave.columns(COLUMNS, self.sketch.samples as f64);
        let peak = columns.iter().flatten().map(|e| e.high.max(-e.low)).fold(0.0, f32::max);
        let top = if peak > 1e-5 { axis::round_up(f64::from(peak)) as f32 } else { 1.0 };
        let middle = WAVE.y + WAVE.height / 2.0;
        let y = |value: f32| middle - value / top * WAVE.height / 2.0;
        let mut edges: Vec<(f32, f32)> = Vec::with_capacity(COLUMNS);
        let mut before: Option<Extremes> = None;
        for column in columns.into_iter().map_while(|c| c) {
            // Joined to its neighbour, and never thinner than a line.
            let (low, high) = before
                .map_or((column.low, column.high), |b| (column.low.min(b.high), column.high.max(b.low)));
            before = Some(column);
            let (upper, lower) = (y(high), y(low));
            let thin = (1.0 - (lower - upper)).max(0.0) / 2.0;
            edges.push((upper - thin, lower + thin));
        }
        on.band(LEFT, &edges, BLUE);
        Self::frame(on, WAVE);
        let level = if peak > 0.0 { format!("{:.1} dBFS", 20.0 * peak.log10()) } else { "none".into() };
        Self::caption(on, WAVE, &format!("waveform, peak {level}"));
        for value in [top, 0.0, -top] {
            Self::mark(on, y(value), &format!("{value}"));
        }
    }

    fn spectrum(&self, on: &mut dyn Surface) {
        let columns = self.sketch.spectrogram.columns(COLUMNS, self.sketch.samples);
        let loudest = columns.iter().flatten().copied().fold(f32::MIN, f32::max);
        // Whole tens; the noise of an empty line is not blown up to look like something.
        let top = ((loudest / 10.0).ceil() * 10.0).clamp(-50.0, 10.0);
        let height = SPECTRUM.height as usize;
        let mut rgb = Vec::with_capacity(COLUMNS * height * 3);
        for row in 0..height {
            let place = ((height - row) as f32 - 0.5) / height as f32 * BANDS as f32 - 0.5;
            let place = place.clamp(0.0, (BANDS - 1) as f32);
            let (lower, upper) = (place.floor() as usize, place.ceil() as usize);
            for column in &columns {
                let level = column[lower] + (column[upper] - column[lower]) * place.fract();
                let Colour(r, g, b) = ramp(1.0 + (level - top) / RANGE_DB);
                rgb.extend([r, g, b]);
            }
        }
        on.picture(SPECTRUM, &Pixels { width: COLUMNS, height, rgb });
        if self.cries.len() <= EDGES {
            for cry in self.cries {
                let (left, right) = self.span(cry);
                for x in [left, right - 1.0] {
                    on.dashes((x.round(), SPECTRUM.y), (x.round(), SPECTRUM.bottom()), CRY);
                }
            }
        }
        Self::frame(on, SPECTRUM);
        Self::caption(on, SPECTRUM, "spectrogram, Hz on a mel scale");
        for hz in [250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0] {
            let y = SPECTRUM.bottom() - mel(hz) / mel(8000.0) * SPECTRUM.height;
            Self::mark(on, y, &format!("{hz}"));
        }
        // What the shades mean.
        let rows = SPECTRUM.height as usize;
        let rgb = (0..rows).flat_map(|row| {
            let Colour(r, g, b) = ramp(1.0 - (row as f32 + 0.5) / rows as f32);
            [r, g, b]
        });
        let bar = Area { x: RIGHT + 24.0, width: 16.0, ..SPECTRUM };
        on.picture(bar, &Pixels { width: 1, height: rows, rgb: rgb.collect() });
        for (x, width) in [(bar.x - 1.0, 1.0), (bar.right(), 1.0)] {
            on.fill(Area { x, width, ..bar }, GREY, 1.0);
        }
        for (y, height) in [(bar.y - 1.0, 1.0), (bar.bottom(), 1.0)] {
            on.fill(Area { x: bar.x - 1.0, y, width: bar.width + 2.0, height }, GREY, 1.0);
        }
        on.text((bar.x, bar.y - 12.0), Anchor::Start, Face::Label, GREY, "dBFS");
        for (share, level) in [(0.0, top), (0.5, top - RANGE_DB / 2.0), (1.0, top - RANGE_DB)] {
            let y = bar.y + share * bar.height;
            on.text((bar.right() + 6.0, y + 4.0), Anchor::Start, Face::Label, GREY, &format!("{level}"));
        }
    }

    fn score(&self, on: &mut dyn Surface) {
        let y = |value: f32| SCORE.bottom() - value.clamp(0.0, 1.0) * SCORE.height;
        let frames = self.sketch.samples as f64 / f64::from(self.sketch.frame_step.max(1));
        let steps = |series: &Series<Extremes>| -> Vec<(f32, f32)> {
            let columns = series.columns(COLUMNS, frames);
            let highest = columns.iter().map_while(|c| c.map(|c| y(c.high))).enumerate();
            highest.flat_map(|(i, y)| [(LEFT + i as f32, y), (LEFT + i as f32 + 1.0, y)]).collect()
        };
        on.dashes((LEFT, y(self.threshold).round()), (RIGHT, y(self.threshold).round()), INK);
        on.line(&steps(&self.sketch.scores), 1.0, GREY);
        on.line(&steps(&self.sketch.judged), 2.0, INK);
        Self::frame(on, SCORE);
        let dense = if frames > COLUMNS as f64 { ", the highest of each pixel column" } else { "" };
        Self::caption(
            on,
            SCORE,
            &format!("probability of crying, grey: before the usual sounds are taken off{dense}"),
        );
        for value in [0.0, 0.5, 1.0] {
            Self::mark(on, y(value), &format!("{value}"));
        }
        let text = format!("{:.2}", self.threshold);
        on.text((RIGHT + 8.0, y(self.threshold) - 4.0), Anchor::Start, Face::Label, INK, "threshold");
        on.text((RIGHT + 8.0, y(self.threshold) + 12.0), Anchor::Start, Face::Label, INK, &text);
    }

    fn lane(&self, on: &mut dyn Surface) {
        for (left, right) in self.stretches() {
            on.fill(Area { x: left.floor(), width: (right - left.floor()).ceil(), ..LANE }, CRY, 1.0);
        }
        Self::frame(on, LANE);
        let labels: Vec<(f32, String)> = self.cries.iter().map(|c| (self.span(c).0, self.times(c))).collect();
        let places = place(&labels);
        for ((x, text), place) in labels.iter().zip(&places) {
            let Some((row, at)) = *place else { continue };
            let y = LABELS.0 + LABELS.1 * row as f32;
            let stem = Area { x: x.floor(), y: LANE.bottom(), width: 1.0, height: y - LANE.bottom() };
            on.fill(stem, CRY, 1.0);
            on.text((at, y), Anchor::Start, Face::Label, INK, text);
        }
        let shown = places.iter().flatten().count();
        Self::caption(
            on,
            LANE,
            &match (self.cries.len(), shown) {
                (0, _) => "cries (none)".to_owned(),
                (all, shown) if shown < all => format!("cries, onset - offset ({shown} of {all} have room)"),
                _ => "cries, onset - offset".to_owned(),
            },
        );
    }

    fn times(&self, cry: &Cry) -> String {
        let duration = self.sketch.duration_s();
        let decimals = if duration < axis::PLAIN_S { 2 } else { 1 };
        let clock = |us: i64| axis::clock(us as f64 / 1e6, duration, decimals);
        format!("{} - {}", clock(cry.onset_us), clock(cry.offset_us))
    }

    fn axis(&self, on: &mut dyn Surface, ticks: &[f64], step: f64) {
        let duration = self.sketch.duration_s();
        on.fill(Area { x: LEFT - 1.0, y: AXIS, width: COLUMNS as f32 + 2.0, height: 1.0 }, INK, 1.0);
        for &tick in ticks {
            let x = self.x(tick);
            on.fill(Area { x: x.floor(), y: AXIS, width: 1.0, height: 6.0 }, INK, 1.0);
            let text = axis::clock(tick, duration, axis::decimals(step));
            on.text((x, AXIS + 22.0), Anchor::Middle, Face::Label, INK, &text);
        }
        let unit = if duration < axis::PLAIN_S {
            "seconds"
        } else if duration < 3600.0 {
            "min:s"
        } else {
            "h:min:s"
        };
        on.text((LEFT + COLUMNS as f32 / 2.0, AXIS + 44.0), Anchor::Middle, Face::Label, GREY, unit);
    }
}

/// Where the times of the cries stand: row and left end; `None` where there is no room. From the last cry to the
/// first, each at the right of its stem where that can be, otherwise at the left, and in the highest row in which
/// nothing is in the way of it or of its stem.
fn place(labels: &[(f32, String)]) -> Vec<Option<(usize, f32)>> {
    // Left end of what is in each row so far.
    let mut taken = [WIDTH as f32; LABELS.2];
    let mut places = vec![None; labels.len()];
    for (i, (x, text)) in labels.iter().enumerate().rev() {
        let width = text.chars().count() as f32 * Face::Label.advance();
        let (right, left) = (x + 5.0, x - 4.0 - width);
        let free = |row: usize, at: f32| {
            at >= 4.0 && at + width + 6.0 <= taken[row] && taken[..row].iter().all(|&t| x + 4.0 <= t)
        };
        let sides = [right, left].into_iter().flat_map(|at| (0..LABELS.2).map(move |row| (row, at)));
        if let Some((row, at)) = sides.into_iter().find(|&(row, at)| free(row, at)) {
            places[i] = Some((row, at));
            // What stands further left may cross neither the stem nor the label.
            taken[..=row].iter_mut().for_each(|t| *t = t.min(*x));
            taken[row] = taken[row].min(at);
        }
    }
    places
}

/// The colour of a level from 0 to 1.
fn ramp(level: f32) -> Colour {
    let place = level.clamp(0.0, 1.0) * (RAMP.len() - 1) as f32;
    let lower = (place as usize).min(RAMP.len() - 2);
    let (a, b, share) = (RAMP[lower], RAMP[lower + 1], place - lower as f32);
    let mix = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * share).round() as u8;
    Colour(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// A long name without its middle.
fn shorten(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= NAME {
        return name.to_owned();
    }
    let half = (NAME - 3) / 2;
    let (start, end) = (&characters[..half], &characters[characters.len() - half..]);
    start.iter().chain(&['.'; 3]).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_cries_never_overlap_nor_cross_a_stem() {
        let mut state = 7u32;
        for cries in [1, 2, 5, 30, 200] {
            let mut starts: Vec<f32> = (0..cries)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    LEFT + (state >> 8) as f32 / (1u32 << 24) as f32 * COLUMNS as f32
                })
                .collect();
            starts.sort_by(f32::total_cmp);
            let labels: Vec<(f32, String)> =
                starts.iter().map(|&x| (x, "12.34 - 15.67".to_owned())).collect();
            let places = place(&labels);
            assert!(places.iter().flatten().count() >= cries.min(8), "{cries}");
            let width = 13.0 * Face::Label.advance();
            let placed: Vec<(f32, usize, f32)> =
                labels.iter().zip(&places).filter_map(|(l, p)| p.map(|(row, at)| (l.0, row, at))).collect();
            for (i, &(_, row, at)) in placed.iter().enumerate() {
                assert!(at >= 0.0 && at + width <= WIDTH as f32);
                for (j, &(stem, other_row, other)) in placed.iter().enumerate() {
                    let apart = i == j || row != other_row || (at - other).abs() >= width;
                    assert!(apart, "{cries}: {i} and {j} overlap");
                    let crossed = i != j && other_row > row && (at..at + width).contains(&stem);
                    assert!(!crossed, "{cries}: the stem of {j} crosses {i}");
                }
            }
        }
    }

    #[test]
    fn ever_so_many_cries_are_painted_once_and_in_bounded_number() {
        let mut sketch = Sketch::new(800);
        sketch.audio(&vec![0.0; 160_000]);
        let cry =
            |i: i64| Cry { onset_us: i * 1_000, offset_us: i * 1_000 + 300, score: 1.0, sustained_us: 0 };
        let cries: Vec<Cry> = (0..5_000).map(cry).chain([cry(9_000)]).collect();
        let page = Page { sketch: &sketch, name: "a", threshold: 0.5, cries: &cries };
        let stretches = page.stretches();
        assert_eq!(stretches.len(), 2);
        assert!((stretches[0].1 - page.x(5.0)).abs() < 2.0);
        assert!(stretches.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn shades_darken_from_white_to_nearly_black() {
        let lightness = |Colour(r, g, b): Colour| 3 * u32::from(r) + 6 * u32::from(g) + u32::from(b);
        let shades: Vec<u32> = (0..=50).map(|i| lightness(ramp(i as f32 / 50.0))).collect();
        assert!(shades.windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(ramp(f32::NEG_INFINITY), Colour(255, 255, 255));
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        let name = "ä".repeat(300);
        assert_eq!(shorten(&name).chars().count(), 99);
        assert_eq!(shorten("cry.wav"), "cry.wav");
    }
}
