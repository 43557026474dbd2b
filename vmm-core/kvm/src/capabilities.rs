//! What KVM and the module let a TD have.

use crate::error::{Asked, BuildError, Errno, Error};
use crate::kernel::{Capability, KernelVm};
use crate::uapi::{CpuidEntry, MAX_CPUID_ENTRIES};

/// Entries that the first question has room for; KVM does not say how many there are.
const FIRST_ROOM: usize = 16;

/// What TDs may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// ATTRIBUTES.
    pub attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// Functions beyond the base that GetTdVmCallInfo may offer: R11 of leaf 1.
    pub call_info: u64,
    /// By set bits: what of CPUID may be configured.
    pub cpuid: Vec<CpuidEntry>,
}

/// A capability without which there is no TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needed {
    /// Which.
    pub capability: Capability,
    /// The capability's name.
    pub name: &'static str,
}

impl Needed {
    /// Every capability that is needed.
    pub const ALL: [Self; 7] = [
        Self { capability: Capability::SplitIrqchip, name: "KVM_CAP_SPLIT_IRQCHIP" },
        Self { capability: Capability::ExitHypercall, name: "KVM_CAP_EXIT_HYPERCALL" },
        Self { capability: Capability::UserMemory2, name: "KVM_CAP_USER_MEMORY2" },
        Self { capability: Capability::MemoryFaultInfo, name: "KVM_CAP_MEMORY_FAULT_INFO" },
        Self { capability: Capability::MemoryAttributes, name: "KVM_CAP_MEMORY_ATTRIBUTES" },
        Self { capability: Capability::GuestMemfd, name: "KVM_CAP_GUEST_MEMFD" },
        Self { capability: Capability::ApicBusCycles, name: "KVM_CAP_X86_APIC_BUS_CYCLES_NS" },
    ];
}

/// Checks that nothing is missing.
pub(crate) fn check<V: KernelVm>(vm: &V) -> Result<(), BuildError> {
    match Needed::ALL.iter().find(|needed| vm.extension(needed.capability) == 0) {
        Some(missing) => Err(BuildError::Missing(missing.name)),
        None => Ok(()),
    }
}

impl Capabilities {
    /// Asks for them, with more room each time that there was too little.
    pub(crate) fn of<V: KernelVm>(vm: &V) -> Result<Self, Error> {
        let mut room = FIRST_ROOM;
        loop {
            match vm.tdx_capabilities(room) {
                Ok((header, cpuid)) => {
                    /// GetQuote, which KVM hands on in every release that has TDs.
                    const GET_QUOTE: u64 = 1;
                    return Ok(Self {
                        attributes: header.supported_attributes,
                        xfam: header.supported_xfam,
                        call_info: GET_QUOTE | header.kernel_call_info_r11 | header.user_call_info_r11,
                        cpuid,
                    });
                }
                Err(Errno(libc::E2BIG)) if room < MAX_CPUID_ENTRIES => room *= 2,
                Err(errno) => return Err(Error::new(Asked::Capabilities, errno)),
            }
        }
    }
}
