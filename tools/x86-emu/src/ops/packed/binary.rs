//! Instructions of two operands: pure functions on 16 bytes, found by mnemonic.

use iced_x86::Mnemonic;

use super::lanes::*;
use super::with_immediate::pick_dwords;
use super::{Packed, aes, sha};

/// How an instruction of the table works on the 8 bytes of MMX registers.
#[derive(Clone, Copy)]
pub(crate) enum Mmx {
    /// It does not exist.
    None,
    /// The low half of a result follows from the low halves of the operands.
    Lanes,
    /// The two operands are the two halves of the first 16-byte operand.
    Joined,
    /// By a function of its own, whose low half counts.
    Own(Packed),
}

/// An instruction.
pub(crate) struct Row {
    pub(crate) mnemonic: Mnemonic,
    pub(crate) xmm: Packed,
    mmx: Mmx,
}

impl Row {
    /// Whether there is a form with MMX registers.
    pub(crate) const fn has_mmx(&self) -> bool {
        !matches!(self.mmx, Mmx::None)
    }

    /// The form with MMX registers.
    pub(crate) fn mmx(&self, a: u64, b: u64) -> u64 {
        let (low, source) = (u128::from(a), u128::from(b));
        match self.mmx {
            Mmx::None => 0,
            Mmx::Lanes => (self.xmm)(low, source) as u64,
            Mmx::Joined => (self.xmm)(from_qwords(a, b), 0) as u64,
            Mmx::Own(function) => function(low, source) as u64,
        }
    }
}

const fn xmm(mnemonic: Mnemonic, xmm: Packed) -> Row {
    Row { mnemonic, xmm, mmx: Mmx::None }
}

const fn lanes(mnemonic: Mnemonic, xmm: Packed) -> Row {
    Row { mnemonic, xmm, mmx: Mmx::Lanes }
}

const fn joined(mnemonic: Mnemonic, xmm: Packed) -> Row {
    Row { mnemonic, xmm, mmx: Mmx::Joined }
}

fn multiply_high(a: u16, b: u16) -> u16 {
    ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16
}

fn pmaddwd(a: u128, b: u128) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    let product = |n: usize| i32::from(a[n] as i16) * i32::from(b[n] as i16);
    from_dwords(std::array::from_fn(|n| product(2 * n).wrapping_add(product(2 * n + 1)) as u32))
}

fn pmuludq(a: u128, b: u128) -> u128 {
    qwords(a, b, |a, b| u64::from(a as u32) * u64::from(b as u32))
}

fn psadbw(a: u128, b: u128) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let half = |from: usize| (from..from + 8).map(|n| u64::from(a[n].abs_diff(b[n]))).sum();
    from_qwords(half(0), half(8))
}

fn packsswb(a: u128, b: u128) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    let narrow = |w: u16| (w as i16).clamp(-128, 127) as u8;
    u128::from_le_bytes(std::array::from_fn(|n| narrow(if n < 8 { a[n] } else { b[n - 8] })))
}

fn packuswb(a: u128, b: u128) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    let narrow = |w: u16| (w as i16).clamp(0, 255) as u8;
    u128::from_le_bytes(std::array::from_fn(|n| narrow(if n < 8 { a[n] } else { b[n - 8] })))
}

fn packssdw(a: u128, b: u128) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    let narrow = |d: u32| (d as i32).clamp(-32768, 32767) as u16;
    from_words(std::array::from_fn(|n| narrow(if n < 4 { a[n] } else { b[n - 4] })))
}

/// Interleaves the low (`half` 0) or high (8) bytes in elements of `size` bytes.
fn interleave(a: u128, b: u128, size: usize, half: usize) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|n| {
        let pair = n / (2 * size);
        let at = half + pair * size + n % size;
        if (n / size).is_multiple_of(2) { a[at] } else { b[at] }
    }))
}

/// A shift count beyond the element is as good as the element's size.
fn count(b: u128, bits: u64) -> u32 {
    (b as u64).min(bits) as u32
}

