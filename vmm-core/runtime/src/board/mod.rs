//! The devices around an emulated TD, at the addresses of [`tdvisor_board::address`].
//!
//! Every TD has the same board: console and log, clock, `fw_cfg`, power management, host bridge and LPC bridge, I/O APIC, and
//! eight slots for virtio devices behind virtio-mmio. What is attached as a virtio device is a PCI function, or takes a slot
//! ([`Transport`]); the slots that nothing takes are empty. Firmware finds the description in `fw_cfg`,
//! or writes its own, as the boot shim does.

pub mod acpi_files;
pub mod boot_files;
pub mod cmos;
pub mod disk;
pub mod disk_format;
pub mod disk_worker;
pub mod entropy;
mod firmware_files;
pub mod hvc;
pub mod input;
pub mod kernel;
pub mod net;
mod no_pit;
pub mod serial;
pub mod share;
mod smbios;
pub mod vsock;

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use machine_emu::Pace;
use td_host::td::SHARED_BIT;
use td_image::td_hob::qemu_ram;
use tdvisor_base::{Gpa, SharedBit};
use tdvisor_board::acpi::NoRoom;
use tdvisor_board::address;
use tdvisor_devices::acpi_pm::{AcpiPm, Nanoseconds};
use tdvisor_devices::fw_cfg::FileError;
use tdvisor_devices::pci::chipset::{HostBridge, LpcBridge};
use tdvisor_devices::pci::{ConfigPorts, PciBus, PciMemory};
use tdvisor_devices::virtio::VirtioDevice;
use tdvisor_devices::virtio::blk::{Disk, VirtioBlk};
use tdvisor_devices::virtio::mmio::{EmptySlot, VirtioMmio};
use tdvisor_devices::virtio::pci::VirtioPci;
use tdvisor_devices::{AttachError, Devices, ExitPort, MmioDevice, PvPanic};

use self::boot_files::BootFiles;
use self::cmos::{Cmos, Ram};
use self::firmware_files::Described;
use self::no_pit::NoPit;
use self::serial::{SerialInput, SerialPort};

/// A host's addresses do not say whether memory is shared: a bit above all of them.
const NO_SHARED_BIT: SharedBit = SharedBit::topmost(64);

/// A board cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// Two devices at one place: a fault of this program.
    Attach(AttachError),
    /// A file cannot be offered to the guest.
    File(FileError),
    /// The ACPI tables cannot describe the board: a fault of this program.
    Acpi(NoRoom),
    /// There are more virtio devices than places for them.
    TooManyDevices {
        /// How many there are.
        asked: usize,
        /// How many places.
        places: usize,
    },
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::Acpi(error) => error.fmt(f),
            Self::TooManyDevices { asked, places } => {
                write!(f, "{asked} virtio devices are more than the board has places for: {places}")
            }
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

/// The device number of a board's first virtio device on its PCI bus: of a machine's first disk, as `tdvisor run` has disks first.
pub const FIRST_DEVICE: u8 = address::FIRST_PCI_DEVICE;

/// How virtio devices are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// As PCI functions, with MSI-X: what firmware drives, and distributions build in.
    #[default]
    Pci,
    /// In virtio-mmio slots: for kernels without PCI.
    Mmio,
}

/// What differs from board to board.
pub struct BoardSpec {
    /// How time passes.
    pub pace: Pace,
    /// The machine's time, for timers.
    pub now: Nanoseconds,
    /// Bytes of the TD's memory.
    pub memory: u64,
    /// The TD's vCPUs.
    pub vcpus: u32,
    /// What firmware boots.
    pub boot: BootFiles,
    /// virtio devices, in the order in which a kernel finds them.
    pub virtio: Vec<Box<dyn VirtioDevice>>,
    /// How those are attached.
    pub transport: Transport,
}

impl fmt::Debug for BoardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoardSpec")
            .field("memory", &self.memory)
            .field("vcpus", &self.vcpus)
            .field("boot", &self.boot)
            .field("virtio", &self.virtio.len())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// The devices, and the way in to the console.
pub struct Board {
    /// For the TD.
    pub devices: Devices,
    /// What is typed.
    pub input: SerialInput,
    /// What goes into the second serial port, where the board has one.
    pub second_input: Option<SerialInput>,
}

