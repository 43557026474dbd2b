//! Page tables: memory mapped to itself, with as few rights as its use needs.
//!
//! | memory | rights |
//! |---|---|
//! | page 0 | none |
//! | the trampoline below 1 MiB | read, write, execute |
//! | the image's code | read, execute |
//! | the image's constants | read |
//! | the image's data, the rest of the first 4 GiB, memory above | read, write |
//! | the guard page of each stack | none |
//!
//! Memory types are the MTRRs' business. All tables come from one static pool, as atomic words, so that filling them in
//! needs no `unsafe`.

use tdvisor_base::sync::Ordering;
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, Level, PAGE_SIZE};
use x86_arch::cpuid::feature;

use super::area;
use crate::boot::MemoryMap;
use crate::conditions::{Identity, offers};

/// Tables in all.
const TABLES: usize = 160;

#[repr(C, align(4096))]
struct Pool([Table; TABLES]);

static POOL: Pool = Pool([const { [const { tdvisor_base::sync::AtomicU64::new(0) }; 512] }; TABLES]);

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// What a page may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Nothing,
    Read,
    Execute,
    Write,
    All,
}

impl Rights {
    const fn bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Read => PRESENT | NO_EXECUTE,
            Self::Execute => PRESENT,
            Self::Write => PRESENT | WRITABLE | NO_EXECUTE,
            Self::All => PRESENT | WRITABLE,
        }
    }
}

/// Where the image's parts are; each begins at a page.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The first byte: code.
    pub text: u64,
    /// Constants.
    pub rodata: u64,
    /// Data.
    pub data: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The pool is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTables;

/// Memory from here on is not used: the tables of 2 MiB pages end here, or a 48-bit address space.
pub fn reach(processor: &impl Identity) -> u64 {
    if has_1g_pages(processor) { 64 << 40 } else { 96 << 30 }
}

fn has_1g_pages(processor: &impl Identity) -> bool {
    offers(processor, feature::PDPE1GB)
}

struct Builder {
    used: usize,
    largest: Level,
}

/// Builds the tables; gives the physical address of their root. It is called once.
///
/// # Errors
/// [`OutOfTables`].
pub fn build(
    image: Image,
    memory: &MemoryMap,
    trampoline: Option<Hpa>,
    processor: &impl Identity,
) -> Result<u64, OutOfTables> {
    let largest = if has_1g_pages(processor) { Level::L1G } else { Level::L2M };
    let mut builder = Builder { used: 1, largest };
    const FOUR_GIB: u64 = 1 << 32;
    let first = PAGE_SIZE;
    let mut at = first;
    if let Some(trampoline) = trampoline {
        builder.map(at, trampoline.get(), Rights::Write)?;
        at = trampoline.get() + PAGE_SIZE;
        builder.map(trampoline.get(), at, Rights::All)?;
    }
    builder.map(at, image.text, Rights::Write)?;
    builder.map(image.text, image.rodata, Rights::Execute)?;
    builder.map(image.rodata, image.data, Rights::Read)?;
    builder.map(image.data, image.end, Rights::Write)?;
    builder.map(image.end, FOUR_GIB, Rights::Write)?;
    for range in memory.ranges() {
        if range.end() > FOUR_GIB {
            // Whole large pages: what is mapped beyond the range is not touched.
            let start = range.base.get().max(FOUR_GIB) & !(Level::L2M.bytes() - 1);
            builder.map(start, range.end().next_multiple_of(Level::L2M.bytes()), Rights::Write)?;
        }
    }
    for area in &area::AREAS {
        builder.map(area.guard(), area.guard() + PAGE_SIZE, Rights::Nothing)?;
    }
    Ok((&raw const POOL).addr() as u64)
}

impl Builder {
    /// Maps `[at, end)` to itself, with pages as large as fit.
    fn map(&mut self, mut at: u64, end: u64, rights: Rights) -> Result<(), OutOfTables> {
        while at < end {
            let level = [Level::L1G, Level::L2M, Level::L4K]
                .into_iter()
                .find(|level| {
                    *level <= self.largest
                        && at.is_multiple_of(level.bytes())
                        && level.bytes() <= end - at
                        && (*level == Level::L4K || !self.is_divided(at, *level))
                })
                .unwrap_or(Level::L4K);
            self.set(at, level, rights)?;
            at += level.bytes();
        }
        Ok(())
    }

    /// The entry for an address in the table whose entries are of this level.
    fn entry(table: &Table, at: u64, level: Level) -> Option<&tdvisor_base::sync::AtomicU64> {
        table.get(tdvisor_base::to_usize(at >> level.shift()) % table.len())
    }

