//! KVM's interface as far as TDs need it and `kvm-bindings` lacks it: `arch/x86/include/uapi/asm/kvm.h` and
//! `include/uapi/linux/kvm.h` of Linux 6.16 and later.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The type of a VM that is a TD (KVM_X86_TDX_VM).
pub const VM_TYPE_TDX: u32 = 5;

/// Entries that a list of CPUID values may have (KVM_MAX_CPUID_ENTRIES).
pub const MAX_CPUID_ENTRIES: usize = 256;

/// KVM_HC_MAP_GPA_RANGE, the hypercall that a MapGPA becomes.
pub const HYPERCALL_MAP_GPA_RANGE: u64 = 12;

/// KVM_MEMORY_ATTRIBUTE_PRIVATE, and the same bit in the flags of a memory fault.
pub const ATTRIBUTE_PRIVATE: u64 = 1 << 3;

/// Numbers of requests that `kvm-ioctls` does not make on a vCPU.
pub mod request {
    /// KVM_RUN.
    pub const RUN: u32 = 0xae80;
    /// KVM_MEMORY_ENCRYPT_OP, whose argument is a [`TdxCommand`](super::TdxCommand).
    pub const MEMORY_ENCRYPT_OP: u32 = 0xc008_aeba;
    /// KVM_SET_TSC_KHZ, on a VM: `kvm-ioctls` has it for vCPUs.
    pub const SET_TSC_KHZ: u32 = 0xaea2;
    /// KVM_PRE_FAULT_MEMORY.
    pub const PRE_FAULT_MEMORY: u32 = 0xc040_aed5;
    /// KVM_SIGNAL_MSI.
    pub const SIGNAL_MSI: u32 = 0x4020_aea5;
    /// KVM_SET_MEMORY_ATTRIBUTES.
    pub const SET_MEMORY_ATTRIBUTES: u32 = 0x4020_aed2;

    /// All that a TD is asked once it is built, for whoever allows a process no more: its vCPUs run, messages are sent to them,
    /// memory changes sides and is mapped ahead.
    pub const WHILE_IT_RUNS: [u32; 4] = [RUN, PRE_FAULT_MEMORY, SIGNAL_MSI, SET_MEMORY_ATTRIBUTES];
}

/// What a [`TdxCommand`] asks for (`enum kvm_tdx_cmd_id`).
pub mod command {
    /// On the VM: [`CapabilitiesHeader`](super::CapabilitiesHeader) and CPUID entries are written to `data`.
    pub const CAPABILITIES: u32 = 0;
    /// On the VM: [`InitVm`](super::InitVm) and CPUID entries are read from `data`.
    pub const INIT_VM: u32 = 1;
    /// On a vCPU: `data` is the value of RCX and R8 at its first instruction.
    pub const INIT_VCPU: u32 = 2;
    /// On a vCPU: [`InitMemRegion`](super::InitMemRegion) is read from `data`, and moved on.
    pub const INIT_MEM_REGION: u32 = 3;
    /// On the VM: the measurement is final.
    pub const FINALIZE_VM: u32 = 4;
    /// On a vCPU: the CPUID values of the TD are written to `data`.
    pub const GET_CPUID: u32 = 5;
}

/// Flag of [`command::INIT_MEM_REGION`]: measure the pages (KVM_TDX_MEASURE_MEMORY_REGION).
pub const MEASURE: u32 = 1;

/// `struct kvm_tdx_cmd`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdxCommand {
    /// One of [`command`].
    pub id: u32,
    /// Flags of the command; zero where it has none.
    pub flags: u32,
    /// An address in this process, or a value.
    pub data: u64,
    /// Zero going in; the module's status coming out, where the command failed by it.
    pub hw_error: u64,
}

/// `struct kvm_cpuid_entry2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuidEntry {
    /// EAX going in: the leaf.
    pub function: u32,
    /// ECX going in: the subleaf.
    pub index: u32,
    /// [`CpuidEntry::SIGNIFICANT_INDEX`].
    pub flags: u32,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
    /// Zero.
    pub padding: [u32; 3],
}

impl CpuidEntry {
    /// The leaf has subleaves (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
    pub const SIGNIFICANT_INDEX: u32 = 1;

    /// An entry with EAX, EBX, ECX and EDX.
    pub fn new(function: u32, index: u32, values: [u32; 4]) -> Self {
        let [eax, ebx, ecx, edx] = values;
        Self { function, index, eax, ebx, ecx, edx, ..Self::default() }
    }

    /// EAX, EBX, ECX and EDX.
    pub const fn values(&self) -> [u32; 4] {
        [self.eax, self.ebx, self.ecx, self.edx]
    }
}

