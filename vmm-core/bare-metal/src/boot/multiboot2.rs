//! The information structure of multiboot2 (Multiboot2 Specification 2.0, "Boot information format").

use super::{BadBoot, BootInfo, Entries, command_line, file};
use crate::physical::Physical;

/// Tags that are looked at.
mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const MODULE: u32 = 3;
    pub const MEMORY_MAP: u32 = 6;
    /// A copy of ACPI's root pointer, of ACPI 1.0 and later.
    pub const OLD_ROOT_POINTER: u32 = 14;
    pub const NEW_ROOT_POINTER: u32 = 15;
}

const HEADER: u64 = 8;
/// A structure is not larger than this.
const LIMIT: u64 = 1 << 20;
const MAP_ENTRIES_AT: u64 = 16;
const MODULE_STRING_AT: u64 = 16;

pub(super) fn read(at: u64, memory: &impl Physical) -> Result<BootInfo, BadBoot> {
    let word = |at: u64| memory.u32(at).ok_or(BadBoot::CutOff);
    let wide = |at: u64| memory.u64(at).ok_or(BadBoot::CutOff);
    let end = at + u64::from(word(at)?).min(LIMIT);
    let mut entries = Entries::default();
    let mut info = BootInfo {
        memory: super::MemoryMap::new(),
        root_pointer: None,
        file: None,
        command_line: heapless::String::new(),
    };
    let mut next = at + HEADER;
    while next + HEADER <= end {
        let (kind, bytes) = (word(next)?, u64::from(word(next + 4)?));
        if bytes < HEADER || next + bytes > end {
            return Err(BadBoot::CutOff);
        }
        match kind {
            tag::END => break,
            tag::COMMAND_LINE => info.command_line = command_line(next + HEADER, memory)?,
            tag::MODULE if info.file.is_none() && bytes >= MODULE_STRING_AT => {
                let (first, last) = (word(next + 8)?, word(next + 12)?);
                info.file = file(first.into(), last.saturating_sub(first).into());
            }
            tag::MEMORY_MAP => {
                let entry_bytes = u64::from(word(next + 8)?);
                if entry_bytes < 24 {
                    return Err(BadBoot::CutOff);
                }
                let mut entry = next + MAP_ENTRIES_AT;
                while entry + entry_bytes <= next + bytes {
                    entries.note(wide(entry)?, wide(entry + 8)?, word(entry + 16)?);
                    entry += entry_bytes;
                }
            }
            tag::OLD_ROOT_POINTER if info.root_pointer.is_none() => info.root_pointer = Some(next + HEADER),
            tag::NEW_ROOT_POINTER => info.root_pointer = Some(next + HEADER),
            _ => {}
        }
        next += bytes.next_multiple_of(HEADER);
    }
    info.memory = entries.finish();
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Loader;
    use crate::physical::fake::Memory;

    const AT: u64 = 0x9000;

    fn structure() -> Memory {
        let mut memory = Memory::default();
        memory.put_words(AT, &[8 + 16 + 40 + 16 + 16 + 8, 0]);
        memory.put_words(AT + 8, &[tag::COMMAND_LINE, 10]);
        memory.put(AT + 16, b"x\0\0\0\0\0\0\0");
        memory.put_words(AT + 24, &[tag::MEMORY_MAP, 40, 24, 0, 0x10_0000, 0, 0x20_0000, 0, 1, 0]);
        memory.put_words(AT + 64, &[tag::MODULE, 16, 0x18_0000, 0x18_2000]);
        memory.put_words(AT + 80, &[tag::NEW_ROOT_POINTER, 16, 0, 0]);
        memory.put_words(AT + 96, &[tag::END, 8]);
        memory
    }

    #[test]
    fn tags_are_found_whatever_stands_between_them() {
        let info = BootInfo::read(Loader::Multiboot2, AT, &structure()).unwrap();
        assert_eq!(info.memory.bytes(), 0x20_0000);
        assert_eq!(info.file.map(|file| (file.base.get(), file.size)), Some((0x18_0000, 0x2000)));
        assert_eq!(info.root_pointer, Some(AT + 88));
        assert_eq!(info.command_line.as_str(), "x");
    }

    #[test]
    fn a_tag_that_does_not_advance_or_leaves_the_structure_is_refused() {
        for bytes in [0, 7, 4000] {
            let mut memory = structure();
            memory.put_words(AT + 64, &[tag::MODULE, bytes]);
            assert_eq!(BootInfo::read(Loader::Multiboot2, AT, &memory).unwrap_err(), BadBoot::CutOff);
        }
    }
}
