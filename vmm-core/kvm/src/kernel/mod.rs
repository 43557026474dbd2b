//! What is asked of the kernel, as a trait: one method per request, none of which repeats itself.

#[cfg(test)]
pub(crate) mod fake;
mod linux;
pub mod odd;

use tdvisor_base::Gpa;

use crate::error::{Errno, Refusal};
use crate::uapi::{CapabilitiesHeader, CpuidEntry, InitVm, MAX_CPUID_ENTRIES, VM_TYPE_TDX};
use odd::{OddVcpuRequest, OddVmRequest};

pub use linux::Linux;

/// Bytes that the kernel, a guest and this program share: an access of 1, 2, 4 or 8 bytes that is aligned is one access.
pub trait Pages: Send + Sync {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads; what lies behind the end reads as zeros.
    fn read(&self, at: u64, out: &mut [u8]);

    /// Writes; what lies behind the end vanishes.
    fn write(&self, at: u64, data: &[u8]);

    /// Gives memory back to the kernel: the range reads as zeros from now on.
    ///
    /// # Errors
    /// The kernel's answer.
    fn discard(&self, at: u64, bytes: u64) -> Result<(), Errno>;
}

/// Private memory of a TD (guest_memfd).
pub trait GuestMemfd: Send + Sync {
    /// Gives memory back to the kernel, and takes it from the TD.
    ///
    /// # Errors
    /// The kernel's answer.
    fn punch_hole(&self, at: u64, bytes: u64) -> Result<(), Errno>;
}

/// KVM.
pub trait Kernel: Send + Sync + Sized + 'static {
    /// A TD.
    type Vm: KernelVm;

    /// KVM_CREATE_VM of a type.
    ///
    /// # Errors
    /// The kernel's answer.
    fn create_vm(&self, vm_type: u32) -> Result<Self::Vm, Errno>;

    /// KVM_CREATE_VM of type TDX.
    ///
    /// # Errors
    /// The kernel's answer.
    fn create_td(&self) -> Result<Self::Vm, Errno> {
        self.create_vm(VM_TYPE_TDX)
    }

    /// KVM_GET_SUPPORTED_CPUID.
    ///
    /// # Errors
    /// The kernel's answer.
    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Errno>;
}

/// Capabilities, by number (`include/uapi/linux/kvm.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Capability {
    /// KVM_CAP_MAX_VCPUS.
    MaxVcpus = 66,
    /// KVM_CAP_SPLIT_IRQCHIP.
    SplitIrqchip = 121,
    /// KVM_CAP_X2APIC_API.
    X2ApicApi = 129,
    /// KVM_CAP_EXIT_HYPERCALL.
    ExitHypercall = 201,
    /// KVM_CAP_USER_MEMORY2.
    UserMemory2 = 231,
    /// KVM_CAP_MEMORY_FAULT_INFO.
    MemoryFaultInfo = 232,
    /// KVM_CAP_MEMORY_ATTRIBUTES.
    MemoryAttributes = 233,
    /// KVM_CAP_GUEST_MEMFD.
    GuestMemfd = 234,
    /// KVM_CAP_PRE_FAULT_MEMORY.
    PreFaultMemory = 236,
    /// KVM_CAP_X86_APIC_BUS_CYCLES_NS.
    ApicBusCycles = 237,
}

/// A message-signalled interrupt as KVM_SIGNAL_MSI takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msi {
    /// Bits 31:8 are bits 31:8 of the destination.
    pub address_high: u32,
    /// The address of the local APICs, with bits 7:0 of the destination.
    pub address_low: u32,
    /// Vector and delivery mode.
    pub data: u32,
}

/// A range of addresses that becomes memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotPlace {
    /// The slot's number.
    pub slot: u32,
    /// The first address.
    pub gpa: Gpa,
    /// Bytes.
    pub bytes: u64,
}

/// A TD.
pub trait KernelVm: Send + Sync {
    /// A vCPU of it.
    type Vcpu: KernelVcpu<Pages = Self::Pages>;
    /// Memory of this process.
    type Pages: Pages;
    /// Private memory.
    type GuestMemfd: GuestMemfd;

    /// KVM_CHECK_EXTENSION: 0 where there is none.
    fn extension(&self, capability: Capability) -> u32;

    /// KVM_ENABLE_CAP, with its first argument.
    ///
    /// # Errors
    /// The kernel's answer.
    fn enable(&self, capability: Capability, argument: u64) -> Result<(), Errno>;

    /// KVM_TDX_CAPABILITIES, with room for so many CPUID entries.
    ///
    /// # Errors
    /// The kernel's answer: E2BIG where there are more.
    fn tdx_capabilities(&self, room: usize) -> Result<(CapabilitiesHeader, Vec<CpuidEntry>), Errno>;

    /// KVM_TDX_INIT_VM. The number of entries in the header counts for nothing.
    ///
    /// # Errors
    /// What kernel and module answered.
    fn init_vm(&self, parameters: InitVm, cpuid: &[CpuidEntry]) -> Result<(), Refusal>;

