//! The machine as the TD host's [`Platform`](td_host::platform::Platform).
//!
//! **Why this is sound.** What `unsafe` there is touches the memory of the machine's own map: usable memory from 1 MiB on, less the
//! image, the heap, and the file that came along. It is mapped to itself and no Rust object lies in it, so copying in and out
//! by string instructions breaks no rule of references; the words of a table are atomics, which may be shared and have no
//! invalid value. Pages that the module owns are accessed by a faulty host only; the processor answers with a machine check,
//! which ends the host.
#![expect(unsafe_code)]

use alloc::vec::Vec;
use core::arch::asm;

use td_host::frames::FreeFrames;
use td_host::host::MemoryRange;
use td_host::platform::{Clock, Frames, LpId, NotMemory, PackageId, PhysMem, PrivateKeyIds, Processors};
use tdvisor_base::sync::{AtomicU32, Ordering, spin_loop};
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, Level, PAGE_SIZE, Pfn, Ticks};

use crate::boot::MemoryMap;
use crate::calls;
use crate::conditions::TdxFacts;
use crate::lp::BareLp;
use crate::ring0::{area, cpu};

/// A processor of the machine.
#[derive(Debug)]
struct Place {
    package: u32,
    /// The number of the processor that holds it, and one more; 0 is nobody.
    holder: AtomicU32,
}

/// A machine without an operating system.
#[derive(Debug)]
pub struct BareMetal {
    places: Vec<Place>,
    facts: TdxFacts,
    memory: MemoryMap,
    frames: FreeFrames,
}

impl BareMetal {
    /// A machine of these packages' processors, which are in VMX operation; `memory` is nobody else's.
    pub(crate) fn new(packages: impl Iterator<Item = u32>, facts: TdxFacts, memory: MemoryMap) -> Self {
        let frames = FreeFrames::new(memory.ranges());
        let places = packages.map(|package| Place { package, holder: AtomicU32::new(0) }).collect();
        Self { places, facts, memory, frames }
    }

    pub(crate) fn give_back(&self, lp: LpId) {
        if let Some(place) = self.places.get(lp.0 as usize) {
            place.holder.store(0, Ordering::Release);
        }
    }

    /// Runs `work` on these processors at once, each with its number, until all are done. The caller holds none of them.
    pub fn on_processors(&self, lps: &[LpId], work: &(dyn Fn(LpId) + Sync)) {
        let known: Vec<u32> =
            lps.iter().map(|lp| lp.0).filter(|lp| (*lp as usize) < self.places.len()).collect();
        calls::on_all(&known, &|processor| work(LpId(processor)));
    }

    fn checked(&self, hpa: Hpa, bytes: u64) -> Result<u64, NotMemory> {
        if self.memory.holds(hpa, bytes) { Ok(hpa.get()) } else { Err(NotMemory(hpa)) }
    }
}

/// Copies bytes as memory that is nobody's object.
///
/// # Safety
/// Both ranges are mapped; one of them is a borrowed slice, and the other is memory of the machine.
unsafe fn copy(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}

impl Processors for BareMetal {
    type Lp<'p> = BareLp<'p>;

    fn lp_count(&self) -> u32 {
        // There are `MAX_PROCESSORS` places at most.
        u32::try_from(self.places.len()).unwrap_or_default()
    }

    fn package_of(&self, lp: LpId) -> PackageId {
        let place = self.places.get(lp.0 as usize).or(self.places.first());
        PackageId(place.map_or(0, |place| place.package))
    }

    fn take_lp(&self, lp: LpId) -> Option<BareLp<'_>> {
        let place = self.places.get(lp.0 as usize)?;
        let me = area::current() + 1;
        loop {
            match place.holder.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(BareLp::new(self, lp)),
                // It would wait for itself.
                Err(holder) if holder == me => return None,
                Err(_) => {
                    calls::serve();
                    spin_loop();
                }
            }
        }
    }

    fn send_ipi(&self, lp: LpId) {
        if (lp.0 as usize) < self.places.len() {
            calls::interrupt(lp.0);
        }
    }
}

impl Clock for BareMetal {
    fn ticks(&self) -> Ticks {
        cpu::ticks()
    }

    fn frequency_hz(&self) -> u64 {
        self.facts.tsc_hz
    }
}

impl PhysMem for BareMetal {
    fn private_key_ids(&self) -> PrivateKeyIds {
        self.facts.key_ids
    }

    fn key_id_shift(&self) -> u32 {
        self.facts.key_id_shift
    }

    fn read(&self, hpa: Hpa, out: &mut [u8]) -> Result<(), NotMemory> {
        let at = self.checked(hpa, out.len() as u64)?;
        // SAFETY: the range is the machine's, and `out` is borrowed for the call.
        unsafe { copy(out.as_mut_ptr(), at as *const u8, out.len()) };
        Ok(())
    }

    fn write(&self, hpa: Hpa, data: &[u8]) -> Result<(), NotMemory> {
        let at = self.checked(hpa, data.len() as u64)?;
        // SAFETY: the range is the machine's, and `data` is borrowed for the call.
        unsafe { copy(at as *mut u8, data.as_ptr(), data.len()) };
        Ok(())
    }

    fn clear_page(&self, pfn: Pfn) -> Result<(), NotMemory> {
        let at = self.checked(pfn.base(), PAGE_SIZE)?;
        // SAFETY: a page of the machine's; who clears it has it for itself.
        unsafe { cpu::clear_page(at) };
        Ok(())
    }

    fn table(&self, pfn: Pfn) -> Result<&Table, NotMemory> {
        let at = self.checked(pfn.base(), PAGE_SIZE)?;
        // SAFETY: a page of the machine's, aligned, mapped for ever; atomic words have no invalid value.
        Ok(unsafe { &*(at as *const Table) })
    }
}

impl Frames for BareMetal {
    fn memory_map(&self) -> &[MemoryRange] {
        self.memory.ranges()
    }

    fn allocate_page(&self, level: Level) -> Option<Pfn> {
        self.frames.allocate(level.frames())
    }

    fn free_page(&self, pfn: Pfn, level: Level) {
        self.frames.free(pfn, level.frames());
    }

    fn allocate_contiguous(&self, frames: u64) -> Option<Pfn> {
        self.frames.allocate(frames)
    }

    fn free_frames(&self) -> u64 {
        self.frames.available()
    }
}
