//! The TD HOB as hosts write it: the list that tells a TD's firmware about its memory.
//!
//! A chain of hand-off blocks (UEFI PI specification, volume 3): one PHIT, one resource descriptor per range
//! of memory, an end marker. Ranges that were added at build time are system memory (type 0), the rest of the
//! RAM is unaccepted (type 7). Firmware measures the list into RTMR0, and an early Google loader measured the
//! whole section into MRTD, so predicting either needs the list byte by byte, in the host's own dialect.

use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::Gpa;

use crate::tdvf::{SectionKind, TdvfImage};

const TYPE_PHIT: u16 = 1;
const TYPE_RESOURCE: u16 = 3;
const TYPE_GUID_EXTENSION: u16 = 4;
const TYPE_END: u16 = 0xffff;
const PHIT_BYTES: usize = 56;
const RESOURCE_BYTES: usize = 48;
const END_BYTES: usize = 8;
const HEADER_BYTES: usize = 8;
const PHIT_VERSION: u32 = 9;
/// PRESENT, INITIALIZED, TESTED.
const USABLE: u32 = 7;
/// Google's attribute for ranges that the firmware must accept before the operating system starts.
const NEEDS_EARLY_ACCEPT: u32 = 0x1000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// A range of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryRange {
    /// The first address of the range.
    pub start: Gpa,
    /// The size of the range, bytes.
    pub bytes: u64,
}

impl MemoryRange {
    /// The range of `bytes` bytes from `start`.
    #[must_use]
    pub const fn new(start: Gpa, bytes: u64) -> Self {
        Self { start, bytes }
    }

    pub(crate) const fn end(&self) -> u64 {
        self.start.get().saturating_add(self.bytes)
    }
}

/// Whose list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HobDialect {
    /// QEMU: RAM split by address; the PHIT's end pointer is behind the end marker.
    Qemu,
    /// Google Compute Engine: every section in table order, then what is unaccepted; the PHIT's end pointer
    /// is before the end marker.
    Gce {
        /// Who accepts the memory above 4 GiB.
        acceptance: Acceptance,
    },
}

/// Who accepts the memory above 4 GiB of a GCE guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acceptance {
    /// The operating system, when it needs it.
    Lazy,
    /// The firmware, all of it.
    Early,
}

/// The list does not fit its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HobTooLarge {
    /// Bytes of the list.
    pub needed: usize,
    /// Bytes of the section.
    pub available: u64,
}

impl fmt::Display for HobTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TD HOB needs {} bytes, its section has {}", self.needed, self.available)
    }
}

impl core::error::Error for HobTooLarge {}

/// The RAM of a QEMU q35 machine with `bytes` of memory: split below 4 GiB where the PCI hole begins.
///
/// From 2.75 GiB of memory on, 2 GiB lie below the hole; less memory lies there in one piece
/// (QEMU hw/i386/pc_q35.c).
#[must_use]
pub fn qemu_ram(bytes: u64) -> [MemoryRange; 2] {
    let low = if bytes >= 0xb000_0000 { 0x8000_0000 } else { bytes };
    [MemoryRange::new(Gpa::new(0), low), MemoryRange::new(Gpa::new(FOUR_GIB), bytes - low)]
}

/// The RAM of a GCE confidential machine with `bytes` of memory: 3 GiB from zero, the 2 MiB of the firmware,
/// the rest above 4 GiB.
#[must_use]
pub fn gce_ram(bytes: u64) -> [MemoryRange; 3] {
    let three_gib = 3 << 30;
    [
        MemoryRange::new(Gpa::new(0), three_gib),
        MemoryRange::new(Gpa::new(FOUR_GIB - (2 << 20)), 2 << 20),
        MemoryRange::new(Gpa::new(FOUR_GIB), bytes.saturating_sub(three_gib)),
    ]
}

