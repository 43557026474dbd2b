//! MADT: which processors there are, and the mailbox that wakes them.

use heapless::Vec;

use super::{HEADER, Tables};
use crate::physical::Physical;

/// Processors that are used at most; further ones stay where firmware left them.
pub const MAX_PROCESSORS: usize = 64;

/// Structure types.
mod kind {
    pub const LOCAL_APIC: u8 = 0;
    pub const LOCAL_X2APIC: u8 = 9;
    pub const MULTIPROCESSOR_WAKEUP: u8 = 0x10;
}

/// Processor flag: it may be used.
const ENABLED: u32 = 1;
/// The table's own fields after the header: the local APICs' window, and flags.
const FIXED: u64 = 8;

/// How processors other than the first are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// By INIT and start-up IPI.
    InitSipi,
    /// By the mailbox at this physical address.
    Mailbox(u64),
}

/// What the MADT says.
#[derive(Clone, Debug)]
pub struct Madt {
    /// APIC ids of the processors that may be used, in the table's order.
    pub apic_ids: Vec<u32, MAX_PROCESSORS>,
    /// Processors beyond [`MAX_PROCESSORS`].
    pub unused: u32,
    /// How they are started.
    pub wake_up: WakeUp,
}

impl Madt {
    /// Reads the table, if there is one.
    pub fn read(tables: &Tables, memory: &impl Physical) -> Option<Self> {
        let table = tables.table(b"APIC", memory)?;
        let mut madt = Self { apic_ids: Vec::new(), unused: 0, wake_up: WakeUp::InitSipi };
        let mut offset = HEADER + FIXED;
        while let Some(entry) = table.place(offset, 2) {
            let (kind, bytes) = (memory.u8(entry)?, u64::from(memory.u8(entry + 1)?));
            // A structure that ends beyond the table, or that has no length, ends the list.
            let Some(entry) = table.place(offset, bytes).filter(|_| bytes >= 2) else { break };
            match kind {
                kind::LOCAL_APIC if bytes >= 8 => {
                    madt.note(memory.u8(entry + 3)?.into(), memory.u32(entry + 4)?);
                }
                kind::LOCAL_X2APIC if bytes >= 16 => {
                    madt.note(memory.u32(entry + 4)?, memory.u32(entry + 8)?);
                }
                kind::MULTIPROCESSOR_WAKEUP if bytes >= 16 => {
                    madt.wake_up = WakeUp::Mailbox(memory.u64(entry + 8)?);
                }
                _ => {}
            }
            offset += bytes;
        }
        Some(madt)
    }

    fn note(&mut self, apic_id: u32, flags: u32) {
        if flags & ENABLED == 0 || self.apic_ids.contains(&apic_id) {
            return;
        }
        if self.apic_ids.push(apic_id).is_err() {
            self.unused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{firmware, table};
    use super::*;

    fn read(structures: &[&[u8]]) -> Madt {
        let mut body = std::vec![0; FIXED as usize];
        body.extend(structures.concat());
        let memory = firmware(&[(0x6000, table(b"APIC", &body))]);
        Madt::read(&Tables::find(None, &memory).unwrap(), &memory).unwrap()
    }

    const SECOND: [u8; 16] = [9, 16, 0, 0, 0x00, 0x01, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];

    #[test]
    fn enabled_processors_are_found_once_whichever_structure_names_them() {
        let madt = read(&[
            &[0, 8, 0, 4, 1, 0, 0, 0],
            &[0, 8, 1, 5, 0, 0, 0, 0],
            &SECOND,
            &[9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        ]);
        assert_eq!(madt.apic_ids, [4, 256]);
        assert_eq!(madt.wake_up, WakeUp::InitSipi);
    }

    #[test]
    fn a_mailbox_is_found() {
        let madt = read(&[&[0x10, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0xD9, 0xFE, 0, 0, 0, 0], &SECOND]);
        assert_eq!(madt.wake_up, WakeUp::Mailbox(0xFED9_0000));
    }

    #[test]
    fn a_structure_without_length_or_beyond_the_end_ends_the_list() {
        assert_eq!(read(&[&SECOND, &[9, 0], &SECOND]).apic_ids, [256]);
        assert_eq!(read(&[&[9, 200, 0, 0], &SECOND]).apic_ids, [0u32; 0]);
    }

    #[test]
    fn processors_beyond_the_limit_are_counted_and_left_alone() {
        let all: std::vec::Vec<[u8; 8]> = (0..70).map(|id| [0, 8, id, id, 1, 0, 0, 0]).collect();
        let all: std::vec::Vec<&[u8]> = all.iter().map(|one| &one[..]).collect();
        let madt = read(&all);
        assert_eq!((madt.apic_ids.len(), madt.unused), (64, 6));
    }
}
