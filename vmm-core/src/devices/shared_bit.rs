//! Addresses that a guest puts into a device's registers and descriptors.
//!
//! A guest may name shared memory with the SHARED bit or without it: its DMA addresses have none, while
//! a firmware may copy them from its page tables. A device takes both; what it reads or writes is shared memory
//! in either case, because [`super::SharedMemory`] has nothing else.

use base::Gpa;

/// The bit of a guest-physical address that says "shared". Memory is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBit(u64);

impl SharedBit {
    /// The bit of this value, such as [`crate::td::SHARED_BIT`].
    pub const fn new(bit: u64) -> Self {
        Self(bit)
    }

    /// Where the `bytes` bytes are that a guest calls `address`; `None` unless all of them are below the bit.
    pub fn locate(self, address: u64, bytes: u64) -> Option<Gpa> {
        let gpa = Gpa::new(address & !self.0);
        gpa.checked_add(bytes).filter(|end| end.get() <= self.0).map(|_| gpa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_means_the_same_with_the_bit_and_without() {
        let bit = SharedBit::new(1 << 47);
        assert_eq!(bit.locate(0x1234 | 1 << 47, 8), Some(Gpa::new(0x1234)));
        assert_eq!(bit.locate(0x1234, 8), Some(Gpa::new(0x1234)));
    }

    #[test]
    fn a_range_ends_below_the_bit() {
        let bit = SharedBit::new(1 << 47);
        assert_eq!(bit.locate((1 << 47) - 8, 8), Some(Gpa::new((1 << 47) - 8)));
        for (address, bytes) in
            [((1 << 47) - 8, 9), (1 << 48, 0), (u64::MAX, 0), (u64::MAX, 1), (0, u64::MAX)]
        {
            assert_eq!(bit.locate(address, bytes), None, "{bytes} bytes at {address:#x}");
        }
    }
}
