//! Replay: from a log to the registers that it explains.

use core::ops::Index;

use super::event::{Event, Register};
use td_image::digest::Digest384;

/// The four run-time registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers(pub [Digest384; 4]);

impl Default for Registers {
    fn default() -> Self {
        Self([Digest384::ZERO; 4])
    }
}

impl Registers {
    /// The value of a register; `None` for MRTD, which no log replays to.
    #[must_use]
    pub fn get(&self, register: Register) -> Option<&Digest384> {
        self.0.get(register.rtmr()?)
    }
}

impl From<[[u8; 48]; 4]> for Registers {
    fn from(rtmr: [[u8; 48]; 4]) -> Self {
        Self(rtmr.map(Digest384))
    }
}

/// A replay in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Replay {
    registers: Registers,
    events: [u32; 4],
}

impl Replay {
    /// Extends the register of `event`, if it has one; says which.
    pub fn extend(&mut self, event: &Event<'_>) -> Option<Register> {
        let register = event.extends()?;
        self.extend_with(register, &event.digest()?);
        Some(register)
    }

    /// MR ← SHA-384(MR ‖ digest). MRTD cannot be extended.
    pub fn extend_with(&mut self, register: Register, digest: &Digest384) {
        let Some(number) = register.rtmr() else { return };
        if let (Some(value), Some(count)) = (self.registers.0.get_mut(number), self.events.get_mut(number)) {
            *value = value.extended_by(digest);
            *count = count.saturating_add(1);
        }
    }

    /// The registers now.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// How many events extended a register so far.
    #[must_use]
    pub fn events(&self, register: Register) -> u32 {
        register.rtmr().and_then(|number| self.events.get(number)).copied().unwrap_or(0)
    }
}

impl Index<Register> for Replay {
    type Output = Digest384;

    /// The value of an RTMR; zero for MRTD.
    fn index(&self, register: Register) -> &Digest384 {
        self.registers.get(register).unwrap_or(&Digest384::ZERO)
    }
}
