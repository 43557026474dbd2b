//! Input on its way to a guest's console.
//!
//! It waits in a bounded queue until the guest reads it; who brings more waits for room, so that nothing is lost and an input
//! without an end costs nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Input that waits for the guest at most.
const LIMIT: usize = 64 << 10;

/// The queue.
#[derive(Clone, Debug, Default)]
pub struct InputQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    /// The guest took some.
    taken: Condvar,
}

impl InputQueue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room, queues what fits of `bytes`, and gives the number of bytes taken: at least one, unless there
    /// are none. A guest that never reads makes this wait for ever.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let full = |queue: &mut VecDeque<u8>| queue.len() >= LIMIT;
        let mut queue = self.0.taken.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        let room = (LIMIT - queue.len()).min(bytes.len());
        queue.extend(bytes.iter().take(room));
        room
    }

    /// Takes at most so many bytes.
    pub fn take(&self, most: usize) -> Vec<u8> {
        let mut queue = self.lock();
        let take = most.min(queue.len());
        let taken = queue.drain(..take).collect();
        if take != 0 {
            self.0.taken.notify_one();
        }
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
