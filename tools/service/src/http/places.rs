//! The places of connections: how many there are, and who makes room for whom.
//!
//! # Protocol
//! A connection takes a place when it is accepted and gives it back when its thread ends. It is idle between its requests.
//! When all places are taken, the one that has been idle longest is shut down; if none comes to be idle, the new one is turned away.
//! Whoever ends the server shuts down all, and waits until the places are free.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;

/// How long a new connection waits for another to have answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that has a place.
struct Taken {
    number: u64,
    stream: Arc<Stream>,
    /// Since when it waits for its client; `None` while it answers.
    idle_since: Option<Instant>,
    is_shut: bool,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    next: u64,
    ending: bool,
}

/// The places of one server.
pub(super) struct Places {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// A place that is taken, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `None` if all are taken and stay busy for [`PATIENCE`], or the server ends. Twice `most` connections may live
    /// until those that made room have noticed.
    pub(super) fn take(self: &Arc<Self>, stream: Arc<Stream>) -> Option<Place> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if state.ending {
                return None;
            }
            // Those that were shut down and have not noticed are bounded too.
            if state.taken.len() < 2 * self.most {
                if state.taken.iter().filter(|place| !place.is_shut).count() < self.most {
                    break;
                }
                let idle =
                    state.taken.iter_mut().filter(|place| place.idle_since.is_some() && !place.is_shut);
                if let Some(oldest) = idle.min_by_key(|place| place.idle_since) {
                    oldest.is_shut = true;
                    oldest.stream.shut(Shutdown::Both);
                    break;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = state.next;
        state.next += 1;
        state.taken.push(Taken { number, stream, idle_since: Some(Instant::now()), is_shut: false });
        Some(Place { places: self.clone(), number })
    }

    /// Lets nobody in any more, and ends the wait of those that are idle.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        for place in state.taken.iter().filter(|place| place.idle_since.is_some()) {
            place.stream.shut(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until all places are free, or shuts down whoever is left at the deadline.
    pub(super) fn wait(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.taken.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for place in &state.taken {
                    place.stream.shut(Shutdown::Both);
                }
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Place {
    /// The connection begins to answer, or is idle again. `false` if it has to end.
    pub(super) fn set_idle(&self, idle: Idle) -> bool {
        let mut state = self.places.lock();
        let ending = state.ending;
        if let Some(place) = state.taken.iter_mut().find(|place| place.number == self.number) {
            place.idle_since = (idle == Idle::Yes).then(Instant::now);
            let must_end = place.is_shut || (ending && idle == Idle::Yes);
            drop(state);
            self.places.changed.notify_all();
            return !must_end;
        }
        false
    }
}

/// Whether a connection waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Yes,
    No,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.taken.retain(|place| place.number != self.number);
        drop(state);
        self.places.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, Arc<Stream>) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, Arc::new(Stream::Unix(server)))
    }

    #[test]
    fn the_one_that_is_idle_longest_makes_room_and_busy_ones_do_not() {
        let places = Places::new(2);
        let (_a, first) = pair();
        let (mut b, second) = pair();
        let (_c, third) = pair();
        let first = places.take(first).unwrap();
        let second = places.take(second).unwrap();
        assert!(first.set_idle(Idle::No));
        let third = places.take(third).unwrap();
        assert_eq!(b.read(&mut [0]).unwrap(), 0, "the second has been shut down");
        assert!(!second.set_idle(Idle::No));
        drop(second);
        assert!(third.set_idle(Idle::No));
        assert!(places.take(pair().1).is_none(), "nobody is idle");
        drop(first);
        assert!(places.take(pair().1).is_some());
    }

    #[test]
    fn a_server_that_ends_lets_nobody_in_and_waits_for_answers() {
        let places = Places::new(2);
        let (mut idle_client, idle) = pair();
        let (mut busy_client, busy) = pair();
        let idle = places.take(idle).unwrap();
        let busy = places.take(busy).unwrap();
        assert!(busy.set_idle(Idle::No));
        places.end();
        assert!(places.take(pair().1).is_none());
        assert_eq!(idle_client.read(&mut [0]).unwrap(), 0);
        assert!(!busy.set_idle(Idle::Yes), "it was its last answer");
        places.wait(Instant::now());
        assert_eq!(busy_client.read(&mut [0]).unwrap(), 0);
        drop((idle, busy));
        places.wait(Instant::now());
    }
}
