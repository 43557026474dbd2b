//! General registers and RIP.

/// A general register, numbered as in ModRM with REX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the registers")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All sixteen, in ModRM order.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with this ModRM number; the number is taken modulo 16.
    pub const fn from_index(index: u8) -> Self {
        Self::ALL[(index & 15) as usize]
    }
}

/// Slot of the register file that always reads zero: the base or index of an operand that has none.
pub const ZERO: u8 = 16;
/// Slot of RIP. While a block runs it holds the address of the block's first instruction.
pub const RIP: u8 = 17;
/// AH, CH, DH and BH as byte operands: numbers of operands, not slots.
pub const HIGH_BYTES: u8 = 20;

/// General registers and RIP. Slots beyond the sixteen serve the executor; an index is reduced modulo 32, so
/// that no operation needs a bounds check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Registers([u64; 32]);

impl Registers {
    /// Reads a register.
    pub const fn get(&self, register: Gpr) -> u64 {
        self.0[register as usize]
    }

    /// Writes all 64 bits of a register.
    pub const fn set(&mut self, register: Gpr, value: u64) {
        self.0[register as usize] = value;
    }

    /// The address of the next instruction.
    pub const fn rip(&self) -> u64 {
        self.0[RIP as usize]
    }

    /// Moves to another instruction.
    pub const fn set_rip(&mut self, rip: u64) {
        self.0[RIP as usize] = rip;
    }

    /// What is in a slot: 0 to 15 the general registers, [`ZERO`], [`RIP`].
    #[inline(always)]
    pub const fn slot(&self, index: u8) -> u64 {
        self.0[(index & 31) as usize]
    }

    /// Writes a slot; nobody writes [`ZERO`].
    #[inline(always)]
    pub const fn set_slot(&mut self, index: u8, value: u64) {
        self.0[(index & 31) as usize] = value;
    }
}

impl core::ops::Index<Gpr> for Registers {
    type Output = u64;

    fn index(&self, register: Gpr) -> &u64 {
        &self.0[register as usize]
    }
}

impl core::ops::IndexMut<Gpr> for Registers {
    fn index_mut(&mut self, register: Gpr) -> &mut u64 {
        &mut self.0[register as usize]
    }
}
