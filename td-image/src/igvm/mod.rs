//! IGVM files (Independent Guest Virtual Machine): the pages of a TD, one directive each.
//!
//! A file is a fixed header with a CRC-32, a list of variable headers (platforms, initialisation, directives)
//! and page data. A loader obeys the directives of its platform in file order, so the MRTD follows from the
//! file: TDH.MEM.PAGE.ADD for each private page, TDH.MR.EXTEND unless the page is marked unmeasured.
//!
//! This reader takes what a measurement needs and nothing else, allocates for nothing but the check for pages
//! given twice, and refuses instead of panicking: crate `igvm`, which computes unchecked offsets, serves the
//! tests as the writer and as a second opinion.

mod crc;
mod error;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use tdvisor_base::{Gpa, PAGE_SIZE};

use crate::bytes::Cursor;
use crate::digest::Digest384;
use crate::mrtd::MrtdBuilder;
use crate::tdvf::{BuildStep, GPA_LIMIT, MAX_ADDED_BYTES, PageContents};

pub use error::{DirectiveName, DirectiveProblem, IgvmError};

const MAGIC: [u8; 4] = *b"IGVM";
const PLATFORM_TDX: u8 = 3;
const HEADER_V1_BYTES: usize = 24;
const CHECKSUM_AT: usize = 20;
/// Top bit of a type: a loader that does not know the structure may skip it.
const OPTIONAL: u32 = 1 << 31;
const PAGE: usize = PAGE_SIZE as usize;

const SUPPORTED_PLATFORM: u32 = 0x1;
const PARAMETER_AREA: u32 = 0x301;
const PAGE_DATA: u32 = 0x302;
const PARAMETER_INSERT: u32 = 0x303;
const PLATFORM_RANGE: core::ops::RangeInclusive<u32> = 0x1..=0x100;
const DIRECTIVE_RANGE: core::ops::RangeInclusive<u32> = 0x301..=0x400;

const FLAG_2MB: u32 = 1;
const FLAG_UNMEASURED: u32 = 2;
const FLAG_SHARED: u32 = 4;

/// How loaders differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgvmLoader {
    /// OpenVMM: measured pages without data are measured as zeros, parameter areas are added unmeasured.
    OpenVmm,
    /// td-shim's tools: pages without data are added only, parameter areas are not added.
    TdShim,
}

impl IgvmLoader {
    /// Every loader that is known.
    pub const ALL: [Self; 2] = [Self::OpenVmm, Self::TdShim];

    /// The name that scripts see.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::OpenVmm => "igvm-openvmm",
            Self::TdShim => "igvm-td-shim",
        }
    }
}

impl core::fmt::Display for IgvmLoader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OpenVmm => "igvm-openvmm: empty pages measured as zeros, parameter areas added (OpenVMM)",
            Self::TdShim => "igvm-td-shim: empty pages and parameter areas not measured (td-shim's tools)",
        })
    }
}

/// Whether the contents of a page count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measured {
    /// The contents are measured.
    Contents,
    /// Only the page's address is measured.
    AddressOnly,
}

/// Pages that a directive adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages<'a> {
    /// The directive.
    pub directive: DirectiveName,
    /// The first page.
    pub gpa: Gpa,
    /// How many pages.
    pub count: u64,
    /// Contents of the only page; empty for zeros.
    pub data: &'a [u8],
    /// Whether the contents count.
    pub measured: Measured,
}

/// An IGVM file for TDX whose structure has been checked.
#[derive(Clone, Copy, Debug)]
pub struct IgvmImage<'a> {
    file: &'a [u8],
    headers: &'a [u8],
    mask: u32,
}

#[derive(Clone, Copy)]
struct Header<'a> {
    kind: u32,
    body: &'a [u8],
}

impl<'a> IgvmImage<'a> {
    /// Whether a file begins as an IGVM file.
    #[must_use]
    pub fn is_igvm(file: &[u8]) -> bool {
        file.starts_with(&MAGIC)
    }

