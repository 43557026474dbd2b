//! How a TD ended, and why it could not go on.

use core::fmt;

use tdvisor_base::Gpa;
use tdvisor_vm::MemoryFault;
use tdx_module_iface::Status;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::tdh::{AsyncKind, TdDeath};

use crate::error::{Blame, Error};

/// How a TD ended.
pub type Ending = tdvisor_vm::Ending<Death>;

/// Why a TD cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The vCPU that it happened on.
    pub vcpu: u32,
    /// What happened.
    pub cause: DeathCause,
}

/// What ended a TD against its will.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathCause {
    /// The host could not do what the vCPU needed.
    Host(Error),
    /// The vCPU does not exist.
    NoSuchVcpu,
    /// A triple fault.
    TripleFault,
    /// The module does not let the vCPU run any more, for another reason than a triple fault.
    VcpuDisabled(Status),
    /// The module does not let any vCPU of the TD run any more.
    TdDisabled {
        /// What the module found.
        why: TdDeath,
        /// The whole status of the call.
        status: Status,
    },
    /// The guest was left for a reason that nothing handles.
    UnhandledExit(ExitReason),
    /// An exit of a kind that nothing handles.
    UnhandledKind(AsyncKind),
    /// Private memory was touched before the guest accepted it.
    NotAccepted(Gpa),
    /// Memory was touched that the guest cannot have, and nobody mended that.
    MemoryFault(MemoryFault),
}

impl Death {
    /// Who has to change something.
    pub fn blame(&self) -> Blame {
        match &self.cause {
            DeathCause::Host(error) => error.blame(),
            DeathCause::NoSuchVcpu => Blame::Caller,
            DeathCause::TripleFault
            | DeathCause::VcpuDisabled(_)
            | DeathCause::TdDisabled { why: TdDeath::GuestState | TdDeath::WrongApicMode, .. }
            | DeathCause::NotAccepted(_)
            | DeathCause::MemoryFault(_) => Blame::Guest,
            DeathCause::TdDisabled { why: TdDeath::NonAccessible | TdDeath::CorruptedMetadata, .. } => {
                Blame::Machine
            }
            DeathCause::UnhandledExit(_) | DeathCause::UnhandledKind(_) => Blame::Bug,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vcpu = self.vcpu;
        match &self.cause {
            DeathCause::Host(error) => write!(f, "vCPU {vcpu}: {error}"),
            DeathCause::NoSuchVcpu => write!(f, "vCPU {vcpu} does not exist"),
            DeathCause::TripleFault => write!(f, "triple fault on vCPU {vcpu}"),
            DeathCause::VcpuDisabled(status) => write!(f, "vCPU {vcpu} cannot go on: {status}"),
            DeathCause::TdDisabled { why, status } => {
                write!(f, "{} (vCPU {vcpu}: {status})", in_words(*why))
            }
            DeathCause::UnhandledExit(reason) => {
                write!(f, "vCPU {vcpu} left the guest for {reason}, which nothing handles")
            }
            DeathCause::UnhandledKind(kind) => {
                write!(f, "vCPU {vcpu} left the guest for {kind:?}, which nothing handles")
            }
            DeathCause::NotAccepted(gpa) => {
                write!(f, "vCPU {vcpu} touched private memory at {gpa} that it has not accepted")
            }
            DeathCause::MemoryFault(fault) => write!(f, "vCPU {vcpu} {fault}"),
        }
    }
}

impl core::error::Error for Death {}

const fn in_words(death: TdDeath) -> &'static str {
    match death {
        TdDeath::GuestState => "the guest's state made running impossible",
        TdDeath::NonAccessible => "its memory was corrupted: something wrote to it with the host's key",
        TdDeath::WrongApicMode => "the APIC mode changed",
        TdDeath::CorruptedMetadata => "its metadata is corrupted",
    }
}
