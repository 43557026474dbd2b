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

/// The option that firmware makes up for a device it can boot from, here a function 0 on the first PCI bus: EFI_LOAD_OPTION with the
/// mark of those that it made itself, 8108ac4e-9f11-4d59-850e-e21a522c59b2 (edk2 UefiBootManagerLib, `BmBoot.c`).
#[must_use]
pub fn device_option(description: &str, device: u8) -> Vec<u8> {
    const ACTIVE: u32 = 1;
    /// ACPI: PNP0A03, number 0; then PCI: the function, the device.
    const ROOT: [u8; 12] = [2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0];
    const MADE_UP: [u8; 16] =
        [0x4e, 0xac, 0x08, 0x81, 0x11, 0x9f, 0x59, 0x4d, 0x85, 0x0e, 0xe2, 0x1a, 0x52, 0x2c, 0x59, 0xb2];
    let path = [&ROOT[..], &[1, 1, 6, 0, 0, device], &END].concat();
    let mut option = load_option(ACTIVE, description, &path);
    option.extend_from_slice(&MADE_UP);
    option
}

/// The end of a device path.
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// Attributes, length of the path, description, path.
fn load_option(attributes: u32, description: &str, path: &[u8]) -> Vec<u8> {
    let mut option = attributes.to_le_bytes().to_vec();
    option.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend_from_slice(&utf16(description));
    option.extend_from_slice(&[0, 0]);
    option.extend_from_slice(path);
    option
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
    path.extend_from_slice(&END);
    load_option(attributes, description, &path)
}
