//! The ACPI tables as files of `fw_cfg`, with the commands by which firmware links and places them.
//!
//! # Protocol
//! `etc/table-loader` is a list of commands of 128 bytes: allocate memory for a file and load it there; add the place
//! of one file to an address in another; write a checksum. The tables are written as if their file lay at address zero, with
//! checksums of zero. Firmware measures all three files into RTMR0 before it uses them.
//!
//! Source: QEMU's `hw/acpi/bios-linker-loader.c`, which documents the commands.

use tdvisor_board::acpi::{self, Area, CHECKSUM_OFFSET, Ecam, Fixup, Machine, NoRoom};

/// The file of commands.
pub const LOADER: &str = "etc/table-loader";
/// The file of the root pointer.
pub const RSDP: &str = "etc/acpi/rsdp";
/// The file of all other tables.
pub const TABLES: &str = "etc/acpi/tables";

/// Bytes of the tables at most: 512 vCPUs need less.
const AREA_BYTES: usize = 0x8000;
/// Bytes of a file's name in a command.
const NAME_BYTES: usize = 56;
const COMMAND_BYTES: usize = 128;

/// Where memory for a file may be.
#[derive(Clone, Copy)]
enum Zone {
    High = 1,
    /// Below 1 MiB, where a root pointer is looked for.
    FSegment = 2,
}

mod command {
    pub(super) const ALLOCATE: u32 = 1;
    pub(super) const ADD_POINTER: u32 = 2;
    pub(super) const ADD_CHECKSUM: u32 = 3;
}

/// The three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiFiles {
    /// [`LOADER`].
    pub loader: Vec<u8>,
    /// [`RSDP`].
    pub rsdp: Vec<u8>,
    /// [`TABLES`].
    pub tables: Vec<u8>,
}

impl AcpiFiles {
    /// The files of a board with so many vCPUs and so many bytes of RAM below 4 GiB.
    ///
    /// # Errors
    /// [`NoRoom`]: more vCPUs than any TD has, or no room for PCI memory.
    pub fn new(vcpus: u32, low_ram: u64) -> Result<Self, NoRoom> {
        // Firmware places ECAM, wakes vCPUs and keeps the event log: it adds what describes those.
        let machine = Machine { vcpus, low_ram, ecam: Ecam::OfFirmware, wake_up: None, event_log: None };
        let mut tables = vec![0; AREA_BYTES];
        let mut fixups = Vec::new();
        let mut note = |fixup| fixups.push(fixup);
        let mut area = Area::new(&mut tables, 0, &mut note);
        let xsdt = acpi::write(&mut area, &machine)?;
        let used = area.used();
        tables.truncate(used);

        let mut loader = Loader::default();
        loader.allocate(RSDP, 16, Zone::FSegment);
        loader.allocate(TABLES, 64, Zone::High);
        for fixup in &fixups {
            if let Fixup::Pointer { at, bytes } = *fixup {
                loader.add_pointer(TABLES, TABLES, at, bytes);
            }
        }
        for fixup in fixups {
            if let Fixup::Table { start, length } = fixup {
                loader.add_checksum(TABLES, start + CHECKSUM_OFFSET, start, length);
                if let Some(checksum) = tables.get_mut(start + CHECKSUM_OFFSET) {
                    *checksum = 0;
                }
            }
        }
        let mut rsdp = acpi::rsdp(xsdt);
        loader.add_pointer(RSDP, TABLES, acpi::RSDP_XSDT, 8);
        for (at, bytes) in
            [(acpi::RSDP_CHECKSUM, acpi::RSDP_FIRST_PART), (acpi::RSDP_EXTENDED_CHECKSUM, acpi::RSDP_BYTES)]
        {
            loader.add_checksum(RSDP, at, 0, bytes);
            rsdp[at] = 0;
        }
        Ok(Self { loader: loader.0, rsdp: rsdp.to_vec(), tables })
    }
}

/// A list of commands.
#[derive(Default)]
struct Loader(Vec<u8>);

impl Loader {
    fn command(&mut self, number: u32, fields: &[&[u8]]) {
        let start = self.0.len();
        self.0.extend(number.to_le_bytes());
        fields.iter().for_each(|field| self.0.extend_from_slice(field));
        self.0.resize(start + COMMAND_BYTES, 0);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: Zone) {
        self.command(command::ALLOCATE, &[&name(file), &alignment.to_le_bytes(), &[zone as u8]]);
    }

