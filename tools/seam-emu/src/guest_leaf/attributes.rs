//! TDG.MEM.PAGE.ATTR.RD (23) and TDG.MEM.PAGE.ATTR.WR (24): how the VMs of a TD may use a page. RCX GPA and level, RDX
//! attributes, R8 the attributes that are written; 16 bits a VM.
//!
//! No L2 VM has pages here, so every VM but the TD itself counts as one that does not exist.

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::exit::{EntryIs, EptViolation, ExitReason, ExitReasonField, ExtendedQualification};
use tdx_module_iface::sept::SeptState;
use tdx_module_iface::sept::allow::tdg_allowed;
use tdx_module_iface::{Operand, Status, StatusCode, TdgLeaf};
use x86_arch::Gpr;

use super::{Call, End, Step};
use crate::guest::GuestState;
use crate::host::invalid;
use crate::td::sept::{SeptSlot, Walk};
use crate::vcpu::{AsyncExit, Handled};

const PAGE_BITS: u64 = 0x000f_ffff_ffff_f000;
const LEVEL_BITS: u64 = 7;
/// RCX of the answer: the page waits to be accepted.
const PENDING: u64 = 1 << 62;
/// Attributes of one VM.
const VM_BITS: u32 = 16;
const VMS: u32 = 4;

/// Whether a leaf works on entries in this state.
fn accepts(leaf: TdgLeaf, slot: &SeptSlot<'_>) -> bool {
    tdg_allowed(leaf).is_some_and(|states| states.contains(slot.state()))
}

pub(super) fn read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = core::mem::take(&mut state.regs[Gpr::Rcx]);
    state.regs[Gpr::Rdx] = 0;
    let gpa = private_page(call, rcx)?;
    match call.vcpu.tdcs.walk(gpa, Level::L4K) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) if accepts(TdgLeaf::MEM_PAGE_ATTR_RD, &slot) => {
            state.regs[Gpr::Rcx] = page_info(gpa, &slot);
            Ok(())
        }
        _ => Err(fault(state, rcx, 0, ExtendedQualification::NONE, gpa)),
    }
}

pub(super) fn write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (rcx, attributes, flags) = (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx], state.regs[Gpr::R8]);
    (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx]) = (0, 0);
    for vm in 0..VMS {
        let of_vm = |word: u64| word >> (VM_BITS * vm) & 0xffff;
        if of_vm(attributes) != 0 {
            return Err(invalid(Operand::RDX).into());
        }
        if of_vm(flags) != 0 {
            return Err(invalid(Operand::R8).into());
        }
    }
    let level = match rcx & LEVEL_BITS {
        0 => Level::L4K,
        1 => Level::L2M,
        2 => Level::L1G,
        _ => return Err(invalid(Operand::RCX).into()),
    };
    let gpa = private_page(call, rcx)?;
    if !gpa.is_aligned(level.bytes()) {
        return Err(invalid(Operand::RCX).into());
    }
    let slot = match call.vcpu.tdcs.walk(gpa, level) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) => slot,
        None => return Err(invalid(Operand::RCX).into()),
    };
    let found = slot.state();
    let writable = accepts(TdgLeaf::MEM_PAGE_ATTR_WR, &slot);
    if writable && slot.level == level {
        state.regs[Gpr::Rcx] = page_info(gpa, &slot);
        return Ok(());
    }
    if writable || found == SeptState::NlMapped {
        let details = u32::from(slot.level.index());
        return Err(Status::with_details(StatusCode::PAGE_SIZE_MISMATCH, details).into());
    }
    let leaf = if found.is_leaf() { EntryIs::Leaf } else { EntryIs::NotLeaf };
    let extended = ExtendedQualification::attr_wr(level, slot.level, found.into(), leaf, 0);
    (state.regs[Gpr::Rdx], state.regs[Gpr::R8]) = (attributes, flags);
    Err(fault(state, rcx, EptViolation::WRITE, extended, gpa))
}

/// The page that RCX names. The level is the caller's business.
fn private_page(call: &Call<'_, '_, '_>, rcx: u64) -> Step<Gpa> {
    let gpa = Gpa::new(rcx & PAGE_BITS);
    if rcx & !(PAGE_BITS | LEVEL_BITS) != 0 || gpa.get() >= call.vcpu.tdcs.shared_bit() {
        return Err(invalid(Operand::RCX).into());
    }
    Ok(gpa)
}

/// RCX of the answer: the page as it is mapped, and whether it is pending.
fn page_info(gpa: Gpa, slot: &SeptSlot<'_>) -> u64 {
    let pending = if slot.state().is_pending() { PENDING } else { 0 };
    gpa.align_down(slot.level.bytes()).get() | u64::from(slot.level.index()) | pending
}

/// The TD exit of a page that is not mapped; the guest executes the instruction again.
fn fault(
    state: &mut GuestState,
    rcx: u64,
    qualification: u64,
    extended: ExtendedQualification,
    gpa: Gpa,
) -> End {
    state.regs[Gpr::Rcx] = rcx;
    let reason = ExitReasonField(u32::from(ExitReason::EPT_VIOLATION.0));
    let mut out = AsyncExit::new(StatusCode::SUCCESS, reason);
    out.qualification = qualification;
    out.extended = extended;
    out.gpa = gpa;
    End::Fault(Handled::exit(out))
}
