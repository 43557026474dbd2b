//! Two TDs on two threads.
//!
//! Each thread is kept on its core and starts when both are there. A burst counts when neither thread was
//! preempted and both started within 5 % of its length. Bursts of one thread and of two take turns until enough of
//! each count.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use tdvisor_tests::bench::clock::{median, pin, preemptions, wall};
use tdvisor_tests::bench::{Bar, Report};

use super::rig::{Rig, Td};

const ATTEMPTS: usize = 200;
const WANTED: usize = 25;
const ENOUGH: usize = 9;
/// Pages of one thread's burst: a few hundred microseconds.
const PAGES: u64 = 1024;

/// What one thread does in a burst, and how it is undone.
trait Work: Sync {
    fn run(&self);
    fn undo(&self);
}

/// AUG and ACCEPT of a TD's pages.
struct Pairs<'r> {
    rig: &'r Rig,
    td: Td,
    order: Vec<u64>,
}

impl Work for Pairs<'_> {
    fn run(&self) {
        self.td.aug_and_accept(self.rig, &self.order);
    }

    fn undo(&self) {
        self.td.remove_all(self.rig, &self.order);
    }
}

/// Only what memory has to do: one zeroing of as many pages, twice as often to take about as long.
struct Zeroing(Vec<AtomicU64>);

impl Zeroing {
    fn new() -> Self {
        Self((0..PAGES * 512).map(AtomicU64::new).collect())
    }
}

impl Work for Zeroing {
    fn run(&self) {
        for _ in 0..2 {
            for word in &self.0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    fn undo(&self) {}
}

/// Runs one burst, each piece of work on its own core: ns per page over all threads, if it was quiet.
fn burst(work: &[&dyn Work]) -> Option<f64> {
    let threads = work.len() as u64;
    let ready = AtomicU64::new(0);
    let barrier = Barrier::new(work.len());
    let run = |core: usize, work: &dyn Work| {
        let pinned = pin(core);
        barrier.wait();
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < threads {
            std::hint::spin_loop();
        }
        let before = preemptions();
        let start = wall();
        work.run();
        let end = wall();
        let was_quiet = preemptions() == before;
        barrier.wait();
        work.undo();
        (pinned && was_quiet).then_some((start, end))
    };
    let times: Option<Vec<(u64, u64)>> = std::thread::scope(|scope| {
        let run = &run;
        let spawn = |(core, work)| scope.spawn(move || run(core, work));
        let handles: Vec<_> = work.iter().copied().enumerate().map(spawn).collect();
        let times: Vec<_> = handles.into_iter().map(|handle| handle.join().ok().flatten()).collect();
        times.into_iter().collect()
    });
    let times = times?;
    let first = times.iter().map(|t| t.0).min()?;
    let skew = times.iter().map(|t| t.0).max()? - first;
    let length = times.iter().map(|t| t.1).max()? - first;
    (skew * 20 <= length).then_some(length as f64 / (PAGES * threads) as f64)
}

pub fn run(report: &mut Report) {
    let rig = Rig::new(2);
    let [first, apart, beside] = [(0, 0), (1, 1), (1, 0)].map(|(lp, block)| Pairs {
        rig: &rig,
        td: rig.td(lp, block, PAGES),
        order: (0..PAGES).collect(),
    });
    let zeroing = [Zeroing::new(), Zeroing::new()];
    let cases: [&[&dyn Work]; 5] =
        [&[&first], &[&first, &apart], &[&first, &beside], &[&zeroing[0]], &[&zeroing[0], &zeroing[1]]];
    let mut quiet = [const { Vec::new() }; 5];
    for _ in 0..ATTEMPTS {
        for (work, figures) in cases.iter().zip(&mut quiet) {
            if figures.len() < WANTED {
                figures.extend(burst(work));
            }
        }
    }
    let [one, apart, beside, zero_one, zero_two] =
        quiet.map(|figures: Vec<f64>| (figures.len() >= ENOUGH).then(|| median(figures)));
    for (key, one, two, bar) in [
        ("scaling_2_tds_different_1g_blocks", one, apart, Bar::AtLeast(1.6)),
        ("scaling_2_tds_same_1g_block", one, beside, Bar::None),
        ("scaling_2_threads_of_zeroing_alone", zero_one, zero_two, Bar::None),
    ] {
        let scaling = one.zip(two).map(|(one, two)| one / two).ok_or("no quiet bursts on two cores".into());
        let note = one.zip(two).map(|(one, two)| format!("{one:.0} ns alone, {two:.0} ns together"));
        report.put_or_skip(key, scaling, bar, note.unwrap_or_default());
    }
}
