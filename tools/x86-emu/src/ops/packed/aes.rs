//! The AES instructions (FIPS 197; SDM vol. 2, AESENC and its kin). Byte n of a register is row n % 4 of column n / 4.

use super::lanes::{dwords_of, from_dwords};

/// Multiplication by x in the field of AES: modulo x^8 + x^4 + x^3 + x + 1.
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1B } else { 0 }
}

const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// The multiplicative inverse, a^254; zero has none and stays.
const fn inverse(a: u8) -> u8 {
    let mut power = 1;
    let mut n = 0;
    while n < 254 {
        power = multiply(power, a);
        n += 1;
    }
    power
}

static SUBSTITUTION: [u8; 256] = {
    let mut table = [0; 256];
    let mut a = 0;
    while a < 256 {
        let b = inverse(a as u8);
        table[a] = b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        a += 1;
    }
    table
};

static INVERSE_SUBSTITUTION: [u8; 256] = {
    let mut table = [0; 256];
    let mut a = 0;
    while a < 256 {
        table[SUBSTITUTION[a] as usize] = a as u8;
        a += 1;
    }
    table
};

/// A table of columns: what MixColumns or its inverse makes of a byte of row 0 that was substituted before. A byte of row r
/// gives the same column, turned by r.
const fn columns_of(substitution: &[u8; 256], first: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let s = substitution[n];
        table[n] = u32::from_le_bytes([
            multiply(s, first[0]),
            multiply(s, first[1]),
            multiply(s, first[2]),
            multiply(s, first[3]),
        ]);
        n += 1;
    }
    table
}

/// The first columns of the two matrices.
static ENCRYPT: [u32; 256] = columns_of(&SUBSTITUTION, [2, 1, 1, 3]);
static DECRYPT: [u32; 256] = columns_of(&INVERSE_SUBSTITUTION, [14, 9, 13, 11]);

/// Columns that a row moves by, per row, in each direction.
const FORWARD: usize = 1;
const BACKWARD: usize = 3;

/// SubBytes of ShiftRows, or their inverses: row r moves by r columns.
fn shift_and_substitute(a: u128, columns: usize, table: &[u8; 256]) -> u128 {
    let a = a.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|n| table[usize::from(a[(n + 4 * (columns * (n % 4))) % 16])]))
}

/// One round with MixColumns or its inverse behind it, by a table of columns.
fn round(a: u128, columns: usize, table: &[u32; 256]) -> u128 {
    let a = a.to_le_bytes();
    from_dwords(std::array::from_fn(|c| {
        (0..4).fold(0, |sum, r| {
            let byte = a[r + 4 * ((c + columns * r) % 4)];
            sum ^ table[usize::from(byte)].rotate_left(8 * r as u32)
        })
    }))
}

pub(super) fn aesenclast(a: u128, key: u128) -> u128 {
    shift_and_substitute(a, FORWARD, &SUBSTITUTION) ^ key
}

pub(super) fn aesenc(a: u128, key: u128) -> u128 {
    round(a, FORWARD, &ENCRYPT) ^ key
}

pub(super) fn aesdeclast(a: u128, key: u128) -> u128 {
    shift_and_substitute(a, BACKWARD, &INVERSE_SUBSTITUTION) ^ key
}

pub(super) fn aesdec(a: u128, key: u128) -> u128 {
    round(a, BACKWARD, &DECRYPT) ^ key
}

/// AESIMC: the inverse of MixColumns alone, so what the table substitutes is substituted back before.
pub(super) fn aesimc(b: u128) -> u128 {
    let columns = dwords_of(b).map(|column| {
        (0u32..).zip(column.to_le_bytes()).fold(0, |sum, (r, byte)| {
            sum ^ DECRYPT[usize::from(SUBSTITUTION[usize::from(byte)])].rotate_left(8 * r)
        })
    });
    from_dwords(columns)
}

/// AESKEYGENASSIST.
pub(super) fn key_assist(b: u128, constant: u8) -> u128 {
    let substitute =
        |word: u32| u32::from_le_bytes(word.to_le_bytes().map(|byte| SUBSTITUTION[usize::from(byte)]));
    let words = dwords_of(b).map(substitute);
    let turned = |word: u32| word.rotate_right(8) ^ u32::from(constant);
    from_dwords([words[1], turned(words[1]), words[3], turned(words[3])])
}

/// PCLMULQDQ: the product without carries of one half of each operand.
pub(super) fn carryless(a: u128, b: u128, halves: u8) -> u128 {
    let half = |of: u128, bit: u32| (of >> (64 * u32::from(halves >> bit & 1))) as u64;
    let (a, b) = (u128::from(half(a, 0)), half(b, 4));
    (0..64).filter(|n| b >> n & 1 != 0).fold(0, |sum, n| sum ^ a << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(hex: u128) -> u128 {
        hex.swap_bytes()
    }

    /// FIPS 197, appendix B: the key schedule and the cipher of one block, and back.
    #[test]
    fn the_example_of_fips_197_is_enciphered_and_deciphered() {
        let mut keys = vec![block(0x2b7e1516_28aed2a6_abf71588_09cf4f3c)];
        for constant in [1, 2, 4, 8, 16, 32, 64, 128, 0x1B, 0x36] {
            let last = keys[keys.len() - 1];
            let turned = dwords_of(key_assist(last, constant))[3];
            let mut word = turned;
            let next = dwords_of(last).map(|old| {
                word ^= old;
                word
            });
            keys.push(from_dwords(next));
        }
        assert_eq!(keys[10], block(0xd014f9a8_c9ee2589_e13f0cc8_b6630ca6));
        let plain = block(0x3243f6a8_885a308d_313198a2_e0370734);
        let cipher = keys[1..10].iter().fold(plain ^ keys[0], |state, key| aesenc(state, *key));
        let cipher = aesenclast(cipher, keys[10]);
        assert_eq!(cipher, block(0x3925841d_02dc09fb_dc118597_196a0b32));
        let back = keys[1..10].iter().rev().fold(cipher ^ keys[10], |state, key| aesdec(state, aesimc(*key)));
        assert_eq!(aesdeclast(back, keys[0]), plain);
    }

    #[test]
    fn products_without_carries_are_those_of_polynomials() {
        assert_eq!(carryless(3, 3, 0), 5);
        assert_eq!(carryless(u128::MAX << 64, 1 << 127, 0x11), u128::from(u64::MAX) << 63);
        assert_eq!(carryless(7 << 64, 5, 1), 0b11011);
        assert_eq!(carryless(7, 5 << 64, 0x10), 0b11011);
    }
}
