//! A model of what stands outside the crate: table memory, and an external table that checks the protocol of
//! its owner at every call and can refuse any call.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fmt;

use mirror_ept::external::phase::{Batch, Blocked, Tracked};
use mirror_ept::{
    Access, Blocking, Config, ENTRIES, Exclusive, External, ExternalEntry, ExternalPage, ExternalView, Fault,
    FaultOutcome, GfnRange, HookError, Mmu, MmuError, NoMemory, Participant, Position, Reserve, Returned,
    Shared, Table, TableCache, TablePages, Target,
};
use tdvisor_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use tdvisor_base::{Gfn, Level, Pfn};

/// The twin of a mirror table.
#[derive(Debug)]
pub struct Twin(pub Pfn);

impl ExternalPage for Twin {
    fn pfn(&self) -> Pfn {
        self.0
    }
}

/// Table memory with a count of what is out, and a countdown to a refusal.
pub struct Pages {
    direct: Vec<Table>,
    free: Mutex<Vec<u64>>,
    twins_out: AtomicU64,
    next_twin: AtomicU64,
    pub scribbled: AtomicU64,
    /// The allocation that fails, counted from 1; 0: none.
    pub fail_at: AtomicU64,
}

impl Pages {
    pub fn new(direct: usize) -> Self {
        Self {
            direct: (0..direct).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            free: Mutex::new((0..direct as u64).rev().collect()),
            twins_out: AtomicU64::new(0),
            next_twin: AtomicU64::new(0x10_0000),
            scribbled: AtomicU64::new(0),
            fail_at: AtomicU64::new(0),
        }
    }

    fn admit(&self) -> Result<(), NoMemory> {
        let left = self.fail_at.load(Ordering::Relaxed);
        if left > 0 {
            self.fail_at.store(left - 1, Ordering::Relaxed);
        }
        if left == 1 { Err(NoMemory) } else { Ok(()) }
    }

    pub fn twins_out(&self) -> u64 {
        self.twins_out.load(Ordering::Relaxed)
    }

    pub fn direct_out(&self) -> usize {
        self.direct.len() - self.free.lock().len()
    }
}

impl TablePages for Pages {
    type ExternalPage = Twin;

    fn alloc_direct(&self) -> Result<Pfn, NoMemory> {
        self.admit()?;
        self.free.lock().pop().map(|n| Pfn::new(n + 1)).ok_or(NoMemory)
    }

    fn free_direct(&self, page: Pfn) {
        // Whoever still reads the page shall notice: the poison is a young leaf of nothing.
        for entry in self.direct_table(page).into_iter().flatten() {
            entry.store(POISON, Ordering::Relaxed);
        }
        let mut free = self.free.lock();
        assert!(!free.contains(&(page.get() - 1)), "a direct table was freed twice");
        free.push(page.get() - 1);
    }

    fn direct_table(&self, page: Pfn) -> Option<&Table> {
        self.direct.get(page.get().checked_sub(1)? as usize)
    }

    fn reserve_external(&self) -> Result<Twin, NoMemory> {
        self.admit()?;
        self.twins_out.fetch_add(1, Ordering::Relaxed);
        Ok(Twin(Pfn::new(self.next_twin.fetch_add(1, Ordering::Relaxed))))
    }

