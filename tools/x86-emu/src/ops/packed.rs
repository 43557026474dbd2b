//! Integer SIMD on 16-byte values: pure functions of two operands, found by mnemonic.

use iced_x86::Mnemonic;

/// A function of the destination and the source operand.
pub(crate) type Packed = fn(u128, u128) -> u128;

fn bytes(a: u128, b: u128, f: impl Fn(u8, u8) -> u8) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|n| f(a[n], b[n])))
}

fn words_of(a: u128) -> [u16; 8] {
    std::array::from_fn(|n| (a >> (16 * n)) as u16)
}

fn from_words(a: [u16; 8]) -> u128 {
    a.iter().rev().fold(0, |all, word| all << 16 | u128::from(*word))
}

pub(super) fn dwords_of(a: u128) -> [u32; 4] {
    std::array::from_fn(|n| (a >> (32 * n)) as u32)
}

pub(super) fn from_dwords(a: [u32; 4]) -> u128 {
    a.iter().rev().fold(0, |all, dword| all << 32 | u128::from(*dword))
}

pub(super) fn from_qwords(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

fn words(a: u128, b: u128, f: impl Fn(u16, u16) -> u16) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    from_words(std::array::from_fn(|n| f(a[n], b[n])))
}

fn dwords(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    from_dwords(std::array::from_fn(|n| f(a[n], b[n])))
}

fn qwords(a: u128, b: u128, f: impl Fn(u64, u64) -> u64) -> u128 {
    from_qwords(f(a as u64, b as u64), f((a >> 64) as u64, (b >> 64) as u64))
}

fn signed8(f: impl Fn(i8, i8) -> i8) -> impl Fn(u8, u8) -> u8 {
    move |a, b| f(a as i8, b as i8) as u8
}

fn signed16(f: impl Fn(i16, i16) -> i16) -> impl Fn(u16, u16) -> u16 {
    move |a, b| f(a as i16, b as i16) as u16
}

