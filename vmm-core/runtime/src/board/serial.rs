//! Serial ports: `vm-superio`'s 16550 behind the hypervisor's port bus.
//!
//! Whoever brings input ([`SerialInput::push`]) has the port's line delivered.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tdvisor_devices::saved::narrow;
use tdvisor_devices::{AccessSize, BadState, DeviceRequest, Line, PortDevice, SharedMemory};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};

use super::input::InputQueue;

/// Bytes on their way to a guest's serial port.
#[derive(Clone, Debug)]
pub struct SerialInput {
    queue: InputQueue,
    wire: Wire,
}

impl SerialInput {
    /// No input yet, for a port on this line.
    pub fn new(line: Line) -> Self {
        Self { queue: InputQueue::default(), wire: Wire(line) }
    }

    /// Waits until there is room, queues what fits of `bytes` and raises the port's line. Gives the number of bytes taken:
    /// at least one, unless there are none. A guest that never reads makes this wait for ever.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let taken = self.queue.push(bytes);
        self.wire.0.raise();
        taken
    }
}

/// The port's interrupt output.
#[derive(Clone, Debug)]
struct Wire(Line);

impl Trigger for Wire {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.raise();
        Ok(())
    }
}

/// Where a port's output goes: it stays when the port takes a saved state over.
#[derive(Debug)]
struct Output<W>(Arc<Mutex<W>>);

impl<W> Clone for Output<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// One 16550 whose output goes to `W`.
pub struct SerialPort<W: Write> {
    serial: Serial<Wire, NoEvents, Output<W>>,
    output: Output<W>,
    input: SerialInput,
    /// The guest has the port looped back on itself: nothing comes in from outside.
    looped: bool,
    /// The interrupt of an empty transmitter gave way to that of waiting data, and is identified after it.
    transmitter_waits: bool,
}

/// The interrupt enable register, and its bit for received data.
const INTERRUPT_ENABLE: u16 = 1;
const RECEIVED: u8 = 1 << 0;
/// The interrupt identification register: no interrupt, transmitter empty, data received, and what says 'FIFOs are on'.
const INTERRUPT_ID: u16 = 2;
const NO_INTERRUPT: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 1;
const DATA_RECEIVED: u8 = 1 << 2;
const FIFOS: u8 = 3 << 6;
/// The line control register, and its bit that puts the divisor into the place of data and interrupt enable.
const LINE_CONTROL: u16 = 3;
const DIVISOR: u8 = 1 << 7;
/// The modem control register, and its bit that loops the port back.
const MODEM_CONTROL: u16 = 4;
const LOOP: u64 = 1 << 4;
/// The line status register, and its bit for waiting data.
const LINE_STATUS: u16 = 5;
const DATA_READY: u8 = 1 << 0;

impl<W: Write> SerialPort<W> {
    /// A port that writes to `out` and reads from `input`.
    pub fn new(out: W, input: SerialInput) -> Self {
        let output = Output(Arc::new(Mutex::new(out)));
        let serial = Serial::new(input.wire.clone(), output.clone());
        Self { serial, output, input, looped: false, transmitter_waits: false }
    }

    /// Whether data waits whose interrupt the guest has enabled.
    fn data_interrupts(&mut self) -> bool {
        let mut register = |offset: u16| self.serial.read(register_of(offset));
        register(LINE_STATUS) & DATA_READY != 0
            // With the divisor in its place the enable register cannot be seen.
            && register(LINE_CONTROL) & DIVISOR == 0
            && register(INTERRUPT_ENABLE) & RECEIVED != 0
    }

    /// What the identification register says. `vm-superio` forgets received data once it was identified; a 16550 (data
    /// sheet, 'interrupt identification register') says so until the data are taken, and drivers read on until then:
    /// one that takes less than waits would never be called again.
    fn identify(&mut self) -> u8 {
        let data = self.data_interrupts();
        let forgotten = self.serial.read(register_of(INTERRUPT_ID));
        let empty =
            self.transmitter_waits || forgotten & (NO_INTERRUPT | TRANSMITTER_EMPTY) == TRANSMITTER_EMPTY;
        self.transmitter_waits = empty && data;
        match (data, empty) {
            (true, _) => FIFOS | DATA_RECEIVED,
            (false, true) => FIFOS | TRANSMITTER_EMPTY,
            (false, false) => FIFOS | NO_INTERRUPT,
        }
    }
}

/// The register at a port; a 16550 has eight.
const fn register_of(offset: u16) -> u8 {
    (offset & 7) as u8
}

impl<W: Write + Send> PortDevice for SerialPort<W> {
    fn read(&mut self, offset: u16, _size: AccessSize) -> u64 {
        if !self.looped {
            let waiting = self.input.queue.take(self.serial.fifo_capacity());
            if !waiting.is_empty() {
                // There is room for as much, and the port is not looped back: it takes all.
                let _ = self.serial.enqueue_raw_bytes(&waiting);
            }
        }
        u64::from(if offset == INTERRUPT_ID {
            self.identify()
        } else {
            self.serial.read(register_of(offset))
        })
    }