/// The list that a host writes for `image` on a machine with this `ram` (in ascending order).
///
/// `None` where the image has no TD_HOB section.
///
/// # Errors
/// [`HobTooLarge`].
pub fn list(
    image: &TdvfImage<'_>,
    ram: &[MemoryRange],
    dialect: HobDialect,
) -> Option<Result<Vec<u8>, HobTooLarge>> {
    let hob = image.sections().find(|section| section.kind == SectionKind::TD_HOB)?;
    let mut bytes = Vec::new();
    header(&mut bytes, TYPE_PHIT, PHIT_BYTES);
    bytes.extend_from_slice(&PHIT_VERSION.to_le_bytes());
    bytes.resize(PHIT_BYTES, 0);
    match dialect {
        HobDialect::Qemu => qemu_resources(&mut bytes, image, ram),
        HobDialect::Gce { acceptance } => gce_resources(&mut bytes, image, ram, acceptance),
    }
    let before_end = bytes.len();
    header(&mut bytes, TYPE_END, END_BYTES);
    let needed = bytes.len();
    if needed as u64 > hob.mem_size {
        return Some(Err(HobTooLarge { needed, available: hob.mem_size }));
    }
    let end = match dialect {
        HobDialect::Qemu => needed,
        HobDialect::Gce { .. } => before_end,
    };
    set_end(&mut bytes, hob.gpa, end);
    Some(Ok(bytes))
}

/// The list that this project's hosts write for `image`: QEMU's for this `ram` (in ascending order), with extensions under
/// their GUIDs, and the address of the section that it goes to. `None` where the image has no TD_HOB section.
///
/// # Errors
/// [`HobTooLarge`].
pub fn with_extensions(
    image: &TdvfImage<'_>,
    ram: &[MemoryRange],
    extensions: &[([u8; 16], Vec<u8>)],
) -> Result<Option<(Gpa, Vec<u8>)>, HobTooLarge> {
    let Some(section) = image.sections().find(|section| section.kind == SectionKind::TD_HOB) else {
        return Ok(None);
    };
    let Some(list) = list(image, ram, HobDialect::Qemu) else { return Ok(None) };
    let mut list = list?;
    for (guid, data) in extensions {
        add_guid_extension(&mut list, image, *guid, data)?;
    }
    Ok(Some((section.gpa, list)))
}

/// Adds data under a GUID (in the byte order of memory, padded to 8 bytes) to a list of QEMU's dialect that
/// stands in the image's TD_HOB section. Guests ignore GUIDs that they do not know.
///
/// # Errors
/// [`HobTooLarge`], also for data that a block's 16-bit length cannot express; the list is unchanged then.
pub fn add_guid_extension(
    list: &mut Vec<u8>,
    image: &TdvfImage<'_>,
    guid: [u8; 16],
    data: &[u8],
) -> Result<(), HobTooLarge> {
    const GUID_BYTES: usize = 16;
    let hob = image.sections().find(|section| section.kind == SectionKind::TD_HOB);
    let (base, available) = hob.map_or((Gpa::new(0), 0), |hob| (hob.gpa, hob.mem_size));
    let length = (HEADER_BYTES + GUID_BYTES).saturating_add(data.len()).next_multiple_of(8);
    let needed = list.len().saturating_add(length);
    if needed as u64 > available || length > usize::from(u16::MAX) {
        return Err(HobTooLarge { needed, available });
    }
    list.truncate(list.len().saturating_sub(END_BYTES));
    let start = list.len();
    header(list, TYPE_GUID_EXTENSION, length);
    list.extend_from_slice(&guid);
    list.extend_from_slice(data);
    list.resize(start + length, 0);
    header(list, TYPE_END, END_BYTES);
    set_end(list, base, needed);
    Ok(())
}

/// PHIT: where the list ends (EfiEndOfHobList).
fn set_end(list: &mut [u8], base: Gpa, end: usize) {
    if let Some(field) = list.get_mut(48..56) {
        field.copy_from_slice(&base.wrapping_add(end as u64).get().to_le_bytes());
    }
}

