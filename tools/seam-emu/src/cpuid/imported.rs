//! Whether a virtual CPUID value that a TD brings along is one that this machine can keep.

use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidRegs};
use tdx_module_iface::td_params::attributes;

use super::{virtual_cpuid, xfam};
use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::td_params::check::family_is_valid;

const MONITOR: u32 = 1 << 3;
const HLE: u32 = 1 << 4;
const RTM: u32 = 1 << 11;
const KEY_LOCKER: u32 = 1 << 23;
const PKS: u32 = 1 << 31;
const XFD: u32 = 1 << 4;
const XFAM_PT: u64 = 1 << 8;
const XFAM_LBR: u64 = 1 << 15;
const XFAM_AMX: u64 = 3 << 17;

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
    let [eax, ebx, ecx, _] = value;
    match (leaf.leaf, leaf.subleaf) {
        (1, _) => family_is_valid(value, td_attributes, config),
        (5, _) => {
            let table = config.profile.rules().cpuid;
            let monitor = virtual_cpuid(&table, td, 1, 0).is_some_and(|leaf| leaf.ecx & MONITOR != 0);
            let differs =
                any(bits().map(|(((value, own), zero), dynamic)| (value ^ own) & !(zero | dynamic)));
            if monitor { !(is_known && differs) } else { value == ZERO }
        }
        (7, Some(0)) => {
            (ebx & HLE != 0) == (ebx & RTM != 0)
                && ecx & KEY_LOCKER == 0
                && (ecx & PKS != 0) == (td_attributes & attributes::PKS != 0)
        }
        // A TD that migrates has no performance monitors.
        (0xa, _) => only_with(td_attributes & attributes::PERFMON != 0),
        (0xd, Some(0)) => !is_known || ecx == config.xsave_bytes(td_xfam),
        (0xd, Some(1)) => eax & XFD == 0 || td_xfam & XFAM_AMX == XFAM_AMX,
        (0xd, Some(component)) => only_with(td_xfam >> component & 1 != 0),
        (0x14, _) => only_with(td_xfam & XFAM_PT != 0),
        (0x15, _) => u64::from(ebx) == td.load(tdcs::TSC_FREQUENCY, Width::B2),
        (0x19, _) => value == ZERO,
        (0x1c, _) => only_with(td_xfam & XFAM_LBR != 0),
        (0x1d, _) => only_with(td_xfam & XFAM_AMX == XFAM_AMX),
        _ => true,
    }
}
