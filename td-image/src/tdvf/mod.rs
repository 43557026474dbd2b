//! TDVF images: a guest's first memory, described by metadata inside the image.
//!
//! The metadata is a descriptor with a list of sections (Intel TDX Virtual Firmware Design Guide, chapter
//! "TDVF metadata"): where in guest-physical memory a range lies, which bytes of the image it starts with,
//! whether the loader adds its pages (TDH.MEM.PAGE.ADD) and whether it measures them (TDH.MR.EXTEND).
//!
//! Two consumers read the same list: a VMM's loader, which makes the SEAMCALLs, and [`crate::mrtd`], which
//! predicts their measurement. So the list of steps itself is made here, once: [`TdvfImage::build_plan`].
//!
//! Invariants of a [`TdvfImage`]: at most [`MAX_SECTIONS`] sections; no two overlap in guest-physical memory;
//! every address and size is a multiple of 4 KiB and below [`GPA_LIMIT`]; the raw bytes of every section lie
//! inside the image and fit its memory; at least one firmware volume; the pages to add are bounded by
//! [`MAX_ADDED_BYTES`]. An image that breaks a rule gives an error that names the section, never a number.

mod error;
mod locate;
mod placement;
mod plan;
mod section;

#[cfg(test)]
pub(crate) mod tests;

use tdvisor_base::Gpa;

pub use error::{GuidTableProblem, SectionName, SectionProblem, TdvfError};
pub use locate::MetadataLocation;
pub use placement::OutsideMemory;
pub use plan::{
    AddedSections, BuildPlan, BuildStep, HostContents, LoaderModel, MeasuredSections, PageContents,
    PageOrder, SectionPlan,
};
pub use section::{Attributes, Section, SectionKind};

/// Most sections that an image may have; real ones have about ten.
pub const MAX_SECTIONS: u32 = 64;

/// Private guest-physical addresses are below this: bit 51 is the SHARED bit of the widest guest.
pub const GPA_LIMIT: u64 = 1 << 51;

/// Most memory that an image may have added at build time, bytes.
pub const MAX_ADDED_BYTES: u64 = 1 << 30;

/// Where a vCPU starts: the last 16 bytes below 4 GiB.
pub const RESET_VECTOR: Gpa = Gpa::new(0xffff_fff0);

/// A TDVF image whose metadata has been checked. Borrows the image, allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct TdvfImage<'a> {
    image: &'a [u8],
    location: MetadataLocation,
    descriptor: usize,
    sections: &'a [[u8; section::ENTRY_BYTES]],
}

/// Something about an image that is legal and still worth a person's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdvfNote {
    /// A firmware volume is not measured: the MRTD says nothing about that code.
    UnmeasuredFirmware(SectionName),
    /// No added section holds the reset vector: a vCPU's first fetch faults.
    ResetVectorNotLoaded,
    /// The firmware volumes do not add up to the image: some of its bytes are never loaded.
    BytesNotLoaded {
        /// How many bytes.
        bytes: u64,
    },
}

impl core::fmt::Display for TdvfNote {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnmeasuredFirmware(section) => {
                write!(f, "{section} is not measured: the MRTD does not cover its code")
            }
            Self::ResetVectorNotLoaded => write!(f, "no section holds the reset vector {RESET_VECTOR}"),
            Self::BytesNotLoaded { bytes } => write!(f, "{bytes} bytes of the image are in no section"),
        }
    }
}

impl<'a> TdvfImage<'a> {
    /// Finds the metadata of `image` and checks every rule.
    ///
    /// # Errors
    /// [`TdvfError`]: the first rule that is broken, in the order locate, descriptor, sections one by one,
    /// sections against each other.
    pub fn parse(image: &'a [u8]) -> Result<Self, TdvfError> {
        let (location, descriptor) = locate::descriptor(image)?;
        let sections = section::table(image, descriptor)?;
        let parsed = Self { image, location, descriptor, sections };
        parsed.check()?;
        Ok(parsed)
    }

    /// The bytes of the image.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.image
    }

    /// How the metadata was found.
    #[must_use]
    pub const fn location(&self) -> MetadataLocation {
        self.location
    }

    /// Offset of the descriptor from the image's start, bytes.
    #[must_use]
    pub const fn descriptor_offset(&self) -> usize {
        self.descriptor
    }

    /// The sections in table order.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = Section> + Clone + use<'a> {
        self.sections.iter().enumerate().map(|(index, entry)| Section::decode(index, entry))
    }

    /// The bytes of the image that a section starts with; empty where it has none.
    #[must_use]
    pub fn raw(&self, section: &Section) -> &'a [u8] {
        section.raw_in(self.image).unwrap_or_default()
    }

    /// What is legal about the image but deserves attention.
    pub fn notes(&self) -> impl Iterator<Item = TdvfNote> + use<'a> {
        let unmeasured = self
            .sections()
            .filter(|section| section.kind == SectionKind::BFV && !section.attributes.is_measured())
            .map(|section| TdvfNote::UnmeasuredFirmware(section.name()));
        let loaded = self
            .sections()
            .any(|section| section.is_added() && section.gpa <= RESET_VECTOR && RESET_VECTOR < section.end());
        let raw: u64 = self.sections().map(|section| u64::from(section.raw_size)).sum();
        let left = (self.image.len() as u64).saturating_sub(raw);
        unmeasured
            .chain((!loaded).then_some(TdvfNote::ResetVectorNotLoaded))
            .chain((left != 0).then_some(TdvfNote::BytesNotLoaded { bytes: left }))
    }

    fn check(&self) -> Result<(), TdvfError> {
        let mut added = 0u64;
        for section in self.sections() {
            section.check(self.image.len() as u64)?;
            if section.is_added() {
                // Each size is below GPA_LIMIT, and there are at most MAX_SECTIONS: the sum cannot wrap.
                added += section.mem_size;
            }
            if added > MAX_ADDED_BYTES {
                return Err(section.refuse(SectionProblem::TooMuchMemory { total: added }));
            }
            let mut before = self.sections().take(section.index as usize);
            if let Some(other) = before.clone().find(|other| other.overlaps(&section)) {
                return Err(section.refuse(SectionProblem::Overlaps { other: other.name() }));
            }
            if section.kind.is_unique() && before.any(|other| other.kind == section.kind) {
                return Err(section.refuse(SectionProblem::Duplicate));
            }
        }
        let has = |kind| self.sections().any(|section| section.kind == kind);
        if !has(SectionKind::BFV) {
            return Err(TdvfError::MissingSection(SectionKind::BFV));
        }
        // td-shim may do without a TD HOB where it describes its memory as permanent instead.
        let needs_hob = self.location == MetadataLocation::GuidTable || !has(SectionKind::PERM_MEM);
        if needs_hob && !has(SectionKind::TD_HOB) {
            return Err(TdvfError::MissingSection(SectionKind::TD_HOB));
        }
        Ok(())
    }
}
