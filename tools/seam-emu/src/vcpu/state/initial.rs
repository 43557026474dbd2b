//! The state in which a vCPU starts.

use tdx_module_iface::Gprs;
use tdx_module_iface::metadata::vmcs as own;
use x86_arch::cpuid::feature;
use x86_arch::{
    Attributes, ControlRegisters, CpuState, Msrs, Segment, TableRegister, cr0, cr4, efer, spec_ctrl,
};

use super::{save, xsave};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::GuestRegisters;
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr, Tdvps};
use crate::vcpu::control::OwnedControls;

const INITIAL_CR0: u64 = cr0::PE | cr0::NE;
const INITIAL_CR4: u64 = cr4::MCE | cr4::VMXE;
const INITIAL_EFER: u64 = efer::SCE | efer::LME | efer::NXE;
const INITIAL_RIP: u64 = 0xffff_fff0;

const BUSY_TSS: Segment = Segment { selector: 0, base: 0, limit: 0xffff, attributes: Attributes::BUSY_TSS };
const NO_LDT: Segment = Segment {
    selector: 0,
    base: 0,
    limit: 0xffff,
    attributes: Attributes(Attributes::LDT.0 | Attributes::UNUSABLE.0),
};

/// Primary and secondary execution controls of a TD (bits that a VMM sees through VP.RD).
const INITIAL_PROCBASED: u64 = 0xb122_0c88;
const INITIAL_PROCBASED2: u64 = 0x133c_b3fa;
/// IA32_SPEC_CTRL is virtual.
const INITIAL_PROCBASED3: u64 = 1 << 7;
const INITIAL_EXIT_CONTROLS: u64 = 0x1f3c_8204;
const INITIAL_ENTRY_CONTROLS: u64 = 0x003e_c004;
/// Machine checks exit.
const INITIAL_EXCEPTIONS: u64 = 1 << 18;
/// VM and IF.
const INITIAL_FMASK: u64 = 0x0002_0200;
/// The XSAVE area is compacted.
const COMPACTED: u64 = 1 << 63;

/// The state in which a vCPU starts, with these registers.
pub(crate) fn initial(gprs: Gprs) -> CpuState {
    let mut state = CpuState {
        ldtr: NO_LDT,
        tr: BUSY_TSS,
        gdtr: TableRegister { base: 0, limit: 0xffff },
        msrs: Msrs { fmask: INITIAL_FMASK, ..Msrs::default() },
        control: ControlRegisters {
            cr0: INITIAL_CR0,
            cr4: INITIAL_CR4,
            efer: INITIAL_EFER,
            ..ControlRegisters::default()
        },
        ..CpuState::default()
    };
    state.set_gprs(gprs);
    state.set_rip(INITIAL_RIP);
    state
}

/// Writes the state in which a vCPU starts: 32-bit flat protected mode at the reset vector, paging off.
pub(crate) fn initialise(
    machine: &Machine,
    tdr: &Tdr<'_>,
    tdcs: &Tdcs<'_>,
    tdvps: &Tdvps<'_>,
    argument: u64,
) {
    let gprs = Gprs {
        rbx: u64::from(tdcs.gpa_bits()),
        rcx: argument,
        rdx: u64::from(machine.config().cpuid_fms),
        rsi: tdvps.load(tdvps::VCPU_INDEX, Width::B4),
        r8: argument,
        ..Gprs::ZERO
    };
    save(tdvps, &initial(gprs));
    tdvps.store_u64(tdvps::XFAM, tdcs.load_u64(tdcs::XFAM));
    tdvps.store_u64(tdvps::VCPU_EPOCH, 0);
    tdvps.store_u64(vmcs::EPTP, tdcs.load_u64(tdcs::EPTP));
    tdvps.store_u64(vmcs::TSC_OFFSET, tdcs.load_u64(tdcs::TSC_OFFSET));
    tdvps.store_u64(vmcs::TSC_MULTIPLIER, tdcs.load_u64(tdcs::TSC_MULTIPLIER));
    tdvps.store_u64(vmcs::TD_HKID, u64::from(tdr.hkid()));
    tdvps.store_u64(xsave::XCOMP_BV, COMPACTED);
    for (field, value) in [
        (own::PROCBASED_CONTROLS, INITIAL_PROCBASED),
        (own::PROCBASED_CONTROLS2, INITIAL_PROCBASED2),
        (own::PROCBASED_CONTROLS3, INITIAL_PROCBASED3),
        (own::VM_EXIT_CONTROLS, INITIAL_EXIT_CONTROLS),
        (own::VM_ENTRY_CONTROLS, INITIAL_ENTRY_CONTROLS),
        (own::EXCEPTION_BITMAP, INITIAL_EXCEPTIONS),
        (own::IA32_PERF_GLOBAL_CTRL, 0xff),
        (own::IA32_SPEC_CTRL_MASK, spec_ctrl_mask(machine, tdcs)),
    ] {
        set_vmcs(tdvps, field.id.code(), value);
    }
    for pdpte in 0..u32::from(own::PDPTE.fields) {
        set_vmcs(tdvps, own::PDPTE.id.code() + 2 * pdpte, u64::MAX);
    }
    crate::metadata::vp::initial_controls(tdvps, tdcs.num_l2_vms());
    OwnedControls::initial(machine.config(), tdcs).store(tdvps);
    crate::l2::fields::initialise(tdcs, tdvps);
}

fn set_vmcs(tdvps: &Tdvps<'_>, encoding: u32, value: u64) {
    if let Some(offset) = vmcs::offset(encoding) {
        tdvps.store_u64(offset, value);
    }
}

/// The bits of IA32_SPEC_CTRL that a TD does not have: DDPD_U where CPUID(7,2) does not offer it.
fn spec_ctrl_mask(machine: &Machine, tdcs: &Tdcs<'_>) -> u64 {
    let table = machine.config().profile.rules().cpuid;
    if crate::cpuid::offers(&table, tdcs, feature::DDPD_U) { 0 } else { spec_ctrl::DDPD_U }
}
