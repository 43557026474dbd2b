//! Operations on ranges, one file each: what changes mappings beside faults, and the audit that looks at all of them.
//!
//! | operation | guard |
//! |---|---|
//! | [`map_range`], [`split`], [`collapse`], [`zap`], [`dismantle`], [`root`] | exclusive |
//! | [`transfer`], [`arrive`] | exclusive |
//! | [`dirty`] | exclusive, or shared where it says so |
//! | [`age`] | read-side section |
//! | [`audit`], [`list`], [`saved`], [`twins`] | exclusive |

pub mod age;
pub mod arrive;
pub mod audit;
pub mod collapse;
pub mod dirty;
pub mod dismantle;
pub(crate) mod emptied;
pub mod list;
pub mod map_range;
pub mod root;
pub mod saved;
pub mod split;
pub mod transfer;
pub mod twins;
pub(crate) mod undo;
pub mod zap;
