//! From encoded media to nursery's audio (16 kHz mono): decoding of recordings, G.711, resampling. Shared by the
//! live capture process and the offline detector.

pub mod clip;
pub mod decode;
pub mod fmp4;
pub mod g711;
pub mod level;
pub mod mono;
pub mod polyphase;
pub mod resample;

/// Runs a decoder on foreign bytes; `None` where it panicked, after which it must be reset or not be used again.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}
