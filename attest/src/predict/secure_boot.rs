//! The key that lets an image start where Secure Boot is enforced, which is measured into RTMR0 as an "authority".
//!
//! Firmware and shim each look for a certificate in a database of theirs (EFI_SIGNATURE_LISTs) that stands in the chain of one
//! of the image's signatures, signature by signature, and measure its entry: the owner and the certificate, once per
//! certificate (UEFI 2.10, "UEFI Image Validation"; edk2 DxeImageVerificationLib; rhboot/shim, `shim.c`). Chains are followed by
//! names alone: an image whose signature does not hold is not started, and then nothing that is predicted here comes true.

use alloc::vec::Vec;

use der::Tag;

use super::authenticode::{self, PeError};
use crate::x509::X509Error;
use crate::x509::asn1::{Walk, context};

/// EFI_CERT_X509_GUID.
pub(super) const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Owner of an entry: a GUID.
const OWNER_BYTES: usize = 16;
/// Kind, and three sizes.
const LIST_HEADER_BYTES: usize = 28;
/// The most certificates in one signature that are looked at.
const MAX_CERTIFICATES: usize = 32;

/// An entry of a database that is a certificate, as it is measured: EFI_SIGNATURE_DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Owner and certificate.
    pub(super) whole: &'a [u8],
}

impl<'a> Entry<'a> {
    fn certificate(&self) -> &'a [u8] {
        self.whole.get(OWNER_BYTES..).unwrap_or_default()
    }
}

/// The certificates of a database, in its order; what does not parse ends it.
fn entries(database: &[u8]) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    let mut rest = database;
    while let Some(header) = rest.first_chunk::<LIST_HEADER_BYTES>() {
        let size = |at: usize| {
            let bytes = header.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)?;
            usize::try_from(bytes).ok()
        };
        let (Some(list), Some(own_header), Some(entry)) = (size(16), size(20), size(24)) else { break };
        let Some((list, behind)) = rest.split_at_checked(list) else { break };
        let Some(signatures) = list.get(LIST_HEADER_BYTES.saturating_add(own_header)..) else { break };
        if header.starts_with(&X509) && entry > OWNER_BYTES {
            found.extend(signatures.chunks_exact(entry).map(|whole| Entry { whole }));
        }
        rest = behind;
    }
    found
}

/// Issuer and subject of a certificate.
fn names(certificate: &[u8]) -> Result<[&[u8]; 2], X509Error> {
    let mut fields = Walk::new(certificate)?.next()?.inside(Tag::Sequence)?.next()?.inside(Tag::Sequence)?;
    fields.next_if(context(0))?;
    let (_serial, _algorithm) = (fields.next()?, fields.next()?);
    let issuer = fields.next()?.whole;
    let _validity = fields.next()?;
    Ok([issuer, fields.next()?.whole])
}

/// The certificates in a signature (PKCS #7 SignedData).
fn certificates(signature: &[u8]) -> Result<Vec<&[u8]>, X509Error> {
    let mut outer = Walk::new(signature)?.next()?.inside(Tag::Sequence)?;
    let _kind = outer.next()?;
    let mut signed = outer.next()?.inside(context(0))?.next()?.inside(Tag::Sequence)?;
    let (_version, _algorithms, _contents) = (signed.next()?, signed.next()?, signed.next()?);
    let mut found = Vec::new();
    if let Some(list) = signed.next_if(context(0))? {
        let mut list = list.inside(context(0))?;
        while !list.is_empty() && found.len() < MAX_CERTIFICATES {
            found.push(list.next()?.whole);
        }
    }
    Ok(found)
}

/// Whether a certificate stands in a signature, or issued one that does.
fn vouches(certificate: &[u8], signature: &[u8]) -> Result<bool, X509Error> {
    let [_, subject] = names(certificate)?;
    let chain = certificates(signature)?;
    Ok(chain.iter().any(|own| *own == certificate || names(own).is_ok_and(|[issuer, _]| issuer == subject)))
}