    fn return_external(&self, _page: Twin, state: Returned) {
        self.twins_out.fetch_sub(1, Ordering::Relaxed);
        if state == Returned::Scribbled {
            self.scribbled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a freed direct table holds.
pub const POISON: u64 = 0xfff;

/// A call of a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Link(Position),
    Set(Position, Pfn),
    Block(Position),
    Track(usize),
    Remove(Position),
    Split(Position),
    Promote(Position),
    Free(Position),
    Unblock(Position),
    Flush(GfnRange),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Usable,
    Blocked,
    Tracked,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    entry: ExternalEntry,
    phase: Phase,
}

#[derive(Default)]
pub struct State {
    entries: BTreeMap<Position, Held>,
    pub calls: Vec<Call>,
    /// How many calls until one is refused, with what, and how often in a row.
    fail: Option<(u64, HookError<&'static str>, u64)>,
}

/// The external table.
pub struct Model {
    pub state: Arc<Mutex<State>>,
}

impl Model {
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())) }
    }

    /// The `n`-th call from now (from 1) and `times - 1` after it fail with `why`.
    pub fn fail_at(&self, n: u64, why: HookError<&'static str>, times: u64) {
        self.state.lock().fail = Some((n, why, times));
    }

    /// Whether the refusal was used up; it is gone afterwards.
    pub fn fail_was_reached(&self) -> bool {
        self.state.lock().fail.take().is_none_or(|(n, ..)| n == 0)
    }

    pub fn take_calls(&self) -> Vec<Call> {
        core::mem::take(&mut self.state.lock().calls)
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().entries.is_empty()
    }

    /// Puts an entry behind the protocol's back: what a bug, or broken hardware, would do.
    pub fn tamper(&self, at: Position, entry: ExternalEntry) {
        let phase = if entry == ExternalEntry::Blocked { Phase::Blocked } else { Phase::Usable };
        match entry {
            ExternalEntry::Free => drop(self.state.lock().entries.remove(&at)),
            entry => drop(self.state.lock().entries.insert(at, Held { entry, phase })),
        }
    }

    /// Everything that is held, in order.
    pub fn contents(&self) -> Vec<(Position, ExternalEntry)> {
        self.state.lock().entries.iter().map(|(at, held)| (*at, held.entry)).collect()
    }

    /// Forgets everything, as when the external table's pages were reclaimed.
    pub fn clear(&self) {
        self.state.lock().entries.clear();
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model")
    }
}

impl State {
    fn enter(&mut self, call: Call) -> Result<(), HookError<&'static str>> {
        if let Some((n, why, times)) = &mut self.fail {
            *n = n.saturating_sub(1);
            if *n == 0 {
                let why = *why;
                *times -= 1;
                if *times == 0 {
                    self.fail = None;
                } else {
                    *n = 1;
                }
                return Err(why);
            }
        }
        self.calls.push(call);
        Ok(())
    }

    fn get(&self, at: Position) -> Held {
        self.entries.get(&at).copied().unwrap_or(Held { entry: ExternalEntry::Free, phase: Phase::Usable })
    }

    /// Every ancestor is a table, and none is blocked.
    fn assert_reachable(&self, at: Position) {
        let mut level = at.level();
        while let Some(up) = level.up() {
            if up > Level::L512G {
                return;
            }
            let parent = self.get(Position::of(at.gfn(), up));
            assert!(matches!(parent.entry, ExternalEntry::Table(_)), "{at} has no parent table at {up}");
            assert_eq!(parent.phase, Phase::Usable, "the parent of {at} is blocked");
            level = up;
        }
    }

    fn put(&mut self, at: Position, entry: ExternalEntry) {
        match entry {
            ExternalEntry::Free => self.entries.remove(&at),
            entry => self.entries.insert(at, Held { entry, phase: Phase::Usable }),
        };
    }

    fn children(&self, at: Position) -> Vec<(Position, Held)> {
        let below = at.level().down().expect("a table has children");
        (0..ENTRIES as u64)
            .map(|i| Position::of(at.gfn().wrapping_add(i * below.frames()), below))
            .filter_map(|child| self.entries.get(&child).map(|held| (child, *held)))
            .collect()
    }

    fn tracked_leaf(&self, at: Position, pfn: Pfn) {
        self.assert_reachable(at);
        assert_eq!(self.get(at), Held { entry: ExternalEntry::Leaf(pfn), phase: Phase::Tracked }, "{at}");
    }

    fn tracked_table(&self, at: Position, page: Pfn) {
        self.assert_reachable(at);
        assert_eq!(self.get(at), Held { entry: ExternalEntry::Table(page), phase: Phase::Tracked }, "{at}");
    }
}

type Said = Result<(), HookError<&'static str>>;

