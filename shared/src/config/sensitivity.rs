//! The knob for how readily crying is announced, and the probability threshold that each of its positions
//! stands for.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::suggest;

/// What the knob does: position, the word for it where it has one, and the threshold there. Between two rows the
/// threshold's log-odds are interpolated. Positions rise, thresholds fall. `normal` is where the model is
/// calibrated; the README says what was measured at each word.
const POSITIONS: [(f64, Option<&str>, f64); 5] = [
    (0.0, None, 0.95),
    (0.25, Some("low"), 0.8),
    (0.5, Some("normal"), 0.5),
    (0.75, Some("high"), 0.25),
    (1.0, None, 0.1),
];

/// How readily crying is announced, from 0 (only what is beyond doubt) to 1 (whatever might be crying). Written as
/// a number or as one of the words `low`, `normal` and `high`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Sensitivity(f64);

impl Sensitivity {
    /// A position of the knob; `None` outside of 0 to 1.
    pub fn new(position: f64) -> Option<Self> {
        (0.0..=1.0).contains(&position).then_some(Self(position))
    }

    /// The probability from which a frame counts as crying: above 0, below 1, and the lower the more sensitive.
    pub fn threshold(self) -> f64 {
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        for pair in POSITIONS.windows(2) {
            let [(low, _, at_low), (high, _, at_high)] = *pair else { continue };
            if self.0 == low {
                return at_low;
            }
            if self.0 < high {
                let part = (self.0 - low) / (high - low);
                let between = log_odds(at_low) + part * (log_odds(at_high) - log_odds(at_low));
                return 1.0 / (1.0 + (-between).exp());
            }
        }
        POSITIONS[POSITIONS.len() - 1].2
    }

    fn words() -> impl Iterator<Item = &'static str> {
        POSITIONS.iter().filter_map(|(_, word, _)| *word)
    }

    fn from_word(word: &str) -> Result<Self, String> {
        match POSITIONS.iter().find(|(_, known, _)| *known == Some(word)) {
            Some((position, _, _)) => Ok(Self(*position)),
            None => Err(match suggest::nearest(word, Self::words()) {
                Some(near) => format!("unknown value {word:?}, did you mean {near:?}?"),
                None => format!("unknown value {word:?}, {}", expected()),
            }),
        }
    }

    fn from_number(number: f64) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("{number}, {}", expected()))
    }
}

fn expected() -> String {
    let words: Vec<&str> = Sensitivity::words().collect();
    format!("expected {} or a number from 0 to 1", words.join(", "))
}

impl FromStr for Sensitivity {
    type Err = String;
    /// As on a command line: a word or a number.
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map_or_else(|_| Self::from_word(text), Self::from_number)
    }
}

impl Serialize for Sensitivity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Sensitivity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct WordOrNumber;
        impl de::Visitor<'_> for WordOrNumber {
            type Value = Sensitivity;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(expected().trim_start_matches("expected "))
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Sensitivity, E> {
                Sensitivity::from_word(word).map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Sensitivity, E> {
                Sensitivity::from_number(number).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Sensitivity, E> {
                self.visit_f64(number as f64)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Sensitivity, E> {
                self.visit_f64(number as f64)
            }
        }
        if d.is_human_readable() { d.deserialize_any(WordOrNumber) } else { d.deserialize_f64(WordOrNumber) }
    }
}

/// What stands in a file.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum SensitivitySchema {
    Word(SensitivityWord),
    Number(#[schemars(range(min = 0.0, max = 1.0))] f64),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum SensitivityWord {
    Low,
    Normal,
    High,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_more_sensitive_the_lower_the_threshold_without_a_jump() {
        let at = |n: i32| Sensitivity::new(f64::from(n) / 1000.0).unwrap().threshold();
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        for n in 0..1000 {
            let step = log_odds(at(n)) - log_odds(at(n + 1));
            assert!(step > 0.0 && step < 0.05, "{n}: {} to {}", at(n), at(n + 1));
        }
        assert!(at(0) < 1.0 && at(1000) > 0.0);
    }

    #[test]
    fn words_are_positions_and_normal_is_the_models_own_threshold() {
        let threshold = |text: &str| text.parse::<Sensitivity>().unwrap().threshold();
        assert_eq!(threshold("normal"), 0.5);
        assert_eq!(threshold("0.5"), 0.5);
        assert_eq!((threshold("low"), threshold("high")), (threshold("0.25"), threshold("0.75")));
        for (position, word, expected) in POSITIONS {
            assert_eq!(Sensitivity::new(position).unwrap().threshold(), expected);
            assert!(word.is_none_or(|word| threshold(word) == expected));
        }
        let schema = schemars::schema_for!(SensitivitySchema).to_value().to_string();
        assert!(Sensitivity::words().all(|word| schema.contains(word)), "{schema}");
    }

    #[test]
    fn what_is_no_position_is_refused_with_what_was_expected() {
        for bad in ["", "loud", "NaN", "-0.1", "1.01", "inf", "50%"] {
            let e = bad.parse::<Sensitivity>().unwrap_err();
            assert!(e.contains("low, normal, high or a number from 0 to 1"), "{bad}: {e}");
        }
        assert!("hihg".parse::<Sensitivity>().unwrap_err().contains(r#"did you mean "high"?"#));
    }
}
