//! A software x86-64 CPU: registers and a [`Bus`] in, an [`Exit`] out. It knows nothing of TDX.
//!
//! ```
//! use phys_memory::{Arena, KeySpace};
//! use tdvisor_base::sync::{Arc, AtomicBool};
//! use tdvisor_base::{Hpa, KeyId};
//! use x86_arch::Gpr;
//! use x86_emu::{Budget, Cpu, Engine, Exit, FlatBus, InstructionExit, Interpreter};
//!
//! let memory = Arc::new(Arena::new(1 << 20, KeySpace::SHARED_ONLY));
//! let code = [0x01, 0xC8, 0xF4]; // add eax, ecx; hlt
//! memory.write(Hpa::new(0x1000), KeyId::DEFAULT, &code).expect("inside of the memory");
//!
//! let mut cpu = Cpu::new(); // in 32-bit protected mode, without paging
//! cpu.state.set_rip(0x1000);
//! cpu.state.set_gpr(Gpr::Rax, 2);
//! cpu.state.set_gpr(Gpr::Rcx, 3);
//! let mut bus = FlatBus::new(memory);
//! let exit = Interpreter::new().run(&mut cpu, &mut bus, Budget(100), &AtomicBool::new(false));
//!
//! assert_eq!(exit, Exit::Instruction { what: InstructionExit::Hlt, length: 1 });
//! assert_eq!(cpu.state.gpr(Gpr::Rax), 5);
//! ```
//!
//! # Protocol
//! - The owner makes a [`Cpu`], sets its [`Cpu::state`] (an `x86_arch::CpuState`), and gives it to the [`Engine`] of its choice:
//!   [`Engine::run`] takes a [`Bus`] as well, a [`Budget`] of instructions and a kick flag.
//! - The kick flag is polled between blocks of instructions; a set flag ends the run with
//!   [`Exit::ExternalInterrupt`] and stays set.
//! - An [`Exit::Instruction`] leaves RIP at the instruction. The owner performs it (registers of the state,
//!   [`Cpu::complete_in`], [`Cpu::write_msr`], [`Cpu::write_cr`], [`Cpu::write_xcr0`]: each does the
//!   architectural checks and gives the event to inject instead) and then calls [`Cpu::advance`].
//! - [`Cpu::inject`] queues one event, which the next run delivers first; a refused access during the
//!   delivery comes back as [`Exit::Refused`] with `idt_vectoring` set, and the owner injects it again.
//! - [`Cpu::tlb`] holds translations until the CPU or the owner drops them. An owner that changes CR0, CR3,
//!   CR4 or EFER in the public state directly must flush it.
//!
//! # Invariants
//! - An instruction that ends in a fault or an exit has changed nothing, except that string instructions
//!   with REP keep the iterations they completed, and Accessed and Dirty bits may be set.
//! - What is not implemented stops with [`Exit::Unimplemented`]; nothing is approximated.

#![forbid(unsafe_code)]

mod breakpoints;
pub mod bus;
pub mod controls;
pub mod cpu;
mod decode;
mod delivery;
pub mod engine;
pub mod exits;
mod flat;
mod inspect;
mod memory;
mod op;
mod operand;
mod ops;
mod paging;
mod protection_keys;
pub mod registers;
mod segments;
mod softfloat;
mod stop;
mod stop_points;
pub mod tlb;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use bus::{Answer, Bus, Translation};
pub use controls::Controls;
pub use cpu::{Budget, Cpu};
pub use decode::{implements, offers};
pub use engine::{AnyEngine, Compiler, Engine, EngineKind, Interpreter, UnknownEngine};
pub use exits::{
    Exit, InstructionExit, Io, IoDirection, RefusedAccess, RefusedBy, Shutdown, StringIo, Unimplemented,
};
pub use flat::FlatBus;
pub use iced_x86::CpuidFeature;
pub use inspect::guest_physical;
pub use operand::NotPerformed;
pub use registers::MsrError;
pub use stop_points::{StopOn, StopPoint};
pub use tlb::Tlb;
pub use x86_jit::Unavailable;
