//! The MMU of one guest: two roots, what they need, and what they hold.

use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

use crate::cache::{MirrorTable, Reserve, TableCache};
use crate::error::{Death, MmuError, Step};
use crate::external::{External, HookError};
use crate::lock::{Core, Participant, Statistics};
use crate::notifier::Notifier;
use crate::range::{GfnRange, Position};
use crate::reclaim::Limbo;
use crate::slab::{self, Slab};
use crate::spte::{AccessTracking, Spte};
use crate::table::{NoMemory, Returned, Table, TablePages, TableRef};

/// How an MMU is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The level of the root's entries: [`Level::L512G`] for four-level trees, [`Level::L256T`] for five.
    pub root_level: Level,
    /// The bit, as a frame number, that hardware sees set in every address of the direct tree; zero where
    /// there is none. Frames in this crate's interface never have it.
    pub shared_bit: Gfn,
    /// The first frame that can no longer be mapped.
    pub end: Gfn,
    /// How many participants there may be at once.
    pub participants: usize,
    /// How many mirror tables there may be.
    pub mirror_tables: usize,
    /// How the direct tree learns that a page was used.
    pub direct_access: AccessTracking,
    /// How many direct tables the guest may have made for device entries alone: it chooses where it touches.
    pub device_tables: usize,
    /// How many entries one removal blocks at once; longer ranges take several rounds.
    pub batch: usize,
    /// How often the steps that undo something are tried before the TD is given up.
    pub undo_attempts: u32,
}

impl Config {
    /// For a TD with this guest-physical address width, 48 or 52 bits: its topmost bit is the SHARED bit.
    pub const fn for_address_width(bits: u32) -> Self {
        let (root_level, bits) = if bits > 48 { (Level::L256T, 52) } else { (Level::L512G, 48) };
        let shared = 1 << (bits - 13);
        Self {
            root_level,
            shared_bit: Gfn::new(shared),
            end: Gfn::new(shared),
            participants: 64,
            mirror_tables: 1 << 20,
            direct_access: AccessTracking::Permissions,
            device_tables: 1 << 12,
            batch: 1 << 18,
            undo_attempts: 16,
        }
    }
}

