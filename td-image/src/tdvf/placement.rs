//! Which memory a machine must have for an image.

use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::{Gpa, PAGE_SIZE};

use super::TdvfImage;
use crate::td_hob::MemoryRange;

const FOUR_GIB: u64 = 1 << 32;
/// Firmware has its place below 4 GiB, at most so much.
const FIRMWARE_BYTES: u64 = 16 << 20;

/// A section lies where a machine has no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory {
    /// The section's address.
    pub gpa: Gpa,
    /// The section's size, bytes.
    pub bytes: u64,
}

impl fmt::Display for OutsideMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gpa, bytes } = self;
        write!(f, "the image's section at {gpa} ({bytes} bytes) is outside the TD's memory")
    }
}

impl core::error::Error for OutsideMemory {}

impl TdvfImage<'_> {
    /// The memory of a machine with this RAM that starts from this image: the RAM, and one range below 4 GiB for the
    /// sections that lie outside it. Ranges of no bytes are left out.
    ///
    /// # Errors
    /// [`OutsideMemory`] for a section that is neither in RAM nor in the firmware's place.
    pub fn memory(&self, ram: &[MemoryRange]) -> Result<Vec<MemoryRange>, OutsideMemory> {
        let mut ranges: Vec<MemoryRange> = ram.iter().copied().filter(|range| range.bytes != 0).collect();
        let mut firmware: Option<(u64, u64)> = None;
        for section in self.sections() {
            let (start, bytes) = (section.gpa.get(), section.mem_size);
            let outside = OutsideMemory { gpa: section.gpa, bytes };
            let end = start.checked_add(bytes).ok_or(outside)?;
            let end = end.checked_next_multiple_of(PAGE_SIZE).ok_or(outside)?;
            if bytes == 0 || ranges.iter().any(|range| range.start.get() <= start && end <= range.end()) {
                continue;
            }
            if start < FOUR_GIB - FIRMWARE_BYTES || end > FOUR_GIB {
                return Err(outside);
            }
            firmware = Some(firmware.map_or((start, end), |(from, to)| (from.min(start), to.max(end))));
        }
        ranges.extend(firmware.map(|(start, end)| MemoryRange::new(Gpa::new(start), end - start)));
        Ok(ranges)
    }
}
