//! TDG.SERVTD.RD (18) and TDG.SERVTD.WR (20): RCX binding handle, RDX field, R10 to R13 UUID of the target TD; R8 value,
//! for a write R9 mask. What the host got wrong about the binding ends the service TD's run, behind the instruction.

use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::exit::{ExitReasonField, ExtendedQualification};
use tdx_module_iface::lifecycle::LastTdExit;
use tdx_module_iface::metadata::{FieldId, td};
use tdx_module_iface::op_state::{self, OpStates};
use tdx_module_iface::{Gprs, Operand, Status, StatusCode, TdgLeaf};
use x86_arch::Gpr;

use super::{Binding, SlotState, Uuid, info_hash, uuid};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestRegisters, GuestState};
use crate::guest_leaf::{Call, End, Step};
use crate::host::steps::{LockedTdr, check_and_lock_state, lock_tdr};
use crate::host::{self, invalid, plain};
use crate::lock::{Guard, Mode};
use crate::metadata::Accessor;
use crate::metadata::leaves::{NextField, read_field, write_field};
use crate::metadata::td::TdFields;
use crate::td::Tdcs;
use crate::vcpu::{AsyncExit, TdExit};

/// A handle: the slot in the target's table.
const SLOT: u64 = 0xfff;
/// A handle: the target's TDR. The bits above do not count.
const TDR: u64 = 0x000f_ffff_ffff_f000;

/// The target TD, held for one access.
struct Target<'m> {
    tdr: LockedTdr<'m>,
    tdcs: Tdcs<'m>,
    _state: Guard<'m>,
}

/// The states in which the target TD may be.
const fn states(leaf: TdgLeaf) -> OpStates {
    match op_state::tdg_allowed(leaf) {
        Some(states) => states,
        None => OpStates::ALL,
    }
}

pub(crate) fn read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let id = FieldId(state.regs[Gpr::Rdx]);
    (state.regs[Gpr::Rdx], state.regs[Gpr::R8]) = (FieldId::NULL.0, 0);
    with_target(call, state, TdgLeaf::SERVTD_RD, |target, gprs| {
        let fields = TdFields::new(call.vcpu.machine, &target.tdr.tdr, &target.tdcs);
        if names_start_of_key(id) {
            // Whoever reads the key from its start on gets a new one.
            for word in 0..4 {
                target.tdcs.store_u64(tdcs::MIG_ENC_KEY + 8 * word, call.vcpu.machine.module.random.next());
            }
        }
        read_field(&fields, Accessor::MigrationTd, NextField::Returned, id, gprs)
    })
}

pub(crate) fn write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (id, value) = (FieldId(state.regs[Gpr::Rdx]), core::mem::take(&mut state.regs[Gpr::R8]));
    let mask = state.regs[Gpr::R9];
    with_target(call, state, TdgLeaf::SERVTD_WR, |target, gprs| {
        let fields = TdFields::new(call.vcpu.machine, &target.tdr.tdr, &target.tdcs);
        write_field(&fields, Accessor::MigrationTd, id, value, mask, gprs)
    })
}

/// Runs an access to the TD that RCX and R10 to R13 name.
fn with_target(
    call: &Call<'_, '_, '_>,
    state: &mut GuestState,
    leaf: TdgLeaf,
    access: impl FnOnce(&Target<'_>, &mut Gprs) -> host::Step,
) -> Step {
    let mut gprs = state.gprs();
    // The handle is bound to the instance of the service TD: no other can read it.
    let handle = gprs.rcx.wrapping_sub(uuid(call.vcpu.tdr)[0]);
    if handle & SLOT != 0 {
        return Err(invalid(Operand::RCX).into());
    }
    let tdr = handle & TDR;
    let target = target(call, tdr, states(leaf)).map_err(|status| refuse(state, status, tdr))?;
    let known: Uuid = [gprs.r10, gprs.r11, gprs.r12, gprs.r13];
    let own = uuid(&target.tdr.tdr);
    if known != own {
        let before: Uuid =
            core::array::from_fn(|word| target.tdcs.load_u64(tdcs::PRE_IMPORT_UUID + 8 * word as u32));
        if known != before {
            return Err(plain(StatusCode::TARGET_UUID_MISMATCH).into());
        }
        [gprs.r10, gprs.r11, gprs.r12, gprs.r13] = own;
        state.set_gprs(gprs);
        return Err(plain(StatusCode::TARGET_UUID_UPDATED).into());
    }
    check_binding(call, &target).map_err(|status| refuse(state, status, tdr))?;
    let result = access(&target, &mut gprs);
    state.set_gprs(gprs);
    Ok(result?)
}

/// What is wrong with the target, or with the binding: only the host can mend it, and gets the service TD's next exit,
/// behind the instruction. What is busy the service TD tries again.
fn refuse(state: &mut GuestState, status: Status, tdr: u64) -> End {
    if status.code() == StatusCode::OPERAND_BUSY {
        return status.into();
    }
    state.regs[Gpr::Rax] = status.raw();
    End::TrapExit(cross_td_trap(status, tdr))
}

/// Finds the target, in one of these states.
fn target<'m>(call: &Call<'_, '_, 'm>, tdr: u64, states: OpStates) -> host::Step<Target<'m>> {
    let vcpu = call.vcpu;
    let by = host::Call { machine: vcpu.machine, lp: vcpu.lp };
    let tdr = lock_tdr(&by, tdr, Mode::Shared, Operand::TDR)?;
    let (tdcs, state) = check_and_lock_state(&tdr.tdr, states, Mode::Shared)?;
    Ok(Target { tdr, tdcs, _state: state })
}

/// Whether the calling TD is bound to the target, and still is what it was then.
fn check_binding(call: &Call<'_, '_, '_>, target: &Target<'_>) -> host::Step {
    let vcpu = call.vcpu;
    let binding = Binding(&target.tdcs);
    if binding.state() != SlotState::Bound {
        return Err(plain(StatusCode::SERVTD_NOT_BOUND));
    }
    if binding.uuid() != uuid(vcpu.tdr) {
        return Err(plain(StatusCode::SERVTD_UUID_MISMATCH));
    }
    if binding.info_hash() != info_hash(vcpu.tdcs, binding.attributes()) {
        return Err(plain(StatusCode::SERVTD_INFO_HASH_MISMATCH));
    }
    Ok(())
}

/// Whether an identifier names the first word of the key that the target sends with: its class and code count, and it
/// names a single element.
fn names_start_of_key(id: FieldId) -> bool {
    let key = td::MIG_ENC_KEY.id;
    let is_single = id.reserved_bits() == 0 && id.last_element() == 0 && id.last_field() == 0;
    is_single && id.class() == key.class() && id.code() == key.code()
}

/// The TD exit that tells the host what is wrong with the target.
fn cross_td_trap(status: Status, tdr: u64) -> TdExit {
    let mut exit = AsyncExit::new(StatusCode::CROSS_TD_TRAP, ExitReasonField(0));
    exit.extended = ExtendedQualification(status.raw());
    exit.gpa = Gpa::new(Hpa::new(tdr).get());
    exit.kind = LastTdExit::ASYNC_TRAP;
    TdExit::Async(exit)
}
