//! nursery's workers as a library, so that tests reach their parts; the program is `main.rs`.

pub mod cage;
pub mod capture;
pub mod detect;
pub mod examine;
pub mod infer;
pub mod info;
pub mod light;
pub mod link;
pub mod listen;
pub mod logging;
pub mod media;
pub mod sink;
pub mod web;
