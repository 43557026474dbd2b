//! The configuration space of one function: 256 bytes, some of which software may write.

use alloc::vec::Vec;

use crate::BadState;
use crate::saved::numbers;

/// Bytes of a configuration space; what ECAM has beyond them is empty.
pub const BYTES: usize = 256;

/// Offsets of the header (PCI Local Bus Specification 3.0, section 6.1).
mod offset {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const CLASS: usize = 0x09;
    pub(super) const BAR: usize = 0x10;
    pub(super) const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub(super) const SUBSYSTEM: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    pub(super) const INTERRUPT_PIN: usize = 0x3d;
}

/// The first byte behind the header: where capabilities begin.
const FIRST_CAPABILITY: usize = 0x40;

/// Bits of the command register that are kept.
mod command {
    pub(super) const PORTS: u16 = 1 << 0;
    pub(super) const MEMORY: u16 = 1 << 1;
    pub(super) const BUS_MASTER: u16 = 1 << 2;
    pub(super) const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Status register: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// The pin INTA.
const PIN_A: u8 = 1;

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who made it.
    pub vendor: u16,
    /// Which device the function is, by its vendor's number.
    pub device: u16,
    /// The revision of the function.
    pub revision: u8,
    /// Base class, subclass and programming interface, from the top byte down.
    pub class: [u8; 3],
    /// The subsystem's vendor.
    pub subsystem_vendor: u16,
    /// The subsystem.
    pub subsystem: u16,
}

/// The configuration space of a function of header type 0.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    /// Bits that software may write.
    writable: [u8; BYTES],
    /// Bytes of the memory BAR; zero without one.
    bar_bytes: u32,
    /// Where the next capability goes.
    next: usize,
    /// The byte that has to point to the next capability.
    link: usize,
}

