//! Control registers and XCR0 of a TD: what the module lets a guest set.

use super::control::{CR0_IGNORED, refused_features};
use super::{Handled, Running, complete, exits, ve};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestState, VmExit};
use crate::processor::msr;
use tdx_module_iface::td_params::xfam_is_consistent;
use x86_arch::{Gpr, cr0, cr4, efer};

/// Access types of the exit qualification, bits 5:4.
const MOV_TO: u64 = 0;
const LMSW: u64 = 3;
/// CR0 bits that LMSW writes: it can set PE, which is set, and MP, EM and TS.
const LMSW_BITS: u64 = 0xe;

/// MOV to CR0 and CR4 and LMSW that touch bits which the module owns. No other access exits from a TD.
pub(super) fn control_register(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let register = exit.qualification & 0xf;
    match (register, exit.qualification >> 4 & 3) {
        (0, MOV_TO) => write_cr0(vcpu, state, source(state, exit), exit),
        (4, MOV_TO) => write_cr4(vcpu, state, source(state, exit), exit),
        (0, LMSW) => {
            state.control.cr0 = state.control.cr0 & !LMSW_BITS | exit.qualification >> 16 & LMSW_BITS;
            complete(state, exit)
        }
        _ => exits::fatal(vcpu, exit),
    }
}

/// The value of the register that a MOV names.
fn source(state: &GuestState, exit: &VmExit) -> u64 {
    let number = (exit.qualification >> 8 & 0xf) as u8;
    state.gpr(Gpr::from_index(number))
}

fn write_cr0(vcpu: &Running<'_, '_>, state: &mut GuestState, value: u64, exit: &VmExit) -> Handled {
    let fixed = vcpu.machine.config().fixed_bits(msr::VMX_CR0_FIXED0, msr::VMX_CR0_FIXED1);
    if fixed.is_violated(value, cr0::PE | cr0::PG)
        || value & (cr0::PG | cr0::PE) == cr0::PG
        || (state.control.cr4 & cr4::CET != 0 && value & cr0::WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    let always = cr0::PE | cr0::NE;
    if value & always != always || value & (cr0::NW | cr0::CD) != 0 {
        return ve::inject(vcpu, exit);
    }
    state.control.cr0 = value & !CR0_IGNORED | state.control.cr0 & CR0_IGNORED;
    if value & cr0::PG != 0 && state.control.efer & efer::LME != 0 {
        state.control.efer |= efer::LMA;
    }
    complete(state, exit)
}

fn write_cr4(vcpu: &Running<'_, '_>, state: &GuestState, value: u64, exit: &VmExit) -> Handled {
    let fixed = vcpu.machine.config().fixed_bits(msr::VMX_CR4_FIXED0, msr::VMX_CR4_FIXED1);
    if fixed.is_violated(value, cr4::VMXE)
        || value & refused_features(vcpu.tdcs) != 0
        || (value & cr4::CET != 0 && state.control.cr0 & cr0::WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    ve::inject(vcpu, exit)
}

/// XSETBV: XCR0 within the TD's XFAM.
pub(super) fn xsetbv(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    use x86_arch::xcr0::{AVX, SSE, X87};

    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    let native = vcpu.machine.config().native_cpuid(0xd, 0);
    let supported = u64::from(native.eax) | u64::from(native.edx) << 32;
    let allowed = vcpu.tdcs.load_u64(tdcs::XFAM) & supported;
    if state.regs[Gpr::Rcx] as u32 != 0
        || value & !allowed != 0
        || value & X87 == 0
        || !xfam_is_consistent(value | X87 | SSE)
        || value & (SSE | AVX) == AVX
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.control.xcr0 = value;
    complete(state, exit)
}
