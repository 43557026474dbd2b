//! Whether a virtual CPUID value that a TD brings along is one that this machine can keep.

use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidRegs};
use tdx_module_iface::td_params::attributes;
use x86_arch::cpuid::{Feature, feature, leaf as number};
use x86_arch::{xcr0, xss};

use super::{virtual_cpuid, xfam};
use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::td_params::check::family_is_valid;

const ZERO: CpuidRegs = [0; 4];

fn any(registers: impl Iterator<Item = u32>) -> bool {
    registers.fold(0, |all, register| all | register) != 0
}

/// Whether the value of a leaf can be a TD's here, whose ATTRIBUTES and XFAM, and the leaves before this one, are in
/// `td` already.
pub(crate) fn can_be_imported(
    config: &MachineConfig,
    td: &dyn FieldStore,
    leaf: &CpuidLeaf,
    value: CpuidRegs,
) -> bool {
    // Recordings of 1.5.01 do not say what the processor's own values are: only what the module decides is compared.
    let is_known = config.processor_is_known();
    let native: CpuidRegs = config.native_cpuid(leaf.leaf, leaf.subleaf.unwrap_or(0)).into();
    let bits = || value.into_iter().zip(native).zip(leaf.fixed_zero).zip(leaf.dynamic);
    let not_zero = any(bits().map(|(((value, _), zero), dynamic)| value & (zero | dynamic)));
    let not_one = any(value.into_iter().zip(leaf.fixed_one).map(|(value, one)| !value & one));
    let beyond =
        any(value.into_iter().zip(native).zip(leaf.allowed).map(|((value, own), may)| value & may & !own));
    if not_zero || not_one || (is_known && beyond) {
        return false;
    }
    let td_xfam = td.load_u64(tdcs::XFAM);
    let td_attributes = td.load_u64(tdcs::ATTRIBUTES);
    let mut withdrawn = value;
    xfam::withdraw(leaf.leaf, leaf.subleaf, td_xfam, &mut withdrawn);
    if withdrawn != value {
        return false;
    }
    let only_with = |present: bool| present || value == ZERO;
    let has = |feature: Feature| feature.is_in(&value);
    let [_, ebx, ecx, _] = value;
    match (leaf.leaf, leaf.subleaf) {
        (number::VERSION, _) => family_is_valid(value, td_attributes, config),
        (number::MONITOR, _) => {
            let table = config.profile.rules().cpuid;
            let monitor =
                virtual_cpuid(&table, td, number::VERSION, 0).is_some_and(|leaf| leaf.has(feature::MONITOR));
            let differs =
                any(bits().map(|(((value, own), zero), dynamic)| (value ^ own) & !(zero | dynamic)));
            if monitor { !(is_known && differs) } else { value == ZERO }
        }
        (number::FEATURES, Some(0)) => {
            has(feature::HLE) == has(feature::RTM)
                && (!is_known || !has(feature::HLE) || has_tsx_control(config))
                && !has(feature::KEY_LOCKER)
                && has(feature::PKS) == (td_attributes & attributes::PKS != 0)
        }
        // A TD that migrates has no performance monitors.
        (number::PERFMON, _) => only_with(td_attributes & attributes::PERFMON != 0),
        (number::EXTENDED_STATE, Some(0)) => !is_known || ecx == config.xsave_bytes(td_xfam),
        (number::EXTENDED_STATE, Some(1)) => !is_known || !has(feature::XFD) || feature::XFD.is_in(&native),
        (number::EXTENDED_STATE, Some(component)) => only_with(td_xfam >> component & 1 != 0),
        (number::TRACE, _) => only_with(td_xfam & xss::PT != 0),
        (number::TSC, _) => u64::from(ebx) == td.load(tdcs::TSC_FREQUENCY, Width::B2),
        (number::KEY_LOCKER, _) => value == ZERO,
        (number::LBR, _) => only_with(td_xfam & xss::LBR != 0),
        (number::TILES, _) => only_with(td_xfam & xcr0::AMX == xcr0::AMX),
        _ => true,
    }
}

/// Whether the processor has IA32_TSX_CTRL.
fn has_tsx_control(config: &MachineConfig) -> bool {
    const TSX_CTRL: u64 = 1 << 7;
    config.native_msr(crate::processor::msr::ARCH_CAPABILITIES) & TSX_CTRL != 0
}
