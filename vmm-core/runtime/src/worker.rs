//! Work that may block for ever, done for somebody who must not.
//!
//! # Protocol
//! One thread does the work, one job at a time. Who asks waits for its answer until a deadline that covers everything:
//! the wait for the thread as well as the work. An answer that comes too late is dropped; until the thread is back, the
//! next to ask wait for it, each up to its own deadline. A [`StopFlag`] ends all waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait looks at the stop flag.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Says to everybody who waits for the world outside that the TD is ending.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Waits end from now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether waits have to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The answer did not come in time, or nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue;

/// A thread that answers `Q` with `A`.
#[derive(Debug)]
pub struct Worker<Q, A> {
    shared: Arc<Shared<Q, A>>,
    stop: StopFlag,
}

#[derive(Debug)]
struct Shared<Q, A> {
    state: Mutex<State<Q, A>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<Q, A> {
    job: Option<Q>,
    /// Somebody has asked, and has neither taken the answer nor given up with the thread back.
    busy: bool,
    /// Who asked has given up.
    abandoned: bool,
    answer: Option<A>,
    closed: bool,
}

impl<Q, A> Shared<Q, A> {
    fn lock(&self) -> MutexGuard<'_, State<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut work: impl FnMut(Q) -> A) {
        let mut state = self.lock();
        loop {
            let Some(job) = state.job.take() else {
                if state.closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let answer = work(job);
            state = self.lock();
            if std::mem::take(&mut state.abandoned) {
                state.busy = false;
            } else {
                state.answer = Some(answer);
            }
            self.changed.notify_all();
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// A thread that does `work`. It is not joined: it may never come back.
    pub fn new(stop: StopFlag, work: impl FnMut(Q) -> A + Send + 'static) -> Self {
        let state = State { job: None, busy: false, abandoned: false, answer: None, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = shared.clone();
        thread::spawn(move || of_thread.serve(work));
        Self { shared, stop }
    }

    /// Has the work done.
    ///
    /// # Errors
    /// [`Overdue`]: not `within` this time, or the stop flag was set meanwhile. The work may still happen.
    pub fn ask(&self, question: Q, within: Duration) -> Result<A, Overdue> {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        while state.busy {
            if self.is_over(deadline) {
                return Err(Overdue);
            }
            state = self.wait(state, deadline);
        }
        state.busy = true;
        state.job = Some(question);
        self.shared.changed.notify_all();
        loop {
            if let Some(answer) = state.answer.take() {
                state.busy = false;
                self.shared.changed.notify_all();
                return Ok(answer);
            }
            if self.is_over(deadline) {
                state.abandoned = true;
                return Err(Overdue);
            }
            state = self.wait(state, deadline);
        }
    }

    fn is_over(&self, deadline: Instant) -> bool {
        self.stop.is_set() || deadline <= Instant::now()
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<Q, A>>, deadline: Instant) -> MutexGuard<'a, State<Q, A>> {
        let left = deadline.saturating_duration_since(Instant::now()).min(LOOK_AGAIN);
        self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<Q, A> Drop for Worker<Q, A> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn answers_go_to_those_who_asked() {
        let worker = Worker::new(StopFlag::default(), |number: u32| number * 2);
        thread::scope(|scope| {
            for asker in 0..4 {
                let worker = &worker;
                scope.spawn(move || {
                    for number in (asker..400).step_by(4) {
                        assert_eq!(worker.ask(number, LONG), Ok(number * 2));
                    }
                });
            }
        });
    }

    #[test]
    fn work_that_never_ends_is_overdue_for_everybody_and_its_late_answer_is_nobodys() {
        let (let_go, held) = channel::<()>();
        let worker = Worker::new(StopFlag::default(), move |number: u32| {
            if number == 0 {
                let _ = held.recv();
            }
            number
        });
        assert_eq!(worker.ask(0, Duration::ZERO), Err(Overdue));
        assert_eq!(worker.ask(1, Duration::from_millis(1)), Err(Overdue), "the thread is not back");
        let_go.send(()).unwrap();
        assert_eq!(worker.ask(2, LONG), Ok(2));
    }

    #[test]
    fn the_stop_flag_ends_a_wait_that_has_hardly_begun() {
        let (_let_go, held) = channel::<()>();
        let stop = StopFlag::default();
        let worker = Worker::new(stop.clone(), move |()| {
            let _ = held.recv();
        });
        thread::scope(|scope| {
            let asker = scope.spawn(|| worker.ask((), LONG));
            stop.set();
            assert_eq!(asker.join().unwrap(), Err(Overdue));
        });
    }
}
