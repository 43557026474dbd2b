//! The guest's console: passed on as it comes, and read for the measurements that the guest prints.
//!
//! A host cannot read a TD's RTMRs. A guest that wants them known prints lines `MRTD <hex>` and `RTMRn <hex>`
//! from its own TDREPORT; these are picked up here, and the summary says where they are from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest line that is looked at; longer ones pass unread.
const MAX_LINE: usize = 256;

/// A console that several owners share.
#[derive(Clone)]
pub struct Console(Arc<Mutex<Inner>>);

struct Inner {
    out: Box<dyn Write + Send>,
    line: Vec<u8>,
    registers: BTreeMap<String, String>,
    ends_with_newline: bool,
    /// A line came that is not the boot firmware's.
    kernel_spoke: bool,
}

/// How every line of the boot firmware begins.
const FIRMWARE: &str = "boot-shim: ";

impl Console {
    /// On stdout, or on stderr where stdout is for JSON.
    pub fn new(json: bool) -> Self {
        let out: Box<dyn Write + Send> = if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Self(Arc::new(Mutex::new(Inner {
            out,
            line: Vec::new(),
            registers: BTreeMap::new(),
            ends_with_newline: true,
            kernel_spoke: false,
        })))
    }

    /// Registers that the guest printed: name and value in hex.
    pub fn registers(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).registers.clone()
    }

    /// Whether anything but boot firmware printed a line.
    pub fn kernel_spoke(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).kernel_spoke
    }

    /// Ends a line that the guest left open.
    pub fn finish(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.ends_with_newline {
            let _ = inner.out.write_all(b"\n");
        }
        let _ = inner.out.flush();
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            inner.note(*byte);
        }
        inner.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).out.flush()
    }
}

impl Inner {
    fn note(&mut self, byte: u8) {
        self.ends_with_newline = byte == b'\n';
        if byte != b'\n' {
            if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
            return;
        }
        let line = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        self.kernel_spoke |= !line.is_empty() && !line.starts_with(FIRMWARE);
        let Some((name, value)) = line.split_once(' ') else { return };
        let is_register = matches!(name, "MRTD" | "RTMR0" | "RTMR1" | "RTMR2" | "RTMR3");
        let is_digest = value.len() == 96 && value.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_register && is_digest {
            self.registers.insert(name.to_owned(), value.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurement_lines_are_picked_up_and_others_are_not() {
        let mut console = Console(Arc::new(Mutex::new(Inner {
            out: Box::new(io::sink()),
            line: Vec::new(),
            registers: BTreeMap::new(),
            ends_with_newline: true,
            kernel_spoke: false,
        })));
        let digest = "ab".repeat(48);
        write!(console, "hello\r\nRTMR2 {digest}\r\nRTMR9 {digest}\nMRTD 12\nRTMR1 ").unwrap();
        let registers = console.registers();
        assert_eq!(registers.len(), 1);
        assert_eq!(registers.get("RTMR2"), Some(&digest));
    }
}
