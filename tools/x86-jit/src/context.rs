//! What compiled code has in memory beside its registers.

use core::mem::offset_of;

use crate::asm::{Host, Rm};
use crate::ir::{Reg, Segment};

/// Entries of the jump table; a power of two.
pub(crate) const JUMPS: usize = 16384;
/// How far a linear address is folded to find its place in the jump table.
pub(crate) const JUMP_FOLD: u8 = 13;

/// Where code for a linear address is, as long as that leads to a place in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Jump {
    pub(crate) rip: u64,
    /// See [`crate::CodePlace`].
    pub(crate) place: u64,
    pub(crate) code: u64,
    /// The number of the code, for the owner.
    pub(crate) index: u64,
}

/// log2 of an entry's size.
pub(crate) const JUMP_SHIFT: u8 = 5;
const _: () = assert!(size_of::<Jump>() == 1 << JUMP_SHIFT);

impl Jump {
    /// Matches nothing: no code is in this place.
    pub(crate) const NONE: Self = Self { rip: 0, place: u64::MAX, code: 0, index: 0 };

    pub(crate) const fn index(rip: u64) -> usize {
        (rip ^ rip >> JUMP_FOLD) as usize % JUMPS
    }
}

/// The arithmetic flags as compiled code keeps them in memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct SavedFlags {
    /// OF, 0 or 1.
    pub(crate) overflow: u8,
    /// SF, ZF, AF, PF and CF, where LAHF puts them.
    pub(crate) low: u8,
    /// Which bits of `low` count; the others are clear.
    pub(crate) mask: u8,
    unused: u8,
}

const OF_SHIFT: u32 = 11;

impl SavedFlags {
    pub(crate) const fn new(rflags: u64) -> Self {
        Self { overflow: (rflags >> OF_SHIFT & 1) as u8, low: rflags as u8, mask: 0xFF, unused: 0 }
    }

    /// The arithmetic flags in their places in RFLAGS.
    pub(crate) const fn arithmetic(self) -> u64 {
        (self.low & self.mask) as u64 | (self.overflow as u64 & 1) << OF_SHIFT
    }
}

/// The block of memory that RBP points at while compiled code runs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Context {
    pub(crate) gpr: [u64; 16],
    pub(crate) flags: SavedFlags,
    unused: u32,
    /// Where an indirect branch goes.
    pub(crate) rip: u64,
    /// The linear address of an access that compiled code cannot do.
    pub(crate) linear: u64,
    /// Host address of the code behind an indirect call.
    pub(crate) target: u64,
    /// FS, GS.
    pub(crate) bases: [u64; 2],
    /// Addresses of the tables that are in force.
    pub(crate) read_table: u64,
    pub(crate) write_table: u64,
    pub(crate) code_table: u64,
    pub(crate) jumps: u64,
    /// The address of the guest's XMM registers.
    pub(crate) xmm: u64,
    /// The address of the upper halves of the guest's YMM registers.
    pub(crate) upper: u64,
    pub(crate) mxcsr: u32,
    pub(crate) host_mxcsr: u32,
    pub(crate) floating_point: FloatingPoint,
    /// 1 if SSE is on.
    pub(crate) sse: u8,
    /// 1 if AVX is on.
    pub(crate) avx: u8,
    /// 1 if the guest may do what only privilege level 0 may.
    pub(crate) privileged: u8,
    /// RFLAGS but for the arithmetic flags.
    pub(crate) rest: u64,
}

/// Whose MXCSR the host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FloatingPoint {
    /// The host's own MXCSR; the guest's may be loaded.
    Own = 0,
    /// The guest's MXCSR.
    Loaded = 1,
    /// The host's own MXCSR: the guest's would let exceptions through.
    Refused = 2,
}

impl Context {
    pub(crate) const fn new() -> Self {
        Self {
            gpr: [0; 16],
            flags: SavedFlags::new(0),
            unused: 0,
            rip: 0,
            linear: 0,
            target: 0,
            bases: [0; 2],
            read_table: 0,
            write_table: 0,
            code_table: 0,
            jumps: 0,
            xmm: 0,
            upper: 0,
            mxcsr: 0,
            host_mxcsr: 0,
            floating_point: FloatingPoint::Refused,
            sse: 0,
            avx: 0,
            privileged: 0,
            rest: 0,
        }
    }
}

/// The register that points at the [`Context`].
pub(crate) const CONTEXT: Host = Host::RBP;
/// What is left of the budget.
pub(crate) const BUDGET: Host = Host::R15;

const fn field(offset: usize) -> Rm {
    Rm::Base(CONTEXT, offset as i32)
}

pub(crate) const OVERFLOW: Rm = field(offset_of!(Context, flags));
pub(crate) const LOW_FLAGS: Rm = field(offset_of!(Context, flags) + 1);
pub(crate) const FLAGS_MASK: Rm = field(offset_of!(Context, flags) + 2);
pub(crate) const RIP: Rm = field(offset_of!(Context, rip));
pub(crate) const LINEAR: Rm = field(offset_of!(Context, linear));
pub(crate) const TARGET: Rm = field(offset_of!(Context, target));
pub(crate) const READ_TABLE: Rm = field(offset_of!(Context, read_table));
pub(crate) const WRITE_TABLE: Rm = field(offset_of!(Context, write_table));
pub(crate) const CODE_TABLE: Rm = field(offset_of!(Context, code_table));
pub(crate) const JUMP_TABLE: Rm = field(offset_of!(Context, jumps));

pub(crate) const XMM: Rm = field(offset_of!(Context, xmm));
pub(crate) const UPPER: Rm = field(offset_of!(Context, upper));
pub(crate) const MXCSR: Rm = field(offset_of!(Context, mxcsr));
pub(crate) const FLOATING_POINT: Rm = field(offset_of!(Context, floating_point));
pub(crate) const SSE: Rm = field(offset_of!(Context, sse));
pub(crate) const AVX: Rm = field(offset_of!(Context, avx));
pub(crate) const PRIVILEGED: Rm = field(offset_of!(Context, privileged));
pub(crate) const REST: Rm = field(offset_of!(Context, rest));

pub(crate) const fn base_of(segment: Segment) -> Rm {
    field(offset_of!(Context, bases) + 8 * segment as usize)
}

pub(crate) const fn register(reg: Reg) -> Rm {
    field(8 * reg.number() as usize)
}

/// The host register that holds a guest register, if one does. The registers that instructions imply are where they
/// are on the guest.
pub(crate) const fn host_of(reg: Reg) -> Option<Host> {
    match reg.number() {
        0 => Some(Host::RAX),
        1 => Some(Host::RCX),
        2 => Some(Host::RDX),
        3 => Some(Host::RBX),
        4 => Some(Host::R10),
        5 => Some(Host::R11),
        6 => Some(Host::RSI),
        7 => Some(Host::RDI),
        8 => Some(Host::R8),
        9 => Some(Host::R9),
        _ => None,
    }
}

const _: () = {
    assert!(offset_of!(Context, gpr) == 0);
    assert!(offset_of!(SavedFlags, low) == 1 && offset_of!(SavedFlags, mask) == 2);
};
