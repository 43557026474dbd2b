//! What CPUID gives to a host: the emulated processor's own values, as the TDX module samples them, with what only the
//! host of a server sees.

use seam_emu::MachineConfig;
use seam_emu::cpuid::CpuidValues;
use x86_arch::cpuid::{Feature, feature, leaf};
use x86_arch::cr4;

/// Where a processor is, and what of its registers CPUID shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The asking processor's x2APIC id.
    pub(crate) apic_id: u32,
    /// The asking processor's CR4.
    pub(crate) cr4: u64,
    /// The asking processor's XCR0.
    pub(crate) xcr0: u64,
    /// The asking processor's IA32_XSS.
    pub(crate) xss: u64,
}

/// What a host sees although no TD ever does. Without memory encryption Linux takes the key-id bits for address bits.
const SET: [Feature; 3] = [feature::VMX, feature::TSC_ADJUST, feature::TME];

/// What says "a hypervisor is there", or is of no use to a host here: there is no bus to lock.
const CLEAR: [Feature; 2] = [feature::HYPERVISOR, feature::BUS_LOCK_DETECT];

/// CPUID of a host.
pub(crate) fn host(config: &MachineConfig, asker: Asker, leaf: u32, subleaf: u32) -> CpuidValues {
    let values = match leaf {
        // The module answers it to TDs only.
        leaf::TDX => return CpuidValues::default(),
        // What leaf 0x1F says of threads and cores, leaf 0xB says as well.
        leaf::TOPOLOGY => config.native_cpuid(leaf::TOPOLOGY_V2, subleaf),
        _ => config.native_cpuid(leaf, subleaf),
    };
    let of_leaf = |feature: &&Feature| (feature.leaf, feature.subleaf) == (leaf, subleaf);
    let values = SET.iter().filter(of_leaf).fold(values, |values, feature| values.with(*feature));
    let mut values = CLEAR.iter().filter(of_leaf).fold(values, |values, feature| values.without(*feature));
    match (leaf, subleaf) {
        (leaf::VERSION, _) => {
            let processors = config.lp_packages.iter().filter(|package| **package == 0).count() as u32;
            values.ebx = values.ebx & 0xff00 | asker.apic_id << 24 | processors.min(255) << 16;
            shown(values, feature::OSXSAVE, asker.cr4 & cr4::OSXSAVE != 0)
        }
        (leaf::FEATURES, 0) => shown(values, feature::OSPKE, asker.cr4 & cr4::PKE != 0),
        (leaf::EXTENDED_STATE, 0) => CpuidValues { ebx: seam_emu::cpuid::area_size(asker.xcr0), ..values },
        (leaf::EXTENDED_STATE, 1) => {
            CpuidValues { ebx: seam_emu::cpuid::compacted_size(asker.xcr0 | asker.xss), ..values }
        }
        (leaf::TOPOLOGY | leaf::TOPOLOGY_V2, _) => CpuidValues { edx: asker.apic_id, ..values },
        _ => values,
    }
}

/// Values with a bit that follows the processor's state.
fn shown(values: CpuidValues, feature: Feature, on: bool) -> CpuidValues {
    if on { values.with(feature) } else { values.without(feature) }
}

#[cfg(test)]
mod tests {
    use x86_arch::xcr0;

    use super::*;

    fn ask(leaf: u32, subleaf: u32, cr4: u64, xcr0: u64) -> CpuidValues {
        host(&MachineConfig::small(), Asker { apic_id: 0, cr4, xcr0, xss: 0 }, leaf, subleaf)
    }

    /// Operating systems compare the two: a state component whose feature CPUID hides is a contradiction.
    #[test]
    fn protection_keys_are_offered_as_a_feature_where_their_state_is() {
        let state = u64::from(ask(leaf::EXTENDED_STATE, 0, 0, 3).eax) & xcr0::PKRU != 0;
        let (off, on) = (ask(leaf::FEATURES, 0, 0, 3), ask(leaf::FEATURES, 0, cr4::PKE, 3));
        assert_eq!(off.has(feature::PKU), state);
        assert_eq!((off.has(feature::OSPKE), on.has(feature::OSPKE)), (false, state), "OSPKE follows CR4");
    }

    #[test]
    fn the_sizes_of_the_extended_states_area_are_those_of_what_is_enabled() {
        let sizes = |xcr0| (ask(0xd, 0, 0, xcr0).ebx, ask(0xd, 1, 0, xcr0).ebx);
        assert_eq!(sizes(0x3), (576, 576));
        assert_eq!(sizes(0x203), (2696, 584));
    }
}
