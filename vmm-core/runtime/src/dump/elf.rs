//! The headers of a core file (System V ABI, "Object Files" and "Program Loading").

use tdvisor_base::Gpa;

/// The most loadable segments: what the extended numbering of program headers has room for is more, and no reader's table is.
pub const MAX_PIECES: usize = 1 << 20;

/// Bytes of the file header, a program header, a section header.
const FILE_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;

/// ELF-64, little-endian, version 1.
const IDENTITY: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Readable, writable and executable: what pages are is in the guest's tables.
const PF_RWX: u32 = 7;
/// The number of program headers does not fit and is in `sh_info` of the first section header.
const PN_XNUM: u16 = 0xffff;

/// The file's header, its program headers, and a section header where their number needs one. What follows are the notes,
/// of so many bytes, and then the segments (address, bytes) in their order. `None` for more than [`MAX_PIECES`].
pub(super) fn headers(notes: u64, segments: &[(Gpa, u64)]) -> Option<Vec<u8>> {
    if segments.len() > MAX_PIECES {
        return None;
    }
    let count = segments.len() as u32 + 1;
    let short = u16::try_from(count).ok().filter(|count| *count != PN_XNUM);
    let sections = u16::from(short.is_none());
    let section_headers = FILE_HEADER + PROGRAM_HEADER * u64::from(count);
    let mut bytes = IDENTITY.to_vec();
    bytes.extend(ET_CORE.to_le_bytes());
    bytes.extend(EM_X86_64.to_le_bytes());
    bytes.extend(1u32.to_le_bytes()); // e_version
    bytes.extend(0u64.to_le_bytes()); // e_entry
    bytes.extend(FILE_HEADER.to_le_bytes()); // e_phoff
    bytes.extend((u64::from(sections) * section_headers).to_le_bytes()); // e_shoff
    bytes.extend(0u32.to_le_bytes()); // e_flags
    for word in [
        FILE_HEADER as u16,
        PROGRAM_HEADER as u16,
        short.unwrap_or(PN_XNUM),
        sections * SECTION_HEADER as u16,
        sections,
        0, // e_shstrndx
    ] {
        bytes.extend(word.to_le_bytes());
    }
    let mut offset = section_headers + u64::from(sections) * SECTION_HEADER;
    bytes.extend(program_header(PT_NOTE, 0, offset, 0, notes));
    offset += notes;
    for (gpa, size) in segments {
        bytes.extend(program_header(PT_LOAD, PF_RWX, offset, gpa.get(), *size));
        offset += size;
    }
    if short.is_none() {
        // The null section: its sh_info, behind 44 bytes, is the number of program headers.
        let mut section = [0; SECTION_HEADER as usize];
        if let Some(place) = section.get_mut(44..48) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        bytes.extend(section);
    }
    Some(bytes)
}

/// A segment at an offset of the file and a physical address; nothing says where the guest has it.
fn program_header(kind: u32, flags: u32, offset: u64, physical: u64, bytes: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(flags.to_le_bytes());
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    for word in [offset, 0, physical, bytes, bytes, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}
