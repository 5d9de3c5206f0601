//! How much moves: which share of a picture is different from the one before. Compared are the mean brightnesses of 32 × 18
//! cells. What all cells have in common (a lamp, exposure, gain) is taken off first, as the straight line from old to new
//! brightness that fits most of them; a cell that is still off by more than camera noise counts in part, one that is off
//! by a tenth of the range counts in full. 0: nothing moves, 1: everything is different.
//!
//! Where a comparison would say nothing there is no number: the camera went over to night vision or back (colours come or
//! go), or most of the picture is glaring or black.

use super::frame::{Frame, Plane};

const COLUMNS: usize = 32;
const ROWS: usize = 18;
/// Differences up to here are noise; from there on cells are entirely different. Of 255.
const NOISE: f32 = 5.0;
const FULL: f32 = 25.0;
/// Cells outside of this are glaring or black: they cannot show what changed.
const DARK: f32 = 3.0;
const GLARING: f32 = 251.0;
/// How colourful pictures are at least by day and at most by night.
const BY_DAY: f32 = 4.0;
const BY_NIGHT: f32 = 1.0;

/// What is kept of a picture for the next comparison.
#[derive(Debug, Clone)]
pub struct Grid {
    cells: Vec<f32>,
    saturation: f32,
}

impl Grid {
    /// Of this picture.
    pub fn of(frame: &Frame) -> Self {
        let plane = Plane { bytes: &frame.y, stride: frame.width, width: frame.width, height: frame.height };
        let cells = plane.scaled(COLUMNS, ROWS).into_iter().map(f32::from).collect();
        Self { cells, saturation: frame.saturation() }
    }

    /// Which share of this one is different from an older one, 0 to 1.
    pub fn motion_since(&self, old: &Self) -> Option<f32> {
        let (least, most) = (self.saturation.min(old.saturation), self.saturation.max(old.saturation));
        if self.cells.len() != old.cells.len() || (least <= BY_NIGHT && most >= BY_DAY) {
            return None;
        }
        let shown = |v: f32| (DARK..=GLARING).contains(&v);
        let pairs: Vec<(f32, f32)> = old
            .cells
            .iter()
            .copied()
            .zip(self.cells.iter().copied())
            .filter(|(a, b)| shown(*a) && shown(*b))
            .collect();
        if pairs.len() * 4 < self.cells.len() {
            return None;
        }
        let (gain, offset) = common_change(&pairs);
        let different = |(a, b): &(f32, f32)| {
            let off = (b - (gain * a + offset)).abs();
            ((off - NOISE) / (FULL - NOISE)).clamp(0.0, 1.0)
        };
        Some(pairs.iter().map(different).sum::<f32>() / pairs.len() as f32)
    }
}

/// The straight line from old to new brightness that most cells follow: least squares over all, then over the half that is
/// nearest to the line, some times.
fn common_change(pairs: &[(f32, f32)]) -> (f32, f32) {
    // Begins with the middle of the differences, which half of the cells may be far away from.
    let mut differences: Vec<f32> = pairs.iter().map(|(a, b)| b - a).collect();
    differences.sort_by(f32::total_cmp);
    let mut line = (1.0, differences.get(differences.len() / 2).copied().unwrap_or(0.0));
    let mut all = pairs.to_vec();
    // A gain shows best in all of them, a movement in few.
    let whole = fit(&all);
    let median_off = |(gain, offset): (f32, f32)| {
        let mut off: Vec<f32> = pairs.iter().map(|(a, b)| (b - (gain * a + offset)).abs()).collect();
        off.sort_by(f32::total_cmp);
        off.get(off.len() / 2).copied().unwrap_or(0.0)
    };
    if median_off(whole) < median_off(line) {
        line = whole;
    }
    for _ in 0..4 {
        let off = |(a, b): &(f32, f32)| (b - (line.0 * a + line.1)).abs();
        all.sort_by(|p, q| off(p).total_cmp(&off(q)));
        line = fit(&all[..all.len().div_ceil(2)]);
    }
    line
}