impl Board {
    /// A board whose console and log go to these writers.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn new(
        console: impl Write + Send + 'static,
        log: impl Write + Send + 'static,
        spec: BoardSpec,
    ) -> Result<Self, BoardError> {
        let [low, high] = qemu_ram(spec.memory).map(|range| range.bytes);
        let ram = Ram { low, high };
        let mut devices = Devices::default();
        let input = legacy(&mut devices, console, Cmos::new(spec.pace, ram), AcpiPm::new(spec.now))?;
        let line = devices.io_apic.line(address::COM2_GSI).ok_or(AttachError::BadRange)?;
        let second_input = SerialInput::new(line);
        let com2 = Box::new(SerialPort::new(log, second_input.clone()));
        devices.ports.attach(address::COM2, address::SERIAL_PORTS, com2)?;
        let io_apic = Box::new(devices.io_apic.clone());
        devices.mmio.attach(Gpa::new(address::IO_APIC), address::IO_APIC_BYTES, io_apic)?;

        let mut bus = chipset()?;
        let mut first_disk = None;
        match spec.transport {
            Transport::Pci => {
                first_disk = attach_functions(&mut devices, &mut bus, spec.virtio)?;
                attach_slots(&mut devices, Vec::new())?;
            }
            Transport::Mmio => attach_slots(&mut devices, spec.virtio)?,
        }
        attach_pci(&mut devices, Arc::new(bus), low)?;
        let described = Described { ram, vcpus: spec.vcpus, first_disk };
        let fw_cfg = firmware_files::fw_cfg(described, spec.boot)?;
        devices.ports.attach(address::FW_CFG, address::FW_CFG_PORTS, Box::new(fw_cfg))?;
        Ok(Self { devices, input, second_input: Some(second_input) })
    }

    /// The board of a TDX server, whose I/O APIC and wake-up mailbox the server brings itself: console, exit port,
    /// pvpanic, power management without its timer, clock, an empty PCI bus, and the disk in a virtio-mmio slot, if there is one.
    ///
    /// # Errors
    /// Two devices at one place.
    pub fn for_server(
        console: impl Write + Send + 'static,
        disk: Option<Box<dyn Disk>>,
        pace: Pace,
    ) -> Result<Self, AttachError> {
        let mut devices = Devices::default();
        let input = legacy(&mut devices, console, Cmos::new(pace, Ram::default()), AcpiPm::without_timer())?;
        let ports = Box::new(ConfigPorts::new(Arc::new(PciBus::new())));
        devices.ports.attach(address::PCI_CONFIG, address::PCI_CONFIG_PORTS, ports)?;
        if let (Some(disk), Some((base, gsi))) = (disk, address::virtio_mmio_slot(0)) {
            let line = devices.io_apic.line(gsi).ok_or(AttachError::BadRange)?;
            // A host shares all its memory: no bit of an address says so.
            let slot = Box::new(VirtioMmio::new(Box::new(VirtioBlk::new(disk)), line, NO_SHARED_BIT));
            devices.mmio.attach(Gpa::new(base), address::VIRTIO_MMIO_BYTES, slot)?;
        }
        Ok(Self { devices, input, second_input: None })
    }
}

/// What every board has at ports, beside PCI and `fw_cfg`. Gives the way in to the console.
fn legacy(
    devices: &mut Devices,
    console: impl Write + Send + 'static,
    clock: Cmos,
    power: AcpiPm,
) -> Result<SerialInput, AttachError> {
    let input = SerialInput::new(devices.io_apic.line(address::COM1_GSI).ok_or(AttachError::BadRange)?);
    let com1 = Box::new(SerialPort::new(console, input.clone()));
    devices.ports.attach(address::COM1, address::SERIAL_PORTS, com1)?;
    devices.ports.attach(address::EXIT, 1, Box::new(ExitPort))?;
    devices.ports.attach(address::PVPANIC, 1, Box::new(PvPanic))?;
    devices.ports.attach(address::PM, address::PM_PORTS, Box::new(power))?;
    devices.ports.attach(address::PIT, address::PIT_PORTS, Box::new(NoPit))?;
    devices.ports.attach(address::CMOS, address::CMOS_PORTS, Box::new(clock))?;
    Ok(input)
}

/// A bus with the two bridges.
fn chipset() -> Result<PciBus, AttachError> {
    const { assert!(address::ECAM <= 0xffff_ffff) };
    const ECAM: u32 = (address::ECAM & 0xffff_ffff) as u32;
    let mut bus = PciBus::new();
    bus.attach(0, Box::new(HostBridge::new(ECAM)))?;
    bus.attach(address::LPC_DEVICE, Box::new(LpcBridge::new(address::PM)))?;
    Ok(bus)
}

