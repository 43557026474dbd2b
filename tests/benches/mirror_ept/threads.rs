//! Two vCPUs fault at once.
//!
//! Each thread is kept on its core and starts when both are there. A burst counts when neither thread was
//! preempted and both started within 5 % of its length; bursts are repeated until enough count.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use mirror_ept::AccessTracking;

use super::clock::{median, pin, preemptions, shuffled, wall};
use super::ours::{self, Vcpu};
use super::peers::TwoInMutex;
use super::{Bar, Report};

const ATTEMPTS: usize = 60;
const WANTED: usize = 9;
const PAGES: u64 = 16384;

/// Runs a burst on each of `threads` cores until enough of them were quiet. ns per page over all threads.
fn bursts<T: Send>(
    mut prepare: impl FnMut() -> Vec<T>,
    work: impl Fn(&mut T, usize) + Sync,
    pages: u64,
) -> Option<f64> {
    let mut quiet = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut states = prepare();
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
        let Some(times) = results.into_iter().collect::<Option<Vec<_>>>() else { continue };
        let first = times.iter().map(|t| t.0).min()?;
        let skew = times.iter().map(|t| t.0).max()? - first;
        let length = times.iter().map(|t| t.1).max()? - first;
        if skew * 20 <= length {
            quiet.push(length as f64 / pages as f64);
        }
        if quiet.len() == WANTED {
            break;
        }
    }
    (quiet.len() >= 5).then(|| median(quiet))
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

fn product(split: Split, threads: usize, pages: u64, delay: u64) -> Option<f64> {
    let mmu = ours::mmu(100, AccessTracking::Permissions, delay);
    let parts = parts(split, threads, pages);
    let mut cleaner = Vcpu::new(&mmu);
    bursts(
        || {
            cleaner.clear(pages);
            (0..threads).map(|_| Vcpu::new(&mmu)).collect()
        },
        |vcpu, thread| {
            vcpu.run(parts.get(thread).map_or(&[], Vec::as_slice));
            vcpu.mmu.release(&mut vcpu.cache);
        },
        pages,
    )
}

fn peer(split: Split, threads: usize, pages: u64, delay: u64) -> Option<f64> {
    let tables = TwoInMutex::new(100);
    let parts = parts(split, threads, pages);
    bursts(
        || {
            tables.reset();
            vec![(); threads]
        },
        |(), thread| tables.run(parts.get(thread).map_or(&[], Vec::as_slice), delay),
        pages,
    )
}

pub fn run(report: &mut Report) {
    let one = product(Split::Disjoint, 1, PAGES, 0);
    let cases = [
        ("fault_2_threads_disjoint_vs_same", Split::Disjoint, 0.35),
        ("fault_2_threads_interleaved_vs_same", Split::Interleaved, 0.45),
    ];
    for (key, split, bar) in cases {
        let (mine, theirs) = (product(split, 2, PAGES, 0), peer(split, 2, PAGES, 0));
        let note = format!("{} ns against {} ns per page", shown(mine), shown(theirs));
        let ratio = mine.zip(theirs).map(|(mine, theirs)| mine / theirs);
        report.put_or_skip(key, ratio, Bar::AtMost(bar), note);
        if let Split::Disjoint = split {
            let note = format!("{} ns alone, {} ns together", shown(one), shown(mine));
            let scaling = one.zip(mine).map(|(one, two)| one / two);
            report.put_or_skip("scaling_2_threads_disjoint", scaling, Bar::AtLeast(1.5), note);
        }
    }
    let delay = microsecond();
    let pages = 1024;
    let (one, two) =
        (product(Split::Interleaved, 1, pages, delay), product(Split::Interleaved, 2, pages, delay));
    let note = format!("{} ns alone, {} ns together", shown(one), shown(two));
    let scaling = one.zip(two).map(|(one, two)| one / two);
    report.put_or_skip("scaling_2_threads_1us_hook", scaling, Bar::AtLeast(1.7), note);
}

/// A measurement in nanoseconds, or a dash where no quiet burst was found.
fn shown(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}
