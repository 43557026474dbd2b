//! What a guest may ask of its host (GHCI), one file per group of functions.

mod cpuid;
mod dispatch;
mod get_quote;
mod map_gpa;
mod msr;
mod request;

pub use dispatch::Wake;
pub(crate) use dispatch::{Answer, answer};
pub use request::{FATAL_MESSAGE_BYTES, FatalReport, Reply, Request};