/// What firmware measures of a list: everything before the end marker (edk2 OvmfPkg, TdxHelperLib).
#[must_use]
pub fn measured_part(list: &[u8]) -> &[u8] {
    list.get(..list.len().saturating_sub(END_BYTES)).unwrap_or_default()
}

/// QEMU adds the ranges that the firmware has from the start (TD_HOB and TempMem sections), and unaccepted
/// what lies between them, in ascending order. Firmware volumes are no RAM to it.
fn qemu_resources(bytes: &mut Vec<u8>, image: &TdvfImage<'_>, ram: &[MemoryRange]) {
    let mut accepted: Vec<MemoryRange> = image
        .sections()
        .filter(|section| matches!(section.kind, SectionKind::TD_HOB | SectionKind::TEMP_MEM))
        .map(|section| MemoryRange::new(section.gpa, section.mem_size))
        .collect();
    accepted.sort_unstable();
    for bank in ram.iter().filter(|bank| bank.bytes != 0) {
        let inside = |range: &&MemoryRange| range.start >= bank.start && range.end() <= bank.end();
        let mut at = bank.start.get();
        for range in accepted.iter().filter(inside) {
            resource(bytes, Resource::UNACCEPTED, at, range.start.get());
            resource(bytes, Resource::SYSTEM, range.start.get(), range.end());
            at = range.end();
        }
        resource(bytes, Resource::UNACCEPTED, at, bank.end());
    }
}

fn gce_resources(bytes: &mut Vec<u8>, image: &TdvfImage<'_>, ram: &[MemoryRange], acceptance: Acceptance) {
    let mut private: Vec<MemoryRange> =
        image.sections().map(|section| MemoryRange::new(section.gpa, section.mem_size)).collect();
    for range in &private {
        resource(bytes, Resource::SYSTEM, range.start.get(), range.end());
    }
    private.sort_unstable();
    for bank in ram.iter().filter(|bank| bank.bytes != 0) {
        let mut at = bank.start.get();
        let mut gap = |from: u64, to: u64| {
            let early = to <= FOUR_GIB || acceptance == Acceptance::Early;
            let attributes = if early { USABLE | NEEDS_EARLY_ACCEPT } else { USABLE };
            resource(bytes, Resource { attributes, ..Resource::UNACCEPTED }, from, to);
        };
        for range in private.iter().filter(|range| range.end() > bank.start.get()) {
            let from = range.start.get().clamp(at, bank.end());
            gap(at, from);
            at = range.end().clamp(from, bank.end());
        }
        gap(at, bank.end());
    }
}

#[derive(Clone, Copy)]
struct Resource {
    kind: u32,
    attributes: u32,
}

impl Resource {
    const SYSTEM: Self = Self { kind: 0, attributes: USABLE };
    const UNACCEPTED: Self = Self { kind: 7, attributes: USABLE };
}

/// Adds a descriptor for [from, to); an empty range has none.
fn resource(bytes: &mut Vec<u8>, resource: Resource, from: u64, to: u64) {
    let Some(length) = to.checked_sub(from).filter(|length| *length != 0) else { return };
    header(bytes, TYPE_RESOURCE, RESOURCE_BYTES);
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&resource.kind.to_le_bytes());
    bytes.extend_from_slice(&resource.attributes.to_le_bytes());
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
}

