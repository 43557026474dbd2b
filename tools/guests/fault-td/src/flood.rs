//! Floods: a guest that feeds its host as many different things as it can.
//!
//! The command is `flood:KIND:COUNT`. The guest does COUNT of the kind, no two alike where the kind has names, prints a line,
//! and waits for a byte on its console; then the same again, and it powers off. Whoever types the bytes can look at the
//! host in between: what the second half adds, it adds for ever.

use guest_rt::measurement::{self, Report};
use guest_rt::shared::SharedBuffer;
use guest_rt::{Outcome, Td, memory, println};

/// GHCI functions (R11).
mod function {
    pub const CPUID: u64 = 10;
    pub const IO: u64 = 30;
    pub const RDMSR: u64 = 31;
    pub const WRMSR: u64 = 32;
    pub const MMIO: u64 = 48;
    pub const SETUP_EVENT_NOTIFY_INTERRUPT: u64 = 0x1_0004;
    /// The first number that no GHCI defines.
    pub const UNKNOWN: u64 = 0x100_0000;
}

const READ: u64 = 0;
const WRITE: u64 = 1;
/// The console's data register; its status register, where bit 0 says that there is input.
const CONSOLE: u64 = 0x3f8;
const CONSOLE_STATUS: u64 = 0x3fd;
/// The log's data register.
const LOG: u64 = 0x2f8;
/// Ports whose writes end the TD or change its devices' state for good; a flood leaves them out.
const EXIT_PORTS: [u64; 5] = [0x501, 0x505, 0x604, 0x605, 0xcf9];
/// Pages of a quote's buffer.
const QUOTE_PAGES: u64 = 4;

/// TDG.VP.VMCALL with R10 to R15; gives R10 and R11.
fn call(r10: u64, r11: u64, arguments: [u64; 4]) -> (u64, u64) {
    let (mut status, mut value) = (r10, r11);
    let [r12, r13, r14, r15] = arguments;
    // SAFETY: the host cannot write to private memory, and R10 to R15 are all that it may change here.
    unsafe {
        core::arch::asm!(
            ".byte 0x66, 0x0f, 0x01, 0xcc",
            inout("rax") 0u64 => _, inout("rcx") 0xfc00u64 => _,
            inout("r10") status, inout("r11") value, inout("r12") r12 => _, inout("r13") r13 => _,
            inout("r14") r14 => _, inout("r15") r15 => _,
        );
    }
    (status, value)
}

fn write_port(port: u64, value: u64) {
    call(0, function::IO, [1, WRITE, port, value]);
}

/// Reads a byte of a port.
pub fn read_port(port: u64) -> u64 {
    call(0, function::IO, [1, READ, port, 0]).1
}

/// A number that looks like no other: the steps of an odd multiplier visit all of them.
const fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Does what the rest of the command after `flood:` asks for.
pub fn flood(td: &'static Td, what: &str) -> Outcome {
    let (kind, count) = what.split_once(':').unwrap_or((what, ""));
    let Ok(count) = count.parse::<u64>() else {
        println!("fault-td: '{what}' is not KIND:COUNT");
        return Outcome::Failure;
    };
    for half in 0..2 {
        if !half_of(td, kind, half * count..(half + 1) * count) {
            println!("fault-td: no flood of '{kind}'");
            return Outcome::Failure;
        }
        println!("flood {kind} {half}");
        while read_port(CONSOLE_STATUS) & 1 == 0 {
            core::hint::spin_loop();
        }
        read_port(CONSOLE);
    }
    Outcome::Success
}

/// Counts the bytes that come on the console, up to the first NUL.
pub fn count_input() -> Outcome {
    println!("fault-td: counting");
    let (mut bytes, mut sum) = (0u64, 0u64);
    loop {
        while read_port(CONSOLE_STATUS) & 1 == 0 {
            core::hint::spin_loop();
        }
        let byte = read_port(CONSOLE) & 0xff;
        if byte == 0 {
            break;
        }
        bytes += 1;
        sum = sum.wrapping_mul(31).wrapping_add(byte);
    }
    println!("fault-td: {bytes} bytes, sum {sum:#x}");
    Outcome::Success
}

/// Prints without end.
pub fn print_forever() -> ! {
    loop {
        println!("fault-td: a line of some length that nobody may be reading");
    }
}

