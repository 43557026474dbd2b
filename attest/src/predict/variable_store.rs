//! The variable store of a firmware image (its CFV): what is enrolled there of Secure Boot.
//!
//! A firmware volume whose header is followed by a store of authenticated variables, each with a header of 60 bytes, its
//! name (UTF-16) and its value, aligned to four bytes. Source: edk2, MdeModulePkg's `Guid/VariableFormat.h` and the UEFI PI
//! specification, "Firmware Volume Format".

use crate::eventlog::Guid;

/// aaf32c78-947b-439a-a180-2e144ec37792, a store of authenticated variables.
const AUTHENTICATED: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// f0a30bc7-af08-4556-99c4-001009c93a44, of the variable `SecureBootEnable`.
const SECURE_BOOT_ENABLE: Guid =
    Guid([0xc7, 0x0b, 0xa3, 0xf0, 0x08, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0, 0x10, 0x09, 0xc9, 0x3a, 0x44]);
const VOLUME_SIGNATURE: &[u8] = b"_FVH";
const VOLUME_SIGNATURE_AT: usize = 40;
const VOLUME_HEADER_BYTES_AT: usize = 48;
const STORE_HEADER_BYTES: usize = 28;
const VARIABLE_HEADER_BYTES: usize = 60;
const START: [u8; 2] = [0xaa, 0x55];
/// The state of a variable that is there.
const ADDED: u8 = 0x3f;
/// More variables than this are no store.
const MAX_VARIABLES: usize = 4096;

/// A store that can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct VariableStore<'a>(&'a [u8]);

impl<'a> VariableStore<'a> {
    /// The store of a firmware volume; `None` where there is none that is understood.
    pub(super) fn of(volume: &'a [u8]) -> Option<Self> {
        let signature = volume.get(VOLUME_SIGNATURE_AT..)?;
        let header = volume.get(VOLUME_HEADER_BYTES_AT..)?.first_chunk().copied().map(u16::from_le_bytes)?;
        let store = volume.get(usize::from(header)..)?;
        let bytes = store.get(16..)?.first_chunk().copied().map(u32::from_le_bytes)?;
        let bytes = usize::try_from(bytes).ok()?;
        let is_store = signature.starts_with(VOLUME_SIGNATURE) && store.starts_with(&AUTHENTICATED);
        store.get(STORE_HEADER_BYTES..bytes).filter(|_| is_store).map(Self)
    }

    /// Vendor, name and value of each variable that is there.
    fn variables(self) -> impl Iterator<Item = (Guid, &'a [u8], &'a [u8])> {
        let mut at = 0usize;
        let next = move || {
            let header: &[u8; VARIABLE_HEADER_BYTES] = self.0.get(at..)?.first_chunk()?;
            if !header.starts_with(&START) {
                return None;
            }
            let length = |at: usize| {
                let bytes = header.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)?;
                usize::try_from(bytes).ok()
            };
            let (name, value) = (length(36)?, length(40)?);
            let start = at.checked_add(VARIABLE_HEADER_BYTES)?;
            let middle = start.checked_add(name)?;
            let end = middle.checked_add(value)?;
            let vendor = Guid(*header.get(44..)?.first_chunk()?);
            let found = (header[2], vendor, self.0.get(start..middle)?, self.0.get(middle..end)?);
            at = end.checked_next_multiple_of(4)?;
            Some(found)
        };
        core::iter::from_fn(next)
            .take(MAX_VARIABLES)
            .filter(|(state, ..)| *state == ADDED)
            .map(|(_, vendor, name, value)| (vendor, name, value))
    }

    /// The value of a variable; empty where there is none, as firmware measures it.
    pub(super) fn value(self, vendor: Guid, name: &str) -> &'a [u8] {
        let name = || name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        let mut all = self.variables();
        all.find(|(of, called, _)| *of == vendor && called.iter().copied().eq(name()))
            .map_or(&[], |(.., value)| value)
    }

    /// Whether a build that has Secure Boot turns it on: a platform key is enrolled, and nobody turned it off.
    pub(super) fn enforces_secure_boot(self) -> bool {
        !self.value(Guid::GLOBAL_VARIABLE, "PK").is_empty()
            && self.value(SECURE_BOOT_ENABLE, "SecureBootEnable") != [0]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A firmware volume with a store of these variables.
    pub(in crate::predict) fn volume(variables: &[(Guid, &str, &[u8], u8)]) -> Vec<u8> {
        let mut volume = alloc::vec![0u8; 72];
        volume[40..44].copy_from_slice(VOLUME_SIGNATURE);
        volume[48..50].copy_from_slice(&72u16.to_le_bytes());
        let mut store = AUTHENTICATED.to_vec();
        store.resize(STORE_HEADER_BYTES, 0);
        for (vendor, name, value, state) in variables {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let mut header = alloc::vec![0u8; VARIABLE_HEADER_BYTES];
            header[..2].copy_from_slice(&START);
            header[2] = *state;
            header[36..40].copy_from_slice(&crate::length32(name.len()).to_le_bytes());
            header[40..44].copy_from_slice(&crate::length32(value.len()).to_le_bytes());
            header[44..].copy_from_slice(&vendor.0);
            store.extend(header);
            store.extend(name);
            store.extend(*value);
            store.resize(store.len().next_multiple_of(4), 0xff);
        }
        store.resize(store.len() + 64, 0xff);
        let bytes = crate::length32(store.len()).to_le_bytes();
        store[16..20].copy_from_slice(&bytes);
        volume.extend(store);
        volume
    }

    #[test]
    fn enrolled_keys_are_found_and_deleted_ones_are_not() {
        const DELETED: u8 = 0x3c;
        let of = |variables: &[(Guid, &str, &[u8], u8)]| {
            let bytes = volume(variables);
            let store = VariableStore::of(&bytes).unwrap();
            (store.value(Guid::GLOBAL_VARIABLE, "PK").to_vec(), store.enforces_secure_boot())
        };
        let key = (Guid::GLOBAL_VARIABLE, "PK", &b"a key"[..], ADDED);
        assert_eq!(of(&[]), (Vec::new(), false));
        assert_eq!(of(&[key]), (b"a key".to_vec(), true));
        assert_eq!(of(&[(key.0, key.1, b"old", DELETED), key]), (b"a key".to_vec(), true));
        assert_eq!(of(&[(key.0, key.1, key.2, DELETED)]), (Vec::new(), false));
        assert!(!of(&[key, (SECURE_BOOT_ENABLE, "SecureBootEnable", &[0], ADDED)]).1);
        assert_eq!(of(&[(Guid::IMAGE_SECURITY_DATABASE, "PK", b"x", ADDED)]), (Vec::new(), false));
    }

    #[test]
    fn what_is_no_store_is_none_and_a_cut_one_ends() {
        let bytes = volume(&[(Guid::GLOBAL_VARIABLE, "PK", b"a key", ADDED)]);
        for length in 0..bytes.len() {
            assert!(VariableStore::of(&bytes[..length]).is_none(), "{length}");
        }
        assert!(VariableStore::of(&[0; 4096]).is_none());
        let mut absurd = bytes;
        absurd[72 + STORE_HEADER_BYTES + 36..72 + STORE_HEADER_BYTES + 44].fill(0xff);
        let store = VariableStore::of(&absurd).unwrap();
        assert!(store.value(Guid::GLOBAL_VARIABLE, "PK").is_empty());
    }
}
