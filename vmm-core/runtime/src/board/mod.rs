//! The devices around an emulated TD.
//!
//! | device | where | interrupt |
//! |---|---|---|
//! | console (16550) | ports from 0x3F8 | GSI 4 |
//! | log (16550, `defmt` frames) | ports from 0x2F8 | GSI 3 |
//! | exit port | port 0x501 | |
//! | pvpanic | port 0x505 | |
//! | ACPI sleep control and status, reset | ports 0x600, 0x601, 0x602 | |
//! | I/O APIC | 0xFEC00000 | |
//! | no interval timer: zeros (Linux only) | ports 0x40 to 0x43 | |
//! | CMOS clock (Linux only) | ports 0x70, 0x71 | |
//! | `fw_cfg` (Linux only) | ports 0x510 to 0x51B | |
//! | virtio-mmio slot (Linux only): the disk, or nothing | 0xD0000000 | GSI 5 |
//!
//! MMIO addresses are without the SHARED bit. The boot shim describes the same board in its ACPI tables.

mod cmos;
pub mod disk;
pub mod disk_format;
pub mod disk_worker;
pub mod entropy;
pub mod hvc;
pub mod input;
pub mod linux_files;
pub mod net;
mod no_pit;
pub mod serial;
pub mod share;
pub mod vsock;

use std::fmt;
use std::io::Write;

use machine_emu::Pace;
use td_host::td::SHARED_BIT;
use tdvisor_base::{Gpa, SharedBit};
use tdvisor_devices::Devices;
use tdvisor_devices::fw_cfg::{FW_CFG_BASE, FW_CFG_PORTS, FileError};
use tdvisor_devices::io_apic::{IO_APIC_BASE, IO_APIC_SIZE};
use tdvisor_devices::virtio::blk::{Disk, VirtioBlk};
use tdvisor_devices::virtio::mmio::{EmptySlot, VIRTIO_MMIO_SIZE, VirtioMmio};
use tdvisor_devices::{
    ACPI_POWER_BASE, ACPI_POWER_PORTS, AcpiPower, AttachError, EXIT_PORT, ExitPort, MmioDevice, PVPANIC_PORT,
    PvPanic,
};

use self::cmos::{CMOS_BASE, CMOS_PORTS, Cmos};
use self::linux_files::LinuxFiles;
use self::no_pit::{NoPit, PIT_BASE, PIT_PORTS};
use self::serial::{COM1, COM1_GSI, COM2, COM2_GSI, SERIAL_PORTS, SerialInput, SerialPort};

/// Where the virtio-mmio slot is.
pub const VIRTIO_BASE: u64 = 0xd000_0000;
/// The interrupt of the virtio-mmio slot.
pub const VIRTIO_GSI: u32 = 5;

/// A host's addresses do not say whether memory is shared: a bit above all of them.
const NO_SHARED_BIT: SharedBit = SharedBit::topmost(64);

/// A board cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// Two devices at one place: a fault of this program.
    Attach(AttachError),
    /// A file cannot be offered to the guest.
    File(FileError),
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BoardError {}

impl From<AttachError> for BoardError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl From<FileError> for BoardError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The devices, and the way in to the console.
pub struct Board {
    /// For the TD.
    pub devices: Devices,
    /// What is typed.
    pub input: SerialInput,
}

impl Board {
    /// A board whose console and log go to these writers.
    ///
    /// # Errors
    /// Two devices at one place.
    pub fn new(
        console: impl Write + Send + 'static,
        log: impl Write + Send + 'static,
    ) -> Result<Self, AttachError> {
        let mut devices = Devices::default();
        let line = |gsi| devices.io_apic.line(gsi).ok_or(AttachError::BadRange);
        let input = SerialInput::new(line(COM1_GSI)?);
        let com1 = Box::new(SerialPort::new(console, input.clone()));
        let com2 = Box::new(SerialPort::new(log, SerialInput::new(line(COM2_GSI)?)));
        devices.ports.attach(COM1, SERIAL_PORTS, com1)?;
        devices.ports.attach(COM2, SERIAL_PORTS, com2)?;
        devices.ports.attach(EXIT_PORT, 1, Box::new(ExitPort))?;
        devices.ports.attach(PVPANIC_PORT, 1, Box::new(PvPanic))?;
        devices.ports.attach(ACPI_POWER_BASE, ACPI_POWER_PORTS, Box::new(AcpiPower))?;
        let io_apic = Box::new(devices.io_apic.clone());
        devices.mmio.attach(Gpa::new(IO_APIC_BASE), IO_APIC_SIZE, io_apic)?;
        Ok(Self { devices, input })
    }

