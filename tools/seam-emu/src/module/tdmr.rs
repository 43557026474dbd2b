//! TDMRs: the memory ranges that the module manages, and where their PAMT lies.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes as _, IntoBytes as _};

use phys_memory::Arena;
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Hpa, Level};
use tdx_module_iface::tdmr::{TDMR_ALIGN, TDMR_INIT_STEP, TdmrInfo};

use super::dynamic_pamt::{DynamicPamt, bitmap_size};
use super::pamt::PamtEntry;
use crate::lock::{Busy, Guard, HostPriority, Mode, Side, TryLock};

/// The entry of a 1 GiB block.
///
/// Every walk in the block locks it, so that the entries of two blocks must not share a cache line, as they would
/// at sixteen bytes each: TDs that have nothing in common would wait for each other. The pages that the host gave
/// for these entries are taken, cleared and watched as those of the other levels are; the values lie here.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Block {
    word: AtomicU64,
    bepoch: AtomicU64,
}

impl Block {
    fn fork(&self) -> Self {
        let [word, bepoch] = [&self.word, &self.bepoch].map(|w| AtomicU64::new(w.load(Ordering::Acquire)));
        Self { word, bepoch }
    }
}

/// A TDMR as a snapshot holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedTdmr {
    /// TDMR_INFO, byte for byte.
    info: Vec<u8>,
    /// Word and BEPOCH of each 1 GiB block.
    blocks: Vec<[u64; 2]>,
    dynamic: Option<Vec<[u64; 2]>>,
    next: u64,
}

/// One TDMR as SYS.CONFIG accepted it.
#[derive(Debug)]
pub(crate) struct Tdmr {
    pub(crate) info: TdmrInfo,
    blocks: Box<[Block]>,
    /// Set where 4 KiB entries exist on demand only.
    dynamic: Option<DynamicPamt>,
    /// The next address that TDMR.INIT initialises; the end of the TDMR once it is done.
    next: AtomicU64,
    lock: AtomicU64,
}

impl Tdmr {
    /// A TDMR whose PAMT is complete.
    pub(crate) fn new(info: TdmrInfo) -> Self {
        let blocks = usize::try_from(info.size / TDMR_ALIGN).unwrap_or(0);
        Self {
            blocks: (0..blocks).map(|_| Block::default()).collect(),
            next: AtomicU64::new(info.base),
            lock: AtomicU64::new(0),
            dynamic: None,
            info,
        }
    }

    /// A TDMR whose 4 KiB entries the host brings as it needs them.
    pub(crate) fn with_dynamic_pamt(info: TdmrInfo) -> Self {
        let dynamic = DynamicPamt::new(info.base, info.size, info.pamt_4k_base);
        Self { dynamic: Some(dynamic), ..Self::new(info) }
    }

    pub(crate) const fn dynamic(&self) -> Option<&DynamicPamt> {
        self.dynamic.as_ref()
    }

    fn fork(&self) -> Self {
        Self {
            info: self.info,
            blocks: self.blocks.iter().map(Block::fork).collect(),
            dynamic: self.dynamic.as_ref().map(DynamicPamt::fork),
            next: AtomicU64::new(self.next.load(Ordering::Acquire)),
            lock: AtomicU64::new(0),
        }
    }

    fn save(&self) -> SavedTdmr {
        let Self { info, blocks, dynamic, next, lock: _ } = self;
        let block = |block: &Block| {
            let Block { word, bepoch } = block;
            [word, bepoch].map(|word| word.load(Ordering::Acquire))
        };
        SavedTdmr {
            info: info.as_bytes().to_vec(),
            blocks: blocks.iter().map(block).collect(),
            dynamic: dynamic.as_ref().map(DynamicPamt::save),
            next: next.load(Ordering::Acquire),
        }
    }

