//! TDG.VM.RD/WR, TDG.VP.RD/WR and TDG.SYS.RD/RDALL: the field engine is [`crate::metadata`].

use tdx_module_iface::Operand;
use tdx_module_iface::metadata::FieldId;

use super::memory::{Use, check_operand, locate};
use super::{Call, Step};
use crate::guest::GuestState;
use crate::metadata::guest_leaves;

pub(super) fn vm_read(call: &Call<'_, '_, '_>, state: &mut GuestState, version: u8) -> Step {
    let vcpu = call.vcpu;
    Ok(guest_leaves::vm_read(vcpu.machine, vcpu.tdr, vcpu.tdcs, &mut state.gprs, version)?)
}

pub(super) fn vm_write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    Ok(guest_leaves::vm_write(vcpu.machine, vcpu.tdr, vcpu.tdcs, &mut state.gprs)?)
}

pub(super) fn vp_read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    Ok(guest_leaves::vp_read(vcpu.machine, vcpu.tdr, vcpu.tdvps, vcpu.tdcs, &mut state.gprs)?)
}

pub(super) fn vp_write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    Ok(guest_leaves::vp_write(vcpu.machine, vcpu.tdr, vcpu.tdvps, vcpu.tdcs, &mut state.gprs)?)
}

pub(super) fn sys_read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    Ok(guest_leaves::sys_read(call.vcpu.machine, &mut state.gprs)?)
}

pub(super) fn sys_read_all(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let start = FieldId(state.gprs.r8);
    let gpa = check_operand(call, state.gprs.rdx, 4096, Operand::RDX)?;
    let place = locate(call, state, gpa, Use::ReadWrite)?;
    state.gprs.r8 = FieldId::NULL.0;
    let list = guest_leaves::sys_list(call.vcpu.machine, start)?;
    call.write(place, &list.bytes)?;
    state.gprs.r8 = list.next.0;
    Ok(())
}
