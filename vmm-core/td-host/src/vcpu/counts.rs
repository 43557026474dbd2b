//! Exits by reason.
//!
//! The reasons are a bounded set ([`ExitKind::MOST`]): a guest chooses the number of its call, and must not choose how
//! much its host remembers. Numbers without a name share one entry.

use core::fmt;

use mirror_ept::BadNumbers;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::ghci::{Function, STANDARD};
use tdx_module_iface::tdh::TdExit;

/// Why a vCPU left the guest, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitKind {
    /// TDG.VP.VMCALL for a function of the GHCI.
    Call(Function),
    /// TDG.VP.VMCALL for a function that the GHCI does not define.
    UnknownCall,
    /// TDG.VP.VMCALL for a vendor's function.
    Vendor,
    /// Anything else, by VMX exit reason.
    Exit(ExitReason),
    /// A VMX exit reason that has no name.
    UnknownExit,
    /// TDG.VP.VMCALL of an L2 VM, which its L1 let through to the host.
    L2Call,
    /// An exit of an L2 VM that is for the host, by VMX exit reason.
    L2Exit(ExitReason),
    /// An exit of an L2 VM whose reason has no name.
    L2UnknownExit,
}

impl ExitKind {
    /// How many different reasons there are at most.
    pub const MOST: usize = Function::ALL.len() + 2 * ExitReason::ALL.len() + 5;

    /// The reason as two numbers.
    pub(super) const fn numbers(self) -> [u64; 2] {
        match self {
            Self::Call(function) => [0, function.0],
            Self::UnknownCall => [1, 0],
            Self::Vendor => [2, 0],
            Self::Exit(reason) => [3, reason.0 as u64],
            Self::UnknownExit => [4, 0],
            Self::L2Call => [5, 0],
            Self::L2Exit(reason) => [6, reason.0 as u64],
            Self::L2UnknownExit => [7, 0],
        }
    }

    /// The reason of two numbers. One that has no name is one of the unknown.
    pub(super) fn of_numbers([what, number]: [u64; 2]) -> Result<Self, BadNumbers> {
        let reason = || u16::try_from(number).map(ExitReason).map_err(|_| BadNumbers);
        Ok(match what {
            0 => Self::of_call(STANDARD, number),
            1 => Self::UnknownCall,
            2 => Self::Vendor,
            3 => Self::of_reason(reason()?),
            4 => Self::UnknownExit,
            5 => Self::L2Call,
            6 => Self::of_l2_reason(reason()?),
            7 => Self::L2UnknownExit,
            _ => return Err(BadNumbers),
        })
    }

    /// The reason of an exit.
    pub fn of(exit: &TdExit) -> Self {
        use tdx_module_iface::Reg;
        match exit {
            TdExit::TdVmCall(call) if call.vm != 0 => Self::L2Call,
            TdExit::TdVmCall(call) => Self::of_call(
                call.gprs.get(Reg::R10).unwrap_or_default(),
                call.gprs.get(Reg::R11).unwrap_or_default(),
            ),
            TdExit::Async(exit) if exit.vm != 0 => Self::of_l2_reason(exit.reason.basic()),
            TdExit::Async(exit) => Self::of_reason(exit.reason.basic()),
        }
    }

    /// A call by its R10 and R11.
    const fn of_call(r10: u64, r11: u64) -> Self {
        let function = Function(r11);
        if r10 != STANDARD {
            Self::Vendor
        } else if function.name().is_some() {
            Self::Call(function)
        } else {
            Self::UnknownCall
        }
    }

    const fn of_l2_reason(reason: ExitReason) -> Self {
        if reason.name().is_some() { Self::L2Exit(reason) } else { Self::L2UnknownExit }
    }

    const fn of_reason(reason: ExitReason) -> Self {
        if reason.name().is_some() { Self::Exit(reason) } else { Self::UnknownExit }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(function) => write!(f, "TDVMCALL {function}"),
            Self::UnknownCall => f.write_str("TDVMCALL of no known function"),
            Self::Vendor => f.write_str("TDVMCALL of a vendor"),
            Self::Exit(reason) => write!(f, "{reason}"),
            Self::UnknownExit => f.write_str("exit of no known reason"),
            Self::L2Call => f.write_str("TDVMCALL of an L2 VM"),
            Self::L2Exit(reason) => write!(f, "L2 VM: {reason}"),
            Self::L2UnknownExit => f.write_str("L2 VM: exit of no known reason"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn whatever_numbers_a_guest_calls_the_reasons_are_a_bounded_set() {
        let mut kinds = BTreeSet::new();
        for number in 0..0x2_0000u64 {
            kinds.insert(ExitKind::of_call(STANDARD, number));
            kinds.insert(ExitKind::of_call(STANDARD, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            kinds.insert(ExitKind::of_call(number | 1, number));
            kinds.insert(ExitKind::of_reason(ExitReason(number as u16)));
            kinds.insert(ExitKind::of_l2_reason(ExitReason(number as u16)));
        }
        kinds.insert(ExitKind::L2Call);
        assert_eq!(kinds.len(), ExitKind::MOST, "{kinds:?}");
    }
}
