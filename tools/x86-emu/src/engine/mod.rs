//! Engines: who carries out what a [`Cpu`] decodes.
//!
//! An engine keeps what it made of the guest's code; everything that the architecture knows is in the [`Cpu`], which may go
//! from one engine to another between two runs. Every engine retires the same instructions with the same effects, budgets
//! and exits: the choice is one of speed alone.

mod choice;
mod compiler;
mod interpreter;
mod turn;

use tdvisor_base::Pfn;
use tdvisor_base::sync::AtomicBool;

use crate::bus::Bus;
use crate::cpu::{Budget, Cpu, Env};
use crate::decode::cache::CodeCache;
use crate::exits::Exit;
use crate::stop::Step;

pub use choice::{AnyEngine, EngineKind, UnknownEngine};
pub use compiler::Compiler;
pub use interpreter::Interpreter;

/// Runs the instructions of a [`Cpu`].
pub trait Engine {
    /// Runs instructions until something concerns the owner. `kick` is polled between blocks of instructions: while it is
    /// set, a run ends with [`Exit::ExternalInterrupt`].
    fn run<B: Bus>(
        &mut self,
        cpu: &mut Cpu,
        bus: &mut B,
        budget: Budget,
        kick: &AtomicBool,
    ) -> Exit<B::Refusal>;

    /// Linear addresses and pages of memory whose code this engine may run for `cpu` without translating the address again.
    fn reachable_code<'a>(&'a self, cpu: &'a Cpu) -> impl Iterator<Item = (u64, Pfn)> + 'a;
}

/// What an engine brings to the loop that all of them share.
trait Blocks {
    /// The decoded blocks.
    fn cache(&mut self) -> &mut CodeCache;

    /// Runs blocks from RIP on until something has to be looked at, and takes what was retired from `left`.
    fn run_blocks(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, left: &mut u64) -> Step;
}
