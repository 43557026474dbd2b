//! Whether this machine can run TDs, link by link, and if not which link is missing.
//!
//! # Protocol
//! Facts are read below a root folder, `/` or a tree that a test has made: /proc, /sys, /dev/kmsg, the MSRs, /boot, /etc. What
//! KVM itself answers is given beside it. Each [`LinkKind`] becomes one [`Link`]: whether it holds, what the machine says, the
//! command that shows it, what to do. A later link may prove an earlier one that cannot be read: a kernel that has
//! initialised the module had everything from the BIOS.

mod facts;
mod links;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::error::Errno;
use crate::kernel::Linux;
use crate::uapi::VM_TYPE_TDX;

/// A link of the chain from the processor to a quote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkKind {
    /// A processor with TDX.
    Cpu,
    /// Virtualisation, not locked off by the BIOS (VMX).
    Vmx,
    /// Memory encryption, switched on by the BIOS (TME).
    MemoryEncryption,
    /// Key ids for TDs, given by the BIOS.
    KeyIds,
    /// Memory for the module, given by the BIOS (SEAMRR).
    SeamRange,
    /// A kernel that is new enough.
    KernelVersion,
    /// A kernel that was built for it.
    KernelConfig,
    /// No hibernation: the kernel leaves TDX alone where it may hibernate.
    NoHibernation,
    /// The module is loaded and initialised.
    Module,
    /// kvm_intel is loaded.
    KvmIntel,
    /// kvm_intel has TDX switched on.
    TdxParameter,
    /// /dev/kvm is there.
    Device,
    /// /dev/kvm may be opened.
    Permission,
    /// TDs are a type of VM.
    OffersTds,
    /// A TD may be started now: key ids and cgroups leave room.
    Room,
    /// A service that makes quotes.
    QuoteService,
    /// A service that has the collateral of quotes.
    Collateral,
}

