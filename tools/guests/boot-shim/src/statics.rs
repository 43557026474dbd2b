//! The shim's own memory: what stays behind when the kernel runs, and what does not.
//!
//! What stays ("resident") lies together with the page tables in whole pages, between `bss_start` and
//! `resident_end` of guest.x, and the kernel is told to leave that range alone: the parked vCPUs use it until they
//! are woken, and the kernel reads tables, log and mailbox. Everything else of the shim becomes free memory.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::boot_params;
use crate::hob::Range;
use crate::problem::Problem;

/// Bytes for the ACPI tables: 512 vCPUs need less than 12 KiB.
const ACPI_AREA: usize = 0x4000;
/// Bytes for the event log.
const LOG_AREA: usize = 0x1_0000;
/// Bytes for the command line and its final zero.
pub const COMMAND_LINE: usize = 0x1000;
const PAGE: usize = 0x1000;

/// Whole pages of plain bytes.
#[repr(C, align(4096))]
struct Pages<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are reached only through `take`, whose flag lets that happen once.
unsafe impl<const SIZE: usize> Sync for Pages<SIZE> {}

impl<const SIZE: usize> Pages<SIZE> {
    const fn zeroed() -> Self {
        Self(UnsafeCell::new([0; SIZE]))
    }
}

#[unsafe(link_section = ".bss.resident")]
static MAILBOX: Pages<PAGE> = Pages::zeroed();
#[unsafe(link_section = ".bss.resident")]
static ACPI: Pages<ACPI_AREA> = Pages::zeroed();
#[unsafe(link_section = ".bss.resident")]
static LOG: Pages<LOG_AREA> = Pages::zeroed();

static BOOT_PARAMS: Pages<{ boot_params::LENGTH }> = Pages::zeroed();
static TEXT: Pages<COMMAND_LINE> = Pages::zeroed();
static OPERAND: Pages<PAGE> = Pages::zeroed();

static TAKEN: AtomicBool = AtomicBool::new(false);

/// All of it, for the first vCPU.
#[derive(Debug)]
pub struct Statics {
    /// The multiprocessor wake-up mailbox, and code for vCPUs that wait for it.
    pub mailbox: &'static mut [u8; PAGE],
    /// ACPI tables.
    pub acpi: &'static mut [u8; ACPI_AREA],
    /// Event log.
    pub log: &'static mut [u8; LOG_AREA],
    /// boot_params.
    pub boot_params: &'static mut [u8; boot_params::LENGTH],
    /// The command line.
    pub command_line: &'static mut [u8; COMMAND_LINE],
    /// Operand of TDG.MR.RTMR.EXTEND.
    pub operand: &'static mut [u8; PAGE],
}

impl Statics {
    /// Takes everything.
    ///
    /// # Errors
    /// The second time.
    pub fn take() -> Result<Self, Problem> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Problem::UsedTwice("static memory"));
        }
        // SAFETY: this point is reached once, so these are the only references there are, for ever.
        unsafe {
            Ok(Self {
                mailbox: &mut *MAILBOX.0.get(),
                acpi: &mut *ACPI.0.get(),
                log: &mut *LOG.0.get(),
                boot_params: &mut *BOOT_PARAMS.0.get(),
                command_line: &mut *TEXT.0.get(),
                operand: &mut *OPERAND.0.get(),
            })
        }
    }
}

// Symbols of the linker script; only their addresses mean something.
unsafe extern "C" {
    static ram_base: u8;
    static bss_start: u8;
    static resident_end: u8;
    static bss_end: u8;
}

/// The memory in which the image was loaded: code, tables, stacks.
pub fn own_memory() -> Range {
    Range { start: &raw const ram_base as u64, end: &raw const bss_end as u64 }
}

/// What of it stays in use.
pub fn resident_memory() -> Range {
    Range { start: &raw const bss_start as u64, end: &raw const resident_end as u64 }
}

/// Where an array lies: statics are identity mapped.
pub fn place_of(bytes: &[u8]) -> Range {
    let start = bytes.as_ptr() as u64;
    Range { start, end: start + bytes.len() as u64 }
}
