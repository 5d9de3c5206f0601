//! What a training makes small: the cross-entropy of every frame, and that of whole bouts of crying and whole stretches
//! without, since events are what is told to people. Values and gradients with respect to the logits.

/// Frames of a bout, or of a stretch without crying, that count: as many as an announcement needs, 0.3 s of them.
const TOP: usize = 6;
/// Frames of a stretch without crying.
const STRETCH: usize = 40;
/// Frames that weigh less than this lie at the edges of a bout, or are unsure.
const CLEAR: f32 = 0.3;

/// Binary cross-entropy of logits and its gradient, both per unit of weight.
pub fn cross_entropy(logits: &[f32], targets: &[f32], weights: &[f32]) -> (f32, Vec<f32>) {
    let total: f32 = weights.iter().sum::<f32>().max(1.0);
    let mut loss = 0.0;
    let gradient = logits
        .iter()
        .zip(targets)
        .zip(weights)
        .map(|((&z, &t), &w)| {
            loss += w * (z.max(0.0) - z * t + (-z.abs()).exp().ln_1p());
            w * (1.0 / (1.0 + (-z).exp()) - t) / total
        })
        .collect();
    (loss / total, gradient)
}

/// A bout of crying, or a stretch without, by the frames in which the network is surest of crying.
struct Event {
    top: [usize; TOP],
    crying: bool,
}

/// Cuts one example, the frames from `start` to `end`, into bouts and stretches.
fn cut(
    logits: &[f32],
    targets: &[f32],
    weights: &[f32],
    (start, end): (usize, usize),
    events: &mut Vec<Event>,
) {
    let mut from = start;
    while from < end {
        let crying = targets[from] >= 0.5;
        let longest = if crying { end } else { end.min(from + STRETCH) };
        let belongs = |i: &usize| weights[*i] >= CLEAR && (targets[*i] >= 0.5) == crying;
        let mut all: Vec<usize> = (from..longest).take_while(belongs).collect();
        from = (from + all.len()).max(from + 1);
        all.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if let Some(top) = all.first_chunk::<TOP>() {
            events.push(Event { top: *top, crying });
        }
    }
}

/// Binary cross-entropy of bouts of crying and of stretches of up to two seconds without, each by the mean logit of its
/// six highest frames (top-k pooling, as in multiple instance learning); the mean over all of them. Its gradient is added
/// to `gradient`. All values are one per frame, example after example of `frames` each.
pub fn event_entropy(
    logits: &[f32],
    targets: &[f32],
    weights: &[f32],
    frames: usize,
    gradient: &mut [f32],
) -> f32 {
    let mut events = Vec::new();
    for start in (0..logits.len()).step_by(frames.max(1)) {
        cut(logits, targets, weights, (start, (start + frames).min(logits.len())), &mut events);
    }
    let mut loss = 0.0;
    for Event { top, crying } in &events {
        let z = top.iter().map(|&i| logits[i]).sum::<f32>() / TOP as f32;
        let target = f32::from(u8::from(*crying));
        let share = 1.0 / events.len() as f32;
        loss += share * (z.max(0.0) - z * target + (-z.abs()).exp().ln_1p());
        let slope = share * (1.0 / (1.0 + (-z).exp()) - target) / TOP as f32;
        for &i in top {
            gradient[i] += slope;
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_and_its_gradient_agree_with_differences() {
        let (z, t, w) = (vec![0.3, -2.0, 40.0, -40.0], vec![1.0, 0.0, 1.0, 1.0], vec![1.0, 0.5, 1.0, 1.0]);
        let (_, gradient) = cross_entropy(&z, &t, &w);
        for i in 0..z.len() {
            let nudged = |by: f32| {
                let mut z = z.clone();
                z[i] += by;
                cross_entropy(&z, &t, &w).0
            };
            let want = (nudged(0.05) - nudged(-0.05)) / 0.1;
            assert!((gradient[i] - want).abs() < 1e-3, "{i}: {} {want}", gradient[i]);
        }
    }

    /// Two examples of a hundred frames: a bout from 30 to 50 in the first, its edges unsure; silence in the second.
    fn examples() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let mut state = 1u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let logits: Vec<f32> = (0..200).map(|_| 3.0 * draw()).collect();
        let (mut targets, mut weights) = (vec![0.0; 200], vec![1.0; 200]);
        targets[30..50].fill(1.0);
        weights[28..31].fill(0.0);
        weights[50] = 0.14;
        (logits, targets, weights)
    }

    #[test]
    fn bouts_and_stretches_count_by_their_six_highest_frames_alone() {
        let (logits, targets, weights) = examples();
        let mut gradient = vec![0.0; 200];
        let loss = event_entropy(&logits, &targets, &weights, 100, &mut gradient);
        assert!(loss > 0.0);
        // One bout, 28 and 40 and 9 frames before and after it, and 40, 40 and 20 in the other example.
        assert_eq!(gradient.iter().filter(|g| **g < 0.0).count(), TOP);
        assert_eq!(gradient.iter().filter(|g| **g > 0.0).count(), 6 * TOP);
        let lowest_told =
            (31..50).filter(|&i| gradient[i] != 0.0).map(|i| logits[i]).fold(f32::MAX, f32::min);
        assert!((31..50).filter(|&i| gradient[i] == 0.0).all(|i| logits[i] <= lowest_told));
        assert!(gradient[28..31].iter().chain(&gradient[50..51]).all(|g| *g == 0.0));
        for i in [0, 31, 35, 49, 51, 120, 199] {
            let nudged = |by: f32| {
                let mut logits = logits.clone();
                logits[i] += by;
                event_entropy(&logits, &targets, &weights, 100, &mut [0.0; 200])
            };
            let want = (nudged(0.01) - nudged(-0.01)) / 0.02;
            assert!((gradient[i] - want).abs() < 1e-3, "{i}: {} {want}", gradient[i]);
        }
    }

    #[test]
    fn too_little_for_an_event_counts_for_nothing() {
        let (logits, mut gradient) = (vec![1.0; 5], vec![0.0; 5]);
        assert_eq!(event_entropy(&logits, &[1.0; 5], &[1.0; 5], 5, &mut gradient), 0.0);
        assert_eq!(event_entropy(&[], &[], &[], 5, &mut []), 0.0);
        assert_eq!(gradient, [0.0; 5]);
    }
}
