//! Times and amounts as people read them: tick marks at round values, and their labels.

/// Distances between ticks of time, in seconds.
const STEPS_S: [f64; 27] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
    1_800.0, 3_600.0, 7_200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0,
];

/// Seconds below which times are given in seconds alone.
pub const PLAIN_S: f64 = 100.0;

/// Times of ticks from 0 to `duration_s`, at most `most` of them, and their distance.
pub fn ticks(duration_s: f64, most: usize) -> (Vec<f64>, f64) {
    let fits = |step: f64| duration_s / step < most as f64;
    let longest = STEPS_S[STEPS_S.len() - 1];
    let step = STEPS_S.into_iter().find(|&s| fits(s)).unwrap_or_else(|| {
        // Weeks and more.
        longest * (duration_s / longest / most.max(1) as f64).ceil().max(1.0)
    });
    // A hair more, for a duration that is a multiple.
    let last = (duration_s / step + 1e-6) as usize;
    ((0..=last).map(|i| i as f64 * step).collect(), step)
}

/// A time in a recording of `duration_s`, to the nearest of `decimals`: `12.35`, `3:12.4` or `1:03:12`.
pub fn clock(time_s: f64, duration_s: f64, decimals: usize) -> String {
    if duration_s < PLAIN_S {
        return format!("{time_s:.decimals$}");
    }
    let scale = 10u64.pow(decimals as u32);
    let units = (time_s.max(0.0) * scale as f64).round() as u64;
    let (seconds, fraction) = (units / scale, units % scale);
    let fraction = if decimals > 0 { format!(".{fraction:0decimals$}") } else { String::new() };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if duration_s < 3600.0 {
        format!("{minutes}:{seconds:02}{fraction}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}{fraction}")
    }
}

/// Decimals that tell ticks of this distance apart.
pub fn decimals(step: f64) -> usize {
    if step >= 1.0 {
        0
    } else if step >= 0.1 {
        1
    } else {
        2
    }
}

/// The smallest of 1, 2 or 5 times a power of ten that is not below `value`.
pub fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    // A hair less, so that rounding does not lift a round value.
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&x| x >= value * (1.0 - 1e-6)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few_whatever_the_length() {
        for duration in [0.05, 0.7, 6.0, 59.0, 61.0, 1_000.0, 3_600.0, 30_000.0, 1e6, 1e9] {
            let (ticks, step) = ticks(duration, 14);
            assert!(ticks.len() <= 15 && ticks.len() >= 2, "{duration}: {}", ticks.len());
            assert!(ticks.iter().all(|t| *t <= duration * 1.001), "{duration}: {step}");
        }
        assert_eq!(ticks(60.0, 14).1, 5.0);
        assert_eq!(ticks(8.0 * 3600.0, 14).1, 3_600.0);
    }

    #[test]
    fn times_are_written_as_the_length_asks_for() {
        assert_eq!(clock(12.345, 60.0, 2), "12.35");
        assert_eq!(clock(192.44, 600.0, 1), "3:12.4");
        assert_eq!(clock(59.96, 600.0, 1), "1:00.0");
        assert_eq!(clock(3_792.0, 7_200.0, 0), "1:03:12");
    }

    #[test]
    fn amounts_round_up_to_one_two_or_five() {
        for (value, expected) in [(0.003, 0.005), (0.01, 0.01), (0.26, 0.5), (0.7, 1.0), (1.0, 1.0)] {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}
