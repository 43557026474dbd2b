//! The virtual CPUID values that TDH.MNG.INIT computes.

use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidRegs, CpuidTable, Presence};
use tdx_module_iface::td_params::{TdParams, attributes};

use super::topology::{LEVELS, Topology};
use super::{CpuidValues, xfam};
use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};

const XFAM_PT: u64 = 1 << 8;
const XFAM_LBR: u64 = 1 << 15;
const XFAM_AMX: u64 = 3 << 17;

/// CPUID(1).EAX: family, model and stepping. Zero in a configuration is the processor's own.
const FAMILY_MODEL_STEPPING: u32 = 0x0fff_3fff;
/// CPUID(1).ECX: MONITOR.
const MONITOR: u32 = 1 << 3;
/// CPUID(7,0).ECX: 57-bit linear addresses, key locker, protection keys for supervisor pages.
const LA57: u32 = 1 << 16;
const KEY_LOCKER: u32 = 1 << 23;
const PKS: u32 = 1 << 31;
/// CPUID(7,1).EAX: LASS, and the leaf of the architectural performance monitors.
const LASS: u32 = 1 << 6;
const ARCH_PERFMON_EXT: u32 = 1 << 8;
/// CPUID(DH,1).EAX: extended feature disable.
const XFD: u32 = 1 << 4;
/// Crystal clock in Hz, as leaf 15H gives it.
const CRYSTAL_HZ: u32 = 25_000_000;
/// Linear-address bits without and with LA57.
const LINEAR_BITS: [u32; 2] = [48, 57];

/// What the values of a TD are computed from.
struct Source<'a> {
    params: &'a TdParams,
    config: &'a MachineConfig,
    table: CpuidTable,
}