    fn write(
        &mut self,
        offset: u16,
        _size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        if offset == MODEM_CONTROL {
            self.looped = value & LOOP != 0;
        }
        // A console that is gone (a closed pipe) does not stop the guest.
        let _ = self.serial.write(register_of(offset), (value & 0xff) as u8);
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let Self { serial, output: _, input: _, looped, transmitter_waits } = self;
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = serial.state();
        let registers = [
            u8::from(*looped),
            u8::from(*transmitter_waits),
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ];
        Some(registers.into_iter().chain(in_buffer).map(u64::from).collect())
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let bytes: Vec<u8> = saved.iter().map(|number| narrow(*number)).collect::<Result<_, _>>()?;
        let [
            looped,
            transmitter_waits,
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer @ ..,
        ] = &bytes[..]
        else {
            return Err(BadState);
        };
        let state = SerialState {
            baud_divisor_low: *baud_divisor_low,
            baud_divisor_high: *baud_divisor_high,
            interrupt_enable: *interrupt_enable,
            interrupt_identification: *interrupt_identification,
            line_control: *line_control,
            line_status: *line_status,
            modem_control: *modem_control,
            modem_status: *modem_status,
            scratch: *scratch,
            in_buffer: in_buffer.to_vec(),
        };
        let wire = self.input.wire.clone();
        // Interrupts that it raises once more are those that the guest waits for; the lines' state is the I/O APIC's.
        self.serial =
            Serial::from_state(&state, wire, NoEvents, self.output.clone()).map_err(|_| BadState)?;
        (self.looped, self.transmitter_waits) = (*looped != 0, *transmitter_waits != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::sink;

    use tdvisor_board::address::COM1_GSI;
    use tdvisor_devices::IoApic;
    use tdvisor_vm::NotShared;

    use super::*;

    /// The data register.
    const DATA: u16 = 0;

    struct NoMemory;

    impl SharedMemory for NoMemory {
        fn read(&self, gpa: tdvisor_base::Gpa, _: &mut [u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }

        fn write(&self, gpa: tdvisor_base::Gpa, _: &[u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }
    }

    fn port() -> (SerialPort<std::io::Sink>, SerialInput) {
        let io_apic = std::sync::Arc::new(IoApic::default());
        let input = SerialInput::new(io_apic.line(COM1_GSI).unwrap());
        (SerialPort::new(sink(), input.clone()), input)
    }

    #[test]
    fn input_beyond_the_queue_waits_for_the_guest_and_arrives_whole() {
        const BYTES: usize = 300_000;
        let (mut port, input) = port();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let all: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
                let mut rest = &all[..];
                while !rest.is_empty() {
                    rest = &rest[input.push(rest)..];
                }
            });
            for at in 0..BYTES {
                while port.read(LINE_STATUS, AccessSize::Byte) & 1 == 0 {
                    std::thread::yield_now();
                }
                assert_eq!(port.read(DATA, AccessSize::Byte), (at % 251) as u64, "byte {at}");
            }
        });
    }

    #[test]
    fn input_that_comes_while_the_port_is_looped_back_is_not_lost() {
        let (mut port, input) = port();
        port.write(MODEM_CONTROL, AccessSize::Byte, LOOP, &NoMemory);
        assert_eq!(input.push(b"a"), 1);
        assert_eq!(port.read(LINE_STATUS, AccessSize::Byte) & 1, 0);
        port.write(MODEM_CONTROL, AccessSize::Byte, 0, &NoMemory);
        assert_eq!(port.read(LINE_STATUS, AccessSize::Byte) & 1, 1);
        assert_eq!(port.read(DATA, AccessSize::Byte), u64::from(b'a'));
    }

    #[test]
    fn a_driver_that_takes_a_few_bytes_an_interrupt_is_told_of_data_until_all_are_taken() {
        let (mut port, input) = port();
        port.write(INTERRUPT_ENABLE, AccessSize::Byte, u64::from(RECEIVED), &NoMemory);
        let said: Vec<u8> = (0..1000u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(input.push(&said), said.len());
        let mut heard = Vec::new();
        // Both the turns and the bytes of one are bounded, as a driver's are.
        for _ in 0..said.len() {
            match port.read(INTERRUPT_ID, AccessSize::Byte) as u8 {
                id if id & NO_INTERRUPT != 0 => break,
                id => assert_eq!(id, FIFOS | DATA_RECEIVED),
            }
            for _ in 0..16 {
                if port.read(LINE_STATUS, AccessSize::Byte) & 1 == 1 {
                    heard.push(port.read(DATA, AccessSize::Byte) as u8);
                }
            }
        }
        assert!(heard == said, "{} bytes of {} came", heard.len(), said.len());
    }

    #[test]
    fn an_empty_transmitter_is_identified_after_the_data_that_came_first() {
        let (mut port, input) = port();
        let both = u64::from(RECEIVED | 1 << 1);
        port.write(INTERRUPT_ENABLE, AccessSize::Byte, both, &NoMemory);
        assert_eq!(input.push(b"a"), 1);
        let mut id = || port.read(INTERRUPT_ID, AccessSize::Byte) as u8;
        assert_eq!(id(), FIFOS | DATA_RECEIVED);
        assert_eq!(id(), FIFOS | DATA_RECEIVED, "until it is taken");
        assert_eq!(port.read(DATA, AccessSize::Byte) as u8, b'a');
        let mut id = || port.read(INTERRUPT_ID, AccessSize::Byte) as u8;
        assert_eq!(id(), FIFOS | TRANSMITTER_EMPTY);
        assert_eq!(id(), FIFOS | NO_INTERRUPT, "identifying it takes it away");
    }

    #[test]
    fn data_whose_interrupt_is_off_are_not_identified() {
        let (mut port, input) = port();
        assert_eq!(input.push(b"a"), 1);
        assert_eq!(port.read(INTERRUPT_ID, AccessSize::Byte) as u8, FIFOS | NO_INTERRUPT);
    }
}