    /// `None` where what was saved does not fit together.
    fn restore(saved: &SavedTdmr) -> Option<Self> {
        /// No TDMR is larger than the address space.
        const MOST: u64 = 1 << 52;
        let SavedTdmr { info, blocks, dynamic, next } = saved;
        let info = TdmrInfo::read_from_bytes(info).ok().filter(|info| info.size <= MOST)?;
        if blocks.len() as u64 != info.size / TDMR_ALIGN {
            return None;
        }
        let blocks = blocks.iter().map(|words| {
            let [word, bepoch] = words.map(AtomicU64::new);
            Block { word, bepoch }
        });
        Some(Self {
            info,
            blocks: blocks.collect(),
            dynamic: match dynamic {
                Some(pairs) => {
                    Some(DynamicPamt::new(info.base, info.size, info.pamt_4k_base).restore(pairs)?)
                }
                None => None,
            },
            next: AtomicU64::new(*next),
            lock: AtomicU64::new(0),
        })
    }

    pub(crate) fn lock(&self) -> Result<Guard<'_>, Busy> {
        TryLock::new(&self.lock, HostPriority::No).acquire(Mode::Exclusive, Side::Host)
    }

    pub(crate) const fn end(&self) -> u64 {
        self.info.base.saturating_add(self.info.size)
    }

    pub(crate) const fn contains(&self, hpa: u64) -> bool {
        hpa >= self.info.base && hpa - self.info.base < self.info.size
    }

    pub(crate) fn next_to_initialise(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Whether the whole 1 GiB block of an address is initialised: only then its pages exist for the module.
    pub(crate) fn block_is_initialised(&self, hpa: u64) -> bool {
        hpa < self.next_to_initialise() & !(TDMR_ALIGN - 1)
    }

    /// Initialises the next step's PAMT entries and gives the new progress. The caller holds the lock.
    pub(crate) fn initialise_step(&self, memory: &Arena, key: tdvisor_base::KeyId) -> u64 {
        let at = self.next_to_initialise();
        let end = at.saturating_add(TDMR_INIT_STEP).min(self.end());
        if at.is_multiple_of(TDMR_ALIGN) {
            // The entries of the block's 1 GiB and 2 MiB levels, and the pages that they lie in.
            self.clear_entries(memory, key, Level::L1G, at, at.saturating_add(TDMR_ALIGN));
            self.clear_entries(memory, key, Level::L2M, at, at.saturating_add(TDMR_ALIGN));
        }
        match self.dynamic {
            None => {
                self.clear_entries(memory, key, Level::L4K, at, end);
                self.mark_reserved(memory, at, end);
            }
            Some(_) if at == self.info.base => {
                for offset in (0..bitmap_size(self.info.size)).step_by(4096) {
                    let page = Hpa::new(self.info.pamt_4k_base.saturating_add(offset));
                    let _ = memory.clear_page(page.frame(), key);
                }
            }
            Some(_) => {}
        }
        self.next.store(end, Ordering::Release);
        end
    }

    /// Marks the pages of reserved areas inside `[from, to)` as never usable.
    pub(crate) fn mark_reserved(&self, memory: &Arena, from: u64, to: u64) {
        for area in self.info.reserved.iter().take_while(|area| area.size != 0) {
            let start = self.info.base.saturating_add(area.offset);
            let end = start.saturating_add(area.size).min(to);
            for hpa in (start.max(from)..end).step_by(4096) {
                if let Some(entry) = self.entry(memory, Level::L4K, Hpa::new(hpa)) {
                    entry.set_reserved();
                }
            }
        }
    }

    /// Zeroes the PAMT pages that hold entries for `[from, to)`: a zero entry is a free page.
    fn clear_entries(&self, memory: &Arena, key: tdvisor_base::KeyId, level: Level, from: u64, to: u64) {
        let (base, _) = self.pamt(level);
        let first = base.saturating_add(((from - self.info.base) >> level.shift()) * 16);
        let last = base.saturating_add(((to - self.info.base) >> level.shift()) * 16);
        // A page that holds entries of several blocks is cleared with the first of them.
        let mut page = first & !4095;
        if page < first {
            page += 4096;
        }
        while page < last {
            // Outside memory there is nothing to clear; SYS.CONFIG saw to it that PAMTs lie in CMRs.
            let _ = memory.clear_page(Hpa::new(page).frame(), key);
            page += 4096;
        }
    }

    /// Base and size of the PAMT of a level.
    pub(crate) const fn pamt(&self, level: Level) -> (u64, u64) {
        match level {
            Level::L4K => (self.info.pamt_4k_base, self.info.pamt_4k_size),
            Level::L2M => (self.info.pamt_2m_base, self.info.pamt_2m_size),
            _ => (self.info.pamt_1g_base, self.info.pamt_1g_size),
        }
    }

    /// Where in PAMT memory the entry of a page of this level lies.
    fn entry_at(&self, level: Level, hpa: Hpa) -> Option<Hpa> {
        match &self.dynamic {
            Some(dynamic) if level == Level::L4K => dynamic.entry_address(hpa),
            _ => {
                let (base, _) = self.pamt(level);
                let index = hpa.get().checked_sub(self.info.base)? >> level.shift();
                Some(Hpa::new(base.checked_add(index.checked_mul(16)?)?))
            }
        }
    }

    /// The PAMT entry of a page of this level.
    pub(crate) fn entry<'m>(&'m self, memory: &'m Arena, level: Level, hpa: Hpa) -> Option<PamtEntry<'m>> {
        if level == Level::L1G {
            let index = hpa.get().checked_sub(self.info.base)? / TDMR_ALIGN;
            let block = self.blocks.get(usize::try_from(index).ok()?)?;
            return Some(PamtEntry::new(&block.word, &block.bepoch));
        }
        let at = self.entry_at(level, hpa)?;
        let words = memory.table(at.frame()).ok()?;
        let slot = (at.page_offset() / 8) as usize;
        Some(PamtEntry::new(words.get(slot)?, words.get(slot + 1)?))
    }
}

