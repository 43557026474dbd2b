//! Time, as the method asks: CPU time of the thread for one thread, wall time of undisturbed bursts for two.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tdvisor_test_data::chance::Chance;

fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// CPU time of this thread, in ns.
pub fn cpu() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Wall time, in ns.
pub fn wall() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// How often this thread was taken off its core.
pub fn preemptions() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

/// Keeps this thread on one core. `false` where that is not possible.
pub fn pin(core: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(core).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

/// CPU time of one run, in ns.
pub fn timed(run: impl FnOnce()) -> f64 {
    let start = cpu();
    run();
    (cpu() - start) as f64
}

/// The median of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The order in which pages are touched: each once, far apart, the same every time.
pub fn shuffled(pages: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..pages).collect();
    let mut chance = Chance::new(1);
    for i in (1..order.len()).rev() {
        order.swap(i, chance.index(i + 1));
    }
    order
}

/// Writes through more memory than caches hold.
pub fn evict(buffer: &mut [u64]) {
    for word in buffer.iter_mut().step_by(8) {
        *word = word.wrapping_add(1);
    }
    std::hint::black_box(buffer);
}

/// How often each measurement is repeated.
const REPETITIONS: usize = 7;

/// Runs measurements in turn and gives the median of each.
pub fn interleaved<const N: usize>(mut run: impl FnMut(usize) -> f64) -> [f64; N] {
    let mut all: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..REPETITIONS {
        for (which, figures) in all.iter_mut().enumerate() {
            figures.push(run(which));
        }
    }
    all.map(median)
}
