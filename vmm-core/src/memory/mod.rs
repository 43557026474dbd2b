//! Guest memory: which pages, private or shared, mapped how.

pub mod attributes;
pub mod backing;
