//! CPUID of a TD: the virtual values that TDH.MNG.INIT computed, or #VE.

use super::{Handled, Running, complete, ve};
use crate::cpuid::{GuestCpuid, VcpuFacts, guest_cpuid};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit};

pub(super) fn cpuid(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let supervisor = state.segments[2].access >> 5 & 3 == 0;
    let switch = if supervisor { tdvps::CPUID_SUPERVISOR_VE } else { tdvps::CPUID_USER_VE };
    if vcpu.tdvps.load(switch, Width::B1) != 0 {
        return ve::inject(vcpu, exit);
    }
    let facts = VcpuFacts {
        index: vcpu.tdvps.load(tdvps::VCPU_INDEX, Width::B4) as u32,
        cr4: state.cr4,
        xcr0: state.xcr0,
        xss: state.xss,
    };
    let (leaf, subleaf) = (state.gprs.rax as u32, state.gprs.rcx as u32);
    match guest_cpuid(vcpu.tdcs, &facts, leaf, subleaf) {
        GuestCpuid::VirtualisationException => ve::inject(vcpu, exit),
        GuestCpuid::Values(values) => {
            state.gprs.rax = values.eax.into();
            state.gprs.rbx = values.ebx.into();
            state.gprs.rcx = values.ecx.into();
            state.gprs.rdx = values.edx.into();
            complete(state, exit)
        }
    }
}
