//! Migration bundles as recordings check and make them.
//!
//! A bundle is an MBMD (48 bytes: 32 of header, then the tag of an AES-256-GCM run), metadata pages that belong to the
//! same run, or memory pages with runs of their own, whose tags lie in MAC lists.

use std::fmt;
use std::sync::Arc;

use tdvisor_base::Hpa;

use super::model::Pattern;
use super::symbols::Number;

/// Four 64-bit words, little-endian: a 256-bit key.
pub type Key = [Number; 4];

/// What is to be encrypted to somewhere.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Where the ciphertext goes.
    pub at: Hpa,
    /// The plaintext.
    pub plain: Plaintext,
}

/// Plaintext of known length.
#[derive(Clone, Debug)]
pub enum Plaintext {
    /// The seeded pattern.
    Pattern(Pattern),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// One run of AES-256-GCM that the host makes.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The key.
    pub key: Key,
    /// The initialisation vector.
    pub iv: [u8; 12],
    /// What is authenticated and not encrypted.
    pub aad: Vec<u8>,
    /// What is encrypted, in order.
    pub parts: Vec<Sealed>,
    /// Where the tag goes.
    pub tag_at: Hpa,
}

/// The kind of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BundleKind {
    /// Immutable state of a TD.
    Immutable,
    /// Mutable state of a TD.
    Td,
    /// State of a VCPU.
    Vcpu,
    /// Memory.
    Memory,
    /// Epoch token.
    EpochToken,
    /// Abort token.
    AbortToken,
}

impl BundleKind {
    /// Whether the stream's number is left out of what the tag authenticates.
    pub const fn hides_stream(self) -> bool {
        matches!(self, Self::Memory | Self::Vcpu | Self::AbortToken)
    }
}

/// A page of a bundle, and what it must decrypt to.
#[derive(Clone, Debug)]
pub struct StatePage {
    /// Where the ciphertext lies.
    pub at: Hpa,
    /// The plaintext.
    pub list: Arc<MetadataPage>,
}

/// A page of memory in a bundle.
#[derive(Clone, Debug)]
pub struct MemoryEntry {
    /// The entry's number in the list.
    pub index: u32,
    /// The GPA list entry.
    pub aad: u64,
    /// Where the ciphertext lies and what the plaintext hashes to; `None`: the entry has no content.
    pub content: Option<(Hpa, [u8; 32])>,
}

/// What the last export call must have written.
#[derive(Clone, Debug)]
pub struct CheckBundle {
    /// The kind.
    pub kind: BundleKind,
    /// The key.
    pub key: Key,
    /// Where the MBMD lies.
    pub mbmd_at: Hpa,
    /// The first 32 bytes of the MBMD.
    pub mbmd: [u8; 32],
    /// Pages of state.
    pub pages: Vec<StatePage>,
    /// Pages of memory.
    pub entries: Vec<MemoryEntry>,
    /// Where the MAC lists lie, 256 tags each.
    pub mac_lists: Vec<Hpa>,
}

/// A decrypted page of a metadata list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataPage {
    /// Bytes that are used, header included.
    pub bytes: u16,
    /// The sequences of fields.
    pub sequences: Vec<MetadataSequence>,
}

/// One sequence of fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataSequence {
    /// The identifier of the first element, with the number of elements and fields.
    pub header: u64,
    /// The elements, eight bytes each.
    pub values: Vec<u8>,
}

/// What is wrong with a bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleFault {
    /// The first 32 bytes of the MBMD.
    Header {
        /// As recorded.
        expected: [u8; 32],
        /// As found.
        actual: [u8; 32],
    },
    /// The tag of the MBMD.
    Tag,
    /// The tag of a list entry.
    EntryTag(u32),
    /// The content of a list entry.
    EntryContent(u32),
    /// The shape of a metadata page: its number and its sequence's, and how it differs.
    List {
        /// The number of the page.
        page: usize,
        /// How the page differs.
        difference: ListDifference,
    },
}

/// How a metadata page differs from the recorded one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListDifference {
    /// The list has no such form at all.
    Malformed,
    /// Bytes in use or number of sequences: expected and actual.
    Size((u16, usize), (u16, usize)),
    /// The header of a sequence: its number, expected, actual.
    Header(usize, u64, u64),
    /// A value that does not depend on the platform: number of the sequence, its header, number of the element,
    /// expected and actual.
    Value(usize, u64, usize, u64, u64),
}

impl fmt::Display for BundleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { expected, actual } => {
                write!(f, "the MBMD is {actual:02x?} where {expected:02x?} is recorded")
            }
            Self::Tag => f.write_str("the MBMD's tag is wrong"),
            Self::EntryTag(entry) => write!(f, "the tag of list entry {entry} is wrong"),
            Self::EntryContent(entry) => write!(f, "list entry {entry} has another content"),
            Self::List { page, difference } => write!(f, "page {page} of the state: {difference}"),
        }
    }
}

impl fmt::Display for ListDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("is no metadata list"),
            Self::Size(expected, actual) => {
                write!(f, "(bytes, sequences) expected {expected:?}, actual {actual:?}")
            }
            Self::Header(at, expected, actual) => {
                write!(f, "header of sequence {at} expected {expected:#x}, actual {actual:#x}")
            }
            Self::Value(at, header, element, expected, actual) => write!(
                f,
                "element {element} of sequence {at} ({header:#x}) expected {expected:#x}, actual {actual:#x}"
            ),
        }
    }
}
