//! Temporal noise shaping: filters over the lines of a window (4.6.9 of ISO/IEC 14496-3).

use std::f32::consts::FRAC_PI_2;

use super::{
    channel::{Channel, Filter, MOST_ORDER},
    layout::Layout,
};

/// Filters a channel's lines, window after window.
pub fn apply(channel: &Channel, layout: &Layout, lines: &mut [f32]) {
    let info = &channel.info;
    let bands = info.of(layout);
    let reach = info.bands.min(bands.tns);
    let edge = |band: usize| usize::from(bands.edges[band.min(reach)]);
    for (window, lines) in channel.tns.iter().zip(lines.chunks_exact_mut(info.stride())) {
        let mut top = bands.count();
        for filter in &window.filters[..window.count] {
            let bottom = top.saturating_sub(filter.length);
            let lines = &mut lines[edge(bottom)..edge(top)];
            top = bottom;
            if filter.order > 0 && !lines.is_empty() {
                let weights = weights(filter);
                if filter.downward {
                    run(&weights, filter.order, lines.iter_mut().rev());
                } else {
                    run(&weights, filter.order, lines.iter_mut());
                }
            }
        }
    }
}

/// The filter's weights of the lines before, the nearest first.
fn weights(filter: &Filter) -> [f32; MOST_ORDER] {
    let (mut all, scale) = ([0.0; MOST_ORDER], (1 << (filter.resolution - 1)) as f32);
    for order in 0..filter.order {
        let value = f32::from(filter.coefficients[order]);
        let step = if value < 0.0 { scale + 0.5 } else { scale - 0.5 };
        let reflection = (value * FRAC_PI_2 / step).sin();
        let before = all;
        for n in 0..order {
            all[n] += reflection * before[order - 1 - n];
        }
        all[order] = reflection;
    }
    all
}

/// An all-pole filter.
fn run<'a>(weights: &[f32; MOST_ORDER], order: usize, lines: impl Iterator<Item = &'a mut f32>) {
    let mut state = [0.0; MOST_ORDER];
    for line in lines {
        let past: f32 = weights.iter().zip(&state).map(|(weight, value)| weight * value).sum();
        *line -= past;
        state.copy_within(0..order - 1, 1);
        state[0] = *line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_one_weight_rings_as_it_must() {
        let filter = Filter { order: 1, resolution: 4, coefficients: [4; MOST_ORDER], ..Filter::default() };
        let weight = (4.0 * FRAC_PI_2 / 7.5).sin();
        let mut lines = [1.0, 0.0, 0.0, 0.0];
        run(&weights(&filter), 1, lines.iter_mut());
        for (n, line) in lines.iter().enumerate() {
            assert!((line - (-weight).powi(n as i32)).abs() < 1e-6, "{lines:?}");
        }
    }
}
