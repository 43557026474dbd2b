//! A TD's memory: slots, each with a private side (guest_memfd) and a shared one (memory of this process).
//!
//! # Protocol
//! A frame is on one side. Which, stands here (`sides`) and in the kernel (its attribute); the guest decides by MapGPA.
//!
//! | conversion | 1 | 2 | 3 |
//! |---|---|---|---|
//! | to shared | attribute: KVM takes the private page from the TD | hole in guest_memfd | noted: devices may use it |
//! | to private | noted: devices may not use it any more | attribute | the shared side is discarded |
//!
//! Both go under the lock of `sides`, exclusively; a device's access holds it shared, until its last byte. So a device never
//! sees half of a conversion, and what it writes never lands behind one. Each side's memory is given back when it is left:
//! a frame takes up room once. Huge pages are the kernel's affair: KVM maps private memory of TDs in 4 KiB pages as of
//! Linux 7.3, whatever the host does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use td_image::td_hob::MemoryRange;
use tdvisor_base::{Gfn, Gpa, PAGE_SIZE, Side, to_usize};
use tdvisor_vm::{ConvertError, NotShared, SharedMemory};

use crate::death::{Death, DeathCause};
use crate::error::{Asked, Error};
use crate::kernel::{GuestMemfd, KernelVm, Pages, SlotPlace};
use crate::uapi::ATTRIBUTE_PRIVATE;

/// Frames that one call converts at most, so that nobody waits for long: 2 MiB, which is also the most that KVM asks for.
const MOST_FRAMES: u64 = 512;

/// One range.
struct Slot<V: KernelVm> {
    start: Gfn,
    frames: u64,
    shared: V::Pages,
    private: V::GuestMemfd,
}

impl<V: KernelVm> Slot<V> {
    fn end(&self) -> u64 {
        self.start.get() + self.frames
    }

    fn contains(&self, gfn: Gfn) -> bool {
        (self.start.get()..self.end()).contains(&gfn.get())
    }

    /// Bytes from the beginning of the slot.
    fn offset(&self, gfn: Gfn) -> u64 {
        (gfn.get() - self.start.get()) * PAGE_SIZE
    }
}

/// One bit for each frame of a slot: set where it is shared.
#[derive(Debug)]
struct Sides(Vec<u64>);

impl Sides {
    fn all_private(frames: u64) -> Self {
        Self(vec![0; to_usize(frames.div_ceil(64))])
    }

    fn get(&self, index: u64) -> Side {
        let word = self.0.get(to_usize(index / 64)).copied().unwrap_or_default();
        if word >> (index % 64) & 1 == 1 { Side::Shared } else { Side::Private }
    }

    fn set(&mut self, index: u64, side: Side) {
        if let Some(word) = self.0.get_mut(to_usize(index / 64)) {
            let bit = 1 << (index % 64);
            match side {
                Side::Shared => *word |= bit,
                Side::Private => *word &= !bit,
            }
        }
    }
}

/// The memory of one TD.
pub(crate) struct GuestMemory<V: KernelVm> {
    slots: Vec<Slot<V>>,
    /// Of each slot.
    sides: RwLock<Vec<Sides>>,
    converted: AtomicU64,
}

impl<V: KernelVm> GuestMemory<V> {
    /// Gives the TD these ranges, all private.
    pub(crate) fn new(vm: &V, ranges: &[MemoryRange]) -> Result<Self, Error> {
        let mut slots = Vec::new();
        for (slot, range) in (0..).zip(ranges) {
            let (gpa, bytes) = (range.start, range.bytes);
            let shared = vm.map(bytes).map_err(|errno| Error::new(Asked::Map { bytes }, errno))?;
            let private =
                vm.guest_memfd(bytes).map_err(|errno| Error::new(Asked::GuestMemfd { bytes }, errno))?;
            vm.add_slot(SlotPlace { slot, gpa, bytes }, &shared, &private)
                .map_err(|errno| Error::new(Asked::Slot { gpa, bytes }, errno))?;
            set_side(vm, gpa, bytes, Side::Private)?;
            slots.push(Slot { start: gpa.frame(), frames: bytes / PAGE_SIZE, shared, private });
        }
        let sides = slots.iter().map(|slot| Sides::all_private(slot.frames)).collect();
        Ok(Self { slots, sides: RwLock::new(sides), converted: AtomicU64::new(0) })
    }

    /// Frames that changed sides.
    pub(crate) fn frames_converted(&self) -> u64 {
        self.converted.load(Ordering::Relaxed)
    }

    fn slot_of(&self, gfn: Gfn) -> Option<(usize, &Slot<V>)> {
        self.slots.iter().enumerate().find(|(_, slot)| slot.contains(gfn))
    }

    /// The side of a frame; `None` where there is no memory.
    pub(crate) fn side_of(&self, gfn: Gfn) -> Option<Side> {
        let (number, slot) = self.slot_of(gfn)?;
        let sides = self.sides.read().unwrap_or_else(PoisonError::into_inner);
        sides.get(number).map(|sides| sides.get(gfn.get() - slot.start.get()))
    }

