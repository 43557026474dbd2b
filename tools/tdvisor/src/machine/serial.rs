//! Serial ports: `vm-superio`'s 16550 behind the hypervisor's port bus.
//!
//! Input waits in a bounded queue until the guest reads it. Who queues input from outside raises the port's line
//! by [`SerialInput::push`] and has the lines delivered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_core::devices::{AccessSize, DeviceRequest, Line, PortDevice, SharedMemory};

/// COM1: the console.
pub const COM1: u16 = 0x3f8;
/// COM2: `defmt` frames.
pub const COM2: u16 = 0x2f8;
/// Ports of one 16550.
pub const SERIAL_PORTS: u16 = 8;
/// The interrupt of COM1.
pub const COM1_GSI: u32 = 4;
/// The interrupt of COM2.
pub const COM2_GSI: u32 = 3;

/// Input that waits for the guest at most; more is refused.
const INPUT_LIMIT: usize = 64 << 10;

/// Bytes on their way to a guest's serial port.
#[derive(Clone, Debug)]
pub struct SerialInput {
    queue: Arc<Mutex<VecDeque<u8>>>,
    wire: Wire,
}

impl SerialInput {
    /// No input yet, for a port on this line.
    pub fn new(line: Line) -> Self {
        Self { queue: Arc::default(), wire: Wire(line) }
    }

    /// Queues what fits, raises the port's line, and gives the number of bytes taken.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let room = INPUT_LIMIT.saturating_sub(queue.len()).min(bytes.len());
        queue.extend(bytes.iter().take(room));
        drop(queue);
        self.wire.0.raise();
        room
    }

    fn take(&self, room: usize) -> Vec<u8> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let take = room.min(queue.len());
        queue.drain(..take).collect()
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
}

impl<W: Write> SerialPort<W> {
    /// A port that writes to `out` and reads from `input`.
    pub fn new(out: W, input: SerialInput) -> Self {
        Self { serial: Serial::new(input.wire.clone(), out), input }
    }
}

impl<W: Write + Send> PortDevice for SerialPort<W> {
    fn read(&mut self, offset: u16, _size: AccessSize) -> u64 {
        let waiting = self.input.take(self.serial.fifo_capacity());
        if !waiting.is_empty() {
            // Loopback mode refuses input; a real line would lose it too.
            let _ = self.serial.enqueue_raw_bytes(&waiting);
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
        // A console that is gone (a closed pipe) does not stop the guest.
        let _ = self.serial.write(offset as u8, value as u8);
        DeviceRequest::None
    }
}
