//! TDH.PHYMEM.*: physical pages and caches, whoever they belong to.

pub(super) mod cache_wb;
pub(in crate::host) mod pamt;
pub(super) mod rdmd;
pub(super) mod reclaim;
pub(super) mod wbinvd;

use tdvisor_base::Level;

/// How outputs number page sizes.
const fn size_number(level: Level) -> u64 {
    level as u64
}
