//! What happened on the emulated processors that a person may want to know.

use tdvisor_base::sync::Mutex;

/// How many entries of a kind are kept.
const KEPT: usize = 256;

/// The first entries of a kind.
pub(super) struct Log<T>(Mutex<Vec<T>>);

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Log<T> {
    pub(super) fn push(&self, entry: T) {
        let mut log = self.0.lock();
        if log.len() < KEPT {
            log.push(entry);
        }
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.0.lock().clone()
    }
}
