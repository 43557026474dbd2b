//! TDH.SERVTD.BIND (48): RCX target TDR, RDX service TDR, R8 slot, R9 type, R10 attributes; gives the handle in RCX and
//! the target's UUID in R10 to R13. TDH.SERVTD.PREBIND (49): RDX has the address of the service TD's hash instead.

use tdx_module_iface::op_state::{OpState, OpStates, SERVTD_BIND_OTHER_TD};
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::{Binding, INSTANCE, SlotState, Terms, info_hash, uuid};
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states, read_shared, shared_hpa};
use crate::host::{Call, Step, busy, invalid, plain};
use crate::lock::{Guard, Mode, Side};
use crate::td::Tdcs;

/// Attributes that a binding can have.
pub(crate) const ATTRIBUTES: u64 = 0x7ff_0000_0001;
/// The only type: a migration TD.
pub(super) const MIGRATION_TD: u64 = 0;
/// The states in which a TD gets a service TD that it did not have.
const FIRST: OpStates = OpStates::of(&[OpState::Uninitialized, OpState::Initialized]);

fn lock<'m>(tdcs: &Tdcs<'m>) -> Step<Guard<'m>> {
    let refused = busy(Operand::SERVTD_BINDINGS);
    tdcs.servtd_lock().ok_or(refused)?.acquire(Mode::Exclusive, Side::Host).map_err(|_| refused)
}

/// Checks slot, type and attributes.
fn terms(slot: u64, kind: u64, attributes: u64) -> Step<Terms> {
    if slot != 0 {
        return Err(invalid(Operand::R8));
    }
    if kind != MIGRATION_TD {
        return Err(invalid(Operand::R9));
    }
    if attributes & !ATTRIBUTES != 0 {
        return Err(invalid(Operand::R10));
    }
    Ok(Terms { kind, attributes })
}

pub(crate) fn bind(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let Gprs { rcx, r10, .. } = *regs;
    (regs.rcx, regs.r10, regs.r11, regs.r12, regs.r13) = (0, 0, 0, 0, 0);
    if rcx == regs.rdx {
        return Err(invalid(Operand::RDX));
    }
    let target = lock_tdr(call, rcx, Mode::Shared, Operand::RCX)?;
    let (tdcs, _state) =
        check_and_lock_state(&target.tdr, const { op_states(TdhLeaf::SERVTD_BIND) }, Mode::Shared)?;
    let service = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let (service_tdcs, _service_state) =
        check_and_lock_state(&service.tdr, SERVTD_BIND_OTHER_TD, Mode::Shared)?;
    let terms = terms(regs.r8, regs.r9, r10)?;
    let _lock = lock(&tdcs)?;
    let binding = Binding(&tdcs);
    let hash = info_hash(&service_tdcs, terms.attributes);
    let service_uuid = uuid(&service.tdr);
    let state = binding.state();
    if state == SlotState::NotBound {
        if !FIRST.contains(tdcs.op_state()) {
            return Err(plain(StatusCode::OP_STATE_INCORRECT));
        }
    } else {
        check_agreed(&binding, &terms)?;
        if state == SlotState::Bound && terms.attributes & INSTANCE != 0 {
            if binding.uuid() != service_uuid {
                return Err(plain(StatusCode::SERVTD_UUID_MISMATCH));
            }
        } else if binding.info_hash() != hash {
            return Err(plain(StatusCode::SERVTD_INFO_HASH_MISMATCH));
        }
    }
    binding.set_uuid(service_uuid);
    binding.fill(SlotState::Bound, &terms, &hash);
    regs.rcx = target.tdr.hpa.get().wrapping_add(service_uuid[0]);
    [regs.r10, regs.r11, regs.r12, regs.r13] = uuid(&target.tdr);
    Ok(())
}

/// A binding that is there already has these terms.
fn check_agreed(binding: &Binding<'_, '_>, terms: &Terms) -> Step {
    if binding.kind() != terms.kind {
        return Err(plain(StatusCode::SERVTD_TYPE_MISMATCH));
    }
    if binding.attributes() != terms.attributes {
        return Err(plain(StatusCode::SERVTD_ATTR_MISMATCH));
    }
    Ok(())
}

pub(crate) fn prebind(call: &Call<'_>, regs: &Gprs) -> Step {
    let target = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let (tdcs, _state) =
        check_and_lock_state(&target.tdr, const { op_states(TdhLeaf::SERVTD_PREBIND) }, Mode::Shared)?;
    let hash = shared_hpa(call, regs.rdx, 64, Operand::RDX)?;
    let terms = terms(regs.r8, regs.r9, regs.r10)?;
    let _lock = lock(&tdcs)?;
    let binding = Binding(&tdcs);
    if binding.state() == SlotState::Bound {
        return Err(plain(StatusCode::SERVTD_BOUND));
    }
    let hash: [u8; 48] = read_shared(call, hash);
    binding.fill(SlotState::PreBound, &terms, &hash);
    Ok(())
}
