//! One TD: how it is built, and how it ends.

pub mod hob;
