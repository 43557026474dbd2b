//! From a linked guest to its TDVF image.
//!
//! The linker script of the guests (`tools/guests/guest-rt/guest.x`) fixes the form, and this module only carries
//! it out and checks it:
//!
//! ```text
//! image offset 0                                     payload: the segments linked for low memory, as one run
//!                                                    zero fill to a whole page
//! image length - boot segment's length               boot segment: reset stub, metadata, GUID table, reset vector
//! image length = GPA 4 GiB
//! ```
//!
//! The metadata inside the boot segment already says where everything goes; an image whose metadata does not
//! describe its own firmware volume is refused.

use std::fmt;

use object::elf::FileHeader64;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Where every image ends.
const TOP: u64 = 1 << 32;
/// Segments at or above this address belong to the boot part.
const BOOT_FLOOR: u64 = 0xFF00_0000;
/// Longest image, bytes.
const MAX_IMAGE: u64 = 16 << 20;
/// The GUID table ends this far from the image's end, with the footer's GUID, the table's length before that, and
/// before those the one entry: offset, length, GUID (TDX Virtual Firmware Design Guide).
const TABLE_FROM_END: usize = 0x20;
const TABLE_LENGTH: usize = 40;
/// A section of the descriptor: its place after the header, and its type for the firmware volume.
const DESCRIPTOR_HEADER: usize = 16;
const TYPE_BFV: u32 = 0;

/// Why an ELF file cannot become an image.
#[derive(Debug)]
pub enum PackError {
    /// The input is no 64-bit little-endian ELF file.
    NotElf(object::read::Error),
    /// No segment has this.
    Missing(&'static str),
    /// The segment at this address reaches beyond the file, or the place that it may have.
    OutOfPlace(u64),
    /// Two segments have this address.
    Overlap(u64),
    /// The image would have so many bytes, which are too many.
    TooLong(u64),
    /// The named part of the TDVF metadata does not describe the image.
    Metadata(&'static str),
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf(error) => write!(f, "not a 64-bit little-endian ELF file: {error}"),
            Self::Missing(what) => write!(f, "no segment for {what}"),
            Self::OutOfPlace(at) => {
                write!(f, "segment at {at:#x} reaches beyond the file or the place it may have")
            }
            Self::Overlap(at) => write!(f, "segments overlap at {at:#x}"),
            Self::TooLong(bytes) => write!(f, "the image would have {bytes} bytes, more than {MAX_IMAGE}"),
            Self::Metadata(what) => write!(f, "the TDVF metadata does not describe the image: {what}"),
        }
    }
}

impl std::error::Error for PackError {}

struct Piece<'a> {
    address: u64,
    bytes: &'a [u8],
}

impl Piece<'_> {
    fn end(&self) -> u64 {
        // `pieces` has checked that this does not wrap.
        self.address.wrapping_add(self.bytes.len() as u64)
    }
}

/// Packs a guest's ELF file into a TDVF image.
///
/// # Errors
/// [`PackError`] says what in the file is wrong.
pub fn pack(file: &[u8]) -> Result<Vec<u8>, PackError> {
    let pieces = pieces(file)?;
    let (payload, boot): (Vec<_>, Vec<_>) = pieces.iter().partition(|piece| piece.address < BOOT_FLOOR);
    let base = payload.first().ok_or(PackError::Missing("the payload"))?.address;
    let payload_end = payload.iter().map(|piece| piece.end()).max().unwrap_or(base);
    let boot_base = boot.first().ok_or(PackError::Missing("the reset stub"))?.address;
    if boot.iter().map(|piece| piece.end()).max() != Some(TOP) || !boot_base.is_multiple_of(PAGE) {
        return Err(PackError::OutOfPlace(boot_base));
    }
    let boot_offset = (payload_end - base).next_multiple_of(PAGE);
    let length = boot_offset + (TOP - boot_base);
    if length > MAX_IMAGE {
        return Err(PackError::TooLong(length));
    }
    let mut image = vec![0; length as usize];
    for piece in &payload {
        place(&mut image, piece.address - base, piece)?;
    }
    for piece in &boot {
        place(&mut image, boot_offset + (piece.address - boot_base), piece)?;
    }
    check_metadata(&image)?;
    Ok(image)
}