/// The MMU of one guest.
pub struct Mmu<P: TablePages, X: External<Page = P::ExternalPage>> {
    pub(crate) core: Arc<Core>,
    pub(crate) pages: P,
    pub(crate) external: X,
    pub(crate) slab: Slab<P::ExternalPage>,
    pub(crate) mirror_root: TableRef,
    pub(crate) direct_root: AtomicU64,
    /// Direct tables under the present root that device faults made.
    pub(crate) device_tables: AtomicU64,
    pub(crate) config: Config,
    pub(crate) notifier: Notifier,
    pub(crate) limbo: Limbo,
    /// Entries whose tables became empty: candidates, checked again before use.
    pub(crate) emptied: Mutex<Vec<Position>>,
    dead: AtomicBool,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> fmt::Debug for Mmu<P, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmu").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// An MMU with two empty roots.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(config: Config, pages: P, external: X) -> Result<Self, NoMemory> {
        let slab = Slab::new(config.mirror_tables)?;
        let mirror_root = slab.alloc()?;
        if let Some(table) = slab.get(mirror_root) {
            slab::fill(table, Spte::ABSENT);
        }
        let direct_root = pages.alloc_direct()?;
        let Some(table) = pages.direct_table(direct_root) else {
            pages.free_direct(direct_root);
            return Err(NoMemory);
        };
        slab::fill(table, Spte::ABSENT);
        Self::assemble(config, pages, external, slab, (mirror_root, direct_root))
    }

    /// An MMU with these roots: of the mirror, and of the direct tree.
    pub(crate) fn assemble(
        config: Config,
        pages: P,
        external: X,
        slab: Slab<P::ExternalPage>,
        (mirror_root, direct_root): (TableRef, Pfn),
    ) -> Result<Self, NoMemory> {
        let core = match Core::new(config.participants) {
            Ok(core) => Arc::new(core),
            Err(error) => {
                pages.free_direct(direct_root);
                return Err(error);
            }
        };
        Ok(Self {
            core,
            pages,
            external,
            slab,
            mirror_root,
            direct_root: AtomicU64::new(direct_root.get()),
            device_tables: AtomicU64::new(0),
            config,
            notifier: Notifier::new(),
            limbo: Limbo::new(),
            emptied: Mutex::new(Vec::new()),
            dead: AtomicBool::new(false),
        })
    }

    /// How the MMU was made.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The hooks.
    pub const fn external(&self) -> &X {
        &self.external
    }

    /// The supplier of table memory.
    pub const fn pages(&self) -> &P {
        &self.pages
    }

    /// Joins the MMU; `None` where [`Config::participants`] have joined already.
    pub fn participant(&self) -> Option<Participant> {
        Participant::join(&self.core)
    }

    /// The page of the direct tree's root: what the shared EPT pointer of the guest refers to.
    pub fn direct_root(&self) -> Pfn {
        Pfn::new(self.direct_root.load(Ordering::Acquire))
    }

    /// The invalidation protocol.
    pub const fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// What is mapped. Exact while nobody holds a guard.
    pub fn statistics(&self) -> Statistics {
        Statistics::of(&self.core)
    }

    /// Mirror tables that exist: linked ones, the root, and those in caches.
    pub fn mirror_tables_in_use(&self) -> usize {
        self.slab.in_use()
    }

    /// Direct tables that wait for their grace period.
    pub fn direct_tables_waiting(&self) -> usize {
        self.limbo.len()
    }

    /// Bytes that a mirror table costs beside itself.
    pub const fn metadata_bytes_per_table() -> usize {
        Slab::<P::ExternalPage>::metadata_bytes()
    }

    /// Whether the TD must end.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Fills a cache, outside every guard, where it holds less than what is asked for. Also frees direct tables whose
    /// grace period is over.
    ///
    /// # Errors
    /// [`NoMemory`]; what was reserved stays in the cache.
    #[inline]
    pub fn top_up(&self, cache: &mut TableCache<P::ExternalPage>, reserve: Reserve) -> Result<(), NoMemory> {
        match reserve {
            Reserve::Mirror(n) if cache.mirror.len() >= n => Ok(()),
            _ => self.refill(cache, reserve),
        }
    }

    #[cold]
    fn refill(&self, cache: &mut TableCache<P::ExternalPage>, reserve: Reserve) -> Result<(), NoMemory> {
        cache.make_room(reserve)?;
        match reserve {
            Reserve::Mirror(n) => {
                while cache.mirror.len() < reserve.refill_to() {
                    match self.reserve_mirror() {
                        Ok(reserved) => cache.mirror.push_back(reserved),
                        Err(NoMemory) if cache.mirror.len() >= n => break,
                        Err(NoMemory) => return Err(NoMemory),
                    }
                }
                cache.in_order();
            }
            Reserve::Direct(n) => {
                self.limbo.collect(&self.core, |page| self.pages.free_direct(page));
                while cache.direct.len() < n {
                    cache.direct.push(self.pages.alloc_direct()?);
                }
            }
        }
        Ok(())
    }

    fn reserve_mirror(&self) -> Result<MirrorTable<P::ExternalPage>, NoMemory> {
        let twin = self.pages.reserve_external()?;
        match self.slab.alloc() {
            Ok(table) => Ok(MirrorTable { table, twin }),
            Err(full) => {
                self.pages.return_external(twin, Returned::Unused);
                Err(full)
            }
        }
    }

    /// Gives back everything in a cache.
    pub fn release(&self, cache: &mut TableCache<P::ExternalPage>) {
        for MirrorTable { table, twin } in cache.mirror.drain(..) {
            self.slab.free(table);
            self.pages.return_external(twin, Returned::Unused);
        }
        for page in cache.direct.drain(..) {
            self.pages.free_direct(page);
        }
    }

    /// The first table of a tree, and the level of its entries.
    #[inline(always)]
    pub(crate) fn mirror_table(&self, table: TableRef) -> Option<&Table> {
        self.slab.get(table)
    }

    #[inline(always)]
    pub(crate) fn direct_table(&self, table: TableRef) -> Option<&Table> {
        self.pages.direct_table(table.pfn())
    }

    #[inline(always)]
    pub(crate) fn check_gfn(&self, gfn: Gfn) -> Result<(), MmuError<X::Error>> {
        if gfn < self.config.end { Ok(()) } else { Err(MmuError::OutOfRange(gfn)) }
    }

    pub(crate) fn check_range(&self, range: GfnRange) -> Result<(), MmuError<X::Error>> {
        if range.end() <= self.config.end { Ok(()) } else { Err(MmuError::OutOfRange(range.end())) }
    }

    #[inline(always)]
    pub(crate) fn check_alive(&self) -> Result<(), MmuError<X::Error>> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(MmuError::Dead(Death { at: None, why: None }));
        }
        Ok(())
    }

    /// From now on nothing works any more: this TD, and only this one, must end.
    pub(crate) fn die(&self, at: Position, step: Step, why: HookError<X::Error>) -> MmuError<X::Error> {
        self.dead.store(true, Ordering::Release);
        MmuError::Dead(Death { at: Some((at, step)), why: Some(why) })
    }

    pub(crate) fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

/// Index of the entry of `level` for `gfn` inside its table.
#[inline(always)]
pub(crate) const fn index(gfn: Gfn, level: Level) -> usize {
    level.table_index(gfn) & (crate::table::ENTRIES - 1)
}
