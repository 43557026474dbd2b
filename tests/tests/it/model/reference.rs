//! The flat reference: one record per frame, and what each operation does to it.
//!
//! It knows nothing of tables, levels or folios: what it says of a frame must hold however the frame is mapped.

use std::collections::BTreeSet;
use std::ops::Range;

use tdvisor_base::Side;

use crate::model::operation::{FRAMES, Span};

/// Whether a frame is mapped private, and the guest has accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    Unmapped,
    Pending,
    Accepted,
}

/// What is expected of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub attribute: Side,
    pub private: Private,
    /// The first word of the frame, for who may read it.
    pub word: u64,
}

const NEW: Frame = Frame { attribute: Side::Private, private: Private::Unmapped, word: 0 };

/// All frames of the model's memory.
pub struct Reference {
    frames: Vec<Frame>,
    /// Frames written since the last harvest, while writes are logged.
    pub log: Option<BTreeSet<u64>>,
}

impl Reference {
    /// Private and unmapped throughout, as a new slot is.
    pub fn new() -> Self {
        Self { frames: vec![NEW; FRAMES as usize], log: None }
    }

    pub fn frame(&self, frame: u64) -> Frame {
        self.frames[frame as usize]
    }

    /// The frames of the huge page that a frame is in.
    pub fn huge(frame: u64) -> Range<u64> {
        let first = frame - frame % 512;
        first..first + 512
    }

    fn range(&mut self, span: Span) -> &mut [Frame] {
        let first = span.first as usize;
        &mut self.frames[first..first + span.frames as usize]
    }

    pub fn all(&self, frames: Range<u64>, holds: impl Fn(Frame) -> bool) -> bool {
        frames.into_iter().all(|frame| holds(self.frame(frame)))
    }

    /// A frame without a mapping got one.
    pub fn map(&mut self, frame: u64) {
        let frame = &mut self.frames[frame as usize];
        assert_eq!(frame.attribute, Side::Private, "shared memory was mapped private");
        assert_eq!(frame.private, Private::Unmapped, "mapped twice");
        // What it held is lost: the guest's ACCEPT clears it, or the host does when it takes it back.
        *frame = Frame { private: Private::Pending, word: 0, ..*frame };
    }

    /// The guest accepted a frame.
    pub fn accept(&mut self, frame: u64) {
        let frame = &mut self.frames[frame as usize];
        assert_eq!(frame.private, Private::Pending, "accepted twice, or never mapped");
        frame.private = Private::Accepted;
    }

    /// Whoever may wrote a word.
    pub fn write(&mut self, frame: u64, value: u64) {
        self.frames[frame as usize].word = value;
        if self.frames[frame as usize].attribute == Side::Shared {
            self.note_write(frame);
        }
    }

    /// A frame became writable for the guest: as good as written.
    pub fn note_write(&mut self, frame: u64) {
        if let Some(log) = &mut self.log {
            log.insert(frame);
        }
    }

    /// A range was converted, wholly.
    pub fn convert(&mut self, span: Span, to: Side) {
        for frame in self.range(span) {
            if frame.private != Private::Unmapped && to == Side::Shared {
                frame.word = 0;
                frame.private = Private::Unmapped;
            }
            frame.attribute = to;
        }
    }

    /// The pages of a range were given back.
    pub fn punch(&mut self, span: Span) {
        for frame in self.range(span) {
            *frame = Frame { attribute: frame.attribute, ..NEW };
        }
    }

    /// The slot was replaced by a new one.
    pub fn replace(&mut self) {
        *self = Self::new();
    }
}
