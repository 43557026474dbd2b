//! The virtio console: what a guest says on it goes to a writer, and what is typed waits for it.

use std::io::Write;

use tdvisor_devices::virtio::console::Terminal;

use super::input::InputQueue;
use crate::bell::Bell;

/// Bytes on their way to a guest's virtio console.
#[derive(Clone, Debug)]
pub struct HvcInput {
    queue: InputQueue,
    bell: Bell,
}

impl HvcInput {
    /// No input yet, for a board with this bell.
    pub fn new(bell: Bell) -> Self {
        Self { queue: InputQueue::default(), bell }
    }

    /// Waits until there is room, queues what fits of `bytes` and tells the guest. Gives the number of bytes taken: at
    /// least one, unless there are none. A guest that never reads makes this wait for ever.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let taken = self.queue.push(bytes);
        self.bell.ring();
        taken
    }
}

/// A console that writes to `W` and reads what is typed.
#[derive(Debug)]
pub struct Hvc<W> {
    out: W,
    input: HvcInput,
}

impl<W: Write + Send> Hvc<W> {
    /// A console that writes to `out` and reads from `input`.
    pub const fn new(out: W, input: HvcInput) -> Self {
        Self { out, input }
    }
}

impl<W: Write + Send> Terminal for Hvc<W> {
    fn write(&mut self, bytes: &[u8]) {
        // A console that is gone (a closed pipe) does not stop the guest.
        let _ = self.out.write_all(bytes);
    }

    fn read(&mut self, out: &mut [u8]) -> usize {
        let taken = self.input.queue.take(out.len());
        if let Some(place) = out.get_mut(..taken.len()) {
            place.copy_from_slice(&taken);
        }
        taken.len()
    }

    fn has_input(&self) -> bool {
        !self.input.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_rings_and_is_read_in_pieces_of_any_size() {
        let bell = Bell::default();
        let input = HvcInput::new(bell.clone());
        let mut hvc = Hvc::new(Vec::new(), input.clone());
        assert!(!hvc.has_input());
        assert_eq!(input.push(b"hello"), 5);
        bell.wait();
        let mut piece = [0; 3];
        assert_eq!((hvc.read(&mut piece), piece), (3, *b"hel"));
        assert_eq!((hvc.read(&mut piece), &piece[..2]), (2, &b"lo"[..]));
        assert_eq!((hvc.read(&mut piece), hvc.has_input()), (0, false));
        hvc.write(b"yes");
        assert_eq!(hvc.out, b"yes");
    }
}
