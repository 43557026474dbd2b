//! The few ACPI tables that a host without an operating system needs (ACPI 6.5): processors, how they are woken, and
//! how the machine is switched off.
//!
//! Everything here comes from firmware: lengths are bounded, and a table whose checksum is wrong does not exist.

mod madt;
mod power;

use crate::physical::Physical;

pub use madt::{MAX_PROCESSORS, Madt, WakeUp};
pub use power::{PowerOff, Register};

/// The largest table that is looked at.
const TABLE_LIMIT: u64 = 1 << 20;
/// Bytes of a table's header.
const HEADER: u64 = 36;
/// Bytes of the root pointer of ACPI 2.0.
const ROOT_BYTES: u64 = 36;
/// Where firmware without a loader's help keeps the root pointer.
const SEARCHED: core::ops::Range<u64> = 0xE_0000..0x10_0000;
const ROOT_MARK: u64 = u64::from_le_bytes(*b"RSD PTR ");

/// A table in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    at: u64,
    bytes: u64,
}

impl Table {
    fn at(at: u64, memory: &impl Physical) -> Option<Self> {
        let bytes = u64::from(memory.u32(at.checked_add(4)?)?);
        let table = Self { at, bytes };
        ((HEADER..=TABLE_LIMIT).contains(&bytes) && sum(at, bytes, memory)? == 0).then_some(table)
    }

    /// The address `offset` bytes into the table, if `bytes` bytes are there.
    fn place(self, offset: u64, bytes: u64) -> Option<u64> {
        (offset.checked_add(bytes)? <= self.bytes).then(|| self.at.wrapping_add(offset))
    }
}

fn sum(at: u64, bytes: u64, memory: &impl Physical) -> Option<u8> {
    (at..at.checked_add(bytes)?).try_fold(0u8, |sum, at| Some(sum.wrapping_add(memory.u8(at)?)))
}

/// The tables that the root pointer leads to.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    root: Table,
    entry_bytes: u64,
}

impl Tables {
    /// The tables of a root pointer, or of the one that firmware left below 1 MiB.
    pub fn find(root_pointer: Option<u64>, memory: &impl Physical) -> Option<Self> {
        let is_root = |at: &u64| {
            // The checksum of the first version covers its first twenty bytes.
            memory.u64(*at) == Some(ROOT_MARK) && sum(*at, 20, memory) == Some(0)
        };
        let at = root_pointer.filter(is_root).or_else(|| SEARCHED.step_by(16).find(is_root))?;
        let revision = memory.u8(at + 15)?;
        if revision >= 2 && sum(at, ROOT_BYTES, memory)? == 0 {
            let root = Table::at(memory.u64(at + 24)?, memory)?;
            return Some(Self { root, entry_bytes: 8 });
        }
        Some(Self { root: Table::at(memory.u32(at + 16)?.into(), memory)?, entry_bytes: 4 })
    }

    /// The first table with this signature.
    pub fn table(&self, signature: &[u8; 4], memory: &impl Physical) -> Option<Table> {
        let count = (self.root.bytes - HEADER) / self.entry_bytes;
        (0..count)
            .filter_map(|index| {
                let place = self.root.place(HEADER + index * self.entry_bytes, self.entry_bytes)?;
                if self.entry_bytes == 8 { memory.u64(place) } else { memory.u32(place).map(u64::from) }
            })
            .filter(|at| memory.u32(*at) == Some(u32::from_le_bytes(*signature)))
            .find_map(|at| Table::at(at, memory))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::physical::fake::Memory;

    /// A table with a right checksum.
    pub(crate) fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend((HEADER as u32 + body.len() as u32).to_le_bytes());
        table.resize(HEADER as usize, 0);
        table.extend(body);
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = sum.wrapping_neg();
        table
    }

    /// Tables behind a root pointer at 0xE0000.
    pub(crate) fn firmware(tables: &[(u64, Vec<u8>)]) -> Memory {
        const XSDT: u64 = 0x5000;
        let mut memory = Memory::default();
        memory.put(SEARCHED.start, &[0; 0x2_0000]);
        let body: Vec<u8> = tables.iter().flat_map(|(at, _)| at.to_le_bytes()).collect();
        memory.put(XSDT, &table(b"XSDT", &body));
        for (at, table) in tables {
            memory.put(*at, table);
        }
        let mut root = b"RSD PTR \0TDVISR\x02".to_vec();
        root.extend([0; 4]);
        root.extend(36u32.to_le_bytes());
        root.extend(XSDT.to_le_bytes());
        root.extend([0; 4]);
        root[8] = root[..20].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        root[32] = root.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        memory.put(0xE_0000, &root);
        memory
    }

    #[test]
    fn a_table_is_found_with_and_without_a_loaders_help() {
        let memory = firmware(&[(0x6000, table(b"FACP", &[1])), (0x7000, table(b"APIC", &[2]))]);
        for pointer in [Some(0xE_0000), None, Some(0x123)] {
            let tables = Tables::find(pointer, &memory).unwrap();
            assert_eq!(tables.table(b"APIC", &memory), Some(Table { at: 0x7000, bytes: 37 }));
            assert_eq!(tables.table(b"SRAT", &memory), None);
        }
    }

    #[test]
    fn a_table_with_a_wrong_checksum_or_an_endless_length_does_not_exist() {
        let mut memory = firmware(&[(0x6000, table(b"FACP", &[1]))]);
        memory.put(0x6000 + HEADER, &[7]);
        let tables = Tables::find(None, &memory).unwrap();
        assert_eq!(tables.table(b"FACP", &memory), None);
        memory.put_words(0x6004, &[u32::MAX]);
        assert_eq!(tables.table(b"FACP", &memory), None);
    }
}
