//! A model of what stands outside the crate, and an MMU over it.

mod model;
mod pages;

use mirror_ept::{
    Access, Config, Fault, FaultOutcome, GfnRange, Mmu, MmuError, Participant, Reserve, TableCache, Target,
};
use tdvisor_base::{Gfn, Level, Pfn};

pub use model::{Call, Model};
pub use pages::{Pages, Twin};

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
        self.mmu.fault(&mut (), &guard, &mut self.cache, &fault)
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
        self.mmu.zap_range(&mut (), &mut guard, &mut self.cache, range, mirror_ept::Filter::Both)
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
