//! How a guest ends.
//!
//! * With a result: one byte to [`EXIT_PORT`], then HLT for ever. The host powers the TD off at the write.
//! * Without: TDG.VP.VMCALL\<ReportFatalError\> with a message.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use heapless::String;
use tdx_guest::tdvmcall::{IoSize, hlt, io_write, report_fatal_error_simple};

/// The port to which the result is written.
pub const EXIT_PORT: u16 = 0x501;

/// What the guest says about its own run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Everything worked.
    Success = 0,
    /// Something that the guest checks did not.
    Failure = 1,
}

impl Outcome {
    /// Success if `ok`.
    pub fn from_checks(ok: bool) -> Self {
        if ok { Self::Success } else { Self::Failure }
    }
}

/// Ends the TD with a result.
pub fn power_off(outcome: Outcome) -> ! {
    if io_write(IoSize::Size1, EXIT_PORT, outcome as u32).is_err() {
        crate::serial::emergency(format_args!("{guest_last_words}: the host has no power-off port"));
    }
    halt()
}

/// Stops this vCPU: HLT with interrupts off never returns, unless the host wants it to.
pub fn halt() -> ! {
    loop {
        hlt();
    }
}

unsafe extern "Rust" {
    /// What comes before a guest's last words on the console, defined by [`guest!`](crate::guest).
    safe static guest_last_words: &'static str;
}

/// Ends the TD with a message, on the console in full and to the host as far as its registers hold.
pub fn die(message: fmt::Arguments<'_>) -> ! {
    crate::serial::emergency(format_args!("{guest_last_words}: {message}"));
    let mut brief = Brief(String::new());
    // A message that is too long is cut, and that is the only way in which this fails.
    let _ = brief.write_fmt(message);
    report_fatal_error_simple(&brief.0)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(location) => {
            die(format_args!("panic: {} ({}:{})", info.message(), location.file(), location.line()))
        }
        None => die(format_args!("panic: {}", info.message())),
    }
}

/// Bytes of a message that ReportFatalError carries in registers, less the final zero.
const BRIEF: usize = 63;

struct Brief(String<BRIEF>);

impl Write for Brief {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars()
            .map(|letter| if letter.is_ascii() { letter } else { '?' })
            .try_for_each(|letter| self.0.push(letter).map_err(|_| fmt::Error))
    }
}
