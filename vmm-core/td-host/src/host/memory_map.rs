//! From convertible memory to TDMRs, PAMTs and reserved areas.
//!
//! The module manages memory in TDMRs: ranges aligned to 1 GiB, each with three PAMTs (16 bytes of
//! metadata per 1 GiB, 2 MiB and 4 KiB page) and at most 16 reserved areas. Rules (TDH.SYS.CONFIG):
//! - TDMRs ascend and do not overlap;
//! - all of a TDMR outside its reserved areas is convertible memory (inside a CMR);
//! - a PAMT is convertible memory, and where it lies inside a TDMR it is in a reserved area of that TDMR;
//! - reserved areas ascend, do not overlap, and are 4 KiB aligned.
//!
//! The plan covers every CMR: the 1 GiB blocks that CMRs touch, neighbouring blocks joined into one TDMR.
//! Holes between CMRs and the PAMTs themselves become reserved areas. A TDMR that would need more reserved
//! areas than the module allows is cut in two at a block boundary.

use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::{Hpa, Level, PAGE_SIZE};

/// A range of physical memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub base: Hpa,
    /// Bytes.
    pub size: u64,
}

impl MemoryRange {
    /// The first byte after the range; saturates at the end of the address space.
    pub const fn end(&self) -> u64 {
        self.base.get().saturating_add(self.size)
    }

    /// Whether all of `other` lies in this range.
    pub const fn contains(&self, other: &Self) -> bool {
        self.base.get() <= other.base.get() && other.end() <= self.end()
    }
}

/// Limits that the module reports (TDHSYSINFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdmrLimits {
    /// TDMRs at most.
    pub max_tdmrs: usize,
    /// Reserved areas in one TDMR at most.
    pub max_reserved: usize,
    /// Bytes of one PAMT entry.
    pub pamt_entry_bytes: u64,
    /// What the PAMT of 4 KiB pages is.
    pub small_pages: SmallPagePamt,
}

/// What a TDMR's PAMT area of 4 KiB pages holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmallPagePamt {
    /// An entry for each page.
    #[default]
    Entries,
    /// A bit for each page: entries come and go (dynamic PAMT, release 2.0).
    Bitmap,
}

/// One TDMR, complete: what TDMR_INFO says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdmrPlan {
    /// The TDMR itself, aligned to 1 GiB.
    pub range: MemoryRange,
    /// PAMTs for 1 GiB, 2 MiB and 4 KiB pages, in this order.
    pub pamt: [MemoryRange; 3],
    /// Areas inside the TDMR that the module must leave alone, ascending.
    pub reserved: Vec<MemoryRange>,
}

/// Why no plan exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// There is no convertible memory.
    NoMemory,
    /// More TDMRs than the module takes.
    TooManyTdmrs {
        /// How many the memory needs.
        needed: usize,
    },
    /// One 1 GiB block has more holes than the module takes reserved areas.
    TooFragmented {
        /// The block.
        block: Hpa,
    },
    /// No contiguous memory was left for a PAMT.
    NoPamtMemory {
        /// Bytes that were asked for.
        bytes: u64,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("the module reports no convertible memory"),
            Self::TooManyTdmrs { needed } => {
                write!(f, "memory needs {needed} TDMRs, more than the module takes")
            }
            Self::TooFragmented { block } => {
                write!(f, "the 1 GiB block at {block} has too many holes for one TDMR")
            }
            Self::NoPamtMemory { bytes } => write!(f, "no contiguous {bytes} bytes left for a PAMT"),
        }
    }
}

impl core::error::Error for PlanError {}

