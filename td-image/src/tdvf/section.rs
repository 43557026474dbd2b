//! One section of the metadata: 32 bytes, its rules, its place in memory.

use core::fmt;

use tdvisor_base::{Gpa, PAGE_SIZE};

use super::error::{SectionName, SectionProblem, TdvfError};
use super::locate::DESCRIPTOR_BYTES;
use super::{GPA_LIMIT, MAX_SECTIONS};
use crate::bytes::Cursor;

/// Bytes of one section in the table.
pub(super) const ENTRY_BYTES: usize = 32;
const VERSION: u32 = 1;

/// What a section is for. An unknown number is kept, and the image refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionKind(pub u32);

impl SectionKind {
    /// Boot firmware volume: code.
    pub const BFV: Self = Self(0);
    /// Configuration firmware volume: the variable store.
    pub const CFV: Self = Self(1);
    /// The hand-off list that the VMM writes.
    pub const TD_HOB: Self = Self(2);
    /// Memory for the firmware's start (stack, page tables, mailbox).
    pub const TEMP_MEM: Self = Self(3);
    /// Memory of the guest that the firmware relies on.
    pub const PERM_MEM: Self = Self(4);
    /// A payload that the firmware starts, such as a kernel.
    pub const PAYLOAD: Self = Self(5);
    /// The payload's parameters, such as a command line, written by the VMM.
    pub const PAYLOAD_PARAM: Self = Self(6);
    /// td-shim's description of itself; never loaded.
    pub const TD_INFO: Self = Self(7);
    /// TD parameters; never loaded.
    pub const TD_PARAMS: Self = Self(8);

    const fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::BFV => "BFV",
            Self::CFV => "CFV",
            Self::TD_HOB => "TD_HOB",
            Self::TEMP_MEM => "TempMem",
            Self::PERM_MEM => "PermMem",
            Self::PAYLOAD => "Payload",
            Self::PAYLOAD_PARAM => "PayloadParam",
            Self::TD_INFO => "TdInfo",
            Self::TD_PARAMS => "TdParams",
            _ => return None,
        })
    }

    /// Whether an image may have only one section of this kind.
    pub(super) const fn is_unique(self) -> bool {
        matches!(self, Self::TD_HOB | Self::PAYLOAD | Self::PAYLOAD_PARAM | Self::TD_INFO | Self::TD_PARAMS)
    }

    /// Whether the section describes the image only and has no memory of its own.
    pub(super) const fn is_descriptive(self) -> bool {
        matches!(self, Self::TD_INFO | Self::TD_PARAMS)
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.pad(text),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The attributes of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    /// MR.EXTEND: the contents are measured.
    pub const MR_EXTEND: Self = Self(1);
    /// PAGE.AUG: the pages are not added at build time; the guest accepts them.
    pub const PAGE_AUG: Self = Self(2);

    /// Whether the contents are measured.
    #[must_use]
    pub const fn is_measured(self) -> bool {
        self.0 & Self::MR_EXTEND.0 != 0
    }

    /// Whether the pages are left for the guest to accept.
    #[must_use]
    pub const fn is_augmented(self) -> bool {
        self.0 & Self::PAGE_AUG.0 != 0
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_measured(), self.is_augmented()) {
            (false, false) => "-",
            (true, false) => "MR.EXTEND",
            (false, true) => "PAGE.AUG",
            (true, true) => "MR.EXTEND+PAGE.AUG",
        })
    }
}

/// One section, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Position in the table, from 0.
    pub index: u32,
    /// Offset of the raw bytes in the image.
    pub data_offset: u32,
    /// How many raw bytes there are; the rest of the memory starts as zeros.
    pub raw_size: u32,
    /// Where the section lies in guest-physical memory.
    pub gpa: Gpa,
    /// How much memory it has, bytes.
    pub mem_size: u64,
    /// What the section is for.
    pub kind: SectionKind,
    /// What the loader does with its pages.
    pub attributes: Attributes,
}

impl Section {
    /// Number and kind, for messages.
    #[must_use]
    pub const fn name(&self) -> SectionName {
        SectionName { index: self.index, kind: self.kind }
    }

    /// The first address behind the section.
    #[must_use]
    pub const fn end(&self) -> Gpa {
        self.gpa.wrapping_add(self.mem_size)
    }

