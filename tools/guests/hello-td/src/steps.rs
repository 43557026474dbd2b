//! The steps of `hello-td` that run on the first vCPU.

use guest_rt::layout::{PAGE_2M, PAGE_4K};
use guest_rt::measurement::{self, DIGEST_LENGTH, REPORT_DATA_LENGTH, Report};
use guest_rt::shared::{ConvertError, SharedBuffer};
use guest_rt::{Td, memory, paging, println, serial};

use crate::{Step, failed};

const PATTERN: u64 = 0x0123_4567_89AB_CDEF;
/// Pages of the buffer that is converted in 4K pages.
const BUFFER_PAGES: u64 = 4;
/// Pages of the quote buffer.
const QUOTE_PAGES: u64 = 4;

/// Lists the offered memory and opens the pool: 4K pages inside a fresh 2M range.
pub fn memory(td: &Td) -> Step {
    for range in td.unaccepted() {
        println!("memory: {:#x}..{:#x} to be accepted", range.start, range.end);
    }
    match memory::open_pool() {
        Ok(accepted) => {
            println!("memory: pool of {} x 4K, {} of them before the rest", accepted.small, accepted.already);
            Ok(())
        }
        Err(refused) => {
            failed(format_args!("memory: GPA {:#x} not accepted: {:?}", refused.gpa, refused.error));
            Err(())
        }
    }
}

/// Prints by plain OUT instructions, and asks the host for a CPUID leaf.
pub fn exception() -> Step {
    serial::print_line_by_exception("#VE: this line was printed by OUT instructions");
    match tdx_guest::cpuid(0x4000_0000, 0) {
        Ok(leaf) => println!("CPUID: hypervisor leaves up to {:#x}", leaf.eax),
        Err(error) => println!("CPUID: the host has no hypervisor leaf ({error:?})"),
    }
    Ok(())
}

/// Writes to addresses that are not mapped; the #PF handler accepts and maps a 2M page for each.
pub fn demand_paging(td: &Td) -> Step {
    paging::offer_demand(td.demand());
    for (number, chunk) in (0u64..).zip(td.demand()) {
        if chunk.start == 0 {
            failed(format_args!("#PF: the TD has no 2M page left for demand paging; give it 16 MiB"));
            return Err(());
        }
        let address = paging::DEMAND_BASE + number * PAGE_2M + PAGE_2M - 8;
        let cell = address as *mut u64;
        // SAFETY: the #PF handler maps an accepted page of the guest's own here, used by nobody else.
        let (before, after) = unsafe {
            let before = cell.read_volatile();
            cell.write_volatile(PATTERN ^ number);
            (before, cell.read_volatile())
        };
        if before != 0 || after != PATTERN ^ number || paging::demand_faults() != number + 1 {
            failed(format_args!("#PF: {address:#x} held {before:#x}, then {after:#x}"));
            return Err(());
        }
        println!("#PF: {address:#x} is now in the 2M page at GPA {:#x}", chunk.start);
    }
    Ok(())
}

/// Shares a buffer of 4K pages, writes and reads through the shared alias, and takes it back zeroed.
pub fn conversion(td: &Td) -> Step {
    let Some(buffer) = memory::take_pages(BUFFER_PAGES) else {
        failed(format_args!("conversion: the pool is empty"));
        return Err(());
    };
    convert(buffer)?;
    if td.command() == "split" {
        return split(td);
    }
    Ok(())
}

/// Converts one 4K page out of a page that was accepted as 2M: the host has to demote its mapping.
fn split(td: &Td) -> Step {
    let large = td.share(0, 1).filter(|chunk| chunk.end - chunk.start == PAGE_2M).last();
    let Some(chunk) = large else {
        failed(format_args!("conversion: the TD has no 2M page"));
        return Err(());
    };
    // SAFETY: `workers` accepted this chunk, nothing else uses it, and the page lies in the identity map.
    let page =
        unsafe { core::slice::from_raw_parts_mut((chunk.start + PAGE_2M / 2) as *mut u8, PAGE_4K as usize) };
    convert(page)
}

fn convert(memory: &'static mut [u8]) -> Step {
    memory.fill(0xA5);
    let length = memory.len();
    match round_trip(memory) {
        Ok(gpa) => {
            println!("conversion: {} KiB at GPA {gpa:#x} shared, written, read, private again", length >> 10);
            Ok(())
        }
        Err(Problem::Convert(error)) => {
            failed(format_args!("conversion: {error:x?}"));
            Err(())
        }
        Err(Problem::Lost { offset }) => {
            failed(format_args!("conversion: a write to the shared page was lost at offset {offset:#x}"));
            Err(())
        }
        Err(Problem::NotZeroed) => {
            failed(format_args!("conversion: the page came back with contents"));
            Err(())
        }
    }
}

enum Problem {
    Convert(ConvertError),
    Lost { offset: usize },
    NotZeroed,
}

fn round_trip(memory: &'static mut [u8]) -> Result<u64, Problem> {
    let buffer = SharedBuffer::convert(memory).map_err(Problem::Convert)?;
    let gpa = buffer.gpa();
    let offsets = || (0..buffer.len()).step_by(PAGE_4K as usize).map(|page| page + 0x100);
    for offset in offsets() {
        buffer.write(offset, PATTERN ^ offset as u64);
    }
    for offset in offsets() {
        if buffer.read(offset) != Some(PATTERN ^ offset as u64) {
            return Err(Problem::Lost { offset });
        }
    }
    let memory = buffer.into_private().map_err(Problem::Convert)?;
    if memory.iter().any(|byte| *byte != 0) {
        return Err(Problem::NotZeroed);
    }
    memory.fill(0x5A);
    Ok(gpa)
}

/// Extends RTMR 3, reads the TDREPORT and prints what it says.
pub fn measurement(td: &Td) -> Step {
    let (Some(operand), Some(page)) = (memory::take_pages(1), memory::take_pages(1)) else {
        failed(format_args!("measurement: the pool is empty"));
        return Err(());
    };
    let event: [u8; DIGEST_LENGTH] = *b"hello-td was here, and extended RTMR 3 with this";
    if let Err(error) = measurement::extend(operand, 3, &event) {
        failed(format_args!("measurement: RTMR 3 not extended: {error:?}"));
        return Err(());
    }
    let mut data = [0; REPORT_DATA_LENGTH];
    data[..8].copy_from_slice(b"hello-td");
    let report = match Report::take(page, &data) {
        Ok(report) => report,
        Err(error) => {
            failed(format_args!("measurement: no TDREPORT: {error:?}"));
            return Err(());
        }
    };
    println!("MRTD {}", report.mrtd());
    for (index, rtmr) in report.rtmrs().iter().enumerate() {
        println!("RTMR{index} {rtmr}");
    }
    if td.command() == "quote" {
        return quote(&report);
    }
    Ok(())
}

/// Asks for a quote. A host without a quoting service says no, which is not the guest's failure.
fn quote(report: &Report<'_>) -> Step {
    let Some(pages) = memory::take_pages(QUOTE_PAGES) else {
        failed(format_args!("quote: the pool is empty"));
        return Err(());
    };
    let buffer = match SharedBuffer::convert(pages) {
        Ok(buffer) => buffer,
        Err(error) => {
            failed(format_args!("quote: {error:x?}"));
            return Err(());
        }
    };
    match measurement::quote(&buffer, report) {
        Ok(length) => println!("quote: {length} bytes"),
        Err(error) => println!("quote: none ({error:x?})"),
    }
    Ok(())
}