fn all_ones_if<T: Default + std::ops::Not<Output = T>>(yes: bool) -> T {
    if yes { !T::default() } else { T::default() }
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

/// Two-operand instructions, memory operands 16 bytes and aligned.
pub(crate) const BINARY: &[(Mnemonic, Packed)] = {
    use Mnemonic as M;
    &[
        (M::Pand, |a, b| a & b),
        (M::Andps, |a, b| a & b),
        (M::Andpd, |a, b| a & b),
        (M::Pandn, |a, b| !a & b),
        (M::Andnps, |a, b| !a & b),
        (M::Andnpd, |a, b| !a & b),
        (M::Por, |a, b| a | b),
        (M::Orps, |a, b| a | b),
        (M::Orpd, |a, b| a | b),
        (M::Pxor, |a, b| a ^ b),
        (M::Xorps, |a, b| a ^ b),
        (M::Xorpd, |a, b| a ^ b),
        (M::Paddb, |a, b| bytes(a, b, u8::wrapping_add)),
        (M::Paddw, |a, b| words(a, b, u16::wrapping_add)),
        (M::Paddd, |a, b| dwords(a, b, u32::wrapping_add)),
        (M::Paddq, |a, b| qwords(a, b, u64::wrapping_add)),
        (M::Psubb, |a, b| bytes(a, b, u8::wrapping_sub)),
        (M::Psubw, |a, b| words(a, b, u16::wrapping_sub)),
        (M::Psubd, |a, b| dwords(a, b, u32::wrapping_sub)),
        (M::Psubq, |a, b| qwords(a, b, u64::wrapping_sub)),
        (M::Paddsb, |a, b| bytes(a, b, signed8(i8::saturating_add))),
        (M::Paddsw, |a, b| words(a, b, signed16(i16::saturating_add))),
        (M::Paddusb, |a, b| bytes(a, b, u8::saturating_add)),
        (M::Paddusw, |a, b| words(a, b, u16::saturating_add)),
        (M::Psubsb, |a, b| bytes(a, b, signed8(i8::saturating_sub))),
        (M::Psubsw, |a, b| words(a, b, signed16(i16::saturating_sub))),
        (M::Psubusb, |a, b| bytes(a, b, u8::saturating_sub)),
        (M::Psubusw, |a, b| words(a, b, u16::saturating_sub)),
        (M::Pmullw, |a, b| words(a, b, u16::wrapping_mul)),
        (M::Pmulhw, |a, b| words(a, b, multiply_high)),
        (M::Pmulhuw, |a, b| words(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16)),
        (M::Pmuludq, pmuludq),
        (M::Pmaddwd, pmaddwd),
        (M::Psadbw, psadbw),
        (M::Pavgb, |a, b| bytes(a, b, |a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8)),
        (M::Pavgw, |a, b| words(a, b, |a, b| (u32::from(a) + u32::from(b)).div_ceil(2) as u16)),
        (M::Pmaxub, |a, b| bytes(a, b, u8::max)),
        (M::Pminub, |a, b| bytes(a, b, u8::min)),
        (M::Pmaxsw, |a, b| words(a, b, signed16(i16::max))),
        (M::Pminsw, |a, b| words(a, b, signed16(i16::min))),
        (M::Pcmpeqb, |a, b| bytes(a, b, |a, b| all_ones_if(a == b))),
        (M::Pcmpeqw, |a, b| words(a, b, |a, b| all_ones_if(a == b))),
        (M::Pcmpeqd, |a, b| dwords(a, b, |a, b| all_ones_if(a == b))),
        (M::Pcmpgtb, |a, b| bytes(a, b, |a, b| all_ones_if(a as i8 > b as i8))),
        (M::Pcmpgtw, |a, b| words(a, b, |a, b| all_ones_if(a as i16 > b as i16))),
        (M::Pcmpgtd, |a, b| dwords(a, b, |a, b| all_ones_if(a as i32 > b as i32))),
        (M::Packsswb, packsswb),
        (M::Packuswb, packuswb),
        (M::Packssdw, packssdw),
        (M::Punpcklbw, |a, b| interleave(a, b, 1, 0)),
        (M::Punpcklwd, |a, b| interleave(a, b, 2, 0)),
        (M::Punpckldq, |a, b| interleave(a, b, 4, 0)),
        (M::Punpcklqdq, |a, b| interleave(a, b, 8, 0)),
        (M::Punpckhbw, |a, b| interleave(a, b, 1, 8)),
        (M::Punpckhwd, |a, b| interleave(a, b, 2, 8)),
        (M::Punpckhdq, |a, b| interleave(a, b, 4, 8)),
        (M::Punpckhqdq, |a, b| interleave(a, b, 8, 8)),
        (M::Unpcklps, |a, b| interleave(a, b, 4, 0)),
        (M::Unpckhps, |a, b| interleave(a, b, 4, 8)),
        (M::Unpcklpd, |a, b| interleave(a, b, 8, 0)),
        (M::Unpckhpd, |a, b| interleave(a, b, 8, 8)),
        (M::Psllw, psllw),
        (M::Pslld, pslld),
        (M::Psllq, psllq),
        (M::Psrlw, psrlw),
        (M::Psrld, psrld),
        (M::Psrlq, psrlq),
        (M::Psraw, psraw),
        (M::Psrad, psrad),
        (M::Pslldq, pslldq),
        (M::Psrldq, psrldq),
        // SSSE3 and SSE4.1, for those who offer them.
        (M::Pshufb, pshufb),
        (M::Pabsb, |_, b| bytes(0, b, |_, b| (b as i8).unsigned_abs())),
        (M::Pabsw, |_, b| words(0, b, |_, b| (b as i16).unsigned_abs())),
        (M::Pabsd, |_, b| dwords(0, b, |_, b| (b as i32).unsigned_abs())),
        (M::Pmaxsb, |a, b| bytes(a, b, signed8(i8::max))),
        (M::Pminsb, |a, b| bytes(a, b, signed8(i8::min))),
        (M::Pmaxuw, |a, b| words(a, b, u16::max)),
        (M::Pminuw, |a, b| words(a, b, u16::min)),
        (M::Pmaxud, |a, b| dwords(a, b, u32::max)),
        (M::Pminud, |a, b| dwords(a, b, u32::min)),
        (M::Pmaxsd, |a, b| dwords(a, b, |a, b| (a as i32).max(b as i32) as u32)),
        (M::Pminsd, |a, b| dwords(a, b, |a, b| (a as i32).min(b as i32) as u32)),
        (M::Pmulld, |a, b| dwords(a, b, u32::wrapping_mul)),
        (M::Pcmpeqq, |a, b| qwords(a, b, |a, b| all_ones_if(a == b))),
        (M::Pcmpgtq, |a, b| qwords(a, b, |a, b| all_ones_if(a as i64 > b as i64))),
    ]
};

/// A function of destination, source and immediate.
pub(crate) type Shuffle = fn(u128, u128, u8) -> u128;

fn pick_dwords(a: u128, b: u128, order: u8) -> u128 {
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

fn shufpd(a: u128, b: u128, order: u8) -> u128 {
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

/// Three-operand instructions with an immediate.
pub(crate) const SHUFFLES: &[(Mnemonic, Shuffle)] = &[
    (Mnemonic::Pshufd, |_, b, order| pick_dwords(b, b, order)),
    (Mnemonic::Pshuflw, |_, b, order| pick_words(b, order, 0)),
    (Mnemonic::Pshufhw, |_, b, order| pick_words(b, order, 4)),
    (Mnemonic::Shufps, pick_dwords),
    (Mnemonic::Shufpd, shufpd),
    (Mnemonic::Palignr, palignr),
];
