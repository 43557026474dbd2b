//! shim, the first boot loader of distributions: what it measures of the keys and revocations that it carries.
//!
//! Into RTMR2 goes the value of each list that shim keeps in a variable: its own keys with those that the machine's owner enrolled
//! (MokList), its own revocations with those (MokListX), and whether keys of either are trusted (MokListTrusted). Predicted is a
//! machine whose owner enrolled nothing, as every new TD is (a boot of Debian's shim 16.1; rhboot/shim, `mok.c` and `cert.S`).
//!
//! Into RTMR0, where Secure Boot is enforced, go the generations of boot loaders that are still good (SbatLevel: the older of two lists
//! that it carries, `sbat.c`), and the key by which it lets start what it starts: once for each key.

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::authenticode::{self, PeError};
use super::secure_boot::{self, X509};
use super::variables::variable;
use super::{Expectation, Part, Prediction};
use crate::eventlog::{Guid, Register};
use td_image::digest::Digest384;

/// The section with the keys and revocations that a distribution built in. Its table: sizes of both, then their offsets.
const VENDOR_CERTIFICATES: &str = ".vendor_cert";
/// The section with the generations that are still good: the version of its form, offsets of two texts from behind that.
const SBAT_LEVELS: &str = ".sbatlevel";
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

/// The table of the keys in an image that is shim.
fn vendor_table(image: &[u8]) -> Result<Option<Cow<'_, [u8]>>, PeError> {
    section(image, VENDOR_CERTIFICATES)
}

fn section<'a>(image: &'a [u8], name: &str) -> Result<Option<Cow<'a, [u8]>>, PeError> {
    let sections = authenticode::sections(image)?;
    Ok(sections.iter().find(|section| section.is_named(name)).map(|section| section.contents()))
}

/// The list of generations that a machine without one of its own gets.
fn generations(section: &[u8]) -> Option<&[u8]> {
    let (_form, levels) = section.split_first_chunk::<4>()?;
    let offset = u32::from_le_bytes(*levels.first_chunk()?);
    let text = levels.get(usize::try_from(offset).ok()?..)?;
    text.iter().position(|byte| *byte == 0).and_then(|end| text.get(..end))
}

/// Appends what an image measures into RTMR0 where Secure Boot is enforced, if it is shim, and lets these start: none is a kernel that
/// is not known. `database` is the firmware's own, whose keys come before shim's.
///
/// # Errors
/// [`PeError`]: of `image`; what it starts and cannot be read is not predicted.
pub(super) fn authorities(
    image: &[u8],
    started: &[Option<&[u8]>],
    database: &[u8],
    prediction: &mut Prediction,
) -> Result<(), PeError> {
    let Some(table) = vendor_table(image)? else { return Ok(()) };
    let keys = Carried::of(&table).and_then(|carried| signature_list(carried.keys)).unwrap_or_default();
    let levels = section(image, SBAT_LEVELS)?;
    let level = levels.as_deref().and_then(generations);
    let unknown = |needs: &'static str| Expectation::Unknown { needs: Cow::Borrowed(needs) };
    let measured = |name: &str, value: &[u8]| Expectation::Exactly(variable(Guid(SHIM_LOCK), name, value));
    let mut add = |name: &str, expectation| {
        prediction.push(Register::Rtmr0, Part::Authority(name.to_string()), expectation);
    };
    let needs = "a shim that carries generations of boot loaders";
    add("SbatLevel", level.map_or_else(|| unknown(needs), |level| measured("SbatLevel", level)));
    let by = |image: &Option<&[u8]>| {
        let image = (*image)?;
        let firmware_knows = secure_boot::authority(database, image).ok()?.is_some();
        secure_boot::authority(&keys, image).ok()?.filter(|_| !firmware_knows)
    };
    let by: Option<Vec<_>> = started.iter().map(by).collect();
    // There is one key: what it lets start is all measured with its first.
    let key = by.as_deref().and_then(<[_]>::first);
    let needs = "boot loader and kernel with signatures by shim's own key";
    add("MokListRT", key.map_or_else(|| unknown(needs), |entry| measured("MokListRT", entry.whole)));
    Ok(())
}

