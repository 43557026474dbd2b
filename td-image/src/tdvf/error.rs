//! What can be wrong with a TDVF image, each with what a person needs to find it.

use core::fmt;

use tdvisor_base::Gpa;

use super::section::{Attributes, SectionKind};

/// A section, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionName {
    /// Position in the table, from 0.
    pub index: u32,
    /// What the section is for.
    pub kind: SectionKind,
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "section {} ({})", self.index, self.kind)
    }
}

/// Why bytes are not a TDVF image that can be loaded or measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdvfError {
    /// Too few bytes for any metadata.
    TooSmall {
        /// Bytes of the image.
        size: usize,
        /// Bytes of the smallest metadata.
        needed: usize,
    },
    /// The image has neither OVMF's GUID table nor td-shim's offset.
    NoMetadata,
    /// A GUID table is there and names no TDX metadata.
    NotForTdx,
    /// The GUID table is broken.
    GuidTable(GuidTableProblem),
    /// The metadata's distance from the image's end points out of the image.
    DescriptorOutside {
        /// The distance, bytes.
        distance: u32,
        /// Bytes of the image.
        size: usize,
    },
    /// No "TDVF" where the descriptor should be.
    DescriptorSignature {
        /// Offset from the image's start.
        offset: usize,
    },
    /// A version other than 1.
    Version(u32),
    /// The descriptor's length does not fit its section count.
    DescriptorLength {
        /// The declared length, bytes.
        declared: u32,
        /// 16 + 32 × count.
        expected: u32,
    },
    /// A descriptor without sections.
    NoSections,
    /// More sections than this crate reads.
    TooManySections {
        /// The declared count.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// The image ends inside the section table.
    TableTruncated {
        /// Bytes of descriptor and table.
        needed: u64,
        /// Bytes from the descriptor to the image's end.
        left: u64,
    },
    /// A kind that every image must have is not there.
    MissingSection(SectionKind),
    /// A section breaks a rule.
    Section {
        /// The section.
        section: SectionName,
        /// The rule.
        problem: SectionProblem,
    },
}

/// How OVMF's GUID table is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuidTableProblem {
    /// The table's own length is less than its footer or more than the image.
    TableLength {
        /// The declared length, bytes.
        length: usize,
        /// Bytes of the image.
        image: usize,
    },
    /// An entry is shorter than its own frame or longer than what is left of the table.
    EntryLength {
        /// Bytes of the table before the end of that entry.
        left: usize,
    },
    /// The entry for the TDX metadata has no offset in it.
    TdxEntryEmpty,
}

/// Which rule a section breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionProblem {
    /// A kind that the design guide does not define.
    UnknownKind,
    /// Attribute bits that the design guide does not define.
    UnknownAttributes(Attributes),
    /// The address is not a multiple of 4 KiB.
    UnalignedGpa(Gpa),
    /// The memory size is not a multiple of 4 KiB.
    UnalignedSize(u64),
    /// A section without memory.
    NoMemory,
    /// The section reaches beyond the private guest-physical addresses.
    AddressRange {
        /// The section's address.
        gpa: Gpa,
        /// The section's size in memory, bytes.
        size: u64,
    },
    /// The raw bytes lie, in whole or in part, outside the image.
    RawOutsideImage {
        /// The offset of the section's bytes in the file.
        offset: u32,
        /// The number of the section's bytes in the file.
        size: u32,
        /// Bytes of the image.
        image: u64,
    },
    /// More raw bytes than memory.
    RawLargerThanMemory {
        /// Raw bytes.
        raw: u32,
        /// Bytes of memory.
        memory: u64,
    },
    /// The section shares guest-physical memory with an earlier one.
    Overlaps {
        /// The earlier section.
        other: SectionName,
    },
    /// A second section of a kind that may occur once.
    Duplicate,
    /// A firmware volume without raw bytes.
    NoData,
    /// Raw bytes in a section that the VMM or nobody fills.
    UnexpectedData {
        /// How many.
        raw: u32,
    },
    /// PAGE.AUG on a section with contents: nothing could put them there.
    AugmentedContents,
    /// PAGE.AUG and MR.EXTEND together: only added pages can be measured.
    AugmentedMeasured,
    /// The pages to add exceed [`super::MAX_ADDED_BYTES`].
    TooMuchMemory {
        /// Bytes of this and all earlier sections.
        total: u64,
    },
    /// The section is measured and filled by the host, and its contents were not given.
    HostContentsMissing,
    /// The host's contents do not fit the section.
    HostContentsTooLarge {
        /// Bytes of the contents.
        contents: usize,
        /// Bytes of memory.
        memory: u64,
    },
}

