//! The guest's console: passed on as it comes, and read for the few lines that say what became of its kernel.
//!
//! Nothing that a guest prints is taken for a fact about its TD: a guest prints what it likes. What is remembered is shown as
//! the console's words.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine_emu::outlet::{Metered, Outlet};
use rustix::termios::tcgetwinsize;
use tdvisor_devices::virtio::console::TerminalSize;

use super::hints::Remark;

/// The longest line that is looked at; of longer ones, the beginning.
const MAX_LINE: usize = 256;

/// Bytes of console that are shown.
pub const ALLOWANCE: u64 = 1 << 30;

/// Bytes of a console that is not shown, of which the end may be.
const TAIL: usize = 8 << 10;

/// How large the terminal is that standard output is, if it is one.
pub fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let known = size.ws_col != 0 && size.ws_row != 0;
    known.then_some(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

/// A console that several owners share.
#[derive(Clone)]
pub struct Console(Arc<Mutex<Inner>>);

struct Inner {
    out: Metered,
    line: Vec<u8>,
    ends_with_newline: bool,
    /// A line came that is not the boot firmware's.
    kernel_spoke: bool,
    /// What the kernel said when it panicked.
    panic: Option<String>,
    /// The last thing printed that says what a guest lacks.
    remark: Option<Remark>,
    /// The end of what was printed, where it is not shown as it comes.
    tail: Option<VecDeque<u8>>,
}

/// How every line of the boot firmware begins.
const FIRMWARE: &str = "boot-shim: ";
/// How Linux begins its last words.
const PANIC: &str = "Kernel panic - not syncing";

impl Console {
    /// A console that goes to `out`.
    pub fn new(out: Outlet) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            out: Metered::new(out, ALLOWANCE),
            line: Vec::new(),
            ends_with_newline: true,
            kernel_spoke: false,
            panic: None,
            remark: None,
            tail: None,
        })))
    }

    /// A console that nobody sees, unless its end is asked for.
    pub fn unseen() -> Self {
        let console = Self::new(Outlet::new(io::sink(), TAIL));
        console.lock().tail = Some(VecDeque::new());
        console
    }

    /// The last lines of a console that was not shown, without what would move a terminal's cursor.
    pub fn tail(&self) -> String {
        let inner = self.lock();
        let bytes: Vec<u8> = inner.tail.iter().flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = if bytes.len() < TAIL { 0 } else { 1 };
        let lines = text.lines().skip(whole).map(str::trim_end).filter(|line| !line.is_empty());
        let clean = |line: &str| line.chars().filter(|character| !character.is_control()).collect::<String>();
        lines.map(|line| format!("  {}\n", clean(line))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything but boot firmware printed a line.
    pub fn kernel_spoke(&self) -> bool {
        self.lock().kernel_spoke
    }

    /// The line with which Linux panicked, if it did.
    pub fn panic(&self) -> Option<String> {
        self.lock().panic.clone()
    }

    /// The last thing printed that says what a guest lacks.
    pub fn remark(&self) -> Option<Remark> {
        self.lock().remark
    }

    /// Bytes beyond [`ALLOWANCE`].
    pub fn dropped(&self) -> u64 {
        self.lock().out.dropped()
    }

    /// Ends a line that the guest left open.
    pub fn finish(&self) {
        let mut inner = self.lock();
        if !inner.ends_with_newline {
            inner.out.send(b"\n");
        }
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        for byte in bytes {
            inner.note(*byte);
        }
        if let Some(tail) = &mut inner.tail {
            tail.extend(bytes);
            let surplus = tail.len().saturating_sub(TAIL);
            tail.drain(..surplus);
        }
        inner.out.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim();
        self.kernel_spoke |= !line.is_empty() && !line.starts_with(FIRMWARE);
        if let Some(remark) = Remark::in_line(line) {
            self.remark = Some(remark.after(self.remark));
        }
        // The kernel puts the time in front; whoever mentions a panic in the middle of a line quotes one.
        let message =
            line.split_once("] ").filter(|(time, _)| time.starts_with('[')).map_or(line, |(_, text)| text);
        if self.panic.is_none() && message.starts_with(PANIC) {
            self.panic = Some(message.chars().filter(|character| !character.is_control()).collect());
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Console {
        let mut console = Console::new(Outlet::new(io::sink(), 1 << 10));
        console.write_all(text.as_bytes()).unwrap();
        console
    }

    #[test]
    fn the_words_of_a_panic_are_remembered_and_those_of_others_are_not() {
        let said =
            "[    1.5] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    1.6] Rebooting\n";
        let words = "Kernel panic - not syncing: VFS: Unable to mount root fs";
        assert_eq!(after(said).panic().as_deref(), Some(words));
        assert_eq!(after("init: grep 'Kernel panic - not syncing' log\n").panic(), None);
        assert_eq!(after("RTMR0 abcdef\n").panic(), None);
    }

    #[test]
    fn firmware_is_no_kernel() {
        assert!(!after("boot-shim: entering the kernel\n\n").kernel_spoke());
        assert!(after("boot-shim: entering the kernel\n[    0.0] Linux\n").kernel_spoke());
    }
}
