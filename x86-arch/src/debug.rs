//! Debug registers (SDM vol. 3, "Debug Registers").

/// Bits of DR6.
#[expect(missing_docs, reason = "the names are the bits")]
pub mod dr6 {
    /// The four breakpoint conditions.
    pub const B: u64 = 0xF;
    pub const BD: u64 = 1 << 13;
    pub const BS: u64 = 1 << 14;
    pub const BT: u64 = 1 << 15;
    /// What reads as one whatever is written; also the value after reset.
    pub const FIXED: u64 = 0xFFFF_0FF0;
    /// What a write can set.
    pub const WRITABLE: u64 = B | BD | BS | BT;
}

/// Bits of DR7.
#[expect(missing_docs, reason = "the names are the bits")]
pub mod dr7 {
    /// The local and global enable bits of the four breakpoints.
    pub const ENABLES: u64 = 0xFF;
    pub const LE: u64 = 1 << 8;
    pub const GE: u64 = 1 << 9;
    /// Bit 10 reads as one; also the value after reset.
    pub const FIXED: u64 = 1 << 10;
    /// General detect: the next access to a debug register is #DB.
    pub const GD: u64 = 1 << 13;
    /// Where the R/W and LEN fields of the four breakpoints begin, four bits each.
    pub const CONDITIONS_SHIFT: u32 = 16;
    /// What a write can set.
    pub const WRITABLE: u64 = 0xFFFF_0000 | ENABLES | LE | GE | GD;
}

/// Debug registers. DR4 and DR5 are aliases and have no state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DebugRegisters {
    /// Breakpoint addresses: DR0 to DR3.
    pub address: [u64; 4],
    /// Status.
    pub dr6: u64,
    /// Control.
    pub dr7: u64,
}

impl DebugRegisters {
    /// Notes what a #DB is about: the breakpoints of earlier ones give way, everything else in DR6 stays until software
    /// clears it (SDM vol. 3, "Debug Status Register").
    pub const fn note(&mut self, cause: u64) {
        self.dr6 = self.dr6 & !dr6::B | cause;
    }
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { address: [0; 4], dr6: dr6::FIXED, dr7: dr7::FIXED }
    }
}
