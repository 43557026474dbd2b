//! Whole ranges raced on, in seeded random schedules.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p mirror-ept --test shuttle --release`. A failing schedule is printed;
//! `shuttle::replay` with it runs the same one again. What each thread does comes from shuttle's own random
//! numbers, so the schedule is all that is needed.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, unused_imports, reason = "the tests that explore nothing use the rest")]
mod common;

use std::sync::Arc;

use common::{Model, Pages, TestMmu, Twin};
use mirror_ept::{
    Access, Backing, DirtyLog, Fault, FaultOutcome, Filter, GfnRange, Mmu, Participant, Reserve,
    SplitOutcome, TableCache, Target, Zapped,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use tdvisor_base::{Gfn, Level, Pfn};

const MIB2: u64 = 512;

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn::new(start), Gfn::new(end))
}

struct Vcpu {
    mmu: Arc<TestMmu>,
    me: Participant,
    cache: TableCache<Twin>,
}

impl Vcpu {
    fn join(mmu: &Arc<TestMmu>) -> Self {
        Self { mmu: mmu.clone(), me: mmu.participant().unwrap(), cache: TableCache::new() }
    }

    /// A private fault, with a window's protocol around the resolution; the page depends on the frame only.
    fn private(&mut self, gfn: u64, max: Level) -> FaultOutcome {
        self.mmu.top_up(&mut self.cache, Reserve::PRIVATE).unwrap();
        let fault = Fault {
            gfn: Gfn::new(gfn),
            access: Access::Write,
            max_level: max,
            snapshot: self.mmu.notifier().snapshot(),
            target: Target::Private { pfn: Pfn::new(64 * MIB2 + gfn), backing: Level::L2M },
        };
        let guard = self.me.shared();
        self.mmu.fault(&mut (), &guard, &mut self.cache, &fault).unwrap()
    }

    fn shared(&mut self, gfn: u64, log: Option<&DirtyLog>) -> FaultOutcome {
        self.mmu.top_up(&mut self.cache, Reserve::SHARED).unwrap();
        let fault = Fault {
            gfn: Gfn::new(gfn),
            access: Access::Write,
            max_level: Level::L4K,
            snapshot: self.mmu.notifier().snapshot(),
            target: Target::Shared {
                pfn: Pfn::new(128 * MIB2 + gfn),
                backing: Backing::Folio(Level::L4K),
                writable: true,
                log,
            },
        };
        let guard = self.me.shared();
        self.mmu.fault(&mut (), &guard, &mut self.cache, &fault).unwrap()
    }

