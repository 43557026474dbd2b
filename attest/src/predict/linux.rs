//! A Linux kernel under QEMU's direct boot: what RTMR1 and RTMR2 will see of it.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use td_image::linux::SetupHeader;
use zerocopy::little_endian::{U16, U32};

use super::authenticode::{self, PeError};
use super::variables::utf16;
use super::{Alternative, Expectation};
use td_image::digest::Digest384;

/// QEMU's room for ACPI data below the top of low memory (hw/i386/x86-common.c: 0x20000 + 0x8000).
const ACPI_DATA_BYTES: u32 = 0x2_8000;
/// From this much memory on, q35 keeps only 2 GiB below 4 GiB.
const LOW_MEMORY_LIMIT: u64 = 0xb000_0000;
const DEFAULT_INITRD_MAX: u32 = 0x37ff_ffff;
/// QEMU's number as a boot loader.
const QEMU_LOADER: u8 = 0xb0;
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
    let mut image = image.to_vec();
    let is_whole = image.len() >= SETUP_BYTES;
    let header = SetupHeader::of_mut(&mut image).filter(|_| is_whole);
    let Some(header) = header.filter(|header| header.version.get() >= SetupHeader::VERSION_2_02) else {
        return Ok(None);
    };
    let (setup, command_line): (u32, u32) = if header.loadflags & SetupHeader::LOADED_HIGH != 0 {
        (0x1_0000, 0x2_0000)
    } else {
        (0x9_0000, 0x9_a000)
    };
    header.type_of_loader = QEMU_LOADER;
    // QEMU writes 32 bits: the two bytes behind the field become zero.
    header.heap_end_ptr = U16::new(((command_line - setup - 0x200) & 0xffff) as u16);
    (header.ext_loader_ver, header.ext_loader_type) = (0, 0);
    header.cmd_line_ptr = U32::new(command_line);
    header.loadflags |= SetupHeader::CAN_USE_HEAP;
    if machine.initrd != 0 {
        let declared = header.initrd_addr_max.get();
        let version = header.version.get();
        let above_4g = version >= SetupHeader::VERSION_2_12
            && header.xloadflags.get() & SetupHeader::XLF_CAN_BE_LOADED_ABOVE_4G != 0;
        let limit = match (above_4g, version >= SetupHeader::VERSION_2_03 && declared != 0) {
            (true, _) => u32::MAX,
            (false, true) => declared,
            (false, false) => DEFAULT_INITRD_MAX,
        };
        let low = if machine.memory >= LOW_MEMORY_LIMIT {
            0x8000_0000
        } else {
            (machine.memory & 0xffff_ffff) as u32
        };
        let room = low.checked_sub(ACPI_DATA_BYTES).ok_or(KernelError::InitrdTooLarge)?;
        let limit = if limit >= room { room.saturating_sub(1) } else { limit };
        let address = limit.checked_sub(machine.initrd).ok_or(KernelError::InitrdTooLarge)? & !0xfff;
        header.ramdisk_image = U32::new(address);
        header.ramdisk_size = U32::new(machine.initrd);
    }
    Ok(Some(image))
}

/// The command line as the EFI stub measures it: UTF-16LE with its final NUL.
fn measured(text: &str) -> Digest384 {
    let mut bytes = utf16(text);
    bytes.extend([0, 0]);
    Digest384::of(&bytes)
}

/// A command line that the EFI stub is given as it is.
pub(super) fn given_command_line(text: &str) -> Expectation {
    Expectation::Exactly(measured(text))
}

/// A command line that the EFI stub is given by OVMF, which adds the name under which the initrd can be loaded: behind it, and
/// in newer builds (2026.08, by a boot of it) before it.
#[must_use]
pub fn command_line(text: &str) -> Expectation {
    let text = text.trim_end_matches(['\n', '\0']);
    let (behind, before) = (alloc::format!("{text} initrd=initrd"), alloc::format!("initrd=initrd {text}"));
    Expectation::OneOf(vec![
        Alternative { when: Cow::Borrowed("as given"), digest: measured(text) },
        Alternative {
            when: Cow::Borrowed("with \" initrd=initrd\" appended by OVMF"),
            digest: measured(&behind),
        },
        Alternative {
            when: Cow::Borrowed("with \"initrd=initrd \" put before it by OVMF"),
            digest: measured(&before),
        },
    ])
}
