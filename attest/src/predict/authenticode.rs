//! The Authenticode digest of a PE image, which is what firmware measures of a kernel, and an image's sections.
//!
//! Hashed are the headers without the checksum and without the certificate table's entry, then the sections in
//! file order, then whatever follows them except the certificates (Microsoft, "Windows Authenticode Portable
//! Executable Signature Format"; edk2's HashPeImage).

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use td_image::digest::{Digest384, Sha384};

/// More sections than this are no image.
const MAX_SECTIONS: usize = 96;
const SECTION_BYTES: usize = 40;
const NAME_BYTES: usize = 8;
const SYMBOL_BYTES: usize = 18;
const SECURITY_DIRECTORY: usize = 4;
/// The most zeros that a section has in memory beyond what the file has.
const MAX_FILL: usize = 64 << 20;

/// Why bytes are not a PE image that can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeError {
    /// No "PE\0\0" where the DOS header points.
    NoPe,
    /// The file ends before this structure does.
    Truncated(&'static str),
    /// The optional header is neither PE32's nor PE32+'s.
    Magic(u16),
    /// An absurd number of sections.
    Sections(usize),
    /// Headers, sections or certificates overlap each other.
    Overlap,
}

impl fmt::Display for PeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPe => f.write_str("not a PE image (an EFI-bootable kernel is one)"),
            Self::Truncated(what) => write!(f, "the PE image ends inside its {what}"),
            Self::Magic(magic) => write!(f, "a PE image of unknown magic {magic:#x}"),
            Self::Sections(count) => write!(f, "a PE image with {count} sections"),
            Self::Overlap => f.write_str("headers, sections or certificates of the PE image overlap"),
        }
    }
}

impl core::error::Error for PeError {}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn usize_at(data: &[u8], at: usize) -> Option<usize> {
    let word = data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    usize::try_from(word).ok()
}

/// The Authenticode SHA-384 of `image`.
///
/// # Errors
/// [`PeError`].
pub fn sha384(image: &[u8]) -> Result<Digest384, PeError> {
    hash(image).map(Sha384::finish)
}

/// The Authenticode hash by tools that pad the file to eight bytes first; `None` if nothing needs padding.
///
/// # Errors
/// [`PeError`].
pub fn sha384_padded(image: &[u8]) -> Result<Option<Digest384>, PeError> {
    let padding = image.len().next_multiple_of(8) - image.len();
    if padding == 0 {
        return Ok(None);
    }
    let mut hasher = hash(image)?;
    hasher.update([0; 8].get(..padding).unwrap_or_default());
    Ok(Some(hasher.finish()))
}

/// Where the headers' tables lie; offsets in the file.
struct Headers {
    /// Where names of sections are that are longer than the table has room for.
    names: usize,
    checksum: usize,
    security: usize,
    end: usize,
    directory_count: usize,
    sections: usize,
    section_count: usize,
}

impl Headers {
    fn of(image: &[u8]) -> Result<Self, PeError> {
        let headers = PeError::Truncated("headers");
        if !image.starts_with(b"MZ") {
            return Err(PeError::NoPe);
        }
        // Every offset below is at most 2^32 plus a few hundred; usize has 64 bits, or the read fails.
        let pe = usize_at(image, 0x3c).ok_or(headers)?;
        if image.get(pe..).is_none_or(|rest| !rest.starts_with(b"PE\0\0")) {
            return Err(PeError::NoPe);
        }
        let coff = pe.saturating_add(4);
        let optional = coff.saturating_add(20);
        let section_count = usize::from(u16_at(image, coff.saturating_add(2)).ok_or(headers)?);
        let optional_size = usize::from(u16_at(image, coff.saturating_add(16)).ok_or(headers)?);
        let directories = match u16_at(image, optional).ok_or(headers)? {
            0x10b => optional.saturating_add(96),
            0x20b => optional.saturating_add(112),
            magic => return Err(PeError::Magic(magic)),
        };
        let symbols = usize_at(image, coff.saturating_add(8)).ok_or(headers)?;
        let symbol_count = usize_at(image, coff.saturating_add(12)).ok_or(headers)?;
        if section_count > MAX_SECTIONS {
            return Err(PeError::Sections(section_count));
        }
        Ok(Self {
            names: symbols.saturating_add(symbol_count.saturating_mul(SYMBOL_BYTES)),
            checksum: optional.saturating_add(64),
            security: directories.saturating_add(SECURITY_DIRECTORY * 8),
            end: usize_at(image, optional.saturating_add(60)).ok_or(headers)?,
            directory_count: usize_at(image, directories.saturating_sub(4)).ok_or(headers)?,
            sections: optional.saturating_add(optional_size),
            section_count,
        })
    }

    /// The entry of a section in its table.
    fn section<'a>(&self, image: &'a [u8], index: usize) -> Result<&'a [u8; SECTION_BYTES], PeError> {
        let at = self.sections.saturating_add(index * SECTION_BYTES);
        let entry = image.get(at..).and_then(<[u8]>::first_chunk);
        entry.ok_or(PeError::Truncated("section table"))
    }

    /// The name of a section by its entry: up to eight bytes, or a slash and the offset of a longer name behind the symbols.
    fn name<'a>(&self, image: &'a [u8], entry: &'a [u8; SECTION_BYTES]) -> &'a [u8] {
        let short = up_to_nul(entry.get(..NAME_BYTES).unwrap_or_default());
        let digits = short.strip_prefix(b"/").and_then(|digits| core::str::from_utf8(digits).ok());
        let offset: Option<usize> = digits.and_then(|digits| digits.parse().ok());
        let long = offset.and_then(|offset| image.get(self.names.checked_add(offset)?..));
        long.map_or(short, up_to_nul)
    }
}

