//! How the module virtualises CPUID.
//!
//! Each leaf has bits that the module fixes to one, bits that it fixes to zero or computes itself, and - for
//! the leaves in [`CONFIG`] - bits that the host chooses in TD_PARAMS. Everything else is the processor's own
//! value. A configuration bit outside what [`CONFIG`] allows makes `TDH.MNG.INIT` fail with
//! `OPERAND_INVALID | CPUID_CONFIG`.

/// EAX, EBX, ECX, EDX, in that order.
pub type CpuidRegs = [u32; 4];

/// The bits of one CPUID leaf that the host does not control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidRule {
    /// Leaf number (EAX on entry).
    pub leaf: u32,
    /// Subleaf number (ECX on entry); `None` where the leaf has none.
    pub subleaf: Option<u32>,
    /// Bits that read as one.
    pub fixed_one: CpuidRegs,
    /// Bits that read as zero, or that the module computes.
    pub fixed_zero_or_computed: CpuidRegs,
    /// Index in [`CONFIG`] and in TD_PARAMS.CPUID_CONFIG.
    pub config: Option<u8>,
}

/// The bits of one CPUID leaf that the host chooses in TD_PARAMS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidConfig {
    /// Leaf number.
    pub leaf: u32,
    /// Subleaf number; `None` where the leaf has none (the ABI writes all-ones).
    pub subleaf: Option<u32>,
    /// Bits copied from the configuration.
    pub direct: CpuidRegs,
    /// Bits that are the processor's own value ANDed with the configuration: zero clears, one keeps.
    pub allow: CpuidRegs,
}

impl CpuidConfig {
    /// The bits of register `index` (0 EAX .. 3 EDX) that a configuration may set.
    pub fn settable(&self, index: usize) -> u32 {
        match (self.direct.get(index), self.allow.get(index)) {
            (Some(direct), Some(allow)) => direct | allow,
            _ => 0,
        }
    }
}

const F: u32 = u32::MAX;

const fn rule(
    leaf: u32,
    subleaf: Option<u32>,
    one: CpuidRegs,
    zero: CpuidRegs,
    config: Option<u8>,
) -> CpuidRule {
    CpuidRule { leaf, subleaf, fixed_one: one, fixed_zero_or_computed: zero, config }
}

const fn config(leaf: u32, subleaf: Option<u32>, direct: CpuidRegs, allow: CpuidRegs) -> CpuidConfig {
    CpuidConfig { leaf, subleaf, direct, allow }
}

