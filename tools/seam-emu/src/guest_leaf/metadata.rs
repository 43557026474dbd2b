//! TDG.VM.RD/WR, TDG.VP.RD/WR and TDG.SYS.RD/RDALL: the field engine is [`crate::metadata`].

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand};

use super::memory::{Use, check_operand, locate};
use super::{Call, Step};
use crate::guest::{GuestRegisters, GuestState};
use crate::metadata::guest_leaves;
use x86_arch::Gpr;

pub(super) fn vm_read(call: &Call<'_, '_, '_>, state: &mut GuestState, version: u8) -> Step {
    let vcpu = call.vcpu;
    with_gprs(state, |gprs| guest_leaves::vm_read(vcpu.machine, vcpu.tdr, vcpu.tdcs, gprs, version))
}

pub(super) fn vm_write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    with_gprs(state, |gprs| guest_leaves::vm_write(vcpu.machine, vcpu.tdr, vcpu.tdcs, gprs))
}

pub(super) fn vp_read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    with_gprs(state, |gprs| guest_leaves::vp_read(vcpu.machine, vcpu.tdr, vcpu.tdvps, vcpu.tdcs, gprs))
}

pub(super) fn vp_write(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    with_gprs(state, |gprs| guest_leaves::vp_write(vcpu.machine, vcpu.tdr, vcpu.tdvps, vcpu.tdcs, gprs))
}

pub(super) fn sys_read(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    with_gprs(state, |gprs| guest_leaves::sys_read(call.vcpu.machine, gprs))
}

pub(super) fn sys_read_all(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    // R8 is lost whatever comes, as in TDH.SYS.RDALL: a guest that was refused, or whose list was not mapped, names the
    // field again.
    let start = FieldId(core::mem::replace(&mut state.regs[Gpr::R8], FieldId::NULL.0));
    let gpa = check_operand(call, state.regs[Gpr::Rdx], 4096, Operand::RDX)?;
    let place = locate(call, state, gpa, Use::ReadWrite)?;
    let list = guest_leaves::sys_list(call.vcpu.machine, start)?;
    call.write(place, &list.bytes)?;
    state.regs[Gpr::R8] = list.next.0;
    Ok(())
}

/// Runs a leaf on the registers that carry operands. It may change some of them even where it fails.
fn with_gprs(state: &mut GuestState, leaf: impl FnOnce(&mut Gprs) -> crate::host::Step) -> Step {
    let mut gprs = state.gprs();
    let result = leaf(&mut gprs);
    state.set_gprs(gprs);
    Ok(result?)
}