    /// The first frame of `start..end` that has no memory.
    pub(crate) fn first_without_memory(&self, start: Gfn, end: Gfn) -> Option<Gfn> {
        let mut at = start;
        while at < end {
            match self.slot_of(at) {
                Some((_, slot)) => at = Gfn::new(slot.end()),
                None => return Some(at),
            }
        }
        None
    }

    /// Gives the first frames of `start..end` to a side; gives the first that was not, and what was converted anew.
    pub(crate) fn convert(
        &self,
        vm: &V,
        start: Gfn,
        end: Gfn,
        to: Side,
    ) -> Result<Converted, ConvertError<Error>> {
        if let Some(gfn) = self.first_without_memory(start, end) {
            return Err(ConvertError::NoMemory(gfn));
        }
        let Some((number, slot)) = self.slot_of(start) else { return Ok(Converted::nothing(start)) };
        let piece_end = end.get().min(slot.end()).min(start.get() + MOST_FRAMES);
        let frames = piece_end.saturating_sub(start.get());
        let first = start.get() - slot.start.get();

        let mut all = self.sides.write().unwrap_or_else(PoisonError::into_inner);
        let Some(sides) = all.get_mut(number) else { return Ok(Converted::nothing(start)) };
        let changing = (first..first + frames).filter(|frame| sides.get(*frame) != to).count() as u64;
        let reached = Gfn::new(piece_end);
        if changing == 0 {
            return Ok(Converted { reached, anew: None });
        }
        match self.convert_piece(vm, slot, start, frames, to, sides) {
            Ok(()) => {
                self.converted.fetch_add(changing, Ordering::Relaxed);
                Ok(Converted { reached, anew: Some((start.base(), frames * PAGE_SIZE)) })
            }
            // What is asked again converts all of the piece again.
            Err(error) if error.errno.is_transient() => Ok(Converted::nothing(start)),
            Err(error) => Err(ConvertError::Died(error)),
        }
    }

    fn convert_piece(
        &self,
        vm: &V,
        slot: &Slot<V>,
        start: Gfn,
        frames: u64,
        to: Side,
        sides: &mut Sides,
    ) -> Result<(), Error> {
        let (gpa, bytes, offset) = (start.base(), frames * PAGE_SIZE, slot.offset(start));
        let first = start.get() - slot.start.get();
        let mut note = |side| (first..first + frames).for_each(|frame| sides.set(frame, side));
        let left = |side| move |errno| Error::new(Asked::GiveBack { gpa, bytes, side }, errno);
        match to {
            Side::Shared => {
                set_side(vm, gpa, bytes, to)?;
                slot.private.punch_hole(offset, bytes).map_err(left(Side::Private))?;
                note(to);
                Ok(())
            }
            Side::Private => {
                note(to);
                set_side(vm, gpa, bytes, to)?;
                slot.shared.discard(offset, bytes).map_err(left(Side::Shared))
            }
        }
    }

    /// Calls `access` for each page of a range, if all of it is shared up to there.
    fn each_page(
        &self,
        gpa: Gpa,
        bytes: usize,
        mut access: impl FnMut(&V::Pages, u64, std::ops::Range<usize>),
    ) -> Result<(), NotShared> {
        let sides = self.sides.read().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes {
            let at = gpa.checked_add(done as u64).ok_or(NotShared::At(gpa))?;
            let (number, slot) = self.slot_of(at.frame()).ok_or(NotShared::At(at))?;
            let frame = at.frame().get() - slot.start.get();
            if sides.get(number).map(|sides| sides.get(frame)) != Some(Side::Shared) {
                return Err(NotShared::At(at));
            }
            let count = to_usize(PAGE_SIZE - at.page_offset()).min(bytes - done);
            access(&slot.shared, slot.offset(at.frame()) + at.page_offset(), done..done + count);
            done += count;
        }
        Ok(())
    }
}

/// How far a conversion came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Converted {
    /// The first frame that was not converted.
    pub(crate) reached: Gfn,
    /// The range in which something changed, address and bytes.
    pub(crate) anew: Option<(Gpa, u64)>,
}

impl Converted {
    const fn nothing(start: Gfn) -> Self {
        Self { reached: start, anew: None }
    }
}

fn set_side<V: KernelVm>(vm: &V, gpa: Gpa, bytes: u64, side: Side) -> Result<(), Error> {
    let attributes = if side == Side::Private { ATTRIBUTE_PRIVATE } else { 0 };
    vm.set_attributes(gpa, bytes, attributes)
        .map_err(|errno| Error::new(Asked::Attributes { gpa, bytes, side }, errno))
}

/// An error of a conversion as the death that comes of it.
pub(crate) fn died(vcpu: u32, error: ConvertError<Error>) -> ConvertError<Death> {
    match error {
        ConvertError::NoMemory(gfn) => ConvertError::NoMemory(gfn),
        ConvertError::Died(error) => ConvertError::Died(Death { vcpu, cause: DeathCause::Kernel(error) }),
    }
}