fn header(bytes: &mut Vec<u8>, kind: u16, length: usize) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest384;
    use crate::tdvf::{Attributes, SectionKind};
    use crate::testing::{Entry, Image};

    /// The sections of OVMF's 2 MiB build.
    fn ovmf() -> Vec<u8> {
        let entry = |gpa, mem_size| Entry { gpa, mem_size, ..Entry::default() };
        let volume = |kind, data_offset, gpa, size: u32| Entry {
            data_offset,
            raw_size: size,
            gpa,
            mem_size: size.into(),
            kind,
            attributes: Attributes(0),
        };
        let mut image = Image::hello();
        image.size = 0x20_0000;
        image.entries = vec![
            volume(SectionKind::BFV, 0x2_0000, 0xffe2_0000, 0x1e_0000),
            volume(SectionKind::CFV, 0, 0xffe0_0000, 0x2_0000),
            entry(0x81_0000, 0x1_0000),
            entry(0x80_b000, 0x2000),
            Entry { kind: SectionKind::TD_HOB, ..entry(0x80_9000, 0x2000) },
            entry(0x80_0000, 0x6000),
        ];
        image.build()
    }

    /// First events of recorded logs of guests with 2, 8 and 10 GiB under QEMU and 16 GiB on GCE.
    #[test]
    fn lists_are_those_that_real_guests_measured() {
        let bytes = ovmf();
        let image = TdvfImage::parse(&bytes).unwrap();
        let digest = |ram: &[MemoryRange], dialect| {
            let list = list(&image, ram, dialect).unwrap().unwrap();
            Digest384::of(measured_part(&list)).to_string()
        };
        for (gib, recorded) in [
            (
                2,
                "0b8772e5b0b41b83e6044a68397e02f49fb47066b4fbe4917ea2c45c64f323fd\
                 acbb37948f821ebaf8bc9c938ba8a749",
            ),
            (
                8,
                "2e070cda358b5aa00f27cca25c47381bb564f4be3a84d059805a73cbbde764ed\
                 8341f7e09915b5e7b370f9c08a743fbd",
            ),
            (
                10,
                "05dc148f05a035080b22372d049c35ef80260050516606b4d9d4eaa2e4d1e06c\
                 556374b00217496a235235d1e3d0e026",
            ),
        ] {
            assert_eq!(digest(&qemu_ram(gib << 30), HobDialect::Qemu), recorded, "{gib} GiB");
        }
        let gce = HobDialect::Gce { acceptance: Acceptance::Early };
        assert_eq!(
            digest(&gce_ram(16 << 30), gce),
            "458994daa60deac8dea19dba79748f6ff93fd0aebb8e3e0be5a65eb12309d342\
             c3ce31cc67af7bbd22af1a44e7d9fe21"
        );
    }

    #[test]
    fn an_extension_goes_before_the_end_marker_and_moves_the_end() {
        let bytes = ovmf();
        let image = TdvfImage::parse(&bytes).unwrap();
        let mut hobs = list(&image, &qemu_ram(1 << 30), HobDialect::Qemu).unwrap().unwrap();
        let before = hobs.clone();
        add_guid_extension(&mut hobs, &image, [7; 16], b"quote").unwrap();
        assert_eq!(hobs.len(), before.len() + 8 + 16 + 8);
        let (mut at, mut kinds) = (0, vec![]);
        while at < hobs.len() {
            kinds.push(u16::from_le_bytes([hobs[at], hobs[at + 1]]));
            at += usize::from(u16::from_le_bytes([hobs[at + 2], hobs[at + 3]]));
        }
        assert_eq!(kinds[kinds.len() - 2..], [TYPE_GUID_EXTENSION, TYPE_END]);
        let end = u64::from_le_bytes(hobs[48..56].try_into().unwrap());
        assert_eq!(end, 0x80_9000 + hobs.len() as u64);
        let full = hobs.clone();
        assert!(add_guid_extension(&mut hobs, &image, [7; 16], &[0; 0x2000]).is_err());
        assert_eq!(hobs, full, "a refused extension changes nothing");
    }

    #[test]
    fn a_list_that_does_not_fit_its_section_is_refused() {
        let mut source = Image::hello();
        for index in 0..50 {
            let gpa = 0x100_0000 + index * 0x2000;
            source.entries.push(Entry { gpa, ..Entry::default() });
        }
        source.entries[2].mem_size = 0x1000;
        source.size = 0x1_0000;
        let bytes = source.build();
        let image = TdvfImage::parse(&bytes).unwrap();
        let error = list(&image, &qemu_ram(1 << 30), HobDialect::Qemu).unwrap().unwrap_err();
        assert_eq!(error.available, 0x1000);
    }
}
