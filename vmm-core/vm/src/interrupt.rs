//! Interrupts as messages: a vector, and the vCPUs that it is for.

/// Delivery modes of ICR, LVT and I/O APIC entries (SDM volume 3, "Interrupt Command Register").
pub mod mode {
    /// The vector, to every destination.
    pub const FIXED: u8 = 0;
    /// The vector, to one of the destinations.
    pub const LOWEST_PRIORITY: u8 = 1;
    /// A non-maskable interrupt.
    pub const NMI: u8 = 4;
}

/// An interrupt on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// To whom.
    pub destination: Destination,
    /// The delivery mode: see [`mode`].
    pub mode: u8,
    /// The vector.
    pub vector: u8,
}

/// Which vCPUs a message is for. x2APIC ids are vCPU numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The vCPU with this x2APIC id.
    Physical(u32),
    /// The vCPUs whose logical id is in this cluster (31:16) and mask (15:0).
    Logical(u32),
    /// All.
    All,
    /// All but this one.
    AllBut(u32),
}

impl Destination {
    /// The 8-bit physical destination of an I/O APIC entry.
    pub const fn physical_8bit(id: u32) -> Self {
        if id == 0xff { Self::All } else { Self::Physical(id) }
    }

    /// The 8-bit logical destination of an I/O APIC entry: cluster 0.
    pub const fn logical_8bit(mask: u32) -> Self {
        if mask == 0xff { Self::All } else { Self::Logical(mask) }
    }

    /// Whether the vCPU with this x2APIC id is meant.
    pub const fn includes(self, id: u32) -> bool {
        match self {
            Self::Physical(wanted) => wanted == id,
            Self::Logical(wanted) => {
                let own = logical_id(id);
                wanted >> 16 == own >> 16 && wanted & own & 0xffff != 0
            }
            Self::All => true,
            Self::AllBut(sender) => sender != id,
        }
    }
}

/// The logical x2APIC id, which follows from the id (SDM volume 3, "Logical Destination Mode in x2APIC Mode").
pub const fn logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn destinations_name_the_right_vcpus() {
        let named =
            |destination: Destination| (0..40).filter(|id| destination.includes(*id)).collect::<Vec<_>>();
        assert_eq!(named(Destination::Physical(17)), [17]);
        assert_eq!(named(Destination::Logical(0x0001_8003)), [16, 17, 31]);
        assert_eq!(named(Destination::logical_8bit(0b101)), [0, 2]);
        assert_eq!(named(Destination::AllBut(3)).len(), 39);
        assert_eq!(named(Destination::physical_8bit(0xff)).len(), 40);
        assert!(named(Destination::Physical(u32::MAX)).is_empty());
    }
}
