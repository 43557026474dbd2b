//! Finding the metadata descriptor.
//!
//! OVMF and images made like it end with a GUID table: 32 bytes before the image's end ends a footer entry,
//! and entries are chained backwards from it (edk2 OvmfPkg/ResetVector). One entry holds the distance of the
//! descriptor from the image's end. td-shim writes the descriptor's offset from the image's start into the
//! four bytes at that place instead.

use super::error::{GuidTableProblem, TdvfError};

/// 96b582de-1fb2-45f7-baea-a366c55a082d, the footer of OVMF's GUID table, in the byte order of memory.
const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
/// e47a6535-984a-4798-865e-4685a7bf8ec2, the entry with the distance of the TDX metadata.
const TDX_METADATA_OFFSET: [u8; 16] =
    [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];

pub(super) const SIGNATURE: [u8; 4] = *b"TDVF";
/// Signature, length, version, count.
pub(super) const DESCRIPTOR_BYTES: usize = 16;

/// Bytes between the end of the GUID table and the end of the image.
const TAIL: usize = 0x20;
/// An entry's length field and GUID, which follow its data.
const ENTRY_TAIL: usize = 18;

/// How an image says where its metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataLocation {
    /// An entry of OVMF's GUID table.
    GuidTable,
    /// td-shim's offset, 32 bytes before the image's end.
    TdShimOffset,
}

impl core::fmt::Display for MetadataLocation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::GuidTable => "OVMF GUID table",
            Self::TdShimOffset => "td-shim offset",
        })
    }
}

/// The descriptor's offset from the image's start; its signature has been checked.
pub(super) fn descriptor(image: &[u8]) -> Result<(MetadataLocation, usize), TdvfError> {
    let needed = TAIL + ENTRY_TAIL + DESCRIPTOR_BYTES;
    if image.len() < needed {
        return Err(TdvfError::TooSmall { size: image.len(), needed });
    }
    match guid_table_entry(image)? {
        Table::Entry(distance) => {
            let outside = TdvfError::DescriptorOutside { distance, size: image.len() };
            let at = usize::try_from(distance)
                .ok()
                .and_then(|distance| image.len().checked_sub(distance))
                .filter(|at| at.checked_add(DESCRIPTOR_BYTES).is_some_and(|end| end <= image.len()))
                .ok_or(outside)?;
            if has_signature(image, at) {
                Ok((MetadataLocation::GuidTable, at))
            } else {
                Err(TdvfError::DescriptorSignature { offset: at })
            }
        }
        table => match td_shim_offset(image) {
            Some(at) => Ok((MetadataLocation::TdShimOffset, at)),
            None if matches!(table, Table::NoEntry) => Err(TdvfError::NotForTdx),
            None => Err(TdvfError::NoMetadata),
        },
    }
}

enum Table {
    Absent,
    NoEntry,
    Entry(u32),
}

fn guid_table_entry(image: &[u8]) -> Result<Table, TdvfError> {
    let Some(end) = image.len().checked_sub(TAIL) else { return Ok(Table::Absent) };
    let before_tail = image.get(..end).unwrap_or_default();
    let Some((rest, footer)) = before_tail.split_last_chunk::<16>() else { return Ok(Table::Absent) };
    if *footer != FOOTER {
        return Ok(Table::Absent);
    }
    let Some((_, length)) = rest.split_last_chunk::<2>() else { return Ok(Table::Absent) };
    let length = usize::from(u16::from_le_bytes(*length));
    let entries = length
        .checked_sub(ENTRY_TAIL)
        .zip(before_tail.len().checked_sub(length))
        .and_then(|(entries, start)| before_tail.get(start..start + entries));
    let Some(mut entries) = entries else {
        return Err(TdvfError::GuidTable(GuidTableProblem::TableLength { length, image: image.len() }));
    };
    // Every round takes at least ENTRY_TAIL of at most 64 KiB.
    while !entries.is_empty() {
        let broken = TdvfError::GuidTable(GuidTableProblem::EntryLength { left: entries.len() });
        let (rest, guid) = entries.split_last_chunk::<16>().ok_or(broken)?;
        let (_, length) = rest.split_last_chunk::<2>().ok_or(broken)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let data_len = length.checked_sub(ENTRY_TAIL).ok_or(broken)?;
        let start = entries.len().checked_sub(length).ok_or(broken)?;
        if *guid == TDX_METADATA_OFFSET {
            let data = entries.get(start..start + data_len).and_then(|data| data.last_chunk::<4>());
            let data = data.ok_or(TdvfError::GuidTable(GuidTableProblem::TdxEntryEmpty))?;
            return Ok(Table::Entry(u32::from_le_bytes(*data)));
        }
        entries = entries.get(..start).unwrap_or_default();
    }
    Ok(Table::NoEntry)
}

fn td_shim_offset(image: &[u8]) -> Option<usize> {
    let at = image.len().checked_sub(TAIL)?;
    let offset = u32::from_le_bytes(*image.get(at..)?.first_chunk()?);
    let offset = usize::try_from(offset).ok()?;
    has_signature(image, offset).then_some(offset)
}

fn has_signature(image: &[u8], at: usize) -> bool {
    image.get(at..).is_some_and(|rest| rest.len() >= DESCRIPTOR_BYTES && rest.starts_with(&SIGNATURE))
}