    /// Checks a file's structure and every directive for TDX.
    ///
    /// # Errors
    /// [`IgvmError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        let mut fixed = Cursor::new(file);
        let mut word = || fixed.u32().map_err(IgvmError::Truncated);
        let (magic, version) = (word()?, word()?);
        let (offset, size, total, checksum) = (word()?, word()?, word()?, word()?);
        if magic.to_le_bytes() != MAGIC {
            return Err(IgvmError::Magic(magic));
        }
        let fixed_bytes = match version {
            1 => HEADER_V1_BYTES,
            2 => {
                let (architecture, page_size) = (word()?, word()?);
                if architecture != 0 || u64::from(page_size) != PAGE_SIZE {
                    return Err(IgvmError::Machine { architecture, page_size });
                }
                HEADER_V1_BYTES + 8
            }
            other => return Err(IgvmError::Version(other)),
        };
        if total as usize != file.len() {
            return Err(IgvmError::FileSize { declared: total, size: file.len() });
        }
        let outside = IgvmError::HeadersOutside { offset, size };
        let start = offset as usize;
        let end = start.checked_add(size as usize).ok_or(outside)?;
        let headers = file.get(start..end).filter(|_| start >= fixed_bytes).ok_or(outside)?;
        let mut crc = crc::Crc32::new();
        crc.update(file.get(..CHECKSUM_AT).unwrap_or_default());
        crc.update(&[0; 4]);
        crc.update(file.get(HEADER_V1_BYTES..fixed_bytes).unwrap_or_default());
        crc.update(headers);
        if crc.finish() != checksum {
            return Err(IgvmError::Checksum { declared: checksum, computed: crc.finish() });
        }
        let mut image = Self { file, headers, mask: 0 };
        image.mask = image.tdx_mask()?;
        image.check()?;
        Ok(image)
    }

    /// The bytes of the file.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.file
    }

    /// Every variable header; stops behind the first broken one.
    fn headers(&self) -> impl Iterator<Item = Result<Header<'a>, IgvmError>> + use<'a> {
        let mut rest = Cursor::new(self.headers);
        let mut broken = false;
        core::iter::from_fn(move || {
            if broken || rest.rest().is_empty() {
                return None;
            }
            let mut next = || {
                let kind = rest.u32()?;
                let body = rest.sized_u32()?;
                let padding = body.len().next_multiple_of(8) - body.len();
                rest.bytes(padding)?;
                Ok(Header { kind, body })
            };
            let header = next().map_err(IgvmError::VariableHeader);
            broken = header.is_err();
            Some(header)
        })
    }

    /// The compatibility mask of platform TDX.
    fn tdx_mask(&self) -> Result<u32, IgvmError> {
        for header in self.headers() {
            let Header { kind, body } = header?;
            if kind & !OPTIONAL == SUPPORTED_PLATFORM
                && let [a, b, c, d, _vtl, PLATFORM_TDX, ..] = body
            {
                return Ok(u32::from_le_bytes([*a, *b, *c, *d]));
            }
            if !PLATFORM_RANGE.contains(&(kind & !OPTIONAL)) {
                break;
            }
        }
        Err(IgvmError::NotForTdx)
    }

    fn check(&self) -> Result<(), IgvmError> {
        let mut ranges: Vec<(u64, u64, DirectiveName)> = Vec::new();
        let mut total = 0u64;
        for pages in self.pages() {
            let pages = pages?;
            let bytes = pages.count.saturating_mul(PAGE_SIZE);
            total = total.saturating_add(bytes);
            if total > MAX_ADDED_BYTES {
                return Err(pages.directive.refuse(DirectiveProblem::TooMuchMemory { total }));
            }
            ranges.push((pages.gpa.get(), pages.gpa.get().saturating_add(bytes), pages.directive));
        }
        if ranges.is_empty() {
            return Err(IgvmError::NoPages);
        }
        ranges.sort_unstable_by_key(|(start, ..)| *start);
        for pair in ranges.windows(2) {
            if let [(_, end, other), (start, _, directive)] = pair
                && start < end
            {
                return Err(directive.refuse(DirectiveProblem::Overlaps { other: *other }));
            }
        }
        Ok(())
    }

    /// What the directives for TDX add, in file order. After [`Self::parse`], no item is an error.
    pub fn pages(&self) -> impl Iterator<Item = Result<Pages<'a>, IgvmError>> + use<'a> {
        let image = *self;
        let mut areas: Vec<(u32, u64)> = Vec::new();
        let directives = image.headers().filter(|header| match header {
            Ok(header) => DIRECTIVE_RANGE.contains(&(header.kind & !OPTIONAL)),
            Err(_) => true,
        });
        directives.zip(0u32..).filter_map(move |(header, index)| {
            let header = match header {
                Ok(header) => header,
                Err(error) => return Some(Err(error)),
            };
            let directive = DirectiveName { index, kind: header.kind & !OPTIONAL };
            image
                .directive(directive, header.body, &mut areas)
                .map_err(|problem| directive.refuse(problem))
                .transpose()
        })
    }

    fn directive(
        &self,
        directive: DirectiveName,
        body: &'a [u8],
        areas: &mut Vec<(u32, u64)>,
    ) -> Result<Option<Pages<'a>>, DirectiveProblem> {
        let mut fields = Cursor::new(body);
        let short = |_| DirectiveProblem::Truncated { size: body.len() };
        let quad =
            |fields: &mut Cursor<'_>| fields.array().map(|bytes| u64::from_le_bytes(*bytes)).map_err(short);
        match directive.kind {
            PARAMETER_AREA => {
                let bytes = quad(&mut fields)?;
                let index = fields.u32().map_err(short)?;
                if !bytes.is_multiple_of(PAGE_SIZE) {
                    return Err(DirectiveProblem::UnalignedSize(bytes));
                }
                if areas.iter().any(|(other, _)| *other == index) {
                    return Err(DirectiveProblem::AreaTwice(index));
                }
                // Bounded by the number of headers in the file, and searched: a real file has a few.
                if areas.len() >= MAX_AREAS {
                    return Err(DirectiveProblem::TooManyAreas);
                }
                areas.push((index, bytes));
                Ok(None)
            }
            PARAMETER_INSERT => {
                let gpa = aligned(quad(&mut fields)?)?;
                let (mask, index) = (fields.u32().map_err(short)?, fields.u32().map_err(short)?);
                if mask & self.mask == 0 {
                    return Ok(None);
                }
                let area = areas.iter().find(|(other, _)| *other == index);
                let (_, bytes) = *area.ok_or(DirectiveProblem::UnknownArea(index))?;
                in_range(gpa, bytes)?;
                let count = bytes / PAGE_SIZE;
                Ok((count != 0).then_some(Pages {
                    directive,
                    gpa,
                    count,
                    data: &[],
                    measured: Measured::AddressOnly,
                }))
            }
            PAGE_DATA => {
                let gpa = aligned(quad(&mut fields)?)?;
                let (mask, offset) = (fields.u32().map_err(short)?, fields.u32().map_err(short)?);
                let flags = fields.u32().map_err(short)?;
                if mask & self.mask == 0 || flags & FLAG_SHARED != 0 {
                    return Ok(None);
                }
                if flags & FLAG_2MB != 0 {
                    return Err(DirectiveProblem::LargePage);
                }
                in_range(gpa, PAGE_SIZE)?;
                let data = match offset as usize {
                    0 => &[][..],
                    start => self
                        .file
                        .get(start..start.saturating_add(PAGE))
                        .ok_or(DirectiveProblem::DataOutside { offset, file: self.file.len() })?,
                };
                let measured =
                    if flags & FLAG_UNMEASURED != 0 { Measured::AddressOnly } else { Measured::Contents };
                Ok(Some(Pages { directive, gpa, count: 1, data, measured }))
            }
            _ => Ok(None),
        }
    }

    /// The steps with which `loader` builds a TD from this file.
    pub fn steps(&self, loader: IgvmLoader) -> impl Iterator<Item = BuildStep<'a>> + use<'a> {
        self.pages().filter_map(Result::ok).flat_map(move |pages| {
            let is_area = pages.directive.kind == PARAMETER_INSERT;
            let contents =
                if pages.data.is_empty() { PageContents::Zero } else { PageContents::Bytes(pages.data) };
            let added = !(is_area && loader == IgvmLoader::TdShim);
            let extended = pages.measured == Measured::Contents
                && (loader == IgvmLoader::OpenVmm || !pages.data.is_empty());
            (0..pages.count).filter(move |_| added).flat_map(move |page| {
                let gpa = pages.gpa.wrapping_add(page.wrapping_mul(PAGE_SIZE));
                let extend = extended.then_some(BuildStep::Extend { gpa, contents });
                core::iter::once(BuildStep::Add { gpa, contents }).chain(extend)
            })
        })
    }

    /// The MRTD of a TD that `loader` builds from this file.
    #[must_use]
    pub fn mrtd(&self, loader: IgvmLoader) -> Digest384 {
        let mut builder = MrtdBuilder::new();
        self.steps(loader).for_each(|step| builder.step(&step));
        builder.finalize()
    }
}

/// More parameter areas than this are no image.
const MAX_AREAS: usize = 256;

fn aligned(gpa: u64) -> Result<Gpa, DirectiveProblem> {
    let gpa = Gpa::new(gpa);
    if gpa.is_aligned(PAGE_SIZE) { Ok(gpa) } else { Err(DirectiveProblem::UnalignedGpa(gpa)) }
}

fn in_range(gpa: Gpa, bytes: u64) -> Result<(), DirectiveProblem> {
    match gpa.checked_add(bytes) {
        Some(end) if end.get() <= GPA_LIMIT => Ok(()),
        _ => Err(DirectiveProblem::AddressRange { gpa, bytes }),
    }
}
