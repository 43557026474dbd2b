//! An MMU at rest as numbers, for a snapshot.
//!
//! # Protocol
//! [`Mmu::save`] is called under [`Exclusive`] when nobody else has a guard or a window open: no entry is frozen then. The
//! mirror is saved as it is, entry by entry, with the number and the twin of every table and the order of the free ones: so what
//! goes on from it takes the same tables as what goes on without. Direct tables are pages of the host's memory, which is saved
//! as memory; of them the root and those that wait for their grace period are named. Caches are their owners' and are saved
//! beside, with [`Mmu::save_cache`].
//!
//! [`Restoring`] reads them in the same order. It refuses a tree that is none: a table that is linked twice, is free as well, or
//! is nobody's; an entry that is neither a leaf nor a table. Whether the mirror agrees with the external table is for the caller
//! to ask before anything runs. Readers' shortcuts and the epoch begin anew: they are not seen from outside.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::cache::{MirrorTable, TableCache};
use crate::external::External;
use crate::lock::Exclusive;
use crate::mmu::{Config, Mmu};
use crate::range::Position;
use crate::saved::{BadNumbers, Numbers, Reader};
use crate::slab::{self, Slab};
use crate::spte::Spte;
use crate::table::{TablePages, TableRef};

/// An MMU that is not at rest, or whose TD must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAtRest;

const LEVELS: [Level; 5] = [Level::L4K, Level::L2M, Level::L1G, Level::L512G, Level::L256T];

fn level(reader: &mut Reader<'_>) -> Result<Level, BadNumbers> {
    LEVELS.get(reader.narrow::<usize>()?).copied().ok_or(BadNumbers)
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Writes the MMU; `put_twin` writes the twin of a table.
    ///
    /// # Errors
    /// [`NotAtRest`]: a window is open, an entry is frozen, or the MMU is dead.
    pub fn save(
        &self,
        guard: &mut Exclusive<'_>,
        out: &mut Numbers,
        put_twin: &mut dyn FnMut(&mut Numbers, &P::ExternalPage),
    ) -> Result<(), NotAtRest> {
        if !guard.is_of(&self.core) || self.is_dead() || self.notifier.open_windows() != 0 {
            return Err(NotAtRest);
        }
        let (free, grown) = self.slab.free_tables();
        out.put_count(grown);
        out.put_list(free, |out, table| out.put(table));
        self.save_table(out, put_twin, self.mirror_root, self.config.root_level)?;
        out.put(self.direct_root().get());
        out.put(self.device_tables.load(Ordering::Relaxed));
        out.put_list(self.limbo.pages(), |out, page| out.put(page.get()));
        out.put_list(self.emptied.lock().iter(), |out, at| {
            out.put(at.gfn().get());
            out.put(at.level() as u64);
        });
        for counter in self.statistics().counters() {
            out.put(counter);
        }
        Ok(())
    }

    fn save_table(
        &self,
        out: &mut Numbers,
        put_twin: &mut dyn FnMut(&mut Numbers, &P::ExternalPage),
        table: TableRef,
        level: Level,
    ) -> Result<(), NotAtRest> {
        let entries = self.mirror_table(table).ok_or(NotAtRest)?;
        out.put(table.get());
        let twin = self.slab.twin(table).ok_or(NotAtRest)?.lock();
        out.put(twin.is_some());
        if let Some(twin) = twin.as_ref() {
            put_twin(out, twin);
        }
        drop(twin);
        let values = || (0u64..).zip(entries).map(|(i, entry)| (i, Spte(entry.load(Ordering::Acquire))));
        if values().any(|(_, value)| value != Spte::ABSENT && !value.is_present()) {
            return Err(NotAtRest);
        }
        out.put_list(values().filter(|(_, value)| *value != Spte::ABSENT), |out, (i, value)| {
            out.put(i);
            out.put(value.0);
        });
        let Some(below) = level.down() else { return Ok(()) };
        for (_, value) in values().filter(|(_, value)| value.is_table(level)) {
            self.save_table(out, put_twin, value.table_ref(), below)?;
        }
        Ok(())
    }

    /// Writes what is in a cache.
    pub fn save_cache(
        out: &mut Numbers,
        cache: &TableCache<P::ExternalPage>,
        mut put_twin: impl FnMut(&mut Numbers, &P::ExternalPage),
    ) {
        out.put_list(&cache.mirror, |out, MirrorTable { table, twin }| {
            out.put(table.get());
            put_twin(out, twin);
        });
        out.put_list(&cache.direct, |out, page| out.put(page.get()));
    }
}

