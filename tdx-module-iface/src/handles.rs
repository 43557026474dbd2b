//! Typed operands: what a register of a call means.

use core::fmt;

use tdvisor_base::{Gfn, Gpa, Hpa, KeyId, Level};

macro_rules! page_handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(pub Hpa);

        impl $name {
            /// The page.
            pub const fn hpa(self) -> Hpa {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), " {}"), self.0)
            }
        }
    };
}

page_handle! {
    /// A TD, by the host-physical address of its root page.
    Tdr
}

page_handle! {
    /// A VCPU, by the host-physical address of its root page.
    Tdvpr
}

/// A guest-physical address and the level of the entry that maps it: RCX of the memory leaves.
///
/// Bits 2:0 level, 11:3 zero, 51:12 address, 63:52 zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpaLevel {
    gpa: Gpa,
    level: Level,
}

impl GpaLevel {
    /// The entry of this level that maps `gpa`; the address is rounded down to what the entry maps.
    pub const fn new(gpa: Gpa, level: Level) -> Self {
        Self { gpa: gpa.align_down(level.bytes()), level }
    }

    /// The entry of this level that maps this frame.
    pub const fn of_gfn(gfn: Gfn, level: Level) -> Self {
        Self::new(gfn.base(), level)
    }

    /// The 4 KiB entry that maps `gpa`.
    pub const fn page(gpa: Gpa) -> Self {
        Self::new(gpa, Level::L4K)
    }

    /// The operand with this register value; `None` where reserved bits are set, the level does not exist or
    /// the address is not aligned to it, all of which the module refuses with `OPERAND_INVALID`.
    pub const fn from_word(word: u64) -> Option<Self> {
        let Some(level) = Level::from_index((word & 7) as u8) else { return None };
        let gpa = Gpa::new(word & !7);
        if word >> 52 != 0 || !gpa.is_aligned(level.bytes()) {
            return None;
        }
        Some(Self { gpa, level })
    }

    /// The register value.
    pub const fn word(self) -> u64 {
        self.gpa.get() | self.level.index() as u64
    }

    /// The first address that the entry maps.
    pub const fn gpa(self) -> Gpa {
        self.gpa
    }

    /// The level of the entry.
    pub const fn level(self) -> Level {
        self.level
    }
}

impl fmt::Display for GpaLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpa {} at {}", self.gpa, self.level)
    }
}

impl fmt::Debug for GpaLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpaLevel({self})")
    }
}

/// A host-physical address with a key id in its upper bits, as memory transactions carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct KeyedHpa(u64);

impl KeyedHpa {
    /// `hpa` accessed with `key`, on a platform whose key ids start at physical-address bit `hkid_start_bit`.
    ///
    /// `None` where the key id does not fit above that bit or the address reaches into it.
    pub const fn new(hpa: Hpa, key: KeyId, hkid_start_bit: u32) -> Option<Self> {
        if hkid_start_bit >= 52 || hpa.get() >> hkid_start_bit != 0 {
            return None;
        }
        let shifted = (key.get() as u64) << hkid_start_bit;
        if shifted >> 52 != 0 { None } else { Some(Self(shifted | hpa.get())) }
    }

    /// The register value.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for KeyedHpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedHpa({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpa_operand_round_trips_through_its_register() {
        for level in Level::ALL {
            let operand = GpaLevel::new(Gpa::new(0x7654_3210_f000), level);
            assert_eq!(GpaLevel::from_word(operand.word()), Some(operand));
        }
    }

    #[test]
    fn malformed_gpa_words_are_refused() {
        for word in [5, 0x8, 0x1001, 0x10_0000_0000_0000, 0x800] {
            assert_eq!(GpaLevel::from_word(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_keyed_address_refuses_overlap_with_the_key_bits() {
        let keyed = KeyedHpa::new(Hpa::new(0x1_0000_0000), KeyId::new(33), 46).unwrap();
        assert_eq!(keyed.get(), 33 << 46 | 0x1_0000_0000);
        assert!(KeyedHpa::new(Hpa::new(1 << 46), KeyId::new(1), 46).is_none());
        assert!(KeyedHpa::new(Hpa::new(0), KeyId::new(64), 46).is_none(), "six key bits only");
    }
}
