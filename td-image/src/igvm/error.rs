//! What can be wrong with an IGVM file.

use core::fmt;

use tdvisor_base::Gpa;

use crate::bytes::Truncated;

/// A directive, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectiveName {
    /// Position among the directives, from 0.
    pub index: u32,
    /// Type of its header.
    pub kind: u32,
}

impl DirectiveName {
    pub(super) const fn refuse(self, problem: DirectiveProblem) -> IgvmError {
        IgvmError::Directive { directive: self, problem }
    }
}

impl fmt::Display for DirectiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            super::PARAMETER_AREA => "ParameterArea",
            super::PARAMETER_INSERT => "ParameterInsert",
            super::PAGE_DATA => "PageData",
            other => return write!(f, "directive {} (type {other:#x})", self.index),
        };
        write!(f, "directive {} ({kind})", self.index)
    }
}

/// Why bytes are not an IGVM file from which a TD can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IgvmError {
    /// The file ends inside its fixed header.
    Truncated(Truncated),
    /// The file is of another kind.
    Magic(u32),
    /// A version other than 1 and 2.
    Version(u32),
    /// Not for x86-64 with 4 KiB pages.
    Machine {
        /// The architecture's number; 0 is x86-64.
        architecture: u32,
        /// Bytes of a page.
        page_size: u32,
    },
    /// The file is not as long as its header says.
    FileSize {
        /// The declared size, bytes.
        declared: u32,
        /// Bytes of the file.
        size: usize,
    },
    /// The variable headers lie outside the file or inside the fixed header.
    HeadersOutside {
        /// The headers' offset.
        offset: u32,
        /// The headers' size, bytes.
        size: u32,
    },
    /// The checksum of the headers is wrong.
    Checksum {
        /// The declared CRC-32.
        declared: u32,
        /// The computed one.
        computed: u32,
    },
    /// A variable header is cut.
    VariableHeader(Truncated),
    /// No platform header for TDX.
    NotForTdx,
    /// No directive adds a page for TDX.
    NoPages,
    /// A directive breaks a rule.
    Directive {
        /// The directive.
        directive: DirectiveName,
        /// The rule.
        problem: DirectiveProblem,
    },
}

/// Which rule a directive breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectiveProblem {
    /// The header is shorter than its structure.
    Truncated {
        /// The size that the header says, bytes.
        size: usize,
    },
    /// The address is not a multiple of 4 KiB.
    UnalignedGpa(Gpa),
    /// The size is not a multiple of 4 KiB.
    UnalignedSize(u64),
    /// The pages reach beyond the private guest-physical addresses.
    AddressRange {
        /// The first address of the range.
        gpa: Gpa,
        /// The size of the range.
        bytes: u64,
    },
    /// A 2 MiB page: TDH.MEM.PAGE.ADD takes 4 KiB pages only.
    LargePage,
    /// The page's data lie outside the file.
    DataOutside {
        /// The data's offset.
        offset: u32,
        /// Bytes of the file.
        file: usize,
    },
    /// A parameter area that no earlier directive declares.
    UnknownArea(u32),
    /// A parameter area declared twice.
    AreaTwice(u32),
    /// An absurd number of parameter areas.
    TooManyAreas,
    /// A page that another directive adds too.
    Overlaps {
        /// The directive that is overlapped.
        other: DirectiveName,
    },
    /// The pages to add exceed [`crate::tdvf::MAX_ADDED_BYTES`].
    TooMuchMemory {
        /// Bytes of this and all earlier directives.
        total: u64,
    },
}

impl fmt::Display for IgvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(at) => write!(f, "the IGVM file ends inside its header (at {} bytes)", at.offset),
            Self::Magic(_) => f.write_str("not an IGVM file"),
            Self::Version(version) => write!(f, "an IGVM file of version {version}; 1 and 2 are known"),
            Self::Machine { architecture, page_size } => {
                write!(f, "an IGVM file for architecture {architecture} with pages of {page_size} bytes")
            }
            Self::FileSize { declared, size } => {
                write!(f, "the IGVM file declares {declared} bytes and has {size}")
            }
            Self::HeadersOutside { offset, size } => {
                write!(f, "the IGVM headers ({size:#x} bytes at offset {offset:#x}) lie outside the file")
            }
            Self::Checksum { declared, computed } => {
                write!(
                    f,
                    "the checksum of the IGVM headers is {computed:#010x}, declared is {declared:#010x}"
                )
            }
            Self::VariableHeader(at) => {
                write!(f, "an IGVM header is cut ({} of {} bytes at {:#x})", at.left, at.needed, at.offset)
            }
            Self::NotForTdx => f.write_str("the IGVM file is not for TDX"),
            Self::NoPages => f.write_str("the IGVM file adds no page to a TD"),
            Self::Directive { directive, problem } => write!(f, "{directive}: {problem}"),
        }
    }
}

impl fmt::Display for DirectiveProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { size } => write!(f, "{size} bytes are too few for it"),
            Self::UnalignedGpa(gpa) => write!(f, "address {gpa} is not a multiple of 4 KiB"),
            Self::UnalignedSize(size) => write!(f, "size {size:#x} is not a multiple of 4 KiB"),
            Self::AddressRange { gpa, bytes } => {
                write!(f, "{bytes:#x} bytes at {gpa} are beyond private guest-physical memory")
            }
            Self::LargePage => f.write_str("a 2 MiB page, and a TD is built of 4 KiB pages"),
            Self::DataOutside { offset, file } => {
                write!(f, "its data at offset {offset:#x} lie outside the file of {file:#x} bytes")
            }
            Self::UnknownArea(index) => write!(f, "parameter area {index} is not declared"),
            Self::AreaTwice(index) => write!(f, "parameter area {index} is declared twice"),
            Self::TooManyAreas => f.write_str("too many parameter areas"),
            Self::Overlaps { other } => write!(f, "its page is also added by {other}"),
            Self::TooMuchMemory { total } => write!(f, "{total:#x} bytes would be added at build time"),
        }
    }
}

impl core::error::Error for IgvmError {}
