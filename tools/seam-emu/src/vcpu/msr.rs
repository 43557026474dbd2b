//! RDMSR and WRMSR of a TD.
//!
//! A processor passes the MSRs through that the MSR bitmap leaves to the guest; what exits is emulated here
//! where the module does so, and is #VE otherwise.

use super::{Handled, Running, apic, complete, ve};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestState, VmExit};
use x86_arch::{Gpr, Seg};

/// MSRs that a TD has or that are emulated for it (architectural names).
mod index {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const FLUSH_CMD: u32 = 0x10b;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const PAT: u32 = 0x277;
    pub const XSS: u32 = 0xda0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// The APIC is in x2APIC mode, at its usual address, and cannot leave it.
const APIC_BASE_VALUE: u64 = 0xfee0_0c00;
/// Fast strings, and "PEBS unavailable", "BTS unavailable".
const MISC_ENABLE_VALUE: u64 = 1 | 1 << 11 | 1 << 12;

pub(super) fn rdmsr(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let msr = state.regs[Gpr::Rcx] as u32;
    let value = match msr {
        index::TSC => vcpu.guest_tsc(),
        index::APIC_BASE => APIC_BASE_VALUE,
        index::SPEC_CTRL => state.msrs.spec_ctrl,
        index::ARCH_CAPABILITIES => vcpu.tdcs.load_u64(tdcs::VIRTUAL_ARCH_CAPABILITIES),
        index::SYSENTER_CS => state.msrs.sysenter_cs,
        index::SYSENTER_ESP => state.msrs.sysenter_esp,
        index::SYSENTER_EIP => state.msrs.sysenter_eip,
        index::MISC_ENABLE => MISC_ENABLE_VALUE,
        index::DEBUGCTL => state.msrs.debugctl,
        index::PAT => state.msrs.pat,
        index::XSS => state.msrs.xss,
        index::EFER => state.control.efer,
        index::STAR => state.msrs.star,
        index::LSTAR => state.msrs.lstar,
        index::CSTAR => 0,
        index::FMASK => state.msrs.fmask,
        index::FS_BASE => state.segment(Seg::Fs).base,
        index::GS_BASE => state.segment(Seg::Gs).base,
        index::KERNEL_GS_BASE => state.msrs.kernel_gs_base,
        index::TSC_AUX => state.msrs.tsc_aux,
        index::X2APIC_FIRST..=index::X2APIC_LAST => match apic::read(vcpu, state, msr) {
            Some(value) => value,
            None => return ve::inject(vcpu, exit),
        },
        index::PRED_CMD | index::FLUSH_CMD => return Handled::GENERAL_PROTECTION,
        _ => return ve::inject(vcpu, exit),
    };
    state.regs[Gpr::Rax] = value & 0xffff_ffff;
    state.regs[Gpr::Rdx] = value >> 32;
    complete(state, exit)
}

pub(super) fn wrmsr(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let msr = state.regs[Gpr::Rcx] as u32;
    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    match msr {
        index::SPEC_CTRL => state.msrs.spec_ctrl = value,
        index::PRED_CMD | index::FLUSH_CMD => {}
        index::SYSENTER_CS => state.msrs.sysenter_cs = value,
        index::SYSENTER_ESP if is_canonical(value) => state.msrs.sysenter_esp = value,
        index::SYSENTER_EIP if is_canonical(value) => state.msrs.sysenter_eip = value,
        index::DEBUGCTL => state.msrs.debugctl = value,
        index::PAT if is_pat(value) => state.msrs.pat = value,
        // Bits outside of XFAM are refused, as XSETBV refuses them.
        index::XSS if value & !(vcpu.tdcs.load_u64(tdcs::XFAM) & SUPERVISOR_COMPONENTS) == 0 => {
            state.msrs.xss = value;
        }
        index::STAR => state.msrs.star = value,
        index::LSTAR if is_canonical(value) => state.msrs.lstar = value,
        index::FMASK => state.msrs.fmask = value,
        index::KERNEL_GS_BASE if is_canonical(value) => state.msrs.kernel_gs_base = value,
        index::TSC_AUX => state.msrs.tsc_aux = value & 0xffff_ffff,
        index::FS_BASE | index::GS_BASE if is_canonical(value) => {
            let segment = if msr == index::FS_BASE { Seg::Fs } else { Seg::Gs };
            state.segment_mut(segment).base = value;
        }
        index::X2APIC_FIRST..=index::X2APIC_LAST => {
            if !apic::write(vcpu, state, msr, value) {
                return ve::inject(vcpu, exit);
            }
        }
        index::SYSENTER_ESP
        | index::SYSENTER_EIP
        | index::PAT
        | index::XSS
        | index::LSTAR
        | index::KERNEL_GS_BASE
        | index::FS_BASE
        | index::GS_BASE
        | index::ARCH_CAPABILITIES => return Handled::GENERAL_PROTECTION,
        _ => return ve::inject(vcpu, exit),
    }
    complete(state, exit)
}

/// XSAVE components that IA32_XSS controls: PT, PASID, CET, HDC, UINTR, LBR, HWP.
const SUPERVISOR_COMPONENTS: u64 = 0x1_fd00;

const fn is_canonical(address: u64) -> bool {
    let top = address as i64 >> 47;
    top == 0 || top == -1
}

/// Every byte must name a memory type.
fn is_pat(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}