fn psllw(a: u128, b: u128) -> u128 {
    let n = count(b, 16);
    words(a, 0, |x, _| (u32::from(x) << n) as u16)
}
fn pslld(a: u128, b: u128) -> u128 {
    let n = count(b, 32);
    dwords(a, 0, |x, _| (u64::from(x) << n) as u32)
}
fn psllq(a: u128, b: u128) -> u128 {
    let n = count(b, 64);
    qwords(a, 0, |x, _| (u128::from(x) << n) as u64)
}
fn psrlw(a: u128, b: u128) -> u128 {
    let n = count(b, 16);
    words(a, 0, |x, _| (u32::from(x) >> n) as u16)
}
fn psrld(a: u128, b: u128) -> u128 {
    let n = count(b, 32);
    dwords(a, 0, |x, _| (u64::from(x) >> n) as u32)
}
fn psrlq(a: u128, b: u128) -> u128 {
    let n = count(b, 64);
    qwords(a, 0, |x, _| (u128::from(x) >> n) as u64)
}
fn psraw(a: u128, b: u128) -> u128 {
    let n = count(b, 15);
    words(a, 0, |x, _| (x as i16 >> n) as u16)
}
fn psrad(a: u128, b: u128) -> u128 {
    let n = count(b, 31);
    dwords(a, 0, |x, _| (x as i32 >> n) as u32)
}
fn pslldq(a: u128, b: u128) -> u128 {
    if b > 15 { 0 } else { a << (8 * b as u32) }
}
fn psrldq(a: u128, b: u128) -> u128 {
    if b > 15 { 0 } else { a >> (8 * b as u32) }
}

fn pshufb(a: u128, b: u128) -> u128 {
    let table = a.to_le_bytes();
    bytes(0, b, |_, pick| if pick & 0x80 != 0 { 0 } else { table[(pick & 15) as usize] })
}

/// PSHUFB on MMX registers: eight bytes to pick from.
const SHUFFLE_MMX: u128 = 0x8787_8787_8787_8787;

fn high(value: u128) -> u128 {
    value >> 64
}

/// Neighbouring words of `a` in the low half, of `b` in the high half.
fn neighbours16(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    from_words(std::array::from_fn(|n| {
        let (from, pair) = if n < 4 { (&a, n) } else { (&b, n - 4) };
        f(from[2 * pair] as i16, from[2 * pair + 1] as i16) as u16
    }))
}

fn neighbours32(a: u128, b: u128, f: impl Fn(i32, i32) -> i32) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    from_dwords(std::array::from_fn(|n| {
        let (from, pair) = if n < 2 { (&a, n) } else { (&b, n - 2) };
        f(from[2 * pair] as i32, from[2 * pair + 1] as i32) as u32
    }))
}

/// Unsigned bytes of `a` times signed bytes of `b`, neighbours added with saturation.
fn pmaddubsw(a: u128, b: u128) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let product = |n: usize| i32::from(a[n]) * i32::from(b[n] as i8);
    from_words(std::array::from_fn(|n| {
        (product(2 * n) + product(2 * n + 1)).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as u16
    }))
}

fn multiply_high_rounded(a: u16, b: u16) -> u16 {
    ((((i32::from(a as i16) * i32::from(b as i16)) >> 14) + 1) >> 1) as u16
}

/// `a`, negated or cleared by the sign of `b`.
fn with_sign(a: i64, b: i64) -> i64 {
    a * b.signum()
}

fn packusdw(a: u128, b: u128) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    let narrow = |d: u32| (d as i32).clamp(0, 0xFFFF) as u16;
    from_words(std::array::from_fn(|n| narrow(if n < 4 { a[n] } else { b[n - 4] })))
}

fn pmuldq(a: u128, b: u128) -> u128 {
    qwords(a, b, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64)
}

/// The least word and its position.
fn phminposuw(b: u128) -> u128 {
    let least = words_of(b).into_iter().zip(0u128..).min().unwrap_or((0, 0));
    u128::from(least.0) | least.1 << 16
}

