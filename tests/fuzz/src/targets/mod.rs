//! What is fuzzed: everything of ours that reads bytes which somebody else wrote.

// A target that cannot be set up must end its process, with the reason.
#![allow(clippy::expect_used)]

mod aac;
mod audio;
mod configuration;
mod control;
mod events;
mod frames;
mod media;
mod model;
mod planted;
mod recording;
mod rtsp;
mod session;
mod tables;
mod worker_output;

use crate::target::Target;

/// Every target.
pub const ALL: [&Target; 25] = [
    &frames::FROM_WORKER,
    &frames::TO_WORKER,
    &control::CONTROL,
    &configuration::CONFIGURATION,
    &configuration::SOURCE,
    &configuration::TIME,
    &worker_output::WORKER_OUTPUT,
    &rtsp::MESSAGES,
    &rtsp::TUNNEL,
    &session::SESSION,
    &aac::AAC,
    &audio::DECODER,
    &audio::MONO,
    &audio::G711,
    &audio::WINDOWS,
    &recording::RECORDING,
    &media::MEDIA,
    &media::CLIP,
    &media::PICTURE,
    &model::FILE,
    &model::STATE,
    &events::EVENTS,
    &tables::LABELS,
    &tables::TRUTH,
    &tables::PREDICTIONS,
];

/// Targets with faults, for the tests of this program.
pub const PLANTED: [&Target; 6] =
    [&planted::PANIC, &planted::LIE, &planted::HANG, &planted::SLOW, &planted::GREED, &planted::BOMB];
