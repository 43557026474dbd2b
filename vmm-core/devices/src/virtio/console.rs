//! virtio-console: a console without a baud rate (section 5.3 of the specification). Linux calls it hvc0.
//!
//! # Protocol
//! Queue 0 has buffers that the device fills with input, queue 1 has output. The configuration space says how large the
//! terminal is, where that is known: columns (u16), rows (u16). There is one port: MULTIPORT is not offered.
//!
//! # Invariants
//! - A request of the input queue is returned as soon as there is a byte for it, and never empty.
//! - All output of a request goes to the [`Terminal`], at most [`REQUEST_BYTES_MAX`] bytes of it; what is longer is [`Broken`].

use alloc::boxed::Box;

use super::chain::Chain;
use super::{Broken, Queues, Served, VirtioDevice};
use crate::SharedMemory;

/// Bytes of output that one request has at most. Linux sends a page at a time.
pub const REQUEST_BYTES_MAX: u64 = 64 << 10;

const DEVICE_ID: u32 = 3;
const PLACES: u16 = 64;
const INPUT: u32 = 0;

/// The configuration space has the size of the terminal.
const FEATURE_SIZE: u64 = 1 << 0;

/// Bytes that are moved at a time.
const PIECE: usize = 512;

/// Who is at the console.
pub trait Terminal: Send {
    /// The guest says something. A terminal that is gone swallows it.
    fn write(&mut self, bytes: &[u8]);

    /// Takes input, as much as there is and fits; gives the number of bytes.
    fn read(&mut self, out: &mut [u8]) -> usize;

    /// Whether there is input.
    fn has_input(&self) -> bool;
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The device.
pub struct VirtioConsole {
    terminal: Box<dyn Terminal>,
    size: Option<TerminalSize>,
    config: [u8; 4],
}

impl VirtioConsole {
    /// A console for whoever is at the terminal, which may have a size.
    pub fn new(terminal: Box<dyn Terminal>, size: Option<TerminalSize>) -> Self {
        let TerminalSize { columns, rows } = size.unwrap_or(TerminalSize { columns: 0, rows: 0 });
        let config = (u32::from(columns) | u32::from(rows) << 16).to_le_bytes();
        Self { terminal, size, config }
    }

    fn input(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut writer = chain.writer(memory);
        if writer.remaining() == 0 {
            return Err(Broken::TooShort);
        }
        let mut piece = [0; PIECE];
        loop {
            let room = usize::try_from(writer.remaining()).unwrap_or(PIECE).min(PIECE);
            let piece = piece.get_mut(..room).unwrap_or_default();
            let taken = if piece.is_empty() { 0 } else { self.terminal.read(piece) };
            match piece.get(..taken) {
                Some([]) | None => break,
                Some(bytes) => writer.write(bytes)?,
            }
        }
        Ok(if writer.written() == 0 { Served::Later } else { Served::Used(writer.written()) })
    }

    fn output(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        if reader.remaining() > REQUEST_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        let mut piece = [0; PIECE];
        while reader.remaining() > 0 {
            let bytes = usize::try_from(reader.remaining()).unwrap_or(PIECE).min(PIECE);
            let piece = piece.get_mut(..bytes).unwrap_or_default();
            reader.read(piece)?;
            self.terminal.write(piece);
        }
        Ok(Served::Used(0))
    }
}

impl VirtioDevice for VirtioConsole {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        if self.size.is_some() { FEATURE_SIZE } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES, PLACES]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accept(&mut self, _: u64) {}