/// `struct kvm_cpuid2` without its entries.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuidHeader {
    /// How many entries follow.
    pub entries: u32,
    /// Zero.
    pub padding: u32,
}

impl CpuidHeader {
    /// The header of a list of `entries` entries. The kernel refuses a number that is too large, also the largest of all.
    pub fn of(entries: usize) -> Self {
        Self { entries: u32::try_from(entries).unwrap_or(u32::MAX), padding: 0 }
    }
}

/// `struct kvm_tdx_capabilities` without its CPUID entries, which say by set bits what INIT_VM may configure.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapabilitiesHeader {
    /// ATTRIBUTES that INIT_VM takes.
    pub supported_attributes: u64,
    /// XFAM bits that INIT_VM takes.
    pub supported_xfam: u64,
    /// R11 of GetTdVmCallInfo leaf 1: what KVM answers.
    pub kernel_call_info_r11: u64,
    /// R11 of GetTdVmCallInfo leaf 1: what a monitor may add, because KVM hands it on.
    pub user_call_info_r11: u64,
    /// R12 of GetTdVmCallInfo leaf 1, as R11.
    pub kernel_call_info_r12: u64,
    /// R12 of GetTdVmCallInfo leaf 1, as R11.
    pub user_call_info_r12: u64,
    /// Zero.
    pub reserved: [u64; 250],
    /// The list that follows.
    pub cpuid: CpuidHeader,
}

impl Default for CapabilitiesHeader {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// `struct kvm_tdx_init_vm` without its CPUID entries.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitVm {
    /// ATTRIBUTES of TD_PARAMS.
    pub attributes: u64,
    /// XFAM of TD_PARAMS.
    pub xfam: u64,
    /// MRCONFIGID.
    pub mrconfigid: [u8; 48],
    /// MROWNER.
    pub mrowner: [u8; 48],
    /// MROWNERCONFIG.
    pub mrownerconfig: [u8; 48],
    /// Zero.
    pub reserved: [u64; 12],
    /// The list that follows.
    pub cpuid: CpuidHeader,
}

impl Default for InitVm {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// `struct kvm_tdx_init_mem_region`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitMemRegion {
    /// Where the contents are, in this process; a multiple of 4 KiB.
    pub source: u64,
    /// Where they go, in the TD; a multiple of 4 KiB.
    pub gpa: u64,
    /// Pages of 4 KiB.
    pub pages: u64,
}

/// Where things are in a vCPU's page (`struct kvm_run`), bytes from its beginning.
pub mod run {
    /// `immediate_exit`, one byte: KVM_RUN returns at once with EINTR.
    pub const IMMEDIATE_EXIT: u64 = 1;
    /// `exit_reason`, u32.
    pub const EXIT_REASON: u64 = 8;
    /// What belongs to the reason.
    pub const DETAILS: u64 = 32;

    /// KVM_EXIT_IO.
    pub mod io {
        /// One byte: 0 in, 1 out.
        pub const DIRECTION: u64 = super::DETAILS;
        /// One byte.
        pub const SIZE: u64 = super::DETAILS + 1;
        /// u16.
        pub const PORT: u64 = super::DETAILS + 2;
        /// u32: accesses.
        pub const COUNT: u64 = super::DETAILS + 4;
        /// u64: where the data is, bytes from the beginning of the page.
        pub const DATA_OFFSET: u64 = super::DETAILS + 8;
    }

    /// KVM_EXIT_MMIO.
    pub mod mmio {
        /// u64.
        pub const ADDRESS: u64 = super::DETAILS;
        /// Eight bytes.
        pub const DATA: u64 = super::DETAILS + 8;
        /// u32.
        pub const LENGTH: u64 = super::DETAILS + 16;
        /// One byte.
        pub const IS_WRITE: u64 = super::DETAILS + 20;
    }

    /// KVM_EXIT_HYPERCALL.
    pub mod hypercall {
        /// u64.
        pub const NUMBER: u64 = super::DETAILS;
        /// Six u64. Of KVM_HC_MAP_GPA_RANGE: address, pages, attributes.
        pub const ARGUMENTS: u64 = super::DETAILS + 8;
        /// u64.
        pub const RESULT: u64 = super::DETAILS + 56;
        /// Attribute of KVM_HC_MAP_GPA_RANGE: the range becomes private (KVM_MAP_GPA_RANGE_ENCRYPTED).
        pub const ENCRYPTED: u64 = 1 << 4;
    }