/// Attaches virtio devices as PCI functions; gives the device number of the first disk.
fn attach_functions(
    devices: &mut Devices,
    bus: &mut PciBus,
    virtio: Vec<Box<dyn VirtioDevice>>,
) -> Result<Option<u8>, BoardError> {
    let places = address::FIRST_PCI_DEVICE..address::LPC_DEVICE;
    if virtio.len() > places.len() {
        return Err(BoardError::TooManyDevices { asked: virtio.len(), places: places.len() });
    }
    let mut first_disk = None;
    for (number, device) in places.zip(virtio) {
        if device.id() == tdvisor_devices::virtio::blk::DEVICE_ID {
            first_disk = first_disk.or(Some(number));
        }
        let line = devices.io_apic.line(address::pci_gsi(number)).ok_or(AttachError::BadRange)?;
        let function = VirtioPci::new(device, line, SHARED_BIT);
        devices.messages.push(function.msix());
        bus.attach(number, Box::new(function))?;
    }
    Ok(first_disk)
}

/// Attaches virtio devices to virtio-mmio slots, and nothing to the slots that are left.
fn attach_slots(devices: &mut Devices, virtio: Vec<Box<dyn VirtioDevice>>) -> Result<(), BoardError> {
    let places = address::VIRTIO_MMIO_GSIS.len();
    if virtio.len() > places {
        return Err(BoardError::TooManyDevices { asked: virtio.len(), places });
    }
    let mut virtio = virtio.into_iter();
    for (base, gsi) in (0..).map_while(address::virtio_mmio_slot) {
        let line = devices.io_apic.line(gsi).ok_or(AttachError::BadRange)?;
        let slot: Box<dyn MmioDevice> = match virtio.next() {
            Some(device) => Box::new(VirtioMmio::new(device, line, SHARED_BIT)),
            None => Box::new(EmptySlot),
        };
        devices.mmio.attach(Gpa::new(base), address::VIRTIO_MMIO_BYTES, slot)?;
    }
    Ok(())
}

/// Attaches the ways to a bus.
fn attach_pci(devices: &mut Devices, bus: Arc<PciBus>, low_ram: u64) -> Result<(), AttachError> {
    let ports = Box::new(ConfigPorts::new(bus.clone()));
    devices.ports.attach(address::PCI_CONFIG, address::PCI_CONFIG_PORTS, ports)?;
    let base = address::pci_memory(low_ram);
    let bytes = address::PCI_MEMORY_END.saturating_sub(base);
    devices.mmio.attach_space(Gpa::new(base), bytes, Box::new(PciMemory::new(bus, base)))
}

#[cfg(test)]
mod tests {
    use std::io::sink;

    use super::boot_files::LinuxFiles;

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

    fn files_of(initrd: Option<Arc<[u8]>>) -> LinuxFiles {
        LinuxFiles { kernel: Arc::from(*b"kernel"), initrd, command_line: "quiet".into() }
    }

    fn board(boot: BootFiles, disks: usize, transport: Transport) -> Result<Devices, BoardError> {
        let disk = |_| -> Box<dyn VirtioDevice> { Box::new(VirtioBlk::new(Box::new(TinyDisk))) };
        let spec = BoardSpec {
            pace: Pace::Real,
            now: Box::new(|| 0),
            memory: 1 << 30,
            vcpus: 2,
            boot,
            virtio: (0..disks).map(disk).collect(),
            transport,
        };
        Ok(Board::new(sink(), sink(), spec)?.devices)
    }

    /// An item of `fw_cfg`, read through its ports.
    fn item(devices: &Devices, key: u16, bytes: usize) -> Vec<u8> {
        let _ = devices.ports.write(0x510, AccessSize::Word, key.into(), &NoMemory);
        (0..bytes).map(|_| devices.ports.read(0x511, AccessSize::Byte) as u8).collect()
    }

    /// Names in the directory of `fw_cfg`, and each file.
    fn files(devices: &Devices) -> Vec<(String, Vec<u8>)> {
        let count = u32::from_be_bytes(item(devices, 0x19, 4).try_into().unwrap()) as usize;
        let directory = item(devices, 0x19, 4 + count * 64);
        directory[4..]
            .chunks(64)
            .map(|entry| {
                let size = u32::from_be_bytes(entry[..4].try_into().unwrap()) as usize;
                let key = u16::from_be_bytes(entry[4..6].try_into().unwrap());
                let name = String::from_utf8(entry[8..].to_vec()).unwrap();
                (name.trim_end_matches('\0').to_owned(), item(devices, key, size))
            })
            .collect()
    }

    fn file(devices: &Devices, name: &str) -> Option<Vec<u8>> {
        files(devices).into_iter().find(|(other, _)| other == name).map(|(_, contents)| contents)
    }

    fn slot(devices: &Devices, index: u64, offset: u64) -> u64 {
        devices.mmio.read(Gpa::new(address::VIRTIO_MMIO + 0x1000 * index + offset), AccessSize::Double)
    }

    fn function(devices: &Devices, device: u64) -> u64 {
        devices.mmio.read(Gpa::new(address::ECAM + (device << 15)), AccessSize::Double)
    }

