//! The ACPI tables of a server: RSDP, XSDT, FADT, DSDT, MADT and DMAR (ACPI 6.5).
//!
//! Hardware-reduced: neither a FACS nor fixed hardware beyond the sleep and reset registers. Processors are started by
//! the multiprocessor wake-up mailbox, version 1, so that they can also go offline and come back.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::layout::{MAILBOX, REMAPPING, TABLES, TABLES_BYTES};
use crate::remapping::IO_APIC_SOURCE;

/// The I/O APIC's id, in MADT and DMAR.
const IO_APIC_ID: u8 = 0;

const OEM: [u8; 6] = *b"TDVISR";
const OEM_TABLE: [u8; 8] = *b"TDVSERVR";
const OEM_REVISION: u32 = 1;

/// IA-PC boot architecture: there is no VGA; a clock is in CMOS, and no other legacy device.
const NO_VGA: u16 = 1 << 2;

/// A device that the DSDT names.
#[derive(Clone, Debug)]
pub enum Described {
    /// A 16550 at these I/O ports.
    Serial {
        /// The first port.
        port: u16,
        /// The port's global system interrupt.
        gsi: u32,
    },
    /// A virtio-mmio slot of 512 bytes.
    VirtioMmio {
        /// First byte of the slot.
        base: u32,
        /// Bytes of the slot.
        bytes: u32,
        /// The slot's global system interrupt.
        gsi: u32,
    },
}

/// What the tables say.
#[derive(Clone, Debug)]
pub struct Description {
    /// x2APIC ids of the processors, in the order in which an operating system shall number them.
    pub apic_ids: Vec<u32>,
    /// Physical address of the I/O APIC.
    pub io_apic: u32,
    /// Code to which a processor jumps that goes offline.
    pub reset_vector: u64,
    /// I/O ports: sleep control, sleep status, reset.
    pub power_ports: [u16; 3],
    /// The value that a reset is asked for with.
    pub reset_value: u8,
    /// What to write as sleep type to power off.
    pub sleep_type_off: u8,
    /// Devices.
    pub devices: Vec<Described>,
}

/// The tables do not fit their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl core::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the ACPI tables need more than {TABLES_BYTES} bytes: too many processors")
    }
}

impl core::error::Error for TooLarge {}

struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// The tables as they lie from [`TABLES`] on; the root pointer comes first.
///
/// # Errors
/// [`TooLarge`].
pub fn tables(of: &Description) -> Result<Vec<u8>, TooLarge> {
    let mut area = Bytes(vec![0; Rsdp::len()]);
    let dsdt = place(&mut area, &dsdt(of));
    let fadt = place(&mut area, &fadt(of, dsdt).finalize());
    let madt = place(&mut area, &madt(of));
    let dmar = place(&mut area, &dmar());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    xsdt.add_entry(dmar);
    let xsdt = place(&mut area, &xsdt);
    let mut root = Bytes(Vec::new());
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    let Bytes(mut bytes) = area;
    for (to, from) in bytes.iter_mut().zip(root.0) {
        *to = from;
    }
    if bytes.len() as u64 > TABLES_BYTES { Err(TooLarge) } else { Ok(bytes) }
}

/// Appends a table, 16-byte aligned, and gives its physical address.
fn place(area: &mut Bytes, table: &dyn Aml) -> u64 {
    area.0.resize(area.0.len().next_multiple_of(16), 0);
    let address = TABLES + area.0.len() as u64;
    table.to_aml_bytes(area);
    address
}

fn fadt(of: &Description, dsdt: u64) -> FADTBuilder {
    let [control, status, reset] = of.power_ports.map(port_register);
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION).dsdt_64(dsdt);
    let flags = Flags::ResetRegSup as u32
        | Flags::ForceApicPhysicalDestinationMode as u32
        | Flags::HwReducedAcpi as u32;
    fadt.flags = flags.into();
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.sleep_control_reg = control;
    fadt.sleep_status_reg = status;
    fadt.reset_reg = reset;
    fadt.reset_value = of.reset_value;
    fadt
}