/// The loadable bytes, sorted by address, in bounds and apart from each other.
fn pieces(file: &[u8]) -> Result<Vec<Piece<'_>>, PackError> {
    let parsed = ElfFile64::<Endianness>::parse(file).map_err(PackError::NotElf)?;
    let header: &FileHeader64<Endianness> = parsed.elf_header();
    let endian = header.endian().map_err(PackError::NotElf)?;
    let mut pieces = Vec::new();
    for segment in header.program_headers(endian, file).map_err(PackError::NotElf)? {
        if segment.p_type(endian) != elf::PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let address = segment.p_vaddr(endian);
        let bytes = segment.data(endian, file).map_err(|()| PackError::OutOfPlace(address))?;
        match address.checked_add(bytes.len() as u64) {
            Some(end) if end <= TOP => pieces.push(Piece { address, bytes }),
            _ => return Err(PackError::OutOfPlace(address)),
        }
    }
    pieces.sort_by_key(|piece| piece.address);
    match pieces.windows(2).find(|pair| pair[0].end() > pair[1].address) {
        Some(pair) => Err(PackError::Overlap(pair[1].address)),
        None => Ok(pieces),
    }
}

fn place(image: &mut [u8], offset: u64, piece: &Piece<'_>) -> Result<(), PackError> {
    let start = offset as usize;
    let place = image.get_mut(start..).and_then(|rest| rest.get_mut(..piece.bytes.len()));
    place.ok_or(PackError::OutOfPlace(piece.address))?.copy_from_slice(piece.bytes);
    Ok(())
}

/// Follows the GUID table to the descriptor, whose first section must be the whole image ending at 4 GiB.
fn check_metadata(image: &[u8]) -> Result<(), PackError> {
    let length = image.len();
    let table =
        length.checked_sub(TABLE_FROM_END + TABLE_LENGTH).ok_or(PackError::Metadata("no room for it"))?;
    let from_end = read_u32(image, table)? as usize;
    let descriptor =
        length.checked_sub(from_end).ok_or(PackError::Metadata("its offset is outside the image"))?;
    if image.get(descriptor..).and_then(|rest| rest.get(..4)) != Some(b"TDVF") {
        return Err(PackError::Metadata("no signature where the GUID table points"));
    }
    let section = descriptor + DESCRIPTOR_HEADER;
    let described = (
        read_u32(image, section)?,
        read_u32(image, section + 4)? as usize,
        read_u64(image, section + 8)?,
        read_u64(image, section + 16)?,
        read_u32(image, section + 24)?,
    );
    if described != (0, length, TOP - length as u64, length as u64, TYPE_BFV) {
        return Err(PackError::Metadata("its first section is not this firmware volume"));
    }
    Ok(())
}

fn read_u32(image: &[u8], at: usize) -> Result<u32, PackError> {
    let bytes =
        image.get(at..).and_then(|rest| rest.first_chunk()).ok_or(PackError::Metadata("it is cut off"))?;
    Ok(u32::from_le_bytes(*bytes))
}

