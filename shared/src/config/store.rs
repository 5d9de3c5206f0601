//! How long things are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Days that may be asked for: events themselves are kept for 400.
const DAYS: std::ops::RangeInclusive<u32> = 1..=400;

/// What the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Days that the curves of scores and levels and the outages of cameras are kept. Events, and what people said of
    /// them, are kept for 400 days.
    #[schemars(range(min = 1, max = 400))]
    pub keep_days: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { keep_days: 30 }
    }
}

impl StoreConfig {
    /// Looks at every key.
    pub(super) fn validate(self) -> Result<(), (&'static str, String)> {
        match DAYS.contains(&self.keep_days) {
            true => Ok(()),
            false => Err((
                "keep_days",
                format!(
                    "{}, expected a number of days from {} to {}",
                    self.keep_days,
                    DAYS.start(),
                    DAYS.end()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_are_bounded_and_a_month_where_nobody_says_anything() {
        let read = |text: &str| serde_json::from_str::<StoreConfig>(text).unwrap();
        assert_eq!(read("{}").keep_days, 30);
        assert!(
            read(r#"{"keep_days": 1}"#).validate().is_ok()
                && read(r#"{"keep_days": 400}"#).validate().is_ok()
        );
        for bad in [0, 401] {
            let (key, what) = StoreConfig { keep_days: bad }.validate().unwrap_err();
            assert!(key == "keep_days" && what.contains("from 1 to 400"), "{what}");
        }
    }
}
