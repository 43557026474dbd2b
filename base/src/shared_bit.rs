//! The SHARED bit of guest-physical addresses: which side of a confidential guest's memory an address means.
//!
//! One bit decides whether memory is the guest's secret or lies open to its host. So it is taken off an address and
//! put on again here and nowhere else: [`SharedBit::split`] and [`SharedBit::join`].
//!
//! An address that a guest puts into a device's register or descriptor is another matter: a device reaches shared
//! memory only, and the guest may name it with the bit or without it, since its DMA addresses have none, while a
//! firmware may copy them from its page tables. [`SharedBit::locate`] takes both.

use crate::Gpa;

/// A side of a confidential guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Only the guest can read it.
    Private,
    /// The guest shares it with its host.
    Shared,
}

/// The bit of a guest-physical address that says "shared". Memory is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBit(u64);

impl SharedBit {
    /// The topmost bit of guest-physical addresses of this many bits, 1 to 64.
    pub const fn topmost(address_bits: u32) -> Self {
        Self(1 << (address_bits - 1))
    }

    /// Which side an address means, and where on that side it is.
    ///
    /// ```
    /// use tdvisor_base::{Gpa, SharedBit, Side};
    ///
    /// let bit = SharedBit::topmost(48);
    /// let address = Gpa::new(1 << 47 | 0x1000);
    /// assert_eq!(bit.split(address), (Side::Shared, Gpa::new(0x1000)));
    /// assert_eq!(bit.join(Side::Private, address), Gpa::new(0x1000));
    /// ```
    pub const fn split(self, gpa: Gpa) -> (Side, Gpa) {
        let side = if gpa.get() & self.0 == 0 { Side::Private } else { Side::Shared };
        (side, Gpa::new(gpa.get() & !self.0))
    }

    /// The address that means this place on this side. What `gpa` said of its side counts for nothing.
    pub const fn join(self, side: Side, gpa: Gpa) -> Gpa {
        match side {
            Side::Private => Gpa::new(gpa.get() & !self.0),
            Side::Shared => Gpa::new(gpa.get() | self.0),
        }
    }

    /// Where the `bytes` bytes are that a guest calls `address`, with the bit or without; `None` unless all of them
    /// are below the bit.
    pub fn locate(self, address: u64, bytes: u64) -> Option<Gpa> {
        let (_, gpa) = self.split(Gpa::new(address));
        gpa.checked_add(bytes).filter(|end| end.get() <= self.0).map(|_| gpa)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    const BIT: SharedBit = SharedBit::topmost(48);

    #[test]
    fn splitting_and_joining_are_each_others_inverse() {
        for gpa in [0, 0x1234, 1 << 46, 1 << 47, 0x1234 | 1 << 47, (1 << 48) - 1].map(Gpa::new) {
            let (side, place) = BIT.split(gpa);
            assert_eq!(BIT.join(side, place), gpa);
            assert_eq!(BIT.join(side, gpa), gpa, "joining does not add the bit twice");
        }
        assert_eq!(BIT.split(Gpa::new(0x1234 | 1 << 47)), (Side::Shared, Gpa::new(0x1234)));
        assert_eq!(BIT.split(Gpa::new(0x1234)), (Side::Private, Gpa::new(0x1234)));
    }

    #[test]
    fn an_address_for_a_device_means_the_same_with_the_bit_and_without() {
        assert_eq!(BIT.locate(0x1234 | 1 << 47, 8), Some(Gpa::new(0x1234)));
        assert_eq!(BIT.locate(0x1234, 8), Some(Gpa::new(0x1234)));
    }

    #[test]
    fn a_range_for_a_device_ends_below_the_bit() {
        assert_eq!(BIT.locate((1 << 47) - 8, 8), Some(Gpa::new((1 << 47) - 8)));
        for (address, bytes) in
            [((1 << 47) - 8, 9), (1 << 48, 0), (u64::MAX, 0), (u64::MAX, 1), (0, u64::MAX)]
        {
            assert_eq!(BIT.locate(address, bytes), None, "{bytes} bytes at {address:#x}");
        }
    }
}
