//! From the host's files to a kernel in memory.
//!
//! Each file is read into memory of its own before it is measured, and measured before it is believed. The map of
//! memory is what keeps files, kernel and shim apart: nothing is written but ranges that it had as free.

use guest_rt::layout::{IDENTITY_LIMIT, PAGE_4K};
use guest_rt::println;

use crate::boot_params::{self, Inputs};
use crate::event_log::Rtmr;
use crate::fw_cfg::FwCfg;
use crate::fw_cfg::directory::File;
use crate::hob::Range;
use crate::kernel::{Kernel, LOAD_LIMIT, Plan};
use crate::measure::Measurer;
use crate::memory_map::{MemoryMap, Use};
use crate::problem::Problem;
use crate::statics::{COMMAND_LINE, place_of};

const _: () = assert!(LOAD_LIMIT <= IDENTITY_LIMIT);

core::arch::global_asm!(include_str!("entry.s"));

unsafe extern "C" {
    /// Leaves for the kernel; see entry.s.
    fn enter_kernel(entry: u64, boot_params: u64) -> !;
}

/// A kernel that is ready to be entered.
#[derive(Debug)]
pub struct Loaded {
    kernel: Kernel<'static>,
    entry: u64,
    load_address: u64,
    command_line: u64,
    initrd: Range,
}

/// Reads, measures and places everything.
///
/// # Errors
/// Whatever is wrong with the files, or that they do not fit.
pub fn load(
    fw_cfg: &mut FwCfg,
    map: &mut MemoryMap,
    measurer: &mut Measurer,
    command_line: &'static mut [u8; COMMAND_LINE],
) -> Result<Loaded, Problem> {
    let directory = fw_cfg.directory()?;
    let file = directory.kernel.filter(|file| file.length != 0).ok_or(Problem::NoKernel)?;
    let file = read(fw_cfg, map, "kernel", file, LOAD_LIMIT)?;
    measurer.kernel(file)?;
    measurer.separator(Rtmr::Kernel)?;
    let kernel = Kernel::parse(file)?;
    let plan = kernel.place(map)?;
    carry_out(&plan);
    println!(
        "boot-shim: {}, {} KiB, loaded at {:#x}..{:#x}",
        kernel.form(),
        file.len().div_ceil(1024),
        plan.range.start,
        plan.range.end
    );

    let limit = kernel.command_line_limit().min(COMMAND_LINE as u64 - 1);
    let text = read_command_line(fw_cfg, directory.command_line, command_line, limit)?;
    measurer.command_line(text)?;
    let initrd = match directory.initrd.filter(|file| file.length != 0) {
        Some(file) => {
            let initrd = read(fw_cfg, map, "initrd", file, kernel.initrd_limit())?;
            measurer.initrd(initrd)?;
            let place = place_of(initrd);
            println!("boot-shim: initrd, {} KiB, at {:#x}", initrd.len().div_ceil(1024), place.start);
            place
        }
        None => Range { start: 0, end: 0 },
    };
    measurer.separator(Rtmr::KernelInputs)?;
    Ok(Loaded {
        kernel,
        entry: plan.entry,
        load_address: plan.range.start,
        command_line: text.as_ptr() as u64,
        initrd,
    })
}

impl Loaded {
    /// Where the kernel is entered.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Describes everything to the kernel.
    ///
    /// # Errors
    /// boot_params cannot say it.
    pub fn write_boot_params(
        &self,
        page: &mut [u8; boot_params::LENGTH],
        rsdp: u64,
        map: &MemoryMap,
    ) -> Result<(), Problem> {
        let inputs = Inputs {
            load_address: self.load_address,
            command_line: self.command_line,
            initrd: self.initrd,
            rsdp,
            map,
        };
        Ok(boot_params::write(page, &self.kernel, &inputs)?)
    }

    /// Leaves for the kernel.
    pub fn enter(&self, boot_params: &'static [u8; boot_params::LENGTH]) -> ! {
        // SAFETY: the kernel lies at its place with everything it is promised; what happens from here on is its
        // business, and nothing of the shim's runs again but the parked vCPUs in resident memory.
        unsafe { enter_kernel(self.entry, boot_params.as_ptr() as u64) }
    }
}

/// Reads a file into free memory, as high as it may be.
fn read(
    fw_cfg: &mut FwCfg,
    map: &mut MemoryMap,
    what: &'static str,
    file: File,
    limit: u64,
) -> Result<&'static [u8], Problem> {
    let length = u64::from(file.length);
    let too_large = Problem::FileTooLarge { what, length, free: map.largest_free(limit) };
    let start = map.highest(length.next_multiple_of(PAGE_4K), limit).ok_or(too_large)?;
    map.mark(Range { start, end: start + length }, Use::Loaded)?;
    // SAFETY: the range was free, is not any more, and lies in accepted memory below the end of the identity map.
    let memory = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, file.length as usize) };
    fw_cfg.file(file, memory)?;
    Ok(memory)
}

/// Reads the command line, if there is one; the memory behind it is zero.
fn read_command_line(
    fw_cfg: &mut FwCfg,
    file: Option<File>,
    memory: &'static mut [u8; COMMAND_LINE],
    limit: u64,
) -> Result<&'static [u8], Problem> {
    let Some(file) = file else { return Ok(&memory[..0]) };
    let length = u64::from(file.length);
    if length > limit {
        return Err(Problem::CommandLineTooLong { length, limit });
    }
    let Some(text) = memory.get_mut(..file.length as usize) else {
        return Err(Problem::CommandLineTooLong { length, limit });
    };
    fw_cfg.file(file, text)?;
    if text.contains(&0) {
        return Err(Problem::CommandLineWithZero);
    }
    Ok(text)
}

/// Puts a kernel's parts where they belong.
fn carry_out(plan: &Plan<'_>) {
    for part in plan.parts() {
        // SAFETY: the plan's memory was free when it was made and is the kernel's now, it lies below the end of the
        // identity map, and the parts' bytes are elsewhere: in a file that had been marked as used before.
        let memory =
            unsafe { core::slice::from_raw_parts_mut(part.address as *mut u8, part.length as usize) };
        let (bytes, rest) = memory.split_at_mut(part.bytes.len());
        bytes.copy_from_slice(part.bytes);
        rest.fill(0);
    }
}