    /// KVM_EXIT_MEMORY_FAULT.
    pub mod memory_fault {
        /// u64; [`ATTRIBUTE_PRIVATE`](super::super::ATTRIBUTE_PRIVATE).
        pub const FLAGS: u64 = super::DETAILS;
        /// u64.
        pub const GPA: u64 = super::DETAILS + 8;
        /// u64.
        pub const SIZE: u64 = super::DETAILS + 16;
    }

    /// KVM_EXIT_TDX.
    pub mod tdx {
        /// u64: the GHCI function.
        pub const NUMBER: u64 = super::DETAILS + 8;
        /// u64: what the guest gets in R10.
        pub const RESULT: u64 = super::DETAILS + 16;
        /// Five u64: arguments, or results in R11 and what follows, behind [`INFO_LEAF`].
        pub const ARGUMENTS: u64 = super::DETAILS + 24;
        /// u64: the leaf of GetTdVmCallInfo.
        pub const INFO_LEAF: u64 = ARGUMENTS;
        /// u64: R11 of the answer to GetTdVmCallInfo.
        pub const INFO_R11: u64 = ARGUMENTS + 8;
    }

    /// KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_INTERNAL_ERROR.
    pub mod event {
        /// u32: the kind of event, or of error.
        pub const KIND: u64 = super::DETAILS;
        /// u32: how many words.
        pub const COUNT: u64 = super::DETAILS + 4;
        /// Sixteen u64.
        pub const DATA: u64 = super::DETAILS + 8;
        /// Words that there can be.
        pub const MAX_WORDS: usize = 16;
        /// KVM_SYSTEM_EVENT_TDX_FATAL: the words are RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        pub const TDX_FATAL: u32 = 7;
        /// KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: the first word is what TDH.VP.ENTER answered.
        pub const UNEXPECTED_EXIT_REASON: u32 = 4;
    }

    /// KVM_EXIT_FAIL_ENTRY.
    pub mod fail_entry {
        /// u64: the VMX exit reason.
        pub const REASON: u64 = super::DETAILS;
        /// u32: the CPU.
        pub const CPU: u64 = super::DETAILS + 8;
    }

    /// Numbers of exit reasons.
    pub mod reason {
        /// KVM_EXIT_IO.
        pub const IO: u32 = 2;
        /// KVM_EXIT_HYPERCALL.
        pub const HYPERCALL: u32 = 3;
        /// KVM_EXIT_MMIO.
        pub const MMIO: u32 = 6;
        /// KVM_EXIT_SHUTDOWN.
        pub const SHUTDOWN: u32 = 8;
        /// KVM_EXIT_FAIL_ENTRY.
        pub const FAIL_ENTRY: u32 = 9;
        /// KVM_EXIT_INTR.
        pub const INTR: u32 = 10;
        /// KVM_EXIT_INTERNAL_ERROR.
        pub const INTERNAL_ERROR: u32 = 17;
        /// KVM_EXIT_SYSTEM_EVENT.
        pub const SYSTEM_EVENT: u32 = 24;
        /// KVM_EXIT_MEMORY_FAULT.
        pub const MEMORY_FAULT: u32 = 39;
        /// KVM_EXIT_TDX.
        pub const TDX: u32 = 40;
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use kvm_bindings as bindings;

    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_checks() {
        assert_eq!(size_of::<TdxCommand>(), 24);
        assert_eq!(size_of::<CpuidEntry>(), size_of::<bindings::kvm_cpuid_entry2>());
        assert_eq!(size_of::<CpuidHeader>(), size_of::<bindings::kvm_cpuid2>());
        assert_eq!(offset_of!(InitVm, cpuid), 256);
        assert_eq!(offset_of!(CapabilitiesHeader, cpuid), 256 * 8);
        assert_eq!(size_of::<InitMemRegion>(), 24);
    }

    #[test]
    fn a_vcpus_page_is_laid_out_as_the_kernels_headers_say() {
        assert_eq!(offset_of!(bindings::kvm_run, immediate_exit) as u64, run::IMMEDIATE_EXIT);
        assert_eq!(offset_of!(bindings::kvm_run, exit_reason) as u64, run::EXIT_REASON);
        assert_eq!(offset_of!(bindings::kvm_run, __bindgen_anon_1) as u64, run::DETAILS);
        assert_eq!(bindings::KVM_EXIT_MEMORY_FAULT, run::reason::MEMORY_FAULT);
        assert_eq!(bindings::KVM_EXIT_INTERNAL_ERROR, run::reason::INTERNAL_ERROR);
        assert_eq!(bindings::KVM_EXIT_SYSTEM_EVENT, run::reason::SYSTEM_EVENT);
        assert_eq!(bindings::KVM_X86_TDX_VM, VM_TYPE_TDX);
    }
}
