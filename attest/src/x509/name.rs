//! Distinguished names: compared by encoding, read for their common name.

use core::fmt;

use der::Tag;

use super::X509Error;
use super::asn1::{Element, Walk};

/// commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A distinguished name, as its DER encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    pub(super) fn read(element: &Element<'a>) -> Result<Self, X509Error> {
        element.expect(Tag::Sequence)?;
        Ok(Self(element.whole))
    }

    /// The DER encoding.
    #[must_use]
    pub const fn der(&self) -> &'a [u8] {
        self.0
    }

    /// The first common name, if it is text.
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        let mut sets = Element::only(self.0).ok()?.inside(Tag::Sequence).ok()?;
        while let Ok(set) = sets.next() {
            let mut attributes: Walk<'a> = set.inside(Tag::Set).ok()?;
            while let Ok(attribute) = attributes.next() {
                let mut parts = attribute.inside(Tag::Sequence).ok()?;
                let oid = parts.next().ok()?;
                let value = parts.next().ok()?;
                if oid.tag == Tag::ObjectIdentifier && oid.value == COMMON_NAME {
                    return match value.tag {
                        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
                            core::str::from_utf8(value.value).ok()
                        }
                        _ => None,
                    };
                }
            }
        }
        None
    }

    /// Whether the common name contains `phrase`: how Intel's library tells the roles apart.
    #[must_use]
    pub fn common_name_contains(&self, phrase: &str) -> bool {
        self.common_name().is_some_and(|name| name.contains(phrase))
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({:?})", self.common_name())
    }
}
