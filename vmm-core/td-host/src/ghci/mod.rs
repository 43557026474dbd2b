//! What a guest may ask of its host (GHCI), one file per group of functions.

mod cpuid;
mod dispatch;
mod msr;
mod request;

pub use dispatch::Wake;
pub(crate) use dispatch::{Response, reply_to, respond};
pub use request::{Reply, Request};