impl External for Model {
    type Page = Twin;
    type Error = &'static str;

    fn link_external_spt(&self, _: &Shared<'_>, at: Position, page: &mut Twin) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Link(at))?;
        state.assert_reachable(at);
        assert_eq!(state.get(at).entry, ExternalEntry::Free, "{at}");
        state.put(at, ExternalEntry::Table(page.0));
        Ok(())
    }

    fn set_external_spte(&self, _: &Shared<'_>, at: Position, pfn: Pfn) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Set(at, pfn))?;
        state.assert_reachable(at);
        assert_eq!(state.get(at).entry, ExternalEntry::Free, "{at}");
        state.put(at, ExternalEntry::Leaf(pfn));
        Ok(())
    }

    fn block(&self, _: &mut Exclusive<'_>, at: Position, what: Blocking) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Block(at))?;
        state.assert_reachable(at);
        let held = state.get(at);
        assert_eq!(held.phase, Phase::Usable, "{at} is blocked twice");
        match (what, held.entry) {
            (Blocking::Leaf(pfn), ExternalEntry::Leaf(mapped)) => assert_eq!(pfn, mapped, "{at}"),
            (Blocking::Table, ExternalEntry::Table(_)) => {}
            other => panic!("blocking {at}: {other:?}"),
        }
        state.entries.insert(at, Held { phase: Phase::Blocked, ..held });
        Ok(())
    }

    fn track(&self, _: &mut Exclusive<'_>, blocked: &Batch<Blocked>) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Track(blocked.len()))?;
        for at in blocked.positions() {
            let held = state.get(at);
            assert_eq!(held.phase, Phase::Blocked, "{at} is tracked without having been blocked");
            state.entries.insert(at, Held { phase: Phase::Tracked, ..held });
        }
        Ok(())
    }

    fn remove_external_spte(&self, _: &mut Exclusive<'_>, entry: &Tracked, pfn: Pfn) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Remove(entry.at()))?;
        state.tracked_leaf(entry.at(), pfn);
        state.put(entry.at(), ExternalEntry::Free);
        Ok(())
    }

    fn split_external_spt(&self, _: &mut Exclusive<'_>, entry: &Tracked, pfn: Pfn, page: &mut Twin) -> Said {
        let mut state = self.state.lock();
        let at = entry.at();
        state.enter(Call::Split(at))?;
        state.tracked_leaf(at, pfn);
        state.put(at, ExternalEntry::Table(page.0));
        let below = at.level().down().expect("a 4K leaf cannot be split");
        for i in 0..ENTRIES as u64 {
            let child = Position::of(at.gfn().wrapping_add(i * below.frames()), below);
            state.put(child, ExternalEntry::Leaf(pfn.wrapping_add(i * below.frames())));
        }
        Ok(())
    }

    fn promote_external_spt(
        &self,
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Twin,
    ) -> Said {
        let mut state = self.state.lock();
        let at = entry.at();
        state.enter(Call::Promote(at))?;
        state.tracked_table(at, page.0);
        let children = state.children(at);
        assert_eq!(children.len(), ENTRIES, "promotion of {at} with holes");
        for (i, (child, held)) in (0u64..).zip(children) {
            let wanted = pfn.wrapping_add(i * child.level().frames());
            assert_eq!(held.entry, ExternalEntry::Leaf(wanted), "{child}");
            state.put(child, ExternalEntry::Free);
        }
        state.put(at, ExternalEntry::Leaf(pfn));
        Ok(())
    }

    fn free_external_spt(&self, _: &mut Exclusive<'_>, entry: &Tracked, page: &mut Twin) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Free(entry.at()))?;
        state.tracked_table(entry.at(), page.0);
        assert!(state.children(entry.at()).is_empty(), "{} is freed with children", entry.at());
        state.put(entry.at(), ExternalEntry::Free);
        Ok(())
    }

