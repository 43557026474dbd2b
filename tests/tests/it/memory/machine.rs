//! The emulated machine with a hand in it: its page allocator can fail on demand, and IPIs are counted.

use std::sync::atomic::{AtomicU64, Ordering};

use machine_emu::EmulatedMachine;
use machine_emu::lp::EmulatedLp;
use td_host::host::MemoryRange;
use td_host::platform::{Clock, Frames, LpId, NotMemory, PackageId, PhysMem, PrivateKeyIds, Processors};
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, Level, Pfn, Ticks};

/// A machine whose allocator fails when it is told to.
pub struct TestMachine {
    inner: EmulatedMachine,
    ipis: AtomicU64,
    /// Pages that the allocator gives before it fails once; never where it is `u64::MAX`.
    before_failure: AtomicU64,
}

impl TestMachine {
    pub fn new(inner: EmulatedMachine) -> Self {
        Self { inner, ipis: AtomicU64::new(0), before_failure: AtomicU64::new(u64::MAX) }
    }

    /// IPIs sent so far.
    pub fn ipis(&self) -> u64 {
        self.ipis.load(Ordering::SeqCst)
    }

    /// From now on the `nth` allocation fails, counted from 1, and no other.
    pub fn fail_allocation(&self, nth: u64) {
        self.before_failure.store(nth - 1, Ordering::SeqCst);
    }

    /// No allocation fails any more. Whether one did.
    pub fn end_failures(&self) -> bool {
        self.before_failure.swap(u64::MAX, Ordering::SeqCst) == u64::MAX
    }

    fn fails(&self) -> bool {
        // Counts down to the failure, and then past it to `u64::MAX`, where it stays.
        let before = self.before_failure.load(Ordering::SeqCst);
        if before != u64::MAX {
            self.before_failure.store(before.wrapping_sub(1), Ordering::SeqCst);
        }
        before == 0
    }
}

impl std::ops::Deref for TestMachine {
    type Target = EmulatedMachine;

    fn deref(&self) -> &EmulatedMachine {
        &self.inner
    }
}

impl Processors for TestMachine {
    type Lp<'p> = EmulatedLp<'p>;

    fn lp_count(&self) -> u32 {
        self.inner.lp_count()
    }

    fn package_of(&self, lp: LpId) -> PackageId {
        self.inner.package_of(lp)
    }

    fn take_lp(&self, lp: LpId) -> Option<EmulatedLp<'_>> {
        self.inner.take_lp(lp)
    }

    fn send_ipi(&self, lp: LpId) {
        self.ipis.fetch_add(1, Ordering::SeqCst);
        self.inner.send_ipi(lp);
    }
}

impl Clock for TestMachine {
    fn ticks(&self) -> Ticks {
        self.inner.ticks()
    }

    fn frequency_hz(&self) -> u64 {
        self.inner.frequency_hz()
    }
}

impl Frames for TestMachine {
    fn memory_map(&self) -> &[MemoryRange] {
        self.inner.memory_map()
    }

    fn allocate_page(&self, level: Level) -> Option<Pfn> {
        if self.fails() { None } else { self.inner.allocate_page(level) }
    }

    fn free_page(&self, pfn: Pfn, level: Level) {
        self.inner.free_page(pfn, level);
    }

    fn allocate_contiguous(&self, frames: u64) -> Option<Pfn> {
        self.inner.allocate_contiguous(frames)
    }

    fn free_frames(&self) -> u64 {
        self.inner.free_frames()
    }
}

impl PhysMem for TestMachine {
    fn private_key_ids(&self) -> PrivateKeyIds {
        self.inner.private_key_ids()
    }

    fn key_id_shift(&self) -> u32 {
        self.inner.key_id_shift()
    }

    fn read(&self, hpa: Hpa, out: &mut [u8]) -> Result<(), NotMemory> {
        self.inner.read(hpa, out)
    }

    fn write(&self, hpa: Hpa, data: &[u8]) -> Result<(), NotMemory> {
        self.inner.write(hpa, data)
    }

    fn clear_page(&self, pfn: Pfn) -> Result<(), NotMemory> {
        self.inner.clear_page(pfn)
    }

    fn table(&self, pfn: Pfn) -> Result<&Table, NotMemory> {
        self.inner.table(pfn)
    }
}
