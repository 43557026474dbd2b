//! Calling again: every call site has a bound, and what is said between two attempts is said here.
//!
//! All locks of the module are try-locks without a queue. A call that finds one taken gets OPERAND_BUSY and
//! has to be issued again; while the host wants a lock that the guest holds, the lock carries the host's
//! priority mark, and the guest cannot take it any more until a host call got it (invariant 51). So giving
//! up is not free: whoever gives up on a Secure-EPT entry has to take its lock once more with a cheap call,
//! which the hooks of [`crate::memory`] do.

pub use tdvisor_base::sync::pause;
use tdx_module_iface::outcome::{Retry, SeamError};

/// How often a call is issued at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(pub u32);

impl Bound {
    /// System and TD management: other LPs may hold a lock for as long as a whole leaf takes.
    pub const MANAGEMENT: Self = Self(100_000);
    /// Memory leaves beside running vCPUs: short, because vCPUs can be kicked out instead.
    pub const BESIDE_VCPUS: Self = Self(64);
    /// Memory leaves with every vCPU outside: only another TD can be in the way.
    pub const WITHOUT_VCPUS: Self = Self(10_000);
    /// Leaves that an interrupt may cut short with nothing done.
    pub const RESTARTABLE: Self = Self(10_000);
}

/// Issues `call` until it does something else than ask to be issued again, or the bound is reached.
///
/// # Errors
/// The call's error; after the bound, its last request to call again.
pub fn bounded<T, D>(
    bound: Bound,
    mut call: impl FnMut() -> Result<T, SeamError<D>>,
) -> Result<T, SeamError<D>> {
    let mut attempt = 1;
    loop {
        match call() {
            Err(error) if error.retry().is_some() && attempt < bound.0 => {
                pause(attempt);
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Whether a failed call only found a lock taken.
pub fn is_busy<D>(error: &SeamError<D>) -> bool {
    matches!(error.retry(), Some(Retry::Busy { .. } | Retry::SysBusy | Retry::PreviousTlbEpochBusy))
}

/// Whether a failed call was cut short by an interrupt with nothing done.
pub fn is_interrupted<D>(error: &SeamError<D>) -> bool {
    matches!(error.retry(), Some(Retry::InterruptedRestartable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf};

    fn busy() -> SeamError {
        let status = Status::with_operand(StatusCode::OPERAND_BUSY, Operand::TDR);
        SeamError::Retry { leaf: TdhLeaf::MNG_INIT, status, retry: Retry::Busy { operand: Operand::TDR } }
    }

    #[test]
    fn inv_18_a_busy_call_is_issued_a_bounded_number_of_times() {
        let mut calls = 0;
        let result = bounded(Bound(5), || -> Result<(), SeamError> {
            calls += 1;
            Err(busy())
        });
        assert_eq!((calls, result), (5, Err(busy())));
    }

    #[test]
    fn a_refusal_is_not_repeated() {
        let mut calls = 0;
        let refused = SeamError::Refused {
            leaf: TdhLeaf::MNG_INIT,
            status: Status::new(StatusCode::TD_FATAL),
            details: None,
        };
        let result = bounded(Bound::MANAGEMENT, || -> Result<(), SeamError> {
            calls += 1;
            Err(refused)
        });
        assert_eq!((calls, result), (1, Err(refused)));
    }
}
