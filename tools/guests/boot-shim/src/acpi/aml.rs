//! As much of the ACPI machine language as the DSDT needs (ACPI 6.5, chapter 20).

use super::table::{Area, NoRoom};

const NAME: u8 = 0x08;
const BYTE: u8 = 0x0A;
const DWORD: u8 = 0x0C;
const STRING: u8 = 0x0D;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const EXTENDED: u8 = 0x5B;
const DEVICE: u8 = 0x82;

/// A name segment; all of ours have four characters.
pub type Segment = [u8; 4];

/// Scope(\name) { … }
pub fn scope(
    area: &mut Area<'_>,
    name: &Segment,
    fill: impl FnOnce(&mut Area<'_>) -> Result<(), NoRoom>,
) -> Result<(), NoRoom> {
    area.push(&[SCOPE])?;
    sized(area, |area| {
        area.push(b"\\")?;
        area.push(name)?;
        fill(area)
    })
}

/// Device(name) { … }
pub fn device(
    area: &mut Area<'_>,
    name: &Segment,
    fill: impl FnOnce(&mut Area<'_>) -> Result<(), NoRoom>,
) -> Result<(), NoRoom> {
    area.push(&[EXTENDED, DEVICE])?;
    sized(area, |area| {
        area.push(name)?;
        fill(area)
    })
}

/// Name(name, number)
pub fn name_byte(area: &mut Area<'_>, name: &Segment, value: u8) -> Result<(), NoRoom> {
    area.push(&[NAME])?;
    area.push(name)?;
    area.push(&[BYTE, value])
}

/// Name(name, EisaId(…)), with the identifier compressed already.
pub fn name_eisa_id(area: &mut Area<'_>, name: &Segment, id: [u8; 4]) -> Result<(), NoRoom> {
    area.push(&[NAME])?;
    area.push(name)?;
    area.push(&[DWORD])?;
    area.push(&id)
}

/// Name(name, "text")
pub fn name_string(area: &mut Area<'_>, name: &Segment, text: &[u8]) -> Result<(), NoRoom> {
    area.push(&[NAME])?;
    area.push(name)?;
    area.push(&[STRING])?;
    area.push(text)?;
    area.push(&[0])
}

/// Name(\name, Package() { bytes })
pub fn name_package(area: &mut Area<'_>, name: &Segment, values: &[u8]) -> Result<(), NoRoom> {
    area.push(&[NAME, b'\\'])?;
    area.push(name)?;
    area.push(&[PACKAGE])?;
    sized(area, |area| {
        area.push(&[values.len() as u8])?;
        values.iter().try_for_each(|value| area.push(&[BYTE, *value]))
    })
}

/// Name(_CRS, ResourceTemplate() { descriptors })
pub fn name_resources(area: &mut Area<'_>, descriptors: &[&[u8]]) -> Result<(), NoRoom> {
    const END_TAG: [u8; 2] = [0x79, 0];
    let length: usize = descriptors.iter().map(|bytes| bytes.len()).sum::<usize>() + END_TAG.len();
    area.push(&[NAME])?;
    area.push(b"_CRS")?;
    area.push(&[BUFFER])?;
    sized(area, |area| {
        area.push(&[BYTE, u8::try_from(length).map_err(|_| NoRoom)?])?;
        descriptors.iter().try_for_each(|bytes| area.push(bytes))?;
        area.push(&END_TAG)
    })
}

/// IO(Decode16, port, port, 1, length)
pub fn io_ports(port: u16, length: u8) -> [u8; 8] {
    let [low, high] = port.to_le_bytes();
    [0x47, 0x01, low, high, low, high, 1, length]
}

/// Interrupt(ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi }
pub fn edge_interrupt(gsi: u32) -> [u8; 9] {
    const CONSUMER_EDGE_HIGH_EXCLUSIVE: u8 = 0b0011;
    let [a, b, c, d] = gsi.to_le_bytes();
    [0x89, 6, 0, CONSUMER_EDGE_HIGH_EXCLUSIVE, 1, a, b, c, d]
}

/// Memory32Fixed(ReadWrite, base, length)
pub fn memory32(base: u32, length: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h]) = (base.to_le_bytes(), length.to_le_bytes());
    [0x86, 9, 0, 1, a, b, c, d, e, f, g, h]
}

/// What `fill` writes, with its length before it, in the two-byte form: up to 4095 with the length itself.
fn sized(area: &mut Area<'_>, fill: impl FnOnce(&mut Area<'_>) -> Result<(), NoRoom>) -> Result<(), NoRoom> {
    const TWO_BYTES: u8 = 0x40;
    let start = area.used();
    area.push(&[0, 0])?;
    fill(area)?;
    let length = area.used() - start;
    if length > 0xFFF {
        return Err(NoRoom);
    }
    area.put(start, &[TWO_BYTES | (length & 0xF) as u8, (length >> 4) as u8])
}
