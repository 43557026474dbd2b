//! What the machine can do at best, measured in the same run.
//!
//! # Why the unsafe code here is sound
//! The only unsafe operation is a prefetch of an address inside a table that is borrowed at the time.

#![expect(
    unsafe_code,
    reason = "a prefetch, to find out what it would give; the proof is in the module docs"
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Tables of plain words, page-aligned.
#[repr(align(4096))]
pub struct Words(pub [u64; 512]);

pub fn words(tables: usize) -> Vec<Words> {
    (0..tables).map(|i| Words([i as u64; 512])).collect()
}

/// Fills two fresh tables per split, as fast as the compiler can.
pub fn fill_two(first: &mut [Words], second: &mut [Words]) {
    for (n, (a, b)) in (0u64..).zip(first.iter_mut().zip(second)) {
        for (table, tag) in [(a, 1u64), (b, 3)] {
            for (i, word) in (0u64..).zip(table.0.iter_mut()) {
                *word = ((n << 21) + (i << 12)) | tag;
            }
            std::hint::black_box(&mut table.0);
        }
    }
}

/// Tables of atomics, with as many others between them as a mirror has twins.
#[repr(align(4096))]
pub struct Atomics(pub [AtomicU64; 512]);

pub fn atomics(tables: usize, value: u64) -> Vec<Atomics> {
    (0..tables).map(|_| Atomics(std::array::from_fn(|_| AtomicU64::new(value)))).collect()
}

/// Reads every entry of every second table, asking for the next one ahead.
pub fn scan_prefetched(tables: &[Atomics], mask: u64) -> u64 {
    let mut any = 0;
    for pair in tables.chunks(2).zip(tables.chunks(2).skip(1).map(Some).chain([None])) {
        let ([table, ..], next) = pair else { continue };
        for (i, line) in table.0.chunks(8).enumerate() {
            if let Some([next, ..]) = next
                && let Some(word) = next.0.get(i * 8)
            {
                // SAFETY: the address is inside a borrowed table.
                unsafe {
                    core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                        std::ptr::from_ref(word).cast(),
                    );
                }
            }
            any |= line.iter().fold(0, |any, entry| any | entry.load(Ordering::Relaxed)) & mask;
        }
    }
    any
}

/// Clears a bit of every entry of every second table with one locked instruction each.
pub fn locked_and(tables: &[Atomics], mask: u64) {
    for table in tables.chunks(2).filter_map(|pair| pair.first()) {
        for entry in &table.0 {
            entry.fetch_and(!mask, Ordering::AcqRel);
        }
    }
}

/// One locked instruction per entry of a warm table.
pub fn locked(table: &Atomics, rounds: u64) {
    for _ in 0..rounds {
        for entry in &table.0 {
            let _ = entry.compare_exchange(0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// A radix tree of plain words, for walks without any check.
pub struct Raw {
    tables: Vec<Words>,
}

impl Raw {
    /// Maps `pages` pages of 4K in a row.
    pub fn new(pages: u64) -> Self {
        let mut tables = words(4 + (pages / 512) as usize);
        for table in &mut tables {
            table.0 = [0; 512];
        }
        let mut raw = Self { tables };
        raw.tables[0].0[0] = 1;
        for gib in 0..pages.div_ceil(1 << 18) {
            raw.tables[1].0[gib as usize] = 2 + gib;
        }
        let gibs = pages.div_ceil(1 << 18) as usize;
        for table in 0..pages / 512 {
            raw.tables[2 + (table >> 9) as usize].0[table as usize & 511] = 2 + gibs as u64 + table;
        }
        raw
    }

    #[inline(always)]
    pub fn walk(&self, page: u64) -> u64 {
        let mut table = 0usize;
        for shift in [27, 18, 9] {
            table = self.tables[table].0[(page >> shift) as usize & 511] as usize;
        }
        self.tables[table].0[page as usize & 511]
    }
}
