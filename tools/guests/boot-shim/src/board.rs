//! The emulated board: what the shim expects of its host and describes in ACPI. The guests' README lists it too.
//!
//! This file uses `core` only, so that the host-side tests can include it.

/// The serial port of the console.
pub const COM1: u16 = 0x3F8;
/// Its interrupt.
pub const COM1_GSI: u32 = 4;
/// The second serial port: the shim's log, and then what the guest and its host agree on.
pub const COM2: u16 = 0x2F8;
/// Its interrupt.
pub const COM2_GSI: u32 = 3;
/// Ports of one serial port.
pub const SERIAL_PORTS: u8 = 8;
/// Where a guest says that it panicked.
pub const PVPANIC: u16 = 0x505;
/// fw_cfg's selector; the data port is the next one.
pub const FW_CFG_SELECTOR: u16 = 0x510;
/// fw_cfg's data port.
pub const FW_CFG_DATA: u16 = 0x511;
/// fw_cfg's DMA address, upper half; the lower half is four ports on.
pub const FW_CFG_DMA: u16 = 0x514;
/// ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI reset register.
pub const RESET: u16 = 0x602;
/// What resets the machine when it is written there.
pub const RESET_VALUE: u8 = 1;
/// The sleep type that powers off.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// The virtio-mmio slot.
pub const VIRTIO: u32 = 0xD000_0000;
/// Bytes of the slot.
pub const VIRTIO_LENGTH: u32 = 0x1000;
/// Its interrupt.
pub const VIRTIO_GSI: u32 = 5;
/// The I/O APIC.
pub const IO_APIC: u32 = 0xFEC0_0000;
/// The local APICs' address, as every machine has it.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;

/// fw_cfg file: the kernel.
pub const KERNEL_FILE: &str = "opt/org.tdvisor/kernel";
/// fw_cfg file: the initial RAM disk.
pub const INITRD_FILE: &str = "opt/org.tdvisor/initrd";
/// fw_cfg file: the command line.
pub const COMMAND_LINE_FILE: &str = "opt/org.tdvisor/cmdline";
