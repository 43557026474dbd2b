//! CPUID of a TD: the virtual values that TDH.MNG.INIT computed, or #VE.

use super::{Handled, Running, complete, ve};
use crate::cpuid::{CodeMode, GuestCpuid, VcpuFacts, guest_cpuid, known_leaf};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit};
use x86_arch::Gpr;

/// Bits of a CPUID_CONTROL entry: #VE at CPL 0, and at a greater one.
const CONTROL_SUPERVISOR: u64 = 1 << 0;
const CONTROL_USER: u64 = 1 << 1;

pub(super) fn cpuid(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let (leaf, subleaf) = (state.regs[Gpr::Rax] as u32, state.regs[Gpr::Rcx] as u32);
    if guest_wants_exception(vcpu, state, leaf, subleaf) {
        return ve::inject(vcpu, exit);
    }
    let facts = VcpuFacts {
        index: vcpu.tdvps.load(tdvps::VCPU_INDEX, Width::B4) as u32,
        x2apic_id: vcpu.visible_x2apic_id(),
        mode: if state.is_64_bit() { CodeMode::Long } else { CodeMode::Legacy },
        cr4: state.control.cr4,
        xcr0: state.control.xcr0,
        xss: state.msrs.xss,
        tsx_ctrl: 0,
    };
    match guest_cpuid(vcpu.rules(), vcpu.tdcs, &facts, leaf, subleaf) {
        GuestCpuid::VirtualisationException => ve::inject(vcpu, exit),
        GuestCpuid::Values(values) => {
            state.regs[Gpr::Rax] = values.eax.into();
            state.regs[Gpr::Rbx] = values.ebx.into();
            state.regs[Gpr::Rcx] = values.ecx.into();
            state.regs[Gpr::Rdx] = values.edx.into();
            complete(state, exit)
        }
    }
}

/// Whether the guest asked for #VE: for all CPUID at its privilege level, or for this leaf.
fn guest_wants_exception(vcpu: &Running<'_, '_>, state: &GuestState, leaf: u32, subleaf: u32) -> bool {
    let (all, one) = if state.cpl() == 0 {
        (tdvps::CPUID_SUPERVISOR_VE, CONTROL_SUPERVISOR)
    } else {
        (tdvps::CPUID_USER_VE, CONTROL_USER)
    };
    let position =
        vcpu.rules().cpuid.position(known_leaf(leaf), subleaf).and_then(|at| u32::try_from(at).ok());
    vcpu.tdvps.load(all, Width::B1) != 0
        || position.is_some_and(|at| vcpu.tdvps.load(tdvps::CPUID_CONTROL + at, Width::B1) & one != 0)
}
