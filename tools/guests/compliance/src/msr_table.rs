//! The MSR table of module 1.5.05, as its documentation and recordings give it: what RDMSR and WRMSR of a TD come to.

use Access::{Exception, Fault, Hidden, Native, Special, With, WithElseSpecial};
use Condition::{Cet, Lbr, Metrics, Perfmon, Pks, Pt, Tsx, Uli, Umwait, Xfd};

/// What an access comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The processor's own: a value, or #GP where it does not have the register.
    Native,
    /// #VE.
    Exception,
    /// #GP.
    Fault,
    /// A rule of its own.
    Special,
    /// The processor's own where the TD has the feature, otherwise #GP.
    With(Condition),
    /// The processor's own where the TD has the feature, otherwise a rule of its own.
    WithElseSpecial(Condition),
    /// #VE where CPUID shows the feature to which the register belongs, otherwise #GP.
    Hidden,
}

/// A feature of a TD.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// ATTRIBUTES.PERFMON.
    Perfmon,
    /// CPUID of WAITPKG.
    Umwait,
    /// CPUID of HLE.
    Tsx,
    /// CPUID of extended feature disable.
    Xfd,
    /// ATTRIBUTES.PKS.
    Pks,
    /// XFAM: processor trace.
    Pt,
    /// XFAM: control-flow enforcement.
    Cet,
    /// XFAM: user interrupts.
    Uli,
    /// XFAM: last branch records.
    Lbr,
    /// ATTRIBUTES.PERFMON, and more of the processor.
    Metrics,
}

/// Some registers: first, last, RDMSR, WRMSR.
pub type Row = (u32, u32, Access, Access);

/// Every register of the table, ascending. All others raise #VE.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    (0x10, 0x10, Native, Exception),
    (0x48, 0x49, Native, Native),
    (0x87, 0x87, Hidden, Hidden),
    (0x8c, 0x8f, Fault, Fault),
    (0x98, 0x9b, Fault, Fault),
    (0x9e, 0x9e, Fault, Fault),
    (0xbc, 0xbc, Native, Exception),
    (0xbd, 0xbd, Special, Native),
    (0xc1, 0xc8, With(Perfmon), With(Perfmon)),
    (0xe1, 0xe1, With(Umwait), With(Umwait)),
    (0x10a, 0x10a, Special, Native),
    (0x10b, 0x10b, Native, Native),
    (0x122, 0x122, With(Tsx), With(Tsx)),
    (0x174, 0x176, Native, Native),
    (0x186, 0x18d, With(Perfmon), With(Perfmon)),
    (0x195, 0x195, Fault, Fault),
    (0x1a0, 0x1a0, WithElseSpecial(Perfmon), Exception),
    (0x1a6, 0x1a7, With(Perfmon), With(Perfmon)),
    (0x1c4, 0x1c5, With(Xfd), With(Xfd)),
    (0x1d9, 0x1d9, Special, Special),
    (0x1f8, 0x1f8, Hidden, Hidden),
    (0x1f9, 0x1f9, Hidden, Hidden),
    (0x1fa, 0x1fa, Hidden, Hidden),
    (0x276, 0x276, Fault, Fault),
    (0x277, 0x277, Native, Native),
    (0x309, 0x310, With(Perfmon), With(Perfmon)),
    (0x329, 0x329, With(Metrics), With(Metrics)),
    (0x345, 0x345, WithElseSpecial(Metrics), With(Perfmon)),
    (0x38d, 0x392, With(Perfmon), With(Perfmon)),
    (0x3f1, 0x3f2, With(Perfmon), With(Perfmon)),
    (0x3f6, 0x3f7, With(Perfmon), With(Perfmon)),
    (0x480, 0x480, Special, Fault),
    (0x481, 0x484, Exception, Fault),
    (0x485, 0x485, Special, Fault),
    (0x486, 0x486, Special, Fault),
    (0x487, 0x487, Special, Fault),
    (0x488, 0x488, Special, Fault),
    (0x489, 0x489, Special, Fault),
    (0x48a, 0x48a, Exception, Fault),
    (0x48b, 0x48b, Special, Fault),
    (0x48c, 0x48c, Special, Fault),
    (0x48d, 0x48d, Special, Fault),
    (0x48e, 0x48e, Special, Fault),
    (0x48f, 0x48f, Special, Fault),
    (0x490, 0x490, Special, Fault),
    (0x491, 0x491, Special, Fault),
    (0x492, 0x492, Special, Fault),
    (0x4c1, 0x4c8, With(Perfmon), With(Perfmon)),
    (0x500, 0x500, Fault, Fault),
    (0x560, 0x561, With(Pt), With(Pt)),
    (0x570, 0x572, With(Pt), With(Pt)),
    (0x580, 0x587, With(Pt), With(Pt)),
    (0x600, 0x600, Native, Native),
    (0x6a0, 0x6a0, With(Cet), With(Cet)),
    (0x6a2, 0x6a2, With(Cet), With(Cet)),
    (0x6a4, 0x6a8, With(Cet), With(Cet)),
    (0x6e0, 0x6e0, Hidden, Hidden),
    (0x6e1, 0x6e1, With(Pks), With(Pks)),
    (0x800, 0x801, Fault, Fault),
    (0x802, 0x802, Special, Fault),
    (0x804, 0x807, Fault, Fault),
    (0x808, 0x80c, Native, Native),
    (0x80e, 0x80e, Native, Native),
    (0x810, 0x827, Native, Native),
    (0x829, 0x82e, Fault, Fault),
    (0x831, 0x831, Fault, Fault),
    (0x83f, 0x83f, Native, Native),
    (0x840, 0x8ff, Fault, Fault),
    (0x981, 0x981, Hidden, Hidden),
    (0x982, 0x982, Hidden, Hidden),
    (0x983, 0x983, Hidden, Hidden),
    (0x984, 0x984, Hidden, Hidden),
    (0x985, 0x98a, With(Uli), With(Uli)),
    (0xc80, 0xc80, Native, Exception),
    (0xd90, 0xd90, Fault, Fault),
    (0xd93, 0xd93, Fault, Fault),
    (0xda0, 0xda0, Native, Special),
    (0x1200, 0x12ff, With(Lbr), With(Lbr)),
    (0x14ce, 0x14cf, With(Lbr), With(Lbr)),
    (0x1500, 0x16ff, With(Lbr), With(Lbr)),
    (0x1b01, 0x1b01, Native, Native),
    (0xc0000080, 0xc0000080, Native, Special),
    (0xc0000081, 0xc0000082, Native, Native),
    (0xc0000084, 0xc0000084, Native, Native),
    (0xc0000100, 0xc0000103, Native, Native),
];
