//! What CPUID gives to a host: the emulated processor's own values, as the TDX module samples them, with what only the
//! host of a server sees.

use seam_emu::MachineConfig;
use seam_emu::cpuid::CpuidValues;
use x86_arch::cr4;

/// Where a processor is, and what of its registers CPUID shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Its x2APIC id.
    pub(crate) apic_id: u32,
    /// Its CR4.
    pub(crate) cr4: u64,
    /// Its XCR0.
    pub(crate) xcr0: u64,
    /// Its IA32_XSS.
    pub(crate) xss: u64,
}

/// A register of CPUID's answer.
#[derive(Clone, Copy)]
enum Output {
    Ebx,
    Ecx,
}

/// A bit that a host sees set although no TD ever does: leaf, subleaf, register, bit.
const SET: [(u32, u32, Output, u32); 3] = [
    // VMX.
    (1, 0, Output::Ecx, 5),
    // TSC_ADJUST.
    (7, 0, Output::Ebx, 1),
    // TME: without it Linux takes the key-id bits for address bits.
    (7, 0, Output::Ecx, 13),
];

/// A bit that says "a hypervisor is there", or is of no use to a host here.
const CLEAR: [(u32, u32, Output, u32); 2] = [
    // Hypervisor.
    (1, 0, Output::Ecx, 31),
    // Bus-lock detection: there is no bus to lock.
    (7, 0, Output::Ecx, 24),
];

/// CPUID of a host.
pub(crate) fn host(config: &MachineConfig, asker: Asker, leaf: u32, subleaf: u32) -> CpuidValues {
    // The module's own leaf, which it answers to TDs only.
    const TDX_GUEST: u32 = 0x21;
    const EXTENDED_TOPOLOGY: u32 = 0xb;
    const V2_EXTENDED_TOPOLOGY: u32 = 0x1f;
    let mut values = match leaf {
        TDX_GUEST => return CpuidValues::default(),
        // What leaf 0x1F says of threads and cores, leaf 0xB says as well.
        EXTENDED_TOPOLOGY => config.native_cpuid(V2_EXTENDED_TOPOLOGY, subleaf),
        _ => config.native_cpuid(leaf, subleaf),
    };
    for (rows, set) in [(&SET[..], true), (&CLEAR[..], false)] {
        for (_, _, output, bit) in rows.iter().filter(|row| (row.0, row.1) == (leaf, subleaf)) {
            let register = match output {
                Output::Ebx => &mut values.ebx,
                Output::Ecx => &mut values.ecx,
            };
            *register = if set { *register | 1 << bit } else { *register & !(1 << bit) };
        }
    }
    match (leaf, subleaf) {
        (1, _) => {
            let processors = config.lp_packages.iter().filter(|package| **package == 0).count() as u32;
            values.ebx = values.ebx & 0xff00 | asker.apic_id << 24 | processors.min(255) << 16;
            values.ecx = show(values.ecx, 27, asker.cr4 & cr4::OSXSAVE != 0);
        }
        (7, 0) => values.ecx = show(values.ecx, 4, asker.cr4 & cr4::PKE != 0),
        (0xd, 0) => values.ebx = seam_emu::cpuid::area_size(asker.xcr0),
        (0xd, 1) => values.ebx = seam_emu::cpuid::compacted_size(asker.xcr0 | asker.xss),
        (EXTENDED_TOPOLOGY | V2_EXTENDED_TOPOLOGY, _) => values.edx = asker.apic_id,
        _ => {}
    }
    values
}

/// A register with a bit that follows the processor's state.
const fn show(register: u32, bit: u32, on: bool) -> u32 {
    register & !(1 << bit) | (on as u32) << bit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(leaf: u32, subleaf: u32, cr4: u64, xcr0: u64) -> CpuidValues {
        host(&MachineConfig::small(), Asker { apic_id: 0, cr4, xcr0, xss: 0 }, leaf, subleaf)
    }

    /// Operating systems compare the two: a state component whose feature CPUID hides is a contradiction.
    #[test]
    fn protection_keys_are_offered_as_a_feature_where_their_state_is() {
        let state = ask(0xd, 0, 0, 3).eax >> 9 & 1;
        let (off, on) = (ask(7, 0, 0, 3).ecx, ask(7, 0, cr4::PKE, 3).ecx);
        assert_eq!(off >> 3 & 1, state, "PKU");
        assert_eq!((off >> 4 & 1, on >> 4 & 1), (0, state), "OSPKE follows CR4");
    }

    #[test]
    fn the_sizes_of_the_extended_states_area_are_those_of_what_is_enabled() {
        let sizes = |xcr0| (ask(0xd, 0, 0, xcr0).ebx, ask(0xd, 1, 0, xcr0).ebx);
        assert_eq!(sizes(0x3), (576, 576));
        assert_eq!(sizes(0x203), (2696, 584));
    }
}
