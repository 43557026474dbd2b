//! A console whose server is frozen where a text was printed.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock, Weak};

use server_emu::Server;

use super::sought::Sought;

/// The server that a console belongs to, once there is one.
pub(super) type ServerCell = Arc<OnceLock<Weak<Server>>>;

/// A console that watches for a text.
pub(super) struct FreezeAt<W> {
    console: W,
    sought: Sought,
    server: ServerCell,
}

impl<W> FreezeAt<W> {
    /// Watches for this text; for none if it is empty.
    pub(super) fn new(console: W, text: &str, server: ServerCell) -> Self {
        Self { console, sought: Sought::new(text), server }
    }
}

impl<W: Write> Write for FreezeAt<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.console.write(bytes)?;
        if self.sought.found_in(bytes.get(..written).unwrap_or_default())
            && let Some(server) = self.server.get().and_then(Weak::upgrade)
        {
            server.freeze();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.console.flush()
    }
}