/// The entry of a database by which an image may start; `None` where it has none.
///
/// # Errors
/// [`PeError`]: the image.
pub(super) fn authority<'a>(database: &'a [u8], image: &[u8]) -> Result<Option<Entry<'a>>, PeError> {
    let entries = entries(database);
    let signatures = authenticode::signatures(image)?;
    let by = |signature: &&[u8]| {
        let allows = |entry: &&Entry<'a>| vouches(entry.certificate(), signature).unwrap_or(false);
        entries.iter().find(allows).copied()
    };
    Ok(signatures.iter().find_map(by))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap();
        let length = match length {
            0..0x80 => alloc::vec![length as u8],
            0x80..0x100 => alloc::vec![0x81, length as u8],
            _ => [&[0x82][..], &length.to_be_bytes()].concat(),
        };
        [&[tag][..], &length, contents].concat()
    }

    fn name(text: &str) -> Vec<u8> {
        element(0x30, &element(0x0c, text.as_bytes()))
    }

    /// As much of a certificate as has names.
    pub(in crate::predict) fn certificate(issuer: &str, subject: &str) -> Vec<u8> {
        let fields = [
            element(0xa0, &element(2, &[2])),
            element(2, &[1]),
            element(0x30, &[]),
            name(issuer),
            element(0x30, &[]),
            name(subject),
        ];
        element(0x30, &element(0x30, &fields.concat()))
    }

    /// The signature of somebody whose certificates are these.
    pub(in crate::predict) fn signature(certificates: &[Vec<u8>]) -> Vec<u8> {
        let signed = [
            element(2, &[1]),
            element(0x31, &[]),
            element(0x30, &[]),
            element(0xa0, &certificates.concat()),
            element(0x31, &[]),
        ];
        let signed = element(0x30, &signed.concat());
        element(0x30, &[element(6, &[1]), element(0xa0, &signed)].concat())
    }

    /// An image with these signatures.
    fn signed(signatures: &[Vec<u8>]) -> Vec<u8> {
        sign(crate::predict::tests::pe_image(), signatures)
    }

    /// This image with these signatures, and no others.
    pub(in crate::predict) fn sign(mut image: Vec<u8>, signatures: &[Vec<u8>]) -> Vec<u8> {
        image.resize(image.len().next_multiple_of(8), 0);
        let start = image.len();
        for signature in signatures {
            let size = u32::try_from(8 + signature.len()).unwrap();
            image.extend(size.to_le_bytes());
            image.extend([0, 2, 2, 0]);
            image.extend(signature);
            image.resize(image.len().next_multiple_of(8), 0);
        }
        let pe = u32::from_le_bytes(*image[0x3c..].first_chunk().unwrap()) as usize;
        let directory = pe + 24 + 112 + 4 * 8;
        let size = u32::try_from(image.len() - start).unwrap();
        image[directory..directory + 4].copy_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        image[directory + 4..directory + 8].copy_from_slice(&size.to_le_bytes());
        image
    }

    /// A database of certificates, a list each.
    pub(in crate::predict) fn database(certificates: &[Vec<u8>]) -> Vec<u8> {
        let list = |certificate: &Vec<u8>| {
            let entry = u32::try_from(OWNER_BYTES + certificate.len()).unwrap();
            let sizes = [28 + entry, 0, entry].map(u32::to_le_bytes).concat();
            [&X509[..], &sizes, &[7; OWNER_BYTES], certificate].concat()
        };
        certificates.iter().flat_map(list).collect()
    }

    fn found(database: &[u8], image: &[u8]) -> Option<Vec<u8>> {
        authority(database, image).unwrap().map(|entry| entry.whole.to_vec())
    }

    fn entry(certificate: &[u8]) -> Option<Vec<u8>> {
        Some([&[7; OWNER_BYTES], certificate].concat())
    }

    #[test]
    fn an_image_starts_by_the_certificate_that_issued_its_signers_or_stands_in_its_signature() {
        let [other, root] = ["other", "root"].map(|of| certificate(of, of));
        let middle = certificate("root", "middle");
        let image = signed(&[signature(&[certificate("middle", "signer")])]);
        assert_eq!(found(&database(&[other.clone(), middle.clone()]), &image), entry(&middle));
        assert_eq!(found(&database(&[other.clone(), root.clone()]), &image), None, "who is not in between");
        let image = signed(&[signature(&[certificate("middle", "signer"), middle.clone()])]);
        assert_eq!(found(&database(&[other, root.clone()]), &image), entry(&root));
        assert_eq!(found(&database(core::slice::from_ref(&middle)), &image), entry(&middle));
        assert_eq!(found(&database(&[root]), &crate::predict::tests::pe_image()), None, "no signature");
    }

    #[test]
    fn the_first_signature_that_has_a_certificate_decides_whatever_the_order_of_the_database() {
        let [old, new] = ["old", "new"].map(|of| certificate(of, of));
        let by = |issuer: &str| signature(&[certificate(issuer, "signer")]);
        let image = signed(&[by("nobody"), by("old"), by("new")]);
        assert_eq!(found(&database(&[new.clone(), old.clone()]), &image), entry(&old));
        assert_eq!(found(&database(core::slice::from_ref(&new)), &image), entry(&new));
    }

    #[test]
    fn databases_and_signatures_that_are_cut_end_and_break_nothing() {
        let root = certificate("root", "root");
        let whole = database(core::slice::from_ref(&root));
        let image = signed(&[signature(&[certificate("root", "signer")])]);
        for length in 0..whole.len() {
            assert_eq!(found(&whole[..length], &image), None, "{length}");
        }
        for length in 0..image.len() {
            let _ = authority(&whole, &image[..length]);
        }
        for at in 0..image.len() {
            let mut broken = image.clone();
            broken[at] ^= 0xff;
            let _ = authority(&whole, &broken);
        }
        let mut endless = whole.clone();
        endless[16..20].fill(0);
        assert_eq!(found(&endless, &image), None);
    }
}
