//! The order in which a vCPU falls asleep.
//!
//! # Protocol
//! Before each wait the vCPU looks at everything that ends its sleep: first at what it is asked for, then at its
//! posted-interrupt descriptor, then at what the processor took into the virtual APIC earlier. Whoever brings one of
//! these about does it *first* and interrupts the LP *afterwards*; an LP's wait ends at once if it was interrupted
//! since the last wait ([`crate::platform::Lp::wait_for_event`]). So a cause that comes before the look is seen, and
//! one that comes after it ends the wait.
//!
//! A vCPU that somebody wants something of leaves its sleep for that, and may sleep on afterwards: its guest hears nothing of it
//! ([`Slept`]).
//!
//! It is a function of its own so that its schedules can be explored: `vmm-core/tests/shuttle.rs`.

use crate::ghci::Wake;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Something is there for the guest: its HLT is over.
    Over,
    /// Somebody wants something of the vCPU. Unless that wakes the guest, the vCPU sleeps on afterwards.
    Wanted,
    /// The machine has stopped for good: the sleep is not over.
    Frozen,
}

/// A vCPU on its way to sleep.
pub trait Sleeper {
    /// What can go wrong on the way.
    type Error;

    /// Delivers the timer's interrupt if it is due, and sets the LP's timer.
    ///
    /// # Errors
    /// As the implementation has them.
    fn serve_timer(&mut self) -> Result<(), Self::Error>;

    /// Whether somebody wants something of the vCPU, an NMI included, or its TD has ended.
    fn is_wanted(&self) -> bool;

    /// Whether an interrupt is posted that the processor has not taken.
    fn is_posted(&self) -> bool;

    /// Whether the virtual APIC holds an interrupt that the guest could take.
    ///
    /// # Errors
    /// As the implementation has them.
    fn is_undelivered(&mut self) -> Result<bool, Self::Error>;

    /// Waits on the LP for an IPI or the timer.
    ///
    /// # Errors
    /// As the implementation has them.
    fn wait(&mut self) -> Result<(), Self::Error>;

    /// Whether the machine stopped for good in the wait.
    fn is_frozen(&self) -> bool {
        false
    }
}

/// Sleeps until there is a reason to enter the guest, or something to do before.
///
/// # Errors
/// The sleeper's.
pub fn sleep<S: Sleeper>(sleeper: &mut S, wake: Wake) -> Result<Slept, S::Error> {
    loop {
        sleeper.serve_timer()?;
        if sleeper.is_wanted() {
            return Ok(Slept::Wanted);
        }
        if wake == Wake::Interrupt && (sleeper.is_posted() || sleeper.is_undelivered()?) {
            return Ok(Slept::Over);
        }
        sleeper.wait()?;
        if sleeper.is_frozen() {
            return Ok(Slept::Frozen);
        }
    }
}
