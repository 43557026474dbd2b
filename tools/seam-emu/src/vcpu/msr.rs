//! RDMSR and WRMSR of a TD that exit.
//!
//! The table ([`crate::msr`]) decides. What it leaves to the processor is carried out here on behalf of an emulated
//! one, which does not look at the MSR bitmaps; an MSR that the emulated processor does not have raises #GP
//! there, as on the processor itself.

use super::{Handled, Running, apic, complete, ve};
use crate::fields::FieldStore;
use crate::fields::layout::{tdcs, tdvps};
use crate::guest::{GuestState, VmExit};
use crate::msr::{Decision, MsrAccess, Owner, decide};
use crate::processor::msr as native;
use crate::rules::Check;
use crate::td_params::vmx;
use x86_arch::{Gpr, Seg};

/// MSRs that the emulated processor has, or that have a rule of their own (architectural names).
mod index {
    pub const TSC: u32 = 0x10;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const FLUSH_CMD: u32 = 0x10b;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const PAT: u32 = 0x277;
    pub const DS_AREA: u32 = 0x600;
    pub const VMX_FIRST: u32 = 0x480;
    pub const VMX_LAST: u32 = 0x493;
    pub const X2APIC_ID: u32 = 0x802;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// IA32_MISC_ENABLE: "performance monitoring available", "PEBS unavailable".
const MISC_ENABLE_PERFMON: u64 = 1 << 7;
const MISC_ENABLE_NO_PEBS: u64 = 1 << 12;
/// IA32_PERF_CAPABILITIES: PEBS output to processor trace.
const PERF_CAPABILITIES_PEBS_PT: u64 = 1 << 16;

fn owner<'a>(vcpu: &'a Running<'_, '_>) -> Owner<'a> {
    Owner { config: vcpu.machine.config(), td: vcpu.tdcs }
}

pub(super) fn rdmsr(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let msr = state.regs[Gpr::Rcx] as u32;
    let value = match decide(&owner(vcpu), msr, MsrAccess::Read) {
        Decision::Exception => None,
        Decision::Fault => return Handled::GENERAL_PROTECTION,
        Decision::Special => emulated_read(vcpu, state, msr),
        Decision::Native => match processor_read(vcpu, state, msr) {
            Some(value) => Some(value),
            None if vcpu.vm().is_l2() && is_x2apic(msr) => None,
            None => return Handled::GENERAL_PROTECTION,
        },
    };
    let Some(value) = value else { return ve::inject(vcpu, exit) };
    state.regs[Gpr::Rax] = value & 0xffff_ffff;
    state.regs[Gpr::Rdx] = value >> 32;
    complete(state, exit)
}

/// What the module answers; `None` for #VE.
fn emulated_read(vcpu: &Running<'_, '_>, state: &GuestState, msr: u32) -> Option<u64> {
    let config = vcpu.machine.config();
    Some(match msr {
        native::XAPIC_DISABLE_STATUS => 1,
        native::ARCH_CAPABILITIES => vcpu.tdcs.load_u64(tdcs::VIRTUAL_ARCH_CAPABILITIES),
        native::MISC_ENABLE => config.native_msr(msr) & !MISC_ENABLE_PERFMON | MISC_ENABLE_NO_PEBS,
        native::PERF_CAPABILITIES if owner(vcpu).has_perfmon() => {
            config.native_msr(msr) & !PERF_CAPABILITIES_PEBS_PT
        }
        native::PERF_CAPABILITIES => 0,
        index::DEBUGCTL => state.msrs.debugctl & !DEBUGCTL_KEPT,
        // What an L2 VM reads there L1 decides.
        index::VMX_FIRST..=index::VMX_LAST | index::X2APIC_ID if vcpu.vm().is_l2() => return None,
        index::VMX_FIRST..=index::VMX_LAST => virtual_vmx(vcpu, msr),
        index::X2APIC_ID => return vcpu.visible_x2apic_id().map(u64::from),
        _ => return None,
    })
}

/// The virtual capability MSRs of VMX are fields of the TDCS.
fn virtual_vmx(vcpu: &Running<'_, '_>, msr: u32) -> u64 {
    vmx::place(msr).map_or(0, |offset| vcpu.tdcs.load_u64(offset))
}

/// What the emulated processor answers; `None` where it does not have the MSR.
fn processor_read(vcpu: &Running<'_, '_>, state: &GuestState, msr: u32) -> Option<u64> {
    Some(match msr {
        index::TSC => vcpu.guest_tsc(),
        index::SPEC_CTRL => state.msrs.spec_ctrl,
        index::SYSENTER_CS => state.msrs.sysenter_cs,
        index::SYSENTER_ESP => state.msrs.sysenter_esp,
        index::SYSENTER_EIP => state.msrs.sysenter_eip,
        index::PAT => state.msrs.pat,
        index::XSS => state.msrs.xss,
        index::EFER => state.control.efer,
        index::STAR => state.msrs.star,
        index::LSTAR => state.msrs.lstar,
        index::FMASK => state.msrs.fmask,
        index::FS_BASE => state.segment(Seg::Fs).base,
        index::GS_BASE => state.segment(Seg::Gs).base,
        index::KERNEL_GS_BASE => state.msrs.kernel_gs_base,
        index::TSC_AUX => state.msrs.tsc_aux,
        native::MISC_ENABLE | native::PERF_CAPABILITIES => vcpu.machine.config().native_msr(msr),
        index::DS_AREA => vcpu.tdvps.load_u64(tdvps::DS_AREA),
        // The virtual APIC of an L2 VM is the processor's affair (`l2::apic`); what that leaves is L1's.
        _ if is_x2apic(msr) && vcpu.vm().is_l2() => return None,
        _ if is_x2apic(msr) => return apic::read(vcpu, state, msr),
        _ => return None,
    })
}

