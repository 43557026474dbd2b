//! What a guest may ask of its host (GHCI), one file per group of functions.

mod request;

pub use request::{FATAL_MESSAGE_BYTES, FatalReport, Reply, Request};