impl LinkKind {
    /// What the link is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "processor with TDX",
            Self::Vmx => "BIOS: virtualisation (VMX)",
            Self::MemoryEncryption => "BIOS: memory encryption (TME)",
            Self::KeyIds => "BIOS: TDX key ids",
            Self::SeamRange => "BIOS: memory for the module (SEAMRR)",
            Self::KernelVersion => "kernel 6.16 or later",
            Self::KernelConfig => "kernel configuration",
            Self::NoHibernation => "no hibernation",
            Self::Module => "TDX module",
            Self::KvmIntel => "kvm_intel",
            Self::TdxParameter => "kvm_intel.tdx",
            Self::Device => "/dev/kvm",
            Self::Permission => "permission",
            Self::OffersTds => "KVM offers TDs",
            Self::Room => "room for one more TD",
            Self::QuoteService => "quotes: QGS",
            Self::Collateral => "quotes: PCCS",
        }
    }

    /// The command that shows it.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Cpu => "grep -m1 'model name' /proc/cpuinfo",
            Self::Vmx => "grep -m1 -ow vmx /proc/cpuinfo; rdmsr 0x3a",
            Self::MemoryEncryption => "rdmsr 0x982",
            Self::KeyIds => "rdmsr 0x87; dmesg | grep 'BIOS enabled'",
            Self::SeamRange => "rdmsr 0x1401",
            Self::KernelVersion => "uname -r",
            Self::KernelConfig => "grep -E 'INTEL_TDX_HOST|KVM_INTEL_TDX' /boot/config-$(uname -r)",
            Self::NoHibernation => "cat /sys/power/state",
            Self::Module => "dmesg | grep -i tdx",
            Self::KvmIntel => "ls /sys/module/kvm_intel",
            Self::TdxParameter => "cat /sys/module/kvm_intel/parameters/tdx",
            Self::Device | Self::Permission => "ls -l /dev/kvm",
            Self::OffersTds => "tdvisor doctor --json",
            Self::Room => "cat /sys/fs/cgroup/misc.capacity /sys/fs/cgroup/misc.current",
            Self::QuoteService => "ls -l /var/run/tdx-qgs/qgs.socket",
            Self::Collateral => "grep pccs_url /etc/sgx_default_qcnl.conf",
        }
    }

    /// What to do where it is missing.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Cpu => {
                "TDX takes an Intel Xeon of the fifth generation (Emerald Rapids) or later, or a fourth that was sold with it"
            }
            Self::Vmx => "switch on 'Intel Virtualization Technology (VMX)' in the BIOS",
            Self::MemoryEncryption => "switch on 'Memory Encryption (TME)' in the BIOS",
            Self::KeyIds => {
                "switch on 'TME Multi-Tenant (TME-MT)' and 'Trust Domain Extension (TDX)' in the BIOS, and set 'TME-MT/TDX key split' to 1 or more"
            }
            Self::SeamRange => "switch on 'TDX Secure Arbitration Mode Loader (SEAM)' in the BIOS",
            Self::KernelVersion => "boot Linux 6.16 or later",
            Self::KernelConfig => {
                "boot a kernel built with CONFIG_INTEL_TDX_HOST=y and CONFIG_KVM_INTEL_TDX=y"
            }
            Self::NoHibernation => "add 'nohibernate' to the kernel's command line",
            Self::Module => {
                "the kernel's log says why; a module that is missing or too old comes with the BIOS, or as /EFI/TDX/TDX-SEAM.so of the boot partition"
            }
            Self::KvmIntel => "modprobe kvm_intel tdx=1; where that fails, switch VMX on in the BIOS",
            Self::TdxParameter => {
                "add 'kvm_intel.tdx=1' to the kernel's command line, or 'options kvm_intel tdx=1' to /etc/modprobe.d"
            }
            Self::Device => "modprobe kvm_intel tdx=1",
            Self::Permission => "become a member of the group that owns it (usually kvm)",
            Self::OffersTds => {
                "a link above it is missing; where none is, the kernel's log says why KVM switched TDX off"
            }
            Self::Room => {
                "end a TD, raise 'tdx' in misc.max of the cgroup, or give TDX more key ids in the BIOS"
            }
            Self::QuoteService => {
                "install and start Intel's quote-generation service (package tdx-qgs); TDs run without it"
            }
            Self::Collateral => {
                "configure a PCCS in /etc/sgx_default_qcnl.conf; 'tdvisor collateral serve' is one"
            }
        }
    }

    /// Whether a TD runs without it.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::QuoteService | Self::Collateral)
    }
}

/// Whether a link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// The link holds.
    Good,
    /// The link is missing.
    Missing,
    /// The link cannot be seen from here.
    Unknown,
}

/// A link as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Which.
    pub kind: LinkKind,
    /// Whether the link holds.
    pub state: LinkState,
    /// What the machine says.
    pub found: String,
}

/// What KVM says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvmAnswer {
    /// Nobody asked it: the files are those of another machine.
    NotAsked,
    /// `/dev/kvm` cannot be opened.
    Closed(Errno),
    /// The types of VM that it has, a bit each (KVM_CAP_VM_TYPES).
    Types(u32),
}

impl KvmAnswer {
    /// What the KVM of this machine says.
    pub fn of_this_machine() -> Self {
        match Linux::open() {
            Ok(kernel) => Self::Types(kernel.vm_types()),
            Err(errno) => Self::Closed(errno),
        }
    }

    /// Whether TDs are among the types of VM.
    pub const fn offers_tds(self) -> bool {
        matches!(self, Self::Types(types) if types >> VM_TYPE_TDX & 1 == 1)
    }
}

/// The whole chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// The links of the chain, from the processor up.
    pub links: Vec<Link>,
}

impl Diagnosis {
    /// Looks at the machine whose file system is at `root`, and whose KVM answered this.
    pub fn of(root: &Path, kvm: KvmAnswer) -> Self {
        Self { links: links::all(&facts::Facts::of(root), kvm) }
    }

    /// The first link that is missing and that a TD needs.
    pub fn first_missing(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.state == LinkState::Missing && !link.kind.is_optional())
    }

    /// Whether TDs can be run here: KVM says so.
    pub fn can_run_tds(&self) -> bool {
        self.first_missing().is_none()
            && self.links.iter().any(|link| link.kind == LinkKind::OffersTds && link.state == LinkState::Good)
    }
}