    fn ready(&mut self) -> Queues {
        Queues::NONE.with_if(self.terminal.has_input(), INPUT)
    }

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        if queue == INPUT as usize { self.input(chain, memory) } else { self.output(chain, memory) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;

    use tdvisor_base::sync::Mutex;

    use super::*;
    use crate::virtio::test_driver::{DATA, END, TestDriver, WRITE};

    #[derive(Default)]
    struct Streams {
        typed: Vec<u8>,
        shown: Vec<u8>,
    }

    #[derive(Clone, Default)]
    struct TestTerminal(Arc<Mutex<Streams>>);

    impl Terminal for TestTerminal {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().shown.extend(bytes);
        }

        fn read(&mut self, out: &mut [u8]) -> usize {
            let typed = &mut self.0.lock().typed;
            let taken = typed.len().min(out.len());
            out[..taken].copy_from_slice(&typed[..taken]);
            typed.drain(..taken);
            taken
        }

        fn has_input(&self) -> bool {
            !self.0.lock().typed.is_empty()
        }
    }

    fn console(size: Option<TerminalSize>) -> (TestDriver, TestTerminal) {
        let terminal = TestTerminal::default();
        let device = VirtioConsole::new(Box::new(terminal.clone()), size);
        let mut driver = TestDriver::new(Box::new(device), 64);
        driver.start();
        (driver, terminal)
    }

    #[test]
    fn a_terminal_of_a_known_size_is_announced_with_it() {
        let (mut driver, _) = console(Some(TerminalSize { columns: 132, rows: 43 }));
        assert_eq!(driver.read(0x08), 3);
        assert_eq!(driver.offered_features() & 0xffff_ffff, 1);
        assert_eq!(driver.read(0x100), 43 << 16 | 132);
        let (mut driver, _) = console(None);
        assert_eq!(driver.offered_features() & 0xffff_ffff, 0);
    }

    #[test]
    fn output_reaches_the_terminal_whole() {
        let (mut driver, terminal) = console(None);
        let long: Vec<u8> = (0..5000u32).map(|at| (at / 7) as u8).collect();
        driver.describe_chain_at(1, 0, DATA, &[&long, b"end"], &[]);
        driver.offer_in(1, 0);
        driver.notify_of(1);
        assert_eq!(driver.used_of(1), [(0, 0)]);
        assert_eq!(terminal.0.lock().shown, [&long[..], b"end"].concat());
    }

    #[test]
    fn input_comes_when_it_is_there_and_what_does_not_fit_waits_for_the_next_buffer() {
        let (mut driver, terminal) = console(None);
        driver.describe(0, DATA, 4, WRITE, 0);
        driver.offer(0);
        driver.notify();
        driver.attend();
        assert!(driver.used().is_empty(), "nothing was typed");
        terminal.0.lock().typed.extend(b"hello");
        driver.attend();
        assert_eq!((driver.used(), driver.interrupts()), (vec![(0, 4)], 1));
        assert_eq!(&driver.memory.get::<5>(DATA), b"hell\0");
        driver.describe(1, DATA, 4, WRITE, 0);
        driver.offer(1);
        driver.notify();
        assert_eq!(driver.used(), [(1, 1)]);
        assert_eq!(&driver.memory.get::<2>(DATA), b"oe");
    }

    #[test]
    fn buffers_that_cannot_be_what_they_should_be_stop_the_device() {
        type Request = (&'static str, fn(&mut TestDriver));
        let cases: [Request; 4] = [
            ("no room for input", |driver| driver.describe(0, DATA, 0, WRITE, 0)),
            ("input that is read", |driver| driver.describe(0, DATA, 8, 0, 0)),
            ("input to where nothing is", |driver| driver.describe(0, END, 8, WRITE, 0)),
            ("gigabytes of output", |driver| {
                driver.describe_in(1, 0, DATA, 1 << 30, 0, 0);
                driver.offer_in(1, 0);
                driver.notify_of(1);
            }),
        ];
        for (name, request) in cases {
            let (mut driver, terminal) = console(None);
            terminal.0.lock().typed.push(1);
            request(&mut driver);
            driver.offer(0);
            driver.notify();
            assert_ne!(driver.read(0x70) & 64, 0, "{name}");
            assert!(terminal.0.lock().shown.is_empty(), "{name}");
        }
    }
}
