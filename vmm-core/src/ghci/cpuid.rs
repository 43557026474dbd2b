//! CPUID leaves that the module leaves to the host: the hypervisor's own, and the processor's frequency.
//!
//! A guest that learns its frequency here need not measure it against a timer that it has not.
//!
//! The signature is KVM's. Linux keeps the x2APIC without interrupt remapping only under a hypervisor that it
//! knows, and a TD has no other APIC mode. No paravirtual feature is offered beside it.

/// Where hypervisors describe themselves.
const SIGNATURE: u32 = 0x4000_0000;
/// The last leaf: features.
const FEATURES: u32 = 0x4000_0001;

/// Processor frequencies: base, highest and bus, in MHz.
const FREQUENCY: u32 = 0x16;
const BUS_MHZ: u32 = 100;

/// EAX, EBX, ECX, EDX of a leaf; zeros where there is nothing to say. `tsc_hz` is the guest's TSC frequency.
pub(crate) const fn values(leaf: u32, tsc_hz: u64) -> [u32; 4] {
    match leaf {
        FREQUENCY => {
            let mhz = (tsc_hz / 1_000_000) as u32;
            [mhz, mhz, BUS_MHZ, 0]
        }
        SIGNATURE => [
            FEATURES,
            u32::from_le_bytes(*b"KVMK"),
            u32::from_le_bytes(*b"VMKV"),
            u32::from_le_bytes(*b"M\0\0\0"),
        ],
        _ => [0; 4],
    }
}