/// Appends what an image measures if it is shim; any other image measures nothing here.
///
/// # Errors
/// [`PeError`].
pub(super) fn measure(image: &[u8], prediction: &mut Prediction) -> Result<(), PeError> {
    let Some(table) = vendor_table(image)? else { return Ok(()) };
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

    /// An image with these sections, whose names are behind the file's symbols.
    fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = crate::predict::tests::pe_image();
        file.truncate(0x400);
        let pe = u32::from_le_bytes(*file[0x3c..].first_chunk().unwrap()) as usize;
        let optional = usize::from(u16::from_le_bytes(*file[pe + 20..].first_chunk().unwrap()));
        let (mut names, mut entries) = (Vec::new(), Vec::new());
        for (name, contents) in sections {
            let mut entry = [0; 40];
            let at = alloc::format!("/{}", 4 + names.len());
            entry[..at.len()].copy_from_slice(at.as_bytes());
            let padded = contents.len().next_multiple_of(0x200);
            for (at, value) in [(8, contents.len()), (16, padded), (20, file.len())] {
                entry[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
            }
            entries.extend(entry);
            names.extend([name.as_bytes(), &[0]].concat());
            file.extend(*contents);
            file.resize(file.len().next_multiple_of(0x200), 0);
        }
        let symbols = (file.len() as u32).to_le_bytes();
        file.extend((4 + names.len() as u32).to_le_bytes());
        file.extend(names);
        file[pe + 6..pe + 8].copy_from_slice(&(sections.len() as u16).to_le_bytes());
        file[pe + 12..pe + 16].copy_from_slice(&symbols);
        file[pe + 16..pe + 20].fill(0);
        file[pe + 24 + optional..][..entries.len()].copy_from_slice(&entries);
        file
    }

    /// An image with this table of keys.
    fn shim(section: &[u8]) -> Vec<u8> {
        image(&[(VENDOR_CERTIFICATES, section)])
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

    const LEVELS: &[u8] = b"\0\0\0\0\x08\0\0\0\x10\0\0\0sbat,1\n\0sbat,2\n\0";

    /// What shim with this certificate adds to RTMR0 when it starts these.
    fn authorities_of(
        key: &[u8],
        levels: &[u8],
        started: &[Option<&[u8]>],
        database: &[u8],
    ) -> Vec<(Part, Expectation)> {
        let shim = image(&[(VENDOR_CERTIFICATES, &table(key, b"")), (SBAT_LEVELS, levels)]);
        let mut prediction = Prediction { events: Vec::new(), silent: Vec::new() };
        authorities(&shim, started, database, &mut prediction).unwrap();
        assert!(prediction.events.iter().all(|event| event.register == Register::Rtmr0));
        prediction.events.into_iter().map(|event| (event.part, event.expectation)).collect()
    }

    #[test]
    fn where_secure_boot_is_enforced_the_older_generations_and_the_own_key_are_authorities() {
        use secure_boot::tests::{certificate, database, sign, signature};
        let key = certificate("root", "vendor");
        let by = |issuer: &str| {
            let signature = signature(&[certificate(issuer, "signer")]);
            sign(crate::predict::tests::pe_image(), &[signature])
        };
        let (grub, foreign) = (by("vendor"), by("somebody"));
        let authority = |name: &str, value: &[u8]| {
            let measured = variable(Guid(SHIM_LOCK), name, value);
            (Part::Authority(name.to_string()), Expectation::Exactly(measured))
        };
        let level = authority("SbatLevel", b"sbat,1\n");
        let entry = [&SHIM_LOCK[..], &key].concat();
        let of = |started: &[Option<&[u8]>], database: &[u8]| authorities_of(&key, LEVELS, started, database);
        assert_eq!(of(&[Some(&grub), Some(&grub)], &[]), [level.clone(), authority("MokListRT", &entry)]);

        let is_guessed = |events: &[(Part, Expectation)]| events[1].1.only().is_some();
        assert!(!is_guessed(&of(&[Some(&grub), None], &[])), "a kernel that is not known");
        assert!(!is_guessed(&of(&[Some(&grub), Some(&foreign)], &[])), "a kernel by another key");
        let known = database(core::slice::from_ref(&key));
        assert!(!is_guessed(&of(&[Some(&grub), Some(&grub)], &known)), "a key that firmware has as well");
        for cut in 0..LEVELS.len() {
            let events = authorities_of(&key, &LEVELS[..cut], &[Some(&grub)], &[]);
            assert!(cut > 18 || events[0].1.only().is_none(), "{cut}");
        }
    }
}
