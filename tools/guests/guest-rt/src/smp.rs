//! The other vCPUs: released by the first one, given one task each, then halted.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::boot::mailbox;
use crate::cpu::CpuArea;
use crate::layout::PAGE_4K;
use crate::sync::Once;
use crate::{Td, exit, memory};

/// vCPUs that the guests use; further ones stay in the reset stub.
pub const MAX_VCPUS: u32 = 24;
/// Polls before the others are taken for lost.
const PATIENCE: u64 = 200_000_000;

/// What a released vCPU runs; the argument is its index.
pub type Task = fn(u32);

static TASK: Once<Task> = Once::new();
static FINISHED: AtomicU32 = AtomicU32::new(0);

/// Bytes that a released vCPU needs for its stacks and tables.
pub const AREA_SIZE: u64 = size_of::<CpuArea>() as u64;

/// Releases the other vCPUs to run `task` and returns how many vCPUs take part, this one included.
///
/// Needs the pool for their stacks; call it once.
pub fn release(td: &Td, task: Task) -> u32 {
    let vcpus = td.vcpus.clamp(1, MAX_VCPUS);
    if vcpus == 1 {
        return 1;
    }
    let Some(areas) = memory::take_pages(u64::from(vcpus - 1) * AREA_SIZE / PAGE_4K) else {
        return 1;
    };
    release_onto(areas, task) + 1
}

/// Releases as many of the other vCPUs to run `task` as `areas` has room for, and says how many that is.
///
/// `areas` is page-aligned and belongs to those vCPUs until they leave their stacks for good; call it once.
pub fn release_onto(areas: &'static mut [u8], task: Task) -> u32 {
    let others = u32::try_from(areas.len() as u64 / AREA_SIZE).unwrap_or(0);
    TASK.set(task);
    let mailbox = mailbox();
    mailbox.first_area.store(areas.as_mut_ptr() as u64, Ordering::Release);
    mailbox.stride.store(AREA_SIZE as u32, Ordering::Release);
    mailbox.released.store(others.saturating_add(1), Ordering::Release);
    others
}

/// Waits until all but the first of `vcpus` vCPUs have finished their task; false if they do not come.
pub fn wait(vcpus: u32) -> bool {
    wait_until(|| FINISHED.load(Ordering::Acquire) >= vcpus.saturating_sub(1))
}

/// Polls a condition that another vCPU brings about; false if it does not come.
pub fn wait_until(condition: impl Fn() -> bool) -> bool {
    (0..PATIENCE).any(|_| {
        core::hint::spin_loop();
        condition()
    })
}

/// What a released vCPU does for the rest of its life: its task, then it halts.
pub(crate) fn run_task(index: u32) -> ! {
    if let Some(task) = TASK.get() {
        task(index);
    }
    FINISHED.fetch_add(1, Ordering::AcqRel);
    exit::halt()
}
