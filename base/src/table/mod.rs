//! Tables that hardware walks: 512 words of one page, which processors and software race on.

#[cfg(not(loom))]
mod fill;

#[cfg(not(loom))]
pub use fill::fill;

use crate::addr::ENTRIES_PER_TABLE;
use crate::sync::AtomicU64;

/// One page-table page.
pub type Table = [AtomicU64; ENTRIES_PER_TABLE];
