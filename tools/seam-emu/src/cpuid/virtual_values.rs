//! The virtual CPUID values that TDH.MNG.INIT computes.

use tdx_module_iface::metadata::cpuid::{CONFIG, CpuidRegs, CpuidRule, RULES};
use tdx_module_iface::td_params::{TdParams, attributes};

use super::{native, xsave};
use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::metadata::cpuid_position;

/// CPUID(1).ECX bits that exist with AVX only: FMA, AVX, F16C.
const AVX_ONLY: u32 = 1 << 12 | 1 << 28 | 1 << 29;
const XFAM_AVX: u64 = 1 << 2;
const XFAM_PT: u64 = 1 << 8;
const XFAM_LBR: u64 = 1 << 15;
const XFAM_AMX: u64 = 3 << 17;

/// The virtual value of the leaf that a rule is about.
pub fn virtual_value(rule: &CpuidRule, params: &TdParams, config: &MachineConfig) -> CpuidRegs {
    let native: CpuidRegs = native::native(config, rule.leaf, rule.subleaf.unwrap_or(0)).into();
    let entry = rule.config.and_then(|index| CONFIG.get(usize::from(index)));
    let given = rule.config.and_then(|index| params.cpuid_config.get(usize::from(index)));
    let given = given.map_or([0; 4], |given| [given.eax, given.ebx, given.ecx, given.edx]);
    let mut value = [0; 4];
    for (register, slot) in value.iter_mut().enumerate() {
        let bits = |of: &CpuidRegs| of.get(register).copied().unwrap_or(0);
        let direct = entry.map_or(0, |entry| bits(&entry.direct));
        let allow = entry.map_or(0, |entry| bits(&entry.allow));
        let computed = bits(&rule.fixed_zero_or_computed);
        let own = bits(&native) & !(direct | allow | computed);
        *slot = bits(&rule.fixed_one)
            | own
            | bits(&given) & direct
            | bits(&native) & bits(&given) & allow & !computed;
    }
    compute(rule, params, config, &mut value);
    value
}

/// The bits that depend on other parameters of the TD.
fn compute(rule: &CpuidRule, params: &TdParams, config: &MachineConfig, value: &mut CpuidRegs) {
    let [eax, ebx, ecx, edx] = value;
    match (rule.leaf, rule.subleaf) {
        (0, _) => {
            // The vendor's name is the processor's own.
            let name = native::native(config, 0, 0);
            (*ebx, *ecx, *edx) = (name.ebx, name.ecx, name.edx);
        }
        (1, _) => {
            if *eax & 0x0fff_3fff == 0 {
                *eax = config.cpuid_fms;
            }
            if params.xfam & XFAM_AVX == 0 {
                *ecx &= !AVX_ONLY;
            }
        }
        (7, Some(0)) => {
            let pks = params.attributes & attributes::PKS != 0;
            *ecx = *ecx & !(1 << 31) | u32::from(pks) << 31;
        }
        (0xa, _) if params.attributes & attributes::PERFMON == 0 => *value = [0; 4],
        (0xd, Some(0)) => {
            *eax = params.xfam as u32 & 0x6_02e7;
            *ecx = xsave::area_size(params.xfam);
            *ebx = *ecx;
        }
        (0xd, Some(1)) => *ecx = params.xfam as u32 & 0x1_d900,
        (0xd, Some(bit)) => {
            *value = if params.xfam >> bit & 1 != 0 {
                let (size, offset, flags) = xsave::enumerate(bit);
                [size, offset, flags, 0]
            } else {
                [0; 4]
            };
        }
        (0x14, _) if params.xfam & XFAM_PT == 0 => *value = [0; 4],
        (0x15, _) => *ebx = u32::from(params.tsc_frequency),
        (0x1c, _) if params.xfam & XFAM_LBR == 0 => *value = [0; 4],
        (0x1d | 0x1e, _) if params.xfam & XFAM_AMX != XFAM_AMX => *value = [0; 4],
        (0x23, _) if params.attributes & attributes::PERFMON == 0 => *value = [0; 4],
        _ => {}
    }
}

/// Computes all values and stores them in a TDCS.
pub fn store_virtual_values(params: &TdParams, config: &MachineConfig, td: &dyn FieldStore) {
    for rule in RULES {
        let Some(position) = cpuid_position(rule.leaf, rule.subleaf.unwrap_or(0)) else { continue };
        let position = position as u32;
        let [eax, ebx, ecx, edx] = virtual_value(rule, params, config).map(u64::from);
        td.store_u64(tdcs::CPUID_VALUES + position * 16, eax | ebx << 32);
        td.store_u64(tdcs::CPUID_VALUES + position * 16 + 8, ecx | edx << 32);
        td.store(tdcs::CPUID_VALID + position, Width::B1, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> TdParams {
        TdParams { xfam: 3, max_vcpus: 1, eptp_controls: 0x1e, tsc_frequency: 80, ..TdParams::ZERO }
    }

    fn value(leaf: u32, subleaf: Option<u32>, params: &TdParams) -> CpuidRegs {
        let rule = RULES.iter().find(|rule| (rule.leaf, rule.subleaf) == (leaf, subleaf)).unwrap();
        virtual_value(rule, params, &MachineConfig::small())
    }

    #[test]
    fn the_module_signs_leaf_21() {
        let [_, ebx, ecx, edx] = value(0x21, Some(0), &params());
        let name: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(name, b"IntelTDX    ");
    }

    #[test]
    fn leaf_15_gives_the_frequency_that_the_host_chose() {
        let [eax, ebx, ecx, _] = value(0x15, None, &params());
        assert_eq!((eax, ebx, ecx), (1, 80, 25_000_000));
    }

    #[test]
    fn an_allowed_bit_needs_both_the_processor_and_the_host() {
        const MOVBE: u32 = 1 << 22;
        let mut with = params();
        with.cpuid_config[0].ecx = 0x3104_4d88;
        let offered = |params: &TdParams| value(1, None, params)[2] & 0x3104_4d88;
        assert_eq!(offered(&params()), 0);
        let native = native::native(&MachineConfig::small(), 1, 0).ecx;
        assert_eq!(offered(&with), native & 0x3104_4d88);
        assert_ne!(value(1, None, &params())[2] & MOVBE, 0, "not configurable: native");
    }

    #[test]
    fn every_rule_has_a_place_in_the_tdcs() {
        for rule in RULES {
            assert!(cpuid_position(rule.leaf, rule.subleaf.unwrap_or(0)).unwrap() < 80);
        }
    }
}
