//! Speed of mirror-ept as ratios inside one run, against what people would use instead and against what this
//! machine can do at best.
//!
//! Peers and product take turns, seven times; the table shows medians. One thread is measured in CPU time.
//! Two threads are measured in wall time of short bursts in which neither was taken off its core; where no
//! such burst is found, there is no figure, and the benchmark says so. Writes `target/bench/mirror_ept.json`.

#[path = "mirror_ept/limits.rs"]
mod limits;
#[path = "mirror_ept/ours.rs"]
mod ours;
#[path = "mirror_ept/peers.rs"]
mod peers;
#[path = "mirror_ept/threads.rs"]
mod threads;

use std::hint::black_box;
use std::process::ExitCode;

use mirror_ept::{
    Access, AccessTracking, Backing, Fault, FaultOutcome, GfnRange, Reserve, SplitOutcome, TablePages, Target,
};
use ours::{BenchMmu, Vcpu};
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};
use tdvisor_tests::bench::clock::{evict, interleaved, shuffled, timed};
use tdvisor_tests::bench::{self, Bar, Report};

/// Keeps the compiler from leaving out the work that led to a value.
#[inline(always)]
fn consume<T>(value: T) {
    let _ = black_box(value);
}

/// Single private 4K faults, two tables each, against two `x86_64` tables in one mutex.
fn faults(report: &mut Report) {
    for (key, pages, order, bar) in [
        ("fault_4k_vs_two_x86_64_in_mutex", 16384, shuffled(16384), Bar::AtMost(1.15)),
        ("fault_4k_sequential_vs_two_x86_64_in_mutex", 65536, (0..65536).collect(), Bar::None),
    ] {
        let mmu = ours::mmu(400, AccessTracking::Permissions, 0);
        let mut vcpu = Vcpu::new(&mmu);
        let peer = peers::TwoInMutex::new(400);
        let [mine, theirs] = interleaved(|which| match which {
            0 => {
                let time = timed(|| vcpu.run(&order));
                vcpu.clear(pages);
                time
            }
            _ => {
                peer.reset();
                timed(|| peer.run(&order, 0))
            }
        });
        let (mine, theirs) = (mine / pages as f64, theirs / pages as f64);
        report.put(key, mine / theirs, bar, format!("{mine:.1} ns against {theirs:.1} ns"));
    }
}

/// Mapping a whole range, two tables, against one `x86_64` table.
fn range_map(report: &mut Report) {
    const PAGES: u64 = 1 << 18;
    let mmu = ours::mmu(600, AccessTracking::Permissions, 0);
    let mut vcpu = Vcpu::new(&mmu);
    let mut peer = peers::X86::new(600);
    let [mine, theirs] = interleaved(|which| match which {
        0 => {
            mmu.top_up(&mut vcpu.cache, Reserve::Mirror(520)).expect("tables");
            let time = timed(|| vcpu.map_range(PAGES, Level::L4K));
            vcpu.clear(PAGES);
            time
        }
        _ => {
            peer.reset();
            timed(|| peer.run(PAGES))
        }
    });
    let (mine, theirs) = (mine / PAGES as f64, theirs / PAGES as f64);
    let note = format!("{mine:.2} ns (two tables) against {theirs:.2} ns (one)");
    report.put("range_map_exclusive_vs_x86_64", mine / theirs, Bar::AtMost(1.3), note);
}

/// Splitting 2M leaves with cold table memory.
fn splits(report: &mut Report) {
    const LEAVES: u64 = 2048;
    let mmu = ours::mmu(LEAVES as usize + 64, AccessTracking::Permissions, 0);
    let mut vcpu = Vcpu::new(&mmu);
    let (mut first, mut second) = (limits::words(LEAVES as usize), limits::words(LEAVES as usize));
    let mut garbage = vec![0u64; 8 << 20];
    let all = GfnRange::new(Gfn::new(0), Gfn::new(LEAVES * 512));
    let [mine, limit, generic] = interleaved(|which| match which {
        0 => {
            mmu.top_up(&mut vcpu.cache, Reserve::Mirror(LEAVES as usize + 16)).expect("tables");
            vcpu.map_range(LEAVES * 512, Level::L2M);
            evict(&mut garbage);
            let time = timed(|| {
                let mut guard = vcpu.me.exclusive();
                let done = mmu.split_range(&mut (), &mut guard, &mut vcpu.cache, all, Level::L4K);
                assert_eq!(done, Ok(SplitOutcome::Complete(LEAVES)));
            });
            vcpu.clear(LEAVES * 512);
            time
        }
        1 => {
            evict(&mut garbage);
            timed(|| limits::fill_two(&mut first, &mut second))
        }
        _ => {
            let mut table = peers::Generic::with_2m_leaves(LEAVES);
            evict(&mut garbage);
            timed(|| (0..LEAVES).for_each(|leaf| table.split(leaf)))
        }
    });
    let [mine, limit, generic] = [mine, limit, generic].map(|t| t / LEAVES as f64);
    let note = format!("{mine:.0} ns against {limit:.0} ns");
    report.put("split_2m_vs_cold_fill_limit", mine / limit, Bar::AtMost(1.25), note);
    let note = format!("{mine:.0} ns (two tables) against {generic:.0} ns (one)");
    report.put("split_2m_vs_page_table_generic", mine / generic, Bar::AtMost(1.4), note);
}

