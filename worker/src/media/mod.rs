//! From encoded media to nursery's audio (16 kHz mono): decoding of recordings, G.711, resampling. Shared by the
//! live capture process and the offline detector.

pub mod decode;
pub mod g711;
pub mod level;
pub mod mono;
pub mod resample;
