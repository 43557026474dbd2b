//! Control registers and XCR0 of a TD: what the module lets a guest set.

use super::control::{CR0_IGNORED, refused_features};
use super::{Handled, Running, complete, exits, ve};
use crate::config::MachineConfig;
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

/// An access to a control register that exits (SDM volume 3, "Exit Qualification for Control-Register Accesses").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CrAccess {
    /// MOV of a value to a register.
    MovTo {
        /// Its number.
        register: u64,
        /// The value.
        value: u64,
    },
    /// LMSW.
    Lmsw {
        /// Its operand.
        source: u64,
    },
    /// MOV from a register, CLTS.
    Other,
}

impl CrAccess {
    /// What an exit says of the access.
    pub(crate) fn of(exit: &VmExit, state: &GuestState) -> Self {
        match exit.qualification >> 4 & 3 {
            MOV_TO => {
                let number = (exit.qualification >> 8 & 0xf) as u8;
                Self::MovTo { register: exit.qualification & 0xf, value: state.gpr(Gpr::from_index(number)) }
            }
            LMSW if exit.qualification & 0xf == 0 => Self::Lmsw { source: exit.qualification >> 16 & 0xffff },
            _ => Self::Other,
        }
    }
}

/// MOV to CR0 and CR4 and LMSW that touch bits which the module owns. No other access exits from a TD.
pub(super) fn control_register(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    match CrAccess::of(exit, state) {
        CrAccess::MovTo { register: 0, value } => write_cr0(vcpu, state, value, exit),
        CrAccess::MovTo { register: 4, value } => write_cr4(vcpu, state, value, exit),
        CrAccess::Lmsw { source } => {
            state.control.cr0 = state.control.cr0 & !LMSW_BITS | source & LMSW_BITS;
            complete(state, exit)
        }
        CrAccess::MovTo { .. } | CrAccess::Other => exits::fatal(vcpu, exit),
    }
}

/// MOV to CR0: what the processor or the module does not allow is #GP(0), or the module's business with the guest's VMM.
pub(crate) fn write_cr0(
    vcpu: &Running<'_, '_>,
    state: &mut GuestState,
    value: u64,
    exit: &VmExit,
) -> Handled {
    let fixed = vcpu.machine.config().fixed_bits(msr::VMX_CR0_FIXED0, msr::VMX_CR0_FIXED1);
    if fixed.is_violated(value, cr0::PE | cr0::PG)
        || value & (cr0::PG | cr0::PE) == cr0::PG
        || (state.control.cr4 & cr4::CET != 0 && value & cr0::WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    // An L2 VM may run unprotected.
    let always = if vcpu.vm().is_l2() { cr0::NE } else { cr0::PE | cr0::NE };
    if value & always != always || value & (cr0::NW | cr0::CD) != 0 {
        return ve::inject(vcpu, exit);
    }
    state.control.cr0 = value & !CR0_IGNORED | state.control.cr0 & CR0_IGNORED;
    if value & cr0::PG != 0 && state.control.efer & efer::LME != 0 {
        state.control.efer |= efer::LMA;
    }
    complete(state, exit)
}

/// MOV to CR4 of a value with bits that are not the guest's.
pub(crate) fn write_cr4(vcpu: &Running<'_, '_>, state: &GuestState, value: u64, exit: &VmExit) -> Handled {
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
    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    let xfam = vcpu.tdcs.load_u64(tdcs::XFAM);
    if state.regs[Gpr::Rcx] as u32 != 0 || !is_xcr0(vcpu.machine.config(), xfam, value) {
        return Handled::GENERAL_PROTECTION;
    }
    state.control.xcr0 = value;
    complete(state, exit)
}

/// Whether XCR0 of a TD with this XFAM can have a value: components that the processor and the TD have, x87 always, and
/// those that go together together (SDM volume 1, section 13.3).
pub(crate) fn is_xcr0(config: &MachineConfig, xfam: u64, value: u64) -> bool {
    use x86_arch::xcr0::{AVX, SSE, X87};

    let native = config.native_cpuid(0xd, 0);
    let supported = u64::from(native.eax) | u64::from(native.edx) << 32;
    value & !(xfam & supported) == 0
        && value & X87 != 0
        && xfam_is_consistent(value | X87 | SSE)
        && value & (SSE | AVX) != AVX
}