fn read_u64(image: &[u8], at: usize) -> Result<u64, PackError> {
    let bytes =
        image.get(at..).and_then(|rest| rest.first_chunk()).ok_or(PackError::Metadata("it is cut off"))?;
    Ok(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;

    /// A minimal ELF64 file with one PT_LOAD program header per piece.
    fn elf_of(pieces: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut file = vec![0; HEADER + PROGRAM_HEADER * pieces.len()];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        file[20] = 1;
        file[32] = HEADER as u8;
        file[52] = HEADER as u8;
        file[54] = PROGRAM_HEADER as u8;
        file[56] = pieces.len() as u8;
        file[58] = 64;
        for (index, (address, bytes)) in pieces.iter().enumerate() {
            let at = HEADER + PROGRAM_HEADER * index;
            let offset = file.len() as u64;
            file[at] = 1;
            file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            file[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
            file[at + 32..at + 40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            file[at + 40..at + 48].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            file.extend(bytes);
        }
        file
    }

    /// A boot part of one page whose metadata describes an image of `length` bytes.
    fn boot_page(length: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE as usize];
        page[..4].copy_from_slice(b"TDVF");
        page[20..24].copy_from_slice(&(length as u32).to_le_bytes());
        page[24..32].copy_from_slice(&(TOP - length).to_le_bytes());
        page[32..40].copy_from_slice(&length.to_le_bytes());
        let table = PAGE as usize - TABLE_FROM_END - TABLE_LENGTH;
        page[table..table + 4].copy_from_slice(&(PAGE as u32).to_le_bytes());
        page
    }

    #[test]
    fn payload_comes_first_zeros_fill_its_last_page_and_the_boot_part_ends_the_image() {
        let file =
            elf_of(&[(0x10_0000, vec![7; 10]), (0x10_1000, vec![9; 5]), (TOP - PAGE, boot_page(3 * PAGE))]);
        let image = pack(&file).unwrap();
        assert_eq!(image.len() as u64, 3 * PAGE);
        assert_eq!(&image[..12], &[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
        assert_eq!(&image[0x1000..0x1006], &[9, 9, 9, 9, 9, 0]);
        assert_eq!(&image[0x2000..0x2004], b"TDVF");
    }

    #[test]
    fn metadata_that_describes_another_image_is_refused() {
        let file = elf_of(&[(0x10_0000, vec![7; 10]), (TOP - PAGE, boot_page(5 * PAGE))]);
        assert!(matches!(pack(&file), Err(PackError::Metadata(_))));
    }

    #[test]
    fn an_image_without_one_of_its_parts_is_refused() {
        assert!(matches!(pack(&elf_of(&[(0x10_0000, vec![7; 10])])), Err(PackError::Missing(_))));
        assert!(matches!(pack(&elf_of(&[(TOP - PAGE, boot_page(PAGE))])), Err(PackError::Missing(_))));
    }

    #[test]
    fn a_boot_part_that_does_not_end_at_4_gib_is_refused() {
        let file = elf_of(&[(0x10_0000, vec![7; 10]), (TOP - 2 * PAGE, boot_page(2 * PAGE))]);
        assert!(matches!(pack(&file), Err(PackError::OutOfPlace(_))));
    }

    #[test]
    fn overlapping_segments_are_refused() {
        let file =
            elf_of(&[(0x10_0000, vec![7; 10]), (0x10_0004, vec![7; 10]), (TOP - PAGE, boot_page(2 * PAGE))]);
        assert!(matches!(pack(&file), Err(PackError::Overlap(0x10_0004))));
    }

    #[test]
    fn a_payload_that_is_spread_too_far_is_refused() {
        let file =
            elf_of(&[(0x1000, vec![7; 10]), (0x8000_0000, vec![7; 10]), (TOP - PAGE, boot_page(PAGE))]);
        assert!(matches!(pack(&file), Err(PackError::TooLong(_))));
    }

    #[test]
    fn every_truncation_of_an_elf_file_is_an_error_and_not_a_panic() {
        let file = elf_of(&[(0x10_0000, vec![7; 10]), (TOP - PAGE, boot_page(2 * PAGE))]);
        assert!(pack(&file).is_ok());
        for length in 0..file.len() {
            assert!(pack(&file[..length]).is_err(), "{length} of {} bytes were accepted", file.len());
        }
    }

    #[test]
    fn wild_segment_addresses_are_errors_and_not_panics() {
        for address in [u64::MAX, u64::MAX - 5, TOP, TOP - 4] {
            let file = elf_of(&[(address, vec![7; 10]), (TOP - PAGE, boot_page(PAGE))]);
            assert!(pack(&file).is_err(), "address {address:#x} was accepted");
        }
    }
}
