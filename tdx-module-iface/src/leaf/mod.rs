//! Leaf numbers: which function of the module a call asks for.
//!
//! RAX on entry: leaf number in bits 15:0, version in bits 23:16, everything else zero.

mod tdg;
mod tdh;

pub use tdg::TdgLeaf;
pub use tdh::TdhLeaf;

/// RAX on entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct LeafWord(pub u64);

impl LeafWord {
    /// The word for a leaf and version.
    pub const fn new(leaf: u16, version: u8) -> Self {
        Self(leaf as u64 | (version as u64) << 16)
    }

    /// Bits 15:0.
    pub const fn leaf(self) -> u16 {
        self.0 as u16
    }

    /// Bits 23:16.
    pub const fn version(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Whether a bit above the version is set, which every leaf refuses.
    pub const fn has_reserved_bits(self) -> bool {
        self.0 >> 24 != 0
    }
}
