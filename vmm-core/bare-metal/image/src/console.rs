//! What the host says: lines on the first serial port.
//!
//! One line is written at a time, whichever processor it is from. A port that nobody answers at costs a bounded number of
//! polls per byte, and loses what is said.

use core::fmt::{self, Write};

use tdvisor_bare_metal::ring0::port::Port;
use tdvisor_base::sync::{Mutex, spin_loop};

/// COM1.
const COM1: u16 = 0x3F8;
/// Polls until a byte is written anyway: a port that is ready takes a byte at 115200 baud within a tenth of a millisecond.
const PATIENCE: u32 = 100_000;

/// Registers of a 16550, as offsets.
mod register {
    pub const DATA: u16 = 0;
    pub const INTERRUPTS: u16 = 1;
    pub const FIFO: u16 = 2;
    pub const LINE: u16 = 3;
    pub const MODEM: u16 = 4;
    pub const STATUS: u16 = 5;
}

/// The transmitter takes a byte.
const READY: u8 = 1 << 5;

/// Who may use the port.
static WRITER: Mutex<Serial> = Mutex::new(Serial);

struct Serial;

#[expect(unsafe_code, reason = "a 16550 cannot change memory")]
fn port(offset: u16) -> Port {
    // SAFETY: the image runs in ring 0; a serial port does not reach memory.
    unsafe { Port::claim(COM1 + offset) }
}

/// Sets the port up: 115200 baud, eight bits, no parity, no interrupts.
pub fn set_up() {
    const DIVISOR_ACCESS: u8 = 1 << 7;
    const EIGHT_BITS: u8 = 0b11;
    for (offset, value) in [
        (register::INTERRUPTS, 0),
        (register::LINE, DIVISOR_ACCESS),
        (register::DATA, 1),
        (register::INTERRUPTS, 0),
        (register::LINE, EIGHT_BITS),
        (register::FIFO, 0b111),
        (register::MODEM, 0b11),
    ] {
        port(offset).write(value);
    }
}

impl Serial {
    fn byte(byte: u8) {
        for _ in 0..PATIENCE {
            if port(register::STATUS).read() & READY != 0 {
                break;
            }
            spin_loop();
        }
        port(register::DATA).write(byte);
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::byte(b'\r');
            }
            Self::byte(byte);
        }
        Ok(())
    }
}

/// Writes bytes that somebody else has made a line of.
pub fn write(bytes: &[u8]) {
    let _writer = WRITER.lock();
    bytes.iter().copied().for_each(Serial::byte);
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    // Serial ports do not fail.
    let _ = writeln!(WRITER.lock(), "tdvisor-host: {text}");
}

/// Writes the last line there is, even if another one is being written: its writer may never finish.
pub fn last_line(text: fmt::Arguments<'_>) {
    const ATTEMPTS: u32 = 1_000_000;
    let writer = (0..ATTEMPTS).find_map(|_| {
        spin_loop();
        WRITER.try_lock()
    });
    let _ = writeln!(Serial, "tdvisor-host: {text}");
    drop(writer);
}

/// Says one line.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        $crate::console::line(format_args!($($words)*))
    };
}
