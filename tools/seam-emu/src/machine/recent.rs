//! What happened last: the exits of a guest that a person asks for when it has died.

use core::fmt;
use std::collections::VecDeque;

use tdvisor_base::sync::Mutex;
use tdx_module_iface::TdgLeaf;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::ghci::{self, Function};
use x86_arch::Gpr;

use crate::guest::{GuestState, VmExit};

/// The last entries of a kind, oldest first.
#[derive(Debug)]
pub struct Recent<T>(Mutex<VecDeque<T>>);

impl<T> Recent<T> {
    /// How many are kept.
    pub const KEPT: usize = 16;
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Recent<T> {
    /// Adds one; the oldest gives way.
    pub fn push(&self, entry: T) {
        let mut kept = self.0.lock();
        if kept.len() == Self::KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// Changes the newest.
    pub(super) fn amend(&self, change: impl FnOnce(&mut T)) {
        if let Some(newest) = self.0.lock().back_mut() {
            change(newest);
        }
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> Vec<T> {
        self.0.lock().iter().cloned().collect()
    }
}

/// Whom a guest called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestCall {
    /// The module.
    Module(TdgLeaf),
    /// The host, by TDG.VP.VMCALL, for a function of the GHCI.
    Host(Function),
    /// The host, for a function of a vendor.
    Vendor,
}

impl GuestCall {
    /// What the registers of a guest at its TDCALL ask for.
    fn of(state: &GuestState) -> Self {
        let leaf = TdgLeaf(state.gpr(Gpr::Rax) as u16);
        if leaf != TdgLeaf::VP_VMCALL {
            Self::Module(leaf)
        } else if state.gpr(Gpr::R10) == ghci::STANDARD {
            Self::Host(Function(state.gpr(Gpr::R11)))
        } else {
            Self::Vendor
        }
    }
}

impl fmt::Display for GuestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(leaf) => leaf.fmt(f),
            Self::Host(function) => write!(f, "TDVMCALL {function}"),
            Self::Vendor => f.write_str("TDVMCALL of a vendor"),
        }
    }
}

/// An exit of a guest to the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestExit {
    /// Why.
    pub reason: ExitReason,
    /// What the guest asked for, if the exit was a TDCALL.
    pub call: Option<GuestCall>,
    /// Where: the guest's private contents, which a host may see of a TD in debug mode only.
    pub rip: u64,
    /// The TD left for its host. A host does not learn of the other exits of a TD that is not in debug mode.
    pub reached_host: bool,
}

impl GuestExit {
    pub(crate) fn new(exit: &VmExit, state: &GuestState) -> Self {
        let reason = exit.reason.basic();
        Self {
            reason,
            call: (reason == ExitReason::TDCALL).then(|| GuestCall::of(state)),
            rip: state.rip(),
            reached_host: false,
        }
    }
}

impl fmt::Display for GuestExit {
    /// Without anything of the guest's contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.call {
            Some(call) => call.fmt(f),
            None => self.reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_oldest_give_way() {
        let recent = Recent::<usize>::default();
        assert!(recent.all().is_empty());
        for entry in 0..Recent::<usize>::KEPT + 3 {
            recent.push(entry);
        }
        assert_eq!(recent.all(), (3..Recent::<usize>::KEPT + 3).collect::<Vec<_>>());
        recent.amend(|newest| *newest = 99);
        assert_eq!(recent.all().last(), Some(&99));
    }

    #[test]
    fn a_call_is_named_by_its_leaf_and_a_call_of_the_host_by_its_function() {
        let mut state = GuestState::default();
        let mut named = |rax: u64, r10: u64, r11: u64| {
            state.set_gpr(Gpr::Rax, rax);
            state.set_gpr(Gpr::R10, r10);
            state.set_gpr(Gpr::R11, r11);
            GuestExit::new(&VmExit::plain(ExitReason::TDCALL), &state).to_string()
        };
        assert_eq!(named(6, 0, 0), "TDG.MEM.PAGE.ACCEPT");
        assert_eq!(named(0, 0, 0x10002), "TDVMCALL GetQuote");
        assert_eq!(named(0, 5, 0x10002), "TDVMCALL of a vendor");
        let cpuid = GuestExit::new(&VmExit::plain(ExitReason::CPUID), &state);
        assert_eq!((cpuid.call, cpuid.to_string()), (None, "CPUID".to_owned()));
    }
}