    #[test]
    fn the_shim_finds_kernel_initrd_and_command_line() {
        let initrd = Some(Arc::from(*b"ramdisk"));
        let devices = board(BootFiles::Shim(files_of(initrd)), 0, Transport::Mmio).unwrap();
        let of = |name: &str| file(&devices, &format!("opt/org.tdvisor/{name}"));
        assert_eq!(of("cmdline").as_deref(), Some(&b"quiet"[..]));
        assert_eq!(of("initrd").as_deref(), Some(&b"ramdisk"[..]));
        assert_eq!(of("kernel").as_deref(), Some(&b"kernel"[..]));
        let devices = board(BootFiles::Shim(files_of(None)), 0, Transport::Mmio).unwrap();
        assert_eq!(file(&devices, "opt/org.tdvisor/initrd"), None);
    }

    #[test]
    fn uefi_finds_the_same_under_the_keys_that_it_knows() {
        let mut linux = files_of(Some(Arc::from(*b"ramdisk")));
        let mut kernel = vec![7u8; 3 * 512];
        kernel[0x1f1] = 1;
        kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        linux.kernel = kernel.clone().into();
        let devices = board(BootFiles::Uefi(linux), 0, Transport::Pci).unwrap();
        for (size, contents, expected) in [
            (0x17, 0x18, &kernel[..1024]),
            (0x08, 0x11, &kernel[1024..]),
            (0x0b, 0x12, b"ramdisk"),
            (0x14, 0x15, b"quiet\0"),
        ] {
            let bytes = u32::from_le_bytes(item(&devices, size, 4).try_into().unwrap()) as usize;
            assert_eq!(item(&devices, contents, bytes), expected, "{contents:#x}");
        }
        assert_eq!(file(&devices, "opt/org.tdvisor/kernel"), None);
        assert_eq!(file(&devices, "bootorder").unwrap(), b"/rom@genroms/linuxboot_dma.bin\0");
    }

    #[test]
    fn firmware_finds_a_description_of_the_machine() {
        let devices = board(BootFiles::None, 1, Transport::Pci).unwrap();
        assert_eq!(item(&devices, 5, 2), [2, 0], "vCPUs");
        assert_eq!(file(&devices, "etc/e820").unwrap().len(), 20);
        for name in ["etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables", "etc/smbios/smbios-anchor"] {
            assert!(file(&devices, name).is_some(), "{name}");
        }
        assert_eq!(file(&devices, "bootorder").unwrap(), b"/pci@i0cf8/scsi@2/disk@0,0\0");
    }

    #[test]
    fn virtio_devices_are_functions_or_in_slots_and_the_other_places_are_empty() {
        let devices = board(BootFiles::None, 2, Transport::Mmio).unwrap();
        assert_eq!([0, 1, 2, 7].map(|index| slot(&devices, index, 8)), [2, 2, 0, 0]);
        assert_eq!(slot(&devices, 1, 0x100), 3, "its capacity");
        assert_eq!(function(&devices, 2), 0xffff_ffff);
        let devices = board(BootFiles::None, 2, Transport::Pci).unwrap();
        assert_eq!(
            [0, 7].map(|index| (slot(&devices, index, 0), slot(&devices, index, 8))),
            [(0x7472_6976, 0), (0x7472_6976, 0)]
        );
        let all = [0, 1, 2, 3, 4, 31].map(|device| function(&devices, device));
        let nothing = 0xffff_ffff;
        assert_eq!(all, [0x29c0_8086, nothing, 0x1042_1af4, 0x1042_1af4, nothing, 0x2918_8086]);
    }

    #[test]
    fn more_devices_than_places_are_refused() {
        let error = board(BootFiles::None, 9, Transport::Mmio).unwrap_err();
        assert_eq!(error, BoardError::TooManyDevices { asked: 9, places: 8 });
        assert!(board(BootFiles::None, 29, Transport::Pci).is_ok());
        assert!(board(BootFiles::None, 30, Transport::Pci).is_err());
    }

    #[test]
    fn a_kernel_can_say_how_it_ended() {
        let devices = board(BootFiles::None, 0, Transport::Pci).unwrap();
        let write = |port, value| devices.ports.write(port, AccessSize::Byte, value, &NoMemory);
        assert_eq!(write(0x501, 7), DeviceRequest::PowerOff { code: 7 });
        assert_eq!(write(0x505, 1), DeviceRequest::Panicked);
        assert_eq!(write(0x605, 0x20), DeviceRequest::PowerOff { code: 0 });
        assert_eq!(write(0xcf9, 0x0e), DeviceRequest::Reset);
    }
}
