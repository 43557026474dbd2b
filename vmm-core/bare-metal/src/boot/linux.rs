//! The zero page (Documentation/arch/x86/zero-page.rst of Linux).

use super::{BadBoot, BootInfo, Entries, command_line, file};
use crate::physical::Physical;

/// Offsets in the zero page.
mod field {
    pub const ROOT_POINTER: u64 = 0x70;
    pub const FILE_HIGH: u64 = 0xC0;
    pub const FILE_BYTES_HIGH: u64 = 0xC4;
    pub const COMMAND_LINE_HIGH: u64 = 0xC8;
    pub const ENTRIES: u64 = 0x1E8;
    pub const MAGIC: u64 = 0x202;
    pub const FILE: u64 = 0x218;
    pub const FILE_BYTES: u64 = 0x21C;
    pub const COMMAND_LINE: u64 = 0x228;
    pub const TABLE: u64 = 0x2D0;
}

const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const ENTRY_BYTES: u64 = 20;
/// Entries that the page has room for.
const ENTRIES: u64 = 128;

pub(super) fn read(at: u64, memory: &impl Physical) -> Result<BootInfo, BadBoot> {
    let word = |offset: u64| memory.u32(at.wrapping_add(offset)).ok_or(BadBoot::CutOff);
    let wide = |low, high| Ok(u64::from(word(high)?) << 32 | u64::from(word(low)?));
    if word(field::MAGIC)? != MAGIC {
        return Err(BadBoot::Magic);
    }
    let mut entries = Entries::default();
    let count = u64::from(memory.u8(at + field::ENTRIES).ok_or(BadBoot::CutOff)?).min(ENTRIES);
    for index in 0..count {
        let entry = field::TABLE + index * ENTRY_BYTES;
        entries.note(wide(entry, entry + 4)?, wide(entry + 8, entry + 12)?, word(entry + 16)?);
    }
    let root_pointer = memory.u64(at + field::ROOT_POINTER).ok_or(BadBoot::CutOff)?;
    Ok(BootInfo {
        memory: entries.finish(),
        root_pointer: (root_pointer != 0).then_some(root_pointer),
        file: file(wide(field::FILE, field::FILE_HIGH)?, wide(field::FILE_BYTES, field::FILE_BYTES_HIGH)?),
        command_line: command_line(wide(field::COMMAND_LINE, field::COMMAND_LINE_HIGH)?, memory)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Loader;
    use crate::physical::fake::Memory;

    const AT: u64 = 0x1_0000;

    fn page() -> Memory {
        let mut memory = Memory::default();
        memory.put(AT, &[0; 4096]);
        memory.put(AT + field::MAGIC, b"HdrS");
        memory.put(AT + field::ENTRIES, &[3]);
        memory.put_words(AT + field::TABLE, &[0, 0, 0x9_F000, 0, 1]);
        memory.put_words(AT + field::TABLE + 20, &[0x10_0000, 0, 0, 1, 1]);
        memory.put_words(AT + field::TABLE + 40, &[0x50_0000, 0, 0x10_0000, 0, 2]);
        memory.put_words(AT + field::FILE, &[0x80_0000, 0x1234]);
        memory.put_words(AT + field::COMMAND_LINE, &[0x2_0000]);
        memory.put(0x2_0000, b"vcpus=2\0");
        memory
    }

    #[test]
    fn memory_less_its_holes_file_and_command_line_are_found() {
        let info = BootInfo::read(Loader::Linux, AT, &page()).unwrap();
        let ranges: std::vec::Vec<_> =
            info.memory.ranges().iter().map(|range| (range.base.get(), range.end())).collect();
        assert_eq!(ranges, [(0, 0x9_F000), (0x10_0000, 0x50_0000), (0x60_0000, 0x1_0010_0000)]);
        assert_eq!(info.file.map(|file| (file.base.get(), file.size)), Some((0x80_0000, 0x1234)));
        assert_eq!(info.command_line.as_str(), "vcpus=2");
        assert_eq!(info.root_pointer, None);
    }

    #[test]
    fn a_page_without_its_mark_or_without_memory_is_refused() {
        let mut page = page();
        page.put(AT + field::ENTRIES, &[0]);
        assert_eq!(BootInfo::read(Loader::Linux, AT, &page).unwrap_err(), BadBoot::NoMemory);
        page.put(AT + field::MAGIC, b"HdrX");
        assert_eq!(BootInfo::read(Loader::Linux, AT, &page).unwrap_err(), BadBoot::Magic);
        assert_eq!(BootInfo::read(Loader::Linux, 0, &page).unwrap_err(), BadBoot::CutOff);
    }

    #[test]
    fn a_command_line_without_an_end_is_refused() {
        let mut memory = page();
        memory.put(0x2_0000, &[b'a'; 5000]);
        assert_eq!(BootInfo::read(Loader::Linux, AT, &memory).unwrap_err(), BadBoot::CommandLine);
    }
}
