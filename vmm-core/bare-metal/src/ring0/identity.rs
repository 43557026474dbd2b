//! Memory by physical address, mapped to itself.
//!
//! **Why this is sound.** An [`IdentityMapped`] is made with a [`Ring0`], so memory below its limit is mapped to itself. It
//! only reads, byte by byte, and never makes a pointer or a reference: what it reads is firmware's or a boot loader's, may lie
//! at address 0, and changes of it would be seen as other bytes and nothing else.
#![expect(unsafe_code)]

use core::arch::asm;

use super::Ring0;
use crate::physical::Physical;

/// Reads memory that is mapped to itself.
#[derive(Clone, Copy, Debug)]
pub struct IdentityMapped {
    limit: u64,
}

/// Up to here everything is mapped when the image is entered.
pub const ENTRY_LIMIT: u64 = 1 << 32;

impl IdentityMapped {
    /// Memory below 4 GiB, as the image finds it.
    pub const fn at_entry(_: Ring0) -> Self {
        Self { limit: ENTRY_LIMIT }
    }
}

impl Physical for IdentityMapped {
    fn read(&self, at: u64, out: &mut [u8]) -> Option<()> {
        let end = at.checked_add(out.len() as u64)?;
        if end > self.limit {
            return None;
        }
        for (at, byte) in (at..end).zip(out) {
            // SAFETY: the address is mapped; a load has no requirements beyond that.
            unsafe {
                asm!("mov {0}, byte ptr [{1}]", out(reg_byte) *byte, in(reg) at,
                    options(nostack, preserves_flags, readonly));
            }
        }
        Some(())
    }
}
