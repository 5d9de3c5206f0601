//! Many cameras on one machine: nursery, and what people would run instead, listen to the same farm of cameras one after
//! the other, and what that costs, misses and delays is counted from outside: by the kernel's accounts of all their
//! processes, by the farm's ledger of what was sent when, and by the receiver of alerts.

mod alerts;
pub mod growth;
mod machine;
pub mod measure;
mod mix;
mod nursery;
pub mod plot;
pub mod recovery;
pub mod report;
mod rival;
pub mod routing;
pub mod scale;
pub mod start;
mod statistics;
pub mod sustain;
mod system;
mod usage;

pub use machine::Machine;
pub use measure::{Measurement, Plan, Readiness};
pub use mix::Mix;
pub use statistics::{Line, Spread};
pub use system::{Rivals, Which};
