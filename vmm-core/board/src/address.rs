//! Every address and interrupt of the board.
//!
//! | where | what | interrupt |
//! |---|---|---|
//! | ports 0x40 to 0x43 | no interval timer: zeros | |
//! | ports 0x70, 0x71 | clock and CMOS memory | |
//! | ports 0x2F8 to 0x2FF | COM2: the log of firmware and guests that have one | GSI 3 |
//! | ports 0x3F8 to 0x3FF | COM1: the console | GSI 4 |
//! | port 0x501 | exit port | |
//! | port 0x505 | pvpanic | |
//! | ports 0x510 to 0x51B | fw_cfg | |
//! | ports 0x600 to 0x67F | ACPI power management | GSI 9, which nothing raises |
//! | ports 0xCF8 to 0xCFF | PCI configuration; 0xCF9 is reset control | |
//! | 0x80000000, or the end of RAM, to 0xFBFFFFFF | PCI memory | GSI 16 to 19, or messages |
//! | 0xE0000000 to 0xEFFFFFFF of it | ECAM, unless firmware moves it | |
//! | 0xFEB00000 | eight virtio-mmio slots of 4 KiB | GSI 5, 6, 7, 10, 11, 12, 14, 15 |
//! | 0xFEC00000 | I/O APIC | |
//!
//! Guest-physical addresses are without the SHARED bit. Those between the top of low RAM and 4 GiB are never RAM.

/// The interval timer that is not there: the first of its ports.
pub const PIT: u16 = 0x40;
/// Ports of the interval timer.
pub const PIT_PORTS: u16 = 4;

/// The index port of the clock; the data port follows.
pub const CMOS: u16 = 0x70;
/// Ports of the clock.
pub const CMOS_PORTS: u16 = 2;

/// COM1: the console.
pub const COM1: u16 = 0x3f8;
/// The interrupt of COM1.
pub const COM1_GSI: u32 = 4;
/// COM2: `defmt` frames.
pub const COM2: u16 = 0x2f8;
/// The interrupt of COM2.
pub const COM2_GSI: u32 = 3;
/// Ports of one 16550.
pub const SERIAL_PORTS: u16 = 8;

/// Where a guest ends its VM and says how it went.
pub const EXIT: u16 = 0x501;
/// Where a guest says that it panicked.
pub const PVPANIC: u16 = 0x505;

/// The first port of fw_cfg: the selector.
pub const FW_CFG: u16 = 0x510;
/// The data port of fw_cfg.
pub const FW_CFG_DATA: u16 = 0x511;
/// The DMA address of fw_cfg, upper half; the lower half is four ports on.
pub const FW_CFG_DMA: u16 = 0x514;
/// Ports of fw_cfg.
pub const FW_CFG_PORTS: u16 = 12;

/// The ACPI power-management block, where firmware for Q35 puts it (PMBASE of the LPC bridge).
pub const PM: u16 = 0x600;
/// Ports of the ACPI power-management block.
pub const PM_PORTS: u16 = 0x80;

/// The system control interrupt, by which ACPI's fixed hardware would tell of events.
pub const SCI_GSI: u32 = 9;

/// The address register of PCI configuration mechanism 1; the data register is four ports on.
pub const PCI_CONFIG: u16 = 0xcf8;
/// Ports of PCI configuration mechanism 1, the reset control register among them.
pub const PCI_CONFIG_PORTS: u16 = 8;
/// The reset control register of the LPC bridge.
pub const RESET_CONTROL: u16 = 0xcf9;

/// The least address of PCI memory; RAM below 4 GiB may end later, and then PCI memory begins there.
pub const PCI_MEMORY: u64 = 0x8000_0000;
/// The first address behind PCI memory.
pub const PCI_MEMORY_END: u64 = 0xfc00_0000;
/// ECAM, where firmware leaves it.
pub const ECAM: u64 = 0xe000_0000;
/// Where firmware before edk2-stable202302 or so puts ECAM; later ones leave it at [`ECAM`].
pub const OLD_ECAM: u64 = 0xb000_0000;
/// Bytes of ECAM: 256 buses.
pub const ECAM_BYTES: u64 = 0x1000_0000;
/// The interrupts of the pins INTA to INTD of device 0; each next device begins one later, around.
pub const PCI_GSIS: [u32; 4] = [16, 17, 18, 19];

/// The LPC bridge's device number.
pub const LPC_DEVICE: u8 = 31;
/// The first device number for what is not part of the chipset.
pub const FIRST_PCI_DEVICE: u8 = 2;

/// The first virtio-mmio slot.
pub const VIRTIO_MMIO: u64 = 0xfeb0_0000;
/// Bytes of one virtio-mmio slot.
pub const VIRTIO_MMIO_BYTES: u64 = 0x1000;
/// The interrupts of the virtio-mmio slots, one each.
pub const VIRTIO_MMIO_GSIS: [u32; 8] = [5, 6, 7, 10, 11, 12, 14, 15];

/// The I/O APIC.
pub const IO_APIC: u64 = 0xfec0_0000;
/// Bytes of the I/O APIC's window.
pub const IO_APIC_BYTES: u64 = 0x1000;
/// The local APICs, as every machine has them.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// Where a virtio-mmio slot is; `None` beyond the last.
#[must_use]
pub const fn virtio_mmio_slot(index: usize) -> Option<(u64, u32)> {
    if index >= VIRTIO_MMIO_GSIS.len() {
        return None;
    }
    Some((VIRTIO_MMIO + VIRTIO_MMIO_BYTES * index as u64, VIRTIO_MMIO_GSIS[index]))
}

/// The interrupt of pin INTA of a PCI device.
#[must_use]
pub const fn pci_gsi(device: u8) -> u32 {
    PCI_GSIS[device as usize % PCI_GSIS.len()]
}

/// Where PCI memory begins on a board whose RAM below 4 GiB ends at `low_ram`.
#[must_use]
pub const fn pci_memory(low_ram: u64) -> u64 {
    if low_ram > PCI_MEMORY { low_ram } else { PCI_MEMORY }
}
