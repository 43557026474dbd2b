//! Zero-step protection: a host that maps and unmaps pages to hold a guest at one instruction is not given its
//! single steps (VP.ENTER reference, section 6).
//!
//! Private EPT violations that leave the TD are counted for as long as the guest stays where the host entered it: any VM
//! exit at another RIP begins anew. From the seventh on their addresses are remembered, and a TDH.VP.ENTER that finds
//! one of them still unmapped reports it again without running the guest. Where all of them are mapped the guest is
//! told, if it wants to be (NOTIFY_ENABLES).

use tdvisor_base::{Gpa, Level, PAGE_SIZE};
use tdx_module_iface::exit::{EptViolation, ExitReason};
use tdx_module_iface::sept::SeptStates;
use x86_arch::InterruptionInfo;

use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit};
use crate::td::sept::Walk;
use crate::td::{Tdcs, Tdvps};

/// Violations at one RIP that are not remembered.
const THRESHOLD: u64 = 6;
/// Addresses that are remembered.
const LIST_LEN: u64 = 32;

/// Takes note of a VM exit: a guest that is not where it was entered got on.
pub(crate) fn note_exit(tdvps: &Tdvps<'_>, entered_at: u64, rip: u64) {
    if rip != entered_at {
        tdvps.store(tdvps::POSSIBLY_EPF_STEPPING, Width::B1, 0);
        tdvps.store(tdvps::LAST_EPF_GPA_LIST_IDX, Width::B1, 0);
    }
}

/// Counts a private EPT violation that leaves the TD.
pub(crate) fn log(tdvps: &Tdvps<'_>, gpa: Gpa) {
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

/// The page of the first remembered address that is still unmapped. The caller holds the tree lock.
pub(crate) fn still_unmapped(tdvps: &Tdvps<'_>, tdcs: &Tdcs<'_>) -> Option<Gpa> {
    list(tdvps).find(|gpa| !is_mapped(tdcs, *gpa)).map(|gpa| gpa.align_down(PAGE_SIZE))
}

fn is_mapped(tdcs: &Tdcs<'_>, gpa: Gpa) -> bool {
    match tdcs.walk(gpa.align_down(PAGE_SIZE), Level::L4K) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) => {
            // A pending page does not count as mapped (recorded), whatever touching it would do.
            SeptStates::GUEST_ACCESSIBLE_LEAF.contains(slot.state())
        }
        None => false,
    }
}

/// Whether the guest is to be told of the violations that the entry found harmless: it asked for it, and it was a
/// private one that left the TD last.
pub(crate) fn is_to_be_told(tdcs: &Tdcs<'_>, last: &VmExit) -> bool {
    /// NOTIFY_ENABLES bit 0.
    const EPT_FAULTS: u64 = 1;
    tdcs.load_u64(tdcs::NOTIFY_ENABLES) & EPT_FAULTS != 0
        && last.reason.basic() == ExitReason::EPT_VIOLATION
        && last.gpa.get() & tdcs.shared_bit() == 0
}

/// Whether #VE can tell a guest that is entered: it is in no NMI handler, no event waits to be delivered again, and it
/// has read what the last #VE was about.
pub(crate) fn can_be_told(tdvps: &Tdvps<'_>, guest: &GuestState, last: &VmExit) -> bool {
    !guest.interruptibility.nmi_blocked
        && last.qualification & EptViolation::NMI_UNBLOCKED == 0
        && InterruptionInfo { info: last.idt_vectoring_info, ..InterruptionInfo::NONE }.unpack().is_none()
        && tdvps.load(tdvps::VE_VALID, Width::B4) == 0
}
