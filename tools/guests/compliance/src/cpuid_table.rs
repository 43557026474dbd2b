//! The virtual CPUID table of module 1.5.05, as its documentation and recordings give it.
//!
//! Each register has five masks: bits that are 0, bits that are 1, bits that the host chooses, bits that the host may let
//! through, and bits that are the processor's own. What is in none of them is computed when CPUID is executed.

/// One register's columns.
pub struct Columns {
    /// Bits that are 0.
    pub zero: u32,
    /// Bits that are 1.
    pub one: u32,
    /// Bits that are as the host configured them.
    pub chosen: u32,
    /// Bits that are the processor's where the host lets them through, otherwise 0.
    pub allowed: u32,
    /// Bits that are the processor's.
    pub native: u32,
}

/// One leaf, or subleaf.
pub struct Leaf {
    /// EAX of CPUID.
    pub leaf: u32,
    /// ECX of CPUID, or none where it does not matter.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX; none where CPUID raises #VE.
    pub registers: Option<[Columns; 4]>,
}

const fn c(zero: u32, one: u32, chosen: u32, allowed: u32, native: u32) -> Columns {
    Columns { zero, one, chosen, allowed, native }
}

const fn leaf(leaf: u32, subleaf: Option<u32>, registers: [Columns; 4]) -> Leaf {
    Leaf { leaf, subleaf, registers: Some(registers) }
}

const fn faulting(leaf: u32) -> Leaf {
    Leaf { leaf, subleaf: None, registers: None }
}

