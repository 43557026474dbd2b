//! Host code for blocks of a guest's instructions: a template compiler from x86-64 to x86-64, the memory its code lies in, and
//! the calls into it. It knows registers, flags and pages, and nothing of events, faults or time.
//!
//! # Protocol
//! - The owner describes a block ([`Unit`]): where it is in linear memory, the page its bytes are in, and its
//!   instructions as data ([`ir`]). An instruction that it gives as `None` is its own to do.
//! - [`Translator::run`] enters a block at an instruction. Code goes from block to block by itself, by links and by a table of
//!   linear addresses that the owner fills, and comes back with an [`Exit`]: at the latest when the budget is used up.
//! - An entry of that table holds where a linear page is known to lead to the page of memory that its code was made of. So the
//!   entries outlive a change of the address space, and one look at a page brings all of them back.
//! - Every block counts its instructions when it is entered, so a budget is exact; one that has not enough left is not
//!   entered. Who comes back in the middle of a block has paid for all of it.
//! - A block looks at its page's code generation whenever it is entered from another one.
//!
//! # Why the unsafe code here is sound
//! Compiled code reads and writes three things, whatever the guest does and whatever a caller says in safe code.
//! - *Its context (`context.rs`), its own slots of data, and the tables that the context points to.* They are borrowed, or owned by
//!   the translator, for as long as code runs; the tables have fixed sizes, and an index into them is masked.
//! - *Guest memory*: only at `linear + addend` of an entry of the [`HostTlb`] whose page is that of the first and of the last byte of the
//!   access. So the access lies inside the page of one [`phys_memory::Window`]. A window is good while the arena is borrowed and
//!   has the incarnation it was made in: [`Translator::run`] borrows the arena, and drops entries and code of another incarnation first.
//!   The accesses are single instructions of the host's, as those of the arena: races are between machine accesses.
//! - *State words of pages*, by the same windows.
//!
//! It runs no privileged instruction, none that can fault (a division is checked first, a guest's MXCSR that lets exceptions through is not
//! loaded, an operand that must be aligned is), and leaves stack pointer and direction flag alone; the one entry (`run.rs`) says which
//! registers change. It jumps to labels of its own block, and to
//! addresses in slots and in the jump table, which only hold entries of code of the same region; both are emptied when that code
//! goes. Code is written through one mapping and run through another (`region.rs`): no address is both writable and executable.
//!
//! The region is bounded ([`CODE_BYTES`]); when it is full, all code goes, and hot blocks come back.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod asm;
mod compile;
mod context;
pub mod ir;
#[expect(unsafe_code, reason = "mappings of code; the proof is in the crate's docs")]
mod region;
#[expect(unsafe_code, reason = "the jump into compiled code; the proof is in the crate's docs")]
mod run;
#[cfg(test)]
mod tests;
mod tlb;
mod translator;

pub use tlb::{CodePlace, HostTlb, Right};
pub use translator::{CodeId, Guest, MAX_BUDGET, Sse, Translator, Trust};

use tdvisor_base::Pfn;

/// Bytes of compiled code that one translator keeps.
pub const CODE_BYTES: usize = region::REGION_BYTES;

/// One instruction of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What the instruction does, if the compiler is to do it.
    pub insn: Option<ir::Insn>,
    /// Where the instruction ends, in bytes from the block's first.
    pub end: u16,
}

/// A block to be compiled: instructions that follow each other in one page.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// Linear address of the first byte; 64-bit mode.
    pub rip: u64,
    /// The page that holds the block.
    pub page: Pfn,
    /// The page's code generation when the instructions were read.
    pub generation: u32,
    /// The instructions. Only the last may end a block.
    pub steps: &'a [Step],
}

/// Why compiled code came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The next instruction is at the first byte of another block, which this one is not linked to; or the block's page has another
    /// generation, and the address is the block's own.
    Leave {
        /// Where.
        rip: u64,
        /// What [`Translator::link`] wants.
        from: Link,
    },
    /// The block at which the guest stands has more instructions than the budget.
    Budget,
    /// The owner does this instruction of the block, by number; nothing of it was done.
    Interpret {
        /// The step's number in its block.
        step: usize,
        /// The access that was not possible, if that is why.
        miss: Option<Miss>,
    },
    /// The instruction is done; its store at this address went into a page with watched code, and the owner ends the block
    /// behind it.
    Stored {
        /// The step's number in its block.
        step: usize,
        /// Where the store was.
        linear: u64,
        /// Where the guest goes on, if the instruction was a call.
        rip: u64,
    },
}

/// An access to a page that compiled code does not know with this right, or whose state asks for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss {
    /// The linear address.
    pub linear: u64,
    /// What is wanted there.
    pub right: Right,
}

/// A way out of compiled code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    code: CodeId,
    number: usize,
}

/// The low bits of the word that code comes back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum ExitKind {
    Link = 0,
    Budget = 1,
    Interpret = 2,
    SlowRead = 3,
    Stored = 4,
    SlowWrite = 5,
}

const KIND_BITS: u32 = 8;
const CODE_SHIFT: u32 = 32;

/// What code comes back with: its kind, the number of an instruction or a link, and which code it is.
const fn exit_word(kind: ExitKind, number: u32, code: u32) -> u64 {
    kind as u64 | ((number as u64) << KIND_BITS) & 0xFFFF_FF00 | (code as u64) << CODE_SHIFT
}

/// Why there is no compiler.
#[derive(Debug)]
pub struct Unavailable(pub std::io::Error);

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the operating system gives no memory for code: {}", self.0)
    }
}

impl core::error::Error for Unavailable {}
