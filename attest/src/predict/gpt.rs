//! The partition table as firmware measures it (EV_EFI_GPT_EVENT): the header, the number of partitions in use, and their
//! entries (UEFI 2.10, "GUID Partition Table"; TCG PC Client Platform Firmware Profile, UEFI_GPT_DATA).

use alloc::vec::Vec;
use core::fmt;

const SECTOR: usize = 512;
const HEADER_BYTES: usize = 92;
/// The most entries that a table is taken with.
const MAX_ENTRIES: u32 = 1024;
const ENTRY_BYTES: u32 = 128;

/// Why a disk has no table that firmware would measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GptError {
    /// No table in the second sector of 512 bytes.
    NoTable,
    /// Entries of another size, or an absurd number of them.
    Entries,
    /// The disk ends inside the table.
    Truncated,
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTable => "no GUID partition table in sector 1 (of 512 bytes)",
            Self::Entries => "a partition table with entries of an unusual size or number",
            Self::Truncated => "the disk image ends inside its partition table",
        })
    }
}

impl core::error::Error for GptError {}

/// How many bytes of a disk [`measured`] looks at, at most, where its entries follow the header as they usually do.
pub const HEAD_BYTES: usize = SECTOR * 2 + (MAX_ENTRIES * ENTRY_BYTES) as usize;

/// What firmware measures of the table at the beginning of a disk.
///
/// # Errors
/// [`GptError`].
pub fn measured(disk: &[u8]) -> Result<Vec<u8>, GptError> {
    let header = disk.get(SECTOR..SECTOR + HEADER_BYTES).ok_or(GptError::NoTable)?;
    if !header.starts_with(b"EFI PART") {
        return Err(GptError::NoTable);
    }
    let word = |at: usize| header.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let first = header.get(72..).and_then(|rest| rest.first_chunk()).copied().map(u64::from_le_bytes);
    let (Some(first), Some(count), Some(size)) = (first, word(80), word(84)) else {
        return Err(GptError::NoTable);
    };
    if count > MAX_ENTRIES || size != ENTRY_BYTES {
        return Err(GptError::Entries);
    }
    let start = usize::try_from(first).ok().and_then(|sector| sector.checked_mul(SECTOR));
    let table = start
        .and_then(|start| disk.get(start..)?.get(..count as usize * ENTRY_BYTES as usize))
        .ok_or(GptError::Truncated)?;
    // An entry without a type is of no partition.
    let used: Vec<&[u8]> =
        table.chunks(ENTRY_BYTES as usize).filter(|entry| !entry.starts_with(&[0; 16])).collect();
    let mut data = header.to_vec();
    data.extend((used.len() as u64).to_le_bytes());
    used.into_iter().for_each(|entry| data.extend(entry));
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a disk whose table has these entries, unused ones between them.
    fn disk(header: &[u8], entries: &[u8]) -> Vec<u8> {
        let mut disk = alloc::vec![0; SECTOR * 2 + 128 * 128];
        disk[SECTOR..SECTOR + HEADER_BYTES].copy_from_slice(header);
        for (at, entry) in entries.chunks(128).enumerate() {
            let start = SECTOR * 2 + at * 2 * 128;
            disk[start..start + 128].copy_from_slice(entry);
        }
        disk
    }

    fn header() -> Vec<u8> {
        let mut header = b"EFI PART".to_vec();
        header.resize(HEADER_BYTES, 7);
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header
    }

    #[test]
    fn header_count_and_used_entries_are_measured() {
        let entries = [[1; 128], [2; 128]].concat();
        let expected = [header(), 2u64.to_le_bytes().to_vec(), entries.clone()].concat();
        assert_eq!(measured(&disk(&header(), &entries)), Ok(expected));
    }

    /// Header and entries of a table that real firmware measured, put on a disk again.
    #[test]
    #[ignore = "needs recordings"]
    fn tables_of_recorded_logs_have_the_digests_that_were_recorded() {
        use crate::eventlog::{EventLog, EventType};
        use td_image::digest::Digest384;
        let folder = tdvisor_test_data::vectors::folder(tdvisor_test_data::vectors::ATTESTATION);
        for name in ["ccel-cos113.bin", "ccel-gcp.bin", "ccel-coco-grub.bin"] {
            let area = std::fs::read(folder.join("eventlogs").join(name)).expect("a log");
            let log = EventLog::parse(&area).unwrap();
            let event = log.events().find(|event| event.kind == EventType::EFI_GPT_EVENT).expect("a table");
            let (header, entries) = (&event.raw_data[..HEADER_BYTES], &event.raw_data[HEADER_BYTES + 8..]);
            let data = measured(&disk(header, entries)).unwrap();
            assert_eq!(Some(Digest384::of(&data)), event.digest(), "{name}");
        }
    }

    #[test]
    fn a_disk_without_a_table_or_a_cut_one_is_an_error() {
        let whole = disk(&header(), &[1; 128]);
        for length in (0..whole.len()).step_by(61) {
            assert!(measured(&whole[..length]).is_err(), "{length}");
        }
        let mut other = whole.clone();
        other[SECTOR] = 0;
        assert_eq!(measured(&other), Err(GptError::NoTable));
        let mut other = whole;
        other[SECTOR + 84] = 64;
        assert_eq!(measured(&other), Err(GptError::Entries));
    }
}
