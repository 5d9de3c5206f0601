//! Pictures of a camera: whether there are any, how often and how large.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds between two pictures.
const EVERY_S: std::ops::RangeInclusive<f64> = 0.5..=3_600.0;
/// Pixels across: with more a picture might not fit what it travels in.
const WIDTH: std::ops::RangeInclusive<u16> = 64..=1_280;

/// Pictures of a camera, from the key frames of its video, which is received all the time then.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PicturesConfig {
    /// Seconds between two pictures, at the least: cameras send a key frame every second or two.
    pub every_s: f64,
    /// Pixels across; the height follows. A camera's own width where that is smaller.
    pub width: u16,
    /// Without colours.
    pub grey: bool,
    /// Say how much of each picture is different from the one before.
    pub motion: bool,
}

impl Default for PicturesConfig {
    fn default() -> Self {
        Self { every_s: 5.0, width: 640, grey: false, motion: true }
    }
}

impl PicturesConfig {
    /// Looks at every key.
    pub(super) fn validate(&self) -> Result<(), String> {
        if !EVERY_S.contains(&self.every_s) {
            let (low, high) = (EVERY_S.start(), EVERY_S.end());
            return Err(format!(
                "every_s: {}, expected a number of seconds from {low} to {high}",
                self.every_s
            ));
        }
        if !WIDTH.contains(&self.width) {
            let (low, high) = (WIDTH.start(), WIDTH.end());
            return Err(format!("width: {}, expected a number of pixels from {low} to {high}", self.width));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use crate::config::from_json;

    fn read(camera: &str) -> Result<crate::config::Config, String> {
        from_json(&format!(r#"[{{"name": "crib", {camera}}}]"#), std::path::Path::new("/"))
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let rtsp = r#""source": "rtsp://192.0.2.1/x""#;
        let all = format!(r#"{rtsp}, "pictures": {{}}"#);
        assert_eq!(read(&all).unwrap().cameras[0].pictures, Some(super::PicturesConfig::default()));
        for (rest, expected) in [
            (r#""pictures": {"every_s": 0.1}"#, "cameras[0].pictures: every_s: 0.1, expected"),
            (r#""pictures": {"width": 4000}"#, "cameras[0].pictures: width: 4000, expected"),
            (r#""pictures": {"widht": 640}"#, "did you mean \"width\"?"),
            (r#""pictures": {}, "video": "never""#, "cameras[0].pictures: \"video\" is \"never\""),
        ] {
            let e = read(&format!("{rtsp}, {rest}")).unwrap_err();
            assert!(e.contains(expected), "{e}");
        }
        let e = read(r#""source": "synthetic:cry", "pictures": {}"#).unwrap_err();
        assert!(e.contains("only rtsp:// and rtsps:// sources"), "{e}");
    }
}
