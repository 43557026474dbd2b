//! The capability MSRs of VMX as an L1 guest of a partitioned TD reads them.
//!
//! The module offers a fixed selection of controls, narrowed by what the TD has. The recordings show the selection
//! on processors that have every control.

use tdx_module_iface::metadata::{Field, td as fields};
use tdx_module_iface::td_params::attributes;
use x86_arch::cpuid::feature;
use x86_arch::{cr0, cr4, xcr0, xss};

use crate::config::MachineConfig;
use crate::cpuid::offers;
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::processor::msr;

/// The fields of the TDCS, whose codes are the indices of the MSRs.
const FIELDS: [Field; 15] = [
    fields::VIRTUAL_IA32_VMX_BASIC,
    fields::VIRTUAL_IA32_VMX_MISC,
    fields::VIRTUAL_IA32_VMX_CR0_FIXED0,
    fields::VIRTUAL_IA32_VMX_CR0_FIXED1,
    fields::VIRTUAL_IA32_VMX_CR4_FIXED0,
    fields::VIRTUAL_IA32_VMX_CR4_FIXED1,
    fields::VIRTUAL_IA32_VMX_PROCBASED_CTLS2,
    fields::VIRTUAL_IA32_VMX_EPT_VPID_CAP,
    fields::VIRTUAL_IA32_VMX_TRUE_PINBASED_CTLS,
    fields::VIRTUAL_IA32_VMX_TRUE_PROCBASED_CTLS,
    fields::VIRTUAL_IA32_VMX_TRUE_EXIT_CTLS,
    fields::VIRTUAL_IA32_VMX_TRUE_ENTRY_CTLS,
    fields::VIRTUAL_IA32_VMX_VMFUNC,
    fields::VIRTUAL_IA32_VMX_PROCBASED_CTLS3,
    fields::VIRTUAL_IA32_VMX_EXIT_CTLS2,
];

/// Where the TDCS has the virtual value of an MSR.
pub(crate) fn place(index: u32) -> Option<u32> {
    FIELDS.iter().find(|field| field.id.code() == index).and_then(Field::offset)
}

/// A control in an MSR whose low half says what must be one and whose high half what may be.
const fn both(bits: u64) -> u64 {
    bits | bits << 32
}

const fn may(bits: u64) -> u64 {
    bits << 32
}

/// VMCS sizes and memory types: true controls, INS and OUTS information.
const BASIC: u64 = 0x01c0_0000_0000_0000;
/// CR0 bits that an L2 VM may have.
const CR0_DEFINED: u64 = 0x8005_003f;
const CR4_ONES: u64 = cr4::MCE | cr4::VMXE;
const CR4_KEY_LOCKER: u64 = 1 << 19;
const CR4_RESERVED: u64 = 1 << 15;

const PROCBASED2: u64 = 0x1379_bffe_1328_81f2;
const EPT_VPID: u64 = 0x003f_0000_0043_0001;
const PINBASED: u64 = 0x0000_0029_0000_0029;
const PROCBASED: u64 = 0xd9fb_9a8c_9122_0888;
const EXIT: u64 = 0x1f3c_8204_1f3c_8204;
/// 64-bit guests are allowed and not required.
const ENTRY: u64 = 0x003e_c204_003e_c004;
const PROCBASED3: u64 = 0xe;

/// MONITOR exiting and MWAIT exiting.
const MONITOR_MWAIT_EXITING: u64 = 1 << 29 | 1 << 10;
const RDPMC_EXITING: u64 = 1 << 11;
const ENABLE_USER_WAIT: u64 = 1 << 26;
const ENABLE_PCONFIG: u64 = 1 << 27;
const SUPERVISOR_SHADOW_STACK: u64 = 1 << 23;
const EXIT_PERF_GLOBAL: u64 = 1 << 30 | 1 << 12;
const ENTRY_PERF_GLOBAL: u64 = 1 << 13;
const ENTRY_LOAD_PKRS: u64 = 1 << 22;

/// Writes the values of a TD, whose ATTRIBUTES, XFAM and CPUID values are there.
pub(super) fn store(config: &MachineConfig, td: &dyn FieldStore) {
    let table = config.profile.rules().cpuid;
    let td_attributes = td.load_u64(tdcs::ATTRIBUTES);
    let xfam = td.load_u64(tdcs::XFAM);
    let has = |attribute: u64| td_attributes & attribute != 0;
    let offers = |feature| offers(&table, td, feature);
    let when = |holds: bool, bits: u64| if holds { bits } else { 0 };
    let cet = xfam & xss::CET == xss::CET;
    let perfmon = has(attributes::PERFMON) || has(attributes::DEBUG);
    let cr4_refused = cr4::SMXE
        | CR4_RESERVED
        | CR4_KEY_LOCKER
        | when(xfam & xcr0::PKRU == 0, cr4::PKE)
        | when(!cet, cr4::CET)
        | when(!has(attributes::PKS), cr4::PKS)
        | when(xfam & xss::UINTR == 0, cr4::UINTR)
        | when(!has(attributes::LASS), cr4::LASS);
    for field in FIELDS {
        let Some(offset) = field.offset() else { continue };
        let index = field.id.code();
        let value = match index {
            0x480 => BASIC,
            // Activity states and what else does not concern addresses of the host.
            0x485 => config.native_msr(index) & !0x1f | 1 << 30,
            0x486 => cr0::NE,
            0x487 => config.native_msr(msr::VMX_CR0_FIXED1) & CR0_DEFINED,
            0x488 => CR4_ONES,
            0x489 => config.native_msr(msr::VMX_CR4_FIXED1) & !cr4_refused,
            0x48b => {
                PROCBASED2
                    | when(offers(feature::WAITPKG), may(ENABLE_USER_WAIT))
                    | when(offers(feature::PCONFIG), may(ENABLE_PCONFIG))
            }
            0x48c => EPT_VPID | when(cet, SUPERVISOR_SHADOW_STACK),
            0x48d => PINBASED,
            0x48e => {
                let always = PROCBASED | when(!offers(feature::MONITOR), both(MONITOR_MWAIT_EXITING));
                always & !when(has(attributes::PERFMON), RDPMC_EXITING)
            }
            0x48f => EXIT | when(perfmon, both(EXIT_PERF_GLOBAL)),
            0x490 => {
                let pkrs = has(attributes::PKS) || has(attributes::DEBUG);
                ENTRY | when(perfmon, both(ENTRY_PERF_GLOBAL)) | when(pkrs, both(ENTRY_LOAD_PKRS))
            }
            0x492 => PROCBASED3,
            _ => 0,
        };
        td.store_u64(offset, value);
    }
}