/// Maps shared 4K pages, one by one.
fn map_shared(mmu: &BenchMmu, vcpu: &mut Vcpu<'_>, pages: u64) {
    for gfn in 0..pages {
        mmu.top_up(&mut vcpu.cache, Reserve::SHARED).expect("tables");
        let fault = Fault {
            gfn: Gfn::new(gfn),
            access: Access::Write,
            max_level: Level::L4K,
            snapshot: mmu.notifier().snapshot(),
            target: Target::Shared {
                pfn: Pfn::new(gfn),
                backing: Backing::Folio(Level::L4K),
                writable: true,
                log: None,
            },
        };
        let guard = vcpu.me.shared();
        let outcome = mmu.fault(&mut (), &guard, &mut vcpu.cache, &fault).expect("a fault");
        assert!(matches!(outcome, FaultOutcome::Mapped(_)));
    }
}

/// Aging a mebi-entry tree whose tables lie apart, with none and with all of the entries young.
fn aging(report: &mut Report) {
    const PAGES: u64 = 1 << 20;
    const ACCESSED: u64 = 1 << 8;
    let mmu = ours::mmu(2200, AccessTracking::Hardware, 0);
    let mut vcpu = Vcpu::new(&mmu);
    map_shared(&mmu, &mut vcpu, PAGES);
    mmu.release(&mut vcpu.cache);
    let all = GfnRange::new(Gfn::new(0), Gfn::new(PAGES));
    let scanned = limits::atomics(4096, 0x8000_0000_0000_0a37);
    let mut garbage = vec![0u64; 8 << 20];
    let age = |vcpu: &mut Vcpu<'_>| timed(|| consume(mmu.age_gfn(&vcpu.me.rcu(), all)));
    let make_young = || {
        for page in 0..4400 {
            for entry in mmu.pages().direct_table(Pfn::new(page)).into_iter().flatten() {
                if entry.load(Ordering::Relaxed) & 0xfff_f000 != 0 {
                    entry.fetch_or(ACCESSED, Ordering::Relaxed);
                }
            }
        }
    };
    age(&mut vcpu);
    let [mine, limit] = interleaved(|which| {
        evict(&mut garbage);
        match which {
            0 => age(&mut vcpu),
            _ => timed(|| consume(limits::scan_prefetched(&scanned, ACCESSED))),
        }
    });
    let (mine, limit) = (mine / PAGES as f64, limit / PAGES as f64);
    let note = format!("{mine:.2} ns against {limit:.2} ns per entry");
    report.put("age_none_set_vs_prefetched_scan_limit", limit / mine, Bar::AtLeast(0.60), note);
    let [mine, limit] = interleaved(|which| match which {
        0 => {
            make_young();
            age(&mut vcpu)
        }
        _ => timed(|| limits::locked_and(&scanned, ACCESSED)),
    });
    let (mine, limit) = (mine / PAGES as f64, limit / PAGES as f64);
    let note = format!("{mine:.2} ns against {limit:.2} ns per entry");
    report.put("age_all_set_vs_locked_and_limit", mine / limit, Bar::AtMost(1.10), note);
}

/// Removing 4K leaves, against two locked instructions and two walks per page.
fn zap(report: &mut Report) {
    const PAGES: u64 = 1 << 16;
    let mmu = ours::mmu(400, AccessTracking::Permissions, 0);
    let mut vcpu = Vcpu::new(&mmu);
    let warm = limits::atomics(1, 0);
    let (raw_a, raw_b) = (limits::Raw::new(PAGES), limits::Raw::new(PAGES));
    let [mine, lock, walk] = interleaved(|which| match which {
        0 => {
            mmu.top_up(&mut vcpu.cache, Reserve::Mirror(140)).expect("tables");
            vcpu.map_range(PAGES, Level::L4K);
            let all = GfnRange::new(Gfn::new(0), Gfn::new(PAGES));
            let time = timed(|| {
                let mut guard = vcpu.me.exclusive();
                let done =
                    mmu.zap_range(&mut (), &mut guard, &mut vcpu.cache, all, mirror_ept::Filter::Private);
                assert!(matches!(done, Ok(mirror_ept::Zapped::Complete(_))));
            });
            vcpu.clear(PAGES);
            time
        }
        1 => timed(|| limits::locked(&warm[0], PAGES / 512)),
        _ => timed(|| {
            let sum = (0..PAGES)
                .fold(0, |sum, page| sum ^ black_box(raw_a.walk(page)) ^ black_box(raw_b.walk(page)));
            black_box(sum);
        }),
    });
    let [mine, lock, walk] = [mine, lock, walk].map(|t| t / PAGES as f64);
    let limit = 2.0 * lock + walk;
    let note = format!("{mine:.1} ns against 2 x {lock:.1} + {walk:.1} ns");
    report.put("zap_range_vs_limit", mine / limit, Bar::AtMost(1.3), note);
}

/// What a table page costs beside itself.
fn metadata(report: &mut Report) {
    let bytes = BenchMmu::metadata_bytes_per_table() as f64;
    report.put("metadata_bytes_per_table_page", bytes, Bar::AtMost(64.0), "KVM: 184".into());
}

fn main() -> ExitCode {
    bench::main(
        "mirror_ept",
        &[
            ("faults", &faults),
            ("threads", &threads::run),
            ("range", &range_map),
            ("splits", &splits),
            ("aging", &aging),
            ("zap", &zap),
            ("metadata", &metadata),
        ],
    )
}
