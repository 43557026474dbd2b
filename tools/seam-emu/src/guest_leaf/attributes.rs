//! TDG.MEM.PAGE.ATTR.RD (23) and TDG.MEM.PAGE.ATTR.WR (24): how the VMs of a TD may use a page. RCX GPA and level, RDX
//! attributes, R8 the attributes that are written; 16 bits a VM.

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::exit::{EntryIs, EptViolation, ExitReason, ExitReasonField, ExtendedQualification};
use tdx_module_iface::sept::allow::tdg_allowed;
use tdx_module_iface::sept::{SeptEntry, SeptState, SeptStateId};
use tdx_module_iface::{Operand, Status, StatusCode, TdgLeaf};
use x86_arch::Gpr;

use super::memory::RIGHTS_SHIFT;
use super::{Call, End, Step};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::GuestState;
use crate::host::invalid;
use crate::l2::Vm;
use crate::l2::store::of_vm;
use crate::lock::Side;
use crate::td::l2::{self, L2Attributes, L2Slot, Use};
use crate::td::sept::{SeptLock, SeptSlot, Walk};
use crate::vcpu::{AsyncExit, Handled};
use tdx_module_iface::GpaLevel;

const PAGE_BITS: u64 = 0x000f_ffff_ffff_f000;
const LEVEL_BITS: u64 = 7;
/// RCX of the answer: the page waits to be accepted.
const PENDING: u64 = 1 << 62;
/// Attributes of one VM.
const VM_BITS: u32 = 16;
const VMS: u32 = 4;
/// Attributes of a VM: they are meant.
const VALID: u64 = 1 << 15;
/// R8: the VM's translations are flushed.
const FLUSH: u64 = 1 << 15;

/// Whether a leaf works on entries in this state.
fn accepts(leaf: TdgLeaf, slot: &SeptSlot<'_>) -> bool {
    tdg_allowed(leaf).is_some_and(|states| states.contains(slot.state()))
}

pub(super) fn read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = core::mem::take(&mut state.regs[Gpr::Rcx]);
    state.regs[Gpr::Rdx] = 0;
    if rcx >= call.vcpu.tdcs.shared_bit() {
        return Err(invalid(Operand::RCX).into());
    }
    let gpa = Gpa::new(rcx & PAGE_BITS);
    match call.vcpu.tdcs.walk(gpa, Level::L4K) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) if accepts(TdgLeaf::MEM_PAGE_ATTR_RD, &slot) => {
            state.regs[Gpr::Rcx] = page_info(gpa, &slot);
            let what = GpaLevel::new(gpa, slot.level);
            state.regs[Gpr::Rdx] = l2::vms(call.vcpu.tdcs).fold(0, |all, vm| {
                all | current(call, vm, what, slot.entry())
                    .map_or(0, |bits| in_place(vm, bits.bits() | VALID))
            });
            Ok(())
        }
        _ => Err(fault(state, rcx, 0, ExtendedQualification::NONE, gpa)),
    }
}

/// The attributes with which a VM maps a page; `None` if it does not.
fn current(call: &Call<'_, '_, '_>, vm: Vm, what: GpaLevel, entry: SeptEntry) -> Option<L2Attributes> {
    if entry.0 & l2::alias(vm) == 0 {
        return None;
    }
    l2::walk(call.vcpu.tdcs, vm, what.gpa(), what.level()).map(|slot| slot.attributes())
}

/// Attributes of a VM, where RDX has them.
const fn in_place(vm: Vm, attributes: u64) -> u64 {
    attributes << (VM_BITS * vm.number() as u32)
}

/// What RDX and R8 say of one VM.
struct Request {
    vm: Vm,
    attributes: u64,
    mask: u64,
}

/// Checks RDX and R8; gives what they say of the VMs that RDX names as valid.
fn requests(call: &Call<'_, '_, '_>, attributes: u64, flags: u64) -> Step<Vec<Request>> {
    let mut requests = Vec::new();
    for number in 0..VMS {
        let of_vm = |word: u64| word >> (VM_BITS * number) & 0xffff;
        let (attributes, mask) = (of_vm(attributes), of_vm(flags));
        let vm = Vm::l2(number as u8).filter(|_| number <= u32::from(call.vcpu.tdcs.num_l2_vms()));
        let Some(vm) = vm else {
            match (attributes, mask) {
                (0, 0) => continue,
                (0, _) => return Err(invalid(Operand::R8).into()),
                _ => return Err(invalid(Operand::RDX).into()),
            }
        };
        if attributes & VALID != 0 {
            requests.push(Request { vm, attributes, mask });
        } else if attributes != 0 {
            return Err(invalid(Operand::RDX).into());
        }
    }
    Ok(requests)
}