impl Source<'_> {
    fn native(&self, leaf: &CpuidLeaf) -> CpuidRegs {
        self.config.native_cpuid(leaf.leaf, leaf.subleaf.unwrap_or(0)).into()
    }

    fn given(&self, leaf: &CpuidLeaf) -> CpuidRegs {
        let given = leaf.config.and_then(|place| self.params.cpuid_config.get(usize::from(place)));
        given.map_or([0; 4], |given| [given.eax, given.ebx, given.ecx, given.edx])
    }

    /// Every bit from the column that it stands in.
    fn by_column(&self, leaf: &CpuidLeaf) -> CpuidRegs {
        let native = self.native(leaf);
        if leaf.config.is_none() {
            return native;
        }
        let given = self.given(leaf);
        let own = leaf.native();
        core::array::from_fn(|register| {
            let bits = |of: &CpuidRegs| of.get(register).copied().unwrap_or(0);
            bits(&leaf.fixed_one)
                | bits(&native) & bits(&own)
                | bits(&given) & bits(&leaf.given)
                | bits(&native) & bits(&given) & bits(&leaf.allowed)
        })
    }

    fn has(&self, attribute: u64) -> bool {
        self.params.attributes & attribute != 0
    }

    /// The value of a leaf before any other leaf is looked at.
    fn own_value(&self, leaf: u32, subleaf: u32) -> CpuidRegs {
        let entry = self.table.position(leaf, subleaf).and_then(|position| self.table.at(position));
        entry.map_or([0; 4], |entry| self.by_column(entry))
    }

    /// The topology that the TD gets.
    fn topology(&self) -> Topology {
        let leaves = |value: &dyn Fn(&CpuidLeaf) -> CpuidRegs| {
            Topology(core::array::from_fn(|subleaf| {
                let entry = self.table.position(0x1f, subleaf as u32).and_then(|at| self.table.at(at));
                entry.map_or([0; 4], value)
            }))
        };
        let given = leaves(&|leaf| self.given(leaf));
        if given.is_unset() { leaves(&|leaf| self.native(leaf)) } else { given }
    }

    fn value(&self, leaf: &CpuidLeaf) -> CpuidRegs {
        let mut value = self.by_column(leaf);
        self.compute(leaf, &mut value);
        xfam::withdraw(leaf.leaf, leaf.subleaf, self.params.xfam, &mut value);
        for (register, dynamic) in value.iter_mut().zip(leaf.dynamic) {
            *register &= !dynamic;
        }
        value
    }

    /// The bits that depend on other parameters of the TD.
    fn compute(&self, leaf: &CpuidLeaf, value: &mut CpuidRegs) {
        let xfam = self.params.xfam;
        let perfmon = self.has(attributes::PERFMON);
        let [eax, _, ecx, _] = value;
        let keep = match (leaf.leaf, leaf.subleaf) {
            (1, _) => {
                if *eax & FAMILY_MODEL_STEPPING == 0 {
                    *eax = self.config.cpuid_fms;
                }
                true
            }
            (5, _) => self.own_value(1, 0)[2] & MONITOR != 0,
            (7, Some(0)) => {
                *ecx = *ecx & !(PKS | KEY_LOCKER) | if self.has(attributes::PKS) { PKS } else { 0 };
                true
            }
            (7, Some(1)) => {
                *eax = *eax & !LASS | if self.has(attributes::LASS) { LASS } else { 0 };
                true
            }
            (0xa, _) => perfmon,
            (0xb, Some(subleaf)) => {
                let native_smt = self.config.native_cpuid(0xb, 0).into();
                let made = self.topology().leaf_b(native_smt);
                *value = made.get(subleaf as usize).copied().unwrap_or_default();
                true
            }
            (0xd, Some(0)) => {
                *ecx = self.config.xsave_bytes(xfam);
                true
            }
            (0xd, Some(1)) => {
                if xfam & XFAM_AMX != XFAM_AMX {
                    *eax &= !XFD;
                }
                true
            }
            (0xd, Some(bit)) => xfam >> bit & 1 != 0,
            (0x14, _) => xfam & XFAM_PT != 0,
            (0x15, _) => {
                *value = [1, u32::from(self.params.tsc_frequency), CRYSTAL_HZ, 0];
                true
            }
            (0x19, _) => false,
            (0x1a, _) => !self.has(attributes::MIGRATABLE),
            (0x1c, _) => xfam & XFAM_LBR != 0,
            (0x1d, _) => xfam & XFAM_AMX == XFAM_AMX,
            (0x1f, Some(subleaf)) => {
                if let Some(level) = self.topology().0.get(subleaf as usize) {
                    *value = *level;
                }
                true
            }
            (0x23, _) => perfmon && self.own_value(7, 1)[0] & ARCH_PERFMON_EXT != 0,
            (0x8000_0008, _) => {
                let [narrow, wide] = LINEAR_BITS;
                let bits = if self.own_value(7, 0)[2] & LA57 != 0 { wide } else { narrow };
                *eax = *eax & 0xff | bits << 8;
                true
            }
            _ => true,
        };
        if !keep {
            *value = [0; 4];
        }
    }
}

