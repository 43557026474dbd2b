//! The SHA instructions (FIPS 180-4; SDM vol. 2, SHA1RNDS4 and its kin). The manual names the words of an operand from the
//! top: [`from_top`] turns an operand round.

use super::lanes::{dwords_of, from_dwords};

/// The four words of an operand, the highest first.
fn from_top(a: u128) -> [u32; 4] {
    let [d, c, b, a] = dwords_of(a);
    [a, b, c, d]
}

fn to_top([a, b, c, d]: [u32; 4]) -> u128 {
    from_dwords([d, c, b, a])
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// SHA1RNDS4: four rounds of the kind that the immediate names. The first word of `b` has the fifth variable in it.
pub(super) fn sha1_rounds(a: u128, b: u128, kind: u8) -> u128 {
    let (mix, constant): (fn(u32, u32, u32) -> u32, u32) = match kind & 3 {
        0 => (choose, 0x5A82_7999),
        1 => (|x, y, z| x ^ y ^ z, 0x6ED9_EBA1),
        2 => (majority, 0x8F1B_BCDC),
        _ => (|x, y, z| x ^ y ^ z, 0xCA62_C1D6),
    };
    let [mut a, mut b1, mut c, mut d] = from_top(a);
    let mut e = 0;
    for word in from_top(b) {
        let sum = [mix(b1, c, d), a.rotate_left(5), word, e, constant];
        let next = sum.into_iter().fold(0, u32::wrapping_add);
        (a, b1, c, d, e) = (next, a, b1.rotate_left(30), c, d);
    }
    to_top([a, b1, c, d])
}

/// SHA1NEXTE.
pub(super) fn sha1_next(a: u128, b: u128) -> u128 {
    let [first, rest @ ..] = from_top(b);
    to_top([first.wrapping_add(from_top(a)[0].rotate_left(30)), rest[0], rest[1], rest[2]])
}

/// SHA1MSG1.
pub(super) fn sha1_message1(a: u128, b: u128) -> u128 {
    let ([w0, w1, w2, w3], [w4, w5, ..]) = (from_top(a), from_top(b));
    to_top([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3])
}

/// SHA1MSG2.
pub(super) fn sha1_message2(a: u128, b: u128) -> u128 {
    let ([a0, a1, a2, a3], [_, w13, w14, w15]) = (from_top(a), from_top(b));
    let w16 = (a0 ^ w13).rotate_left(1);
    to_top([w16, (a1 ^ w14).rotate_left(1), (a2 ^ w15).rotate_left(1), (a3 ^ w16).rotate_left(1)])
}

fn small_sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}

fn small_sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

/// SHA256MSG1.
pub(super) fn sha256_message1(a: u128, b: u128) -> u128 {
    let ([w0, w1, w2, w3], [w4, ..]) = (dwords_of(a), dwords_of(b));
    let next = |word: u32, after: u32| word.wrapping_add(small_sigma0(after));
    from_dwords([next(w0, w1), next(w1, w2), next(w2, w3), next(w3, w4)])
}

/// SHA256MSG2.
pub(super) fn sha256_message2(a: u128, b: u128) -> u128 {
    let ([a0, a1, a2, a3], [_, _, w14, w15]) = (dwords_of(a), dwords_of(b));
    let w16 = a0.wrapping_add(small_sigma1(w14));
    let w17 = a1.wrapping_add(small_sigma1(w15));
    from_dwords([w16, w17, a2.wrapping_add(small_sigma1(w16)), a3.wrapping_add(small_sigma1(w17))])
}

