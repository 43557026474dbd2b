//! I/O ports.
//!
//! **Why this is sound.** Port I/O reaches devices and no memory of this program; [`Port::claim`] makes its caller promise
//! that the device behind the port does not write to memory of its own accord because of it.
#![expect(unsafe_code)]

/// One I/O port.
#[derive(Clone, Copy, Debug)]
pub struct Port(u16);

impl Port {
    /// The right to use a port.
    ///
    /// # Safety
    /// The code runs in ring 0, and the device behind the port is one that cannot change memory.
    pub const unsafe fn claim(port: u16) -> Self {
        Self(port)
    }

    /// Reads a byte.
    pub fn read(self) -> u8 {
        // SAFETY: what `claim` was promised.
        unsafe { x86::io::inb(self.0) }
    }

    /// Writes a byte.
    pub fn write(self, value: u8) {
        // SAFETY: what `claim` was promised.
        unsafe { x86::io::outb(self.0, value) };
    }

    /// Writes two bytes.
    pub fn write_word(self, value: u16) {
        // SAFETY: what `claim` was promised.
        unsafe { x86::io::outw(self.0, value) };
    }
}
