//! The headers of a core file (System V ABI, "Object Files" and "Program Loading").

use tdvisor_base::Gpa;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

/// The most loadable segments: what the extended numbering of program headers has room for is more, and no reader's table is.
pub const MAX_PIECES: usize = 1 << 20;

/// The file header (`Elf64_Ehdr`).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct FileHeader {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    program_headers: U64,
    section_headers: U64,
    flags: U32,
    file_header_bytes: U16,
    program_header_bytes: U16,
    program_header_count: U16,
    section_header_bytes: U16,
    section_header_count: U16,
    string_section: U16,
}

/// A program header (`Elf64_Phdr`).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ProgramHeader {
    kind: U32,
    flags: U32,
    offset: U64,
    virtual_address: U64,
    physical_address: U64,
    file_bytes: U64,
    memory_bytes: U64,
    alignment: U64,
}

/// A section header (`Elf64_Shdr`).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SectionHeader {
    name: U32,
    kind: U32,
    flags: U64,
    address: U64,
    offset: U64,
    bytes: U64,
    link: U32,
    info: U32,
    alignment: U64,
    entry_bytes: U64,
}

const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
const SECTION_HEADER: u16 = 64;
const _: () = assert!(
    size_of::<FileHeader>() == FILE_HEADER as usize
        && size_of::<ProgramHeader>() == PROGRAM_HEADER as usize
        && size_of::<SectionHeader>() == SECTION_HEADER as usize
);

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
    let count = segments.len().checked_add(1).filter(|_| segments.len() <= MAX_PIECES)?;
    let count = u32::try_from(count).ok()?;
    let short = u16::try_from(count).ok().filter(|count| *count != PN_XNUM);
    let sections = u16::from(short.is_none());
    let behind = u64::from(FILE_HEADER) + u64::from(PROGRAM_HEADER) * u64::from(count);
    let header = FileHeader {
        ident: IDENTITY,
        kind: ET_CORE.into(),
        machine: EM_X86_64.into(),
        version: 1.into(),
        entry: 0.into(),
        program_headers: u64::from(FILE_HEADER).into(),
        section_headers: (u64::from(sections) * behind).into(),
        flags: 0.into(),
        file_header_bytes: FILE_HEADER.into(),
        program_header_bytes: PROGRAM_HEADER.into(),
        program_header_count: short.unwrap_or(PN_XNUM).into(),
        section_header_bytes: (sections * SECTION_HEADER).into(),
        section_header_count: sections.into(),
        string_section: 0.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    let mut offset = behind + u64::from(sections * SECTION_HEADER);
    bytes.extend(program_header(PT_NOTE, 0, offset, 0, notes).as_bytes());
    offset += notes;
    for (gpa, size) in segments {
        bytes.extend(program_header(PT_LOAD, PF_RWX, offset, gpa.get(), *size).as_bytes());
        offset += size;
    }
    if short.is_none() {
        // The null section, whose `info` is the number of program headers.
        bytes.extend(SectionHeader { info: count.into(), ..SectionHeader::new_zeroed() }.as_bytes());
    }
    Some(bytes)
}

/// A segment at an offset of the file and a physical address; nothing says where the guest has it.
fn program_header(kind: u32, flags: u32, offset: u64, physical: u64, bytes: u64) -> ProgramHeader {
    ProgramHeader {
        kind: kind.into(),
        flags: flags.into(),
        offset: offset.into(),
        physical_address: physical.into(),
        file_bytes: bytes.into(),
        memory_bytes: bytes.into(),
        ..ProgramHeader::new_zeroed()
    }
}
