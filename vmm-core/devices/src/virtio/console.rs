//! virtio-console: a console without a baud rate (section 5.3 of the specification). Linux calls it hvc0.
//!
//! # Protocol
//! Queue 0 has buffers that the device fills with input, queue 1 has output. The configuration space says how large the
//! terminal is, where that is known: columns (u16), rows (u16); then how many ports there are (u32): one. MULTIPORT is offered
//! for its control messages: a driver throws away input of a port that it has not opened, and they say when it has.
//!
//! # Invariants
//! - A request of the input queue is returned as soon as there is a byte for it, and never empty.
//! - A driver that took MULTIPORT gets no input before it has opened the port.
//! - All output of a request goes to the [`Terminal`], at most [`REQUEST_BYTES_MAX`] bytes of it; what is longer is [`Broken`].

use alloc::boxed::Box;

use self::control::{Control, MESSAGE_BYTES};
use super::chain::Chain;
use super::{Broken, Queues, Served, VirtioDevice};
use crate::SharedMemory;

mod control;

/// Bytes of output that one request has at most. Linux sends a page at a time.
pub const REQUEST_BYTES_MAX: u64 = 64 << 10;

const DEVICE_ID: u32 = 3;
const PLACES: u16 = 64;
/// Places of the control queues. A driver fills all of one with pages, which a TD takes out of its bounce buffers.
const CONTROL_PLACES: u16 = 8;
const INPUT: u32 = 0;
const OUTPUT: u32 = 1;
const TO_DRIVER: u32 = 2;

/// The configuration space has the size of the terminal.
const FEATURE_SIZE: u64 = 1 << 0;
/// There are control queues.
const FEATURE_MULTIPORT: u64 = 1 << 1;

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
    config: [u8; 8],
    /// What is said about the port, if the driver took MULTIPORT.
    control: Option<Control>,
}

impl VirtioConsole {
    /// A console for whoever is at the terminal, which may have a size.
    pub fn new(terminal: Box<dyn Terminal>, size: Option<TerminalSize>) -> Self {
        let TerminalSize { columns, rows } = size.unwrap_or(TerminalSize { columns: 0, rows: 0 });
        let size_word = u64::from(columns) | u64::from(rows) << 16;
        let config = (size_word | 1 << 32).to_le_bytes();
        Self { terminal, size, config, control: None }
    }

