//! What firmware finds in `fw_cfg`: the machine it runs on, its ACPI and SMBIOS tables, and what it is to boot.

use std::sync::Arc;

use tdvisor_devices::fw_cfg::{FileError, FwCfg, key};

use td_host::td::SHARED_BIT;

use super::acpi_files::{self, AcpiFiles};
use super::boot_files::BootFiles;
use super::cmos::Ram;
use super::{BoardError, smbios};

/// Memory as firmware has it listed: records of first address, bytes (u64 each) and kind (u32).
const E820: &str = "etc/e820";
const E820_RAM: u32 = 1;
/// Which sleep states there are, by number; bit 7 says yes, the others are the type to enter it with.
const SYSTEM_STATES: &str = "etc/system-states";
/// S0 and S5.
const STATES: [u8; 6] = [0x80, 0, 0, 1, 2, 0x80];
/// What to boot first, by Open Firmware paths, a line each.
const BOOT_ORDER: &str = "bootorder";

/// What there is to say of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    pub(super) ram: Ram,
    pub(super) vcpus: u32,
    /// The device number of the first disk on the PCI bus.
    pub(super) first_disk: Option<u8>,
}

/// The device with everything in it.
pub(super) fn fw_cfg(machine: Described, boot: BootFiles) -> Result<FwCfg, BoardError> {
    let Described { ram, vcpus, first_disk } = machine;
    let acpi = AcpiFiles::new(vcpus, ram.low).map_err(BoardError::Acpi)?;
    let order = boot.boot_order().map(str::to_owned).or_else(|| first_disk.map(disk_path));
    let smbios = smbios::files();
    let mut files: Vec<(String, Arc<[u8]>)> = boot.named();
    for (name, contents) in [
        (acpi_files::LOADER, acpi.loader),
        (acpi_files::RSDP, acpi.rsdp),
        (acpi_files::TABLES, acpi.tables),
        (smbios::ANCHOR, smbios.anchor),
        (smbios::TABLES, smbios.tables),
        (E820, e820(ram)),
        (SYSTEM_STATES, STATES.to_vec()),
    ] {
        files.push((name.to_owned(), contents.into()));
    }
    if let Some(order) = order {
        files.push((BOOT_ORDER.to_owned(), format!("{order}\0").into_bytes().into()));
    }
    let fw_cfg = machine_items(FwCfg::new(files, SHARED_BIT)?, ram, vcpus)?;
    Ok(boot.keyed(fw_cfg)?)
}

fn machine_items(fw_cfg: FwCfg, ram: Ram, vcpus: u32) -> Result<FwCfg, FileError> {
    let vcpus = u16::try_from(vcpus).unwrap_or(u16::MAX).to_le_bytes();
    let memory = ram.low.saturating_add(ram.high).to_le_bytes();
    fw_cfg
        .with_item(key::MEMORY_BYTES, Arc::from(memory))?
        .with_item(key::NO_GRAPHIC, Arc::from(1u16.to_le_bytes()))?
        .with_item(key::PROCESSORS, Arc::from(vcpus))?
        .with_item(key::PROCESSORS_MAX, Arc::from(vcpus))?
        .with_item(key::BOOT_MENU, Arc::from(0u16.to_le_bytes()))
}

fn e820(ram: Ram) -> Vec<u8> {
    const FOUR_GIB: u64 = 1 << 32;
    let mut list = Vec::new();
    for (start, bytes) in [(0, ram.low), (FOUR_GIB, ram.high)] {
        if bytes != 0 {
            list.extend(start.to_le_bytes());
            list.extend(bytes.to_le_bytes());
            list.extend(E820_RAM.to_le_bytes());
        }
    }
    list
}

/// The Open Firmware path of a disk behind a virtio function, as OVMF translates it.
fn disk_path(device: u8) -> String {
    format!("/pci@i0cf8/scsi@{device:x}/disk@0,0")
}
