//! Dumps: what a TD held, as an ELF core file that `crash`, `drgn` and gdb open beside the guest kernel's symbols.
//!
//! # Form
//! The form of Linux's own `/proc/vmcore`, and of QEMU's `dump-guest-memory`: an ELF-64 core file with
//! - a segment of notes: one `NT_PRSTATUS` for each vCPU, in their order, and the kernel's `VMCOREINFO`, where it keeps one;
//! - a loadable segment for each piece of guest-physical memory that the guest has: accepted private pages, and shared ones.
//!   Memory that was never touched, or never accepted, is in none.
//!
//! Loadable segments have physical addresses, and none in the guest's address space: the kernel's own page tables, which
//! VMCOREINFO leads to, say that.
//!
//! # Whose secrets
//! A dump holds all that the TD held. There is none of a TD that was not started as [`Secrecy::Inspectable`], and only the
//! emulator can make one of a TD that is not in debug mode. The file is of its owner alone.
//!
//! # Bounds
//! As many bytes as the TD has memory; [`MAX_PIECES`] segments.

mod elf;
mod memory;
mod notes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use machine_emu::EmulatedMachine;
use seam_emu::Machine;
use td_host::td::Td;
use x86_arch::CpuState;

use crate::private_file;
use memory::{Bytes as _, Piece};

pub use elf::MAX_PIECES;

/// Whether the host of a TD may look into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrecy {
    /// What the TD holds stays its own.
    #[default]
    Kept,
    /// Whoever started the TD lets its memory and registers be looked at.
    Inspectable,
}

/// Why there is no dump.
#[derive(Debug)]
pub enum DumpError {
    /// The TD was not started to be looked into.
    NotInspectable,
    /// What is mapped cannot be read.
    Host(td_host::Error),
    /// Memory that is mapped is none of the machine's.
    Memory,
    /// Memory is in more pieces than a file can have segments.
    TooManyPieces,
    /// The file.
    Io(io::Error),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInspectable => f.write_str("the TD was not started inspectable"),
            Self::Host(error) => error.fmt(f),
            Self::Memory => f.write_str("the TD's memory is none of the machine's"),
            Self::TooManyPieces => write!(f, "the TD's memory is in more than {MAX_PIECES} pieces"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a TD holds that does not run.
pub struct Dump {
    machine: Arc<Machine>,
    vcpus: Vec<CpuState>,
    pieces: Vec<Piece>,
    vmcoreinfo: Option<Vec<u8>>,
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("vcpus", &self.vcpus.len()).field("pieces", &self.pieces.len()).finish()
    }
}

impl Dump {
    /// Looks at a TD that does not run.
    pub(crate) fn of(
        td: &Td<'_, EmulatedMachine>,
        machine: Arc<Machine>,
        secrecy: Secrecy,
    ) -> Result<Self, DumpError> {
        if secrecy != Secrecy::Inspectable {
            return Err(DumpError::NotInspectable);
        }
        let private = machine.secure_ept(td.tdr().hpa());
        let shared = td.mappings().map_err(DumpError::Host)?;
        let pieces = memory::pieces(&private, &shared);
        // A vCPU that was never made has no registers, and a dump names as many as there are.
        let vcpus =
            td.vcpus().iter().map(|vcpu| machine.vcpu_state(vcpu.tdvpr()).unwrap_or_default()).collect();
        let vmcoreinfo = notes::find_vmcoreinfo(&pieces, machine.memory())?;
        Ok(Self { machine, vcpus, pieces, vmcoreinfo })
    }

    /// Whether the guest's kernel keeps a VMCOREINFO, without which `crash` and `drgn` cannot find their way.
    pub const fn has_vmcoreinfo(&self) -> bool {
        self.vmcoreinfo.is_some()
    }

    /// Bytes of guest memory in it.
    pub fn memory(&self) -> u64 {
        self.pieces.iter().map(Piece::bytes).sum()
    }

    /// Writes it to a file that only its owner may read. A file that is there is replaced once the new one is whole. Gives its
    /// size.
    ///
    /// # Errors
    /// [`DumpError`]; the file is as it was.
    pub fn write_file(&self, path: &Path) -> Result<u64, DumpError> {
        private_file::replace(path, |file| self.write(BufWriter::new(file)))
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`DumpError`]; what was written so far is no dump.
    pub fn write(&self, mut out: impl Write) -> Result<(), DumpError> {
        let notes = notes::notes(&self.vcpus, self.vmcoreinfo.as_deref());
        let segments: Vec<_> = self.pieces.iter().map(|piece| (piece.gpa(), piece.bytes())).collect();
        out.write_all(&elf::headers(notes.len() as u64, &segments).ok_or(DumpError::TooManyPieces)?)?;
        out.write_all(&notes)?;
        for piece in &self.pieces {
            piece.each_page(&mut |hpa| {
                out.write_all(&self.machine.memory().page(hpa)?)?;
                Ok(())
            })?;
        }
        out.flush()?;
        Ok(())
    }
}
