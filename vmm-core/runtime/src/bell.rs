//! What wakes the thread that lets devices attend to their host.
//!
//! # Protocol
//! Whoever has fed a device rings; one thread waits. A ring while nobody waits is not lost: the next wait ends at once. Rings
//! are not counted, because whoever was woken looks at everything.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The bell of one VM.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Ends the wait that goes on, or the next one.
    pub fn ring(&self) {
        *self.0.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_one();
    }

    /// Waits until somebody rings, or has rung since the last wait.
    pub fn wait(&self) {
        let rung = self.0.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = self.0.changed.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_ring_is_lost_whenever_it_comes() {
        const RINGS: usize = 10_000;
        let (bell, rings, seen) = (Bell::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..RINGS {
                    rings.fetch_add(1, Ordering::SeqCst);
                    bell.ring();
                }
            });
            while seen.load(Ordering::SeqCst) < RINGS {
                bell.wait();
                seen.store(rings.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        });
    }
}
