//! The virtual CPUID values that TDH.MNG.INIT computes.

use tdx_module_iface::metadata::cpuid::{CpuidLeaf, CpuidRegs, CpuidTable, Presence};
use tdx_module_iface::td_params::{TdParams, attributes};
use x86_arch::cpuid::{Feature, feature, leaf as number};
use x86_arch::{xcr0, xss};

use super::topology::{LEVELS, Topology};
use super::{CpuidValues, xfam};
use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};

/// CPUID(1).EAX: family, model and stepping. Zero in a configuration is the processor's own.
const FAMILY_MODEL_STEPPING: u32 = 0x0fff_3fff;
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

    /// Whether a leaf, before any other leaf is looked at, has a feature.
    fn offers(&self, feature: Feature) -> bool {
        let position = self.table.position(feature.leaf, feature.subleaf);
        let entry = position.and_then(|position| self.table.at(position));
        entry.is_some_and(|entry| feature.is_in(&self.by_column(entry)))
    }

    /// The topology that the TD gets.
    fn topology(&self) -> Topology {
        let leaves = |value: &dyn Fn(&CpuidLeaf) -> CpuidRegs| {
            Topology(core::array::from_fn(|subleaf| {
                let entry =
                    self.table.position(number::TOPOLOGY_V2, subleaf as u32).and_then(|at| self.table.at(at));
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
            (number::VERSION, _) => {
                if *eax & FAMILY_MODEL_STEPPING == 0 {
                    *eax = self.config.cpuid_fms;
                }
                true
            }
            (number::MONITOR, _) => self.offers(feature::MONITOR),
            (number::FEATURES, Some(0)) => {
                const PKS: u32 = feature::PKS.mask();
                *ecx &= !(PKS | feature::KEY_LOCKER.mask());
                *ecx |= if self.has(attributes::PKS) { PKS } else { 0 };
                true
            }
            (number::FEATURES, Some(1)) => {
                const LASS: u32 = feature::LASS.mask();
                *eax = *eax & !LASS | if self.has(attributes::LASS) { LASS } else { 0 };
                true
            }
            (number::PERFMON, _) => perfmon,
            (number::TOPOLOGY, Some(subleaf)) => {
                let native_smt = self.config.native_cpuid(number::TOPOLOGY, 0).into();
                let made = self.topology().leaf_b(native_smt);
                *value = made.get(subleaf as usize).copied().unwrap_or_default();
                true
            }
            (number::EXTENDED_STATE, Some(0)) => {
                *ecx = self.config.xsave_bytes(xfam);
                true
            }
            (number::EXTENDED_STATE, Some(1)) => {
                if xfam & xcr0::AMX != xcr0::AMX {
                    *eax &= !feature::XFD.mask();
                }
                true
            }
            (number::EXTENDED_STATE, Some(bit)) => xfam >> bit & 1 != 0,
            (number::TRACE, _) => xfam & xss::PT != 0,
            (number::TSC, _) => {
                *value = [1, u32::from(self.params.tsc_frequency), CRYSTAL_HZ, 0];
                true
            }
            (number::KEY_LOCKER, _) => false,
            (0x1a, _) => !self.has(attributes::MIGRATABLE),
            (number::LBR, _) => xfam & xss::LBR != 0,
            (number::TILES, _) => xfam & xcr0::AMX == xcr0::AMX,
            (number::TOPOLOGY_V2, Some(subleaf)) => {
                if let Some(level) = self.topology().0.get(subleaf as usize) {
                    *value = *level;
                }
                true
            }
            (0x23, _) => perfmon && self.offers(feature::ARCH_PERFMON_EXT),
            (number::ADDRESS_WIDTHS, _) => {
                let [narrow, wide] = LINEAR_BITS;
                let bits = if self.offers(feature::LA57) { wide } else { narrow };
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
        let place = table
            .position(number::TOPOLOGY_V2, subleaf)
            .and_then(|at| table.at(at))
            .and_then(|leaf| leaf.config);
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
        // AVX is among the bits, which is offered to a TD that may use its registers.
        let mut with = TdParams { xfam: params().xfam | xcr0::AVX, ..params() };
        with.cpuid_config[0].ecx = 0x3104_4d88;
        let offered = |params: &TdParams| value(1, 0, params)[2] & 0x3104_4d88;
        assert_eq!(offered(&params()), 0);
        assert_eq!(offered(&with), machine().native_cpuid(1, 0).ecx & 0x3104_4d88);
        assert!(feature::MOVBE.is_in(&value(1, 0, &params())), "not configurable: native");
    }

    #[test]
    fn a_td_does_not_see_what_is_hidden_of_the_processor() {
        let hidden = EmulatedProcessor::default().without("rdrand").unwrap();
        let config = MachineConfig { processor: Processor::Emulated(hidden), ..machine() };
        let leaf_1 = |config: &MachineConfig| {
            let leaf = virtual_values(&params(), config).find(|(entry, _)| entry.answers(1, 0));
            feature::RDRAND.is_in(&leaf.and_then(|(_, value)| value).unwrap())
        };
        assert_eq!([leaf_1(&machine()), leaf_1(&config)], [true, false]);
    }

    #[test]
    fn protection_keys_are_offered_only_to_a_td_that_may_use_their_register() {
        let offers = |params: &TdParams| feature::PKU.is_in(&value(number::FEATURES, 0, params));
        let keys = TdParams { xfam: params().xfam | xcr0::PKRU, ..params() };
        let native = machine().native_cpuid(number::FEATURES, 0).has(feature::PKU);
        assert_eq!((offers(&params()), offers(&keys)), (false, native));
    }

    #[test]
    fn avx_and_what_is_built_on_it_are_offered_only_to_a_td_that_may_use_its_registers() {
        const VERSION: [x86_arch::cpuid::Feature; 3] = [feature::AVX, feature::FMA, feature::F16C];
        let mut without = params();
        without.cpuid_config[0].ecx = feature::AVX.mask() | feature::F16C.mask();
        let with = TdParams { xfam: without.xfam | xcr0::AVX, ..without };
        let offers = |params: &TdParams| {
            let version = value(number::VERSION, 0, params);
            (VERSION.map(|f| f.is_in(&version)), feature::AVX2.is_in(&value(number::FEATURES, 0, params)))
        };
        assert_eq!((offers(&without), offers(&with)), (([false; 3], false), ([true; 3], true)));
    }

    #[test]
    fn every_leaf_has_a_place_in_the_tdcs() {
        for profile in [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05] {
            assert!(profile.rules().cpuid.len() <= 80);
        }
    }
}
