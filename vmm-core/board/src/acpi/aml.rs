//! As much of the ACPI machine language as the DSDT needs (ACPI 6.5, chapter 20).

use super::table::{Area, NoRoom};

const ZERO: u8 = 0x00;
const NAME: u8 = 0x08;
const BYTE: u8 = 0x0a;
const DWORD: u8 = 0x0c;
const STRING: u8 = 0x0d;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const EXTENDED: u8 = 0x5b;
const DEVICE: u8 = 0x82;

/// A name segment; all of ours have four characters.
pub(super) type Segment = [u8; 4];

/// Whether something was written.
pub(super) type Written = Result<(), NoRoom>;

/// Scope(\name) { … }
pub(super) fn scope(
    area: &mut Area<'_>,
    name: &Segment,
    fill: impl FnOnce(&mut Area<'_>) -> Written,
) -> Written {
    area.push(&[SCOPE])?;
    sized(area, |area| {
        area.push(b"\\")?;
        area.push(name)?;
        fill(area)
    })
}

/// Device(name) { … }
pub(super) fn device(
    area: &mut Area<'_>,
    name: &Segment,
    fill: impl FnOnce(&mut Area<'_>) -> Written,
) -> Written {
    area.push(&[EXTENDED, DEVICE])?;
    sized(area, |area| {
        area.push(name)?;
        fill(area)
    })
}

/// Name(name, …), whose value `fill` writes.
pub(super) fn name(
    area: &mut Area<'_>,
    name: &Segment,
    fill: impl FnOnce(&mut Area<'_>) -> Written,
) -> Written {
    area.push(&[NAME])?;
    area.push(name)?;
    fill(area)
}

/// An integer of one byte.
pub(super) fn byte(area: &mut Area<'_>, value: u8) -> Written {
    area.push(&[BYTE, value])
}

/// An integer of four bytes.
pub(super) fn double(area: &mut Area<'_>, value: u32) -> Written {
    area.push(&[DWORD])?;
    area.push(&value.to_le_bytes())
}

/// The integer zero; where a name could stand, nobody.
pub(super) fn zero(area: &mut Area<'_>) -> Written {
    area.push(&[ZERO])
}

/// EisaId("AAA0000"), for an identifier of three letters and four hexadecimal digits.
pub(super) fn eisa_id(area: &mut Area<'_>, id: &[u8; 7]) -> Written {
    let [a, b, c, digits @ ..] = id;
    let letter = |letter: &u8| u32::from(letter & 0x1f);
    let digit = |digit: u8| u32::from(if digit > b'9' { digit - b'A' + 10 } else { digit - b'0' });
    let number = digits.iter().fold(0, |number, next| number << 4 | digit(*next));
    let value = letter(a) << 26 | letter(b) << 21 | letter(c) << 16 | number;
    area.push(&[DWORD])?;
    area.push(&value.to_be_bytes())
}

/// Text.
pub(super) fn string(area: &mut Area<'_>, text: &[u8]) -> Written {
    area.push(&[STRING])?;
    area.push(text)?;
    area.push(&[0])
}

/// Package() { … } of so many elements.
pub(super) fn package(
    area: &mut Area<'_>,
    elements: u8,
    fill: impl FnOnce(&mut Area<'_>) -> Written,
) -> Written {
    area.push(&[PACKAGE])?;
    sized(area, |area| {
        area.push(&[elements])?;
        fill(area)
    })
}

/// Name(_CRS, ResourceTemplate() { descriptors })
pub(super) fn resources(area: &mut Area<'_>, descriptors: &[&[u8]]) -> Written {
    const END_TAG: [u8; 2] = [0x79, 0];
    let length: usize = descriptors.iter().map(|bytes| bytes.len()).sum::<usize>() + END_TAG.len();
    name(area, b"_CRS", |area| {
        area.push(&[BUFFER])?;
        sized(area, |area| {
            byte(area, u8::try_from(length).map_err(|_| NoRoom)?)?;
            descriptors.iter().try_for_each(|bytes| area.push(bytes))?;
            area.push(&END_TAG)
        })
    })
}

/// IO(Decode16, port, port, 1, length)
pub(super) const fn io_ports(port: u16, length: u8) -> [u8; 8] {
    let [low, high] = port.to_le_bytes();
    [0x47, 0x01, low, high, low, high, 1, length]
}

/// Interrupt(ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi }
pub(super) const fn edge_interrupt(gsi: u32) -> [u8; 9] {
    const CONSUMER_EDGE_HIGH_EXCLUSIVE: u8 = 0b0011;
    let [a, b, c, d] = gsi.to_le_bytes();
    [0x89, 6, 0, CONSUMER_EDGE_HIGH_EXCLUSIVE, 1, a, b, c, d]
}

/// Memory32Fixed(ReadWrite, base, length)
pub(super) const fn memory32(base: u32, length: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h]) = (base.to_le_bytes(), length.to_le_bytes());
    [0x86, 9, 0, 1, a, b, c, d, e, f, g, h]
}

/// Flags of a range that a bridge passes on: both ends are fixed.
const PRODUCER_FIXED: u8 = 0b1100;

/// WordBusNumber(ResourceProducer, MinFixed, MaxFixed, …): all buses of a segment.
pub(super) const fn all_buses() -> [u8; 16] {
    [0x88, 0x0d, 0, 2, PRODUCER_FIXED, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]
}

/// WordIO(ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, …) from one port to another.
pub(super) const fn port_window(first: u16, last: u16) -> [u8; 16] {
    let ([a, b], [c, d]) = (first.to_le_bytes(), last.to_le_bytes());
    let [e, f] = (last - first + 1).to_le_bytes();
    [0x88, 0x0d, 0, 1, PRODUCER_FIXED, 3, 0, 0, a, b, c, d, 0, 0, e, f]
}

/// DWordMemory(ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, …) from `base` up to `end`.
pub(super) const fn memory_window(base: u32, end: u32) -> [u8; 26] {
    let ([a, b, c, d], [e, f, g, h]) = (base.to_le_bytes(), (end - 1).to_le_bytes());
    let [i, j, k, l] = (end - base).to_le_bytes();
    [0x87, 0x17, 0, 0, PRODUCER_FIXED, 1, 0, 0, 0, 0, a, b, c, d, e, f, g, h, 0, 0, 0, 0, i, j, k, l]
}

/// What `fill` writes, with its length before it, in the two-byte form: up to 4095 with the length itself.
fn sized(area: &mut Area<'_>, fill: impl FnOnce(&mut Area<'_>) -> Written) -> Written {
    const TWO_BYTES: u8 = 0x40;
    let start = area.used();
    area.push(&[0, 0])?;
    fill(area)?;
    let length = area.used() - start;
    let high = u8::try_from(length >> 4).map_err(|_| NoRoom)?;
    let [low, ..] = length.to_le_bytes();
    area.put(start, &[TWO_BYTES | low & 0xf, high])
}
