//! The control messages of a console with MULTIPORT (section 5.3.6.2), for one port that is a console.
//!
//! A message is the port (u32), the event (u16) and a value (u16), little-endian; RESIZE has the size behind it. The driver
//! begins with DEVICE_READY.
//!
//! # Invariants
//! - At most one message of each kind waits, whatever the driver says.

use alloc::vec::Vec;

use super::TerminalSize;

/// Bytes of a message without its rest.
pub(super) const MESSAGE_BYTES: usize = 8;

/// The only port.
const PORT: u32 = 0;

/// Events, as the specification numbers them.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const RESIZE: u16 = 5;
    pub(super) const PORT_OPEN: u16 = 6;
}

/// What was said of the port, and what is still to be said.
#[derive(Debug)]
pub(super) struct Control {
    size: Option<TerminalSize>,
    /// The event of each message that waits, the next one last.
    waiting: Vec<u16>,
    open: bool,
}

impl Control {
    /// Nothing was said yet, of a terminal that may have a size.
    pub(super) const fn new(size: Option<TerminalSize>) -> Self {
        Self { size, waiting: Vec::new(), open: false }
    }

    /// Whether the driver has the port open.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// The driver says something. What is of another port, or unknown, is nothing.
    pub(super) fn hear(&mut self, message: [u8; MESSAGE_BYTES]) {
        let [a, b, c, d, event_low, event_high, value @ ..] = message;
        let is_yes = value != [0; 2];
        match u16::from_le_bytes([event_low, event_high]) {
            event::DEVICE_READY if is_yes => self.waiting = [event::PORT_ADD].into(),
            event::PORT_READY if is_yes && is_port([a, b, c, d]) => {
                self.waiting = [event::PORT_OPEN].into();
                self.waiting.extend(self.size.map(|_| event::RESIZE));
                self.waiting.push(event::CONSOLE_PORT);
            }
            event::PORT_OPEN if is_port([a, b, c, d]) => self.open = is_yes,
            _ => {}
        }
    }

    /// Whether there is something to say.
    pub(super) const fn has_message(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let event = self.waiting.pop()?;
        let mut message: Vec<u8> = PORT.to_le_bytes().into();
        message.extend(event.to_le_bytes());
        let is_yes = matches!(event, event::CONSOLE_PORT | event::PORT_OPEN);
        message.extend(u16::from(is_yes).to_le_bytes());
        if let (event::RESIZE, Some(TerminalSize { columns, rows })) = (event, self.size) {
            message.extend(columns.to_le_bytes());
            message.extend(rows.to_le_bytes());
        }
        Some(message)
    }
}

fn is_port(bytes: [u8; 4]) -> bool {
    u32::from_le_bytes(bytes) == PORT
}
