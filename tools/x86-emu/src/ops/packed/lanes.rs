//! Lanes of a register: taking them apart, putting them together, and functions on each.

pub(in crate::ops) fn bytes(a: u128, b: u128, f: impl Fn(u8, u8) -> u8) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|n| f(a[n], b[n])))
}

pub(in crate::ops) fn words_of(a: u128) -> [u16; 8] {
    std::array::from_fn(|n| (a >> (16 * n)) as u16)
}

pub(in crate::ops) fn from_words(a: [u16; 8]) -> u128 {
    a.iter().rev().fold(0, |all, word| all << 16 | u128::from(*word))
}

pub(in crate::ops) fn dwords_of(a: u128) -> [u32; 4] {
    std::array::from_fn(|n| (a >> (32 * n)) as u32)
}

pub(in crate::ops) fn from_dwords(a: [u32; 4]) -> u128 {
    a.iter().rev().fold(0, |all, dword| all << 32 | u128::from(*dword))
}

pub(in crate::ops) fn from_qwords(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

pub(in crate::ops) fn words(a: u128, b: u128, f: impl Fn(u16, u16) -> u16) -> u128 {
    let (a, b) = (words_of(a), words_of(b));
    from_words(std::array::from_fn(|n| f(a[n], b[n])))
}

pub(in crate::ops) fn dwords(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    let (a, b) = (dwords_of(a), dwords_of(b));
    from_dwords(std::array::from_fn(|n| f(a[n], b[n])))
}

pub(in crate::ops) fn qwords(a: u128, b: u128, f: impl Fn(u64, u64) -> u64) -> u128 {
    from_qwords(f(a as u64, b as u64), f((a >> 64) as u64, (b >> 64) as u64))
}

pub(in crate::ops) fn signed8(f: impl Fn(i8, i8) -> i8) -> impl Fn(u8, u8) -> u8 {
    move |a, b| f(a as i8, b as i8) as u8
}

pub(in crate::ops) fn signed16(f: impl Fn(i16, i16) -> i16) -> impl Fn(u16, u16) -> u16 {
    move |a, b| f(a as i16, b as i16) as u16
}

pub(in crate::ops) fn all_ones_if<T: Default + std::ops::Not<Output = T>>(yes: bool) -> T {
    if yes { !T::default() } else { T::default() }
}
