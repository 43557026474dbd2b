//! The ACPI tables, followed as an operating system follows them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its subject has failed"
)]

use tdvisor_attest::ccel::{CcType, Ccel, LogAddress};
use tdvisor_board::acpi::{self, Area, Ecam, EventLog, Machine, NoRoom, WakeUp};

const BASE: u64 = 0x11_7024;
const AREA: usize = 0x4000;

fn machine(vcpus: u32) -> Machine {
    Machine {
        vcpus,
        low_ram: 1 << 30,
        ecam: Ecam::Fixed,
        wake_up: Some(WakeUp { mailbox: 0x11_5000, reset_vector: 0x11_5840 }),
        event_log: Some(EventLog { base: 0x12_1000, bytes: 0x1_0000 }),
    }
}

fn written(bytes: &mut [u8], machine: &Machine) -> Result<u64, NoRoom> {
    acpi::write(&mut Area::new(bytes, BASE, &mut |_| {}), machine)
}

/// The area, and the address of the XSDT in it.
fn area(machine: &Machine) -> (Vec<u8>, u64) {
    let mut area = vec![0xaa; AREA];
    let xsdt = written(&mut area, machine).unwrap();
    (area, xsdt)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The table at a GPA, whose place, signature, length and checksum are as they should be.
fn table<'a>(area: &'a [u8], gpa: u64, signature: &[u8; 4]) -> &'a [u8] {
    assert_eq!(gpa % 16, 0, "aligned");
    let bytes = &area[(gpa - BASE) as usize..];
    assert_eq!(&bytes[..4], signature);
    let table = &bytes[..u32_at(bytes, 4) as usize];
    assert_eq!(sum(table), 0, "checksum of {}", String::from_utf8_lossy(signature));
    table
}

/// The tables that the XSDT lists, and the DSDT.
struct Tables<'a> {
    fadt: &'a [u8],
    madt: &'a [u8],
    mcfg: &'a [u8],
    ccel: &'a [u8],
    dsdt: &'a [u8],
}

fn tables((area, xsdt): &(Vec<u8>, u64)) -> Tables<'_> {
    let xsdt = table(area, *xsdt, b"XSDT");
    assert_eq!(xsdt.len(), 36 + 4 * 8);
    let fadt = table(area, u64_at(xsdt, 36), b"FACP");
    Tables {
        fadt,
        madt: table(area, u64_at(xsdt, 44), b"APIC"),
        mcfg: table(area, u64_at(xsdt, 52), b"MCFG"),
        ccel: table(area, u64_at(xsdt, 60), b"CCEL"),
        dsdt: table(area, u64_at(fadt, 140), b"DSDT"),
    }
}

#[test]
fn the_root_pointer_has_two_checksums() {
    let rsdp = acpi::rsdp(0x1234_5678_9abc);
    assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp), rsdp[15]), (&b"RSD PTR "[..], 0, 0, 2));
    assert_eq!(u64_at(&rsdp, 24), 0x1234_5678_9abc);
}

#[test]
fn the_fadt_has_the_fixed_hardware_of_q35_and_says_how_to_reset() {
    let area = area(&machine(2));
    let Tables { fadt, .. } = tables(&area);
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 5));
    let flags = u32_at(fadt, 112);
    assert_eq!(
        flags >> 20 & 1,
        0,
        "HW_REDUCED_ACPI: Linux would restart by EFI alone, and then by real mode"
    );
    assert_eq!(flags, 1 << 10 | 1 << 6 | 1 << 5 | 1 << 4 | 1, "RESET_REG_SUP, no buttons, no alarm, WBINVD");
    let port = |at: usize| (fadt[at], fadt[at + 1], u64_at(fadt, at + 4));
    assert_eq!(port(116), (1, 8, 0xcf9), "reset register");
    assert_eq!(fadt[128], 0x0e, "reset value");
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140), "both addresses of the DSDT");
    assert_eq!((fadt[46], fadt[47]), (9, 0), "the system control interrupt");
    assert_eq!(u32_at(fadt, 48), 0, "no SMI command: ACPI mode from the start");
    for (name, short, length, long) in [("events", 56, 88, 148), ("control", 64, 89, 172)] {
        let (kind, bits, address) = port(long);
        assert_eq!((kind, bits), (1, fadt[length] * 8), "{name}");
        assert_eq!(address, u64::from(u32_at(fadt, short)), "{name}");
    }
    assert_eq!([56, 64].map(|at| u32_at(fadt, at)), [0x600, 0x604]);
    let timer = (u32_at(fadt, 76), fadt[91], port(208));
    assert_eq!(timer, (0, 0, (0, 0, 0)), "no timer that wraps within seconds judges the TSC");
    let (facs, at) = (u64::from(u32_at(fadt, 36)), (u64::from(u32_at(fadt, 36)) - BASE) as usize);
    assert_eq!((facs % 64, &area.0[at..at + 4], u32_at(&area.0, at + 4)), (0, &b"FACS"[..], 64));
}

