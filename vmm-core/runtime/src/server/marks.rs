//! Where a server stood when its console first said a text: what a boot costs, phase by phase.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use server_emu::Server;

use super::freeze_at::ServerCell;
use super::sought::Sought;

/// A text, and where the server stood when its console said it.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The text.
    pub text: String,
    /// Absent if the console did not say it.
    pub reached: Option<Executed>,
}

/// What was executed on a server, to the end of the slices that its processors are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Instructions of the host's own code.
    pub host: u64,
    /// Instructions of its TDs.
    pub tds: u64,
}

impl Executed {
    pub(super) fn by(server: &Server) -> Self {
        Self { host: server.retired(), tds: server.machine().guest_retired() }
    }
}

/// The marks of a run. They outlive a reset; none of them is reached twice.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<Mutex<Vec<Mark>>>);

impl Marks {
    /// A mark for each text that is not empty.
    pub fn at(texts: impl IntoIterator<Item = String>) -> Self {
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        Self(Arc::new(Mutex::new(texts.map(|text| Mark { text, reached: None }).collect())))
    }

    /// The marks, in the order in which they were asked for.
    pub fn all(&self) -> Vec<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Watches the console of a server.
    pub(super) fn watch<W: Write>(&self, console: W, server: ServerCell) -> Marked<W> {
        let sought = self.all().iter().map(|mark| Sought::new(&mark.text)).collect();
        Marked { console, marks: self.clone(), sought, server }
    }

    fn reach(&self, index: usize, executed: Executed) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mark) = marks.get_mut(index) {
            mark.reached.get_or_insert(executed);
        }
    }
}

/// A console whose marks are noted.
pub(super) struct Marked<W> {
    console: W,
    marks: Marks,
    sought: Vec<Sought>,
    server: ServerCell,
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.console.write(bytes)?;
        for (index, sought) in self.sought.iter_mut().enumerate() {
            if sought.found_in(bytes.get(..written).unwrap_or_default())
                && let Some(server) = self.server.get().and_then(Weak::upgrade)
            {
                self.marks.reach(index, Executed::by(&server));
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.console.flush()
    }
}
