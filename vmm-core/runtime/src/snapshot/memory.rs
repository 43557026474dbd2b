//! Physical memory in a snapshot: runs of pages under one key.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | number of the first page |
//! | 2 | pages; 0 ends the list |
//! | 2 | the key they are held under |
//! | 1 | 0: they are zero; 1: their contents follow |
//!
//! Runs ascend, and do not cross the borders of the arena's granules. Pages that are zero under the default key are in no
//! run. A page held under a private key is saved as that key sees it.

use std::io::{Read, Write};

use phys_memory::Arena;
use tdvisor_base::{KeyId, PAGE_SIZE, Pfn, to_usize};

use super::{SnapshotError, damaged};

const PAGE: usize = to_usize(PAGE_SIZE);
const RUN_BYTES: usize = 8 + 2 + 2 + 1;
const ZERO: u8 = 0;
const DATA: u8 = 1;

/// Pages of a granule of the arena.
const GRANULE_PAGES: u64 = Arena::GRANULE / PAGE_SIZE;

/// Pages next to each other.
struct Run {
    first: u64,
    pages: u16,
    key: KeyId,
    contents: u8,
}

impl Run {
    const END: Self = Self { first: 0, pages: 0, key: KeyId::DEFAULT, contents: ZERO };

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.first.to_le_bytes().to_vec();
        bytes.extend(self.pages.to_le_bytes());
        bytes.extend(self.key.get().to_le_bytes());
        bytes.push(self.contents);
        bytes
    }

    fn of(bytes: [u8; RUN_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, p, q, k, l, contents] = bytes;
        Self {
            first: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            pages: u16::from_le_bytes([p, q]),
            key: KeyId::new(u16::from_le_bytes([k, l])),
            contents,
        }
    }

    /// Whether the next page can be one of the run.
    fn goes_on_with(&self, page: u64, key: KeyId, contents: u8) -> bool {
        self.first + u64::from(self.pages) == page && (self.key, self.contents) == (key, contents)
    }
}

/// Writes what is in memory.
pub(super) fn write(out: &mut impl Write, arena: &Arena) -> Result<(), SnapshotError> {
    let pages = arena.bytes() / PAGE_SIZE;
    for granule in (0..pages).step_by(to_usize(GRANULE_PAGES)) {
        if !arena.is_absent(Pfn::new(granule).base()) {
            write_granule(out, arena, granule..pages.min(granule + GRANULE_PAGES))?;
        }
    }
    out.write_all(&Run::END.bytes())?;
    Ok(())
}

fn write_granule(
    out: &mut impl Write,
    arena: &Arena,
    pages: core::ops::Range<u64>,
) -> Result<(), SnapshotError> {
    let (mut run, mut data) = (Run::END, Vec::new());
    let mut page = [0; PAGE];
    for number in pages {
        let pfn = Pfn::new(number);
        let key = arena.page_key(pfn).map_err(|_| SnapshotError::Memory)?;
        arena.read(pfn.base(), key, &mut page).map_err(|_| SnapshotError::Memory)?;
        let contents = if page == [0; PAGE] { ZERO } else { DATA };
        if run.pages == 0 || !run.goes_on_with(number, key, contents) {
            end_run(out, &run, &mut data)?;
            run = Run { first: number, pages: 0, key, contents };
        }
        run.pages += 1;
        if contents == DATA {
            data.extend(page);
        }
    }
    end_run(out, &run, &mut data)
}

fn end_run(out: &mut impl Write, run: &Run, data: &mut Vec<u8>) -> Result<(), SnapshotError> {
    let is_as_at_power_on = run.contents == ZERO && run.key == KeyId::DEFAULT;
    if run.pages != 0 && !is_as_at_power_on {
        out.write_all(&run.bytes())?;
        out.write_all(data)?;
    }
    data.clear();
    Ok(())
}

/// Fills empty memory with what was written.
pub(super) fn read(input: &mut impl Read, arena: &Arena) -> Result<(), SnapshotError> {
    let pages = arena.bytes() / PAGE_SIZE;
    let mut next = 0;
    let mut page = [0; PAGE];
    loop {
        let mut bytes = [0; RUN_BYTES];
        input.read_exact(&mut bytes).map_err(damaged)?;
        let run = Run::of(bytes);
        if run.pages == 0 {
            return Ok(());
        }
        let end = run.first.checked_add(run.pages.into()).filter(|end| *end <= pages);
        let end = end.ok_or(SnapshotError::Memory)?;
        if run.first < next || run.contents > DATA {
            return Err(SnapshotError::Damaged);
        }
        next = end;
        for number in run.first..end {
            let pfn = Pfn::new(number);
            arena.clear_page(pfn, run.key).map_err(|_| SnapshotError::Memory)?;
            if run.contents == DATA {
                input.read_exact(&mut page).map_err(damaged)?;
                arena.write(pfn.base(), run.key, &page).map_err(|_| SnapshotError::Memory)?;
            }
        }
    }
}