#[test]
fn the_madt_lists_every_vcpu_the_io_apic_the_system_control_interrupt_and_the_mailbox() {
    for vcpus in [1, 2, 255, 256, 512] {
        let area = area(&machine(vcpus));
        let Tables { madt, .. } = tables(&area);
        let (mut ids, mut io_apics, mut overrides, mut mailboxes) = (vec![], vec![], vec![], vec![]);
        let mut at = 44;
        while at < madt.len() {
            let entry = &madt[at..at + usize::from(madt[at + 1])];
            match entry[0] {
                0 => ids.push((u32::from(entry[3]), u32_at(entry, 4))),
                9 => ids.push((u32_at(entry, 4), u32_at(entry, 8))),
                2 => overrides.push((entry[3], u32_at(entry, 4), entry[8])),
                1 => io_apics.push((entry[2], u32_at(entry, 4), u32_at(entry, 8))),
                0x10 => mailboxes.push((entry[2], u64_at(entry, 8), u64_at(entry, 16))),
                other => panic!("unknown entry {other}"),
            }
            at += entry.len();
        }
        assert_eq!(ids, (0..vcpus).map(|id| (id, 1)).collect::<Vec<_>>(), "enabled, by index");
        assert_eq!(io_apics, [(0, 0xFEC0_0000, 0)]);
        assert_eq!(overrides, [(9, 9, 0b1101)], "the system control interrupt: active high, level");
        assert_eq!(mailboxes, [(1, 0x11_5000, 0x11_5840)]);
    }
}

#[test]
fn attest_finds_the_event_log_by_the_ccel_table() {
    let area = area(&machine(1));
    let ccel = Ccel::parse(tables(&area).ccel).unwrap();
    assert!(ccel.checksum_holds);
    assert_eq!((ccel.cc_type, ccel.cc_subtype), (CcType::TDX, 0));
    assert_eq!((ccel.log_area, ccel.log_area_bytes), (LogAddress(0x12_1000), 0x1_0000));
}

#[test]
fn the_dsdt_describes_the_boards_devices() {
    let area = area(&machine(1));
    let Tables { dsdt, mcfg, .. } = tables(&area);
    let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"\x08_S5_\x12"), "_S5 at the root");
    assert!(has(&[0x0C, 0x41, 0xD0, 0x05, 0x01]), "PNP0501");
    assert!(has(&[0x47, 1, 0xF8, 0x03, 0xF8, 0x03, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0]), "COM1 and GSI 4");
    assert!(has(&[0x47, 1, 0xF8, 0x02, 0xF8, 0x02, 1, 8, 0x89, 6, 0, 3, 1, 3, 0, 0, 0]), "COM2 and GSI 3");
    assert!(has(&[0x0C, 0x41, 0xD0, 0x0B, 0x00]), "PNP0B00");
    assert!(has(&[0x47, 1, 0x70, 0, 0x70, 0, 1, 2]), "the clock's ports");
    assert!(has(b"LNRO0005\0") && has(b"QEMU0001\0"));
    assert!(has(&[0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1]), "pvpanic's port");
    for (slot, gsi) in [(0, 5), (1, 6), (7, 15)] {
        let base = [0x86, 9, 0, 1, 0, 0x10 * slot, 0xB0, 0xFE, 0, 0x10, 0, 0, 0x89, 6, 0, 3, 1, gsi, 0, 0, 0];
        assert!(has(&base), "virtio-mmio slot {slot}");
    }
    assert!(has(&[0x0C, 0x41, 0xD0, 0x0A, 0x08]), "PNP0A08");
    assert!(has(&[4, 0x0C, 0xFF, 0xFF, 2, 0, 0, 0, 0x0A, 18]), "INTA of device 2 is GSI 18");
    assert_eq!((u64_at(mcfg, 44), &mcfg[52..56]), (0xE000_0000, &[0, 0, 0, 0xFF][..]));
}

#[test]
fn pci_memory_begins_where_ram_ends() {
    for (low_ram, base) in [(1 << 30, 0x8000_0000_u32), (0x9000_0000, 0x9000_0000)] {
        let area = area(&Machine { low_ram, ..machine(1) });
        let window: Vec<u8> =
            [base, 0xDFFF_FFFF, 0, 0xE000_0000 - base].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(tables(&area).dsdt.windows(16).any(|bytes| bytes == window), "{low_ram:#x}");
    }
    let mut of_firmware = vec![0; AREA];
    written(&mut of_firmware, &Machine { ecam: Ecam::OfFirmware, ..machine(1) }).unwrap();
    let window = [0xC000_0000_u32, 0xDFFF_FFFF, 0, 0x2000_0000].map(u32::to_le_bytes);
    assert!(
        of_firmware.windows(16).any(|bytes| bytes == window.as_flattened()),
        "between both places of ECAM"
    );
    assert!(!of_firmware.windows(4).any(|bytes| bytes == b"MCFG" || bytes == b"ECAM"));
    let full = Machine { low_ram: 0xB000_0000, ..machine(1) };
    assert_eq!(written(&mut [0; AREA], &full), Err(NoRoom));
}

#[test]
fn an_area_that_is_too_small_is_an_error() {
    for size in 0..256 {
        assert_eq!(written(&mut vec![0; size], &machine(1)), Err(NoRoom), "{size} bytes");
    }
    assert_eq!(written(&mut vec![0; AREA], &machine(3000)), Err(NoRoom));
}
