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

const SLOT: u64 = 0xfff;

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
        if id == td::MIG_ENC_KEY.id {
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
    let target = match target(call, handle, states(leaf)) {
        Ok(target) => target,
        Err(status) if status.code() == StatusCode::OPERAND_BUSY => return Err(status.into()),
        Err(status) => {
            state.regs[Gpr::Rax] = status.raw();
            return Err(End::TrapExit(cross_td_trap(status, handle)));
        }
    };
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
    let result = access(&target, &mut gprs);
    state.set_gprs(gprs);
    Ok(result?)
}

/// Finds the target and checks that the calling TD is bound to it.
fn target<'m>(call: &Call<'_, '_, 'm>, tdr: u64, states: OpStates) -> host::Step<Target<'m>> {
    let vcpu = call.vcpu;
    let by = host::Call { machine: vcpu.machine, lp: vcpu.lp };
    let tdr = lock_tdr(&by, tdr, Mode::Shared, Operand::TDR)?;
    let (tdcs, state) = check_and_lock_state(&tdr.tdr, states, Mode::Shared)?;
    let binding = Binding(&tdcs);
    if binding.state() != SlotState::Bound {
        return Err(plain(StatusCode::SERVTD_NOT_BOUND));
    }
    if binding.uuid() != uuid(vcpu.tdr) {
        return Err(plain(StatusCode::SERVTD_UUID_MISMATCH));
    }
    if binding.info_hash() != info_hash(vcpu.tdcs, binding.attributes()) {
        return Err(plain(StatusCode::SERVTD_INFO_HASH_MISMATCH));
    }
    Ok(Target { tdr, tdcs, _state: state })
}

/// The TD exit that tells the host what is wrong with the target.
fn cross_td_trap(status: Status, tdr: u64) -> TdExit {
    let mut exit = AsyncExit::new(StatusCode::CROSS_TD_TRAP, ExitReasonField(0));
    exit.extended = ExtendedQualification(status.raw());
    exit.gpa = Gpa::new(Hpa::new(tdr).get());
    exit.kind = LastTdExit::ASYNC_TRAP;
    TdExit::Async(exit)
}