impl<V: KernelVm> SharedMemory for GuestMemory<V> {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.each_page(gpa, out.len(), |pages, at, range| {
            pages.read(at, out.get_mut(range).unwrap_or_default());
        })
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.each_page(gpa, data.len(), |pages, at, range| {
            pages.write(at, data.get(range).unwrap_or_default());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Errno;
    use crate::kernel::Kernel;
    use crate::kernel::fake::{FakeKernel, FakeVm};

    const RANGES: [MemoryRange; 2] =
        [MemoryRange::new(Gpa::new(0), 4 << 20), MemoryRange::new(Gpa::new(0xffff_0000), 0x1_0000)];

    fn memory() -> (FakeKernel, FakeVm, GuestMemory<FakeVm>) {
        let kernel = FakeKernel::default();
        let vm = kernel.create_td().unwrap();
        let memory = GuestMemory::new(&vm, &RANGES).unwrap();
        kernel.take_calls();
        (kernel, vm, memory)
    }

    fn gfn(number: u64) -> Gfn {
        Gfn::new(number)
    }

    #[test]
    fn devices_reach_what_is_shared_and_nothing_else() {
        let (_, vm, memory) = memory();
        assert_eq!(memory.read(Gpa::new(0x1000), &mut [0; 4]), Err(NotShared::At(Gpa::new(0x1000))));
        memory.convert(&vm, gfn(1), gfn(2), Side::Shared).unwrap();
        memory.write(Gpa::new(0x1ffe), &[1, 2]).unwrap();
        let mut back = [9; 2];
        memory.read(Gpa::new(0x1ffe), &mut back).unwrap();
        assert_eq!(back, [1, 2]);
        // What precedes the bad page was written.
        assert_eq!(memory.write(Gpa::new(0x1fff), &[7, 8]), Err(NotShared::At(Gpa::new(0x2000))));
        memory.read(Gpa::new(0x1fff), &mut back[..1]).unwrap();
        assert_eq!(back[0], 7);
        assert_eq!(memory.read(Gpa::new(u64::MAX), &mut back), Err(NotShared::At(Gpa::new(u64::MAX))));
    }

    #[test]
    fn each_side_is_given_back_when_it_is_left_and_in_this_order() {
        let (kernel, vm, memory) = memory();
        memory.convert(&vm, gfn(3), gfn(5), Side::Shared).unwrap();
        memory.write(Gpa::new(0x3000), &[1]).unwrap();
        memory.convert(&vm, gfn(3), gfn(5), Side::Private).unwrap();
        assert_eq!(
            kernel.take_calls(),
            [
                "attributes 0x3000 +0x2000 = 0x0",
                "punch 0x3000 +0x2000",
                "attributes 0x3000 +0x2000 = 0x8",
                "discard 0x3000 +0x2000",
            ]
        );
        memory.convert(&vm, gfn(3), gfn(4), Side::Shared).unwrap();
        let mut back = [9];
        memory.read(Gpa::new(0x3000), &mut back).unwrap();
        assert_eq!(back, [0], "nothing of the shared side is left");
        assert_eq!(memory.frames_converted(), 5);
    }

    #[test]
    fn what_is_on_its_side_already_costs_no_request() {
        let (kernel, vm, memory) = memory();
        let converted = memory.convert(&vm, gfn(0), gfn(8), Side::Private).unwrap();
        assert_eq!(converted, Converted { reached: gfn(8), anew: None });
        assert!(kernel.take_calls().is_empty());
    }

    #[test]
    fn a_long_conversion_comes_in_pieces_and_one_beyond_memory_converts_nothing() {
        let (kernel, vm, memory) = memory();
        let reached = |start| memory.convert(&vm, gfn(start), gfn(1024), Side::Shared).unwrap().reached;
        assert_eq!([reached(0), reached(512)], [gfn(512), gfn(1024)]);
        kernel.take_calls();
        assert_eq!(
            memory.convert(&vm, gfn(0), gfn(1025), Side::Private),
            Err(ConvertError::NoMemory(gfn(1024)))
        );
        assert!(kernel.take_calls().is_empty());
    }

    #[test]
    fn again_is_no_failure_and_a_failure_says_what_was_asked() {
        let (kernel, vm, memory) = memory();
        kernel.fail("attributes", [libc::EAGAIN]);
        let converted = memory.convert(&vm, gfn(0), gfn(1), Side::Shared).unwrap();
        assert_eq!(converted, Converted::nothing(gfn(0)));
        assert_eq!(memory.side_of(gfn(0)), Some(Side::Private));
        kernel.fail("punch", [libc::EIO]);
        let error = memory.convert(&vm, gfn(0), gfn(1), Side::Shared).unwrap_err();
        let asked = Asked::GiveBack { gpa: Gpa::new(0), bytes: 4096, side: Side::Private };
        assert_eq!(error, ConvertError::Died(Error::new(asked, Errno(libc::EIO))));
    }
}
