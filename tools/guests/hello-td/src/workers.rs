//! All vCPUs together: each accepts its share of the memory and increments one counter.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest_rt::memory::{self, Accepted};
use guest_rt::sync::{Once, SpinLock};
use guest_rt::{Td, println, smp};

use crate::{Step, failed};

const INCREMENTS: u64 = 20_000;

struct Work {
    td: &'static Td,
    vcpus: AtomicU32,
}

static WORK: Once<Work> = Once::new();
static COUNTER: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: SpinLock<Accepted> = SpinLock::new(Accepted { small: 0, large: 0, already: 0 });
static FAILED: AtomicBool = AtomicBool::new(false);

/// Runs the work on every vCPU and checks what came of it.
pub fn run(td: &'static Td) -> Step {
    let Some(work) = WORK.set(Work { td, vcpus: AtomicU32::new(0) }) else { return Err(()) };
    let vcpus = smp::release(td, task);
    work.vcpus.store(vcpus, Ordering::Release);
    task(0);
    if !smp::wait(vcpus) {
        failed(format_args!("vCPUs: not all of {vcpus} finished"));
        return Err(());
    }
    if FAILED.load(Ordering::Acquire) {
        return Err(());
    }
    let accepted = *ACCEPTED.lock();
    println!(
        "memory: {} MiB accepted by {vcpus} vCPU(s) as {} x 2M and {} x 4K",
        accepted.kib() >> 10,
        accepted.large,
        accepted.small
    );
    let (count, expected) = (COUNTER.load(Ordering::Acquire), u64::from(vcpus) * INCREMENTS);
    if count != expected {
        failed(format_args!("vCPUs: the shared counter says {count} instead of {expected}"));
        return Err(());
    }
    println!("vCPUs: {vcpus} x {INCREMENTS} locked increments make {count}");
    Ok(())
}

fn task(index: u32) {
    let Some(work) = WORK.get() else { return };
    // The first vCPU publishes the number after the release, which needs it first.
    smp::wait_until(|| work.vcpus.load(Ordering::Acquire) != 0);
    let vcpus = work.vcpus.load(Ordering::Acquire);
    let mut sum = Accepted::default();
    for chunk in work.td.share(index, vcpus) {
        match memory::accept(chunk) {
            Ok(accepted) => sum += accepted,
            Err(refused) => {
                failed(format_args!("memory: GPA {:#x} not accepted: {:?}", refused.gpa, refused.error));
                FAILED.store(true, Ordering::Release);
                break;
            }
        }
    }
    for _ in 0..INCREMENTS {
        COUNTER.fetch_add(1, Ordering::Relaxed);
    }
    if index != 0 {
        println!("vCPU {index}: accepted {} MiB, halting", sum.kib() >> 10);
    }
    defmt::debug!("vCPU {=u32} accepted {=u64} KiB", index, sum.kib());
    *ACCEPTED.lock() += sum;
}