    fn takes_input(&self) -> bool {
        self.control.as_ref().is_none_or(Control::is_open)
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

    fn say(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let Some(message) = self.control.as_mut().and_then(Control::next) else { return Ok(Served::Later) };
        let mut writer = chain.writer(memory);
        if writer.remaining() < message.len() as u64 {
            return Err(Broken::TooShort);
        }
        writer.write(&message)?;
        Ok(Served::Used(writer.written()))
    }

    fn hear(&mut self, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        if reader.remaining() < MESSAGE_BYTES as u64 {
            return Err(Broken::TooShort);
        }
        let mut message = [0; MESSAGE_BYTES];
        reader.read(&mut message)?;
        if let Some(control) = &mut self.control {
            control.hear(message);
        }
        Ok(Served::Used(0))
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
        FEATURE_MULTIPORT | if self.size.is_some() { FEATURE_SIZE } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES, PLACES, CONTROL_PLACES, CONTROL_PLACES]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accept(&mut self, features: u64) {
        self.control = (features & FEATURE_MULTIPORT != 0).then(|| Control::new(self.size));
    }

    fn ready(&mut self) -> Queues {
        Queues::NONE
            .with_if(self.takes_input() && self.terminal.has_input(), INPUT)
            .with_if(self.control.as_ref().is_some_and(Control::has_message), TO_DRIVER)
    }

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        match u32::try_from(queue).unwrap_or(u32::MAX) {
            INPUT if !self.takes_input() => Ok(Served::Later),
            INPUT => self.input(chain, memory),
            OUTPUT => self.output(chain, memory),
            TO_DRIVER => self.say(chain, memory),
            _ => self.hear(chain, memory),
        }
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

    /// A driver that leaves MULTIPORT alone, as simple ones do.
    fn console(size: Option<TerminalSize>) -> (TestDriver, TestTerminal) {
        started(size, FEATURE_MULTIPORT)
    }

    fn started(size: Option<TerminalSize>, left: u64) -> (TestDriver, TestTerminal) {
        let terminal = TestTerminal::default();
        let device = VirtioConsole::new(Box::new(terminal.clone()), size);
        let mut driver = TestDriver::new(Box::new(device), 64);
        driver.start_without(left);
        (driver, terminal)
    }

    #[test]
    fn a_driver_with_ports_hears_of_the_one_and_gets_what_was_typed_once_it_is_open() {
        let (mut driver, terminal) = started(Some(TerminalSize { columns: 80, rows: 25 }), 0);
        terminal.0.lock().typed.extend(b"early");
        driver.describe(0, DATA, 16, WRITE, 0);
        driver.offer(0);
        driver.notify();
        // Room for six messages, 64 bytes apart.
        let at = |index: u16| DATA + 0x100 + 64 * u64::from(index);
        for index in 0..6 {
            driver.describe_in(2, index, at(index), 64, WRITE, 0);
            driver.offer_in(2, index);
        }
        driver.notify_of(2);
        assert!(driver.used_of(2).is_empty(), "the driver speaks first");
        let mut said = 0;
        let mut say = |driver: &mut TestDriver, message: [u8; 8]| {
            driver.describe_chain_at(3, said, DATA + 0x1000 + 8 * u64::from(said), &[&message], &[]);
            driver.offer_in(3, said);
            said += 1;
            driver.notify_of(3);
            driver.used_of(2)
        };
        assert_eq!(say(&mut driver, [0, 0, 0, 0, 0, 0, 1, 0]), [(0, 8)], "device ready: port 0 is added");
        assert_eq!(driver.memory.get::<8>(at(0)), [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(say(&mut driver, [0, 0, 0, 0, 3, 0, 1, 0]), [(1, 8), (2, 12), (3, 8)], "port ready");
        assert_eq!(driver.memory.get::<8>(at(1)), [0, 0, 0, 0, 4, 0, 1, 0], "it is a console");
        assert_eq!(driver.memory.get::<12>(at(2)), [0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0], "of this size");
        assert_eq!(driver.memory.get::<8>(at(3)), [0, 0, 0, 0, 6, 0, 1, 0], "with somebody at it");
        driver.attend();
        assert!(driver.used().is_empty(), "what was typed waits");
        assert!(say(&mut driver, [1, 0, 0, 0, 6, 0, 1, 0]).is_empty(), "there is no port 1");
        assert!(driver.used().is_empty(), "what was typed waits");
        assert!(say(&mut driver, [0, 0, 0, 0, 6, 0, 1, 0]).is_empty(), "port 0 is open");
        assert_eq!(driver.used(), [(0, 5)]);
        assert_eq!(&driver.memory.get::<5>(DATA), b"early");
        say(&mut driver, [0, 0, 0, 0, 6, 0, 0, 0]);
        terminal.0.lock().typed.extend(b"late");
        driver.describe(1, DATA, 16, WRITE, 0);
        driver.offer(1);
        driver.notify();
        assert!(driver.used().is_empty(), "a closed port takes nothing");
    }

    #[test]
    fn a_terminal_of_a_known_size_is_announced_with_it() {
        let (mut driver, _) = console(Some(TerminalSize { columns: 132, rows: 43 }));
        assert_eq!(driver.read(0x08), 3);
        assert_eq!(driver.offered_features() & 0xffff_ffff, 3);
        assert_eq!((driver.read(0x100), driver.read(0x104)), (43 << 16 | 132, 1));
        let (mut driver, _) = console(None);
        assert_eq!(driver.offered_features() & 0xffff_ffff, 2);
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
        let cases: [Request; 5] = [
            ("no room for input", |driver| driver.describe(0, DATA, 0, WRITE, 0)),
            ("input that is read", |driver| driver.describe(0, DATA, 8, 0, 0)),
            ("input to where nothing is", |driver| driver.describe(0, END, 8, WRITE, 0)),
            ("gigabytes of output", |driver| {
                driver.describe_in(1, 0, DATA, 1 << 30, 0, 0);
                driver.offer_in(1, 0);
                driver.notify_of(1);
            }),
            ("half a message", |driver| {
                driver.describe_in(3, 0, DATA, 7, 0, 0);
                driver.offer_in(3, 0);
                driver.notify_of(3);
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
