//! Where things are in a server's physical address space.
//!
//! | from | to | what | in the memory map |
//! |---|---|---|---|
//! | 0 | `0x9_F000` | memory | usable |
//! | [`TABLES`] | `0xF_0000` | ACPI tables | ACPI |
//! | [`FIRMWARE`] | 1 MiB | what processors begin with: page tables, descriptors, the parking code | reserved |
//! | 1 MiB | [`SEAM_BASE`] | memory that TDs may have | usable |
//! | [`SEAM_BASE`] | 2 GiB | the TDX module's own | reserved |
//! | [`MAILBOX`] | 4 KiB | the multiprocessor wake-up mailbox | reserved |
//! | [`REMAPPING`] | 4 KiB | registers of interrupt remapping | – |
//! | 4 GiB | | memory that TDs may have, where there is more than 2 GiB | usable |

/// One past the conventional memory below 640 KiB.
pub const LOW_MEMORY_END: u64 = 0x9_F000;
/// The ACPI tables; the root pointer is their first byte.
pub const TABLES: u64 = 0xE_0000;
/// Room for the ACPI tables.
pub const TABLES_BYTES: u64 = 0x1_0000;
/// What processors begin with.
pub const FIRMWARE: u64 = 0xF_0000;
/// The first byte that a TD may have.
pub const CONVERTIBLE: u64 = 0x10_0000;
/// The TDX module's own memory, below [`LOW_RAM_LIMIT`].
pub const SEAM_BASE: u64 = 0x7E00_0000;
/// Bytes of the TDX module's own memory.
pub const SEAM_BYTES: u64 = 0x200_0000;
/// Memory beyond this many bytes continues at [`HIGH_RAM`].
pub const LOW_RAM_LIMIT: u64 = 0x8000_0000;
/// Where memory continues that does not fit below [`LOW_RAM_LIMIT`].
pub const HIGH_RAM: u64 = 1 << 32;
/// The multiprocessor wake-up mailbox: a device that looks like memory.
pub const MAILBOX: u64 = 0xFED9_0000;
/// Bytes of the mailbox.
pub const MAILBOX_BYTES: u64 = 0x1000;

/// The registers of interrupt remapping.
pub const REMAPPING: u64 = 0xFED9_1000;
/// Bytes of those registers.
pub const REMAPPING_BYTES: u64 = 0x1000;

/// What a range of the memory map is for, with the numbers of the E820 interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Memory that an operating system may use.
    Usable = 1,
    /// Not to be touched.
    Reserved = 2,
    /// ACPI tables, usable once they have been read.
    Acpi = 3,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// What the range is for.
    pub kind: MemoryKind,
}

/// The memory map of a server with this many bytes of memory, ascending.
pub fn memory_map(memory: u64) -> Vec<MemoryRange> {
    use MemoryKind::{Acpi, Reserved, Usable};
    let range = |base, end, kind| MemoryRange { base, bytes: end - base, kind };
    let mut map = vec![
        range(0, LOW_MEMORY_END, Usable),
        range(LOW_MEMORY_END, 0xA_0000, Reserved),
        range(TABLES, TABLES + TABLES_BYTES, Acpi),
        range(FIRMWARE, CONVERTIBLE, Reserved),
        range(CONVERTIBLE, SEAM_BASE.min(memory.max(CONVERTIBLE)), Usable),
        range(SEAM_BASE, LOW_RAM_LIMIT, Reserved),
        range(MAILBOX, MAILBOX + MAILBOX_BYTES, Reserved),
    ];
    let high = memory.saturating_sub(SEAM_BASE);
    if high > 0 {
        map.push(range(HIGH_RAM, HIGH_RAM + high, Usable));
    }
    map.retain(|range| range.bytes > 0);
    map
}

/// The part of the memory map that the platform vouches for, so that TDs may have it: as base and bytes.
pub fn convertible(memory: u64) -> Vec<(u64, u64)> {
    memory_map(memory)
        .into_iter()
        .filter(|range| range.kind == MemoryKind::Usable && range.base >= CONVERTIBLE)
        .map(|range| (range.base, range.bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_is_ascending_and_gives_all_the_memory_asked_for() {
        for memory in [64 << 20, 1 << 30, 2 << 30, 5 << 30] {
            let map = memory_map(memory);
            assert!(map.windows(2).all(|pair| pair[0].base + pair[0].bytes <= pair[1].base), "{memory:#x}");
            let usable: u64 =
                map.iter().filter(|range| range.kind == MemoryKind::Usable).map(|range| range.bytes).sum();
            assert_eq!(usable, memory - (CONVERTIBLE - LOW_MEMORY_END), "{memory:#x}");
        }
    }

    #[test]
    fn every_usable_byte_from_one_mebibyte_on_is_convertible_and_nothing_else() {
        assert_eq!(convertible(1 << 30), [(CONVERTIBLE, (1 << 30) - CONVERTIBLE)]);
        let large = convertible(4 << 30);
        assert_eq!(large[0], (CONVERTIBLE, SEAM_BASE - CONVERTIBLE));
        assert_eq!(large[1], (HIGH_RAM, (4 << 30) - SEAM_BASE));
    }
}
