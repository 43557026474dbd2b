//! One TD: how it is built, and how it ends.

pub(crate) mod core;
pub mod hob;

pub use core::Ending;