/// The PAMTs' sizes for a TDMR of this many bytes: for 1 GiB, 2 MiB and 4 KiB pages, whole pages each.
pub fn pamt_bytes(tdmr_bytes: u64, limits: TdmrLimits) -> [u64; 3] {
    [Level::L1G, Level::L2M, Level::L4K].map(|level| {
        let pages = tdmr_bytes / level.bytes();
        let bytes = match (level, limits.small_pages) {
            (Level::L4K, SmallPagePamt::Bitmap) => pages.div_ceil(8),
            _ => pages.saturating_mul(limits.pamt_entry_bytes),
        };
        bytes.next_multiple_of(PAGE_SIZE)
    })
}

/// Plans TDMRs for the convertible memory `cmrs` (ascending, as the module reports it).
///
/// `allocate` gives contiguous 4 KiB-aligned memory for a PAMT, inside a CMR; what it gave is for its owner
/// to take back when the plan fails.
///
/// # Errors
/// [`PlanError`].
pub fn plan_tdmrs(
    cmrs: &[MemoryRange],
    limits: TdmrLimits,
    mut allocate: impl FnMut(u64) -> Option<MemoryRange>,
) -> Result<Vec<TdmrPlan>, PlanError> {
    let ranges = tdmr_ranges(cmrs, limits)?;
    let mut plans = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut pamt = [MemoryRange { base: Hpa::new(0), size: 0 }; 3];
        for (area, bytes) in pamt.iter_mut().zip(pamt_bytes(range.size, limits)) {
            *area = allocate(bytes).ok_or(PlanError::NoPamtMemory { bytes })?;
        }
        plans.push(TdmrPlan { range, pamt, reserved: Vec::new() });
    }
    let pamts: Vec<MemoryRange> = plans.iter().flat_map(|plan| plan.pamt).collect();
    for plan in &mut plans {
        plan.reserved = reserved_areas(&plan.range, cmrs, &pamts);
        if plan.reserved.len() > limits.max_reserved {
            return Err(PlanError::TooFragmented { block: plan.range.base });
        }
    }
    Ok(plans)
}

/// Joins the 1 GiB blocks that convertible memory touches, leaving room for the PAMTs' reserved areas.
fn tdmr_ranges(cmrs: &[MemoryRange], limits: TdmrLimits) -> Result<Vec<MemoryRange>, PlanError> {
    let block = Level::L1G.bytes();
    // Three PAMTs may fall into any one TDMR, each next to a hole or apart from it.
    let holes_allowed = limits.max_reserved.saturating_sub(3);
    let mut ranges: Vec<MemoryRange> = Vec::new();
    for cmr in cmrs.iter().filter(|cmr| cmr.size > 0) {
        let mut at = cmr.base.align_down(block);
        while at.get() < cmr.end() {
            let next = MemoryRange { base: at, size: block };
            at = at.checked_add(block).ok_or(PlanError::TooFragmented { block: at })?;
            match ranges.last_mut() {
                Some(last) if next.base.get() < last.end() => continue,
                Some(last) if next.base.get() == last.end() => {
                    let joined = MemoryRange { base: last.base, size: last.size + block };
                    if reserved_areas(&joined, cmrs, &[]).len() <= holes_allowed {
                        *last = joined;
                        continue;
                    }
                }
                _ => {}
            }
            ranges.push(next);
        }
    }
    match ranges.len() {
        0 => Err(PlanError::NoMemory),
        needed if needed > limits.max_tdmrs => Err(PlanError::TooManyTdmrs { needed }),
        _ => Ok(ranges),
    }
}