    fn audit(&mut self) {
        let mut guard = self.me.exclusive();
        if let Err(violation) = self.mmu.audit(&mut guard, self.mmu.external()) {
            panic!("{violation}");
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.mmu.release(&mut self.cache);
    }
}

fn mmu() -> Arc<TestMmu> {
    Arc::new(Mmu::new(common::config(), Pages::new(24), Model::new()).unwrap())
}

/// Schedules to try; the search is random, so more of them find more.
const SCHEDULES: usize = 150;

#[test]
fn inv_47_private_ranges_survive_faults_removals_splits_and_merges_in_any_order() {
    shuttle::check_random(
        || {
            let mmu = mmu();
            let faulter = |mmu: &Arc<TestMmu>| {
                let mut me = Vcpu::join(mmu);
                thread::spawn(move || {
                    for _ in 0..4 {
                        let gfn = thread_rng().gen_range(0..2 * MIB2);
                        let max = if thread_rng().gen_bool(0.5) { Level::L2M } else { Level::L4K };
                        let _ = me.private(gfn, max);
                    }
                })
            };
            let (a, b) = (faulter(&mmu), faulter(&mmu));
            let mut me = Vcpu::join(&mmu);
            for _ in 0..3 {
                me.mmu.top_up(&mut me.cache, Reserve::PRIVATE).unwrap();
                let start = thread_rng().gen_range(0..2 * MIB2);
                let some = range(start, (start + 300).min(2 * MIB2));
                let what = thread_rng().gen_range(0..4);
                let mut guard = me.me.exclusive();
                match what {
                    0 => {
                        let done =
                            me.mmu.zap_range(&mut (), &mut guard, &mut me.cache, some, Filter::Private);
                        assert!(matches!(done, Ok(Zapped::Complete(_))), "{done:?}");
                    }
                    1 => {
                        let done = me.mmu.split_range(&mut (), &mut guard, &mut me.cache, some, Level::L4K);
                        assert!(matches!(done, Ok(SplitOutcome::Complete(_))), "{done:?}");
                    }
                    2 => {
                        let all = range(0, 2 * MIB2);
                        me.mmu.collapse_range(&mut (), &mut guard, all, Level::L2M).unwrap();
                    }
                    _ => {
                        me.mmu.reclaim_tables(&mut (), &mut guard).unwrap();
                    }
                }
                drop(guard);
                me.audit();
            }
            a.join().unwrap();
            b.join().unwrap();
            me.audit();
        },
        SCHEDULES,
    );
}

#[test]
fn inv_46_no_write_is_lost_between_aging_harvests_and_removals() {
    shuttle::check_random(
        || {
            let mmu = mmu();
            let log = Arc::new(DirtyLog::new(range(0, 8)).unwrap());
            let mut me = Vcpu::join(&mmu);
            mmu.start_logging(&mut me.me.exclusive(), &log).unwrap();
            let ager = {
                let (mmu, mut me) = (mmu.clone(), mmu.participant().unwrap());
                thread::spawn(move || {
                    for _ in 0..2 {
                        let _ = mmu.age_gfn(&me.rcu(), range(0, 8)).unwrap();
                    }
                })
            };
            // Each write is a fault that grants it; how many were granted per frame is known to the writer.
            let writer = {
                let (mut me, log) = (Vcpu::join(&mmu), log.clone());
                thread::spawn(move || {
                    let mut granted = 0;
                    for _ in 0..6 {
                        let gfn = thread_rng().gen_range(0..8);
                        match me.shared(gfn, Some(&log)) {
                            FaultOutcome::Mapped(_) | FaultOutcome::Restored(_) => granted |= 1u64 << gfn,
                            _ => {}
                        }
                    }
                    granted
                })
            };
            let mut seen = 0;
            for _ in 0..2 {
                mmu.harvest_dirty(&mut me.me.exclusive(), &log, |gfn| seen |= 1u64 << gfn.get()).unwrap();
            }
            let done =
                mmu.zap_range(&mut (), &mut me.me.exclusive(), &mut me.cache, range(0, 3), Filter::Shared);
            assert!(done.is_ok());
            ager.join().unwrap();
            let granted = writer.join().unwrap();
            mmu.harvest_dirty(&mut me.me.exclusive(), &log, |gfn| seen |= 1u64 << gfn.get()).unwrap();
            assert_eq!(granted & !seen, 0, "a write was granted and never reported");
            me.audit();
        },
        SCHEDULES,
    );
}

#[test]
fn inv_37_nothing_that_was_taken_away_is_ever_installed() {
    shuttle::check_random(
        || {
            let mmu = mmu();
            let gone = Arc::new(tdvisor_base::sync::AtomicBool::new(false));
            let faulter = {
                let (mut me, gone) = (Vcpu::join(&mmu), gone.clone());
                thread::spawn(move || {
                    for _ in 0..4 {
                        let snapshot = me.mmu.notifier().snapshot();
                        // The resolution: the host's page is there, or it is not.
                        if gone.load(tdvisor_base::sync::Ordering::Acquire) {
                            return;
                        }
                        me.mmu.top_up(&mut me.cache, Reserve::SHARED).unwrap();
                        let target = Target::Shared {
                            pfn: Pfn::new(7),
                            backing: Backing::Folio(Level::L4K),
                            writable: true,
                            log: None,
                        };
                        let (gfn, access, max_level) = (Gfn::new(3), Access::Read, Level::L4K);
                        let fault = Fault { gfn, access, max_level, snapshot, target };
                        let guard = me.me.shared();
                        let _ = me.mmu.fault(&mut (), &guard, &mut me.cache, &fault).unwrap();
                    }
                })
            };
            let mut me = Vcpu::join(&mmu);
            let window = {
                let mut guard = me.me.exclusive();
                let window = mmu.notifier().begin(&mut guard, range(0, 8));
                let done = mmu.zap_range(&mut (), &mut guard, &mut me.cache, range(0, 8), Filter::Shared);
                assert!(done.is_ok());
                window
            };
            gone.store(true, tdvisor_base::sync::Ordering::Release);
            mmu.notifier().end(&mut me.me.exclusive(), window);
            faulter.join().unwrap();
            let guard = me.me.shared();
            assert_eq!(mmu.shared_mapping(&guard, Gfn::new(3)), None, "a stale page is mapped");
        },
        SCHEDULES,
    );
}

#[test]
fn readers_and_writers_of_the_lock_all_finish() {
    shuttle::check_random(
        || {
            let mmu = mmu();
            let threads: Vec<_> = (0..3)
                .map(|i| {
                    let mut me = mmu.participant().unwrap();
                    thread::spawn(move || {
                        for turn in 0..3 {
                            if (turn + i) % 3 == 0 {
                                me.exclusive().yield_to_readers();
                            } else {
                                drop(me.shared());
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
            assert!(!mmu.is_dead());
        },
        SCHEDULES,
    );
}
