//! `hvm_start_info` of the PVH boot protocol (xen/include/public/arch-x86/hvm/start_info.h).

use super::{BadBoot, BootInfo, Entries, command_line, file};
use crate::physical::Physical;

const MAGIC: u32 = 0x336E_C578;
/// The first version that has a memory map.
const VERSION: u32 = 1;
const ENTRY_BYTES: u64 = 24;
/// Entries that are read at most.
const ENTRIES: u32 = 256;

/// Offsets in the structure.
mod field {
    pub const VERSION: u64 = 4;
    pub const MODULES: u64 = 12;
    pub const MODULE_LIST: u64 = 16;
    pub const COMMAND_LINE: u64 = 24;
    pub const ROOT_POINTER: u64 = 32;
    pub const MEMORY_MAP: u64 = 40;
    pub const ENTRIES: u64 = 48;
}

pub(super) fn read(at: u64, memory: &impl Physical) -> Result<BootInfo, BadBoot> {
    let word = |at: u64| memory.u32(at).ok_or(BadBoot::CutOff);
    let wide = |at: u64| memory.u64(at).ok_or(BadBoot::CutOff);
    if word(at)? != MAGIC {
        return Err(BadBoot::Magic);
    }
    if word(at + field::VERSION)? < VERSION {
        return Err(BadBoot::NoMemory);
    }
    let mut entries = Entries::default();
    let mut entry = wide(at + field::MEMORY_MAP)?;
    for _ in 0..word(at + field::ENTRIES)?.min(ENTRIES) {
        entries.note(wide(entry)?, wide(entry + 8)?, word(entry + 16)?);
        entry = entry.checked_add(ENTRY_BYTES).ok_or(BadBoot::CutOff)?;
    }
    let module = match word(at + field::MODULES)? {
        0 => None,
        _ => {
            let list = wide(at + field::MODULE_LIST)?;
            file(wide(list)?, wide(list.checked_add(8).ok_or(BadBoot::CutOff)?)?)
        }
    };
    let root_pointer = wide(at + field::ROOT_POINTER)?;
    Ok(BootInfo {
        memory: entries.finish(),
        root_pointer: (root_pointer != 0).then_some(root_pointer),
        file: module,
        command_line: command_line(wide(at + field::COMMAND_LINE)?, memory)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Loader;
    use crate::physical::fake::Memory;

    const AT: u64 = 0x6000;

    #[test]
    fn memory_the_first_module_and_the_root_pointer_are_found() {
        let mut memory = Memory::default();
        memory.put_words(AT, &[MAGIC, 1, 0, 1, 0x7000, 0, 0, 0, 0xE_0000, 0, 0x8000, 0, 2, 0]);
        memory.put_words(0x7000, &[0x200_0000, 0, 0x5000, 0]);
        memory.put_words(0x8000, &[0x10_0000, 0, 0x700_0000, 0, 1, 0, 0xF000_0000, 0, 0x1000, 0, 2, 0]);
        let info = BootInfo::read(Loader::Pvh, AT, &memory).unwrap();
        assert_eq!(info.memory.bytes(), 0x700_0000);
        assert_eq!(info.file.map(|file| (file.base.get(), file.size)), Some((0x200_0000, 0x5000)));
        assert_eq!(info.root_pointer, Some(0xE_0000));
        assert!(info.command_line.is_empty());
        memory.put_words(AT + 4, &[0]);
        assert_eq!(BootInfo::read(Loader::Pvh, AT, &memory).unwrap_err(), BadBoot::NoMemory);
    }
}
