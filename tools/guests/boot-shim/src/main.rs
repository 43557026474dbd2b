//! `boot-shim`: the firmware that boots Linux in a TD.
//!
//! In this order, on the first vCPU:
//! 1. a place to work: the bounce buffer and the other vCPUs' stacks are accepted;
//! 2. all other memory that the TD HOB offers is accepted by all vCPUs, which then wait in the mailbox loop;
//! 3. kernel, command line and initrd are read from fw_cfg, measured, and placed;
//! 4. ACPI tables and boot_params are written, and the kernel is entered.
//!
//! Everything that the host says (TD HOB, fw_cfg, the files in it) is checked before it is used. What goes wrong is
//! one line on the console, `boot-shim: …`, and a ReportFatalError.

#![no_std]
#![no_main]

mod boot_params;
mod bytes;
mod event_log;
mod fw_cfg;
mod kernel;
mod loader;
mod lpc_bridge;
mod measure;
mod memory_map;
mod problem;
mod slices;
mod statics;
mod vcpus;

use core::convert::Infallible;

use guest_rt::hob;
use guest_rt::layout::{PAGE_2M, POOL_BASE, POOL_SIZE, TD_HOB_BASE, TD_HOB_SIZE};
use guest_rt::shared::SharedBuffer;
use guest_rt::{Outcome, Td, exit, guest, println};

use tdvisor_board::acpi::{self, Area, Ecam, EventLog, Machine, NoRoom, WakeUp};

use event_log::Rtmr;
use fw_cfg::FwCfg;
use hob::Range;
use measure::Measurer;
use memory_map::{MemoryMap, Use};
use problem::Problem;
use slices::Slices;
use statics::Statics;

guest!(main, "boot-shim");

fn main(td: &'static Td) -> Outcome {
    defmt::info!("boot-shim starts on {=u32} vCPU(s)", td.vcpus);
    match boot(td) {
        Ok(never) => match never {},
        Err(problem) => exit::die(format_args!("{problem}")),
    }
}

/// The BIOS area below 1 MiB: memory, but none that a kernel should use.
const BIOS_AREA: Range = Range { start: 0xA_0000, end: 0x10_0000 };

fn boot(td: &'static Td) -> Result<Infallible, Problem> {
    let Statics { mailbox, acpi, log, boot_params, command_line, operand } = Statics::take()?;
    let (acpi_place, log_place) = (statics::place_of(acpi), statics::place_of(log));
    let mailbox_place = statics::place_of(mailbox).start;
    let machine = Machine {
        vcpus: td.vcpus,
        low_ram: low_ram(td),
        ecam: Ecam::Fixed,
        wake_up: Some(WakeUp { mailbox: mailbox_place, reset_vector: vcpus::reset_vector(mailbox_place) }),
        event_log: Some(EventLog { base: log_place.start, bytes: log_place.end - log_place.start }),
    };
    let mut measurer = Measurer::new(log, operand)?;
    measurer.hob(td.hob_bytes())?;
    measurer.separator(Rtmr::Machine)?;

    let buffer = accept_memory(td, mailbox)?;
    let mut map = memory_map(td, acpi_place)?;
    let mut fw_cfg = FwCfg::find(SharedBuffer::convert(buffer)?)?;
    let loaded = loader::load(&mut fw_cfg, &mut map, &mut measurer, command_line)?;
    fw_cfg.into_buffer().into_private()?;

    lpc_bridge::place_power_management();
    write_acpi(acpi, acpi_place.start, &machine)?;
    loaded.write_boot_params(boot_params, acpi_place.start, &map)?;
    println!("boot-shim: entering the kernel at {:#x}", loaded.entry());
    loaded.enter(boot_params)
}

/// The end of RAM below 4 GiB, as the host offers it.
fn low_ram(td: &Td) -> u64 {
    const FOUR_GIB: u64 = 1 << 32;
    let ends = td.hob().unaccepted().iter().map(|range| range.end);
    ends.filter(|end| *end <= FOUR_GIB).max().unwrap_or_default()
}

/// Writes the tables into their area at `base`: the root pointer, then the others.
fn write_acpi(area: &mut [u8], base: u64, machine: &Machine) -> Result<(), Problem> {
    let (rsdp, tables) = area.split_first_chunk_mut().ok_or(NoRoom)?;
    let mut stays = |_| {};
    let mut tables = Area::new(tables, base + acpi::RSDP_BYTES as u64, &mut stays);
    let xsdt = acpi::write(&mut tables, machine)?;
    *rsdp = acpi::rsdp(xsdt);
    Ok(())
}

/// The bounce buffer's place.
const BUFFER: Range = Range { start: POOL_BASE, end: POOL_BASE + POOL_SIZE };

/// Accepts everything that the host offers, and gives the memory of the bounce buffer.
fn accept_memory(td: &'static Td, mailbox: &'static mut [u8]) -> Result<&'static mut [u8], Problem> {
    if td.vcpus > vcpus::MAX {
        return Err(Problem::TooManyVcpus(td.vcpus));
    }
    let offered = td.hob().unaccepted();
    let areas = Range { start: BUFFER.end, end: BUFFER.end + vcpus::areas_length(td.vcpus) };
    let needed = Range { start: BUFFER.start, end: areas.end.next_multiple_of(PAGE_2M) };
    let slices = Slices::new(offered, needed);
    if !slices.contain(needed) {
        let offered = td.unaccepted().map(|range| range.end - range.start).sum();
        return Err(Problem::TooLittleMemory { offered, needed });
    }
    vcpus::accept(needed)?;
    // SAFETY: the two ranges were just accepted, which the module does once, so nobody else has them; they are
    // apart, and identity mapped because `BUFFER` and 512 areas lie far below 4 GiB.
    let (buffer, areas) = unsafe { (memory(BUFFER), memory(areas)) };
    let accepted = vcpus::accept_all(slices, vcpus::Places { areas, mailbox })?;
    println!(
        "boot-shim: {} MiB accepted on {} vCPU(s) as {} x 2M and {} x 4K",
        accepted.kib() >> 10,
        td.vcpus,
        accepted.large,
        accepted.small
    );
    Ok(buffer)
}

/// # Safety
/// The range is accepted memory in the identity map that nobody else uses, ever.
unsafe fn memory(range: Range) -> &'static mut [u8] {
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(range.start as *mut u8, (range.end - range.start) as usize) }
}

/// All memory that is the TD's now, and what of it is in use.
fn memory_map(td: &Td, acpi: Range) -> Result<MemoryMap, Problem> {
    let mut map = MemoryMap::new();
    td.hob().unaccepted().iter().try_for_each(|range| map.add(*range))?;
    let hob = Range { start: TD_HOB_BASE, end: TD_HOB_BASE + TD_HOB_SIZE };
    let own = statics::own_memory();
    map.add(hob)?;
    map.add(own)?;
    // Below 1 MiB the kernel needs room for its trampolines.
    map.mark(Range { start: 0, end: BIOS_AREA.start }, Use::Loaded)?;
    map.mark(BIOS_AREA, Use::Reserved)?;
    map.mark(BUFFER, Use::Loaded)?;
    map.mark(own, Use::Loaded)?;
    map.mark(statics::resident_memory(), Use::AcpiNvs)?;
    map.mark(acpi, Use::AcpiTables)?;
    Ok(map)
}
