//! Files of clips: a camera's media as it was sent, in a form that browsers play. They are only ever added to, in pieces
//! that are whole by themselves, so that one that is torn anywhere is still a clip up to there; [`whole`] says up to where,
//! and puts the lengths in that nobody knew while it was written.

pub mod boxes;
pub mod encoder;
pub mod flac;
pub mod wav;
pub mod whole;

pub use nursery_shared::clip::Format;
