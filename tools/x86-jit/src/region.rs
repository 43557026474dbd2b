//! Memory for code: the same pages twice, once to be written and once to be run.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of code that one region holds.
pub(crate) const REGION_BYTES: usize = 16 << 20;
/// Code begins on a cache line.
const ALIGN: usize = 64;

/// A bounded piece of memory that code is appended to. No address of it can be both written and run.
#[derive(Debug)]
pub(crate) struct Region {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    used: usize,
}

// SAFETY: the region owns both mappings, and nothing of them depends on the thread.
unsafe impl Send for Region {}

fn map(file: &OwnedFd, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
    let at = unsafe { mmap(ptr::null_mut(), REGION_BYTES, protection, MapFlags::SHARED, file, 0) }?;
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at address zero"))
}

impl Region {
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("x86-jit", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, REGION_BYTES as u64)?;
        let writable = map(&file, ProtFlags::READ | ProtFlags::WRITE)?;
        match map(&file, ProtFlags::READ | ProtFlags::EXEC) {
            Ok(executable) => Ok(Self { writable, executable, used: 0 }),
            Err(error) => {
                // SAFETY: the mapping was made above, and nobody has its address.
                let _ = unsafe { munmap(writable.as_ptr().cast(), REGION_BYTES) };
                Err(error)
            }
        }
    }

    /// Appends code; `None` if there is no room.
    pub(crate) fn append(&mut self, code: &[u8]) -> Option<usize> {
        let at = self.used;
        let end = at.checked_add(code.len())?.checked_next_multiple_of(ALIGN)?;
        if end > REGION_BYTES {
            return None;
        }
        // SAFETY: `at + code.len()` is inside the writable mapping, which this region owns; no reference covers it.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), self.writable.as_ptr().add(at), code.len()) };
        self.used = end;
        Some(at)
    }

    /// Replaces eight aligned bytes of data among the code.
    pub(crate) fn set(&mut self, at: usize, value: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.used, "a word of this region");
        // SAFETY: checked; no code runs while the region is borrowed for writing, and no reference covers the word.
        unsafe { self.writable.as_ptr().add(at).cast::<u64>().write(value) };
    }

    /// Drops all code.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// The address at which code at an offset runs.
    pub(crate) fn address(&self, at: usize) -> u64 {
        self.executable.as_ptr().wrapping_add(at).expose_provenance() as u64
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for mapping in [self.writable, self.executable] {
            // SAFETY: both were mapped by `new` with this length, and nobody runs or writes them any more.
            let _ = unsafe { munmap(mapping.as_ptr().cast(), REGION_BYTES) };
        }
    }
}
