//! What goes wrong, and whose fault it is.
//!
//! Busy, retry and interrupted are control flow and do not appear here unless a bound was exceeded. An error
//! carries the leaf, the whole 64-bit status and what was being done; [`Blame`] says who has to change
//! something.

use core::fmt;

use mirror_ept::{Death, HookError, MmuError, Violation};
use td_image::td_hob::HobTooLarge;
use td_image::tdvf::TdvfError;
use tdvisor_base::{Gfn, Gpa, Hpa};
use tdx_module_iface::outcome::SeamError;
use tdx_module_iface::{Status, TdhLeaf};

use crate::host::PlanError;
use crate::memory::SeptError;
use crate::platform::{LpId, NotMemory};
use crate::td::config::ConfigError;

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The guest did something that a TD may not do.
    Guest,
    /// The caller on the host gave something unusable.
    Caller,
    /// The machine lacks something: memory, key ids, processors.
    Machine,
    /// The module did not keep to its interface, or is not there.
    Module,
    /// tdvisor broke one of its own rules.
    Bug,
}

/// An operation of the host that failed. Unless it says otherwise, nothing half-made is left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A leaf refused, or stayed busy beyond its bound.
    Seam(SeamError),
    /// No TDMR plan exists for this memory.
    Plan(PlanError),
    /// The host's memory is exhausted.
    NoMemory,
    /// All private key ids are in use.
    NoKeyId,
    /// An address is not memory of this machine.
    NotMemory(Hpa),
    /// An LP that does not exist, or all places of the TD's MMU are taken.
    NoLp(LpId),
    /// A size, count or option that the caller gave cannot be used.
    Caller(&'static str),
    /// A guest frame is outside every memory slot.
    NoSlot(Gfn),
    /// The image cannot be loaded.
    Image(TdvfError),
    /// The TD cannot be had as it was asked for.
    Config(ConfigError),
    /// The TD HOB does not fit its section.
    Hob(HobTooLarge),
    /// The TD's page tables could not be changed, and why. Where a hook failed in the middle of a range, what came
    /// before it is changed.
    Mmu(MmuError<SeptError>),
    /// A page could be neither mapped nor split within the bound of attempts.
    StayedBusy(Gfn),
    /// Mirror, Secure EPT and PAMT do not agree.
    Audit(Violation),
    /// The module's answer contradicts what the host knows.
    Contradiction {
        /// Which leaf.
        leaf: TdhLeaf,
        /// What does not fit.
        what: &'static str,
        /// For which address.
        at: Gpa,
    },
}

impl Error {
    /// Who has to change something.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Seam(_) | Self::Contradiction { .. } => Blame::Module,
            Self::Plan(_) | Self::NoMemory | Self::NoKeyId => Blame::Machine,
            Self::Caller(_)
            | Self::NoLp(_)
            | Self::NoSlot(_)
            | Self::Hob(_)
            | Self::Image(_)
            | Self::Config(_) => Blame::Caller,
            Self::Mmu(error) => blame_of(error),
            Self::NotMemory(_) | Self::StayedBusy(_) | Self::Audit(_) => Blame::Bug,
        }
    }

    /// The module's status, where there is one.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Seam(error) => error.status(),
            Self::Mmu(error) => hook_error(error).and_then(|why| match why {
                HookError::Refused(error) | HookError::Fatal(error) => error.status(),
                HookError::Busy | HookError::Interrupted | HookError::NoMemory => None,
            }),
            _ => None,
        }
    }
}

/// What a hook said, where the MMU failed because one did.
const fn hook_error(error: &MmuError<SeptError>) -> Option<&HookError<SeptError>> {
    match error {
        MmuError::Hook { why, .. } | MmuError::Dead(Death { why: Some(why), .. }) => Some(why),
        _ => None,
    }
}

/// Whose fault it is that the page tables could not be changed.
fn blame_of(error: &MmuError<SeptError>) -> Blame {
    match (hook_error(error), error) {
        (Some(HookError::Refused(error) | HookError::Fatal(error)), _) => error.blame(),
        // The module stayed busy beyond the bound of its caller.
        (Some(HookError::Busy | HookError::Interrupted), _) => Blame::Module,
        (Some(HookError::NoMemory), _) | (None, MmuError::NoMemory) => Blame::Machine,
        (None, MmuError::OutOfRange(_) | MmuError::NotApplicable(_)) => Blame::Caller,
        (None, MmuError::TooManyDevices(_)) => Blame::Guest,
        (None, _) => Blame::Bug,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seam(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::NoMemory => f.write_str("the machine has no memory left; give the TD less"),
            Self::NoKeyId => f.write_str("all private key ids are in use; end another TD first"),
            Self::NotMemory(hpa) => write!(f, "{hpa} is not memory of this machine"),
            Self::NoLp(lp) => write!(f, "logical processor {} is not available", lp.0),
            Self::Caller(what) => f.write_str(what),
            Self::NoSlot(gfn) => write!(f, "guest frame {gfn} is outside the TD's memory"),
            Self::Image(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Hob(error) => error.fmt(f),
            Self::Mmu(error) => error.fmt(f),
            Self::StayedBusy(gfn) => write!(f, "the page at guest frame {gfn} stayed busy"),
            Self::Audit(violation) => violation.fmt(f),
            Self::Contradiction { leaf, what, at } => write!(f, "{leaf} at {at}: {what}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

impl From<NotMemory> for Error {
    fn from(NotMemory(hpa): NotMemory) -> Self {
        Self::NotMemory(hpa)
    }
}

impl From<TdvfError> for Error {
    fn from(error: TdvfError) -> Self {
        Self::Image(error)
    }
}

impl From<MmuError<SeptError>> for Error {
    fn from(error: MmuError<SeptError>) -> Self {
        match error {
            MmuError::NoMemory => Self::NoMemory,
            error => Self::Mmu(error),
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Audit(violation)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<HobTooLarge> for Error {
    fn from(error: HobTooLarge) -> Self {
        Self::Hob(error)
    }
}

impl<D> From<SeamError<D>> for Error {
    fn from(error: SeamError<D>) -> Self {
        Self::Seam(error.without_details())
    }
}
