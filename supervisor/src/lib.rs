//! nursery's supervisor as a library, so that tests reach its parts; the program is `main.rs`.

pub mod cli;
pub mod policy;
pub mod service;
