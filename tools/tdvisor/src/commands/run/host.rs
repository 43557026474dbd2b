//! The machine under a TD: ours, or one that has TDX.

use std::sync::Arc;

use machine_emu::Freezer;
use machine_emu::trace::Trace;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_monitor::QuoteSource;
use tdvisor_runtime::Machine;
use tdvisor_runtime::kvm::{clock, host as kvm};

use super::quotes::{Genuine, LastQuote, TestIssuer};

/// The machine under the TD.
pub(super) enum Host {
    Emulated(Box<Machine>),
    Kvm(kvm::Linux),
}

impl Host {
    /// The host's time, for the timers of the board.
    pub(super) fn clock(&self) -> Nanoseconds {
        match self {
            Self::Emulated(machine) => nanoseconds_of(machine.platform().machine()),
            Self::Kvm(_) => clock(),
        }
    }

    /// Where a TD's quotes come from that no service gives. A TD on a processor gets test quotes where somebody asks for them.
    pub(super) fn issuer(&self, last: &LastQuote, wanted: bool) -> Option<Box<dyn QuoteSource>> {
        let genuine = match self {
            Self::Emulated(machine) => Genuine::Machine(machine.platform().machine()),
            Self::Kvm(_) if wanted => Genuine::Unchecked,
            Self::Kvm(_) => return None,
        };
        Some(Box::new(TestIssuer::new(genuine, last.clone())))
    }

    /// What freezes a machine that takes turns.
    pub(super) fn freezer(&self) -> Option<Freezer> {
        match self {
            Self::Emulated(machine) => machine.platform().freezer(),
            Self::Kvm(_) => None,
        }
    }

    pub(super) fn trace(&self) -> Option<&Trace> {
        match self {
            Self::Emulated(machine) => Some(machine.platform().trace()),
            Self::Kvm(_) => None,
        }
    }
}

/// The machine's time, for the timers of its board.
pub(in crate::commands) fn nanoseconds_of(machine: Arc<seam_emu::Machine>) -> Nanoseconds {
    const NANOSECONDS: u128 = 1_000_000_000;
    let hertz = u128::from(machine.config().tsc_hz.max(1));
    Box::new(move || (u128::from(machine.tsc()) * NANOSECONDS / hertz) as u64)
}
