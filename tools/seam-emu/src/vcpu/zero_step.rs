//! Zero-step protection: a host that maps and unmaps pages to hold a guest at one instruction is not given its
//! single steps (VP.ENTER reference, section 6).
//!
//! Private EPT violations at one RIP are counted. From the seventh on their addresses are remembered, and the
//! next TDH.VP.ENTER that finds one of them still unmapped reports it again without running the guest. A
//! violation at another RIP begins anew.

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::sept::SeptStates;

use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::td::sept::Walk;
use crate::td::{Tdcs, Tdvps};

/// Violations at one RIP that are not remembered.
const THRESHOLD: u64 = 6;
/// Addresses that are remembered.
const LIST_LEN: u64 = 32;

/// Counts a private EPT violation that leaves the TD.
pub(crate) fn log(tdvps: &Tdvps<'_>, rip: u64, gpa: Gpa) {
    if tdvps.load_u64(tdvps::LAST_EPF_GUEST_RIP) != rip {
        tdvps.store_u64(tdvps::LAST_EPF_GUEST_RIP, rip);
        tdvps.store(tdvps::POSSIBLY_EPF_STEPPING, Width::B1, 1);
        tdvps.store(tdvps::LAST_EPF_GPA_LIST_IDX, Width::B1, 0);
        return;
    }
    let count = tdvps.load(tdvps::POSSIBLY_EPF_STEPPING, Width::B1);
    if count < THRESHOLD {
        tdvps.store(tdvps::POSSIBLY_EPF_STEPPING, Width::B1, count + 1);
        return;
    }
    let length = remembered(tdvps);
    if length < LIST_LEN && !list(tdvps).any(|known| known == gpa) {
        tdvps.store_u64(tdvps::LAST_EPF_GPA_LIST + 8 * length as u32, gpa.get());
        tdvps.store(tdvps::LAST_EPF_GPA_LIST_IDX, Width::B1, length + 1);
    }
}

fn remembered(tdvps: &Tdvps<'_>) -> u64 {
    tdvps.load(tdvps::LAST_EPF_GPA_LIST_IDX, Width::B1).min(LIST_LEN)
}

fn list<'a>(tdvps: &'a Tdvps<'_>) -> impl Iterator<Item = Gpa> + 'a {
    (0..remembered(tdvps) as u32).map(|i| Gpa::new(tdvps.load_u64(tdvps::LAST_EPF_GPA_LIST + 8 * i)))
}

/// Whether an entry has to be checked at all.
pub(crate) fn is_suspicious(tdvps: &Tdvps<'_>) -> bool {
    remembered(tdvps) != 0
}

/// The first remembered address that is still unmapped. The caller holds the tree lock.
pub(crate) fn still_unmapped(tdvps: &Tdvps<'_>, tdcs: &Tdcs<'_>) -> Option<Gpa> {
    list(tdvps).find(|gpa| !is_mapped(tdcs, *gpa))
}

fn is_mapped(tdcs: &Tdcs<'_>, gpa: Gpa) -> bool {
    match tdcs.walk(gpa, Level::L4K) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) => {
            // A pending page does not count as mapped (recorded), whatever touching it would do.
            SeptStates::GUEST_ACCESSIBLE_LEAF.contains(slot.state())
        }
        None => false,
    }
}