    /// The same board with what a kernel and the boot shim in front of it need.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn for_linux(
        console: impl Write + Send + 'static,
        log: impl Write + Send + 'static,
        files: LinuxFiles,
        disk: Option<Box<dyn Disk>>,
        pace: Pace,
    ) -> Result<Self, BoardError> {
        let mut board = Self::new(console, log)?;
        let devices = &mut board.devices;
        devices.ports.attach(PIT_BASE, PIT_PORTS, Box::new(NoPit))?;
        devices.ports.attach(CMOS_BASE, CMOS_PORTS, Box::new(Cmos::new(pace)))?;
        devices.ports.attach(FW_CFG_BASE, FW_CFG_PORTS, Box::new(files.into_fw_cfg()?))?;
        let line = devices.io_apic.line(VIRTIO_GSI).ok_or(AttachError::BadRange)?;
        let slot: Box<dyn MmioDevice> = match disk {
            Some(disk) => {
                let device = Box::new(VirtioBlk::new(disk));
                Box::new(VirtioMmio::new(device, line, SHARED_BIT))
            }
            None => Box::new(EmptySlot),
        };
        devices.mmio.attach(Gpa::new(VIRTIO_BASE), VIRTIO_MMIO_SIZE, slot)?;
        Ok(board)
    }

    /// The board of a TDX server, whose I/O APIC and wake-up mailbox the server brings itself: console, exit port,
    /// pvpanic, ACPI power, clock, and the disk, if there is one.
    ///
    /// # Errors
    /// Two devices at one place.
    pub fn for_server(
        console: impl Write + Send + 'static,
        disk: Option<Box<dyn Disk>>,
        pace: Pace,
    ) -> Result<Self, AttachError> {
        let mut devices = Devices::default();
        let input = SerialInput::new(devices.io_apic.line(COM1_GSI).ok_or(AttachError::BadRange)?);
        devices.ports.attach(COM1, SERIAL_PORTS, Box::new(SerialPort::new(console, input.clone())))?;
        devices.ports.attach(EXIT_PORT, 1, Box::new(ExitPort))?;
        devices.ports.attach(PVPANIC_PORT, 1, Box::new(PvPanic))?;
        devices.ports.attach(ACPI_POWER_BASE, ACPI_POWER_PORTS, Box::new(AcpiPower))?;
        devices.ports.attach(PIT_BASE, PIT_PORTS, Box::new(NoPit))?;
        devices.ports.attach(CMOS_BASE, CMOS_PORTS, Box::new(Cmos::new(pace)))?;
        if let Some(disk) = disk {
            let line = devices.io_apic.line(VIRTIO_GSI).ok_or(AttachError::BadRange)?;
            // A host shares all its memory: no bit of an address says so.
            let slot = Box::new(VirtioMmio::new(Box::new(VirtioBlk::new(disk)), line, NO_SHARED_BIT));
            devices.mmio.attach(Gpa::new(VIRTIO_BASE), VIRTIO_MMIO_SIZE, slot)?;
        }
        Ok(Self { devices, input })
    }
}

#[cfg(test)]
mod tests {
    use std::io::sink;
    use std::sync::Arc;

    use tdvisor_devices::virtio::blk::{DiskAccess, DiskError};
    use tdvisor_devices::{AccessSize, DeviceRequest, SharedMemory};
    use tdvisor_vm::NotShared;

