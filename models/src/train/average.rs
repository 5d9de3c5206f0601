//! One network from several: the mean of the weights of trainings that began with the same ones and went different ways
//! (a "model soup", Wortsman et al., 2022). It costs what one costs, and errs less surely where they disagree.

use crate::weights;
use std::collections::BTreeMap;

/// Correlation of weights below which two trainings did not begin with the same ones: that of unrelated trainings is
/// next to zero, and their mean is no network.
const RELATED: f64 = 0.3;

/// Averages weights files, each with a name for errors. What comes out is calibrated like the first one: it wants a
/// calibration of its own.
///
/// # Errors
/// Fewer than two files, one that is no weights file, one of another network or front end (how a stream begins apart),
/// or one that did not begin with the same weights as the first.
pub fn average(files: &[(String, Vec<u8>)], version: &str, commit: &str) -> Result<Vec<u8>, String> {
    let mut members = Vec::new();
    for (name, bytes) in files {
        let (description, tensors) = weights::parse(bytes).map_err(|e| format!("{name}: {e}"))?;
        members.push((name, description, tensors));
    }
    let [(first_name, first, tensors), others @ ..] = &members[..] else {
        return Err("there is nothing to average".into());
    };
    if others.is_empty() {
        return Err(format!("{first_name}: one file is nothing to average"));
    }
    let mut sum: BTreeMap<String, Vec<f64>> =
        tensors.iter().map(|(k, v)| (k.clone(), v.iter().map(|x| f64::from(*x)).collect())).collect();
    for (name, d, values) in others {
        let same = d.network == first.network
            && d.hop == first.hop
            && d.lookahead == first.lookahead
            && d.front_end.clone().serving() == first.front_end.clone().serving();
        if !same {
            return Err(format!("{name}: has another network, lookahead or front end than {first_name}"));
        }
        let alike = correlation(tensors, values);
        if alike.is_nan() || alike < RELATED {
            return Err(format!(
                "{name}: its weights and those of {first_name} did not begin as the same (correlation {alike:.2}), so \
                 their mean is no network; train both with the same --seed"
            ));
        }
        for (k, total) in &mut sum {
            // The same network has the same tensors, as `parse` made sure.
            let of = values.get(k).map_or(&[][..], Vec::as_slice);
            total.iter_mut().zip(of).for_each(|(total, x)| *total += f64::from(*x));
        }
    }
    let count = members.len() as f64;
    let mean =
        sum.into_iter().map(|(k, v)| (k, v.into_iter().map(|x| (x / count) as f32).collect())).collect();
    let made: Vec<String> =
        members.iter().map(|(_, d, _)| format!("{} (commit {})", d.recipe, d.commit)).collect();
    let out = weights::Description {
        version: version.into(),
        commit: commit.into(),
        recipe: format!("mean of {}: {}", members.len(), made.join("; ")),
        ..first.clone()
    };
    weights::serialize(&out, &mean)
}

/// Correlation of all weights that are more than a scale or a bias; each tensor counts by its size, whatever its scale.
fn correlation(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let (mut alike, mut count) = (0.0, 0);
    for (name, a) in a.iter().filter(|(name, _)| name.ends_with(".weight")) {
        let Some(b) = b.get(name) else { continue };
        alike += a.len() as f64 * product(a, b) / (product(a, a) * product(b, b)).sqrt().max(1e-30);
        count += a.len();
    }
    alike / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The built-in weights, changed.
    fn file(name: &str, change: impl Fn(&str, usize, f32) -> f32) -> (String, Vec<u8>) {
        let built_in = include_bytes!("../../weights/nursery.safetensors");
        let (description, mut tensors) = weights::parse(built_in).unwrap();
        for (name, values) in &mut tensors {
            values.iter_mut().enumerate().for_each(|(i, x)| *x = change(name, i, *x));
        }
        (name.into(), weights::serialize(&description, &tensors).unwrap())
    }

    #[test]
    fn the_mean_of_weights_says_what_it_is_the_mean_of() {
        let files =
            [file("a", |_, _, x| x), file("b", |_, _, x| 1.5 * x), file("c", |_, _, x| 0.5 * x + 0.03)];
        let (d, mean) = weights::parse(&average(&files, "9.9.9", "abc").unwrap()).unwrap();
        let (of, tensors) = weights::parse(&files[0].1).unwrap();
        for (name, values) in &mean {
            for (got, x) in values.iter().zip(&tensors[name]) {
                assert!((got - (x + 0.01)).abs() < 1e-5, "{name}: {got} of {x}");
            }
        }
        assert_eq!((d.version.as_str(), d.commit.as_str()), ("9.9.9", "abc"));
        assert!(d.recipe.starts_with("mean of 3: ") && d.recipe.contains(&of.recipe), "{}", d.recipe);
        assert_eq!(d.recipe.matches(&of.commit).count(), 3, "{}", d.recipe);
    }

    #[test]
    fn what_has_no_mean_is_refused_by_name() {
        let (a, b) = (file("a", |_, _, x| x), file("b", |_, _, x| x));
        let refused = |files: &[(String, Vec<u8>)]| average(files, "1", "").unwrap_err();
        assert!(refused(&[]).contains("nothing to average"));
        assert!(refused(std::slice::from_ref(&a)).starts_with("a: "));
        assert!(refused(&[a.clone(), ("b".into(), b"nonsense".to_vec())]).starts_with("b: is no complete"));
        // Each tensor turned round by a few places, as unrelated as the weights of another training.
        let (d, tensors) = weights::parse(&b.1).unwrap();
        let turned = tensors.into_iter().map(|(name, mut values)| {
            let by = 7.min(values.len());
            values.rotate_left(by);
            (name, values)
        });
        let other = weights::serialize(&d, &turned.collect()).unwrap();
        let error = refused(&[a.clone(), b.clone(), ("turned".into(), other)]);
        assert!(error.starts_with("turned: ") && error.contains("did not begin"), "{error}");
        let (mut d, tensors) = weights::parse(&b.1).unwrap();
        d.lookahead = 3_200;
        let other = weights::serialize(&d, &tensors).unwrap();
        assert!(refused(&[a.clone(), ("sooner".into(), other)]).starts_with("sooner: has another"));
        // How the first floor was while learning makes no other front end.
        d.lookahead = 6_400;
        d.front_end.start_below = 0.0;
        assert!(average(&[a, ("plain".into(), weights::serialize(&d, &tensors).unwrap())], "1", "").is_ok());
    }
}
