//! Filling a whole table at once.
//!
//! # Protocol
//! Whoever links a table writes all of its words first, while nobody else can reach it. 512 relaxed stores do
//! that, but the compiler never joins atomic stores, and eight of them for each cache line leave little
//! room in the store buffer to wait for more than a few lines at a time. [`fill`] writes 16 bytes at once.
//!
//! # Why the unsafe code here is sound
//! The instructions write to the words of a slice of atomics that is borrowed, and to nothing else: the loop
//! runs over whole lines of the slice only and ends at its end. A slice of atomics may be written through a
//! shared reference. The words are aligned, and no x86-64 processor divides a vector store inside an aligned
//! eight-byte word (Intel SDM vol. 3, "Guaranteed Atomic Operations"; AMD APM vol. 2, "Access Atomicity"). So to
//! the rest of the program the block is what its signature says: relaxed stores to distinct words, in an
//! order that nobody may rely on. That nobody else reads the words meanwhile is the caller's protocol, not
//! a condition for this to be sound.

#![cfg_attr(
    not(any(shuttle, miri)),
    expect(unsafe_code, reason = "sixteen bytes a store, which atomics cannot say: see above")
)]

use crate::sync::{AtomicU64, Ordering};

/// Words that the wide loop writes per round: one cache line.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(shuttle, miri))))]
const LINE: usize = 8;

/// Stores `first`, `first + step`, `first + 2 · step` and so on to consecutive words, each as a relaxed
/// store; sums wrap. For tables that nobody else can reach yet.
#[inline]
pub fn fill(words: &[AtomicU64], first: u64, step: u64) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(shuttle, miri))))]
    let (words, first) = fill_lines(words, first, step);
    let mut value = first;
    for word in words {
        word.store(value, Ordering::Relaxed);
        value = value.wrapping_add(step);
    }
}

/// Fills whole lines; gives the words that are left, and the value of the first of them.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(shuttle, miri))))]
#[inline]
fn fill_lines(words: &[AtomicU64], first: u64, step: u64) -> (&[AtomicU64], u64) {
    let (lines, rest) = words.split_at(words.len() - words.len() % LINE);
    if lines.is_empty() {
        return (rest, first);
    }
    let nth = |n: usize| first.wrapping_add(step.wrapping_mul(n as u64));
    let line: [u64; LINE] = core::array::from_fn(nth);
    let per_line = [step.wrapping_mul(LINE as u64); 2];
    let bounds = lines.as_ptr_range();
    // SAFETY: `at` runs from the start of `lines` to its end in steps of one line, and its length is a multiple
    // of a line above zero; every store is inside. The two arrays are read only. See the module docs for why
    // the stores are relaxed ones.
    unsafe {
        core::arch::asm!(
            "movups {a}, xmmword ptr [{line}]",
            "movups {b}, xmmword ptr [{line} + 16]",
            "movups {c}, xmmword ptr [{line} + 32]",
            "movups {d}, xmmword ptr [{line} + 48]",
            "movups {step}, xmmword ptr [{per_line}]",
            "2:",
            "movups xmmword ptr [{at}], {a}",
            "movups xmmword ptr [{at} + 16], {b}",
            "movups xmmword ptr [{at} + 32], {c}",
            "movups xmmword ptr [{at} + 48], {d}",
            "paddq {a}, {step}",
            "paddq {b}, {step}",
            "paddq {c}, {step}",
            "paddq {d}, {step}",
            "add {at}, 64",
            "cmp {at}, {end}",
            "jne 2b",
            at = inout(reg) bounds.start => _,
            end = in(reg) bounds.end,
            line = in(reg) line.as_ptr(),
            per_line = in(reg) per_line.as_ptr(),
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            step = out(xmm_reg) _,
            options(nostack),
        );
    }
    (rest, nth(lines.len()))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_word_of_any_piece_of_a_table_gets_its_value_and_no_other_word_changes() {
        const OUTSIDE: u64 = 0x5555_aaaa_0123_4567;
        for length in [0, 1, 7, 8, 9, 16, 100, 504, 512] {
            for start in [0, 1, 3, 8, 13] {
                let words: Vec<_> = (0..start + length + 9).map(|_| AtomicU64::new(OUTSIDE)).collect();
                for (first, step) in [(1 << 63, 0), (0x8000_0000_1234_5837, 4096), (u64::MAX - 5, 1 << 62)] {
                    fill(&words[start..start + length], first, step);
                    for (i, word) in words.iter().enumerate() {
                        let expected = match i.checked_sub(start) {
                            Some(n) if n < length => first.wrapping_add(step.wrapping_mul(n as u64)),
                            _ => OUTSIDE,
                        };
                        let found = word.load(Ordering::Relaxed);
                        assert_eq!(found, expected, "word {i} of {length} from {start}");
                    }
                }
            }
        }
    }
}