/// What the module must not touch inside `tdmr`: holes between CMRs, and PAMTs; ascending and merged.
fn reserved_areas(tdmr: &MemoryRange, cmrs: &[MemoryRange], pamts: &[MemoryRange]) -> Vec<MemoryRange> {
    let mut areas: Vec<(u64, u64)> = Vec::new();
    let mut at = tdmr.base.get();
    for cmr in cmrs.iter().filter(|cmr| cmr.size > 0) {
        if cmr.end() <= at || cmr.base.get() >= tdmr.end() {
            continue;
        }
        if cmr.base.get() > at {
            areas.push((at, cmr.base.get()));
        }
        at = cmr.end();
    }
    if at < tdmr.end() {
        areas.push((at, tdmr.end()));
    }
    for pamt in pamts {
        let (start, end) = (pamt.base.get().max(tdmr.base.get()), pamt.end().min(tdmr.end()));
        if start < end {
            areas.push((start, end));
        }
    }
    areas.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in areas {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into_iter().map(|(start, end)| MemoryRange { base: Hpa::new(start), size: end - start }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const LIMITS: TdmrLimits = TdmrLimits {
        max_tdmrs: 64,
        max_reserved: 16,
        pamt_entry_bytes: 16,
        small_pages: SmallPagePamt::Entries,
    };

    fn range(base: u64, size: u64) -> MemoryRange {
        MemoryRange { base: Hpa::new(base), size }
    }

    /// Allocates PAMTs downwards from `top`.
    fn from_top(mut top: u64) -> impl FnMut(u64) -> Option<MemoryRange> {
        move |bytes| {
            top -= bytes;
            Some(range(top, bytes))
        }
    }

    #[test]
    fn one_block_of_memory_becomes_one_tdmr_whose_pamts_are_reserved() {
        let plans = plan_tdmrs(&[range(4 * GIB, GIB)], LIMITS, from_top(5 * GIB)).unwrap();
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].range, range(4 * GIB, GIB));
        assert_eq!(plans[0].pamt.map(|p| p.size), [0x1000, 0x2000, 0x40_0000]);
        let pamt_total = 0x40_3000;
        assert_eq!(plans[0].reserved, [range(5 * GIB - pamt_total, pamt_total)]);
    }

    #[test]
    fn with_dynamic_pamt_4k_pages_take_a_bit_each() {
        let limits = TdmrLimits { small_pages: SmallPagePamt::Bitmap, ..LIMITS };
        assert_eq!(pamt_bytes(GIB, limits), [0x1000, 0x2000, 0x8000]);
    }

    #[test]
    fn holes_become_reserved_and_neighbours_are_joined() {
        let cmrs = [range(0x10_0000, 2 * GIB), range(4 * GIB, 4 * GIB)];
        let plans = plan_tdmrs(&cmrs, LIMITS, from_top(8 * GIB)).unwrap();
        let ranges: Vec<_> = plans.iter().map(|p| p.range).collect();
        assert_eq!(ranges, [range(0, 3 * GIB), range(4 * GIB, 4 * GIB)]);
        assert_eq!(plans[0].reserved, [range(0, 0x10_0000), range(2 * GIB + 0x10_0000, GIB - 0x10_0000)]);
    }

    #[test]
    fn a_range_with_many_holes_is_cut_into_several_tdmrs() {
        let cmrs: Vec<_> = (0..20u64).map(|i| range(i * GIB + (GIB / 2), GIB / 4)).collect();
        let plans = plan_tdmrs(&cmrs, LIMITS, from_top(20 * GIB)).unwrap();
        assert!(plans.len() > 1);
        assert!(plans.iter().all(|p| p.reserved.len() <= 16));
        for pair in plans.windows(2) {
            assert!(pair[0].range.end() <= pair[1].range.base.get());
        }
    }

    #[test]
    fn memory_that_cannot_be_planned_says_why() {
        assert_eq!(plan_tdmrs(&[], LIMITS, |_| None).unwrap_err(), PlanError::NoMemory);
        let one = [range(GIB, GIB)];
        assert!(matches!(plan_tdmrs(&one, LIMITS, |_| None), Err(PlanError::NoPamtMemory { .. })));
        let few = TdmrLimits { max_tdmrs: 1, ..LIMITS };
        let two = [range(GIB, GIB), range(8 * GIB, GIB)];
        assert_eq!(
            plan_tdmrs(&two, few, from_top(9 * GIB)).unwrap_err(),
            PlanError::TooManyTdmrs { needed: 2 }
        );
    }
}
