//! Address newtypes and page-table levels.
//!
//! A number that is an address always carries its space in its type: [`Gpa`]/[`Gfn`] for the guest,
//! [`Hpa`]/[`Pfn`] for the host. Frame numbers count 4 KiB frames. Nothing converts between the spaces
//! implicitly; a page table is the only thing that may.

use core::fmt;

/// Bytes in the smallest page.
pub const PAGE_SIZE: u64 = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Entries in one page-table page.
pub const ENTRIES_PER_TABLE: usize = 512;

macro_rules! address_space {
    ($(#[$addr_doc:meta])* $addr:ident, $(#[$frame_doc:meta])* $frame:ident) => {
        $(#[$addr_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $addr(u64);

        $(#[$frame_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $frame(u64);

        impl $addr {
            /// The address with this number of bytes from zero.
            pub const fn new(bytes: u64) -> Self {
                Self(bytes)
            }

            /// The number of bytes from zero.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The 4 KiB frame that holds this address.
            pub const fn frame(self) -> $frame {
                $frame(self.0 >> PAGE_SHIFT)
            }

            /// Offset inside the 4 KiB frame.
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether the address is a multiple of `bytes`, which must be a power of two.
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The next lower multiple of `bytes`, which must be a power of two.
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }

            /// `self + bytes`, or `None` where the sum leaves 64 bits.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self + bytes`, modulo 2^64: for addresses whose range was checked before.
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl $frame {
            /// The frame with this number, counted in 4 KiB steps.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The frame number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The first address of the frame; bits above 2^52 frames are lost, as in hardware.
            pub const fn base(self) -> $addr {
                $addr(self.0 << PAGE_SHIFT)
            }

            /// Whether the frame is the first of a page of this level.
            pub const fn is_aligned(self, level: Level) -> bool {
                self.0 & (level.frames() - 1) == 0
            }

            /// The first frame of the page of this level that holds this frame.
            pub const fn align_down(self, level: Level) -> Self {
                Self(self.0 & !(level.frames() - 1))
            }

            /// `self + frames`, or `None` where the sum leaves 64 bits.
            pub const fn checked_add(self, frames: u64) -> Option<Self> {
                match self.0.checked_add(frames) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self + frames`, modulo 2^64: for frames whose range was checked before.
            #[must_use]
            pub const fn wrapping_add(self, frames: u64) -> Self {
                Self(self.0.wrapping_add(frames))
            }
        }

        impl fmt::Debug for $addr {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($addr), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $addr {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $addr {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($frame), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address_space! {
    /// A guest-physical address, in bytes. The SHARED bit, where a TD has one, is part of the number.
    Gpa,
    /// A guest frame number: a [`Gpa`] in 4 KiB steps.
    Gfn
}

address_space! {
    /// A host-physical address, in bytes, without key-id bits.
    Hpa,
    /// A host (physical) frame number: an [`Hpa`] in 4 KiB steps.
    Pfn
}

/// An MKTME key id. Zero is the platform's shared default key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct KeyId(u16);

impl KeyId {
    /// The key that the host uses when it names none.
    pub const DEFAULT: Self = Self(0);

    /// The key with this id.
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// The id as a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The level of a page-table entry: the size of what one entry of it maps.
///
/// The discriminants are those of TDX's GPA-and-level operands and of EPT walks: 0 is the entry that maps
/// 4 KiB (ABI: "GPA mapping level").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// 4 KiB: always a leaf.
    L4K = 0,
    /// 2 MiB: a leaf or a table of 4 KiB entries.
    L2M = 1,
    /// 1 GiB: a leaf or a table of 2 MiB entries.
    L1G = 2,
    /// 512 GiB: always a table.
    L512G = 3,
    /// 256 TiB: always a table; exists in five-level trees only.
    L256T = 4,
}

impl Level {
    /// All levels, from the leaf upwards.
    pub const ALL: [Self; 5] = [Self::L4K, Self::L2M, Self::L1G, Self::L512G, Self::L256T];

    /// The level with this discriminant.
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::L4K),
            1 => Some(Self::L2M),
            2 => Some(Self::L1G),
            3 => Some(Self::L512G),
            4 => Some(Self::L256T),
            _ => None,
        }
    }

    /// The discriminant.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// log2 of the bytes that an entry of this level maps.
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * self as u32
    }

    /// Bytes that an entry of this level maps.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// 4 KiB frames that an entry of this level maps.
    pub const fn frames(self) -> u64 {
        1 << (9 * self as u32)
    }

    /// The next larger level.
    pub const fn up(self) -> Option<Self> {
        Self::from_index(self as u8 + 1)
    }

    /// The next smaller level; `None` for 4 KiB.
    pub const fn down(self) -> Option<Self> {
        match self {
            Self::L4K => None,
            _ => Self::from_index(self as u8 - 1),
        }
    }

    /// Index into a table whose entries have this level, for an address.
    pub const fn table_index(self, gfn: Gfn) -> usize {
        ((gfn.0 >> (9 * self as u32)) & 511) as usize
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L4K => "4K",
            Self::L2M => "2M",
            Self::L1G => "1G",
            Self::L512G => "512G",
            Self::L256T => "256T",
        })
    }
}

/// A number as an index or a length; one that is too large for that becomes the largest, which nothing has.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "compared with the largest before")]
pub const fn to_usize(value: u64) -> usize {
    if value > usize::MAX as u64 { usize::MAX } else { value as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_maps_512_entries_of_the_one_below() {
        for level in &Level::ALL[1..] {
            let below = level.down().unwrap();
            assert_eq!(level.bytes(), 512 * below.bytes());
            assert_eq!(level.frames() * PAGE_SIZE, level.bytes());
            assert_eq!(below.up(), Some(*level));
        }
        assert_eq!(Level::L4K.down(), None);
        assert_eq!(Level::L256T.up(), None);
        assert_eq!(Level::from_index(5), None);
    }

    #[test]
    fn table_indices_of_an_address_recompose_it() {
        let gfn = Gfn::new(0x7_1234_5678);
        let sum: u64 = Level::ALL.iter().map(|l| (l.table_index(gfn) as u64) * l.frames()).sum();
        assert_eq!(sum, gfn.get());
    }

    #[test]
    fn frames_and_addresses_round_trip() {
        let gpa = Gpa::new(0x1234_5678);
        assert_eq!(gpa.frame().base().wrapping_add(gpa.page_offset()), gpa);
        assert!(Gfn::new(0x200).is_aligned(Level::L2M));
        assert!(!Gfn::new(0x201).is_aligned(Level::L2M));
        assert_eq!(Gfn::new(0x3ff).align_down(Level::L2M), Gfn::new(0x200));
    }
}
