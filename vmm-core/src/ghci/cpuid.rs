//! CPUID leaves that the module leaves to the host: the hypervisor's own.
//!
//! The signature is KVM's. Linux keeps the x2APIC without interrupt remapping only under a hypervisor that it
//! knows, and a TD has no other APIC mode. No paravirtual feature is offered beside it.

/// Where hypervisors describe themselves.
const SIGNATURE: u32 = 0x4000_0000;
/// The last leaf: features.
const FEATURES: u32 = 0x4000_0001;

/// EAX, EBX, ECX, EDX of a leaf; zeros where there is nothing to say.
pub(crate) const fn values(leaf: u32) -> [u32; 4] {
    match leaf {
        SIGNATURE => [
            FEATURES,
            u32::from_le_bytes(*b"KVMK"),
            u32::from_le_bytes(*b"VMKV"),
            u32::from_le_bytes(*b"M\0\0\0"),
        ],
        _ => [0; 4],
    }
}
