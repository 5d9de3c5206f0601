//! Which media of events is kept, and for how long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most seconds before an event: capture processes remember hardly more.
const MAX_BEFORE_S: f64 = 15.0;
const MAX_AFTER_S: f64 = 60.0;
const MAX_S: f64 = 900.0;
const MAX_DAYS: f64 = 3650.0;
/// Most mebibytes: a tebibyte.
const MAX_MB: u64 = 1 << 20;

/// Clips: what a camera sent around each event, in files of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClipsConfig {
    /// Events from now on have clips. Not given: only where there is a page (`web`) to look at them on.
    pub enabled: Option<bool>,
    /// Seconds before the onset.
    pub before_s: f64,
    /// Seconds after the end.
    pub after_s: f64,
    /// Longest clip in seconds; of an event that is longer it is the beginning.
    pub max_s: f64,
    /// Days after which clips are removed.
    pub keep_days: f64,
    /// Mebibytes that all clips together never exceed: the oldest give way.
    pub keep_mb: u64,
}

impl Default for ClipsConfig {
    fn default() -> Self {
        Self { enabled: None, before_s: 5.0, after_s: 5.0, max_s: 180.0, keep_days: 14.0, keep_mb: 2048 }
    }
}

impl ClipsConfig {
    /// The same with `enabled` decided.
    pub fn decided(self, with_page: bool) -> Self {
        Self { enabled: Some(self.is_on(with_page)), ..self }
    }

    /// Events have clips, where there is a page or there is none.
    pub fn is_on(&self, with_page: bool) -> bool {
        self.enabled.unwrap_or(with_page)
    }

    /// Looks at every key.
    pub(super) fn validate(&self) -> Result<(), (&'static str, String)> {
        for (key, value, low, high, unit) in [
            ("before_s", self.before_s, 0.0, MAX_BEFORE_S, "seconds"),
            ("after_s", self.after_s, 0.0, MAX_AFTER_S, "seconds"),
            ("max_s", self.max_s, 1.0, MAX_S, "seconds"),
            ("keep_days", self.keep_days, 0.01, MAX_DAYS, "days"),
        ] {
            if !(low..=high).contains(&value) {
                return Err((key, format!("{value}, expected a number of {unit} from {low} to {high}")));
            }
        }
        if !(1..=MAX_MB).contains(&self.keep_mb) {
            let what = format!("{}, expected a number of mebibytes from 1 to {MAX_MB}", self.keep_mb);
            return Err(("keep_mb", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn clips_are_kept_where_somebody_can_look_at_them_unless_told_otherwise() {
        let clips = ClipsConfig::default();
        clips.validate().unwrap();
        assert!(clips.is_on(true) && !clips.is_on(false));
        assert!(ClipsConfig { enabled: Some(true), ..clips }.is_on(false));
        assert_eq!(clips.decided(true).enabled, Some(true));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let usual = ClipsConfig::default();
        for (key, clips) in [
            ("before_s", ClipsConfig { before_s: 16.0, ..usual }),
            ("before_s", ClipsConfig { before_s: f64::NAN, ..usual }),
            ("after_s", ClipsConfig { after_s: -1.0, ..usual }),
            ("max_s", ClipsConfig { max_s: 0.0, ..usual }),
            ("keep_days", ClipsConfig { keep_days: 0.0, ..usual }),
            ("keep_mb", ClipsConfig { keep_mb: 0, ..usual }),
        ] {
            assert_eq!(clips.validate().unwrap_err().0, key);
        }
    }
}
