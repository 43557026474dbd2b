//! The product as it is benchmarked: real table memory, and an external table in a second radix tree with
//! its own walk and one locked instruction per change, as a module in software would have.

use mirror_ept::external::phase::{Batch, Blocked, Tracked};
use mirror_ept::{
    Access, AccessTracking, Blocking, Config, Exclusive, External, ExternalPage, Fault, FaultOutcome,
    GfnRange, HookError, Mmu, NoMemory, Participant, Position, Reserve, Returned, Shared, Table, TableCache,
    TablePages, Target,
};
use std::sync::Mutex;
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::table::fill;
use tdvisor_base::{Gfn, Level, Pfn};

/// Page-aligned tables, written once so that they are really there.
pub struct Pool {
    tables: Vec<Aligned>,
    free: FreeList,
}

/// On cache lines of its own, as any allocator has it.
#[repr(align(128))]
struct FreeList(Mutex<Vec<u32>>);

#[repr(align(4096))]
struct Aligned(Table);

impl Pool {
    pub fn new(tables: usize) -> Self {
        Self {
            tables: (0..tables).map(|_| Aligned(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            free: FreeList(Mutex::new((0..tables as u32).rev().collect())),
        }
    }

    #[inline(always)]
    pub fn get(&self, index: u64) -> Option<&Table> {
        self.tables.get(index as usize).map(|aligned| &aligned.0)
    }

    fn take(&self) -> Result<u64, NoMemory> {
        self.free.0.lock().ok().and_then(|mut free| free.pop()).map(u64::from).ok_or(NoMemory)
    }

    fn give(&self, index: u64) {
        if let Ok(mut free) = self.free.0.lock() {
            free.push(index as u32);
        }
    }
}

pub struct Twin(u64);

impl ExternalPage for Twin {
    fn pfn(&self) -> Pfn {
        Pfn::new(self.0)
    }
}

/// Memory for direct tables and twins.
pub struct Pages {
    direct: Pool,
    external: std::sync::Arc<Pool>,
}

impl TablePages for Pages {
    type ExternalPage = Twin;

    fn alloc_direct(&self) -> Result<Pfn, NoMemory> {
        self.direct.take().map(Pfn::new)
    }

    fn free_direct(&self, page: Pfn) {
        self.direct.give(page.get());
    }

    #[inline(always)]
    fn direct_table(&self, page: Pfn) -> Option<&Table> {
        self.direct.get(page.get())
    }

    fn reserve_external(&self) -> Result<Twin, NoMemory> {
        self.external.take().map(Twin)
    }

    fn return_external(&self, page: Twin, _: Returned) {
        self.external.give(page.0);
    }
}

const PRESENT: u64 = 1;
const LEAF: u64 = 2;
const BLOCKED: u64 = 4;

/// The external table.
pub struct Radix {
    pool: std::sync::Arc<Pool>,
    root: u64,
    /// Busy work per map hook, in rounds of [`spin`]: what a real module call costs.
    pub delay: u64,
    /// The leaf table that the exclusive side used last, and the 2M it covers, plus one.
    last: [AtomicU64; 2],
}

/// About a nanosecond per four rounds; calibrated where it is used.
#[inline(never)]
pub fn spin(rounds: u64) {
    for i in 0..rounds {
        std::hint::black_box(i);
    }
}

impl Radix {
    /// The entry at a position, by a walk from the root.
    #[inline(always)]
    fn entry(&self, at: Position) -> Option<&AtomicU64> {
        let gfn = at.gfn();
        let below = |table: &Table, level: Level| -> Option<&Table> {
            self.pool.get(table.get(level.table_index(gfn))?.load(Ordering::Relaxed) >> 12)
        };
        let mut table = self.pool.get(self.root)?;
        if at.level() < Level::L512G {
            table = below(table, Level::L512G)?;
        }
        if at.level() < Level::L1G {
            table = below(table, Level::L1G)?;
        }
        if at.level() < Level::L2M {
            table = below(table, Level::L2M)?;
        }
        table.get(at.level().table_index(gfn))
    }

    /// The entry at a frame, for whoever is alone: the next entry is usually in the same table.
    #[inline(always)]
    fn alone(&self, at: Position) -> Option<&AtomicU64> {
        if at.level() != Level::L4K {
            return self.entry(at);
        }
        let [covers, table] = &self.last;
        let tag = at.gfn().get() / 512 + 1;
        if covers.load(Ordering::Relaxed) != tag {
            let parent = self.entry(Position::of(at.gfn(), Level::L2M))?.load(Ordering::Relaxed);
            table.store(parent >> 12, Ordering::Relaxed);
            covers.store(tag, Ordering::Relaxed);
        }
        self.pool.get(table.load(Ordering::Relaxed))?.get(Level::L4K.table_index(at.gfn()))
    }

    #[inline(always)]
    fn change_alone(&self, at: Position, from: u64, to: u64) -> Said {
        match self.alone(at) {
            Some(entry) if entry.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok() => {
                Ok(())
            }
            _ => Err(HookError::Fatal("the external entry is not what the mirror says")),
        }
    }

    #[inline(always)]
    fn change(&self, at: Position, from: u64, to: u64) -> Said {
        match self.entry(at) {
            Some(entry) if entry.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok() => {
                Ok(())
            }
            _ => Err(HookError::Fatal("the external entry is not what the mirror says")),
        }
    }

    fn clear(&self, page: u64) {
        if let Some(table) = self.pool.get(page) {
            fill(table, 0, 0);
        }
    }
}

type Said = Result<(), HookError<&'static str>>;

const fn leaf(pfn: Pfn) -> u64 {
    pfn.get() << 12 | PRESENT | LEAF
}

impl External for Radix {
    type Page = Twin;
    type Error = &'static str;
    type Ctx = ();

    fn link_external_spt(&self, (): &mut (), _: &Shared<'_>, at: Position, page: &mut Twin) -> Said {
        self.clear(page.0);
        self.change(at, 0, page.0 << 12 | PRESENT)
    }

    #[inline(always)]
    fn set_external_spte(&self, (): &mut (), _: &Shared<'_>, at: Position, pfn: Pfn) -> Said {
        if self.delay > 0 {
            spin(self.delay);
        }
        self.change(at, 0, leaf(pfn))
    }

    fn set_external_run(
        &self,
        (): &mut (),
        _: &Shared<'_>,
        first: Position,
        pfn: Pfn,
        count: usize,
    ) -> (usize, Said) {
        // One walk for the run, as long as it stays in one table, which it does.
        let Some(up) = first.level().up() else { return (0, Ok(())) };
        let table = self.entry(Position::of(first.gfn(), up)).map(|e| e.load(Ordering::Relaxed) >> 12);
        let Some(table) = table.and_then(|index| self.pool.get(index)) else {
            return (0, Err(HookError::Fatal("no table")));
        };
        let start = first.level().table_index(first.gfn());
        let mut value = leaf(pfn);
        for (done, entry) in table.iter().skip(start).take(count).enumerate() {
            if entry.load(Ordering::Relaxed) != 0 {
                return (done, Err(HookError::Fatal("not free")));
            }
            entry.store(value, Ordering::Relaxed);
            value += first.level().bytes();
        }
        (count, Ok(()))
    }

    #[inline]
    fn block(&self, (): &mut (), _: &mut Exclusive<'_>, at: Position, what: Blocking) -> Said {
        let table = if what == Blocking::Table { self.entry(at) } else { None };
        match (what, table) {
            (Blocking::Leaf(pfn), _) => self.change_alone(at, leaf(pfn), leaf(pfn) | BLOCKED),
            (Blocking::Table, Some(entry)) => {
                self.last[0].store(0, Ordering::Relaxed);
                entry.fetch_or(BLOCKED, Ordering::AcqRel);
                Ok(())
            }
            _ => Err(HookError::Fatal("no entry")),
        }
    }

    fn track(&self, (): &mut (), _: &mut Exclusive<'_>, _: &Batch<Blocked>) -> Said {
        Ok(())
    }

    #[inline]
    fn remove_external_spte(&self, (): &mut (), _: &mut Exclusive<'_>, entry: &Tracked, pfn: Pfn) -> Said {
        self.change_alone(entry.at(), leaf(pfn) | BLOCKED, 0)
    }

    fn split_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Twin,
    ) -> Said {
        let table = self.pool.get(page.0).ok_or(HookError::NoMemory)?;
        fill(table, leaf(pfn), entry.at().level().down().map_or(0, Level::bytes));
        // Alone, a plain store will do: nothing waits for the table's lines to arrive.
        match self.entry(entry.at()) {
            Some(place) if place.load(Ordering::Relaxed) == leaf(pfn) | BLOCKED => {
                place.store(page.0 << 12 | PRESENT, Ordering::Release);
                Ok(())
            }
            _ => Err(HookError::Fatal("not the blocked leaf")),
        }
    }

    fn promote_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Twin,
    ) -> Said {
        self.change(entry.at(), page.0 << 12 | PRESENT | BLOCKED, leaf(pfn))
    }

