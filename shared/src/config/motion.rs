//! When what moves in pictures is an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most seconds of either.
const MAX_S: f64 = 3_600.0;

/// Motion that is told: `motion.started` and `motion.ended`, to those `alerts` that say `"motion": true`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MotionRule {
    /// How much of a picture must be different from the one before, from more than 0 to 1.
    pub threshold: f64,
    /// Seconds for which every picture must be; with 0 one is enough.
    pub min_duration_s: f64,
    /// Seconds without such a picture after which it has ended.
    pub end_after_s: f64,
}

impl Default for MotionRule {
    fn default() -> Self {
        Self { threshold: 0.1, min_duration_s: 2.0, end_after_s: 15.0 }
    }
}

impl MotionRule {
    /// Looks at every key.
    pub(super) fn validate(&self) -> Result<(), String> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return Err(format!("threshold: {}, expected a number from more than 0 to 1", self.threshold));
        }
        for (key, value) in [("min_duration_s", self.min_duration_s), ("end_after_s", self.end_after_s)] {
            if !(0.0..=MAX_S).contains(&value) {
                return Err(format!("{key}: {value}, expected a number of seconds from 0 to {MAX_S}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use crate::config::from_json;

    fn read(camera: &str, rest: &str) -> Result<crate::config::Config, String> {
        let text = format!(
            r#"{{"cameras": [{{"name": "crib", "source": "rtsp://192.0.2.1/x", "pictures": {{}} {camera}}}] {rest}}}"#
        );
        from_json(&text, std::path::Path::new("/"))
    }

    #[test]
    fn a_camera_has_a_rule_of_its_own_or_that_of_all_and_none_unless_told() {
        let rule = |config: &crate::config::Config| config.detection.for_camera(&config.cameras[0]).motion;
        assert_eq!(rule(&read("", "").unwrap()), None);
        let all = r#", "detection": {"motion": {"threshold": 0.3}}"#;
        assert_eq!(rule(&read("", all).unwrap()).unwrap().threshold, 0.3);
        assert_eq!(rule(&read(r#", "motion": {"threshold": 0.2}"#, all).unwrap()).unwrap().threshold, 0.2);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (camera, rest, expected) in [
            (r#", "motion": {"threshold": 0}"#, "", "cameras[0].motion: threshold: 0, expected"),
            (
                "",
                r#", "detection": {"motion": {"threshold": 2}}"#,
                "detection.motion: threshold: 2, expected",
            ),
            ("", r#", "detection": {"motion": {"end_after_s": -1}}"#, "detection.motion: end_after_s: -1"),
            ("", r#", "detection": {"motion": {"threshhold": 1}}"#, "did you mean \"threshold\"?"),
        ] {
            let e = read(camera, rest).unwrap_err();
            assert!(e.contains(expected), "{e}");
        }
        let e = from_json(
            r#"[{"name": "crib", "source": "rtsp://192.0.2.1/x", "motion": {}}]"#,
            std::path::Path::new("/"),
        );
        assert!(e.unwrap_err().contains("cameras[0].motion: there is none without `pictures`"));
    }
}
