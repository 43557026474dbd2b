//! Instructions of two operands: pure functions on 16 bytes, found by mnemonic.

use iced_x86::Mnemonic;

use super::lanes::*;
use super::with_immediate::pick_dwords;
use super::{Packed, aes, sha};

/// How an instruction of the table works on the 8 bytes of MMX registers.
#[derive(Clone, Copy)]
pub(crate) enum Mmx {
    /// The instruction has no form for MMX registers.
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
    /// The name of the legacy encoding.
    legacy: Option<Mnemonic>,
    /// The name of the VEX encoding, which works on each 16 bytes of its operands alike.
    vex: Option<Mnemonic>,
    pub(crate) xmm: Packed,
    mmx: Mmx,
}

impl Row {
    /// Whether an instruction of this name is this one.
    pub(crate) fn is(&self, mnemonic: Mnemonic) -> bool {
        self.legacy == Some(mnemonic) || self.vex == Some(mnemonic)
    }

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

const fn row(legacy: Option<Mnemonic>, vex: Option<Mnemonic>, xmm: Packed, mmx: Mmx) -> Row {
    Row { legacy, vex, xmm, mmx }
}

const fn xmm(name: Mnemonic, vex: Mnemonic, xmm: Packed) -> Row {
    row(Some(name), Some(vex), xmm, Mmx::None)
}

const fn lanes(name: Mnemonic, vex: Mnemonic, xmm: Packed) -> Row {
    row(Some(name), Some(vex), xmm, Mmx::Lanes)
}

const fn joined(name: Mnemonic, vex: Mnemonic, xmm: Packed) -> Row {
    row(Some(name), Some(vex), xmm, Mmx::Joined)
}

const fn legacy(name: Mnemonic, xmm: Packed) -> Row {
    row(Some(name), None, xmm, Mmx::None)
}

const fn vex(name: Mnemonic, xmm: Packed) -> Row {
    row(None, Some(name), xmm, Mmx::None)
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

/// The table; memory operands of legacy encodings are 16 bytes and aligned, or 8 bytes for MMX.
pub(crate) const BINARY: &[Row] = {
    use Mnemonic as M;
    &[
        lanes(M::Pand, M::Vpand, |a, b| a & b),
        xmm(M::Andps, M::Vandps, |a, b| a & b),
        xmm(M::Andpd, M::Vandpd, |a, b| a & b),
        lanes(M::Pandn, M::Vpandn, |a, b| !a & b),
        xmm(M::Andnps, M::Vandnps, |a, b| !a & b),
        xmm(M::Andnpd, M::Vandnpd, |a, b| !a & b),
        lanes(M::Por, M::Vpor, |a, b| a | b),
        xmm(M::Orps, M::Vorps, |a, b| a | b),
        xmm(M::Orpd, M::Vorpd, |a, b| a | b),
        lanes(M::Pxor, M::Vpxor, |a, b| a ^ b),
        xmm(M::Xorps, M::Vxorps, |a, b| a ^ b),
        xmm(M::Xorpd, M::Vxorpd, |a, b| a ^ b),
        lanes(M::Paddb, M::Vpaddb, |a, b| bytes(a, b, u8::wrapping_add)),
        lanes(M::Paddw, M::Vpaddw, |a, b| words(a, b, u16::wrapping_add)),
        lanes(M::Paddd, M::Vpaddd, |a, b| dwords(a, b, u32::wrapping_add)),
        lanes(M::Paddq, M::Vpaddq, |a, b| qwords(a, b, u64::wrapping_add)),
        lanes(M::Psubb, M::Vpsubb, |a, b| bytes(a, b, u8::wrapping_sub)),
        lanes(M::Psubw, M::Vpsubw, |a, b| words(a, b, u16::wrapping_sub)),
        lanes(M::Psubd, M::Vpsubd, |a, b| dwords(a, b, u32::wrapping_sub)),
        lanes(M::Psubq, M::Vpsubq, |a, b| qwords(a, b, u64::wrapping_sub)),
        lanes(M::Paddsb, M::Vpaddsb, |a, b| bytes(a, b, signed8(i8::saturating_add))),
        lanes(M::Paddsw, M::Vpaddsw, |a, b| words(a, b, signed16(i16::saturating_add))),
        lanes(M::Paddusb, M::Vpaddusb, |a, b| bytes(a, b, u8::saturating_add)),
        lanes(M::Paddusw, M::Vpaddusw, |a, b| words(a, b, u16::saturating_add)),
        lanes(M::Psubsb, M::Vpsubsb, |a, b| bytes(a, b, signed8(i8::saturating_sub))),
        lanes(M::Psubsw, M::Vpsubsw, |a, b| words(a, b, signed16(i16::saturating_sub))),
        lanes(M::Psubusb, M::Vpsubusb, |a, b| bytes(a, b, u8::saturating_sub)),
        lanes(M::Psubusw, M::Vpsubusw, |a, b| words(a, b, u16::saturating_sub)),
        lanes(M::Pmullw, M::Vpmullw, |a, b| words(a, b, u16::wrapping_mul)),
        lanes(M::Pmulhw, M::Vpmulhw, |a, b| words(a, b, multiply_high)),
        lanes(M::Pmulhuw, M::Vpmulhuw, |a, b| {
            words(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16)
        }),
        lanes(M::Pmuludq, M::Vpmuludq, pmuludq),
        lanes(M::Pmaddwd, M::Vpmaddwd, pmaddwd),
        lanes(M::Psadbw, M::Vpsadbw, psadbw),
        lanes(M::Pavgb, M::Vpavgb, |a, b| {
            bytes(a, b, |a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8)
        }),
        lanes(M::Pavgw, M::Vpavgw, |a, b| {
            words(a, b, |a, b| (u32::from(a) + u32::from(b)).div_ceil(2) as u16)
        }),
        lanes(M::Pmaxub, M::Vpmaxub, |a, b| bytes(a, b, u8::max)),
        lanes(M::Pminub, M::Vpminub, |a, b| bytes(a, b, u8::min)),
        lanes(M::Pmaxsw, M::Vpmaxsw, |a, b| words(a, b, signed16(i16::max))),
        lanes(M::Pminsw, M::Vpminsw, |a, b| words(a, b, signed16(i16::min))),
        lanes(M::Pcmpeqb, M::Vpcmpeqb, |a, b| bytes(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpeqw, M::Vpcmpeqw, |a, b| words(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpeqd, M::Vpcmpeqd, |a, b| dwords(a, b, |a, b| all_ones_if(a == b))),
        lanes(M::Pcmpgtb, M::Vpcmpgtb, |a, b| bytes(a, b, |a, b| all_ones_if(a as i8 > b as i8))),
        lanes(M::Pcmpgtw, M::Vpcmpgtw, |a, b| words(a, b, |a, b| all_ones_if(a as i16 > b as i16))),
        lanes(M::Pcmpgtd, M::Vpcmpgtd, |a, b| dwords(a, b, |a, b| all_ones_if(a as i32 > b as i32))),
        joined(M::Packsswb, M::Vpacksswb, packsswb),
        joined(M::Packuswb, M::Vpackuswb, packuswb),
        joined(M::Packssdw, M::Vpackssdw, packssdw),
        lanes(M::Punpcklbw, M::Vpunpcklbw, |a, b| interleave(a, b, 1, 0)),
        lanes(M::Punpcklwd, M::Vpunpcklwd, |a, b| interleave(a, b, 2, 0)),
        lanes(M::Punpckldq, M::Vpunpckldq, |a, b| interleave(a, b, 4, 0)),
        xmm(M::Punpcklqdq, M::Vpunpcklqdq, |a, b| interleave(a, b, 8, 0)),
        Row {
            legacy: Some(M::Punpckhbw),
            vex: Some(M::Vpunpckhbw),
            xmm: |a, b| interleave(a, b, 1, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 1, 0))),
        },
        Row {
            legacy: Some(M::Punpckhwd),
            vex: Some(M::Vpunpckhwd),
            xmm: |a, b| interleave(a, b, 2, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 2, 0))),
        },
        Row {
            legacy: Some(M::Punpckhdq),
            vex: Some(M::Vpunpckhdq),
            xmm: |a, b| interleave(a, b, 4, 8),
            mmx: Mmx::Own(|a, b| high(interleave(a, b, 4, 0))),
        },
        xmm(M::Punpckhqdq, M::Vpunpckhqdq, |a, b| interleave(a, b, 8, 8)),
        xmm(M::Unpcklps, M::Vunpcklps, |a, b| interleave(a, b, 4, 0)),
        xmm(M::Unpckhps, M::Vunpckhps, |a, b| interleave(a, b, 4, 8)),
        xmm(M::Unpcklpd, M::Vunpcklpd, |a, b| interleave(a, b, 8, 0)),
        xmm(M::Unpckhpd, M::Vunpckhpd, |a, b| interleave(a, b, 8, 8)),
        lanes(M::Psllw, M::Vpsllw, psllw),
        lanes(M::Pslld, M::Vpslld, pslld),
        lanes(M::Psllq, M::Vpsllq, psllq),
        lanes(M::Psrlw, M::Vpsrlw, psrlw),
        lanes(M::Psrld, M::Vpsrld, psrld),
        lanes(M::Psrlq, M::Vpsrlq, psrlq),
        lanes(M::Psraw, M::Vpsraw, psraw),
        lanes(M::Psrad, M::Vpsrad, psrad),
        xmm(M::Pslldq, M::Vpslldq, pslldq),
        xmm(M::Psrldq, M::Vpsrldq, psrldq),
        // SSSE3 and SSE4.1.
        Row {
            legacy: Some(M::Pshufb),
            vex: Some(M::Vpshufb),
            xmm: pshufb,
            mmx: Mmx::Own(|a, b| pshufb(a, b & SHUFFLE_MMX)),
        },
        lanes(M::Pabsb, M::Vpabsb, |_, b| bytes(0, b, |_, b| (b as i8).unsigned_abs())),
        lanes(M::Pabsw, M::Vpabsw, |_, b| words(0, b, |_, b| (b as i16).unsigned_abs())),
        lanes(M::Pabsd, M::Vpabsd, |_, b| dwords(0, b, |_, b| (b as i32).unsigned_abs())),
        xmm(M::Pmaxsb, M::Vpmaxsb, |a, b| bytes(a, b, signed8(i8::max))),
        xmm(M::Pminsb, M::Vpminsb, |a, b| bytes(a, b, signed8(i8::min))),
        xmm(M::Pmaxuw, M::Vpmaxuw, |a, b| words(a, b, u16::max)),
        xmm(M::Pminuw, M::Vpminuw, |a, b| words(a, b, u16::min)),
        xmm(M::Pmaxud, M::Vpmaxud, |a, b| dwords(a, b, u32::max)),
        xmm(M::Pminud, M::Vpminud, |a, b| dwords(a, b, u32::min)),
        xmm(M::Pmaxsd, M::Vpmaxsd, |a, b| dwords(a, b, |a, b| (a as i32).max(b as i32) as u32)),
        xmm(M::Pminsd, M::Vpminsd, |a, b| dwords(a, b, |a, b| (a as i32).min(b as i32) as u32)),
        xmm(M::Pmulld, M::Vpmulld, |a, b| dwords(a, b, u32::wrapping_mul)),
        xmm(M::Pcmpeqq, M::Vpcmpeqq, |a, b| qwords(a, b, |a, b| all_ones_if(a == b))),
        xmm(M::Pcmpgtq, M::Vpcmpgtq, |a, b| qwords(a, b, |a, b| all_ones_if(a as i64 > b as i64))),
        joined(M::Phaddw, M::Vphaddw, |a, b| neighbours16(a, b, i16::wrapping_add)),
        joined(M::Phaddd, M::Vphaddd, |a, b| neighbours32(a, b, i32::wrapping_add)),
        joined(M::Phaddsw, M::Vphaddsw, |a, b| neighbours16(a, b, i16::saturating_add)),
        joined(M::Phsubw, M::Vphsubw, |a, b| neighbours16(a, b, i16::wrapping_sub)),
        joined(M::Phsubd, M::Vphsubd, |a, b| neighbours32(a, b, i32::wrapping_sub)),
        joined(M::Phsubsw, M::Vphsubsw, |a, b| neighbours16(a, b, i16::saturating_sub)),
        lanes(M::Pmaddubsw, M::Vpmaddubsw, pmaddubsw),
        lanes(M::Pmulhrsw, M::Vpmulhrsw, |a, b| words(a, b, multiply_high_rounded)),
        lanes(M::Psignb, M::Vpsignb, |a, b| {
            bytes(a, b, |a, b| with_sign(a as i8 as i64, b as i8 as i64) as u8)
        }),
        lanes(M::Psignw, M::Vpsignw, |a, b| {
            words(a, b, |a, b| with_sign(a as i16 as i64, b as i16 as i64) as u16)
        }),
        lanes(M::Psignd, M::Vpsignd, |a, b| {
            dwords(a, b, |a, b| with_sign(a as i32 as i64, b as i32 as i64) as u32)
        }),
        xmm(M::Packusdw, M::Vpackusdw, packusdw),
        xmm(M::Pmuldq, M::Vpmuldq, pmuldq),
        xmm(M::Phminposuw, M::Vphminposuw, |_, b| phminposuw(b)),
        xmm(M::Movshdup, M::Vmovshdup, |_, b| pick_dwords(b, b, 0b11_11_01_01)),
        xmm(M::Movsldup, M::Vmovsldup, |_, b| pick_dwords(b, b, 0b10_10_00_00)),
        // AVX2.
        vex(M::Vpsllvd, |a, b| dwords(a, b, |a, n| a.checked_shl(n).unwrap_or(0))),
        vex(M::Vpsllvq, |a, b| qwords(a, b, |a, n| if n < 64 { a << n } else { 0 })),
        vex(M::Vpsrlvd, |a, b| dwords(a, b, |a, n| a.checked_shr(n).unwrap_or(0))),
        vex(M::Vpsrlvq, |a, b| qwords(a, b, |a, n| if n < 64 { a >> n } else { 0 })),
        vex(M::Vpsravd, |a, b| dwords(a, b, |a, n| (a as i32 >> n.min(31)) as u32)),
        // AES and SHA.
        xmm(M::Aesenc, M::Vaesenc, aes::aesenc),
        xmm(M::Aesenclast, M::Vaesenclast, aes::aesenclast),
        xmm(M::Aesdec, M::Vaesdec, aes::aesdec),
        xmm(M::Aesdeclast, M::Vaesdeclast, aes::aesdeclast),
        xmm(M::Aesimc, M::Vaesimc, |_, b| aes::aesimc(b)),
        legacy(M::Sha1nexte, sha::sha1_next),
        legacy(M::Sha1msg1, sha::sha1_message1),
        legacy(M::Sha1msg2, sha::sha1_message2),
        legacy(M::Sha256msg1, sha::sha256_message1),
        legacy(M::Sha256msg2, sha::sha256_message2),
    ]
};