/// The table; memory operands are 16 bytes and aligned, or 8 bytes for MMX.
pub(crate) const BINARY: &[Row] = {
    use Mnemonic as M;
    &[
        lanes(M::Pand, |a, b| a & b),
        xmm(M::Andps, |a, b| a & b),
        xmm(M::Andpd, |a, b| a & b),
        lanes(M::Pandn, |a, b| !a & b),
        xmm(M::Andnps, |a, b| !a & b),
        xmm(M::Andnpd, |a, b| !a & b),
        lanes(M::Por, |a, b| a | b),
        xmm(M::Orps, |a, b| a | b),
        xmm(M::Orpd, |a, b| a | b),
        lanes(M::Pxor, |a, b| a ^ b),
        xmm(M::Xorps, |a, b| a ^ b),
        xmm(M::Xorpd, |a, b| a ^ b),
        lanes(M::Paddb, |a, b| bytes(a, b, u8::wrapping_add)),
        lanes(M::Paddw, |a, b| words(a, b, u16::wrapping_add)),
        lanes(M::Paddd, |a, b| dwords(a, b, u32::wrapping_add)),
        lanes(M::Paddq, |a, b| qwords(a, b, u64::wrapping_add)),
        lanes(M::Psubb, |a, b| bytes(a, b, u8::wrapping_sub)),
        lanes(M::Psubw, |a, b| words(a, b, u16::wrapping_sub)),
        lanes(M::Psubd, |a, b| dwords(a, b, u32::wrapping_sub)),
        lanes(M::Psubq, |a, b| qwords(a, b, u64::wrapping_sub)),
        lanes(M::Paddsb, |a, b| bytes(a, b, signed8(i8::saturating_add))),
        lanes(M::Paddsw, |a, b| words(a, b, signed16(i16::saturating_add))),
        lanes(M::Paddusb, |a, b| bytes(a, b, u8::saturating_add)),
        lanes(M::Paddusw, |a, b| words(a, b, u16::saturating_add)),
        lanes(M::Psubsb, |a, b| bytes(a, b, signed8(i8::saturating_sub))),
        lanes(M::Psubsw, |a, b| words(a, b, signed16(i16::saturating_sub))),
        lanes(M::Psubusb, |a, b| bytes(a, b, u8::saturating_sub)),
        lanes(M::Psubusw, |a, b| words(a, b, u16::saturating_sub)),
        lanes(M::Pmullw, |a, b| words(a, b, u16::wrapping_mul)),
        lanes(M::Pmulhw, |a, b| words(a, b, multiply_high)),
        lanes(M::Pmulhuw, |a, b| words(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16)),
        lanes(M::Pmuludq, pmuludq),
        lanes(M::Pmaddwd, pmaddwd),
        lanes(M::Psadbw, psadbw),
        lanes(M::Pavgb, |a, b| bytes(a, b, |a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8)),
        lanes(M::Pavgw, |a, b| words(a, b, |a, b| (u32::from(a) + u32::from(b)).div_ceil(2) as u16)),
        lanes(M::Pmaxub, |a, b| bytes(a, b, u8::max)),
        lanes(M::Pminub, |a, b| bytes(a, b, u8::min)),
        lanes(M::Pmaxsw, |a, b| words(a, b, signed16(i16::max))),
        lanes(M::Pminsw, |a, b| words(a, b, signed16(i16::min))),
        lanes(M::Pcmpeqb, |a, b| bytes(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpeqw, |a, b| words(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpeqd, |a, b| dwords(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpgtb, |a, b| bytes(a, b, |a, b| all_ones_if(a as i8 > b as i8))),
        lanes(M::Pcmpgtw, |a, b| words(a, b, |a, b| all_ones_if(a as i16 > b as i16))),
        lanes(M::Pcmpgtd, |a, b| dwords(a, b, |a, b| all_ones_if(a as i32 > b as i32))),
        joined(M::Packsswb, packsswb),
        joined(M::Packuswb, packuswb),
        joined(M::Packssdw, packssdw),
        lanes(M::Punpcklbw, |a, b| interleave(a, b, 1, 0)),
        lanes(M::Punpcklwd, |a, b| interleave(a, b, 2, 0)),
        lanes(M::Punpckldq, |a, b| interleave(a, b, 4, 0)),
        xmm(M::Punpcklqdq, |a, b| interleave(a, b, 8, 0)),
        Row {
            mnemonic: M::Punpckhbw,
            xmm: |a, b| interleave(a, b, 1, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 1, 0))),
        },
        Row {
            mnemonic: M::Punpckhwd,
            xmm: |a, b| interleave(a, b, 2, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 2, 0))),
        },
        Row {
            mnemonic: M::Punpckhdq,
            xmm: |a, b| interleave(a, b, 4, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 4, 0))),
        },
        xmm(M::Punpckhqdq, |a, b| interleave(a, b, 8, 8)),
        xmm(M::Unpcklps, |a, b| interleave(a, b, 4, 0)),
        xmm(M::Unpckhps, |a, b| interleave(a, b, 4, 8)),
        xmm(M::Unpcklpd, |a, b| interleave(a, b, 8, 0)),
        xmm(M::Unpckhpd, |a, b| interleave(a, b, 8, 8)),
        lanes(M::Psllw, psllw),
        lanes(M::Pslld, pslld),
        lanes(M::Psllq, psllq),
        lanes(M::Psrlw, psrlw),
        lanes(M::Psrld, psrld),
        lanes(M::Psrlq, psrlq),
        lanes(M::Psraw, psraw),
        lanes(M::Psrad, psrad),
        xmm(M::Pslldq, pslldq),
        xmm(M::Psrldq, psrldq),
        // SSSE3 and SSE4.1.
        Row { mnemonic: M::Pshufb, xmm: pshufb, mmx: Mmx::Own(|a, b| pshufb(a, b & SHUFFLE_MMX)) },
        lanes(M::Pabsb, |_, b| bytes(0, b, |_, b| (b as i8).unsigned_abs())),
        lanes(M::Pabsw, |_, b| words(0, b, |_, b| (b as i16).unsigned_abs())),
        lanes(M::Pabsd, |_, b| dwords(0, b, |_, b| (b as i32).unsigned_abs())),
        xmm(M::Pmaxsb, |a, b| bytes(a, b, signed8(i8::max))),
        xmm(M::Pminsb, |a, b| bytes(a, b, signed8(i8::min))),
        xmm(M::Pmaxuw, |a, b| words(a, b, u16::max)),
        xmm(M::Pminuw, |a, b| words(a, b, u16::min)),
        xmm(M::Pmaxud, |a, b| dwords(a, b, u32::max)),
        xmm(M::Pminud, |a, b| dwords(a, b, u32::min)),
        xmm(M::Pmaxsd, |a, b| dwords(a, b, |a, b| (a as i32).max(b as i32) as u32)),
        xmm(M::Pminsd, |a, b| dwords(a, b, |a, b| (a as i32).min(b as i32) as u32)),
        xmm(M::Pmulld, |a, b| dwords(a, b, u32::wrapping_mul)),
        xmm(M::Pcmpeqq, |a, b| qwords(a, b, |a, b| all_ones_if(a == b))),
        xmm(M::Pcmpgtq, |a, b| qwords(a, b, |a, b| all_ones_if(a as i64 > b as i64))),
        joined(M::Phaddw, |a, b| neighbours16(a, b, i16::wrapping_add)),
        joined(M::Phaddd, |a, b| neighbours32(a, b, i32::wrapping_add)),
        joined(M::Phaddsw, |a, b| neighbours16(a, b, i16::saturating_add)),
        joined(M::Phsubw, |a, b| neighbours16(a, b, i16::wrapping_sub)),
        joined(M::Phsubd, |a, b| neighbours32(a, b, i32::wrapping_sub)),
        joined(M::Phsubsw, |a, b| neighbours16(a, b, i16::saturating_sub)),
        lanes(M::Pmaddubsw, pmaddubsw),
        lanes(M::Pmulhrsw, |a, b| words(a, b, multiply_high_rounded)),
        lanes(M::Psignb, |a, b| bytes(a, b, |a, b| with_sign(a as i8 as i64, b as i8 as i64) as u8)),
        lanes(M::Psignw, |a, b| words(a, b, |a, b| with_sign(a as i16 as i64, b as i16 as i64) as u16)),
        lanes(M::Psignd, |a, b| dwords(a, b, |a, b| with_sign(a as i32 as i64, b as i32 as i64) as u32)),
        xmm(M::Packusdw, packusdw),
        xmm(M::Pmuldq, pmuldq),
        xmm(M::Phminposuw, |_, b| phminposuw(b)),
        xmm(M::Movshdup, |_, b| pick_dwords(b, b, 0b11_11_01_01)),
        xmm(M::Movsldup, |_, b| pick_dwords(b, b, 0b10_10_00_00)),
        // AES and SHA.
        xmm(M::Aesenc, aes::aesenc),
        xmm(M::Aesenclast, aes::aesenclast),
        xmm(M::Aesdec, aes::aesdec),
        xmm(M::Aesdeclast, aes::aesdeclast),
        xmm(M::Aesimc, |_, b| aes::aesimc(b)),
        xmm(M::Sha1nexte, sha::sha1_next),
        xmm(M::Sha1msg1, sha::sha1_message1),
        xmm(M::Sha1msg2, sha::sha1_message2),
        xmm(M::Sha256msg1, sha::sha256_message1),
        xmm(M::Sha256msg2, sha::sha256_message2),
    ]
};
