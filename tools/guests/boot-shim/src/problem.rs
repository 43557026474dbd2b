//! Everything that ends the boot, in one line each.
//!
//! The first 63 characters also reach the host in ReportFatalError, so what matters comes first.

use core::fmt;

use guest_rt::memory::AcceptError;
use guest_rt::shared::ConvertError;
use tdx_guest::tdcall::TdCallError;

use crate::acpi::NoRoom;
use crate::boot_params::DoesNotFit;
use crate::event_log::LogFull;
use crate::fw_cfg::FwCfgError;
use crate::hob::Range;
use crate::kernel::KernelError;
use crate::memory_map::MapError;

/// Why there is no boot.
#[derive(Debug)]
pub enum Problem {
    /// The host does not offer the memory that the shim works in.
    TooLittleMemory {
        /// What the host offers below 4 GiB, bytes.
        offered: u64,
        /// The range that must be there in one piece.
        needed: Range,
    },
    /// More vCPUs than the shim wakes.
    TooManyVcpus(u32),
    /// A page that the module refused.
    Accept(AcceptError),
    /// vCPUs that did not come.
    LostVcpus {
        /// The vCPUs that came.
        parked: u32,
        /// The vCPUs that were released.
        released: u32,
    },
    /// The bounce buffer could not be converted.
    Convert(ConvertError),
    /// The host's fw_cfg device.
    FwCfg(FwCfgError),
    /// No kernel among its files.
    NoKernel,
    /// A file that is larger than any free memory.
    FileTooLarge {
        /// What the file is.
        what: &'static str,
        /// Bytes of the file.
        length: u64,
        /// Bytes of the largest free range where it may go.
        free: u64,
    },
    /// A command line that is longer than the kernel or the shim takes.
    CommandLineTooLong {
        /// The command line's bytes.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// A command line with a zero byte: what follows would be measured and not seen.
    CommandLineWithZero,
    /// The kernel file.
    Kernel(KernelError),
    /// The map of memory.
    Map(MapError),
    /// An RTMR that could not be extended.
    Extend(TdCallError),
    /// The event log is full.
    LogFull,
    /// The area for ACPI tables is full.
    AcpiFull,
    /// The memory map does not fit boot_params.
    BootParams,
    /// A fault of the shim's own: something that is used once was used again.
    UsedTwice(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittleMemory { offered, needed } => write!(
                f,
                "too little memory: {} KiB, need {:#x}..{:#x} in one piece",
                offered >> 10,
                needed.start,
                needed.end
            ),
            Self::TooManyVcpus(count) => write!(f, "too many vCPUs: {count}, at most {}", crate::vcpus::MAX),
            Self::Accept(error) => write!(f, "GPA {:#x} not accepted: {:?}", error.gpa, error.error),
            Self::LostVcpus { parked, released } => write!(f, "vCPUs lost: {parked} of {released} came"),
            Self::Convert(error) => write!(f, "bounce buffer: {error:x?}"),
            Self::FwCfg(error) => write!(f, "fw_cfg: {error}"),
            Self::NoKernel => write!(f, "no kernel: the host offers no {}", tdvisor_board::files::KERNEL),
            Self::FileTooLarge { what, length, free } => {
                write!(
                    f,
                    "{what} too large: {} KiB, {} KiB of memory free",
                    length.div_ceil(1024),
                    free >> 10
                )
            }
            Self::CommandLineTooLong { length, limit } => {
                write!(f, "command line too long: {length} bytes, at most {limit}")
            }
            Self::CommandLineWithZero => f.write_str("the command line has a zero byte"),
            Self::Kernel(error) => error.fmt(f),
            Self::Map(MapError::Twice(range)) => {
                write!(f, "memory {:#x}..{:#x} is offered twice", range.start, range.end)
            }
            Self::Map(MapError::Full) => f.write_str("too many ranges of memory"),
            Self::Extend(error) => write!(f, "RTMR not extended: {error:?}"),
            Self::LogFull => f.write_str("the event log is full"),
            Self::AcpiFull => f.write_str("the ACPI tables do not fit"),
            Self::BootParams => f.write_str("boot_params cannot say where everything is"),
            Self::UsedTwice(what) => write!(f, "{what} used twice"),
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:expr),* $(,)?) => {
        $(impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                $variant(error)
            }
        })*
    };
}

from!(
    AcceptError => Self::Accept,
    ConvertError => Self::Convert,
    FwCfgError => Self::FwCfg,
    KernelError => Self::Kernel,
    MapError => Self::Map,
    TdCallError => Self::Extend,
    LogFull => |_| Self::LogFull,
    NoRoom => |_| Self::AcpiFull,
    DoesNotFit => |_| Self::BootParams,
);