    fn unblock(&self, _: &mut Exclusive<'_>, entry: &Tracked) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Unblock(entry.at()))?;
        let held = state.get(entry.at());
        assert_eq!(held.phase, Phase::Tracked, "{} is unblocked without being tracked", entry.at());
        state.put(entry.at(), held.entry);
        Ok(())
    }

    fn flush_direct(&self, range: GfnRange) {
        self.state.lock().calls.push(Call::Flush(range));
    }
}

impl ExternalView for Model {
    fn entry(&self, at: Position) -> ExternalEntry {
        let held = self.state.lock().get(at);
        if held.phase == Phase::Usable { held.entry } else { ExternalEntry::Blocked }
    }
}

pub type TestMmu = Mmu<Pages, Model>;

/// One MMU over the model, with one participant and one cache: enough for a sequential test.
pub struct Bench {
    pub mmu: TestMmu,
    pub me: Participant,
    pub cache: TableCache<Twin>,
}

/// Four levels, 48 bits, and little of everything.
pub fn config() -> Config {
    let (participants, mirror_tables) = if cfg!(loom) { (3, 16) } else { (4, 64) };
    Config { participants, mirror_tables, ..Config::for_address_width(48) }
}

impl Bench {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let direct = if cfg!(loom) { 6 } else { 64 };
        let mmu = Mmu::new(config, Pages::new(direct), Model::new()).expect("memory for an MMU");
        let me = mmu.participant().expect("a slot");
        Self { mmu, me, cache: TableCache::new() }
    }

    pub fn fault(&mut self, gfn: u64, pfn: u64, max: Level) -> Result<FaultOutcome, MmuError<&'static str>> {
        let gfn = Gfn::new(gfn);
        self.mmu.top_up(&mut self.cache, Reserve::PRIVATE)?;
        let fault = Fault {
            gfn,
            access: Access::Write,
            max_level: max,
            snapshot: self.mmu.notifier().snapshot(),
            target: Target::Private { pfn: Pfn::new(pfn), backing: Level::L1G },
        };
        let guard = self.me.shared();
        self.mmu.fault(&guard, &mut self.cache, &fault)
    }

    /// Maps and expects success.
    pub fn map(&mut self, gfn: u64, pfn: u64, max: Level) {
        let outcome = self.fault(gfn, pfn, max).expect("a fault");
        assert!(matches!(outcome, FaultOutcome::Mapped(_)), "{outcome:?}");
    }

    pub fn zap(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<mirror_ept::Zapped<&'static str>, MmuError<&'static str>> {
        self.mmu.top_up(&mut self.cache, Reserve::PRIVATE)?;
        let range = GfnRange::new(Gfn::new(start), Gfn::new(end));
        let mut guard = self.me.exclusive();
        self.mmu.zap_range(&mut guard, &mut self.cache, range, mirror_ept::Filter::Both)
    }

    /// Removes a range and expects it to be gone.
    pub fn remove(&mut self, start: u64, end: u64) {
        let outcome = self.zap(start, end).expect("a removal");
        assert!(matches!(outcome, mirror_ept::Zapped::Complete(_)), "{outcome:?}");
    }

    pub fn audit(&mut self) {
        let mut guard = self.me.exclusive();
        if let Err(violation) = self.mmu.audit(&mut guard, self.mmu.external()) {
            panic!("{violation}");
        }
    }

    /// The private mapping of a frame: its leaf's level and its page.
    pub fn mapping(&mut self, gfn: u64) -> Option<(Level, Pfn)> {
        let guard = self.me.shared();
        self.mmu.private_mapping(&guard, Gfn::new(gfn)).map(|(at, pfn)| (at.level(), pfn))
    }

    /// After the cache is emptied, nothing but linked tables is out.
    pub fn assert_nothing_lost(&mut self) {
        self.mmu.release(&mut self.cache);
        let linked = self.mmu.statistics().mirror.tables;
        assert_eq!(self.mmu.pages().twins_out(), linked, "a twin was lost or returned twice");
        assert_eq!(self.mmu.mirror_tables_in_use() as u64, linked + 1, "a mirror table was lost");
    }
}
