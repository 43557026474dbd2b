//! Serial ports: `vm-superio`'s 16550 behind the hypervisor's port bus.
//!
//! Whoever brings input ([`SerialInput::push`]) has the port's line delivered.

use std::convert::Infallible;
use std::io::Write;

use tdvisor_devices::{AccessSize, DeviceRequest, Line, PortDevice, SharedMemory};
use vm_superio::{Serial, Trigger, serial::NoEvents};

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

    /// As [`InputQueue::push`]; raises the port's line.
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

/// One 16550 whose output goes to `W`.
pub struct SerialPort<W: Write> {
    serial: Serial<Wire, NoEvents, W>,
    input: SerialInput,
    /// The guest has the port looped back on itself: nothing comes in from outside.
    looped: bool,
}

/// The modem control register, and its bit that loops the port back.
const MODEM_CONTROL: u16 = 4;
const LOOP: u64 = 1 << 4;

impl<W: Write> SerialPort<W> {
    /// A port that writes to `out` and reads from `input`.
    pub fn new(out: W, input: SerialInput) -> Self {
        Self { serial: Serial::new(input.wire.clone(), out), input, looped: false }
    }
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
        u64::from(self.serial.read(offset as u8))
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
        let _ = self.serial.write(offset as u8, value as u8);
        DeviceRequest::None
    }
}

#[cfg(test)]
mod tests {
    use std::io::sink;

    use tdvisor_board::address::COM1_GSI;
    use tdvisor_devices::IoApic;
    use tdvisor_vm::NotShared;

    use super::*;

    struct NoMemory;

    impl SharedMemory for NoMemory {
        fn read(&self, gpa: tdvisor_base::Gpa, _: &mut [u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }

        fn write(&self, gpa: tdvisor_base::Gpa, _: &[u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }
    }

    /// Receive buffer and line status.
    const DATA: u16 = 0;
    const STATUS: u16 = 5;

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
                while port.read(STATUS, AccessSize::Byte) & 1 == 0 {
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
        assert_eq!(port.read(STATUS, AccessSize::Byte) & 1, 0);
        port.write(MODEM_CONTROL, AccessSize::Byte, 0, &NoMemory);
        assert_eq!(port.read(STATUS, AccessSize::Byte) & 1, 1);
        assert_eq!(port.read(DATA, AccessSize::Byte), u64::from(b'a'));
    }
}