    use super::*;

    struct NoMemory;

    impl SharedMemory for NoMemory {
        fn read(&self, gpa: Gpa, _: &mut [u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }

        fn write(&self, gpa: Gpa, _: &[u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }
    }

    struct TinyDisk;

    impl Disk for TinyDisk {
        fn sectors(&self) -> u64 {
            3
        }

        fn access(&self) -> DiskAccess {
            DiskAccess::ReadOnly
        }

        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), DiskError> {
            Err(DiskError)
        }

        fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), DiskError> {
            Err(DiskError)
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            Ok(())
        }
    }

    fn linux_board(initrd: Option<Arc<[u8]>>, disk: Option<Box<dyn Disk>>) -> Devices {
        let files = LinuxFiles { kernel: Arc::from(*b"kernel"), initrd, command_line: "quiet".into() };
        Board::for_linux(sink(), sink(), files, disk, Pace::Real).unwrap().devices
    }

    /// An item of `fw_cfg`, read through its ports.
    fn item(devices: &Devices, key: u16, bytes: usize) -> Vec<u8> {
        let _ = devices.ports.write(0x510, AccessSize::Word, key.into(), &NoMemory);
        (0..bytes).map(|_| devices.ports.read(0x511, AccessSize::Byte) as u8).collect()
    }

    /// Names in the directory of `fw_cfg`, and what each file begins with.
    fn files(devices: &Devices) -> Vec<(String, Vec<u8>)> {
        let directory = item(devices, 0x19, 4 + 3 * 64);
        let count = u32::from_be_bytes(directory[..4].try_into().unwrap()) as usize;
        let entries = directory[4..].chunks(64).take(count);
        entries
            .map(|entry| {
                let size = u32::from_be_bytes(entry[..4].try_into().unwrap()) as usize;
                let key = u16::from_be_bytes(entry[4..6].try_into().unwrap());
                let name = String::from_utf8(entry[8..].to_vec()).unwrap();
                (name.trim_end_matches('\0').to_owned(), item(devices, key, size))
            })
            .collect()
    }

    fn slot(devices: &Devices, offset: u64) -> u64 {
        devices.mmio.read(Gpa::new(0xd000_0000 + offset), AccessSize::Double)
    }

    #[test]
    fn the_shim_finds_kernel_initrd_and_command_line() {
        let expect = |name: &str, contents: &[u8]| (format!("opt/org.tdvisor/{name}"), contents.to_vec());
        let devices = linux_board(Some(Arc::from(*b"ramdisk")), None);
        let all = [expect("cmdline", b"quiet"), expect("initrd", b"ramdisk"), expect("kernel", b"kernel")];
        assert_eq!(files(&devices), all);
        let devices = linux_board(None, None);
        assert_eq!(files(&devices), [expect("cmdline", b"quiet"), expect("kernel", b"kernel")]);
    }

    #[test]
    fn the_virtio_slot_has_the_disk_or_nothing() {
        let without = linux_board(None, None);
        assert_eq!((slot(&without, 0), slot(&without, 4), slot(&without, 8)), (0x7472_6976, 2, 0));
        let with = linux_board(None, Some(Box::new(TinyDisk)));
        assert_eq!((slot(&with, 0), slot(&with, 4), slot(&with, 8)), (0x7472_6976, 2, 2));
        assert_eq!(slot(&with, 0x100), 3, "its capacity");
    }

    #[test]
    fn a_kernel_can_say_how_it_ended() {
        let devices = linux_board(None, None);
        let write = |port, value| devices.ports.write(port, AccessSize::Byte, value, &NoMemory);
        assert_eq!(write(0x501, 7), DeviceRequest::PowerOff { code: 7 });
        assert_eq!(write(0x505, 1), DeviceRequest::Panicked);
        assert_eq!(write(0x600, 0x34), DeviceRequest::PowerOff { code: 0 });
        assert_eq!(write(0x602, 1), DeviceRequest::Reset);
    }
}
