//! What a guest may ask of its host (GHCI), one file per group of functions.

mod cpuid;
mod dispatch;
mod get_quote;
mod map_gpa;
mod msr;
mod request;

pub(crate) use dispatch::{Answer, Wake, answer};
pub use request::{FATAL_MESSAGE_BYTES, FatalReport, Reply, Request};
