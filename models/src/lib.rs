//! nursery's ear: the audio front end, the network, the event logic and the training, one definition for
//! training, `nursery detect` and the service alike.

pub mod bounded;
pub mod detector;
pub mod evaluation;
pub mod events;
pub mod frontend;
pub mod net;
pub mod ops;
pub mod recording;
mod text;
pub mod train;
pub mod weights;
pub mod window;

pub use detector::{Detector, ModelError, ModelInfo, StreamState};
