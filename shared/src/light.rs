//! What role `light` is told and says: small pictures of cameras, made of the key frames of their video.

use serde::{Deserialize, Serialize};

use crate::{config::PicturesConfig, media::Data};

/// Most bytes of a picture: it goes in one frame, beside everything else.
pub const MAX_PICTURE: usize = 256 << 10;

/// A camera that pictures are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LightCamera {
    pub camera: String,
    pub pictures: PicturesConfig,
}

/// A picture, JPEG, with camera, time and score in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Wall-clock time, microseconds since 1970.
    pub time_us: i64,
    /// How much of it was different from the one before, 0 to 1.
    pub motion: Option<f32>,
    pub jpeg: Data,
}

/// Which picture is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub camera: String,
    /// The one nearest to this time (microseconds since 1970); the newest otherwise.
    pub near_us: Option<i64>,
    /// Probability of crying, to be written into it.
    pub score: Option<f64>,
}

/// The picture, or why there is none, one line.
pub type Found = Result<Picture, String>;
