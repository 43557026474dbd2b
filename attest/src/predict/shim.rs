//! shim, the first boot loader of distributions: what it measures of the keys and revocations that it carries.
//!
//! Into RTMR2 goes the value of each list that shim keeps in a variable: its own keys with those that the machine's owner enrolled
//! (MokList), its own revocations with those (MokListX), and whether keys of either are trusted (MokListTrusted). Predicted is a
//! machine whose owner enrolled nothing, as every new TD is (a boot of Debian's shim 16.1; rhboot/shim, `mok.c` and `cert.S`).

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::authenticode::{self, PeError};
use super::{Expectation, Part, Prediction};
use crate::eventlog::Register;
use td_image::digest::Digest384;

/// The section with the keys and revocations that a distribution built in. Its table: sizes of both, then their offsets.
const VENDOR_CERTIFICATES: &str = ".vendor_cert";
/// EFI_CERT_X509_GUID.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// SHIM_LOCK_GUID, the owner of the keys.
const SHIM_LOCK: [u8; 16] =
    [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];
/// An ASN.1 sequence, by which a certificate begins and a list of them does not.
const SEQUENCE: u8 = 0x30;
/// MokListTrusted, unless the owner says otherwise.
const TRUSTED: [u8; 1] = [1];

/// The lists that an image carries.
struct Carried<'a> {
    keys: &'a [u8],
    revocations: &'a [u8],
}

impl<'a> Carried<'a> {
    fn of(table: &'a [u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = table.get(index * 4..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let list = |size: usize, offset: usize| table.get(offset..)?.get(..size);
        Some(Self { keys: list(word(0)?, word(2)?)?, revocations: list(word(1)?, word(3)?)? })
    }
}

/// An EFI_SIGNATURE_LIST of one certificate.
fn signature_list(certificate: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 28;
    let signature = certificate.len().checked_add(SHIM_LOCK.len())?;
    let mut list = X509.to_vec();
    for size in [signature.checked_add(HEADER)?, 0, signature] {
        list.extend(u32::try_from(size).ok()?.to_le_bytes());
    }
    list.extend(SHIM_LOCK);
    list.extend(certificate);
    Some(list)
}

/// Appends what an image measures if it is shim; any other image measures nothing here.
///
/// # Errors
/// [`PeError`].
pub(super) fn measure(image: &[u8], prediction: &mut Prediction) -> Result<(), PeError> {
    let sections = authenticode::sections(image)?;
    let Some(section) = sections.iter().find(|section| section.is_named(VENDOR_CERTIFICATES)) else {
        return Ok(());
    };
    let table = section.contents();
    let carried = Carried::of(&table).ok_or(PeError::Truncated(VENDOR_CERTIFICATES))?;
    let exactly = |bytes: &[u8]| Expectation::Exactly(Digest384::of(bytes));
    let keys = match carried.keys {
        [SEQUENCE, ..] => signature_list(carried.keys).as_deref().map(exactly),
        _ => None,
    };
    let needs = Cow::Borrowed("the keys of a shim that carries no single certificate");
    let mut add = |name: &str, expectation| {
        prediction.push(Register::Rtmr2, Part::BootLoader(name.to_string()), expectation);
    };
    add("MokList", keys.unwrap_or(Expectation::Unknown { needs }));
    if !carried.revocations.is_empty() {
        add("MokListX", exactly(carried.revocations));
    }
    add("MokListTrusted", exactly(&TRUSTED));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with this section, whose name is behind the file's symbols.
    fn shim(section: &[u8]) -> Vec<u8> {
        let mut file = crate::predict::tests::pe_image();
        file.truncate(0x400);
        let start = file.len();
        file.extend(section);
        file.resize(file.len().next_multiple_of(0x200), 0);
        let symbols = file.len();
        file.extend(17_u32.to_le_bytes());
        file.extend(b"\0.vendor_cert");
        let pe = u32::from_le_bytes(*file[0x3c..].first_chunk().unwrap()) as usize;
        file[pe + 6..pe + 8].copy_from_slice(&1_u16.to_le_bytes());
        file[pe + 12..pe + 16].copy_from_slice(&(symbols as u32).to_le_bytes());
        file[pe + 16..pe + 20].fill(0);
        let optional = usize::from(u16::from_le_bytes(*file[pe + 20..].first_chunk().unwrap()));
        let entry = &mut file[pe + 24 + optional..][..40];
        entry.fill(0);
        entry[..2].copy_from_slice(b"/5");
        for (at, value) in [(8, section.len()), (16, symbols - start), (20, start)] {
            entry[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        file
    }

    fn measured(image: &[u8]) -> Result<Vec<(Part, Expectation)>, PeError> {
        let mut prediction = Prediction { events: Vec::new(), silent: Vec::new() };
        measure(image, &mut prediction)?;
        Ok(prediction.events.into_iter().map(|event| (event.part, event.expectation)).collect())
    }

    fn table(keys: &[u8], revocations: &[u8]) -> Vec<u8> {
        let sizes = [keys.len(), revocations.len(), 16, 16 + keys.len()];
        let mut table: Vec<u8> = sizes.iter().flat_map(|size| (*size as u32).to_le_bytes()).collect();
        table.extend_from_slice(keys);
        table.extend_from_slice(revocations);
        table
    }

    #[test]
    fn the_lists_are_the_certificate_in_one_of_shims_the_revocations_as_they_are_and_that_both_are_trusted() {
        let events = measured(&shim(&table(b"\x30\x01\x00", b"revoked"))).unwrap();
        let list = [&X509[..], &[47, 0, 0, 0, 0, 0, 0, 0, 19, 0, 0, 0], &SHIM_LOCK, b"\x30\x01\x00"].concat();
        let part = |name: &str| Part::BootLoader(name.to_string());
        let exactly = |bytes: &[u8]| Expectation::Exactly(Digest384::of(bytes));
        let expected = [
            (part("MokList"), exactly(&list)),
            (part("MokListX"), exactly(b"revoked")),
            (part("MokListTrusted"), exactly(&[1])),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn what_is_not_known_of_a_shim_is_not_guessed_and_others_measure_nothing() {
        let events = measured(&shim(&table(b"a list", b""))).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].1.only(), None, "MokList");
        assert_eq!(measured(&crate::predict::tests::pe_image()), Ok(Vec::new()));
        assert_eq!(measured(&shim(&[0xff; 16])), Err(PeError::Truncated(VENDOR_CERTIFICATES)));
        assert_eq!(measured(&shim(&[1])), Err(PeError::Truncated(VENDOR_CERTIFICATES)));
    }
}
