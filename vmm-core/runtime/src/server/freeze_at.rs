//! A console whose server is frozen where a text was printed.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock, Weak};

use server_emu::Server;

/// The server that a console belongs to, once there is one.
pub(super) type ServerCell = Arc<OnceLock<Weak<Server>>>;

/// A console that watches for a text.
pub(super) struct FreezeAt<W> {
    console: W,
    /// Empty once it was seen, or if nothing is to be seen.
    text: Vec<u8>,
    /// The end of what was printed: less than the text.
    recent: Vec<u8>,
    server: ServerCell,
}

impl<W> FreezeAt<W> {
    /// Watches for this text; for none if it is empty.
    pub(super) fn new(console: W, text: String) -> Self {
        Self { console, text: text.into_bytes(), recent: Vec::new(), server: Arc::default() }
    }

    /// Where the server is to be put.
    pub(super) fn server(&self) -> ServerCell {
        self.server.clone()
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.text.is_empty() {
            return;
        }
        self.recent.extend(bytes);
        if self.recent.windows(self.text.len()).any(|window| window == self.text) {
            self.text.clear();
            if let Some(server) = self.server.get().and_then(Weak::upgrade) {
                server.freeze();
            }
            return;
        }
        let surplus = (self.recent.len() + 1).saturating_sub(self.text.len());
        self.recent.drain(..surplus);
    }
}

impl<W: Write> Write for FreezeAt<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.console.write(bytes)?;
        self.look(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.console.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, printed: &[&str]) -> bool {
        let mut console = FreezeAt::new(io::sink(), text.to_owned());
        for bytes in printed {
            console.write_all(bytes.as_bytes()).unwrap();
        }
        console.text.is_empty()
    }

    #[test]
    fn a_text_is_seen_however_the_console_is_cut() {
        assert!(seen("ready", &["re", "ready"]));
        assert!(seen("ready", &["r", "e", "a", "d", "y", "!"]));
        assert!(seen("aab", &["aa", "aab"]));
        assert!(!seen("ready", &["read", "x", "y"]));
    }
}