    fn free_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        page: &mut Twin,
    ) -> Said {
        self.change(entry.at(), page.0 << 12 | PRESENT | BLOCKED, 0)
    }

    fn unblock(&self, (): &mut (), _: &mut Exclusive<'_>, entry: &Tracked) -> Said {
        match self.entry(entry.at()) {
            Some(entry) => {
                entry.fetch_and(!BLOCKED, Ordering::AcqRel);
                Ok(())
            }
            None => Err(HookError::Fatal("no entry")),
        }
    }

    fn flush_direct(&self, _: GfnRange) {}
}

pub type BenchMmu = Mmu<Pages, Radix>;

/// An MMU with room for `tables` tables in each tree.
pub fn mmu(tables: usize, form: AccessTracking, delay: u64) -> BenchMmu {
    let external = std::sync::Arc::new(Pool::new(tables + 1));
    let root = external.take().expect("a root");
    let radix = Radix { pool: external.clone(), root, delay, last: [AtomicU64::new(0), AtomicU64::new(0)] };
    radix.clear(root);
    let config = Config {
        participants: 4,
        mirror_tables: tables + 128,
        direct_access: form,
        ..Config::for_address_width(48)
    };
    let direct = Pool::new(if form == AccessTracking::Hardware { 2 * tables } else { 64 });
    if form == AccessTracking::Hardware {
        // Tables lie apart, as they do where others allocate too.
        direct.free.0.lock().expect("a list").retain(|index| index % 2 == 0);
    }
    Mmu::new(config, Pages { direct, external }, radix).expect("memory for an MMU")
}

