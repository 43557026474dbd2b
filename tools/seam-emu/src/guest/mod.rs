//! The processor that executes a guest, as the module sees it.
//!
//! TDH.VP.ENTER loads a vCPU's state, gives it to a [`GuestCpu`] and gets a [`VmExit`] back: the architectural
//! exit information, nothing else. The module handles the exit (a TDCALL, an EPT violation, an instruction
//! that a TD may not execute), possibly changes the registers or queues an event for injection, and runs the
//! guest again, or ends the run with a TD exit. A `GuestCpu` therefore never learns which it was, except by
//! being run again.
//!
//! During a run the guest reaches memory through [`GuestEnv`] only, which walks the Secure EPT for private
//! and the shared EPT for shared addresses, and records every translation in the LP's TLB.

mod cpu;
mod exit;
mod program;
mod state;

pub use cpu::{CpuGuest, debug, samples};
pub use exit::{VmExit, reason};
pub use program::{GuestError, GuestProgram, TdGuest, VpInfo};
pub use state::{GuestRegisters, GuestState, Window, Windows, gpr};
pub use tdx_module_iface::exit::{ExitReason, ExitReasonField};

use tdvisor_base::Gpa;

use crate::machine::GuestEnv;

/// The processor of a guest.
pub trait GuestCpu {
    /// Runs the guest from `state` until it exits. `state.event`, if set, is delivered first and must be
    /// taken out by the callee. [`GuestEnv::windows`] says what else it exits for.
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit;

    /// Whether interrupts that are posted reach the guest at its entry, as a processor with a local APIC does it.
    fn takes_posted_interrupts(&self) -> bool {
        true
    }

    /// Translations that the processor caches for the current guest are void (all, or those of one address).
    ///
    /// It is called for what happens while a guest runs. A processor that keeps translations from one TD entry to
    /// the next compares [`GuestEnv::translations`] at every run.
    fn flush_translations(&mut self, only: Option<Gpa>) {
        let _ = only;
    }
}

impl<C: GuestCpu + ?Sized> GuestCpu for Box<C> {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        (**self).run(state, env)
    }

    fn takes_posted_interrupts(&self) -> bool {
        (**self).takes_posted_interrupts()
    }

    fn flush_translations(&mut self, only: Option<Gpa>) {
        (**self).flush_translations(only);
    }
}

/// A guest written as a closure: each call is one step, which ends in a VM exit.
#[derive(Debug)]
pub struct ScriptedGuest<F>(pub F);

impl<F: FnMut(&mut GuestState, &GuestEnv<'_>) -> VmExit> GuestCpu for ScriptedGuest<F> {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        (self.0)(state, env)
    }
}