fn up_to_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A section of an image, as it is in memory.
#[derive(Clone, Copy, Debug)]
pub struct PeSection<'a> {
    name: &'a [u8],
    /// What the file has of it.
    file: &'a [u8],
    /// The section's size in memory; zeros follow what the file has.
    bytes: usize,
}

impl<'a> PeSection<'a> {
    /// Whether the section has this name.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// What the section holds in memory.
    #[must_use]
    pub fn contents(&self) -> Cow<'a, [u8]> {
        match self.file.get(..self.bytes) {
            Some(contents) => Cow::Borrowed(contents),
            None => {
                let mut contents = self.file.to_vec();
                contents.resize(self.bytes, 0);
                Cow::Owned(contents)
            }
        }
    }
}

/// The sections of an image, in the order of its table.
///
/// # Errors
/// [`PeError`]; also for a section that is far larger in memory than in the file.
pub fn sections(image: &[u8]) -> Result<Vec<PeSection<'_>>, PeError> {
    let headers = Headers::of(image)?;
    let section = |index| {
        let entry = headers.section(image, index)?;
        let [virtual_size, size, start] = [8, 16, 20].map(|at| usize_at(entry, at).unwrap_or_default());
        let file = image.get(start..).and_then(|rest| rest.get(..size));
        let file = if size == 0 { &[] } else { file.ok_or(PeError::Truncated("sections"))? };
        // A section whose size in memory is not stated has that of the file.
        let bytes = if virtual_size == 0 { size } else { virtual_size };
        if bytes > size.saturating_add(MAX_FILL) {
            return Err(PeError::Truncated("sections"));
        }
        Ok(PeSection { name: headers.name(image, entry), file, bytes })
    };
    (0..headers.section_count).map(section).collect()
}

fn hash(image: &[u8]) -> Result<Sha384, PeError> {
    let table = Headers::of(image)?;
    let headers = PeError::Truncated("headers");
    let Headers { checksum, security, end: headers_end, directory_count, section_count, .. } = table;

    let mut hasher = Sha384::new();
    let mut take = |range: Range<usize>| -> Result<(), PeError> {
        if range.start > range.end {
            return Err(PeError::Overlap);
        }
        hasher.update(image.get(range).ok_or(PeError::Truncated("sections"))?);
        Ok(())
    };
    take(0..checksum)?;
    let certificates = if directory_count > SECURITY_DIRECTORY {
        take(checksum.saturating_add(4)..security)?;
        take(security.saturating_add(8)..headers_end)?;
        let start = usize_at(image, security).ok_or(headers)?;
        let size = usize_at(image, security.saturating_add(4)).ok_or(headers)?;
        if size != 0 && start.saturating_add(size) > image.len() {
            return Err(PeError::Truncated("certificates"));
        }
        size
    } else {
        take(checksum.saturating_add(4)..headers_end)?;
        0
    };

    let mut sections = Vec::with_capacity(section_count);
    for index in 0..section_count {
        let entry = table.section(image, index)?;
        let [size, start] = [16, 20].map(|at| usize_at(entry, at).unwrap_or_default());
        if size != 0 {
            sections.push((start, size));
        }
    }
    sections.sort_unstable();
    let mut hashed = headers_end;
    for (start, size) in sections {
        take(start..start.saturating_add(size))?;
        hashed = hashed.saturating_add(size);
    }
    // What follows the sections, up to the certificates, which are the last thing in the file.
    let end = image.len().checked_sub(certificates).ok_or(PeError::Truncated("certificates"))?;
    if hashed < end {
        take(hashed..end)?;
    }
    Ok(hasher)
}

/// The signatures of an image (PKCS #7), in the order of its table, up to one that cannot be read. Those of other kinds are no
/// signatures for firmware either.
///
/// # Errors
/// [`PeError`].
pub(super) fn signatures(image: &[u8]) -> Result<Vec<&[u8]>, PeError> {
    const HEADER: usize = 8;
    /// WIN_CERTIFICATE of revision 2.0 and type PKCS_SIGNED_DATA.
    const PKCS: [u8; 4] = [0, 2, 2, 0];
    let headers = Headers::of(image)?;
    if headers.directory_count <= SECURITY_DIRECTORY {
        return Ok(Vec::new());
    }
    let truncated = PeError::Truncated("certificates");
    let start = usize_at(image, headers.security).ok_or(truncated)?;
    let size = usize_at(image, headers.security.saturating_add(4)).ok_or(truncated)?;
    let mut rest = image.get(start..).and_then(|rest| rest.get(..size)).ok_or(truncated)?;
    let mut found = Vec::new();
    while let Some(length) = usize_at(rest, 0).filter(|length| *length > HEADER) {
        let Some(contents) = rest.get(HEADER..length) else { break };
        if rest.get(4..HEADER) == Some(&PKCS) {
            found.push(contents);
        }
        rest = length.checked_next_multiple_of(8).and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    Ok(found)
}