/// SHA256RNDS2: two rounds, with the sums of message and constant in the low half of `wk`.
pub(in crate::ops) fn sha256_rounds(a: u128, b: u128, wk: u128) -> u128 {
    let ([mut c, mut d, mut g, mut h], [mut a1, mut b1, mut e, mut f]) = (from_top(a), from_top(b));
    for word in dwords_of(wk).into_iter().take(2) {
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a1.rotate_right(2) ^ a1.rotate_right(13) ^ a1.rotate_right(22);
        let first = [choose(e, f, g), sigma1, word, h].into_iter().fold(0, u32::wrapping_add);
        let next = first.wrapping_add(majority(a1, b1, c)).wrapping_add(sigma0);
        (a1, b1, c, d, e, f, g, h) = (next, a1, b1, c, d.wrapping_add(first), e, f, g);
    }
    to_top([a1, b1, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The padded block of "abc", as words.
    fn abc() -> [u32; 16] {
        let mut words = [0; 16];
        words[0] = 0x6162_6380;
        words[15] = 24;
        words
    }

    /// FIPS 180-4's example: SHA-1 of "abc".
    #[test]
    fn sha_1_of_abc_is_that_of_the_standard() {
        let start = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
        let words = abc();
        let mut message: Vec<u128> =
            words.chunks_exact(4).map(|w| to_top([w[0], w[1], w[2], w[3]])).collect();
        while message.len() < 20 {
            let n = message.len();
            let mixed = sha1_message1(message[n - 4], message[n - 3]) ^ message[n - 2];
            message.push(sha1_message2(mixed, message[n - 1]));
        }
        let mut state = to_top([start[0], start[1], start[2], start[3]]);
        let mut with_e = to_top([start[4], 0, 0, 0]);
        // The first group adds E; every later one what the group before last leaves.
        let mut before = state;
        for (n, words) in message.iter().enumerate() {
            let input = if n == 0 {
                let [e, ..] = from_top(with_e);
                let [w0, w1, w2, w3] = from_top(*words);
                to_top([w0.wrapping_add(e), w1, w2, w3])
            } else {
                sha1_next(before, *words)
            };
            before = state;
            state = sha1_rounds(state, input, (n / 5) as u8);
        }
        with_e = sha1_next(before, with_e);
        let [a, b, c, d] = from_top(state);
        let sums = [(a, 0), (b, 1), (c, 2), (d, 3)].map(|(word, n)| word.wrapping_add(start[n]));
        assert_eq!(sums, [0xA999_3E36, 0x4706_816A, 0xBA3E_2571, 0x7850_C26C]);
        assert_eq!(from_top(with_e)[0], 0x9CD0_D89D);
    }

    /// The fractional parts of the cube roots of the first primes, as FIPS 180-4 has them.
    fn constants() -> Vec<u32> {
        let primes = (2u32..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).take(64);
        // The largest r with r^3 <= p * 2^96 has the fraction in its low 32 bits.
        primes
            .map(|p| {
                let (mut low, mut high) = (0u128, 1 << 36);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if middle * middle * middle <= u128::from(p) << 96 { low = middle } else { high = middle }
                }
                low as u32
            })
            .collect()
    }

    #[test]
    fn sha_256_of_abc_is_that_of_the_standard() {
        let start: [u32; 8] = [
            0x6A09_E667,
            0xBB67_AE85,
            0x3C6E_F372,
            0xA54F_F53A,
            0x510E_527F,
            0x9B05_688C,
            0x1F83_D9AB,
            0x5BE0_CD19,
        ];
        let mut message: Vec<u128> =
            abc().chunks_exact(4).map(|w| from_dwords([w[0], w[1], w[2], w[3]])).collect();
        while message.len() < 16 {
            let n = message.len();
            let (previous, last) = (message[n - 2], message[n - 1]);
            // Words 9 to 12 before the new ones.
            let seven_back = previous >> 32 | last << 96;
            let sum = sha256_message1(message[n - 4], message[n - 3]);
            let sum = from_dwords(std::array::from_fn(|k| {
                dwords_of(sum)[k].wrapping_add(dwords_of(seven_back)[k])
            }));
            message.push(sha256_message2(sum, last));
        }
        let constants = constants();
        assert_eq!(constants[0], 0x428A_2F98);
        let [a, b, c, d, e, f, g, h] = start;
        let (mut abef, mut cdgh) = (to_top([a, b, e, f]), to_top([c, d, g, h]));
        for (group, k) in message.iter().zip(constants.chunks_exact(4)) {
            let wk: [u32; 4] = std::array::from_fn(|n| dwords_of(*group)[n].wrapping_add(k[n]));
            for pair in [from_dwords([wk[0], wk[1], 0, 0]), from_dwords([wk[2], wk[3], 0, 0])] {
                (abef, cdgh) = (sha256_rounds(cdgh, abef, pair), abef);
            }
        }
        let ([a, b, e, f], [c, d, g, h]) = (from_top(abef), from_top(cdgh));
        let digest: Vec<u32> = [a, b, c, d, e, f, g, h]
            .iter()
            .zip(start)
            .map(|(word, start)| word.wrapping_add(start))
            .collect();
        assert_eq!(digest[..4], [0xBA78_16BF, 0x8F01_CFEA, 0x4141_40DE, 0x5DAE_2223]);
        assert_eq!(digest[4..], [0xB003_61A3, 0x9617_7A9C, 0xB410_FF61, 0xF200_15AD]);
    }
}
