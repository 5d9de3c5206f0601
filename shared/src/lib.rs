//! What nursery's processes have in common: frames and their codec, messages, configuration, the control
//! protocol, and the shapes that people script against.
#![deny(unsafe_code)]

pub mod cage;
pub mod changes;
pub mod clip;
pub mod codec;
pub mod config;
pub mod control;
pub mod curve;
pub mod descriptors;
pub mod frame;
pub mod history;
pub mod light;
pub mod line;
pub mod media;
pub mod message;
pub mod model_state;
pub mod pcm;
pub mod postmortem;
pub mod redact;
pub mod secret;
pub mod status;
pub mod suggest;
pub mod timestamp;

/// Version of both binaries; they refuse each other when it differs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
