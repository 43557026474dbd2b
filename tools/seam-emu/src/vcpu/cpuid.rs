//! CPUID of a TD: the virtual values that TDH.MNG.INIT computed, or #VE.

use super::{Handled, Running, complete, ve};
use crate::cpuid::{GuestCpuid, VcpuFacts, guest_cpuid};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit};
use x86_arch::Gpr;

pub(super) fn cpuid(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let supervisor = state.cpl() == 0;
    let switch = if supervisor { tdvps::CPUID_SUPERVISOR_VE } else { tdvps::CPUID_USER_VE };
    if vcpu.tdvps.load(switch, Width::B1) != 0 {
        return ve::inject(vcpu, exit);
    }
    let facts = VcpuFacts {
        index: vcpu.tdvps.load(tdvps::VCPU_INDEX, Width::B4) as u32,
        cr4: state.control.cr4,
        xcr0: state.control.xcr0,
        xss: state.msrs.xss,
    };
    let (leaf, subleaf) = (state.regs[Gpr::Rax] as u32, state.regs[Gpr::Rcx] as u32);
    match guest_cpuid(vcpu.tdcs, &facts, leaf, subleaf) {
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