/// One vCPU: what it takes to fault.
pub struct Vcpu<'m> {
    pub mmu: &'m BenchMmu,
    pub me: Participant,
    pub cache: TableCache<Twin>,
}

impl<'m> Vcpu<'m> {
    pub fn new(mmu: &'m BenchMmu) -> Self {
        Self { mmu, me: mmu.participant().expect("a slot"), cache: TableCache::new() }
    }

    /// A vCPU that has faulted before: its cache is as full as it ever is.
    pub fn with_tables(mmu: &'m BenchMmu) -> Self {
        let mut vcpu = Self::new(mmu);
        mmu.top_up(&mut vcpu.cache, Reserve::PRIVATE).expect("tables");
        vcpu
    }

    /// Faults on each page until it is mapped, in a function of its own like the peers'.
    #[inline(never)]
    pub fn run(&mut self, pages: &[u64]) {
        for page in pages {
            // Somebody else may be linking the table: the guest would touch the page again.
            while let FaultOutcome::Retry(_) = self.fault(*page) {}
        }
    }

    /// One private 4K fault, from the snapshot to the guard's end.
    #[inline(always)]
    fn fault(&mut self, gfn: u64) -> FaultOutcome {
        let snapshot = self.mmu.notifier().snapshot();
        self.mmu.top_up(&mut self.cache, Reserve::PRIVATE).expect("tables");
        let fault = Fault {
            gfn: Gfn::new(gfn),
            access: Access::Write,
            max_level: Level::L4K,
            snapshot,
            target: Target::Private { pfn: Pfn::new(gfn), backing: Level::L4K },
        };
        let guard = self.me.shared();
        self.mmu.fault(&mut (), &guard, &mut self.cache, &fault).expect("a fault")
    }

    /// Removes everything in `[0, frames)` and the tables under it.
    pub fn clear(&mut self, frames: u64) {
        let all = GfnRange::new(Gfn::new(0), Gfn::new(frames));
        let mut guard = self.me.exclusive();
        let zapped =
            self.mmu.zap_range(&mut (), &mut guard, &mut self.cache, all, mirror_ept::Filter::Private);
        assert!(matches!(zapped, Ok(mirror_ept::Zapped::Complete(_))));
        while self.mmu.reclaim_tables(&mut (), &mut guard).expect("empty tables") > 0 {}
    }

    pub fn map_range(&mut self, frames: u64, max: Level) {
        let all = GfnRange::new(Gfn::new(0), Gfn::new(frames));
        let mut guard = self.me.exclusive();
        let done = self.mmu.map_private_range(&mut (), &mut guard, &mut self.cache, all, Pfn::new(0), max);
        assert!(matches!(done, Ok(mirror_ept::MappedRange::Complete(_))), "{done:?}");
    }
}

impl Drop for Vcpu<'_> {
    fn drop(&mut self) {
        self.mmu.release(&mut self.cache);
    }
}
