//! Two vCPUs fault at once.
//!
//! Each thread is kept on its core and starts when both are there. A burst counts when neither thread was
//! preempted and both started within 5 % of its length; product and peer take turns, until enough bursts of
//! each count. Between bursts, and in no figure: the peer's tables are reset; ours are removed, and vCPUs come
//! and go with what is in their caches. What they take from the allocators to fault, they take in the burst.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use mirror_ept::AccessTracking;

use tdvisor_tests::bench::clock::{median, pin, preemptions, shuffled, wall};
use tdvisor_tests::bench::{Bar, Report};

use super::ours::{self, Vcpu};
use super::peers::TwoInMutex;

const ATTEMPTS: usize = 60;
const WANTED: usize = 9;
/// Fewer quiet bursts than this make no figure.
const ENOUGH: usize = 7;
const PAGES: u64 = 16384;

/// Runs one burst, each state on a core of its own. ns per page over all threads; `None` if it was disturbed.
fn burst<T: Send>(mut states: Vec<T>, work: impl Fn(&mut T, usize) + Sync, pages: u64) -> Option<f64> {
    let threads = states.len();
    let ready = AtomicU64::new(0);
    let barrier = Barrier::new(threads);
    let results: Vec<Option<(u64, u64)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = states
            .iter_mut()
            .enumerate()
            .map(|(core, state)| {
                let (ready, barrier, work) = (&ready, &barrier, &work);
                scope.spawn(move || {
                    if !pin(core) {
                        barrier.wait();
                        return None;
                    }
                    barrier.wait();
                    ready.fetch_add(1, Ordering::AcqRel);
                    while ready.load(Ordering::Acquire) < threads as u64 {
                        std::hint::spin_loop();
                    }
                    let before = preemptions();
                    let start = wall();
                    work(state, core);
                    let end = wall();
                    (preemptions() == before).then_some((start, end))
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join().ok().flatten()).collect()
    });
    let times = results.into_iter().collect::<Option<Vec<_>>>()?;
    let first = times.iter().map(|t| t.0).min()?;
    let skew = times.iter().map(|t| t.0).max()? - first;
    let length = times.iter().map(|t| t.1).max()? - first;
    (skew * 20 <= length).then(|| length as f64 / pages as f64)
}

/// Lets several kinds of bursts take turns until enough of each were quiet, and gives the median of each.
fn in_turn<const N: usize>(mut kinds: [&mut dyn FnMut() -> Option<f64>; N]) -> [Option<f64>; N] {
    let mut quiet: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ATTEMPTS {
        for (run, quiet) in kinds.iter_mut().zip(&mut quiet) {
            if quiet.len() < WANTED {
                quiet.extend(run());
            }
        }
    }
    quiet.map(|figures| (figures.len() >= ENOUGH).then(|| median(figures)))
}

/// Which pages each of two threads touches.
#[derive(Clone, Copy)]
enum Split {
    /// A half of the range each.
    Disjoint,
    /// Every second page each: the same tables.
    Interleaved,
}

fn parts(split: Split, threads: usize, pages: u64) -> Vec<Vec<u64>> {
    let order = shuffled(pages);
    (0..threads as u64)
        .map(|t| {
            let mine = |page: &u64| match split {
                Split::Disjoint => page * threads as u64 / pages == t,
                Split::Interleaved => page % threads as u64 == t,
            };
            order.iter().copied().filter(mine).collect()
        })
        .collect()
}

/// How long a hook of 1 µs is, in rounds of [`ours::spin`].
fn microsecond() -> u64 {
    let start = wall();
    ours::spin(4_000_000);
    let per_round = (wall() - start) as f64 / 4_000_000.0;
    (1000.0 / per_round) as u64
}

/// Bursts of our faults.
fn product(split: Split, threads: usize, pages: u64, delay: u64) -> impl FnMut() -> Option<f64> {
    let mmu = ours::mmu(100, AccessTracking::Permissions, delay);
    let parts = parts(split, threads, pages);
    move || {
        Vcpu::new(&mmu).clear(pages);
        let vcpus = (0..threads).map(|_| Vcpu::with_tables(&mmu)).collect();
        let work = |vcpu: &mut Vcpu<'_>, thread| vcpu.run(parts.get(thread).map_or(&[], Vec::as_slice));
        burst(vcpus, work, pages)
    }
}

/// Bursts of the peer's.
fn peer(split: Split, threads: usize, pages: u64) -> impl FnMut() -> Option<f64> {
    let tables = TwoInMutex::new(100);
    let parts = parts(split, threads, pages);
    move || {
        tables.reset();
        let work = |(): &mut (), thread| tables.run(parts.get(thread).map_or(&[], Vec::as_slice), 0);
        burst(vec![(); threads], work, pages)
    }
}

pub fn run(report: &mut Report) {
    let cases = [
        ("fault_2_threads_disjoint_vs_same", Split::Disjoint, 0.35),
        ("fault_2_threads_interleaved_vs_same", Split::Interleaved, 0.45),
    ];
    for (key, split, bar) in cases {
        let [mine, theirs, alone] = in_turn([
            &mut product(split, 2, PAGES, 0),
            &mut peer(split, 2, PAGES),
            &mut product(split, 1, PAGES, 0),
        ]);
        let note = format!("{} ns against {} ns per page", shown(mine), shown(theirs));
        let ratio = mine.zip(theirs).map(|(mine, theirs)| mine / theirs);
        report.put_or_skip(key, ratio.ok_or_else(no_burst), Bar::AtMost(bar), note);
        if let Split::Disjoint = split {
            scaling(report, "scaling_2_threads_disjoint", alone, mine, 1.5);
        }
    }
    let (delay, pages) = (microsecond(), 1024);
    let [one, two] = in_turn([
        &mut product(Split::Interleaved, 1, pages, delay),
        &mut product(Split::Interleaved, 2, pages, delay),
    ]);
    scaling(report, "scaling_2_threads_1us_hook", one, two, 1.7);
}

/// How much faster two threads are than one.
fn scaling(report: &mut Report, key: &str, one: Option<f64>, two: Option<f64>, bar: f64) {
    let note = format!("{} ns alone, {} ns together", shown(one), shown(two));
    let ratio = one.zip(two).map(|(one, two)| one / two);
    report.put_or_skip(key, ratio.ok_or_else(no_burst), Bar::AtLeast(bar), note);
}

/// A measurement in nanoseconds, or a dash where no quiet burst was found.
fn shown(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn no_burst() -> String {
    "no quiet burst on two cores".to_owned()
}
