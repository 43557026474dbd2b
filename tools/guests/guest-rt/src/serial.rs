//! The console: text on COM1, one TDG.VP.VMCALL\<I/O\> per byte (`tdx-guest`'s own writer).

use core::fmt;

use x86_64::instructions::port::Port;

use crate::sync::SpinLock;

const COM1: u16 = 0x3F8;

static CONSOLE: SpinLock<()> = SpinLock::new(());

/// Prints a line. Lines of different vCPUs do not mix.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::serial::print_line(core::format_args!($($argument)*))
    };
}

/// The function behind [`println!`](crate::println).
pub fn print_line(line: fmt::Arguments<'_>) {
    let _console = CONSOLE.lock();
    tdx_guest::print(format_args!("{line}\n"));
}

/// Prints a line without waiting for the lock, whose holder may be the one that died.
pub(crate) fn emergency(line: fmt::Arguments<'_>) {
    tdx_guest::print(format_args!("{line}\n"));
}

/// Prints a line with plain OUT instructions: each raises #VE, and the handler makes the call.
pub fn print_line_by_exception(line: &str) {
    let _console = CONSOLE.lock();
    let mut port = Port::<u8>::new(COM1);
    for byte in line.bytes().chain([b'\n']) {
        // SAFETY: a write to the serial port's data register changes nothing in memory.
        unsafe { port.write(byte) };
    }
}
