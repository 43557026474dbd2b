//! The slab of mirror tables.
//!
//! # Protocol
//! Tables live in chunks that are published once and never move, so a [`TableRef`] resolves without a lock.
//! Free tables are kept last-in first-out, so that the next one is still in a cache. A table that is not in
//! use is all FROZEN (27d); whoever links one fills it first, so that it is warm when it is used.
//!
//! Beside each table stands its twin, from the moment the table is linked until it is unlinked.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::size_of;

#[cfg(any(loom, test))]
use tdvisor_base::sync::Ordering;
use tdvisor_base::sync::{AtomicU64, Mutex};
use tdvisor_base::to_usize;

use crate::once::Once;
use crate::spte::Spte;
use crate::table::{ENTRIES, NoMemory, Table, TableRef};

/// Tables that are made at once.
pub(crate) const TABLES_AT_ONCE: usize = CHUNK;
/// Tables in one chunk.
const CHUNK: usize = TABLES_OF_CHUNK as usize;
const TABLES_OF_CHUNK: u32 = if cfg!(any(loom, shuttle)) { 8 } else { 64 };

#[repr(align(4096))]
struct Aligned(Table);

struct Chunk<Twin> {
    tables: Box<[Aligned]>,
    twins: Box<[Mutex<Option<Twin>>]>,
}

/// On cache lines of its own: what changes with every table must not disturb those who only look tables up.
#[repr(align(128))]
struct FreeLock(Mutex<Free>);

struct Free {
    list: Vec<u32>,
    /// Tables in chunks that exist.
    grown: usize,
}

pub(crate) struct Slab<Twin> {
    chunks: Box<[Once<Chunk<Twin>>]>,
    free: FreeLock,
}

/// Gives all entries of a table that nobody else can reach one value.
pub(crate) fn fill(table: &Table, value: Spte) {
    fill_steps(table, value, 0);
}

/// Gives the first entry of a table that nobody else can reach a value, and each next one `step` more.
pub(crate) fn fill_steps(table: &Table, first: Spte, step: u64) {
    #[cfg(not(loom))]
    tdvisor_base::table::fill(table, first.0, step);
    #[cfg(loom)]
    for (entry, n) in table.iter().zip(0u64..) {
        entry.store(first.0.wrapping_add(step.wrapping_mul(n)), Ordering::Relaxed);
    }
}

impl<Twin> Slab<Twin> {
    /// A slab for up to `tables` tables; memory is taken as they are needed.
    pub(crate) fn new(tables: usize) -> Result<Self, NoMemory> {
        let count = tables.div_ceil(CHUNK);
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(count).map_err(|_| NoMemory)?;
        chunks.extend((0..count).map(|_| Once::new()));
        Ok(Self {
            chunks: chunks.into_boxed_slice(),
            free: FreeLock(Mutex::new(Free { list: Vec::new(), grown: 0 })),
        })
    }

    /// The table of a reference; `None` for a number that was never given.
    #[inline(always)]
    pub(crate) fn get(&self, table: TableRef) -> Option<&Table> {
        let index = to_usize(table.get());
        let chunk = self.chunks.get(index / CHUNK)?.get()?;
        Some(&chunk.tables.get(index % CHUNK)?.0)
    }

    /// The place of a table's twin.
    pub(crate) fn twin(&self, table: TableRef) -> Option<&Mutex<Option<Twin>>> {
        let index = to_usize(table.get());
        self.chunks.get(index / CHUNK)?.get()?.twins.get(index % CHUNK)
    }

    /// Takes a table. Fill it before linking it.
    pub(crate) fn alloc(&self) -> Result<TableRef, NoMemory> {
        let mut free = self.free.0.lock();
        if free.list.is_empty() {
            self.grow(&mut free)?;
        }
        free.list.pop().map(|index| TableRef::new(u64::from(index))).ok_or(NoMemory)
    }

