//! TDG.MEM.PAGE.ACCEPT (6): takes a pending page into use, zeroed. RCX GPA and level (4K, 2M).
//!
//! A 2 MiB page is zeroed in pieces; between two of them an interrupt for the VMM ends the call, which the guest
//! repeats. How far it came is kept in bits 20:12 of the entry, which a pending 2 MiB page does not need.

use tdvisor_base::{Gpa, Hpa, Level, PAGE_SIZE};
use tdx_module_iface::exit::{EntryIs, EptViolation, ExitReason, ExitReasonField, ExtendedQualification};
use tdx_module_iface::sept::{SeptEntry, SeptState, SeptStates};
use tdx_module_iface::{Operand, Status, StatusCode};

use super::{Call, End, Step};
use crate::guest::GuestState;
use crate::host::invalid;
use crate::lock::Side;
use crate::td::l2;
use crate::td::sept::{SeptLock, SeptSlot, Walk};
use crate::vcpu::{AsyncExit, Handled};
use tdx_module_iface::GpaLevel;
use x86_arch::Gpr;

const PAGE_BITS: u64 = 0x000f_ffff_ffff_f000;
const COUNTER_SHIFT: u32 = 12;

pub(super) fn accept(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = state.regs[Gpr::Rcx];
    let refused = End::from(invalid(Operand::RCX));
    let level = match rcx & 7 {
        0 => Level::L4K,
        1 => Level::L2M,
        _ => return Err(refused),
    };
    let gpa = Gpa::new(rcx & PAGE_BITS);
    if rcx & !(PAGE_BITS | 7) != 0
        || !gpa.is_aligned(level.bytes())
        || gpa.get() >= call.vcpu.tdcs.shared_bit()
    {
        return Err(refused);
    }
    let slot = match call.vcpu.tdcs.walk(gpa, level) {
        Some(Walk::Found(slot)) => slot,
        Some(Walk::Stopped(slot)) => return Err(above(gpa, level, slot)),
        None => return Err(refused),
    };
    let lock = slot.lock(Side::Guest).map_err(|busy| End::Busy(Operand::RCX, busy))?;
    let found = lock.state();
    if SeptStates::GUEST_ACCESSIBLE_LEAF.contains(found) {
        return Err(with_level(StatusCode::PAGE_ALREADY_ACCEPTED, level));
    }
    // A table, blocked or not, and what an import removed: the guest asked for the wrong size.
    if !found.is_leaf() && found != SeptState::Free {
        return Err(with_level(StatusCode::PAGE_SIZE_MISMATCH, level));
    }
    if !SeptStates::ANY_PENDING_AND_GUEST_ACCEPTABLE.contains(found) {
        return Err(exit(gpa, level, &slot));
    }
    zero_and_map(call, &lock, gpa, level)
}

/// The walk ended above the wanted level.
fn above(gpa: Gpa, level: Level, slot: SeptSlot<'_>) -> End {
    if SeptStates::GUEST_ACCESSIBLE_LEAF.contains(slot.state()) {
        return with_level(StatusCode::PAGE_ALREADY_ACCEPTED, slot.level);
    }
    exit(gpa, level, &slot)
}

fn with_level(code: StatusCode, level: Level) -> End {
    End::Status(Status::with_details(code, u32::from(level.index())))
}

/// The TD exit of a page that cannot be accepted: the VMM has to map it first.
fn exit(gpa: Gpa, level: Level, slot: &SeptSlot<'_>) -> End {
    let found = slot.state();
    let leaf = if found.is_leaf() { EntryIs::Leaf } else { EntryIs::NotLeaf };
    let mut out =
        AsyncExit::new(StatusCode::SUCCESS, ExitReasonField(u32::from(ExitReason::EPT_VIOLATION.0)));
    out.qualification = EptViolation::WRITE;
    out.extended = ExtendedQualification::accept(level, slot.level, found.into(), leaf, 0);
    out.gpa = gpa;
    // Not a step of zero-step protection, which takes a pending page for unmapped: a guest accepts page after page
    // at one RIP, each mapped by the VMM on demand.
    End::Fault(Handled::exit(out))
}

fn zero_and_map(call: &Call<'_, '_, '_>, lock: &SeptLock<'_>, gpa: Gpa, level: Level) -> Step {
    let entry = lock.entry();
    let base = entry.hpa().align_down(level.bytes());
    let pages = level.frames();
    let mut done = if level == Level::L4K { 0 } else { counter(entry) };
    let key = call.vcpu.tdr.key();
    while done < pages {
        let page = Hpa::new(base.get() + done * PAGE_SIZE);
        call.vcpu.machine.note_key_change(page, key);
        // The page is in memory: AUG found it in the PAMT.
        let _ = call.vcpu.machine.memory().clear_page(page.frame(), key);
        done += 1;
        if done < pages && call.vcpu.env.interrupt_pending() {
            lock.set(SeptEntry(entry.0 & !SeptEntry::ACCEPT_COUNTER | done << COUNTER_SHIFT));
            return Err(End::Again);
        }
    }
    let accepted = match lock.state() {
        SeptState::PendingExportedDirty => SeptState::ExportedDirty,
        _ => SeptState::Mapped,
    };
    let kept = entry.0 & SeptEntry::L2_ALIASES;
    lock.set(SeptEntry(SeptEntry::mapped(base).with_state(accepted).0 | kept));
    l2::unblock(call.vcpu.tdcs, GpaLevel::new(gpa, level));
    Ok(())
}

const fn counter(entry: SeptEntry) -> u64 {
    (entry.0 & SeptEntry::ACCEPT_COUNTER) >> COUNTER_SHIFT
}
