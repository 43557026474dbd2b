//! TDH.VP.RD (26) and TDH.VP.WR (43). Both associate the VCPU with the calling processor.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::leaves::{NextField, read_field, write_field};
use super::vp::VpFields;
use super::{Accessor, LATEST_VERSION};
use crate::host::steps::{LockedVcpu, check_and_lock_state, check_vcpu_pages, lock_vcpu, op_states};
use crate::host::vp::associate;
use crate::host::{Call, Step, invalid, plain};
use crate::lock::{Guard, Mode};
use crate::td::Tdcs;

/// The gates of both leaves. A vCPU that a triple fault has disabled can still be read, not written.
fn enter<'m>(call: &Call<'m>, tdvpr: u64, leaf: TdhLeaf) -> Step<(LockedVcpu<'m>, Tdcs<'m>, Guard<'m>)> {
    let vcpu = lock_vcpu(call, tdvpr, Mode::Shared, Operand::RCX)?;
    let (tdcs, state) = check_and_lock_state(&vcpu.owner.tdr, op_states(leaf), Mode::Shared)?;
    check_vcpu_pages(&vcpu.tdvps, &tdcs)?;
    let is_allowed = match vcpu.tdvps.state() {
        VcpuState::READY => true,
        VcpuState::DISABLED => leaf == TdhLeaf::VP_RD,
        _ => false,
    };
    if !is_allowed {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    associate(call, &vcpu, &tdcs)?;
    Ok((vcpu, tdcs, state))
}

/// RCX TDVPR, RDX field; R8 value and, in version 1, RDX next field.
pub(crate) fn read(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    let mode = NextField::by_version(version);
    let id = FieldId(regs.rdx);
    mode.prepare(regs);
    if version > LATEST_VERSION {
        return Err(invalid(Operand::RAX));
    }
    let (vcpu, tdcs, _state) = enter(call, regs.rcx, TdhLeaf::VP_RD)?;
    let who = Accessor::host_of(tdcs.attributes());
    let fields = VpFields::new(call.machine, &vcpu.owner.tdr, &vcpu.tdvps, &tdcs, who);
    read_field(&fields, who, mode, id, regs)
}

/// RCX TDVPR, RDX field, R8 value, R9 mask; R8 gets the old value.
pub(crate) fn write(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let (id, value, mask) = (FieldId(regs.rdx), regs.r8, regs.r9);
    regs.r8 = 0;
    let (vcpu, tdcs, _state) = enter(call, regs.rcx, TdhLeaf::VP_WR)?;
    let who = Accessor::host_of(tdcs.attributes());
    let fields = VpFields::new(call.machine, &vcpu.owner.tdr, &vcpu.tdvps, &tdcs, who);
    write_field(&fields, who, id, value, mask, regs)
}
