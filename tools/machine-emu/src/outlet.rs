//! Output of a guest on its way out of the program: a bounded queue, and a thread that writes.
//!
//! # Protocol
//! Who sends waits while the queue is full, so that a slow reader slows its guest down and nothing is lost. No wait is
//! without an end: once the outlet is [released](Outlet::release), because its TD ends, a sender waits until the given
//! moment and no longer; what does not fit then is dropped and counted. The writing itself happens in a thread of the
//! outlet, which may block for ever: the program ends without it.
//!
//! A message is taken whole or not at all. After a write that failed nothing is taken any more. What a guest feeds goes
//! through a [`Metered`] outlet, which stops after its allowance: a guest that prints without end fills no disk.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Room beyond the queue that a released outlet has: for the one message that each vCPU was sending when its TD ended.
const ROOM_AT_THE_END: usize = 4 << 10;

/// How often a wait looks whether it has to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What did not get out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Bytes that nobody took in time.
    pub not_taken: u64,
    /// The first write that failed, and with it all that came after.
    pub failed: Option<io::ErrorKind>,
}

impl Loss {
    /// Whether everything got out, or its reader left on purpose (a closed pipe).
    pub fn is_none(&self) -> bool {
        self.not_taken == 0 && matches!(self.failed, None | Some(io::ErrorKind::BrokenPipe))
    }
}

/// An output that several threads share.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Bytes that wait at most.
    queue: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    /// The thread has taken bytes that are not written yet.
    writing: bool,
    loss: Loss,
    error: Option<io::Error>,
    /// When senders stop waiting for room.
    released: Option<Instant>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes what comes, for ever.
    fn serve(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        let mut state = self.lock();
        loop {
            while state.queue.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut bytes, &mut state.queue);
            state.writing = true;
            let failed = state.error.is_some();
            drop(state);
            self.changed.notify_all();
            let written = if failed { Ok(()) } else { out.write_all(&bytes).and_then(|()| out.flush()) };
            bytes.clear();
            state = self.lock();
            state.writing = false;
            if let Err(error) = written {
                state.loss.failed = Some(error.kind());
                state.error = Some(error);
            }
            self.changed.notify_all();
        }
    }
}

impl Outlet {
    /// An outlet to `out`, in front of which `queue` bytes wait at most.
    pub fn new(out: impl Write + Send + 'static, queue: usize) -> Self {
        let shared = Arc::new(Shared { queue, state: Mutex::default(), changed: Condvar::new() });
        let of_thread = shared.clone();
        // Never joined: it may be inside a write that does not end.
        thread::spawn(move || of_thread.serve(out));
        Self(shared)
    }

