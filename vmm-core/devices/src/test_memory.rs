//! Shared guest memory for the tests of devices: one range of bytes, and a count of what is moved.

use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::sync::Mutex;
use tdvisor_base::{Gpa, PAGE_SIZE};
use tdvisor_vm::NotShared;

use super::SharedMemory;

/// Memory that a guest shares: `bytes` bytes from `base`, and nothing else.
pub(crate) struct TestMemory {
    base: u64,
    bytes: Mutex<Vec<u8>>,
    moved: Mutex<u64>,
}

impl TestMemory {
    /// Zeros at `base`, which is the start of a page.
    pub(crate) fn new(base: u64, bytes: usize) -> Self {
        Self { base, bytes: Mutex::new(vec![0; bytes]), moved: Mutex::new(0) }
    }

    /// Bytes read and written since the last call.
    pub(crate) fn take_moved(&self) -> u64 {
        core::mem::take(&mut *self.moved.lock())
    }

    /// The guest itself reads.
    pub(crate) fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut out = [0; N];
        self.read(Gpa::new(at), &mut out).expect("a test reads its own memory");
        out
    }

    /// The guest itself reads more than a stack should hold.
    pub(crate) fn get_many(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.read(Gpa::new(at), &mut out).expect("a test reads its own memory");
        out
    }

    /// The guest itself writes.
    pub(crate) fn put(&self, at: u64, data: &[u8]) {
        self.write(Gpa::new(at), data).expect("a test writes its own memory");
    }

    fn pages(
        &self,
        gpa: Gpa,
        length: usize,
        mut access: impl FnMut(&mut [u8], usize),
    ) -> Result<(), NotShared> {
        let mut bytes = self.bytes.lock();
        let mut done = 0;
        while done < length {
            let at = gpa.wrapping_add(done as u64);
            let piece = ((PAGE_SIZE - at.page_offset()) as usize).min(length - done);
            let start = at.get().checked_sub(self.base).ok_or(NotShared::At(at))? as usize;
            let end = start.checked_add(piece).ok_or(NotShared::At(at))?;
            let page = bytes.get_mut(start..end).ok_or(NotShared::At(at))?;
            access(page, done);
            *self.moved.lock() += piece as u64;
            done += piece;
        }
        Ok(())
    }
}

impl SharedMemory for TestMemory {
    fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), NotShared> {
        self.pages(gpa, out.len(), |page, at| out[at..at + page.len()].copy_from_slice(page))
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), NotShared> {
        self.pages(gpa, data.len(), |page, at| page.copy_from_slice(&data[at..at + page.len()]))
    }
}
