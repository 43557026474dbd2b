//! UEFI variables as firmware measures them.

use alloc::vec::Vec;

use crate::eventlog::Guid;
use td_image::digest::Digest384;

/// Text as UTF-16LE, without a final NUL.
#[must_use]
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The digest of a UEFI_VARIABLE_DATA: vendor, name and value.
#[must_use]
pub fn variable(vendor: Guid, name: &str, value: &[u8]) -> Digest384 {
    let name = utf16(name);
    let mut bytes = Vec::with_capacity(32 + name.len() + value.len());
    bytes.extend_from_slice(&vendor.0);
    bytes.extend_from_slice(&(name.len() as u64 / 2).to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(value);
    Digest384::of(&bytes)
}

/// A boot option that starts a file of a firmware volume (EFI_LOAD_OPTION with two device path nodes).
#[must_use]
pub fn firmware_file_option(attributes: u32, description: &str, volume: Guid, file: Guid) -> Vec<u8> {
    const NODE_BYTES: u8 = 20;
    let mut path = Vec::new();
    for (subtype, guid) in [(7u8, volume), (6, file)] {
        path.extend_from_slice(&[4, subtype, NODE_BYTES, 0]);
        path.extend_from_slice(&guid.0);
    }
    path.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    let mut option = Vec::new();
    option.extend_from_slice(&attributes.to_le_bytes());
    option.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend_from_slice(&utf16(description));
    option.extend_from_slice(&[0, 0]);
    option.extend_from_slice(&path);
    option
}