    /// Takes a message, after waiting for room. One that is larger than the queue is taken when the queue is empty.
    pub fn send(&self, message: &[u8]) {
        let mut state = self.0.lock();
        let length = message.len() as u64;
        if state.error.is_some() || message.is_empty() {
            return;
        }
        while !self.has_room(&state, message.len()) {
            let wait = match state.released {
                None => LOOK_AGAIN,
                Some(until) => until.saturating_duration_since(Instant::now()),
            };
            if wait.is_zero() {
                state.loss.not_taken = state.loss.not_taken.saturating_add(length);
                return;
            }
            state = self.0.wait(state, wait);
        }
        if state.error.is_none() {
            state.queue.extend_from_slice(message);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        let extra = if state.released.is_some() { ROOM_AT_THE_END } else { 0 };
        state.error.is_some()
            || state.queue.is_empty()
            || state.queue.len().saturating_add(bytes) <= self.0.queue + extra
    }

    /// The TD ends: whoever sends waits until `until` and no longer. The first call counts.
    pub fn release(&self, until: Instant) {
        self.0.lock().released.get_or_insert(until);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, or `give_up` says that it is enough; gives what did not get out.
    pub fn drain(&self, give_up: impl Fn() -> bool) -> Loss {
        let mut state = self.0.lock();
        while (state.writing || !state.queue.is_empty()) && !give_up() {
            state = self.0.wait(state, LOOK_AGAIN);
        }
        let mut loss = state.loss;
        if state.error.is_none() {
            // Of what is being written nobody knows how much got out: at least its last byte did not.
            loss.not_taken += state.queue.len() as u64 + u64::from(state.writing);
        }
        loss
    }

    /// The first error of a write, in words.
    pub fn error(&self) -> Option<String> {
        self.0.lock().error.as_ref().map(ToString::to_string)
    }
}

/// An outlet for what a guest feeds: it takes an allowance and no more.
#[derive(Debug)]
pub struct Metered {
    outlet: Outlet,
    left: u64,
    dropped: u64,
}

impl Metered {
    /// A part of `outlet` that takes `allowance` bytes.
    pub const fn new(outlet: Outlet, allowance: u64) -> Self {
        Self { outlet, left: allowance, dropped: 0 }
    }

    /// Takes a message as [`Outlet::send`] does, or drops it if it is more than what is left.
    pub fn send(&mut self, message: &[u8]) {
        match self.left.checked_sub(message.len() as u64) {
            Some(left) => {
                self.left = left;
                self.outlet.send(message);
            }
            // Nothing after a gap, or the reader would take it for the whole.
            None => {
                self.left = 0;
                self.dropped = self.dropped.saturating_add(message.len() as u64);
            }
        }
    }

    /// Bytes beyond the allowance.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const QUEUE: usize = 8;

    /// A reader that takes a chunk when the test takes it from the channel.
    struct Reader(SyncSender<Vec<u8>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An outlet whose writes block until the receiver takes them.
    fn slow(queue: usize) -> (Outlet, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (Outlet::new(Reader(sender), queue), receiver)
    }

    #[test]
    fn a_slow_reader_gets_every_byte_in_order() {
        let (outlet, receiver) = slow(QUEUE);
        let sender = {
            let outlet = outlet.clone();
            thread::spawn(move || (0..=255u8).for_each(|byte| outlet.send(&[byte])))
        };
        let mut read = Vec::new();
        while read.len() < 256 {
            read.extend(receiver.recv().unwrap());
        }
        sender.join().unwrap();
        assert_eq!(read, (0..=255).collect::<Vec<u8>>());
        assert_eq!(outlet.drain(|| false), Loss::default());
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_once_the_outlet_is_released() {
        let (outlet, _receiver) = slow(QUEUE);
        let sender = {
            let outlet = outlet.clone();
            thread::spawn(move || (0..64u64 << 10).for_each(|_| outlet.send(b"x")))
        };
        outlet.release(Instant::now());
        sender.join().unwrap();
        let loss = outlet.drain(|| true);
        assert!(loss.not_taken >= (64 << 10) - 3 * (ROOM_AT_THE_END as u64), "{loss:?}");
        assert!(!loss.is_none());
        assert!(outlet.0.lock().queue.len() <= QUEUE + ROOM_AT_THE_END);
    }

    #[test]
    fn what_was_being_sent_when_the_td_ended_is_not_lost() {
        let (outlet, receiver) = slow(QUEUE);
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let outlet = outlet.clone();
                thread::spawn(move || (0..5).for_each(|_| outlet.send(b"abc")))
            })
            .collect();
        outlet.release(Instant::now());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let mut read = 0;
        while read < 4 * 5 * 3 {
            read += receiver.recv().unwrap().len();
        }
        assert_eq!(outlet.drain(|| false), Loss::default());
    }

    #[test]
    fn beyond_its_allowance_a_message_is_dropped_and_so_is_all_that_follows() {
        let (outlet, receiver) = slow(64);
        let mut metered = Metered::new(outlet.clone(), 10);
        for message in [&b"12345"[..], b"678901", b"6"] {
            metered.send(message);
        }
        assert_eq!(metered.dropped(), 7);
        outlet.send(b"the end");
        let mut read = Vec::new();
        while read.len() < 12 {
            read.extend(receiver.recv().unwrap());
        }
        assert_eq!(read, b"12345the end");
        assert_eq!(outlet.drain(|| false), Loss::default());
    }

    #[test]
    fn after_a_failed_write_nobody_waits_and_the_error_is_kept() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let outlet = Outlet::new(Full, QUEUE);
        (0..1000).for_each(|_| outlet.send(b"abcd"));
        let loss = outlet.drain(|| false);
        assert_eq!(loss.failed, Some(io::ErrorKind::StorageFull));
        assert!(!loss.is_none() && outlet.error().is_some());
        assert!(Loss { failed: Some(io::ErrorKind::BrokenPipe), ..Loss::default() }.is_none());
    }
}