impl ConfigSpace {
    /// A function without BAR, interrupt or capability.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            bar_bytes: 0,
            next: FIRST_CAPABILITY,
            link: offset::CAPABILITIES,
        };
        let [base, sub, interface] = identity.class;
        space.set(offset::VENDOR, &identity.vendor.to_le_bytes());
        space.set(offset::DEVICE, &identity.device.to_le_bytes());
        space.set(offset::REVISION, &[identity.revision]);
        space.set(offset::CLASS, &[interface, sub, base]);
        space.set(offset::SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.set(offset::SUBSYSTEM, &identity.subsystem.to_le_bytes());
        let command = command::MEMORY | command::BUS_MASTER | command::INTERRUPT_DISABLE;
        space.allow(offset::COMMAND, &command.to_le_bytes());
        space.allow(offset::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// The function with a memory BAR 0 of so many bytes: a power of two, 16 at least.
    #[must_use]
    pub fn with_memory_bar(mut self, bytes: u32) -> Self {
        self.bar_bytes = bytes;
        // The low four bits, zero, say: 32-bit memory, not prefetchable.
        self.allow(offset::BAR, &bytes.wrapping_neg().to_le_bytes());
        self
    }

    /// The function that decodes ports and memory after a reset: firmware drives an LPC bridge only if it can.
    #[must_use]
    pub fn with_ports(mut self) -> Self {
        let command = command::PORTS | command::MEMORY | command::BUS_MASTER;
        self.set(offset::COMMAND, &command.to_le_bytes());
        self.allow(offset::COMMAND, &command.to_le_bytes());
        self
    }

    /// The function with an interrupt on pin INTA.
    #[must_use]
    pub fn with_interrupt_pin(mut self) -> Self {
        self.set(offset::INTERRUPT_PIN, &[PIN_A]);
        self
    }

    /// Fixed contents at an offset.
    #[must_use]
    pub fn with(mut self, at: usize, value: &[u8]) -> Self {
        self.set(at, value);
        self
    }

    /// Bits that software may write and read back, at an offset; they mean nothing here.
    #[must_use]
    pub fn with_writable(mut self, at: usize, mask: &[u8]) -> Self {
        self.allow(at, mask);
        self
    }

    /// Adds a capability whose body follows its id and link, with the bits of the body that software may write; gives its
    /// offset.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.next;
        // One that is not in the space, and so has no contents either, is not linked.
        self.set(self.link, &[u8::try_from(at).unwrap_or_default()]);
        self.set(offset::STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.allow(at + 2, writable);
        self.link = at + 1;
        self.next = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    fn set(&mut self, at: usize, value: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(at).zip(mask) {
            *to = *from;
        }
    }

    /// The four bytes at an offset; zeros beyond the end.
    #[must_use]
    pub fn read(&self, at: usize) -> [u8; 4] {
        let mut out = [0; 4];
        for (to, from) in out.iter_mut().zip(self.bytes.iter().skip(at)) {
            *to = *from;
        }
        out
    }

    /// Software writes; bits that it may not write stay.
    pub fn write(&mut self, at: usize, value: &[u8]) {
        let places = self.bytes.iter_mut().zip(&self.writable).skip(at);
        for ((byte, mask), new) in places.zip(value) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// The space as numbers, eight bytes each.
    #[must_use]
    pub fn save(&self) -> Vec<u64> {
        let (words, _) = self.bytes.as_chunks();
        words.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// Takes over what [`Self::save`] gave of a space that differs in what software may write, and in nothing else.
    ///
    /// # Errors
    /// [`BadState`]; the space is as it was.
    pub fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let words: [u64; BYTES / 8] = numbers(saved)?;
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        let all = bytes.zip(self.bytes.iter().zip(&self.writable));
        if all.clone().any(|(new, (old, mask))| (new ^ old) & !mask != 0) {
            return Err(BadState);
        }
        let bytes: Vec<u8> = all.map(|(new, _)| new).collect();
        self.bytes.copy_from_slice(&bytes);
        Ok(())
    }

    fn command(&self) -> u16 {
        let [low, high, ..] = self.read(offset::COMMAND);
        u16::from_le_bytes([low, high])
    }

    /// Whether the function may raise its interrupt pin.
    #[must_use]
    pub fn pin_is_enabled(&self) -> bool {
        self.command() & command::INTERRUPT_DISABLE == 0
    }

    /// First address and bytes of what the function answers for in memory, while it does.
    #[must_use]
    pub fn memory(&self) -> Option<(u32, u32)> {
        let base = u32::from_le_bytes(self.read(offset::BAR));
        let decodes = self.bar_bytes != 0 && self.command() & command::MEMORY != 0;
        decodes.then_some((base, self.bar_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 9,
        class: [1, 2, 3],
        subsystem_vendor: 0xaaaa,
        subsystem: 0xbbbb,
    };

    #[test]
    fn a_bar_says_its_size_and_is_decoded_only_while_memory_is_enabled() {
        let mut space = ConfigSpace::new(IDENTITY).with_memory_bar(0x8000);
        space.write(0x10, &[0xff; 4]);
        assert_eq!(u32::from_le_bytes(space.read(0x10)), 0xffff_8000);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(space.read(0x14), [0; 4], "there is no second BAR");
        space.write(0x10, &0x8123_4567_u32.to_le_bytes());
        assert_eq!(space.memory(), None);
        space.write(4, &[2]);
        assert_eq!(space.memory(), Some((0x8123_0000, 0x8000)));
    }

    #[test]
    fn capabilities_form_a_list_and_identity_cannot_be_written() {
        let mut space = ConfigSpace::new(IDENTITY);
        assert_eq!((space.read(0x34)[0], space.read(6)[0]), (0, 0));
        let first = space.add_capability(9, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]);
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!((space.read(0x34)[0], space.read(6)[0]), (0x40, 0x10));
        assert_eq!(space.read(0x40), [9, 0x48, 1, 2]);
        space.write(0x48, &[0xff; 4]);
        assert_eq!(space.read(0x48), [0x11, 0, 0, 0xc0]);
        space.write(0, &[0; 16]);
        assert_eq!(space.read(0), [0x34, 0x12, 0x78, 0x56]);
        assert_eq!(space.read(8), [9, 3, 2, 1]);
        assert_eq!(space.read(0xfe), [0; 4], "and nothing behind the end");
    }
}
