//! The leaves as data: the virtual CPUID table of release 1.5.05 (recorded), and what release 1.5.01 had instead.

use super::{CpuidLeaf, configurable, faulting, native};

const F: u32 = u32::MAX;

/// Place in TD_PARAMS, leaf, subleaf, then the columns: fixed to zero, fixed to one, (given, allowed,) dynamic.
#[rustfmt::skip]
pub(super) const LEAVES: &[CpuidLeaf] = &[
    configurable(0, 0x1, None, [0xf000_c000, 0xff, 0x0001_0060, 0x4012_0400], [0, 0, 0x8000_0000, 0x200], [0x0fff_3fff, 0x00ff_0000, 0, 0], [0, 0, 0x3104_4d88, 0xb844_0000], [0, 0xff00_0000, 0x0800_0000, 0]),
    configurable(1, 0x4, Some(0), [0x3c00, 0, 0, 0x4], [0, 0, 0, 0], [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(2, 0x4, Some(1), [0x3c00, 0, 0, 0x4], [0, 0, 0, 0], [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(3, 0x4, Some(2), [0x3c00, 0, 0, 0x4], [0, 0, 0, 0], [0xffff_c3ff, 0xffff_f000, F, 0xffff_fffb], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(4, 0x4, Some(3), [0x3c00, 0, 0, 0xffff_fff8], [0, 0, 0, 0], [0xffff_c3ff, 0xffff_f000, F, 0x7], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(5, 0x7, Some(0), [0, 0x0040_4006, 0x643e_8000, 0x0022_98c3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0xdc2b_9b18, 0x0241_7f65, 0x0005_411c], [0, 0, 0x10, 0]),
    configurable(6, 0x7, Some(1), [0xfbff_e28f, F, F, 0xffff_fbcf], [0, 0, 0, 0], [0, 0, 0, 0], [0x0400_1d30, 0, 0, 0x430], [0, 0, 0, 0]),
    configurable(7, 0xa, None, [0, 0, 0, 0xffff_6000], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(8, 0x1c, None, [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0xff, 0, 0, 0], [0, 0, 0, 0]),
    configurable(9, 0x8000_0008, None, [0xffff_0000, 0xffff_fdff, F, F], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0x200, 0, 0], [0, 0, 0, 0]),
    native(0x0, None, [0xffff_ffdc, 0, 0, 0], [0x23, 0, 0, 0], [0, 0, 0, 0]),
    native(0x3, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x4, Some(4), [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    faulting(0x6, None),
    configurable(10, 0x7, Some(2), [F, F, F, 0xffff_ffc0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0x28], [0, 0, 0, 0]),
    native(0x8, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(0), [0xfff9_fd18, 0, 0, F], [0, 0, 0, 0], [0, F, 0, 0]),
    native(0xd, Some(1), [0xffff_ffe0, 0, 0xffff_26ff, F], [0, 0, 0, 0], [0, F, 0, 0]),
    native(0xd, Some(2), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(3), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(4), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(5), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(6), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(7), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(8), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(9), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(10), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(11), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(12), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(13), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(14), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(15), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(16), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(17), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xd, Some(18), [0, 0, 0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xe, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x11, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x12, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x13, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x14, Some(0), [0, 0xffff_fe00, 0x7fff_fff0, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x14, Some(1), [0xfff8, 0, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x15, None, [0xffff_fffe, 0, 0xfe82_87bf, F], [0x1, 0, 0x017d_7840, 0], [0, 0, 0, 0]),
    native(0x19, None, [0xffff_fff8, 0xffff_ffeb, 0xffff_fffd, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x1d, Some(0), [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x1d, Some(1), [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x1e, None, [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(12, 0x1f, Some(0), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    configurable(13, 0x1f, Some(1), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    configurable(14, 0x1f, Some(2), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    configurable(15, 0x1f, Some(3), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    configurable(16, 0x1f, Some(4), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    configurable(17, 0x1f, Some(5), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0x1f, 0xffff, 0xffff, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    native(0x20, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x21, Some(0), [F, 0x9a8b_91b6, 0xdfdf_dfdf, 0xa7bb_ab93], [0, 0x6574_6e49, 0x2020_2020, 0x5844_546c], [0, 0, 0, 0]),
    native(0x8000_0000, None, [0x7fff_fff7, F, F, F], [0x8000_0008, 0, 0, 0], [0, 0, 0, 0]),
    native(0x8000_0001, None, [F, F, 0xffff_fede, 0xd3ef_f7ff], [0, 0, 0, 0], [0, 0, 0, 0x800]),
    faulting(0x8000_0006, None),
    native(0x8000_0007, None, [F, F, F, 0xffff_feff], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x22, None, [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    configurable(11, 0x23, Some(0), [0xffff_fff0, 0, F, F], [0, 0, 0, 0], [0, 0, 0, 0], [0xf, 0, 0, 0], [0, 0, 0, 0]),
    native(0x23, Some(1), [0, 0, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x23, Some(2), [F, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x23, Some(3), [0, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0x5, None, [0xffff_0000, 0xffff_0000, 0xffff_fffc, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    native(0xb, Some(0), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    native(0xb, Some(1), [0xffff_ffe0, 0xffff_0000, 0xffff_0000, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    native(0xb, Some(2), [F, F, F, 0], [0, 0, 0, 0], [0, 0, 0, F]),
    native(0x1a, None, [0, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0]),
];

/// The leaves of release 1.5.01: leaf 0BH and, of a processor with several kinds of cores, leaf 1AH came later.
pub(super) const WITHOUT_TOPOLOGY: &[CpuidLeaf] = LEAVES.split_at(64).0;

/// Before the topology could be configured, leaf 1FH gave #VE; AVX-IFMA and LAM did not exist yet.
#[rustfmt::skip]
pub(super) const BEFORE_TOPOLOGY: &[CpuidLeaf] = &[
    configurable(6, 0x7, Some(1), [0xffff_e2cf, F, F, F], [0, 0, 0, 0], [0, 0, 0, 0], [0x1d30, 0, 0, 0], [0, 0, 0, 0]),
    faulting(0x1f, Some(0)),
    faulting(0x1f, Some(1)),
    faulting(0x1f, Some(2)),
    faulting(0x1f, Some(3)),
    faulting(0x1f, Some(4)),
    faulting(0x1f, Some(5)),
];