impl fmt::Display for TdvfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { size, needed } => {
                write!(f, "{size} bytes are too few for a TDVF image (metadata alone has {needed})")
            }
            Self::NoMetadata => f.write_str(
                "no TDVF metadata: neither OVMF's GUID table nor td-shim's offset is at the image's end",
            ),
            Self::NotForTdx => {
                f.write_str("firmware without TDX metadata: its GUID table has no entry for it")
            }
            Self::GuidTable(problem) => write!(f, "broken GUID table: {problem}"),
            Self::DescriptorOutside { distance, size } => write!(
                f,
                "the metadata should begin {distance:#x} bytes before the end of an image of {size:#x} bytes"
            ),
            Self::DescriptorSignature { offset } => {
                write!(f, "no TDVF descriptor at offset {offset:#x}, where the image says it is")
            }
            Self::Version(version) => write!(f, "TDVF metadata of version {version}; only 1 is defined"),
            Self::DescriptorLength { declared, expected } => {
                write!(f, "the TDVF descriptor declares {declared} bytes, its section count makes {expected}")
            }
            Self::NoSections => f.write_str("the TDVF metadata has no sections"),
            Self::TooManySections { count, limit } => {
                write!(f, "the TDVF metadata has {count} sections, more than {limit}")
            }
            Self::TableTruncated { needed, left } => {
                write!(f, "the image ends inside its section table ({left} of {needed} bytes)")
            }
            Self::MissingSection(kind) => write!(f, "the TDVF metadata has no {kind} section"),
            Self::Section { section, problem } => write!(f, "{section}: {problem}"),
        }
    }
}

impl fmt::Display for GuidTableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableLength { length, image } => {
                write!(f, "length {length:#x} in an image of {image:#x} bytes")
            }
            Self::EntryLength { left } => {
                write!(f, "an entry that ends {left} bytes into it has an impossible length")
            }
            Self::TdxEntryEmpty => f.write_str("the TDX metadata entry holds no offset"),
        }
    }
}

impl fmt::Display for SectionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind => f.write_str("the section type is not defined"),
            Self::UnknownAttributes(attributes) => {
                write!(f, "attributes {:#x} have undefined bits", attributes.0)
            }
            Self::UnalignedGpa(gpa) => write!(f, "address {gpa} is not a multiple of 4 KiB"),
            Self::UnalignedSize(size) => write!(f, "memory size {size:#x} is not a multiple of 4 KiB"),
            Self::NoMemory => f.write_str("it has no memory"),
            Self::AddressRange { gpa, size } => {
                write!(f, "{size:#x} bytes at {gpa} are beyond private guest-physical memory")
            }
            Self::RawOutsideImage { offset, size, image } => write!(
                f,
                "its data ({size:#x} bytes at offset {offset:#x}) lie outside the image of {image:#x} bytes; \
                 is this one half of a split image (CODE without VARS)?"
            ),
            Self::RawLargerThanMemory { raw, memory } => {
                write!(f, "{raw:#x} bytes of data in {memory:#x} bytes of memory")
            }
            Self::Overlaps { other } => write!(f, "it overlaps {other} in memory"),
            Self::Duplicate => f.write_str("a second section of its type"),
            Self::NoData => f.write_str("a firmware volume without data"),
            Self::UnexpectedData { raw } => write!(f, "{raw:#x} bytes of data where none belong"),
            Self::AugmentedContents => {
                f.write_str("PAGE.AUG with contents: pages that the guest accepts start as zeros")
            }
            Self::AugmentedMeasured => {
                f.write_str("PAGE.AUG with MR.EXTEND: only pages added at build time can be measured")
            }
            Self::TooMuchMemory { total } => write!(
                f,
                "{total:#x} bytes would be added at build time, more than {:#x}",
                super::MAX_ADDED_BYTES
            ),
            Self::HostContentsMissing => {
                f.write_str("it is measured, and what the host writes into it was not given")
            }
            Self::HostContentsTooLarge { contents, memory } => {
                write!(f, "{contents:#x} bytes from the host do not fit its {memory:#x} bytes")
            }
        }
    }
}

impl core::error::Error for TdvfError {}
