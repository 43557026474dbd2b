//! Memory of this process that a guest or the kernel reaches as well.
//!
//! # Why the unsafe code here is sound
//! A mapping is made by mmap at an address that the kernel chose, belongs to its [`Region`], and is unmapped when the last
//! [`Mapping`] of it is dropped. No reference into it exists, and only its own methods access it, by instructions that the
//! compiler knows nothing of: others may read and write the same bytes at the same time, in other sizes. Each method
//! checks that what it accesses lies inside.

use std::arch::asm;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use kvm_ioctls::VcpuFd;
use tdvisor_base::{PAGE_SIZE, to_usize};

use crate::error::Errno;
use crate::kernel::Pages;

/// Memory; unmapped when nobody has it any more.
#[derive(Clone, Debug)]
pub struct Mapping(Arc<Region>);

#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread, and every access goes through the instructions below.
unsafe impl Send for Region {}
// SAFETY: as for `Send`: concurrent accesses are what these instructions are for.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this is the whole of what mmap gave, and nobody has it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl Mapping {
    /// Memory of zeros, which takes up room as it is written.
    pub(super) fn anonymous(bytes: u64) -> Result<Self, Errno> {
        const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map(bytes, PRIVATE, -1)
    }

    /// The page that a vCPU shares with the kernel, and what is behind it.
    pub(super) fn of_vcpu(vcpu: &VcpuFd, bytes: u64) -> Result<Self, Errno> {
        Self::map(bytes, libc::MAP_SHARED, vcpu.as_raw_fd())
    }

    fn map(bytes: u64, flags: libc::c_int, fd: RawFd) -> Result<Self, Errno> {
        let bytes = usize::try_from(bytes).map_err(|_| Errno(libc::ENOMEM))?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so nothing that exists is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(super::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self(Arc::new(Region { start, bytes })))
    }

    /// The address of the mapping in this process.
    pub(super) fn address(&self) -> u64 {
        self.0.start.as_ptr() as u64
    }

    /// A pointer to `at`, and how many of `wanted` bytes lie inside from there.
    fn inside(&self, at: u64, wanted: usize) -> Option<(*mut u8, usize)> {
        let at = usize::try_from(at).ok().filter(|at| *at < self.0.bytes)?;
        // SAFETY: `at` is inside the mapping.
        let start = unsafe { self.0.start.as_ptr().add(at) };
        Some((start, wanted.min(self.0.bytes - at)))
    }
}

impl Pages for Mapping {
    fn len(&self) -> u64 {
        self.0.bytes as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) {
        let (inside, count) = self.inside(at, out.len()).unwrap_or((ptr::null_mut(), 0));
        let (out, behind) = out.split_at_mut(count);
        behind.fill(0);
        // SAFETY: `count` bytes from `inside` on are in the mapping, and `out` has as many.
        unsafe { copy(inside, out.as_mut_ptr(), count, inside) };
    }

    fn write(&self, at: u64, data: &[u8]) {
        let (inside, count) = self.inside(at, data.len()).unwrap_or((ptr::null_mut(), 0));
        // SAFETY: `count` bytes from `inside` on are in the mapping, and `data` has at least as many.
        unsafe { copy(data.as_ptr(), inside, count, inside) };
    }

    fn discard(&self, at: u64, bytes: u64) -> Result<(), Errno> {
        let end = at.checked_add(bytes).filter(|end| *end <= self.len());
        if end.is_none() || !at.is_multiple_of(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(Errno(libc::EINVAL));
        }
        let Some((start, count)) = self.inside(at, to_usize(bytes)) else { return Ok(()) };
        // SAFETY: whole pages inside the mapping, which no reference covers; they stay mapped and become zeros.
        match unsafe { libc::madvise(start.cast(), count, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(super::last()),
        }
    }
}

/// Copies between memory of ours and memory that others access: 2, 4 or 8 bytes in one access where `theirs` is aligned.
///
/// # Safety
/// `count` bytes can be read at `from` and written at `to`, and one of them is memory of ours that nobody else accesses.
unsafe fn copy(from: *const u8, to: *mut u8, count: usize, theirs: *const u8) {
    let aligned = (theirs as usize).is_multiple_of(count.max(1));
    // SAFETY: as the caller promises; no flag but the direction flag matters, and that is clear by the calling convention.
    unsafe {
        match count {
            2 if aligned => asm!("mov {v:x}, word ptr [{from}]", "mov word ptr [{to}], {v:x}",
                v = out(reg) _, from = in(reg) from, to = in(reg) to, options(nostack, preserves_flags)),
            4 if aligned => asm!("mov {v:e}, dword ptr [{from}]", "mov dword ptr [{to}], {v:e}",
                v = out(reg) _, from = in(reg) from, to = in(reg) to, options(nostack, preserves_flags)),
            8 if aligned => asm!("mov {v:r}, qword ptr [{from}]", "mov qword ptr [{to}], {v:r}",
                v = out(reg) _, from = in(reg) from, to = in(reg) to, options(nostack, preserves_flags)),
            0 => {}
            _ => asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") count => _,
                options(nostack, preserves_flags)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_and_place_is_copied_and_the_end_is_one() {
        let memory = Mapping::anonymous(PAGE_SIZE).unwrap();
        for bytes in 1..20u8 {
            for at in [0, 1, 8, PAGE_SIZE - u64::from(bytes)] {
                let data: Vec<u8> = (0..bytes).map(|byte| byte ^ 0x5a).collect();
                memory.write(at, &data);
                let mut back = vec![0; data.len()];
                memory.read(at, &mut back);
                assert_eq!(back, data, "{bytes} bytes at {at}");
            }
        }
        memory.write(PAGE_SIZE - 2, &[1, 2, 3, 4]);
        let mut back = [9; 4];
        memory.read(PAGE_SIZE - 2, &mut back);
        assert_eq!(back, [1, 2, 0, 0]);
        memory.read(u64::MAX, &mut back);
        assert_eq!(back, [0; 4]);
    }

    #[test]
    fn discarded_pages_are_zeros_and_only_whole_ones_inside_are_discarded() {
        let memory = Mapping::anonymous(2 * PAGE_SIZE).unwrap();
        memory.write(0, &[1]);
        memory.write(PAGE_SIZE, &[2]);
        assert_eq!(memory.discard(0, PAGE_SIZE), Ok(()));
        let mut back = [9];
        memory.read(0, &mut back);
        assert_eq!(back, [0]);
        memory.read(PAGE_SIZE, &mut back);
        assert_eq!(back, [2]);
        for (at, bytes) in [(1, PAGE_SIZE), (0, 1), (PAGE_SIZE, 2 * PAGE_SIZE), (u64::MAX - 4095, PAGE_SIZE)]
        {
            assert_eq!(memory.discard(at, bytes), Err(Errno(libc::EINVAL)), "{bytes} at {at:#x}");
        }
    }
}