pub(super) fn write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (rcx, attributes, flags) = (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx], state.regs[Gpr::R8]);
    (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx]) = (0, 0);
    let requests = requests(call, attributes, flags)?;
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
    if slot.level == level {
        let lock = slot.lock(Side::Guest).map_err(|busy| End::Busy(Operand::RCX, busy))?;
        let found = lock.state();
        // A table, blocked or not: the guest asked for the wrong size.
        if !found.is_leaf() && found != SeptState::Free {
            let details = u32::from(level.index());
            return Err(Status::with_details(StatusCode::PAGE_SIZE_MISMATCH, details).into());
        }
        if accepts(TdgLeaf::MEM_PAGE_ATTR_WR, &slot) {
            let what = GpaLevel::new(gpa, level);
            return set(call, state, &lock, what, &requests, flags).map_err(|end| match end {
                Refusal::Status(status) => status.into(),
                Refusal::NoTables(extended) => {
                    (state.regs[Gpr::Rdx], state.regs[Gpr::R8]) = (attributes, flags);
                    fault(state, rcx, EptViolation::WRITE, extended, gpa)
                }
            });
        }
    }
    let found = slot.state();
    let leaf = if found.is_leaf() { EntryIs::Leaf } else { EntryIs::NotLeaf };
    let extended = ExtendedQualification::attr_wr(level, slot.level, found.into(), leaf, 0);
    (state.regs[Gpr::Rdx], state.regs[Gpr::R8]) = (attributes, flags);
    let rights = (slot.entry().0 & SeptEntry::RWX) << RIGHTS_SHIFT;
    Err(fault(state, rcx, EptViolation::WRITE | rights, extended, gpa))
}

/// Why attributes were not written.
enum Refusal {
    Status(Status),
    /// The tables of an L2 VM are missing, and L1 wants the host to add them.
    NoTables(ExtendedQualification),
}

/// Writes attributes: first everything is checked, then everything is done.
fn set(
    call: &Call<'_, '_, '_>,
    state: &mut GuestState,
    lock: &SeptLock<'_>,
    what: GpaLevel,
    requests: &[Request],
    flags: u64,
) -> Result<(), Refusal> {
    let entry = lock.entry();
    // What RDX says of VMs that have no part in it stays.
    let mut answer = requests.iter().fold(0, |all, request| all | in_place(request.vm, request.attributes));
    let mut changes = Vec::new();
    for request in requests {
        let old = current(call, request.vm, what, entry);
        let mask = request.mask & !VALID;
        let new = old.map_or(0, L2Attributes::bits) & !mask | request.attributes & mask & !VALID;
        let new = match (L2Attributes::ask_for_access(new), old) {
            (true, _) => L2Attributes::new(new),
            // Without access there is no alias, whatever else the attributes say.
            (false, Some(_)) => Some(L2Attributes::default()),
            (false, None) => continue,
        };
        // Impossible attributes are refused once it is clear that no tables are missing (recorded).
        let slot = match new {
            Some(attributes) => Some((attributes, alias_slot(call, request.vm, what)?)),
            None => None,
        };
        changes.push((request.vm, old, slot));
    }
    let mut aliases = entry.0 & SeptEntry::L2_ALIASES;
    let mut slots = Vec::new();
    let mut impossible = false;
    for (vm, old, new) in changes {
        let shown = match &new {
            Some((attributes, _)) => Some(*attributes),
            None => old,
        };
        answer = answer & !in_place(vm, 0xffff) | shown.map_or(0, |shown| in_place(vm, shown.bits() | VALID));
        match new {
            Some((attributes, slot)) => slots.push((vm, attributes, slot)),
            None => impossible = true,
        }
    }
    if impossible {
        state.regs[Gpr::Rdx] = answer;
        return Err(Refusal::Status(Status::new(StatusCode::PAGE_ATTR_INVALID)));
    }
    let how = if lock.state().is_pending() { Use::Blocked } else { Use::Open };
    for (vm, new, slot) in slots {
        l2::set_alias(&slot, entry.hpa().align_down(what.level().bytes()), new, how);
        aliases &= !l2::alias(vm);
        if new.allow_access() {
            aliases |= l2::alias(vm);
        }
    }
    lock.set(SeptEntry(entry.0 & !SeptEntry::L2_ALIASES | aliases));
    for vm in l2::vms(call.vcpu.tdcs).filter(|vm| flags >> (VM_BITS * u32::from(vm.number())) & FLUSH != 0) {
        call.vcpu.flush_vm(vm);
    }
    state.regs[Gpr::Rcx] = page_info(what.gpa(), &lock.slot());
    state.regs[Gpr::Rdx] = answer;
    Ok(())
}

/// The entry of a VM at a place.
fn alias_slot<'m>(call: &Call<'_, '_, 'm>, vm: Vm, what: GpaLevel) -> Result<L2Slot<'m>, Refusal> {
    /// VM_CTLS: the host is told that tables are missing.
    const EXIT_FOR_TABLES: u64 = 1;
    let missing = Refusal::Status(Status::new(StatusCode::L2_SEPT_WALK_FAILED));
    let Some(slot) = l2::walk(call.vcpu.tdcs, vm, what.gpa(), what.level()) else { return Err(missing) };
    if slot.level == what.level() {
        return Ok(slot);
    }
    if call.vcpu.tdcs.load_u64(of_vm(tdcs::VM_CTLS, vm)) & EXIT_FOR_TABLES == 0 {
        return Err(Refusal::Status(slot.walk_failed()));
    }
    Err(Refusal::NoTables(ExtendedQualification::gpa_details(
        what.level(),
        slot.level,
        SeptStateId(slot.state().public()),
        EntryIs::NotLeaf,
        vm.number(),
    )))
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
