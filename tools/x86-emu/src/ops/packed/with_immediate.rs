//! Instructions of two operands and an immediate byte.

use iced_x86::Mnemonic;

use super::lanes::*;
use super::{aes, sha};

/// A function of destination, source and immediate.
pub(crate) type WithImmediate = fn(u128, u128, u8) -> u128;

pub(in crate::ops) fn pick_dwords(a: u128, b: u128, order: u8) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    let pick = |n: usize| (order >> (2 * n) & 3) as usize;
    from_dwords([a[pick(0)], a[pick(1)], b[pick(2)], b[pick(3)]])
}

fn pick_words(b: u128, order: u8, from: usize) -> u128 {
    let source = words_of(b);
    let mut result = source;
    for n in 0..4 {
        result[from + n] = source[from + (order >> (2 * n) & 3) as usize];
    }
    from_words(result)
}

pub(in crate::ops) fn shufpd(a: u128, b: u128, order: u8) -> u128 {
    let low = if order & 1 == 0 { a as u64 } else { (a >> 64) as u64 };
    let high = if order & 2 == 0 { b as u64 } else { (b >> 64) as u64 };
    from_qwords(low, high)
}

fn palignr(a: u128, b: u128, shift: u8) -> u128 {
    match shift {
        0 => b,
        1..=15 => b >> (8 * u32::from(shift)) | a << (128 - 8 * u32::from(shift)),
        16..=31 => a >> (8 * u32::from(shift - 16)),
        _ => 0,
    }
}

/// A packed operation with an immediate on 8 bytes.
pub(crate) type MmxWithImmediate = fn(u64, u64, u8) -> u64;

/// The MMX forms.
pub(crate) const MMX_WITH_IMMEDIATE: &[(Mnemonic, MmxWithImmediate)] = &[
    (Mnemonic::Pshufw, |_, b, order| pick_words(b.into(), order, 0) as u64),
    (Mnemonic::Palignr, |a, b, shift| {
        from_qwords(b, a).checked_shr(8 * u32::from(shift)).unwrap_or(0) as u64
    }),
];

/// Lanes of `b` where the mask has ones.
fn blend(a: u128, b: u128, mask: u8, bits: u32) -> u128 {
    let lane = u128::MAX >> (128 - bits);
    (0..128 / bits).filter(|n| mask >> n & 1 != 0).fold(a, |all, n| {
        let lane = lane << (n * bits);
        all & !lane | b & lane
    })
}

/// Sums of absolute differences between four bytes of `b` and every four of `a`.
fn mpsadbw(a: u128, b: u128, control: u8) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let first = 4 * usize::from(control >> 2 & 1);
    let fixed = 4 * usize::from(control & 3);
    from_words(std::array::from_fn(|n| {
        (0..4).map(|k| u16::from(a[first + n + k].abs_diff(b[fixed + k]))).sum()
    }))
}

/// An instruction with an immediate.
pub(crate) struct ImmediateRow {
    /// The name of the legacy encoding.
    legacy: Option<Mnemonic>,
    /// The name of the VEX encoding.
    vex: Option<Mnemonic>,
    pub(crate) function: WithImmediate,
    /// How far the upper 16 bytes find their bits of the immediate behind those of the lower; zero where both have the same.
    pub(crate) bits_of_lane: u32,
}

impl ImmediateRow {
    /// Whether an instruction of this name is this one.
    pub(crate) fn is(&self, mnemonic: Mnemonic) -> bool {
        self.legacy == Some(mnemonic) || self.vex == Some(mnemonic)
    }
}

const fn both(legacy: Mnemonic, vex: Mnemonic, bits_of_lane: u32, function: WithImmediate) -> ImmediateRow {
    ImmediateRow { legacy: Some(legacy), vex: Some(vex), function, bits_of_lane }
}

/// Three-operand instructions with an immediate.
pub(crate) const WITH_IMMEDIATE: &[ImmediateRow] = {
    use Mnemonic as M;
    &[
        both(M::Pshufd, M::Vpshufd, 0, |_, b, order| pick_dwords(b, b, order)),
        both(M::Pshuflw, M::Vpshuflw, 0, |_, b, order| pick_words(b, order, 0)),
        both(M::Pshufhw, M::Vpshufhw, 0, |_, b, order| pick_words(b, order, 4)),
        both(M::Shufps, M::Vshufps, 0, pick_dwords),
        both(M::Shufpd, M::Vshufpd, 2, shufpd),
        both(M::Palignr, M::Vpalignr, 0, palignr),
        both(M::Blendps, M::Vblendps, 4, |a, b, mask| blend(a, b, mask, 32)),
        both(M::Blendpd, M::Vblendpd, 2, |a, b, mask| blend(a, b, mask, 64)),
        both(M::Pblendw, M::Vpblendw, 0, |a, b, mask| blend(a, b, mask, 16)),
        both(M::Mpsadbw, M::Vmpsadbw, 3, mpsadbw),
        both(M::Aeskeygenassist, M::Vaeskeygenassist, 0, |_, b, constant| aes::key_assist(b, constant)),
        both(M::Pclmulqdq, M::Vpclmulqdq, 0, aes::carryless),
        ImmediateRow {
            legacy: None,
            vex: Some(M::Vpblendd),
            function: |a, b, mask| blend(a, b, mask, 32),
            bits_of_lane: 4,
        },
        ImmediateRow { legacy: Some(M::Sha1rnds4), vex: None, function: sha::sha1_rounds, bits_of_lane: 0 },
    ]
};
