//! ELF vmlinux: its loadable segments go to their physical addresses, and it is entered at its entry point.
//!
//! System V ABI, ELF-64. Linux's `startup_64` has the same contract as the 64-bit entry of a bzImage; the file's
//! entry point is its physical address.

use super::{KernelError, LOAD_LIMIT, Part, Parts, Plan, claim};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::hob::Range;
use crate::memory_map::MemoryMap;

/// How every ELF file begins.
pub const MAGIC: [u8; 4] = *b"\x7FELF";

const CLASS_64_LITTLE_ENDIAN: [u8; 2] = [2, 1];
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
/// Most program headers that are looked at.
const MAX_HEADERS: u16 = 64;
/// Nothing is loaded below this address, where the shim and the BIOS area are.
const LOWEST: u64 = 0x10_0000;

/// An ELF kernel whose segments make sense.
#[derive(Clone, Debug)]
pub struct Elf<'a> {
    parts: Parts<'a>,
    entry: u64,
}

impl<'a> Elf<'a> {
    /// Checks a file that begins with [`MAGIC`].
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        const CUT: KernelError = KernelError::CorruptElf("it ends inside its headers");
        let header = file.get(..HEADER).ok_or(CUT)?;
        let half = |at: usize| u16_at(header, at).ok_or(CUT);
        let word = |at: usize| u64_at(header, at).ok_or(CUT);
        if !header.get(MAGIC.len()..).is_some_and(|rest| rest.starts_with(&CLASS_64_LITTLE_ENDIAN)) {
            return Err(KernelError::UnsupportedElf("not 64-bit and little-endian"));
        }
        if half(18)? != X86_64 {
            return Err(KernelError::UnsupportedElf("not for x86-64"));
        }
        if half(16)? != EXECUTABLE {
            return Err(KernelError::UnsupportedElf("not an executable"));
        }
        let headers = half(56)?;
        if half(54)? as usize != PROGRAM_HEADER || headers > MAX_HEADERS {
            return Err(KernelError::CorruptElf("impossible program headers"));
        }
        let mut elf = Self { parts: Parts::new(), entry: word(24)? };
        let mut next = usize::try_from(word(32)?).map_err(|_| CUT)?;
        for _ in 0..headers {
            let rest = file.get(next..).and_then(|rest| rest.get(..PROGRAM_HEADER)).ok_or(CUT)?;
            next += PROGRAM_HEADER;
            elf.add(file, rest)?;
        }
        if elf.parts.is_empty() {
            return Err(KernelError::CorruptElf("nothing to load"));
        }
        elf.check_overlaps()?;
        let enters = |part: &Part<'_>| {
            elf.entry.checked_sub(part.address).is_some_and(|offset| offset < part.bytes.len() as u64)
        };
        if !elf.parts.iter().any(enters) {
            return Err(KernelError::CorruptElf("its entry point is in no segment"));
        }
        Ok(elf)
    }

    /// Claims every segment's memory.
    pub fn place(&self, map: &mut MemoryMap) -> Result<Plan<'a>, KernelError> {
        let mut range = Range { start: u64::MAX, end: 0 };
        for part in &self.parts {
            let (start, end) = (part.address, part.address + part.length);
            range = Range { start: range.start.min(start), end: range.end.max(end) };
        }
        // Segments may share a page, and the gaps between them are the kernel's: the whole span is claimed at once.
        claim(map, range)?;
        Ok(Plan { parts: self.parts.clone(), entry: self.entry, range })
    }

    fn add(&mut self, file: &'a [u8], header: &[u8]) -> Result<(), KernelError> {
        const CUT: KernelError = KernelError::CorruptElf("a segment reaches beyond the file");
        const WILD: KernelError = KernelError::CorruptElf("a segment has an impossible address");
        let word = |at: usize| u64_at(header, at).ok_or(CUT);
        let length = word(40)?;
        if u32_at(header, 0) != Some(PT_LOAD) || length == 0 {
            return Ok(());
        }
        let (offset, size) = (word(8)?, word(32)?);
        if size > length {
            return Err(KernelError::CorruptElf("a segment is larger in the file than in memory"));
        }
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| file.get(offset..))
            .zip(usize::try_from(size).ok())
            .and_then(|(rest, size)| rest.get(..size))
            .ok_or(CUT)?;
        let address = word(24)?;
        let end = address.checked_add(length).ok_or(WILD)?;
        if address < LOWEST || end > LOAD_LIMIT {
            return Err(WILD);
        }
        self.parts
            .push(Part { address, bytes, length })
            .map_err(|_| KernelError::CorruptElf("too many segments"))
    }

    fn check_overlaps(&self) -> Result<(), KernelError> {
        for (index, one) in self.parts.iter().enumerate() {
            for other in self.parts.iter().skip(index + 1) {
                let address = one.address.max(other.address);
                if address < (one.address + one.length).min(other.address + other.length) {
                    return Err(KernelError::Overlap { address });
                }
            }
        }
        Ok(())
    }
}