pub(super) fn wrmsr(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let msr = state.regs[Gpr::Rcx] as u32;
    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    let outcome = match decide(&owner(vcpu), msr, MsrAccess::Write) {
        Decision::Exception => Outcome::Exception,
        Decision::Fault => Outcome::Fault,
        Decision::Special => emulated_write(vcpu, state, msr, value),
        Decision::Native => processor_write(vcpu, state, msr, value),
    };
    match outcome {
        Outcome::Done => complete(state, exit),
        Outcome::Fault => Handled::GENERAL_PROTECTION,
        Outcome::Exception => ve::inject(vcpu, exit),
    }
}

/// How a write ends.
enum Outcome {
    Done,
    Fault,
    Exception,
}

impl Outcome {
    const fn done_if(valid: bool) -> Self {
        if valid { Self::Done } else { Self::Fault }
    }
}

fn emulated_write(vcpu: &Running<'_, '_>, state: &mut GuestState, msr: u32, value: u64) -> Outcome {
    match msr {
        index::DEBUGCTL => write_debugctl(vcpu, state, value),
        index::XSS => {
            let supported = u64::from(vcpu.machine.config().native_cpuid(0xd, 1).ecx);
            let allowed = supported & vcpu.tdcs.load_u64(tdcs::XFAM);
            if value & !allowed == 0 {
                state.msrs.xss = value;
            }
            Outcome::done_if(value & !allowed == 0)
        }
        index::EFER => {
            // LMA is the processor's; of the others only SYSCALL may be turned on and off, in an L2 VM also long mode.
            const SCE: u64 = 1;
            const LME: u64 = 1 << 8;
            const LMA: u64 = 1 << 10;
            let own = if vcpu.vm().is_l2() { SCE | LME } else { SCE };
            if (value ^ state.control.efer) & !(own | LMA) != 0 {
                return Outcome::Exception;
            }
            state.control.efer = state.control.efer & !own | value & own;
            Outcome::Done
        }
        _ => Outcome::Exception,
    }
}

/// IA32_DEBUGCTL bit 13, which belongs to the host: it keeps its value and reads as zero.
const DEBUGCTL_KEPT: u64 = 1 << 13;

fn write_debugctl(vcpu: &Running<'_, '_>, state: &mut GuestState, value: u64) -> Outcome {
    /// LBR, BTF, bus-lock detection; TR to FREEZE_PERFMON_ON_PMI; freezing in SMM; RTM.
    const DEFINED: u64 = 0xffc7;
    const TR: u64 = 1 << 6;
    const BTS: u64 = 1 << 7;
    const FREEZE_WHILE_SMM: u64 = 1 << 14;
    const RTM: u64 = 1 << 15;
    let mut reserved = !DEFINED;
    if vcpu.rules().debugctl_features == Check::Made {
        let owner = owner(vcpu);
        reserved |= if owner.has_perfmon() { 0 } else { FREEZE_WHILE_SMM };
        reserved |= if owner.has_tsx() { 0 } else { RTM };
    }
    if value & reserved != 0 {
        return Outcome::Fault;
    }
    if value & (TR | BTS) == TR {
        return Outcome::Exception;
    }
    state.msrs.debugctl = value & !DEBUGCTL_KEPT | state.msrs.debugctl & DEBUGCTL_KEPT;
    Outcome::Done
}

fn processor_write(vcpu: &Running<'_, '_>, state: &mut GuestState, msr: u32, value: u64) -> Outcome {
    let canonical = is_canonical(value);
    match msr {
        index::SPEC_CTRL if value & !vcpu.machine.config().spec_ctrl_bits() == 0 => {
            state.msrs.spec_ctrl = value;
        }
        index::PRED_CMD | index::FLUSH_CMD => {}
        index::SYSENTER_CS => state.msrs.sysenter_cs = value,
        index::SYSENTER_ESP if canonical => state.msrs.sysenter_esp = value,
        index::SYSENTER_EIP if canonical => state.msrs.sysenter_eip = value,
        index::PAT if is_pat(value) => state.msrs.pat = value,
        index::STAR => state.msrs.star = value,
        index::LSTAR if canonical => state.msrs.lstar = value,
        index::FMASK => state.msrs.fmask = value,
        index::KERNEL_GS_BASE if canonical => state.msrs.kernel_gs_base = value,
        index::DS_AREA if canonical => vcpu.tdvps.store_u64(tdvps::DS_AREA, value),
        index::TSC_AUX => state.msrs.tsc_aux = value & 0xffff_ffff,
        index::FS_BASE | index::GS_BASE if canonical => {
            let segment = if msr == index::FS_BASE { Seg::Fs } else { Seg::Gs };
            state.segment_mut(segment).base = value;
        }
        _ if is_x2apic(msr) && vcpu.vm().is_l2() => return Outcome::Exception,
        _ if is_x2apic(msr) => return Outcome::done_if(apic::write(vcpu, state, msr, value)),
        _ => return Outcome::Fault,
    }
    Outcome::Done
}

/// Whether an MSR is a register of the x2APIC.
pub(crate) const fn is_x2apic(msr: u32) -> bool {
    matches!(msr, index::X2APIC_FIRST..=index::X2APIC_LAST)
}

const fn is_canonical(address: u64) -> bool {
    let top = address as i64 >> 47;
    top == 0 || top == -1
}

/// Every byte must name a memory type.
fn is_pat(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}