    /// KVM_TDX_FINALIZE_VM.
    ///
    /// # Errors
    /// What kernel and module answered.
    fn finalize(&self) -> Result<(), Refusal>;

    /// Memory of this process, of zeros.
    ///
    /// # Errors
    /// The kernel's answer.
    fn map(&self, bytes: u64) -> Result<Self::Pages, Errno>;

    /// KVM_CREATE_GUEST_MEMFD.
    ///
    /// # Errors
    /// The kernel's answer.
    fn guest_memfd(&self, bytes: u64) -> Result<Self::GuestMemfd, Errno>;

    /// KVM_SET_USER_MEMORY_REGION2. `shared` and `private` are as large as the place.
    ///
    /// # Errors
    /// The kernel's answer; EINVAL where the sizes differ.
    fn add_slot(
        &self,
        place: SlotPlace,
        shared: &Self::Pages,
        private: &Self::GuestMemfd,
    ) -> Result<(), Errno>;

    /// KVM_SET_MEMORY_ATTRIBUTES.
    ///
    /// # Errors
    /// The kernel's answer.
    fn set_attributes(&self, gpa: Gpa, bytes: u64, attributes: u64) -> Result<(), Errno>;

    /// KVM_SIGNAL_MSI.
    ///
    /// # Errors
    /// The kernel's answer: EPERM where nobody was meant.
    fn signal_msi(&self, msi: Msi) -> Result<(), Errno>;

    /// A request that no monitor makes.
    ///
    /// # Errors
    /// The kernel's answer.
    fn odd(&self, request: OddVmRequest) -> Result<(), Errno>;

    /// KVM_CREATE_VCPU; the number is the x2APIC id.
    ///
    /// # Errors
    /// The kernel's answer.
    fn create_vcpu(&self, index: u32) -> Result<Self::Vcpu, Errno>;
}

/// A vCPU of a TD.
pub trait KernelVcpu: Send + Sync {
    /// Memory of this process.
    type Pages: Pages;

    /// KVM_TDX_GET_CPUID, with room for so many entries.
    fn cpuid_with_room(&self, room: usize) -> Listed;

    /// KVM_TDX_GET_CPUID.
    ///
    /// # Errors
    /// What kernel and module answered.
    fn cpuid(&self) -> Result<Vec<CpuidEntry>, Refusal> {
        let Listed { entries, result, .. } = self.cpuid_with_room(MAX_CPUID_ENTRIES);
        result.map(|()| entries)
    }

    /// A request that no monitor makes.
    ///
    /// # Errors
    /// The kernel's answer.
    fn odd(&self, request: OddVcpuRequest) -> Result<(), Errno>;

    /// KVM_SET_CPUID2.
    ///
    /// # Errors
    /// The kernel's answer.
    fn set_cpuid(&self, entries: &[CpuidEntry]) -> Result<(), Errno>;

    /// KVM_TDX_INIT_VCPU: `entry` is the value of RCX and R8 at the first instruction.
    ///
    /// # Errors
    /// What kernel and module answered.
    fn init(&self, entry: u64) -> Result<(), Refusal>;

    /// KVM_TDX_INIT_MEM_REGION: contents from `from` on go to `to`, so many pages. Gives how many pages were added, also
    /// beside an error.
    ///
    /// # Errors
    /// What kernel and module answered.
    fn add_pages(&self, contents: &Self::Pages, from: u64, to: Gpa, pages: u64, flags: u32) -> Added;

    /// KVM_PRE_FAULT_MEMORY.
    ///
    /// # Errors
    /// The kernel's answer; part of the range may be mapped.
    fn pre_fault(&self, gpa: Gpa, bytes: u64) -> Result<(), Errno>;

    /// KVM_RUN: the reason for coming back is in [`Self::page`].
    ///
    /// # Errors
    /// The kernel's answer: EINTR for a kick, EFAULT for a memory fault.
    fn run(&self) -> Result<(), Errno>;

    /// The page that the vCPU shares with the kernel (`struct kvm_run`).
    fn page(&self) -> &Self::Pages;

    /// The calling thread is the one that runs the vCPU, until [`Self::unbind`].
    fn bind(&self);

    /// No thread runs the vCPU any more.
    fn unbind(&self);

    /// Makes the thread that runs the vCPU leave KVM_RUN, or not enter it; see [`crate::uapi::run::IMMEDIATE_EXIT`].
    fn kick(&self);
}

/// What KVM_TDX_INIT_MEM_REGION did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Added {
    /// Pages that were added.
    pub pages: u64,
    /// Why no further page was added, if pages are left.
    pub result: Result<(), Refusal>,
}

/// What KVM_TDX_GET_CPUID gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The entries; none beside an error.
    pub entries: Vec<CpuidEntry>,
    /// How many there are, also where there was too little room for them.
    pub count: usize,
    /// Why there are none.
    pub result: Result<(), Refusal>,
}