fn half_of(td: &'static Td, kind: &str, mut numbers: core::ops::Range<u64>) -> bool {
    let shared_bit = 1u64 << (td.gpa_width - 1);
    match kind {
        "calls" => numbers.for_each(|number| {
            call(0, function::UNKNOWN + number, [0; 4]);
            call(0, scattered(number) | 1 << 63, [0; 4]);
        }),
        "vendor" => numbers.for_each(|number| {
            call(scattered(number) | 1, number, [0; 4]);
        }),
        "ports" => numbers.for_each(|number| {
            let port = scattered(number) & 0xffff;
            // The serial ports have modes in which they print nothing any more.
            let is_serial = (CONSOLE..CONSOLE + 8).contains(&port) || (LOG..LOG + 8).contains(&port);
            if !EXIT_PORTS.contains(&port) && !is_serial {
                call(0, function::IO, [1 << (number % 3), number & 1, port, number]);
            }
        }),
        "mmio" => numbers.for_each(|number| {
            let gpa = shared_bit | scattered(number) & (shared_bit - 1);
            call(0, function::MMIO, [1 << (number % 4), number & 1, gpa, number]);
        }),
        "msrs" => numbers.for_each(|number| {
            let msr = scattered(number) & 0xffff_ffff;
            // The x2APIC's command register would interrupt us.
            if !(0x800..0x900).contains(&msr) {
                call(0, function::RDMSR, [msr, 0, 0, 0]);
                call(0, function::WRMSR, [msr, number, 0, 0]);
            }
        }),
        "cpuid" => numbers.for_each(|number| {
            call(0, function::CPUID, [scattered(number) & 0xffff_ffff, number, 0, 0]);
        }),
        "notifications" => numbers.for_each(|number| {
            call(0, function::SETUP_EVENT_NOTIFY_INTERRUPT, [scattered(number) % 512, 0, 0, 0]);
        }),
        "console" => numbers.for_each(|number| {
            // Some lines are long, and some never end.
            let byte = if number.is_multiple_of(5000) { b'\n' } else { b' ' + (number % 64) as u8 };
            write_port(CONSOLE, byte.into());
        }),
        "log" => numbers.for_each(|number| {
            // Frames of every length, few of which can be decoded.
            let byte = if scattered(number).is_multiple_of(97) { 0 } else { scattered(number) >> 32 & 0xff };
            write_port(LOG, byte);
        }),
        "conversions" => return conversions(td, shared_bit, numbers),
        "quotes" => return quotes(numbers),
        "malformed" => numbers.for_each(|number| {
            let known = [function::CPUID, function::IO, function::RDMSR, function::MMIO, 0x1_0001, 0x1_0002];
            let function = known[(number % 6) as usize];
            let odd = scattered(number) | 1 << 62;
            call(0, function, [odd, odd, odd, odd]);
        }),
        "nothing" => _ = numbers.next(),
        _ => return false,
    }
    true
}

/// Converts memory that nobody uses back and forth, in a pattern that has as many borders as possible.
fn conversions(td: &'static Td, shared_bit: u64, numbers: core::ops::Range<u64>) -> bool {
    const MAP_GPA: u64 = 0x1_0001;
    const PAGE: u64 = 4096;
    /// Pages that take turns, every other of them.
    const PAGES: u64 = 512;
    let Some(range) = td.unaccepted().last() else { return false };
    let base = (range.end - 2 * PAGES * PAGE) & !(PAGE - 1);
    for number in numbers {
        let gpa = base + 2 * PAGE * (number % PAGES);
        let side = if (number / PAGES).is_multiple_of(2) { shared_bit } else { 0 };
        call(0, MAP_GPA, [gpa | side, PAGE, 0, 0]);
    }
    true
}

fn quotes(numbers: core::ops::Range<u64>) -> bool {
    let (Some(page), Some(buffer)) = (memory::take_pages(1), memory::take_pages(QUOTE_PAGES)) else {
        return false;
    };
    let Ok(buffer) = SharedBuffer::convert(buffer) else { return false };
    for number in numbers {
        let mut data = [0; measurement::REPORT_DATA_LENGTH];
        data[..8].copy_from_slice(&number.to_le_bytes());
        let Ok(report) = Report::take(page, &data) else { return false };
        // Whether there is a service behind the host is not what this is about.
        let _ = measurement::quote(&buffer, &report);
    }
    true
}
