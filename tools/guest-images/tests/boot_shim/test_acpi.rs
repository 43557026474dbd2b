//! The ACPI tables, followed as an operating system follows them.

use tdvisor_attest::ccel::{CcType, Ccel, LogAddress};

use crate::acpi::{self, Machine, NoRoom};

const BASE: u64 = 0x11_7000;
const AREA: usize = 0x4000;

fn machine(vcpus: u32) -> Machine {
    Machine { vcpus, mailbox: 0x11_5000, event_log: 0x12_1000, event_log_length: 0x1_0000 }
}

fn area(vcpus: u32) -> Vec<u8> {
    let mut area = vec![0; AREA];
    acpi::write(&mut area, BASE, &machine(vcpus)).unwrap();
    area
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

/// The table at a GPA, whose signature, length and checksum are as they should be.
fn table<'a>(area: &'a [u8], gpa: u64, signature: &[u8; 4]) -> &'a [u8] {
    let bytes = &area[(gpa - BASE) as usize..];
    assert_eq!(&bytes[..4], signature);
    let table = &bytes[..u32_at(bytes, 4) as usize];
    assert_eq!(sum(table), 0, "checksum of {}", String::from_utf8_lossy(signature));
    table
}

/// The four tables: FADT, MADT, CCEL, DSDT.
fn tables(area: &[u8]) -> [&[u8]; 4] {
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36]), area[15]), (0, 0, 2), "RSDP");
    let xsdt = table(area, u64_at(area, 24), b"XSDT");
    assert_eq!(xsdt.len(), 36 + 3 * 8);
    let fadt = table(area, u64_at(xsdt, 36), b"FACP");
    let madt = table(area, u64_at(xsdt, 44), b"APIC");
    let ccel = table(area, u64_at(xsdt, 52), b"CCEL");
    [fadt, madt, ccel, table(area, u64_at(fadt, 140), b"DSDT")]
}

#[test]
fn the_fadt_is_hardware_reduced_and_says_how_to_sleep_and_reset() {
    let area = area(2);
    let [fadt, ..] = tables(&area);
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    assert_eq!(u32_at(fadt, 112), 1 << 20 | 1 << 10, "HW_REDUCED_ACPI and RESET_REG_SUP");
    let port = |at: usize| (fadt[at], fadt[at + 1], u64_at(fadt, at + 4));
    assert_eq!(port(116), (1, 8, 0x602), "reset register");
    assert_eq!(fadt[128], 1, "reset value");
    assert_eq!((port(244), port(256)), ((1, 8, 0x600), (1, 8, 0x601)), "sleep registers");
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140), "both addresses of the DSDT");
}

#[test]
fn the_madt_lists_every_vcpu_the_io_apic_and_the_mailbox() {
    for vcpus in [1, 2, 255, 256, 512] {
        let area = area(vcpus);
        let [_, madt, ..] = tables(&area);
        let (mut ids, mut io_apics, mut mailboxes) = (vec![], vec![], vec![]);
        let mut at = 44;
        while at < madt.len() {
            let entry = &madt[at..at + usize::from(madt[at + 1])];
            match entry[0] {
                0 => ids.push((u32::from(entry[3]), u32_at(entry, 4))),
                9 => ids.push((u32_at(entry, 4), u32_at(entry, 8))),
                1 => io_apics.push((entry[2], u32_at(entry, 4), u32_at(entry, 8))),
                0x10 => mailboxes.push((entry[2], u64_at(entry, 8))),
                other => panic!("unknown entry {other}"),
            }
            at += entry.len();
        }
        assert_eq!(ids, (0..vcpus).map(|id| (id, 1)).collect::<Vec<_>>(), "enabled, by index");
        assert_eq!(io_apics, [(0, 0xFEC0_0000, 0)]);
        assert_eq!(mailboxes, [(0, 0x11_5000)]);
    }
}

#[test]
fn attest_finds_the_event_log_by_the_ccel_table() {
    let area = area(1);
    let [_, _, ccel, _] = tables(&area);
    let ccel = Ccel::parse(ccel).unwrap();
    assert!(ccel.checksum_holds);
    assert_eq!((ccel.cc_type, ccel.cc_subtype), (CcType::TDX, 0));
    assert_eq!((ccel.log_area, ccel.log_area_bytes), (LogAddress(0x12_1000), 0x1_0000));
}

#[test]
fn the_dsdt_describes_the_boards_devices() {
    let area = area(1);
    let [.., dsdt] = tables(&area);
    let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"\x08\\_S5_\x12"), "_S5 at the root");
    assert!(has(&[0x0C, 0x41, 0xD0, 0x05, 0x01]), "PNP0501");
    assert!(has(&[0x47, 1, 0xF8, 0x03, 0xF8, 0x03, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0]), "COM1 and GSI 4");
    assert!(has(b"LNRO0005\0") && has(b"QEMU0001\0"));
    assert!(has(&[0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1]), "pvpanic's port");
    assert!(
        has(&[0x86, 9, 0, 1, 0, 0, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 3, 1, 5, 0, 0, 0]),
        "virtio-mmio slot and GSI 5"
    );
}

#[test]
fn an_area_that_is_too_small_is_an_error() {
    for size in 0..256 {
        assert_eq!(acpi::write(&mut vec![0; size], BASE, &machine(1)), Err(NoRoom), "{size} bytes");
    }
    assert_eq!(acpi::write(&mut vec![0; AREA], BASE, &machine(3000)), Err(NoRoom));
}