/// An MMU that is being read, and the tables that nobody has claimed yet.
#[derive(Debug)]
pub struct Restoring<P: TablePages, X: External<Page = P::ExternalPage>> {
    mmu: Mmu<P, X>,
    unclaimed: BTreeSet<u64>,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Restoring<P, X> {
    /// Reads what [`Mmu::save`] wrote; `twin` reads the twin of a table. The host's memory is as it was.
    ///
    /// # Errors
    /// [`BadNumbers`]: this is no such MMU, or there is no memory for it.
    pub fn read(
        config: Config,
        pages: P,
        external: X,
        reader: &mut Reader<'_>,
        twin: &mut dyn FnMut(&mut Reader<'_>) -> Result<P::ExternalPage, BadNumbers>,
    ) -> Result<Self, BadNumbers> {
        let grown: usize = reader.narrow()?;
        // Each table is named once.
        if grown > reader.left() {
            return Err(BadNumbers);
        }
        let free = reader.list(Reader::narrow::<u32>)?;
        if grown > config.mirror_tables.next_multiple_of(slab::TABLES_AT_ONCE) {
            return Err(BadNumbers);
        }
        let mut unclaimed: BTreeSet<u64> = (0..grown as u64).collect();
        if !free.iter().all(|table| unclaimed.remove(&u64::from(*table))) {
            return Err(BadNumbers);
        }
        let slab = Slab::restore(config.mirror_tables, grown, free).ok_or(BadNumbers)?;
        let mirror_root = {
            let mut trees = Trees { slab: &slab, unclaimed: &mut unclaimed, twin };
            trees.read_table(reader, None, Position::of(Gfn::new(0), config.root_level))?
        };
        let direct_root = Pfn::new(reader.number()?);
        if pages.direct_table(direct_root).is_none() {
            return Err(BadNumbers);
        }
        let mmu = Mmu::assemble(config, pages, external, slab, (mirror_root, direct_root))
            .map_err(|_| BadNumbers)?;
        mmu.device_tables.store(reader.number()?, Ordering::Relaxed);
        for page in reader.list(Reader::number)? {
            mmu.limbo.make_room(1).map_err(|_| BadNumbers)?;
            mmu.limbo.retire(&mmu.core, Pfn::new(page));
        }
        *mmu.emptied.lock() =
            reader.list(|reader| Ok(Position::of(Gfn::new(reader.number()?), level(reader)?)))?;
        mmu.core.set_counters(reader.array()?);
        Ok(Self { mmu, unclaimed })
    }

    /// Reads what [`Mmu::save_cache`] wrote.
    ///
    /// # Errors
    /// [`BadNumbers`].
    pub fn read_cache(
        &mut self,
        reader: &mut Reader<'_>,
        mut twin: impl FnMut(&mut Reader<'_>) -> Result<P::ExternalPage, BadNumbers>,
    ) -> Result<TableCache<P::ExternalPage>, BadNumbers> {
        let mirror = reader.list(|reader| {
            let number = reader.number()?;
            let twin = twin(reader)?;
            if !self.unclaimed.remove(&number) {
                return Err(BadNumbers);
            }
            Ok(MirrorTable { table: TableRef::new(number), twin })
        })?;
        let direct: Vec<Pfn> = reader.list(Reader::number)?.into_iter().map(Pfn::new).collect();
        Ok(TableCache { mirror: mirror.into(), direct })
    }

    /// The MMU.
    ///
    /// # Errors
    /// [`BadNumbers`]: some table is nobody's.
    pub fn finish(self) -> Result<Mmu<P, X>, BadNumbers> {
        if self.unclaimed.is_empty() { Ok(self.mmu) } else { Err(BadNumbers) }
    }
}

/// Reads the mirror's tables.
struct Trees<'t, Twin> {
    slab: &'t Slab<Twin>,
    unclaimed: &'t mut BTreeSet<u64>,
    twin: &'t mut dyn FnMut(&mut Reader<'_>) -> Result<Twin, BadNumbers>,
}

impl<Twin> Trees<'_, Twin> {
    /// Reads a table whose first entry is `first`, and those below it. All but the root have a number that is known, and a twin.
    fn read_table(
        &mut self,
        reader: &mut Reader<'_>,
        known: Option<TableRef>,
        first: Position,
    ) -> Result<TableRef, BadNumbers> {
        let number = reader.number()?;
        let table = TableRef::new(number);
        let is_expected = table.get() == number && known.is_none_or(|known| known == table);
        if !is_expected || !self.unclaimed.remove(&number) || reader.flag()? != known.is_some() {
            return Err(BadNumbers);
        }
        if known.is_some() {
            let twin = (self.twin)(reader)?;
            *self.slab.twin(table).ok_or(BadNumbers)?.lock() = Some(twin);
        }
        let entries = self.slab.get(table).ok_or(BadNumbers)?;
        slab::fill(entries, Spte::ABSENT);
        let level = first.level();
        let mut below = Vec::new();
        reader.list(|reader| {
            let entry = entries.get(reader.narrow::<usize>()?).ok_or(BadNumbers)?;
            let value = Spte(reader.number()?);
            let is_new = entry.swap(value.0, Ordering::Relaxed) == Spte::ABSENT.0;
            match (value.is_table(level), value.is_leaf(level)) {
                (true, _) => below.push(value.table_ref()),
                (false, true) => {}
                (false, false) => return Err(BadNumbers),
            }
            if is_new { Ok(()) } else { Err(BadNumbers) }
        })?;
        for child in below {
            let level = level.down().ok_or(BadNumbers)?;
            self.read_table(reader, Some(child), Position::of(first.gfn(), level))?;
        }
        Ok(table)
    }
}