    fn add_pointer(&mut self, file: &str, to: &str, at: usize, bytes: u8) {
        let at = offset(at);
        self.command(command::ADD_POINTER, &[&name(file), &name(to), &at, &[bytes]]);
    }

    fn add_checksum(&mut self, file: &str, at: usize, start: usize, length: usize) {
        let [at, start, length] = [at, start, length].map(offset);
        self.command(command::ADD_CHECKSUM, &[&name(file), &at, &start, &length]);
    }
}

/// An offset in a file of tables, or a number of bytes of it. None is longer than [`Area`](acpi::Area)s are; QEMU's
/// firmware refuses one that is behind the end of its file.
fn offset(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name.iter_mut().zip(file.bytes()).for_each(|(to, from)| *to = from);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    /// Does what firmware does, with the tables at `base`.
    fn link(files: &AcpiFiles, base: u64) -> (Vec<u8>, Vec<u8>) {
        let mut placed = [(RSDP, files.rsdp.clone(), 0xf_0000), (TABLES, files.tables.clone(), base)];
        let find = |name: &[u8]| {
            let end = name.iter().position(|byte| *byte == 0).unwrap();
            [RSDP, TABLES].iter().position(|file| file.as_bytes() == &name[..end]).unwrap()
        };
        assert_eq!(files.loader.len() % COMMAND_BYTES, 0);
        for command in files.loader.chunks(COMMAND_BYTES) {
            let file = find(&command[4..60]);
            match u32_at(command, 0) {
                1 => assert!(placed[file].2.is_multiple_of(u32_at(command, 60) as u64)),
                2 => {
                    let (at, bytes) = (u32_at(command, 116), usize::from(command[120]));
                    let base = placed[find(&command[60..116])].2;
                    let mut pointer = [0; 8];
                    pointer[..bytes].copy_from_slice(&placed[file].1[at..at + bytes]);
                    let value = (u64::from_le_bytes(pointer) + base).to_le_bytes();
                    assert!(value[bytes..].iter().all(|byte| *byte == 0));
                    placed[file].1[at..at + bytes].copy_from_slice(&value[..bytes]);
                }
                3 => {
                    let [at, start, length] = [60, 64, 68].map(|at| u32_at(command, at));
                    let bytes = &mut placed[file].1;
                    assert_eq!(bytes[at], 0, "or it would count itself");
                    bytes[at] = sum(&bytes[start..start + length]).wrapping_neg();
                }
                other => panic!("command {other}"),
            }
        }
        let [(_, rsdp, _), (_, tables, _)] = placed;
        (rsdp, tables)
    }

    #[test]
    fn firmware_links_the_tables_wherever_it_puts_them() {
        const BASE: u64 = 0x7f00_0000;
        let files = AcpiFiles::new(3, 1 << 30).unwrap();
        let (rsdp, tables) = link(&files, BASE);
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
        let table = |address: u64, signature: &[u8]| {
            let bytes = &tables[(address - BASE) as usize..];
            let bytes = &bytes[..u32_at(bytes, 4)];
            assert_eq!((&bytes[..4], sum(bytes)), (signature, 0));
            bytes.to_vec()
        };
        let xsdt = table(u64_at(&rsdp, 24), b"XSDT");
        let entries: Vec<u64> = xsdt[36..].chunks(8).map(|entry| u64_at(entry, 0)).collect();
        let fadt = table(entries[0], b"FACP");
        table(entries[1], b"APIC");
        assert_eq!(entries.len(), 2, "ECAM, mailbox and event log are firmware's");
        assert_eq!(u32_at(&fadt, 40) as u64, u64_at(&fadt, 140));
        table(u64_at(&fadt, 140), b"DSDT");
    }

    #[test]
    fn as_many_vcpus_as_a_td_may_have_fit() {
        assert!(AcpiFiles::new(512, 1 << 30).is_ok());
        assert_eq!(AcpiFiles::new(1, 0xb000_0000), Err(NoRoom), "RAM where ECAM may be");
    }
}