/// One byte at an I/O port.
fn port_register(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

/// MADT. The revision is that of ACPI 6.4, which has the wake-up structure.
fn madt(of: &Description) -> Sdt {
    const REVISION: u8 = 5;
    const HEADER: u32 = 36;
    /// What x2APIC-only processors keep in the field for the xAPIC's window.
    const XAPIC_WINDOW: u32 = 0xFEE0_0000;
    const ENABLED: u32 = 1;
    const IO_APIC: u8 = 1;
    const LOCAL_X2APIC: u8 = 9;
    const MULTIPROCESSOR_WAKEUP: u8 = 0x10;

    let mut madt = Sdt::new(*b"APIC", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    madt.append_slice(&XAPIC_WINDOW.to_le_bytes());
    // Flags: no legacy interrupt controllers.
    madt.append_slice(&0u32.to_le_bytes());
    for (uid, id) in (0u32..).zip(&of.apic_ids) {
        madt.append_slice(&[LOCAL_X2APIC, 16, 0, 0]);
        for word in [*id, ENABLED, uid] {
            madt.append_slice(&word.to_le_bytes());
        }
    }
    madt.append_slice(&[IO_APIC, 12, IO_APIC_ID, 0]);
    for word in [of.io_apic, 0] {
        madt.append_slice(&word.to_le_bytes());
    }
    // Mailbox version 1: with a reset vector, and with the test command.
    madt.append_slice(&[MULTIPROCESSOR_WAKEUP, 24, 1, 0, 0, 0, 0, 0]);
    for address in [MAILBOX, of.reset_vector] {
        madt.append_slice(&address.to_le_bytes());
    }
    madt
}

/// DMAR: one unit that remaps the interrupts of the I/O APIC (VT-d specification, "DMA Remapping Reporting Structure").
fn dmar() -> Sdt {
    const REVISION: u8 = 1;
    const HEADER: u32 = 36;
    /// Bits of a physical address, less one.
    const ADDRESS_WIDTH: u8 = 51;
    const INTERRUPT_REMAPPING: u8 = 1;
    const HARDWARE_UNIT: u16 = 0;
    const UNIT_BYTES: u16 = 16;
    const INCLUDE_ALL: u8 = 1;
    const SCOPE_IO_APIC: u8 = 3;
    const SCOPE_BYTES: u8 = 8;

    let mut dmar = Sdt::new(*b"DMAR", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    dmar.append_slice(&[ADDRESS_WIDTH, INTERRUPT_REMAPPING]);
    dmar.append_slice(&[0; 10]);
    dmar.append_slice(&HARDWARE_UNIT.to_le_bytes());
    dmar.append_slice(&(UNIT_BYTES + u16::from(SCOPE_BYTES)).to_le_bytes());
    // Flags, size of the register set (4 KiB), segment.
    dmar.append_slice(&[INCLUDE_ALL, 0, 0, 0]);
    dmar.append_slice(&REMAPPING.to_le_bytes());
    let source = IO_APIC_SOURCE;
    dmar.append_slice(&[
        SCOPE_IO_APIC,
        SCOPE_BYTES,
        0,
        0,
        IO_APIC_ID,
        source.bus,
        source.device,
        source.function,
    ]);
    dmar
}

/// DSDT: how to power off, and the devices that cannot be found otherwise.
fn dsdt(of: &Description) -> Sdt {
    const HEADER: u32 = 36;
    /// Integers are 64 bits wide from revision 2 on.
    const REVISION: u8 = 2;

    let mut dsdt = Sdt::new(*b"DSDT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    let mut aml = Bytes(Vec::new());
    let off = of.sleep_type_off;
    Name::new("_S5_".into(), &Package::new(vec![&off, &off, &0u8, &0u8])).to_aml_bytes(&mut aml);
    for (number, device) in of.devices.iter().enumerate() {
        describe(number, device, &mut aml);
    }
    dsdt.append_slice(&aml.0);
    dsdt
}

/// Scope (\_SB) { Device (Dnnn) { _HID, _UID, _CRS } }
fn describe(number: usize, device: &Described, aml: &mut Bytes) {
    let interrupt = |gsi| Interrupt::new(true, true, false, false, gsi);
    let uid = number as u64;
    let uid = Name::new("_UID".into(), &uid);
    let mut write = |hid: &dyn Aml, crs: Vec<&dyn Aml>| {
        let hid = Name::new("_HID".into(), hid);
        let crs = Name::new("_CRS".into(), &ResourceTemplate::new(crs));
        let coherent = Name::new("_CCA".into(), &1u8);
        let device = Device::new(Path::new(&format!("D{number:03X}")), vec![&hid, &uid, &coherent, &crs]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(aml);
    };
    match *device {
        Described::Serial { port, gsi } => {
            write(&EISAName::new("PNP0501"), vec![&IO::new(port, port, 1, 8), &interrupt(gsi)]);
        }
        Described::VirtioMmio { base, bytes, gsi } => {
            write(&"LNRO0005", vec![&Memory32Fixed::new(true, base, bytes), &interrupt(gsi)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(processors: u32) -> Description {
        Description {
            apic_ids: (0..processors).collect(),
            io_apic: 0xFEC0_0000,
            reset_vector: 0xF_3000,
            power_ports: [0x600, 0x601, 0x602],
            reset_value: 6,
            sleep_type_off: 5,
            devices: vec![
                Described::Serial { port: 0x3f8, gsi: 4 },
                Described::VirtioMmio { base: 0xd000_0000, bytes: 0x200, gsi: 5 },
            ],
        }
    }

    fn u32_at(bytes: &[u8], at: u64) -> u64 {
        let at = (at - TABLES) as usize;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
    }

    fn u64_at(bytes: &[u8], at: u64) -> u64 {
        u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
    }

    /// Address and contents of the tables that the root pointer leads to.
    fn found(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let table = |at: u64| {
            let start = (at - TABLES) as usize;
            bytes[start..start + u32_at(bytes, at + 4) as usize].to_vec()
        };
        let xsdt_at = u64_at(bytes, TABLES + 24);
        let xsdt = table(xsdt_at);
        let mut all: Vec<_> =
            (36..xsdt.len() as u64).step_by(8).map(|entry| table(u64_at(bytes, xsdt_at + entry))).collect();
        let dsdt = u64::from_le_bytes(all[0][140..148].try_into().unwrap());
        all.push(table(dsdt));
        all.push(xsdt);
        all.into_iter().map(|table| (String::from_utf8(table[..4].to_vec()).unwrap(), table)).collect()
    }

    #[test]
    fn every_table_is_reached_from_the_root_pointer_and_has_a_checksum_that_fits() {
        let bytes = tables(&description(4)).unwrap();
        assert_eq!(&bytes[..8], b"RSD PTR ");
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let found = found(&bytes);
        assert_eq!(
            found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["FACP", "APIC", "DMAR", "DSDT", "XSDT"]
        );
        for (name, table) in &found {
            assert_eq!(sum(table), 0, "{name}");
        }
    }

    #[test]
    fn the_madt_names_every_processor_and_the_mailbox() {
        let found = found(&tables(&description(3)).unwrap());
        let madt = &found[1].1;
        let (mut at, mut ids, mut wakeup) = (44, Vec::new(), None);
        while at < madt.len() {
            let (kind, length) = (madt[at], madt[at + 1] as usize);
            match kind {
                9 => ids.push(madt[at + 4]),
                0x10 => wakeup = Some(madt[at + 2..at + length].to_vec()),
                _ => {}
            }
            at += length;
        }
        assert_eq!(ids, [0, 1, 2]);
        let wakeup = wakeup.unwrap();
        assert_eq!(wakeup[0], 1, "mailbox version");
        assert_eq!(wakeup[6..14], MAILBOX.to_le_bytes());
        assert_eq!(wakeup[14..22], 0xF_3000u64.to_le_bytes());
    }

    #[test]
    fn more_processors_than_fit_are_refused() {
        assert!(tables(&description(1024)).is_ok());
        assert_eq!(tables(&description(5000)), Err(TooLarge));
    }
}