    /// Gives a table back. Its entries become FROZEN first.
    pub(crate) fn free(&self, table: TableRef) {
        if let Some(entries) = self.get(table) {
            fill(entries, Spte::FROZEN);
            // There is no table with a larger number.
            if let Ok(index) = u32::try_from(table.get()) {
                self.free.0.lock().list.push(index);
            }
        }
    }

    /// Tables that exist and are in use.
    pub(crate) fn in_use(&self) -> usize {
        let free = self.free.0.lock();
        free.grown - free.list.len()
    }

    fn grow(&self, free: &mut Free) -> Result<(), NoMemory> {
        let slot = self.chunks.get(free.grown / CHUNK).ok_or(NoMemory)?;
        let (mut tables, mut twins) = (Vec::new(), Vec::new());
        tables.try_reserve_exact(CHUNK).map_err(|_| NoMemory)?;
        twins.try_reserve_exact(CHUNK).map_err(|_| NoMemory)?;
        // Room for every table that exists, so that giving one back never allocates.
        let first = u32::try_from(free.grown).map_err(|_| NoMemory)?;
        let all = free.grown + CHUNK;
        let more = all - free.list.len();
        free.list.try_reserve(more).map_err(|_| NoMemory)?;
        tables.extend((0..CHUNK).map(|_| Aligned(core::array::from_fn(|_| AtomicU64::new(Spte::FROZEN.0)))));
        twins.extend((0..CHUNK).map(|_| Mutex::new(None)));
        slot.publish(Chunk { tables: tables.into_boxed_slice(), twins: twins.into_boxed_slice() });
        free.list.extend((first..first + TABLES_OF_CHUNK).rev());
        free.grown = all;
        Ok(())
    }

    /// The free tables, the next one last, and how many tables there are.
    pub(crate) fn free_tables(&self) -> (Vec<u32>, usize) {
        let free = self.free.0.lock();
        (free.list.clone(), free.grown)
    }

    /// A slab of so many tables, of which these are free. `None` where there is no such slab, or no memory for it.
    pub(crate) fn restore(tables: usize, grown: usize, list: Vec<u32>) -> Option<Self> {
        let slab = Self::new(tables).ok()?;
        {
            let mut free = slab.free.0.lock();
            while free.grown < grown {
                slab.grow(&mut free).ok()?;
            }
            if free.grown != grown || list.len() > grown {
                return None;
            }
            free.list.clear();
            free.list.extend(list);
        }
        Some(slab)
    }

    /// Bytes beside the table itself that each table costs: its twin and its place in the free list.
    pub(crate) const fn metadata_bytes() -> usize {
        size_of::<Mutex<Option<Twin>>>() + size_of::<u32>()
    }
}

const _: () = assert!(size_of::<Aligned>() == 4096 || ENTRIES != 512);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn inv_27d_a_table_that_is_not_in_use_is_all_frozen() {
        let slab = Slab::<()>::new(4).unwrap();
        let table = slab.alloc().unwrap();
        let all = |value: Spte| slab.get(table).unwrap().iter().all(|e| e.load(Ordering::Relaxed) == value.0);
        fill(slab.get(table).unwrap(), Spte::ABSENT);
        slab.free(table);
        assert!(all(Spte::FROZEN));
        assert_eq!(slab.in_use(), 0);
    }

    #[test]
    fn the_table_given_back_last_is_taken_first() {
        let slab = Slab::<()>::new(100).unwrap();
        let (a, b) = (slab.alloc().unwrap(), slab.alloc().unwrap());
        slab.free(a);
        slab.free(b);
        assert_eq!((slab.alloc(), slab.alloc()), (Ok(b), Ok(a)));
    }

    #[test]
    fn a_full_slab_says_so_and_lives_on() {
        let slab = Slab::<()>::new(1).unwrap();
        let tables: Vec<_> = (0..CHUNK).map(|_| slab.alloc().unwrap()).collect();
        assert_eq!(slab.alloc(), Err(NoMemory));
        slab.free(tables[5]);
        assert_eq!(slab.alloc(), Ok(tables[5]));
        assert!(slab.get(TableRef::new(1 << 30)).is_none());
    }
}
