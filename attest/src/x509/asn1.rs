//! Walking DER without copying: elements as (tag, contents, whole encoding).
//!
//! Lengths and tags are read by crate `der`, which refuses anything but the distinguished encoding.

use der::{Decode, Header, Reader, SliceReader, Tag};

use super::X509Error;

/// One DER element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: Tag,
    /// The contents.
    pub(crate) value: &'a [u8],
    /// Tag, length and contents.
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads one element that is all of `bytes`.
    pub(crate) fn only(bytes: &'a [u8]) -> Result<Self, X509Error> {
        let mut walk = Walk::new(bytes)?;
        let element = walk.next()?;
        walk.end()?;
        Ok(element)
    }

    /// The elements inside this one, which must have `tag`.
    pub(crate) fn inside(&self, tag: Tag) -> Result<Walk<'a>, X509Error> {
        self.expect(tag)?;
        Walk::new(self.value)
    }

    pub(crate) fn expect(&self, tag: Tag) -> Result<&'a [u8], X509Error> {
        if self.tag == tag { Ok(self.value) } else { Err(X509Error::Unexpected) }
    }

    /// The bits of a BIT STRING that has no unused ones.
    pub(crate) fn bits(&self) -> Result<&'a [u8], X509Error> {
        match self.expect(Tag::BitString)?.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err(X509Error::Unexpected),
        }
    }

    /// A non-negative INTEGER of at most eight bytes.
    pub(crate) fn unsigned(&self) -> Result<u64, X509Error> {
        let value = positive(self.expect(Tag::Integer)?)?;
        if value.len() > 8 {
            return Err(X509Error::Unexpected);
        }
        Ok(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// The magnitude of a positive INTEGER in its shortest form, without leading zeros.
pub(crate) fn positive(value: &[u8]) -> Result<&[u8], X509Error> {
    match value {
        [] => Err(X509Error::Unexpected),
        [0] => Ok(&[]),
        [0, rest @ ..] if rest.first().is_some_and(|first| first & 0x80 != 0) => Ok(rest),
        [first, ..] if *first == 0 || first & 0x80 != 0 => Err(X509Error::Unexpected),
        _ => Ok(value),
    }
}

/// Elements one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    reader: SliceReader<'a>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, X509Error> {
        Ok(Self { bytes, reader: SliceReader::new(bytes).map_err(|_| X509Error::Der)? })
    }

    /// Offset of the next element.
    pub(crate) fn offset(&self) -> Result<usize, X509Error> {
        usize::try_from(self.reader.position()).map_err(|_| X509Error::Der)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_finished()
    }

    pub(crate) fn next(&mut self) -> Result<Element<'a>, X509Error> {
        let start = self.offset()?;
        let header = Header::decode(&mut self.reader).map_err(|_| X509Error::Der)?;
        let value = self.reader.read_slice(header.length()).map_err(|_| X509Error::Der)?;
        let end = self.offset()?;
        let whole = self.bytes.get(start..end).ok_or(X509Error::Der)?;
        Ok(Element { tag: header.tag(), value, whole })
    }

    /// The next element if it has `tag`.
    pub(crate) fn next_if(&mut self, tag: Tag) -> Result<Option<Element<'a>>, X509Error> {
        if self.is_empty() || Tag::peek(&self.reader).map_err(|_| X509Error::Der)? != tag {
            return Ok(None);
        }
        self.next().map(Some)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), X509Error> {
        if self.is_empty() { Ok(()) } else { Err(X509Error::Unexpected) }
    }
}

/// A constructed context-specific tag.
pub(crate) const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: der::TagNumber(number) }
}