/// Bits that a component of XFAM takes along when it is missing.
pub struct Gated {
    /// EAX of CPUID.
    pub leaf: u32,
    /// ECX of CPUID.
    pub subleaf: u32,
    /// The bit of XFAM.
    pub component: u32,
    /// Bits of EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

const fn gated(leaf: u32, subleaf: u32, component: u32, registers: [u32; 4]) -> Gated {
    Gated { leaf, subleaf, component, registers }
}

/// Every leaf, in the order of the module's table.
#[rustfmt::skip]
pub const LEAVES: &[Leaf] = &[
    leaf(0x1, None, [c(0xf000c000, 0, 0xfff3fff, 0, 0), c(0xff, 0, 0xff0000, 0, 0xff00), c(0x10060, 0x80000000, 0, 0x31044d88, 0x46fab217), c(0x40120400, 0x200, 0, 0xb8440000, 0x7a9f9ff)]),
    leaf(0x4, Some(0), [c(0x3c00, 0, 0xffffc3ff, 0, 0), c(0, 0, 0xfffff000, 0, 0xfff), c(0, 0, 0xffffffff, 0, 0), c(0x4, 0, 0xfffffffb, 0, 0)]),
    leaf(0x4, Some(0x1), [c(0x3c00, 0, 0xffffc3ff, 0, 0), c(0, 0, 0xfffff000, 0, 0xfff), c(0, 0, 0xffffffff, 0, 0), c(0x4, 0, 0xfffffffb, 0, 0)]),
    leaf(0x4, Some(0x2), [c(0x3c00, 0, 0xffffc3ff, 0, 0), c(0, 0, 0xfffff000, 0, 0xfff), c(0, 0, 0xffffffff, 0, 0), c(0x4, 0, 0xfffffffb, 0, 0)]),
    leaf(0x4, Some(0x3), [c(0x3c00, 0, 0xffffc3ff, 0, 0), c(0, 0, 0xfffff000, 0, 0xfff), c(0, 0, 0xffffffff, 0, 0), c(0xfffffff8, 0, 0x7, 0, 0)]),
    leaf(0x7, Some(0), [c(0, 0, 0, 0, 0xffffffff), c(0x404006, 0, 0, 0xdc2b9b18, 0x239424e1), c(0x643e8000, 0, 0, 0x2417f65, 0x9980008a), c(0x2298c3, 0, 0, 0x5411c, 0xffd82620)]),
    leaf(0x7, Some(0x1), [c(0xfbffe28f, 0, 0, 0x4001d30, 0x40), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xfffffbcf, 0, 0, 0x430, 0)]),
    leaf(0xa, None, [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffff6000, 0, 0, 0, 0x9fff)]),
    leaf(0x1c, None, [c(0, 0, 0, 0xff, 0xffffff00), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0x80000008, None, [c(0xffff0000, 0, 0, 0, 0xffff), c(0xfffffdff, 0, 0, 0x200, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0, None, [c(0xffffffdc, 0x23, 0, 0, 0), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0x3, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x4, Some(0x4), [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    faulting(0x6),
    leaf(0x7, Some(0x2), [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffc0, 0, 0, 0x28, 0x17)]),
    leaf(0x8, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0), [c(0xfff9fd18, 0, 0, 0, 0x602e7), c(0, 0, 0, 0, 0), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x1), [c(0xffffffe0, 0, 0, 0, 0x1f), c(0, 0, 0, 0, 0), c(0xffff26ff, 0, 0, 0, 0xd900), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x2), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x3), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x4), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x5), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x6), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x7), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x8), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x9), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xa), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xb), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xc), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xd), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xe), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0xf), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x10), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x11), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xd, Some(0x12), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0xe, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x11, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x12, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x13, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x14, Some(0), [c(0, 0, 0, 0, 0xffffffff), c(0xfffffe00, 0, 0, 0, 0x1ff), c(0x7ffffff0, 0, 0, 0, 0x8000000f), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x14, Some(0x1), [c(0xfff8, 0, 0, 0, 0xffff0007), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x15, None, [c(0xfffffffe, 0x1, 0, 0, 0), c(0, 0, 0, 0, 0xffffffff), c(0xfe8287bf, 0x17d7840, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x19, None, [c(0xfffffff8, 0, 0, 0, 0x7), c(0xffffffeb, 0, 0, 0, 0x14), c(0xfffffffd, 0, 0, 0, 0x2), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x1d, Some(0), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0x1d, Some(0x1), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0x1e, None, [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0x1f, Some(0), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1f, Some(0x1), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1f, Some(0x2), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1f, Some(0x3), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1f, Some(0x4), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1f, Some(0x5), [c(0xffffffe0, 0, 0x1f, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0xffff0000, 0, 0xffff, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x20, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x21, Some(0), [c(0xffffffff, 0, 0, 0, 0), c(0x9a8b91b6, 0x65746e49, 0, 0, 0), c(0xdfdfdfdf, 0x20202020, 0, 0, 0), c(0xa7bbab93, 0x5844546c, 0, 0, 0)]),
    leaf(0x80000000, None, [c(0x7ffffff7, 0x80000008, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x80000001, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xfffffede, 0, 0, 0, 0x121), c(0xd3eff7ff, 0, 0, 0, 0x2c100000)]),
    faulting(0x80000006),
    leaf(0x80000007, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xfffffeff, 0, 0, 0, 0x100)]),
    leaf(0x22, None, [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x23, Some(0), [c(0xfffffff0, 0, 0, 0xf, 0), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x23, Some(0x1), [c(0, 0, 0, 0, 0xffffffff), c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x23, Some(0x2), [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x23, Some(0x3), [c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
    leaf(0x5, None, [c(0xffff0000, 0, 0, 0, 0xffff), c(0xffff0000, 0, 0, 0, 0xffff), c(0xfffffffc, 0, 0, 0, 0x3), c(0, 0, 0, 0, 0xffffffff)]),
    leaf(0xb, Some(0), [c(0xffffffe0, 0, 0, 0, 0x1f), c(0xffff0000, 0, 0, 0, 0xffff), c(0xffff0000, 0, 0, 0, 0xffff), c(0, 0, 0, 0, 0)]),
    leaf(0xb, Some(0x1), [c(0xffffffe0, 0, 0, 0, 0x1f), c(0xffff0000, 0, 0, 0, 0xffff), c(0xffff0000, 0, 0, 0, 0xffff), c(0, 0, 0, 0, 0)]),
    leaf(0xb, Some(0x2), [c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0, 0, 0, 0, 0)]),
    leaf(0x1a, None, [c(0, 0, 0, 0, 0xffffffff), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0), c(0xffffffff, 0, 0, 0, 0)]),
];

/// What XFAM gates.
#[rustfmt::skip]
pub const GATED: &[Gated] = &[
    gated(0x1, 0, 2, [0, 0, 0x30001000, 0]),
    gated(0x7, 0, 2, [0, 0x20, 0x600, 0]),
    gated(0x7, 0, 5, [0, 0xdc230000, 0x5842, 0x80010c]),
    gated(0x7, 0, 6, [0, 0xdc230000, 0x5842, 0x80010c]),
    gated(0x7, 0, 7, [0, 0xdc230000, 0x5842, 0x80010c]),
    gated(0x7, 0, 8, [0, 0x2000000, 0, 0]),
    gated(0x7, 0, 9, [0, 0, 0x8, 0]),
    gated(0x7, 0, 11, [0, 0, 0x80, 0x100000]),
    gated(0x7, 0, 12, [0, 0, 0x80, 0x100000]),
    gated(0x7, 0, 14, [0, 0, 0, 0x20]),
    gated(0x7, 0, 15, [0, 0, 0, 0x80000]),
    gated(0x7, 0, 17, [0, 0, 0, 0x3400000]),
    gated(0x7, 0, 18, [0, 0, 0, 0x3400000]),
    gated(0x7, 1, 2, [0x10, 0, 0, 0x430]),
    gated(0x7, 1, 5, [0x20, 0, 0, 0]),
    gated(0x7, 1, 6, [0x20, 0, 0, 0]),
    gated(0x7, 1, 7, [0x20, 0, 0, 0]),
    gated(0xd, 0, 2, [0x4, 0, 0, 0]),
    gated(0xd, 0, 5, [0xe0, 0, 0, 0]),
    gated(0xd, 0, 6, [0xe0, 0, 0, 0]),
    gated(0xd, 0, 7, [0xe0, 0, 0, 0]),
    gated(0xd, 0, 9, [0x200, 0, 0, 0]),
    gated(0xd, 0, 17, [0x60000, 0, 0, 0]),
    gated(0xd, 0, 18, [0x60000, 0, 0, 0]),
    gated(0xd, 1, 8, [0, 0, 0x100, 0]),
    gated(0xd, 1, 11, [0, 0, 0x1800, 0]),
    gated(0xd, 1, 12, [0, 0, 0x1800, 0]),
    gated(0xd, 1, 14, [0, 0, 0x4000, 0]),
    gated(0xd, 1, 15, [0, 0, 0x8000, 0]),
];
