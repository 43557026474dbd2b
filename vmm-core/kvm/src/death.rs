//! Why a TD cannot go on.

use std::fmt;

use tdvisor_vm::MemoryFault;
use tdx_module_iface::Status;

use crate::error::Error;

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
    /// The kernel refused what the TD needed.
    Kernel(Error),
    /// The vCPU does not exist.
    NoSuchVcpu,
    /// A triple fault (KVM_EXIT_SHUTDOWN).
    TripleFault,
    /// The module did not enter the guest (KVM_EXIT_FAIL_ENTRY).
    NotEntered {
        /// The VMX exit reason.
        reason: u64,
        /// The CPU that it happened on.
        cpu: u32,
    },
    /// TDH.VP.ENTER answered what KVM does not handle (KVM_EXIT_INTERNAL_ERROR).
    UnhandledStatus(Status),
    /// KVM met an error of its own (KVM_EXIT_INTERNAL_ERROR).
    Internal {
        /// The kind of the internal error.
        kind: u32,
        /// What KVM says of the error.
        words: Vec<u64>,
    },
    /// KVM came back for a reason that nothing handles.
    UnhandledExit {
        /// The exit reason, KVM_EXIT_….
        reason: u32,
        /// The function, event or hypercall in it, where there is one.
        number: u64,
    },
    /// Memory was touched that the guest cannot have, and nobody mended that.
    MemoryFault(MemoryFault),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vcpu = self.vcpu;
        match &self.cause {
            DeathCause::Kernel(error) => error.fmt(f),
            DeathCause::NoSuchVcpu => write!(f, "vCPU {vcpu} does not exist"),
            DeathCause::TripleFault => write!(f, "triple fault on vCPU {vcpu}"),
            DeathCause::NotEntered { reason, cpu } => {
                write!(f, "vCPU {vcpu} could not be entered on CPU {cpu} (exit reason {reason:#x})")
            }
            DeathCause::UnhandledStatus(status) => {
                write!(f, "vCPU {vcpu} cannot go on: TDH.VP.ENTER answered {status}")
            }
            DeathCause::Internal { kind, words } => {
                write!(f, "KVM met an error of its own on vCPU {vcpu} (kind {kind}: {words:#x?})")
            }
            DeathCause::UnhandledExit { reason, number } => write!(
                f,
                "KVM came back from vCPU {vcpu} for exit reason {reason} (number {number:#x}), which nothing handles"
            ),
            DeathCause::MemoryFault(fault) => write!(f, "vCPU {vcpu} {fault}"),
        }
    }
}

impl std::error::Error for Death {}
