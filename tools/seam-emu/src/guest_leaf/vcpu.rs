//! TDG.VP.*: VMCALL, INFO, VEINFO.GET, CPUIDVE.SET.

use tdx_module_iface::tdg::{cpuidve, vmcall::Rbp, vmcall::is_valid, vp_info};
use tdx_module_iface::{Operand, Status, StatusCode};

use super::{Call, End, Step};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::GuestState;
use crate::host::invalid;
use crate::vcpu::TdExit;
use tdx_module_iface::td_params::config_flags::NO_RBP_MOD;
use x86_arch::Gpr;

/// TDG.VP.VMCALL (0): RCX says which registers the VMM sees and may change.
pub(super) fn vmcall(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let mask = state.regs[Gpr::Rcx];
    let keeps_rbp = call.vcpu.tdcs.load_u64(tdcs::CONFIG_FLAGS) & NO_RBP_MOD != 0;
    if !is_valid(mask, if keeps_rbp { Rbp::Preserved } else { Rbp::Exposable }) {
        return Err(invalid(Operand::RCX).into());
    }
    Err(End::TrapExit(TdExit::Vmcall { mask }))
}

/// TDG.VP.INFO (1).
pub(super) fn info(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (td, vp) = (call.vcpu.tdcs, call.vcpu.tdvps);
    let regs = &mut state.regs;
    regs[Gpr::Rcx] = u64::from(td.gpa_bits());
    regs[Gpr::Rdx] = td.attributes();
    regs[Gpr::R8] = td.load(tdcs::NUM_VCPUS, Width::B4) | td.load(tdcs::MAX_VCPUS, Width::B4) << 32;
    regs[Gpr::R9] = vp.load(tdvps::VCPU_INDEX, Width::B4);
    regs[Gpr::R10] = vp_info::R10_SYS_RD;
    regs[Gpr::R11] = 0;
    Ok(())
}

/// TDG.VP.VEINFO.GET (3): what the last #VE was about; the next one may come.
pub(super) fn veinfo_get(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let vp = call.vcpu.tdvps;
    let regs = &mut state.regs;
    if vp.load(tdvps::VE_VALID, Width::B4) == 0 {
        for register in [Gpr::Rcx, Gpr::Rdx, Gpr::R8, Gpr::R9, Gpr::R10] {
            regs[register] = 0;
        }
        return Err(Status::new(StatusCode::NO_VALID_VE_INFO).into());
    }
    regs[Gpr::Rcx] = vp.load(tdvps::VE_EXIT_REASON, Width::B4);
    regs[Gpr::Rdx] = vp.load_u64(tdvps::VE_QUALIFICATION);
    regs[Gpr::R8] = vp.load_u64(tdvps::VE_GLA);
    regs[Gpr::R9] = vp.load_u64(tdvps::VE_GPA);
    regs[Gpr::R10] = vp.load(tdvps::VE_INSTRUCTION_LENGTH, Width::B4)
        | vp.load(tdvps::VE_INSTRUCTION_INFO, Width::B4) << 32;
    vp.store(tdvps::VE_VALID, Width::B4, 0);
    Ok(())
}

/// TDG.VP.CPUIDVE.SET (5): RCX bit 0 at CPL 0, bit 1 above it: every CPUID raises #VE.
pub(super) fn cpuidve_set(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = state.regs[Gpr::Rcx];
    if rcx & cpuidve::RESERVED != 0 {
        return Err(invalid(Operand::RCX).into());
    }
    let vp = call.vcpu.tdvps;
    vp.store(tdvps::CPUID_SUPERVISOR_VE, Width::B1, rcx & cpuidve::SUPERVISOR);
    vp.store(tdvps::CPUID_USER_VE, Width::B1, rcx >> 1 & 1);
    Ok(())
}
