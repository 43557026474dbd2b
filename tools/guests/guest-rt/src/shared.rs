//! Memory converted to shared and back (TDG.VP.VMCALL\<MapGPA\>).
//!
//! Conversion consumes the private slice, so that nobody touches the private alias while the host has taken its
//! page away, and gives it back zeroed: after the way back every page is accepted anew.

use tdx_guest::tdvmcall::{TdVmcallError, map_gpa};

use crate::hob::Range;
use crate::memory::{self, AcceptError};
use crate::paging;
use crate::td::shared_bit;

/// Calls without progress before the host's RETRY is taken for a refusal.
const RETRIES: u32 = 10_000;

/// A conversion that the host or the TDX module refused.
#[derive(Debug)]
pub enum ConvertError {
    /// MapGPA failed for the rest of the range from `gpa`.
    MapGpa {
        /// First address that was not converted.
        gpa: u64,
        /// What the host said.
        error: TdVmcallError,
    },
    /// A page that became private again could not be accepted.
    Accept(AcceptError),
    /// The range does not fit the window for shared pages.
    TooLong,
}

/// Private memory that is shared with the host for now.
#[derive(Debug)]
pub struct SharedBuffer {
    private: *mut u8,
    alias: *mut u8,
    length: usize,
}

impl SharedBuffer {
    /// Converts whole pages to shared and maps them.
    ///
    /// # Errors
    /// [`ConvertError`]; the memory is then lost to the guest.
    pub fn convert(memory: &'static mut [u8]) -> Result<Self, ConvertError> {
        let (private, length) = (memory.as_mut_ptr(), memory.len());
        map(private as u64 | shared_bit(), length as u64)?;
        let alias = paging::map_shared(private as u64, length as u64).ok_or(ConvertError::TooLong)?;
        Ok(Self { private, alias, length })
    }

    /// The GPA to tell the host, with the SHARED bit.
    pub fn gpa(&self) -> u64 {
        self.private as u64 | shared_bit()
    }

    /// Length, bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes eight bytes at `offset`; false if they are not inside the buffer or not aligned.
    pub fn write(&self, offset: usize, value: u64) -> bool {
        let Some(place) = self.place(offset) else { return false };
        // SAFETY: `place` checked that the eight aligned bytes are inside the mapping. The host may race with
        // this, which a volatile access of a plain integer tolerates.
        unsafe { place.write_volatile(value) };
        true
    }

    /// Reads eight bytes at `offset`. The host can change them at any time.
    pub fn read(&self, offset: usize) -> Option<u64> {
        let place = self.place(offset)?;
        // SAFETY: as for `write`.
        Some(unsafe { place.read_volatile() })
    }

    /// Copies bytes from `offset` into private memory, where they no longer change; false, and nothing is copied,
    /// if they are not all inside the buffer.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) -> bool {
        if offset.checked_add(to.len()).is_none_or(|end| end > self.length) {
            return false;
        }
        // SAFETY: the source is inside the mapping and the target is a slice of that length. The host may race
        // with this; an instruction's read of memory, unlike Rust's, means whatever it finds.
        unsafe {
            core::arch::asm!("rep movsb", inout("rcx") to.len() => _, inout("rdi") to.as_mut_ptr() => _,
                inout("rsi") self.alias.wrapping_add(offset) => _, options(nostack, preserves_flags));
        }
        true
    }

    fn place(&self, offset: usize) -> Option<*mut u64> {
        let inside = offset.is_multiple_of(8) && offset.checked_add(8)? <= self.length;
        // The alias is a window of page tables, not an object of Rust's.
        inside.then(|| self.alias.wrapping_add(offset).cast())
    }

    /// Makes the memory private again and accepts it, zeroed.
    ///
    /// # Errors
    /// [`ConvertError`]; the memory is then lost to the guest.
    pub fn into_private(self) -> Result<&'static mut [u8], ConvertError> {
        paging::unmap_shared(self.alias, self.length as u64);
        let gpa = self.private as u64;
        map(gpa, self.length as u64)?;
        memory::accept(Range { start: gpa, end: gpa + self.length as u64 }).map_err(ConvertError::Accept)?;
        // SAFETY: the same memory that `convert` was given for good, private and accepted again.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.private, self.length) })
    }
}

/// MapGPA for a range, carried on where the host asks to be called again.
fn map(start: u64, length: u64) -> Result<(), ConvertError> {
    let end = start + length;
    let mut gpa = start;
    let mut stalled = 0;
    while gpa < end {
        match map_gpa(gpa, end - gpa) {
            Ok(()) => return Ok(()),
            Err((next, TdVmcallError::TdxRetry)) if next >= gpa && next < end && stalled < RETRIES => {
                stalled = if next > gpa { 0 } else { stalled + 1 };
                gpa = next;
            }
            Err((_, error)) => return Err(ConvertError::MapGpa { gpa, error }),
        }
    }
    Ok(())
}
