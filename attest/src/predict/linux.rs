//! A Linux kernel under QEMU's direct boot: what RTMR1 and RTMR2 will see of it.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::authenticode::{self, PeError};
use super::variables::utf16;
use super::{Alternative, Expectation};
use crate::digest::Digest384;

/// QEMU's room for ACPI data below the top of low memory (hw/i386/x86-common.c: 0x20000 + 0x8000).
const ACPI_DATA_BYTES: u32 = 0x2_8000;
/// From this much memory on, q35 keeps only 2 GiB below 4 GiB.
const LOW_MEMORY_LIMIT: u64 = 0xb000_0000;
const DEFAULT_INITRD_MAX: u32 = 0x37ff_ffff;
/// The setup header lies in the first sectors.
const SETUP_BYTES: usize = 0x1000;

/// Why a kernel cannot be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// Not a PE image.
    Pe(PeError),
    /// The initrd does not fit below 4 GiB beside the machine's memory.
    InitrdTooLarge,
}

impl From<PeError> for KernelError {
    fn from(error: PeError) -> Self {
        Self::Pe(error)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pe(error) => error.fmt(f),
            Self::InitrdTooLarge => f.write_str("the initrd does not fit into the machine's low memory"),
        }
    }
}

impl core::error::Error for KernelError {}

/// What QEMU knew when it wrote into the kernel's setup header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Memory of the machine, bytes.
    pub memory: u64,
    /// Size of the initrd, bytes; 0 without one.
    pub initrd: u32,
}

/// The kernel as firmware sees it: unchanged (QEMU 10.2 and later, for TDX), or with the setup header that
/// older QEMU wrote, which needs to know the machine.
///
/// # Errors
/// [`KernelError`].
pub fn kernel(image: &[u8], machine: Option<Machine>) -> Result<Expectation, KernelError> {
    let mut alternatives = Vec::new();
    let mut add = |image: &[u8], when: &'static str, padded: &'static str| -> Result<(), KernelError> {
        alternatives.push(Alternative { when: Cow::Borrowed(when), digest: authenticode::sha384(image)? });
        if let Some(digest) = authenticode::sha384_padded(image)? {
            alternatives.push(Alternative { when: Cow::Borrowed(padded), digest });
        }
        Ok(())
    };
    add(image, "kernel as it is in the file", "kernel as it is in the file, padded to 8 bytes")?;
    if let Some(machine) = machine
        && let Some(patched) = with_qemus_header(image, machine)?
    {
        add(
            &patched,
            "kernel with the setup header of QEMU before 10.2",
            "kernel with the setup header of QEMU before 10.2, padded to 8 bytes",
        )?;
    }
    Ok(Expectation::OneOf(alternatives))
}

/// The kernel with the fields that QEMU fills in (Linux boot protocol, "The Real-Mode Kernel Header").
/// `None` if it has no setup header.
fn with_qemus_header(image: &[u8], machine: Machine) -> Result<Option<Vec<u8>>, KernelError> {
    let has_header = image.get(0x202..0x206) == Some(b"HdrS".as_slice()) && image.len() >= SETUP_BYTES;
    let protocol = match image.get(0x206..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) if has_header => u16::from_le_bytes(*bytes),
        _ => return Ok(None),
    };
    if protocol < 0x202 {
        return Ok(None);
    }
    let mut image = image.to_vec();
    let byte = |image: &[u8], at: usize| image.get(at).copied().unwrap_or(0);
    let word = |image: &[u8], at: usize| {
        image.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let loaded_high = byte(&image, 0x211) & 1 != 0;
    let (setup, command_line): (u32, u32) =
        if loaded_high { (0x1_0000, 0x2_0000) } else { (0x9_0000, 0x9_a000) };
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = image.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0x210, &[0xb0]);
    put(0x224, &(command_line - setup - 0x200).to_le_bytes());
    put(0x228, &command_line.to_le_bytes());
    let flags = byte(&image, 0x211) | 0x80;
    if let Some(field) = image.get_mut(0x211) {
        *field = flags;
    }
    if machine.initrd != 0 {
        let declared = word(&image, 0x22c);
        let above_4g = protocol >= 0x20c && byte(&image, 0x236) & 2 != 0;
        let limit = match (above_4g, protocol >= 0x203 && declared != 0) {
            (true, _) => u32::MAX,
            (false, true) => declared,
            (false, false) => DEFAULT_INITRD_MAX,
        };
        let low = if machine.memory >= LOW_MEMORY_LIMIT { 0x8000_0000 } else { machine.memory as u32 };
        let room = low.checked_sub(ACPI_DATA_BYTES).ok_or(KernelError::InitrdTooLarge)?;
        let limit = if limit >= room { room.saturating_sub(1) } else { limit };
        let address = limit.checked_sub(machine.initrd).ok_or(KernelError::InitrdTooLarge)? & !0xfff;
        for (at, value) in [(0x218, address), (0x21c, machine.initrd)] {
            if let Some(field) = image.get_mut(at..at + 4) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    Ok(Some(image))
}

/// The command line as the EFI stub measures it: UTF-16LE with its final NUL. OVMF appends the name under which
/// the initrd can be loaded.
#[must_use]
pub fn command_line(text: &str) -> Expectation {
    let measured = |text: &str| {
        let mut bytes = utf16(text);
        bytes.extend([0, 0]);
        Digest384::of(&bytes)
    };
    let text = text.trim_end_matches(['\n', '\0']);
    let with_initrd = alloc::format!("{text} initrd=initrd");
    Expectation::OneOf(vec![
        Alternative { when: Cow::Borrowed("as given"), digest: measured(text) },
        Alternative {
            when: Cow::Borrowed("with \" initrd=initrd\" appended by OVMF"),
            digest: measured(&with_initrd),
        },
    ])
}
