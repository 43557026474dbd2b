//! The flat reference: one record per frame, and what each operation does to it.

use std::ops::Range;

use mirror_ept::GfnRange;
use tdvisor_base::{Gfn, Level};
use vmm_core::memory::Resolution;
use vmm_core::memory::attributes::Attribute;

/// What is expected of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub attribute: Attribute,
    /// The level of the private leaf that maps it.
    pub private: Option<Level>,
    /// The level of the shared leaf that maps it.
    pub shared: Option<Level>,
}

/// All frames of a stretch of memory that begins and ends at a 2 MiB boundary.
pub struct Reference {
    start: Gfn,
    frames: Vec<Frame>,
    largest: Level,
}

impl Reference {
    /// Private and unmapped throughout, as a new slot is.
    pub fn new(whole: GfnRange, largest: Level) -> Self {
        let frame = Frame { attribute: Attribute::Private, private: None, shared: None };
        Self { start: whole.start(), frames: vec![frame; whole.frames() as usize], largest }
    }

    pub fn whole(&self) -> GfnRange {
        GfnRange::new(self.start, self.start.wrapping_add(self.frames.len() as u64))
    }

    pub fn frames(&self) -> impl Iterator<Item = (Gfn, Frame)> + '_ {
        (0..).zip(&self.frames).map(|(i, frame)| (self.start.wrapping_add(i), *frame))
    }

    pub fn frame(&self, gfn: Gfn) -> Frame {
        self.frames[self.index(gfn)]
    }

    fn index(&self, gfn: Gfn) -> usize {
        (gfn.get() - self.start.get()) as usize
    }

    fn indices(&self, range: GfnRange) -> Range<usize> {
        self.index(range.start())..self.index(range.end())
    }

    /// The frames of the leaf of `level` at `gfn`.
    fn leaf(&self, gfn: Gfn, level: Level) -> Range<usize> {
        let first = self.index(gfn.align_down(level));
        first..first + level.frames() as usize
    }

    /// A private fault ended like this: checks that it may, and notes what it mapped.
    pub fn private_fault(&mut self, gfn: Gfn, max_level: Level, got: Resolution) {
        let frame = self.frame(gfn);
        let Resolution::Mapped(level) = got else {
            assert_eq!(got, Resolution::WrongSide(Attribute::Shared), "private fault at {gfn}");
            assert_eq!(frame.attribute, Attribute::Shared, "private frame {gfn} was refused as shared");
            return;
        };
        assert_eq!(frame.attribute, Attribute::Private, "shared frame {gfn} was mapped private");
        assert!(level <= max_level, "frame {gfn} was mapped at {level}, more than the guest takes");
        match frame.private {
            Some(old) if old <= max_level => assert_eq!(level, old, "a spurious fault at {gfn} changed it"),
            Some(old) => {
                // The larger page was split, and this one with it.
                let leaf = self.leaf(gfn, old);
                self.frames[leaf].iter_mut().for_each(|frame| frame.private = Some(level));
            }
            None => {
                assert!(level <= self.largest, "frame {gfn} was mapped at {level}");
                let leaf = self.leaf(gfn, level);
                for frame in &mut self.frames[leaf] {
                    assert_eq!(frame.attribute, Attribute::Private, "{gfn}: a leaf over mixed attributes");
                    assert_eq!(frame.private, None, "{gfn}: a leaf over smaller ones");
                    frame.private = Some(level);
                }
            }
        }
    }

    /// A shared fault ended like this.
    pub fn shared_fault(&mut self, gfn: Gfn, got: Resolution) {
        let frame = self.frame(gfn);
        let Resolution::Mapped(level) = got else {
            assert_eq!(got, Resolution::WrongSide(Attribute::Private), "shared fault at {gfn}");
            assert_eq!(frame.attribute, Attribute::Private, "shared frame {gfn} was refused as private");
            return;
        };
        assert_eq!(frame.attribute, Attribute::Shared, "private frame {gfn} was mapped shared");
        match frame.shared {
            Some(old) => assert_eq!(level, old, "a spurious fault at {gfn} changed it"),
            None => {
                assert!(level <= self.largest, "frame {gfn} was mapped shared at {level}");
                let leaf = self.leaf(gfn, level);
                for frame in &mut self.frames[leaf] {
                    assert_eq!(frame.attribute, Attribute::Shared, "{gfn}: a leaf over mixed attributes");
                    assert_eq!(frame.shared, None, "{gfn}: a leaf over smaller ones");
                    frame.shared = Some(level);
                }
            }
        }
    }

    /// A range was converted, wholly.
    pub fn convert(&mut self, range: GfnRange, to: Attribute) {
        let indices = self.indices(range);
        if self.frames[indices.clone()].iter().all(|frame| frame.attribute == to) {
            return;
        }
        match to {
            Attribute::Shared => {
                self.split_private(range.start());
                self.split_private(range.end());
            }
            // A shared leaf goes whole: the next fault brings the rest of it back.
            Attribute::Private => {
                for i in indices.clone() {
                    if let Some(level) = self.frames[i].shared {
                        let leaf = self.leaf(self.start.wrapping_add(i as u64), level);
                        self.frames[leaf].iter_mut().for_each(|frame| frame.shared = None);
                    }
                }
            }
        }
        for frame in &mut self.frames[indices] {
            frame.attribute = to;
            frame.private = if to == Attribute::Shared { None } else { frame.private };
        }
    }

    /// Cuts the private leaf that `at` falls into the middle of.
    fn split_private(&mut self, at: Gfn) {
        if at.is_aligned(Level::L2M) {
            return;
        }
        if let Some(Level::L2M) = self.frame(at).private {
            let leaf = self.leaf(at, Level::L2M);
            self.frames[leaf].iter_mut().for_each(|frame| frame.private = Some(Level::L4K));
        }
    }

    /// Shared leaves: of 4 KiB, of 2 MiB.
    pub fn shared_leaves(&self) -> (u64, u64) {
        let frames_at = |level| self.frames.iter().filter(|frame| frame.shared == Some(level)).count() as u64;
        (frames_at(Level::L4K), frames_at(Level::L2M) / Level::L2M.frames())
    }
}
