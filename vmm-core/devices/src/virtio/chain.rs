//! The buffers of one request.
//!
//! A request is a list of buffers that the device reads, then a list of buffers that it writes. Where one buffer
//! ends and the next begins means nothing (section 2.7.4), so both lists are read and written
//! as one run of bytes each.

use alloc::vec::Vec;

use tdvisor_base::{Gpa, SharedBit};
use zerocopy::{FromBytes, IntoBytes};

use super::Broken;
use crate::SharedMemory;

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    gpa: Gpa,
    bytes: u32,
}

impl Buffer {
    /// The `bytes` bytes that a guest calls `address`; `None` where there cannot be memory.
    pub fn new(address: u64, bytes: u32, shared_bit: SharedBit) -> Option<Self> {
        shared_bit.locate(address, bytes.into()).map(|gpa| Self { gpa, bytes })
    }
}

/// One request.
#[derive(Debug)]
pub struct Chain {
    pub(super) head: u16,
    pub(super) readable: Vec<Buffer>,
    pub(super) writable: Vec<Buffer>,
}

impl Chain {
    /// What the driver sent.
    pub fn reader<'c>(&'c self, memory: &'c dyn SharedMemory) -> Reader<'c> {
        Reader { cursor: Cursor { buffers: &self.readable, done: 0 }, memory }
    }

    /// Where the driver expects an answer.
    pub fn writer<'c>(&'c self, memory: &'c dyn SharedMemory) -> Writer<'c> {
        Writer { cursor: Cursor { buffers: &self.writable, done: 0 }, memory, written: 0, gap: false }
    }
}

/// A place in a run of buffers.
struct Cursor<'c> {
    buffers: &'c [Buffer],
    /// Bytes of the first buffer that are behind.
    done: u32,
}

impl Cursor<'_> {
    fn remaining(&self) -> u64 {
        let all: u64 = self.buffers.iter().map(|buffer| u64::from(buffer.bytes)).sum();
        all.saturating_sub(self.done.into())
    }

    /// Moves on by at most `limit` bytes inside one buffer, and gives what it passed.
    fn pass(&mut self, limit: u64) -> Option<(Gpa, u32)> {
        while let Some((first, rest)) = self.buffers.split_first() {
            let left = first.bytes.saturating_sub(self.done);
            if left == 0 {
                self.buffers = rest;
                self.done = 0;
                continue;
            }
            let bytes = u32::try_from(limit).map_or(left, |limit| left.min(limit));
            let at = first.gpa.wrapping_add(self.done.into());
            self.done = self.done.saturating_add(bytes);
            return Some((at, bytes));
        }
        None
    }
}

/// Reads what the driver sent, from the start.
pub struct Reader<'c> {
    cursor: Cursor<'c>,
    memory: &'c dyn SharedMemory,
}

impl Reader<'_> {
    /// Bytes that are left.
    pub fn remaining(&self) -> u64 {
        self.cursor.remaining()
    }

    /// Reads a structure: the next bytes, as it lays them out.
    ///
    /// # Errors
    /// [`Broken::TooShort`], [`Broken::NotShared`].
    pub fn read_one<T: FromBytes + IntoBytes>(&mut self) -> Result<T, Broken> {
        let mut value = T::new_zeroed();
        self.read(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Reads all of `out`.
    ///
    /// # Errors
    /// [`Broken::TooShort`], [`Broken::NotShared`].
    pub fn read(&mut self, mut out: &mut [u8]) -> Result<(), Broken> {
        while !out.is_empty() {
            let (at, bytes) = self.cursor.pass(out.len() as u64).ok_or(Broken::TooShort)?;
            let (piece, rest) = out.split_at_mut_checked(bytes as usize).ok_or(Broken::TooShort)?;
            self.memory.read(at, piece)?;
            out = rest;
        }
        Ok(())
    }
}

/// Writes the answer, from the start.
pub struct Writer<'c> {
    cursor: Cursor<'c>,
    memory: &'c dyn SharedMemory,
    written: u32,
    gap: bool,
}

impl Writer<'_> {
    /// Bytes that are left.
    pub fn remaining(&self) -> u64 {
        self.cursor.remaining()
    }

    /// Bytes that were written before anything was skipped: the length that a used request reports.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// [`Broken::TooShort`], [`Broken::NotShared`].
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), Broken> {
        while !data.is_empty() {
            let (at, bytes) = self.cursor.pass(data.len() as u64).ok_or(Broken::TooShort)?;
            let (piece, rest) = data.split_at_checked(bytes as usize).ok_or(Broken::TooShort)?;
            self.memory.write(at, piece)?;
            if !self.gap {
                self.written = self.written.saturating_add(bytes);
            }
            data = rest;
        }
        Ok(())
    }

    /// Leaves everything but the last `bytes` bytes as it is.
    ///
    /// # Errors
    /// [`Broken::TooShort`]: there are not so many.
    pub fn skip_to_last(&mut self, bytes: u64) -> Result<(), Broken> {
        let mut skip = self.remaining().checked_sub(bytes).ok_or(Broken::TooShort)?;
        self.gap |= skip > 0;
        while skip > 0 {
            let (_, passed) = self.cursor.pass(skip).ok_or(Broken::TooShort)?;
            skip = skip.saturating_sub(passed.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::test_memory::TestMemory;

    const BASE: u64 = 0x1000;
    const BIT: SharedBit = SharedBit::topmost(48);

    fn buffers(lengths: &[u32]) -> Vec<Buffer> {
        let mut at = BASE;
        lengths
            .iter()
            .map(|bytes| {
                let buffer = Buffer::new(at, *bytes, BIT).unwrap();
                at += u64::from(*bytes) + 1;
                buffer
            })
            .collect()
    }

    #[test]
    fn the_borders_between_buffers_mean_nothing() {
        let memory = TestMemory::new(BASE, 0x2000);
        let chain = Chain { head: 0, readable: buffers(&[1, 0, 3, 2]), writable: buffers(&[1, 0, 3, 2]) };
        let mut writer = chain.writer(&memory);
        assert_eq!(writer.remaining(), 6);
        writer.write(b"ab").unwrap();
        writer.write(b"cdef").unwrap();
        assert_eq!((writer.remaining(), writer.written()), (0, 6));
        assert_eq!(&memory.get::<9>(BASE), b"a\0\0bcd\0ef");
        let mut reader = chain.reader(&memory);
        let mut all = [0; 6];
        reader.read(&mut all).unwrap();
        assert_eq!(&all, b"abcdef");
        assert_eq!(reader.read(&mut [0]), Err(Broken::TooShort));
    }

    #[test]
    fn what_comes_after_a_gap_is_written_but_not_counted() {
        let memory = TestMemory::new(BASE, 0x2000);
        let chain = Chain { head: 0, readable: vec![], writable: buffers(&[2, 2, 1]) };
        let mut writer = chain.writer(&memory);
        writer.write(b"x").unwrap();
        writer.skip_to_last(1).unwrap();
        writer.write(b"s").unwrap();
        assert_eq!(writer.written(), 1);
        assert_eq!(&memory.get::<7>(BASE), b"x\0\0\0\0\0s");
        assert_eq!(writer.skip_to_last(1), Err(Broken::TooShort));
    }

    #[test]
    fn a_buffer_is_below_the_shared_bit() {
        assert!(Buffer::new((1 << 47) - 4, 5, BIT).is_none());
        assert!(Buffer::new((1 << 47) - 4, 4, BIT).is_some());
        assert!(Buffer::new(u64::MAX, 0, BIT).is_none());
    }
}
