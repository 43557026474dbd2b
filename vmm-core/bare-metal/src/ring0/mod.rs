//! The processor in ring 0: what of this crate touches hardware.
//!
//! A [`Ring0`] stands for the promise that all of it rests on: the code runs in ring 0, on a machine that it has for
//! itself. The image makes one when it is entered; what needs hardware to be right asks for it.
//!
//! | file | does |
//! |---|---|
//! | [`cpu`] | the processor's instructions |
//! | [`port`] | I/O ports |
//! | [`area`], `vectors.s`, `exceptions` | each processor's tables and stacks, and what interrupts and exceptions do |
//! | [`identity`] | memory by physical address |
//! | [`paging`] | page tables |
//! | [`apic`] | the local APIC |
//! | [`start`] | other processors |

pub mod apic;
pub mod area;
pub mod cpu;
mod exceptions;
pub mod identity;
pub mod paging;
pub mod port;
pub mod start;

/// The machine is this program's.
#[derive(Clone, Copy, Debug)]
pub struct Ring0(());

impl Ring0 {
    /// Takes the machine.
    ///
    /// # Safety
    /// The code runs in ring 0, on the first processor of a machine on which nothing else runs, and below 4 GiB memory is
    /// mapped to itself.
    #[expect(unsafe_code, reason = "the promise that this room rests on is made here, and nothing is done")]
    pub const unsafe fn claim() -> Self {
        Self(())
    }
}
