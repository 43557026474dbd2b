//! Addresses that a guest puts into a device's registers and descriptors.
//!
//! A guest may name shared memory with the SHARED bit or without it: its DMA addresses have none, while
//! a firmware may copy them from its page tables. A device takes both; what it reads or writes is shared memory
//! in either case, because [`super::SharedMemory`] has nothing else.

use base::Gpa;

/// The bit of a guest-physical address that says "shared".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBit(u64);

impl SharedBit {
    /// The bit of this value: what [`crate::td::Td::shared_bit`] gives.
    pub const fn new(bit: u64) -> Self {
        Self(bit)
    }

    /// The address that a guest means by `address`, without the bit.
    pub const fn strip(self, address: u64) -> Gpa {
        Gpa::new(address & !self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_means_the_same_with_the_bit_and_without() {
        let bit = SharedBit::new(1 << 47);
        assert_eq!(bit.strip(0x1234 | 1 << 47), Gpa::new(0x1234));
        assert_eq!(bit.strip(0x1234), Gpa::new(0x1234));
        assert_eq!(bit.strip(1 << 63), Gpa::new(1 << 63), "other bits are left to whoever looks for memory");
    }
}