impl Tdmr {
    /// The 4 KiB entries of a 2 MiB range, with their pages: none where dynamic PAMT has none. They fill two pages
    /// of PAMT memory.
    pub(crate) fn small_entries<'m>(
        &'m self,
        memory: &'m Arena,
        range: Hpa,
    ) -> impl Iterator<Item = (Hpa, PamtEntry<'m>)> {
        let halves = [0, 256u64].map(|index| self.entry_at(Level::L4K, range.wrapping_add(index << 12)));
        let tables = halves.into_iter().flatten().filter_map(|at| memory.table(at.frame()).ok());
        let entries = tables.flat_map(|table| table.as_chunks().0);
        (0u64..).zip(entries).map(move |(index, [word, bepoch])| {
            (range.wrapping_add(index << 12), PamtEntry::new(word, bepoch))
        })
    }
}

/// All TDMRs, in ascending order. Set once, by a SYS.CONFIG that succeeds.
#[derive(Debug, Default)]
pub(crate) struct TdmrTable(OnceLock<Box<[Tdmr]>>);

impl TdmrTable {
    pub(crate) fn set(&self, tdmrs: Vec<Tdmr>) {
        let _ = self.0.set(tdmrs.into_boxed_slice());
    }

    pub(crate) fn all(&self) -> &[Tdmr] {
        self.0.get().map_or(&[], |tdmrs| tdmrs)
    }

    pub(crate) fn fork(&self) -> Self {
        let fork = Self::default();
        if let Some(tdmrs) = self.0.get() {
            fork.set(tdmrs.iter().map(Tdmr::fork).collect());
        }
        fork
    }

    /// All TDMRs as a snapshot holds them; `None` before SYS.CONFIG.
    pub(super) fn save(&self) -> Option<Vec<SavedTdmr>> {
        Some(self.0.get()?.iter().map(Tdmr::save).collect())
    }

    /// Takes over what [`Self::save`] gave; `None` where that does not fit together.
    pub(super) fn restore(saved: Option<&[SavedTdmr]>) -> Option<Self> {
        let table = Self::default();
        if let Some(tdmrs) = saved {
            table.set(tdmrs.iter().map(Tdmr::restore).collect::<Option<_>>()?);
        }
        Some(table)
    }

    /// The TDMR of an address whose 1 GiB block is initialised.
    pub(crate) fn of_page(&self, hpa: Hpa) -> Option<&Tdmr> {
        self.all().iter().find(|tdmr| tdmr.contains(hpa.get()) && tdmr.block_is_initialised(hpa.get()))
    }
}
