//! CPUID leaves that the module leaves to the host: the hypervisor's own, the processor's frequency, and the topology
//! until the guest turns on that the module shows it.
//!
//! A guest that learns its frequency here need not measure it against a timer that it has not.
//!
//! The signature is KVM's. Linux keeps the x2APIC without interrupt remapping only under a hypervisor that it
//! knows, and a TD has no other APIC mode. No paravirtual feature is offered beside it.

use tdvisor_vm::topology::{self, Topology};
use x86_arch::cpuid::leaf;

const BUS_MHZ: u32 = 100;

/// What the answers depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// The guest's TSC frequency.
    pub(crate) tsc_hz: u64,
    /// The TD's topology.
    pub(crate) topology: Topology,
    /// The asking vCPU's x2APIC id.
    pub(crate) x2apic_id: u32,
}

impl Host {
    /// EAX, EBX, ECX, EDX of a leaf; zeros where there is nothing to say.
    pub(crate) const fn values(self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            topology::LEAF | topology::OLD_LEAF => self.topology.cpuid(subleaf, self.x2apic_id),
            leaf::FREQUENCY => {
                // The leaf has sixteen bits for it.
                let mhz = ((self.tsc_hz / 1_000_000) & 0xffff) as u32;
                [mhz, mhz, BUS_MHZ, 0]
            }
            leaf::HYPERVISOR => [
                // The last one.
                leaf::HYPERVISOR_FEATURES,
                u32::from_le_bytes(*b"KVMK"),
                u32::from_le_bytes(*b"VMKV"),
                u32::from_le_bytes(*b"M\0\0\0"),
            ],
            _ => [0; 4],
        }
    }
}