/// Least squares; where all cells are about as bright as each other, the same gain as before.
fn fit(pairs: &[(f32, f32)]) -> (f32, f32) {
    let n = pairs.len().max(1) as f32;
    let (mean_a, mean_b) =
        (pairs.iter().map(|p| p.0).sum::<f32>() / n, pairs.iter().map(|p| p.1).sum::<f32>() / n);
    let variance: f32 = pairs.iter().map(|p| (p.0 - mean_a).powi(2)).sum::<f32>() / n;
    let covariance: f32 = pairs.iter().map(|p| (p.0 - mean_a) * (p.1 - mean_b)).sum::<f32>() / n;
    let gain = if variance < 25.0 { 1.0 } else { (covariance / variance).clamp(0.2, 5.0) };
    (gain, mean_b - gain * mean_a)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const WIDTH: usize = 320;
    const HEIGHT: usize = 180;

    /// A room: a bright window, a dark cot, a slope of light, and noise of this strength.
    fn room(noise: i32, seed: u64) -> Frame {
        let mut rng = fastrand::Rng::with_seed(seed);
        let pixel = |at: usize| {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let light = 40 + (x / 4) as i32 + (y / 6) as i32;
            let light = if (30..90).contains(&x) && (20..80).contains(&y) { 190 } else { light };
            let light = if (150..260).contains(&x) && (90..160).contains(&y) { 30 } else { light };
            (light + rng.i32(-noise..=noise)).clamp(0, 255) as u8
        };
        let y = (0..WIDTH * HEIGHT).map(pixel).collect();
        let colours = Some([vec![140; WIDTH * HEIGHT / 4], vec![120; WIDTH * HEIGHT / 4]]);
        Frame { width: WIDTH, height: HEIGHT, y, colours }
    }

    fn changed(mut frame: Frame, how: impl Fn(f32) -> f32) -> Frame {
        frame.y.iter_mut().for_each(|b| *b = how(f32::from(*b)).round().clamp(0.0, 255.0) as u8);
        frame
    }

    /// Somebody who covers this share of the width, from top to bottom.
    fn somebody(mut frame: Frame, from: usize, share: f32) -> Frame {
        let until = from + (WIDTH as f32 * share) as usize;
        for (at, byte) in frame.y.iter_mut().enumerate() {
            if (from..until).contains(&(at % WIDTH)) {
                *byte = if *byte > 120 { 60 } else { 200 };
            }
        }
        frame
    }

    fn motion(old: &Frame, new: &Frame) -> f32 {
        Grid::of(new).motion_since(&Grid::of(old)).unwrap()
    }

    #[test]
    fn noise_and_changes_of_light_are_no_motion() {
        let still = room(12, 1);
        assert!(motion(&still, &room(12, 2)) < 0.005);
        type Change = fn(f32) -> f32;
        let changes: [(&str, Change); 5] = [
            ("brighter", |b| b + 40.0),
            ("darker", |b| b - 25.0),
            ("more gain", |b| b * 1.3),
            ("less gain", |b| b * 0.5 + 10.0),
            ("a lamp", |b| b * 0.8 + 50.0),
        ];
        for (what, how) in changes {
            let found = motion(&still, &changed(room(12, 3), how));
            assert!(found < 0.03, "{what}: {found}");
        }
    }

    #[test]
    fn who_moves_counts_by_his_share_of_the_picture_also_while_the_light_changes() {
        let still = room(8, 1);
        for share in [0.1, 0.25, 0.4] {
            let found = motion(&still, &somebody(room(8, 2), 100, share));
            assert!((found - share).abs() < 0.05, "{share}: {found}");
            let found = motion(&still, &changed(somebody(room(8, 2), 100, share), |b| b * 0.9 + 15.0));
            assert!((found - share).abs() < 0.08, "{share} while it gets lighter: {found}");
        }
    }

    #[test]
    fn night_vision_and_glare_say_nothing() {
        let day = room(5, 1);
        let night =
            Frame { colours: Some([vec![128; day.y.len() / 4], vec![128; day.y.len() / 4]]), ..room(5, 2) };
        assert_eq!(Grid::of(&night).motion_since(&Grid::of(&day)), None);
        assert_eq!(Grid::of(&day).motion_since(&Grid::of(&night)), None);
        assert!(motion(&night, &night) < 0.001);
        let glare = changed(room(0, 1), |_| 255.0);
        assert_eq!(Grid::of(&glare).motion_since(&Grid::of(&day)), None);
        let grey = |frame: &Frame| Frame { colours: None, ..frame.clone() };
        assert!(motion(&grey(&day), &grey(&somebody(room(5, 1), 10, 0.2))) > 0.15);
    }
}