    fn is_divided(&self, at: u64, level: Level) -> bool {
        let mut table = POOL.0.first();
        let mut down = Level::L512G;
        while let Some(here) = table {
            let Some(entry) = Self::entry(here, at, down) else { return false };
            let value = entry.load(Ordering::Relaxed);
            let divided = value & PRESENT != 0 && value & LARGE == 0 && down != Level::L4K;
            if down == level || !divided {
                return divided;
            }
            table = Self::table_at(value & ADDRESS);
            match down.down() {
                Some(lower) => down = lower,
                None => return false,
            }
        }
        false
    }

    fn set(&mut self, at: u64, level: Level, rights: Rights) -> Result<(), OutOfTables> {
        let mut table = POOL.0.first().ok_or(OutOfTables)?;
        let mut down = Level::L512G;
        while down != level {
            let entry = Self::entry(table, at, down).ok_or(OutOfTables)?;
            let value = entry.load(Ordering::Relaxed);
            let lower = down.down().ok_or(OutOfTables)?;
            let next = if value & PRESENT != 0 && value & LARGE == 0 {
                Self::table_at(value & ADDRESS).ok_or(OutOfTables)?
            } else {
                let fresh = POOL.0.get(self.used).ok_or(OutOfTables)?;
                self.used += 1;
                // A large page is divided: its pieces keep its rights.
                if value & PRESENT != 0 {
                    let large = if lower == Level::L4K { 0 } else { LARGE };
                    for (index, piece) in (0u64..).zip(fresh) {
                        let address = (value & ADDRESS).wrapping_add(index * lower.bytes());
                        piece.store(value & !(ADDRESS | LARGE) | address | large, Ordering::Relaxed);
                    }
                }
                entry.store((&raw const *fresh).addr() as u64 | PRESENT | WRITABLE, Ordering::Relaxed);
                fresh
            };
            table = next;
            down = lower;
        }
        let large = if level == Level::L4K || rights == Rights::Nothing { 0 } else { LARGE };
        let entry = Self::entry(table, at, level).ok_or(OutOfTables)?;
        entry
            .store(if rights == Rights::Nothing { 0 } else { at | rights.bits() | large }, Ordering::Relaxed);
        Ok(())
    }

    /// The table at an address: tables have no other place than the pool.
    fn table_at(address: u64) -> Option<&'static Table> {
        let first = (&raw const POOL).addr() as u64;
        POOL.0.get((address.checked_sub(first)? / PAGE_SIZE) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Processor;

    impl Identity for Processor {
        fn cpuid(&self, _: u32, _: u32) -> [u32; 4] {
            [0; 4]
        }

        fn msr(&self, _: u32) -> Option<u64> {
            None
        }
    }

    /// What the processor would find: the page's start and its rights.
    fn walk(at: u64) -> Option<(u64, u64)> {
        let (mut table, mut level) = (&POOL.0[0], Level::L512G);
        loop {
            let value = Builder::entry(table, at, level).unwrap().load(Ordering::Relaxed);
            if value & PRESENT == 0 {
                return None;
            }
            if level == Level::L4K || value & LARGE != 0 {
                return Some((value & ADDRESS, value & (WRITABLE | NO_EXECUTE)));
            }
            (table, level) = (Builder::table_at(value & ADDRESS).unwrap(), level.down().unwrap());
        }
    }

    #[test]
    fn memory_is_mapped_to_itself_with_the_rights_that_its_use_needs() {
        let image = Image { text: 0x100_0000, rodata: 0x105_4000, data: 0x107_7000, end: 0x1a0_0000 };
        let mut memory = MemoryMap::new();
        memory.add(0x10_0000, 0x7000_0000);
        memory.add(1 << 32, 0x4123_4000);
        build(image, &memory, Some(Hpa::new(0x8000)), &Processor).unwrap();
        const READ_WRITE: u64 = WRITABLE | NO_EXECUTE;
        for (at, rights) in [
            (0x1000, READ_WRITE),
            (0x7000, READ_WRITE),
            (0x8000, WRITABLE),
            (0x9000, READ_WRITE),
            (0xFFF000, READ_WRITE),
            (image.text, 0),
            (image.rodata - 0x1000, 0),
            (image.rodata, NO_EXECUTE),
            (image.data, READ_WRITE),
            (image.end, READ_WRITE),
            (0xFED9_0000, READ_WRITE),
            ((1 << 32) + 0x4123_3000, READ_WRITE),
        ] {
            let (start, found) = walk(at).unwrap_or_else(|| panic!("{at:#x} is not mapped"));
            assert!(start <= at && found == rights, "{at:#x} {start:#x} {found:#x}");
        }
        for at in [0, (1 << 32) + 0x4140_0000, 1 << 40] {
            assert_eq!(walk(at), None, "{at:#x}");
        }
    }
}