/// The virtual values of a TD with these parameters, in the order of the release's table; `None` where the guest gets
/// #VE.
pub fn virtual_values<'a>(
    params: &'a TdParams,
    config: &'a MachineConfig,
) -> impl Iterator<Item = (&'static CpuidLeaf, Option<CpuidRegs>)> + use<'a> {
    let table = config.profile.rules().cpuid;
    let source = Source { params, config, table };
    table.iter().map(move |leaf| {
        let value = match leaf.presence {
            Presence::Value => Some(source.value(leaf)),
            Presence::Faulting => None,
        };
        (leaf, value)
    })
}

/// Computes all values and stores them in a TDCS.
pub fn store_virtual_values(params: &TdParams, config: &MachineConfig, td: &dyn FieldStore) {
    for (position, (_, value)) in (0..).zip(virtual_values(params, config)) {
        let [eax, ebx, ecx, edx] = value.unwrap_or_default().map(u64::from);
        td.store_u64(tdcs::CPUID_VALUES + position * 16, eax | ebx << 32);
        td.store_u64(tdcs::CPUID_VALUES + position * 16 + 8, ecx | edx << 32);
        td.store(tdcs::CPUID_VALID + position, Width::B1, u64::from(value.is_some()));
    }
}

/// The stored value of a leaf of a TD; `None` where the guest gets #VE.
pub fn virtual_cpuid(
    table: &CpuidTable,
    td: &dyn FieldStore,
    leaf: u32,
    subleaf: u32,
) -> Option<CpuidValues> {
    let position = u32::try_from(table.position(leaf, subleaf)?).ok()?;
    if td.load(tdcs::CPUID_VALID + position, Width::B1) == 0 {
        return None;
    }
    let low = td.load_u64(tdcs::CPUID_VALUES + position * 16);
    let high = td.load_u64(tdcs::CPUID_VALUES + position * 16 + 8);
    Some(CpuidValues { eax: low as u32, ebx: (low >> 32) as u32, ecx: high as u32, edx: (high >> 32) as u32 })
}

/// Leaf 1FH as TD_PARAMS gives it.
pub(crate) fn given_topology(params: &TdParams, table: &CpuidTable) -> Topology {
    let mut levels = [[0; 4]; LEVELS];
    for (subleaf, level) in (0..).zip(&mut levels) {
        let place = table.position(0x1f, subleaf).and_then(|at| table.at(at)).and_then(|leaf| leaf.config);
        if let Some(given) = place.and_then(|place| params.cpuid_config.get(usize::from(place))) {
            *level = [given.eax, given.ebx, given.ecx, given.edx];
        }
    }
    Topology(levels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModuleProfile;
    use crate::processor::{EmulatedProcessor, Processor};

    fn params() -> TdParams {
        TdParams { xfam: 3, max_vcpus: 1, eptp_controls: 0x1e, tsc_frequency: 80, ..TdParams::ZERO }
    }

    fn machine() -> MachineConfig {
        MachineConfig { profile: ModuleProfile::V1_5_05, ..MachineConfig::small() }
    }

    fn value(leaf: u32, subleaf: u32, params: &TdParams) -> CpuidRegs {
        let config = machine();
        virtual_values(params, &config)
            .find(|(entry, _)| entry.answers(leaf, subleaf))
            .and_then(|(_, value)| value)
            .unwrap()
    }

    #[test]
    fn the_module_signs_leaf_21() {
        let [_, ebx, ecx, edx] = value(0x21, 0, &params());
        let name: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(name, b"IntelTDX    ");
    }

    #[test]
    fn leaf_15_gives_the_frequency_that_the_host_chose() {
        let [eax, ebx, ecx, _] = value(0x15, 0, &params());
        assert_eq!((eax, ebx, ecx), (1, 80, 25_000_000));
    }

    #[test]
    fn an_allowed_bit_needs_both_the_processor_and_the_host() {
        const MOVBE: u32 = 1 << 22;
        let mut with = params();
        with.cpuid_config[0].ecx = 0x3104_4d88;
        let offered = |params: &TdParams| value(1, 0, params)[2] & 0x3104_4d88;
        assert_eq!(offered(&params()), 0);
        assert_eq!(offered(&with), machine().native_cpuid(1, 0).ecx & 0x3104_4d88);
        assert_ne!(value(1, 0, &params())[2] & MOVBE, 0, "not configurable: native");
    }

    #[test]
    fn a_td_does_not_see_what_is_hidden_of_the_processor() {
        const RDRAND: u32 = 1 << 30;
        let hidden = EmulatedProcessor::default().without("rdrand").unwrap();
        let config = MachineConfig { processor: Processor::Emulated(hidden), ..machine() };
        let leaf_1 = |config: &MachineConfig| {
            let leaf = virtual_values(&params(), config).find(|(entry, _)| entry.answers(1, 0));
            leaf.and_then(|(_, value)| value).unwrap()[2] & RDRAND
        };
        assert_eq!([leaf_1(&machine()), leaf_1(&config)], [RDRAND, 0]);
    }

    #[test]
    fn protection_keys_are_offered_only_to_a_td_that_may_use_their_register() {
        const PKU: u32 = 1 << 3;
        let without = value(7, 0, &params())[2];
        let with = value(7, 0, &TdParams { xfam: 1 << 9 | 3, ..params() })[2];
        let native = machine().native_cpuid(7, 0).ecx & PKU;
        assert_eq!((without & PKU, with & PKU), (0, native));
    }

    #[test]
    fn every_leaf_has_a_place_in_the_tdcs() {
        for profile in [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05] {
            assert!(profile.rules().cpuid.len() <= 80);
        }
    }
}