/// The leaves that the module virtualises. A leaf that is not here raises #VE.
#[rustfmt::skip]
pub const RULES: &[CpuidRule] = &[
    rule(0x0, None, [0x23, 0, 0, 0], [0xffff_ffdc, 0, 0, 0], None),
    rule(0x1, None, [0, 0, 0x8000_0000, 0x200], [0xf000_c000, 0xff00_00ff, 0x0801_0060, 0x4012_0400], Some(0)),
    rule(0x3, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x4, Some(0), [0, 0, 0, 0], [0x3c00, 0, 0, 0x4], Some(1)),
    rule(0x4, Some(1), [0, 0, 0, 0], [0x3c00, 0, 0, 0x4], Some(2)),
    rule(0x4, Some(2), [0, 0, 0, 0], [0x3c00, 0, 0, 0x4], Some(3)),
    rule(0x4, Some(3), [0, 0, 0, 0], [0x3c00, 0, 0, 0xffff_fff8], Some(4)),
    rule(0x4, Some(4), [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x5, None, [0, 0, 0, 0], [0xffff_0000, 0xffff_0000, 0xffff_fffc, 0], None),
    rule(0x6, None, [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x7, Some(0), [0, 0, 0, 0], [0, 0x0040_4006, 0x643e_8010, 0x0022_98c3], Some(5)),
    rule(0x7, Some(1), [0, 0, 0, 0], [0xffff_e2cf, F, F, F], Some(6)),
    rule(0x7, Some(2), [0, 0, 0, 0], [F, F, F, 0xffff_ffc0], Some(10)),
    rule(0x8, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0xa, None, [0, 0, 0, 0], [0, 0, 0, 0xffff_6000], Some(7)),
    rule(0xd, Some(0), [0, 0, 0, 0], [0xfff9_fd18, F, 0, F], None),
    rule(0xd, Some(1), [0, 0, 0, 0], [0xffff_ffe0, F, 0xffff_26ff, F], None),
    rule(0xd, Some(2), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(3), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(4), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(5), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(6), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(7), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(8), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(9), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(10), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(11), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(12), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(13), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(14), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(15), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(16), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(17), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xd, Some(18), [0, 0, 0, 0], [0, 0, 0, F], None),
    rule(0xe, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x11, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x12, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x13, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x14, Some(0), [0, 0, 0, 0], [0, 0xffff_fe00, 0x7fff_fff0, F], None),
    rule(0x14, Some(1), [0, 0, 0, 0], [0xfff8, 0, F, F], None),
    rule(0x15, None, [0x1, 0, 0x017d_7840, 0], [0xffff_fffe, 0, 0xfe82_87bf, F], None),
    rule(0x19, None, [0, 0, 0, 0], [0xffff_fff8, 0xffff_ffeb, 0xffff_fffd, F], None),
    rule(0x1c, None, [0, 0, 0, 0], [0, 0, 0, 0], Some(8)),
    rule(0x1d, Some(0), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1d, Some(1), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1e, None, [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(0), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(1), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(2), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(3), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(4), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x1f, Some(5), [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x20, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x21, Some(0), [0, 0x6574_6e49, 0x2020_2020, 0x5844_546c], [F, 0x9a8b_91b6, 0xdfdf_dfdf, 0xa7bb_ab93], None),
    rule(0x22, None, [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x23, Some(0), [0, 0, 0, 0], [0xffff_fff0, 0, F, F], Some(11)),
    rule(0x23, Some(1), [0, 0, 0, 0], [0, 0, F, F], None),
    rule(0x23, Some(2), [0, 0, 0, 0], [F, F, F, F], None),
    rule(0x23, Some(3), [0, 0, 0, 0], [0, F, F, F], None),
    rule(0x8000_0000, None, [0x8000_0008, 0, 0, 0], [0x7fff_fff7, F, F, F], None),
    rule(0x8000_0001, None, [0, 0, 0, 0], [F, F, 0xffff_fede, 0xd3ef_ffff], None),
    rule(0x8000_0006, None, [0, 0, 0, 0], [0, 0, 0, 0], None),
    rule(0x8000_0007, None, [0, 0, 0, 0], [F, F, F, 0xffff_feff], None),
    rule(0x8000_0008, None, [0, 0, 0, 0], [0xffff_0000, 0xffff_fdff, F, F], Some(9)),
];

/// The configurable leaves, in the order of TD_PARAMS.CPUID_CONFIG and of TDHSYSINFO's list.
#[rustfmt::skip]
pub const CONFIG: &[CpuidConfig] = &[
    config(0x1, None, [0x0fff_3fff, 0x00ff_0000, 0, 0], [0, 0, 0x3104_4d88, 0xb844_0000]),
    config(0x4, Some(0x0), [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0]),
    config(0x4, Some(0x1), [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0]),
    config(0x4, Some(0x2), [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0]),
    config(0x4, Some(0x3), [0xffff_c3ff, 0xffff_f000, F, 0x7], [0, 0, 0, 0]),
    config(0x7, Some(0x0), [0, 0, 0, 0], [0, 0xdc2b_9b18, 0x0241_7f65, 0x0005_411c]),
    config(0x7, Some(0x1), [0, 0, 0, 0], [0x1d30, 0, 0, 0]),
    config(0xa, None, [0, 0, 0, 0], [0, 0, 0, 0]),
    config(0x1c, None, [0, 0, 0, 0], [0xff, 0, 0, 0]),
    config(0x8000_0008, None, [0, 0, 0, 0], [0, 0x200, 0, 0]),
    config(0x7, Some(0x2), [0, 0, 0, 0], [0, 0, 0, 0x28]),
    config(0x23, Some(0x0), [0, 0, 0, 0], [0xf, 0, 0, 0]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configurable_leaf_has_a_rule_that_points_back_to_it() {
        for (index, entry) in CONFIG.iter().enumerate() {
            let rule = RULES.iter().find(|rule| rule.config == Some(index as u8)).unwrap();
            assert_eq!((rule.leaf, rule.subleaf), (entry.leaf, entry.subleaf));
        }
    }

    #[test]
    fn no_bit_is_both_fixed_and_configurable() {
        for (index, entry) in CONFIG.iter().enumerate() {
            let rule = RULES.iter().find(|rule| rule.config == Some(index as u8)).unwrap();
            for register in 0..4 {
                let fixed = rule.fixed_one[register] | rule.fixed_zero_or_computed[register];
                assert_eq!(fixed & entry.settable(register), 0, "leaf {:#x}, register {register}", rule.leaf);
                assert_eq!(entry.direct[register] & entry.allow[register], 0);
            }
        }
    }
}
