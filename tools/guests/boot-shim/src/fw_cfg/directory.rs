//! The file directory of fw_cfg: which selector has which file (QEMU docs/specs/fw_cfg.rst).
//!
//! This file uses `core` only, so that the host-side tests can include it.

use tdvisor_board::files::{COMMAND_LINE, INITRD, KERNEL};

/// Bytes of an entry.
pub const ENTRY: usize = 64;
/// Most entries that are looked at.
pub const MAX_ENTRIES: u32 = 1024;

const NAME: usize = 8;
/// Selectors from here on are files.
const FIRST_FILE: u16 = 0x20;

/// A file that the host offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// How to select it.
    pub selector: u16,
    /// Bytes.
    pub length: u32,
}

/// The files that the shim knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The kernel.
    pub kernel: Option<File>,
    /// The initial RAM disk.
    pub initrd: Option<File>,
    /// The command line.
    pub command_line: Option<File>,
}

/// A directory that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryError {
    /// Two files of one name.
    Twice(&'static str),
    /// A file whose selector is no file's.
    BadSelector(&'static str, u16),
}

impl Directory {
    /// Takes note of an entry, if it is one of ours.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn note(&mut self, entry: &[u8; ENTRY]) -> Result<(), DirectoryError> {
        let [a, b, c, d, e, f, ..] = *entry;
        let (_, name) = entry.split_at(NAME);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let (known, slot) = match name {
            name if name == KERNEL.as_bytes() => (KERNEL, &mut self.kernel),
            name if name == INITRD.as_bytes() => (INITRD, &mut self.initrd),
            name if name == COMMAND_LINE.as_bytes() => (COMMAND_LINE, &mut self.command_line),
            _ => return Ok(()),
        };
        let selector = u16::from_be_bytes([e, f]);
        if selector < FIRST_FILE {
            return Err(DirectoryError::BadSelector(known, selector));
        }
        if slot.is_some() {
            return Err(DirectoryError::Twice(known));
        }
        *slot = Some(File { selector, length: u32::from_be_bytes([a, b, c, d]) });
        Ok(())
    }
}
