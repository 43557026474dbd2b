//! Random schedules of operations over TDs that share a host.

use mirror_ept::{Access, GfnRange};
use tdvisor_base::{Gfn, Level};
use vmm_core::memory::attributes::Attribute;

use crate::memory::{EmulatedSeat, EmulatedTd, convert, module_maps, touch};
use crate::random::Random;
use crate::reference::Reference;

/// A TD, a seat at its memory, and what is expected of it.
pub struct Subject<'t, 'h> {
    pub td: &'t EmulatedTd<'h>,
    pub seat: EmulatedSeat<'t, 'h>,
    pub reference: Reference,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
enum Operation {
    PrivateFault { gfn: Gfn, max_level: Level },
    SharedFault { gfn: Gfn },
    Convert { range: GfnRange, to: Attribute },
    Audit,
}

fn choose(random: &mut Random, whole: GfnRange) -> Operation {
    let gfn = whole.start().wrapping_add(random.below(whole.frames()));
    match random.below(1000) {
        0..560 => {
            let max_level = if random.below(2) == 0 { Level::L2M } else { Level::L4K };
            Operation::PrivateFault { gfn, max_level }
        }
        560..750 => Operation::SharedFault { gfn },
        750..998 => {
            // Pages, huge pages, and what cuts them.
            let (start, frames) = match random.below(8) {
                0 => (gfn.align_down(Level::L2M), 512),
                1 => (gfn.align_down(Level::L2M), 1024),
                2 => (gfn, 1 + random.below(700)),
                _ => (gfn, 1 + random.below(8)),
            };
            let end = start.wrapping_add(frames).min(whole.end());
            let to = if random.below(5) < 2 { Attribute::Shared } else { Attribute::Private };
            Operation::Convert { range: GfnRange::new(start, end), to }
        }
        _ => Operation::Audit,
    }
}

impl Subject<'_, '_> {
    /// Does something, and has the reference do it too.
    pub fn step(&mut self, random: &mut Random) {
        let Self { td, seat, reference } = self;
        let operation = choose(random, reference.whole());
        match operation {
            Operation::PrivateFault { gfn, max_level } => {
                let got = touch(seat, gfn, max_level);
                reference.private_fault(gfn, max_level, got);
                self.agrees_at(gfn);
            }
            Operation::SharedFault { gfn } => {
                let got = seat.memory().shared_fault(seat, gfn, Access::Write, || false);
                reference.shared_fault(gfn, got.expect("a shared fault is resolved"));
                self.agrees_at(gfn);
            }
            Operation::Convert { range, to } => {
                convert(seat, range, to);
                reference.convert(range, to);
                self.agrees_at(range.start());
                self.agrees_at(before(range.end()));
                // The neighbours keep what they had (invariant 40).
                for gfn in [before(range.start()), range.end()] {
                    if self.reference.whole().contains(gfn) {
                        self.agrees_at(gfn);
                    }
                }
            }
            Operation::Audit => {
                td.audit().unwrap_or_else(|error| panic!("audit: {error}"));
            }
        }
    }

    /// The attribute of a frame, and the module's mapping of it, are the reference's.
    fn agrees_at(&self, gfn: Gfn) {
        let expected = self.reference.frame(gfn);
        assert_eq!(self.td.memory().attribute(gfn), Some(expected.attribute), "attribute of {gfn}");
        assert_eq!(module_maps(&self.seat, self.td, gfn), expected.private, "private mapping of {gfn}");
    }

    /// A rest point: the audit holds, and every frame is what the reference says.
    pub fn rest(&mut self) {
        self.td.audit().unwrap_or_else(|error| panic!("audit: {error}"));
        self.private_frames_agree();
        self.shared_frames_agree();
    }

    fn private_frames_agree(&self) {
        let mut skip_to = self.reference.whole().start();
        for (gfn, expected) in self.reference.frames() {
            assert_eq!(self.td.memory().attribute(gfn), Some(expected.attribute), "attribute of {gfn}");
            if gfn < skip_to {
                assert_eq!(expected.private, Some(Level::L2M), "private mapping of {gfn}");
                continue;
            }
            let mapped = module_maps(&self.seat, self.td, gfn);
            assert_eq!(mapped, expected.private, "private mapping of {gfn}");
            if mapped == Some(Level::L2M) {
                skip_to = gfn.align_down(Level::L2M).wrapping_add(512);
            }
        }
    }

    /// A fault on what is mapped changes nothing, so faults on all leaves of the reference leave the number of
    /// leaves as it is exactly if the tree has those leaves and no other.
    fn shared_frames_agree(&mut self) {
        let (small, large) = self.reference.shared_leaves();
        let counted = |td: &EmulatedTd<'_>| {
            let direct = td.memory().statistics().direct;
            (direct.leaves_4k, direct.leaves_2m)
        };
        assert_eq!(counted(self.td), (small, large), "shared leaves of 4K and of 2M");
        for (gfn, expected) in self.reference.frames() {
            let Some(level) = expected.shared else { continue };
            if !gfn.is_aligned(level) {
                continue;
            }
            let got = self.td.memory().shared_fault(&mut self.seat, gfn, Access::Write, || false);
            assert_eq!(got, Ok(vmm_core::memory::Resolution::Mapped(level)), "shared mapping of {gfn}");
        }
        assert_eq!(counted(self.td), (small, large), "a shared frame of the reference was not mapped");
    }
}

fn before(gfn: Gfn) -> Gfn {
    Gfn::new(gfn.get() - 1)
}
