//! What is typed, on its way to the host's serial port.

use std::sync::{Arc, Mutex, PoisonError};

use tdvisor_runtime::board::serial::SerialInput;

/// The way to the serial port of the machine that runs: after a reset that is another one.
#[derive(Clone, Debug, Default)]
pub struct ConsoleInput(Arc<Mutex<Option<SerialInput>>>);

impl ConsoleInput {
    /// From now on input goes there.
    pub fn connect(&self, port: SerialInput) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
    }

    /// Gives bytes to the port, and says how many it took: at least one, unless there are none. A host that never reads
    /// makes this wait for ever.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let port = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without a port the bytes are lost, as on a line that nothing is plugged into.
        port.map_or(bytes.len(), |port| port.push(bytes))
    }
}
