//! What a memory access is for.

/// Why a guest-physical address is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or a read that a write by the same instruction follows.
    Write,
    /// An instruction fetch.
    Execute,
    /// A read of a guest page-table entry.
    WalkRead,
    /// An update of the Accessed or Dirty bit of a guest page-table entry.
    WalkWrite,
}

impl Access {
    /// Whether memory is to be changed.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::WalkWrite)
    }

    /// Whether the address is that of a guest page-table entry (the VMX exit qualification then clears its
    /// "final translation" bit).
    pub const fn is_walk(self) -> bool {
        matches!(self, Self::WalkRead | Self::WalkWrite)
    }
}