    /// 4 KiB pages of the section.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.mem_size / PAGE_SIZE
    }

    /// Whether the loader adds the pages at build time.
    #[must_use]
    pub const fn is_added(&self) -> bool {
        !self.attributes.is_augmented() && !self.kind.is_descriptive() && self.mem_size != 0
    }

    pub(super) fn decode(index: usize, entry: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = words(entry);
        Self {
            index: index as u32,
            data_offset: a,
            raw_size: b,
            gpa: Gpa::new(u64::from(d) << 32 | u64::from(c)),
            mem_size: u64::from(f) << 32 | u64::from(e),
            kind: SectionKind(g),
            attributes: Attributes(h),
        }
    }

    pub(super) fn raw_in<'a>(&self, image: &'a [u8]) -> Option<&'a [u8]> {
        let start = usize::try_from(self.data_offset).ok()?;
        let end = start.checked_add(usize::try_from(self.raw_size).ok()?)?;
        if self.raw_size == 0 { Some(&[]) } else { image.get(start..end) }
    }

    pub(super) const fn refuse(&self, problem: SectionProblem) -> TdvfError {
        TdvfError::Section { section: self.name(), problem }
    }

    pub(super) const fn overlaps(&self, other: &Self) -> bool {
        self.mem_size != 0
            && other.mem_size != 0
            && self.gpa.get() < other.end().get()
            && other.gpa.get() < self.end().get()
    }

    /// The rules that concern this section alone.
    pub(super) fn check(&self, image_size: u64) -> Result<(), TdvfError> {
        let refuse = |problem| Err(self.refuse(problem));
        if self.kind.text().is_none() {
            return refuse(SectionProblem::UnknownKind);
        }
        if self.attributes.0 & !(Attributes::MR_EXTEND.0 | Attributes::PAGE_AUG.0) != 0 {
            return refuse(SectionProblem::UnknownAttributes(self.attributes));
        }
        let raw_end = u64::from(self.data_offset) + u64::from(self.raw_size);
        if self.raw_size != 0 && raw_end > image_size {
            let (offset, size) = (self.data_offset, self.raw_size);
            return refuse(SectionProblem::RawOutsideImage { offset, size, image: image_size });
        }
        if self.kind.is_descriptive() {
            return Ok(());
        }
        if !self.gpa.is_aligned(PAGE_SIZE) {
            return refuse(SectionProblem::UnalignedGpa(self.gpa));
        }
        if !self.mem_size.is_multiple_of(PAGE_SIZE) {
            return refuse(SectionProblem::UnalignedSize(self.mem_size));
        }
        if self.mem_size == 0 {
            return refuse(SectionProblem::NoMemory);
        }
        if self.gpa.checked_add(self.mem_size).is_none_or(|end| end.get() > GPA_LIMIT) {
            return refuse(SectionProblem::AddressRange { gpa: self.gpa, size: self.mem_size });
        }
        if u64::from(self.raw_size) > self.mem_size {
            return refuse(SectionProblem::RawLargerThanMemory { raw: self.raw_size, memory: self.mem_size });
        }
        let (has_data, augmented) = (self.raw_size != 0, self.attributes.is_augmented());
        match self.kind {
            SectionKind::BFV | SectionKind::CFV if !has_data => refuse(SectionProblem::NoData),
            SectionKind::TD_HOB
            | SectionKind::TEMP_MEM
            | SectionKind::PERM_MEM
            | SectionKind::PAYLOAD_PARAM
                if has_data =>
            {
                refuse(SectionProblem::UnexpectedData { raw: self.raw_size })
            }
            SectionKind::TD_HOB | SectionKind::PAYLOAD_PARAM if augmented => {
                refuse(SectionProblem::AugmentedContents)
            }
            _ if augmented && has_data => refuse(SectionProblem::AugmentedContents),
            _ if augmented && self.attributes.is_measured() => refuse(SectionProblem::AugmentedMeasured),
            _ => Ok(()),
        }
    }
}

fn words(entry: &[u8; ENTRY_BYTES]) -> [u32; 8] {
    let (words, _) = entry.as_chunks::<4>();
    let mut out = [0; 8];
    for (word, bytes) in out.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    out
}

/// The table behind the descriptor at `at`, whose signature has been checked.
pub(super) fn table(image: &[u8], at: usize) -> Result<&[[u8; ENTRY_BYTES]], TdvfError> {
    let rest = image.get(at..).unwrap_or_default();
    let truncated = |needed: u64| TdvfError::TableTruncated { needed, left: rest.len() as u64 };
    let mut cursor = Cursor::new(rest);
    let mut field = || cursor.u32().map_err(|_| truncated(DESCRIPTOR_BYTES as u64));
    let (_signature, length, version, count) = (field()?, field()?, field()?, field()?);
    if version != VERSION {
        return Err(TdvfError::Version(version));
    }
    if count == 0 {
        return Err(TdvfError::NoSections);
    }
    if count > MAX_SECTIONS {
        return Err(TdvfError::TooManySections { count, limit: MAX_SECTIONS });
    }
    let expected = DESCRIPTOR_BYTES as u32 + count * ENTRY_BYTES as u32;
    if length != expected {
        return Err(TdvfError::DescriptorLength { declared: length, expected });
    }
    let (entries, _) = rest
        .get(DESCRIPTOR_BYTES..expected as usize)
        .ok_or_else(|| truncated(u64::from(expected)))?
        .as_chunks();
    Ok(entries)
}
