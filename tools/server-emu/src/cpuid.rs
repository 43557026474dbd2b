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
const CLEAR: [(u32, u32, Output, u32); 3] = [
    // Hypervisor.
    (1, 0, Output::Ecx, 31),
    // PKU: the software CPU has no protection keys.
    (7, 0, Output::Ecx, 3),
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
        (EXTENDED_TOPOLOGY | V2_EXTENDED_TOPOLOGY, _) => values.edx = asker.apic_id,
        _ => {}
    }
    values
}

/// A register with a bit that follows the processor's state.
const fn show(register: u32, bit: u32, on: bool) -> u32 {
    register & !(1 << bit) | (on as u32) << bit
}
