//! What the end-to-end tests are made of: cameras that behave and misbehave, a webhook receiver, and a running
//! `nursery` that is always cleaned up. Everything here is real: real sockets, real processes, real audio.

// Support of tests: an expectation that fails must end the test, with its place and reason.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod audio;
pub mod bare_worker;
pub mod bench;
pub mod browser;
pub mod chaos;
pub mod described;
pub mod farm;
pub mod gst_camera;
pub mod http;
pub mod package;
pub mod processes;
pub mod receiver;
pub mod recorded_media;
pub mod rtsp_camera;
pub mod service;
pub mod simulation;
pub mod slot;
pub mod temp_dir;
pub mod traced;
pub mod wait;
pub mod web_worker;

/// Says on standard error, past libtest's capturing, that a test did not run, and why.
pub fn say_skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Ends the test as passed after saying visibly that it was skipped: `skip!("reason")`.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        let thread = ::std::thread::current();
        $crate::say_skipped(thread.name().unwrap_or("a test"), &format!($($why)*));
        return;
    }};
}
