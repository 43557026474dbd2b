//! What went wrong between this program, the kernel and the module, as one sentence.

use std::fmt;

use td_image::td_hob::HobTooLarge;
use td_image::tdvf::{OutsideMemory, TdvfError};
use tdvisor_base::{Gpa, Side};
use tdx_module_iface::Status;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// Whether the same request may succeed when it is repeated.
    pub const fn is_transient(self) -> bool {
        matches!(self.0, libc::EAGAIN | libc::EINTR | libc::EBUSY)
    }

    /// The symbol, for those that KVM's documentation names.
    const fn symbol(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EINTR => "EINTR",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::E2BIG => "E2BIG",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::EMFILE => "EMFILE",
            libc::ENFILE => "ENFILE",
            libc::ENOTTY => "ENOTTY",
            libc::ENOSPC => "ENOSPC",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EHWPOISON => "EHWPOISON",
            _ => return None,
        })
    }
}

impl From<kvm_ioctls::Error> for Errno {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self(error.errno())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let words = text.split(" (os error").next().unwrap_or_default();
        match self.symbol() {
            Some(symbol) => write!(f, "{symbol} ({words})"),
            None => write!(f, "error {} ({words})", self.0),
        }
    }
}

/// The answer to a TDX command that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The kernel's answer.
    pub errno: Errno,
    /// The module's status, where it was the module that refused; zero where not.
    pub module: u64,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, module: 0 }
    }
}

/// What was asked of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To open /dev/kvm.
    Open,
    /// KVM_CREATE_VM of type TDX.
    CreateTd,
    /// KVM_GET_SUPPORTED_CPUID.
    SupportedCpuid,
    /// KVM_ENABLE_CAP.
    Enable(&'static str),
    /// KVM_TDX_CAPABILITIES.
    Capabilities,
    /// KVM_TDX_INIT_VM.
    InitVm,
    /// Memory of this process, for the shared side of a range or for contents on their way.
    Map {
        /// Bytes.
        bytes: u64,
    },
    /// KVM_CREATE_GUEST_MEMFD.
    GuestMemfd {
        /// Bytes.
        bytes: u64,
    },
    /// KVM_SET_USER_MEMORY_REGION2.
    Slot {
        /// First address.
        gpa: Gpa,
        /// Bytes.
        bytes: u64,
    },
    /// KVM_SET_MEMORY_ATTRIBUTES.
    Attributes {
        /// First address.
        gpa: Gpa,
        /// Bytes.
        bytes: u64,
        /// What the pages become.
        side: Side,
    },
    /// Memory of a side given back that the guest has left: a hole in guest_memfd, or in the mapping beside it.
    GiveBack {
        /// First address.
        gpa: Gpa,
        /// Bytes.
        bytes: u64,
        /// The side that was left.
        side: Side,
    },
    /// KVM_CREATE_VCPU.
    CreateVcpu(u32),
    /// KVM_TDX_GET_CPUID.
    GetCpuid(u32),
    /// KVM_SET_CPUID2.
    SetCpuid(u32),
    /// KVM_TDX_INIT_VCPU.
    InitVcpu(u32),
    /// KVM_TDX_INIT_MEM_REGION.
    AddPages {
        /// First address that was not added.
        gpa: Gpa,
        /// Pages that were left.
        pages: u64,
    },
    /// KVM_TDX_FINALIZE_VM.
    Finalize,
    /// KVM_RUN.
    Run(u32),
    /// KVM_SIGNAL_MSI.
    Message,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &Side| if *side == Side::Private { "private" } else { "shared" };
        match self {
            Self::Open => f.write_str("/dev/kvm cannot be opened"),
            Self::CreateTd => f.write_str("KVM makes no TD (KVM_CREATE_VM)"),
            Self::SupportedCpuid => {
                f.write_str("KVM does not say which CPUID bits it supports (KVM_GET_SUPPORTED_CPUID)")
            }
            Self::Enable(what) => write!(f, "KVM does not enable {what} for a TD (KVM_ENABLE_CAP)"),
            Self::Capabilities => f.write_str("KVM does not say what TDs may have (KVM_TDX_CAPABILITIES)"),
            Self::InitVm => f.write_str("the TD cannot be initialised (KVM_TDX_INIT_VM)"),
            Self::Map { bytes } => write!(f, "{bytes} bytes of memory cannot be mapped"),
            Self::GuestMemfd { bytes } => {
                write!(f, "{bytes} bytes of private memory cannot be had (KVM_CREATE_GUEST_MEMFD)")
            }
            Self::Slot { gpa, bytes } => write!(
                f,
                "{bytes} bytes at {gpa} cannot become memory of the TD (KVM_SET_USER_MEMORY_REGION2)"
            ),
            Self::Attributes { gpa, bytes, side: to } => {
                write!(f, "{bytes} bytes at {gpa} cannot be made {} (KVM_SET_MEMORY_ATTRIBUTES)", side(to))
            }
            Self::GiveBack { gpa, bytes, side: left } => {
                write!(f, "the {} side of {bytes} bytes at {gpa} cannot be given back", side(left))
            }
            Self::CreateVcpu(index) => write!(f, "vCPU {index} cannot be made (KVM_CREATE_VCPU)"),
            Self::GetCpuid(index) => {
                write!(f, "the CPUID values of vCPU {index} cannot be read (KVM_TDX_GET_CPUID)")
            }
            Self::SetCpuid(index) => {
                write!(f, "KVM does not take the CPUID values of vCPU {index} (KVM_SET_CPUID2)")
            }
            Self::InitVcpu(index) => {
                write!(f, "vCPU {index} cannot be initialised (KVM_TDX_INIT_VCPU)")
            }
            Self::AddPages { gpa, pages } => {
                write!(f, "{pages} pages from {gpa} on cannot be added to the TD (KVM_TDX_INIT_MEM_REGION)")
            }
            Self::Finalize => f.write_str("the TD cannot be finalised (KVM_TDX_FINALIZE_VM)"),
            Self::Run(index) => write!(f, "vCPU {index} cannot run (KVM_RUN)"),
            Self::Message => f.write_str("an interrupt cannot be delivered (KVM_SIGNAL_MSI)"),
        }
    }
}

