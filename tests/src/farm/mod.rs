//! Hundreds of cameras in one process and one thread: a real RTSP server on a loopback port that replays prepared
//! packets, each at its time. What costs a camera nothing must cost its place on the machine nothing either, since the
//! service that listens is measured beside it: a packet is patched where it lies (sequence number, time, source,
//! channel) and handed to the kernel, and nothing is allocated or copied for it.
//!
//! `rtsp://127.0.0.1:PORT/KIND/NUMBER` is camera NUMBER, which sends what [`Kind`] says. All hear the same loop
//! ([`content`]), each from another place in it, and go on hearing it while nobody listens.

mod aac;
mod backlog;
mod client;
pub mod content;
mod exchange;
mod lateness;
pub mod ledger;
mod process;
mod server;
mod session;
pub mod stream;

pub use lateness::Lateness;
pub use process::CameraFarm;
pub use server::{Farm, Options};
pub use stream::Kind;