/// A request that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// What was asked.
    pub asked: Asked,
    /// What the kernel answered.
    pub errno: Errno,
    /// What the module answered, where it was the module that refused.
    pub module: Option<Status>,
}

impl Error {
    /// A request that the kernel refused.
    pub const fn new(asked: Asked, errno: Errno) -> Self {
        Self { asked, errno, module: None }
    }

    /// A TDX command that the kernel or the module refused.
    pub fn refused(asked: Asked, refusal: Refusal) -> Self {
        let module = (refusal.module != 0).then(|| Status::from_raw(refusal.module));
        Self { asked, errno: refusal.errno, module }
    }

    /// Whether there is no room for one more TD, and may be when another has ended: key ids, or the cgroup's limit.
    pub const fn is_full(&self) -> bool {
        matches!((self.asked, self.errno.0), (Asked::InitVm, libc::ENOSPC | libc::EBUSY))
    }

    /// What to do about it, where that is known.
    pub const fn advice(&self) -> Option<&'static str> {
        use Asked as A;
        Some(match (self.asked, self.errno.0) {
            (A::Open, libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "load KVM with 'modprobe kvm_intel tdx=1'; if that fails, switch virtualisation (VMX) on in the BIOS"
            }
            (A::Open, libc::EACCES | libc::EPERM) => {
                "become a member of the group that owns it (usually kvm), or ask the administrator for an ACL"
            }
            (A::CreateTd, libc::EINVAL | libc::EOPNOTSUPP) => {
                "this KVM offers no TDs: it takes Linux 6.16 or later with CONFIG_KVM_INTEL_TDX, and kvm_intel loaded with \
                 tdx=1; 'tdvisor doctor' says which link is missing"
            }
            (A::InitVm, libc::ENOSPC) => {
                "all TDX key ids are in use: end another TD, or give TDX more key ids in the BIOS (TME-MT/TDX key split)"
            }
            (A::InitVm, libc::EBUSY) => {
                "the cgroup's limit of TDs is reached: raise 'tdx' in misc.max of the cgroup, or end another TD of it"
            }
            (A::InitVm, libc::EIO) => {
                "the kernel's log ('dmesg') says why; each processor package needs a CPU that is online"
            }
            (A::InitVm, libc::EINVAL) if self.module.is_none() => {
                "KVM does not take these ATTRIBUTES, this XFAM or these CPUID values"
            }
            (A::InitVm | A::InitVcpu(_) | A::AddPages { .. } | A::Finalize, libc::EAGAIN | libc::EBUSY) => {
                "the module was busy for too long: try again"
            }
            (A::Slot { .. } | A::GuestMemfd { .. }, libc::EINVAL) => {
                "the kernel needs guest_memfd for TDs (CONFIG_KVM_GUEST_MEMFD)"
            }
            (A::CreateVcpu(_), libc::EINVAL) => {
                "a TD has at most as many vCPUs as the host has CPUs: give it fewer with --vcpus"
            }
            (A::GuestMemfd { .. } | A::CreateVcpu(_), libc::EMFILE | libc::ENFILE) => {
                "too many files are open: raise the limit ('ulimit -n')"
            }
            (A::Run(_), libc::EIO) => {
                "KVM gave the TD up, as it does when a guest touches private memory that it has not accepted; the kernel's \
                 log ('dmesg') says why"
            }
            (A::Run(_), libc::EHWPOISON) => {
                "the memory under the page is broken: the kernel's log has its address"
            }
            (A::AddPages { .. } | A::Finalize | A::InitVcpu(_), libc::EIO) => {
                "the kernel's log ('dmesg') has the SEAMCALL that failed and its status"
            }
            (_, libc::ENOMEM) => {
                "the host has no memory left for it: give the TD less, or end something else"
            }
            (_, libc::ENOTTY) => "this kernel does not know the request: it takes Linux 6.16 or later",
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the kernel answered {}", self.asked, self.errno)?;
        if let Some(status) = self.module {
            write!(f, ", the TDX module {status}")?;
        }
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Why there is no TD.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The kernel or the module refused something.
    Refused(Error),
    /// The image is no TDVF image, or asks for what cannot be.
    Image(TdvfError),
    /// A section of the image lies where the TD has no memory.
    OutsideMemory(OutsideMemory),
    /// What the guest is told does not fit into the image's TD HOB section.
    Hob(HobTooLarge),
    /// No memory, or not a multiple of 4 KiB.
    OddMemory(u64),
    /// None, or more than KVM runs.
    Vcpus {
        /// How many were asked for.
        asked: u32,
        /// How many are possible.
        limit: u32,
    },
    /// KVM has no such capability.
    Missing(&'static str),
    /// ATTRIBUTES bits that KVM does not let a TD have.
    Attributes {
        /// The bits that are refused.
        refused: u64,
        /// The bits that it does.
        supported: u64,
    },
    /// A CPUID leaf without which KVM makes no TD cannot be configured with this module.
    NoAddressWidth,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Image(error) => error.fmt(f),
            Self::OutsideMemory(error) => error.fmt(f),
            Self::Hob(error) => error.fmt(f),
            Self::OddMemory(0) => f.write_str("a TD needs memory: give it at least 4K"),
            Self::OddMemory(bytes) => write!(f, "{bytes} bytes of memory is not a multiple of 4 KiB"),
            Self::Vcpus { asked: 0, .. } => f.write_str("a TD needs at least one vCPU"),
            Self::Vcpus { asked, limit } => {
                write!(f, "{asked} vCPUs is more than this KVM gives a TD: at most {limit}")
            }
            Self::Missing(what) => write!(
                f,
                "this kernel's KVM has no {what}, which TDs need: it takes Linux 6.16 or later with CONFIG_KVM_INTEL_TDX"
            ),
            Self::Attributes { refused, supported } => write!(
                f,
                "KVM gives no TD the ATTRIBUTES {refused:#x}{}; it takes {supported:#x}",
                if refused & 1 == 0 { "" } else { " (bit 0 is DEBUG)" }
            ),
            Self::NoAddressWidth => f.write_str(
                "the TDX module does not let CPUID leaf 0x80000008 be configured, by which KVM is told a guest's address width",
            ),
        }
    }
}

impl std::error::Error for BuildError {}

macro_rules! from {
    ($($kind:ident($error:ty)),*) => {
        $(impl From<$error> for BuildError {
            fn from(error: $error) -> Self {
                Self::$kind(error)
            }
        })*
    };
}

from!(Refused(Error), Image(TdvfError), OutsideMemory(OutsideMemory), Hob(HobTooLarge));

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: Asked, errno: i32) -> String {
        Error::new(asked, Errno(errno)).to_string()
    }

    #[test]
    fn each_known_refusal_says_what_to_do() {
        for (asked, errno, words) in [
            (Asked::Open, libc::ENOENT, "modprobe kvm_intel tdx=1"),
            (Asked::Open, libc::EACCES, "group"),
            (Asked::CreateTd, libc::EINVAL, "kvm_intel loaded with tdx=1"),
            (Asked::InitVm, libc::ENOSPC, "key ids are in use"),
            (Asked::InitVm, libc::EBUSY, "misc.max"),
            (Asked::InitVm, libc::EIO, "package"),
            (Asked::CreateVcpu(4), libc::EINVAL, "--vcpus"),
            (Asked::GuestMemfd { bytes: 4096 }, libc::EMFILE, "ulimit -n"),
            (Asked::Run(0), libc::EIO, "has not accepted"),
            (Asked::Finalize, libc::EBUSY, "try again"),
            (Asked::Message, libc::ENOTTY, "6.16"),
        ] {
            let sentence = said(asked, errno);
            assert!(sentence.contains(words), "{sentence}");
            assert!(!sentence.contains('\n') && !sentence.ends_with('.'), "{sentence}");
        }
    }

    #[test]
    fn a_sentence_has_the_question_and_both_answers() {
        let refusal = Refusal { errno: Errno(libc::EINVAL), module: 0xc000_0100_0000_0001 };
        let sentence = Error::refused(Asked::InitVm, refusal).to_string();
        for part in ["KVM_TDX_INIT_VM", "EINVAL (Invalid argument)", "OPERAND_INVALID, operand RCX"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
