//! Taking turns: what makes a run repeat.
//!
//! # Protocol
//! Processors have their threads, but one of them runs at a time; the others wait here. A turn ends at points where the
//! processor is between two instructions and holds no lock: between two slices of the host's code, or of a guest's. The
//! next in turn is the next in number that is awake; the seed decides how long a turn is, in ticks of the virtual
//! clock, which moves with the instructions that are executed.
//!
//! A processor that sleeps is left out until it is woken. Where every processor sleeps, the last one to fall asleep
//! moves the clock to the next timer. Where there is no timer either, the machine rests until something from outside
//! wakes a processor.
//!
//! So the same seed gives the same run, instruction by instruction, as long as nothing comes from outside.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use seam_emu::Random;

/// Ticks of one turn: at least, and the range above that.
const TURN_MIN: u64 = 160_000;
const TURN_SPREAD: u64 = 480_000;

/// Who runs.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    members: Vec<Member>,
    current: Option<usize>,
    /// When the current turn is over.
    until: u64,
    random: Random,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Awake,
    Asleep,
    /// Will not run any more.
    Gone,
}

/// What a processor that sleeps has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It was woken and has the turn.
    Over,
    /// Nobody is awake: it moves the clock to the next timer, then asks again.
    AllAsleep,
}

impl Turns {
    /// Turns of this many processors; the first begins.
    pub(crate) fn new(members: usize, seed: u64) -> Self {
        let state = State {
            members: vec![Member::Awake; members],
            current: Some(0),
            until: 0,
            random: Random::new(seed),
            over: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first turn of a processor.
    pub(crate) fn begin(&self, me: usize) {
        self.await_turn(self.lock(), me);
    }

    /// Ends the processor's turn if its time is up, and returns when it has the next one. `now` is the clock.
    pub(crate) fn look(&self, me: usize, now: u64) {
        let mut state = self.lock();
        if now < state.until && state.current == Some(me) {
            return;
        }
        state.next_after(me, now);
        self.await_turn(state, me);
    }

    /// The processor sleeps until it is woken.
    pub(crate) fn sleep(&self, me: usize, now: u64) -> Rest {
        let mut state = self.lock();
        if let Some(member) = state.members.get_mut(me) {
            *member = Member::Asleep;
        }
        state.next_after(me, now);
        if state.current.is_none() && !state.over {
            // Who moves the clock is the one whose turn it still is.
            state.current = Some(me);
            return Rest::AllAsleep;
        }
        self.await_turn(state, me);
        Rest::Over
    }

    /// Nobody is awake and there is no timer: waits for somebody outside.
    pub(crate) fn rest(&self, me: usize) {
        let mut state = self.lock();
        if state.members.iter().all(|member| *member != Member::Awake) {
            state.current = None;
        }
        self.await_turn(state, me);
    }

    /// Wakes a processor.
    pub(crate) fn wake(&self, who: usize) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(who).filter(|member| **member == Member::Asleep) else {
            return;
        };
        *member = Member::Awake;
        if state.current.is_none() {
            state.current = Some(who);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The processor will not run any more.
    pub(crate) fn leave(&self, me: usize, now: u64) {
        let mut state = self.lock();
        if let Some(member) = state.members.get_mut(me) {
            *member = Member::Gone;
        }
        if state.current == Some(me) {
            state.next_after(me, now);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The machine has ended: nobody waits for a turn any more.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    fn await_turn(&self, mut state: MutexGuard<'_, State>, me: usize) {
        self.changed.notify_all();
        while !state.over && !state.has_turn(me) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn has_turn(&self, me: usize) -> bool {
        self.current == Some(me) && self.members.get(me) == Some(&Member::Awake)
    }

    fn next_after(&mut self, me: usize, now: u64) {
        let count = self.members.len();
        self.current = (1..=count)
            .map(|step| (me + step) % count)
            .find(|index| self.members.get(*index) == Some(&Member::Awake));
        self.until = now.saturating_add(TURN_MIN + self.random.next() % TURN_SPREAD);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Lets `members` processors take turns for a number of steps and gives the order in which they came.
    fn order(seed: u64, members: usize) -> Vec<usize> {
        let turns = Arc::new(Turns::new(members, seed));
        let log = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::new(tdvisor_base::sync::AtomicU64::new(0));
        std::thread::scope(|scope| {
            for me in 0..members {
                let (turns, log, clock) = (turns.clone(), log.clone(), clock.clone());
                scope.spawn(move || {
                    turns.begin(me);
                    for _ in 0..50 {
                        log.lock().unwrap().push(me);
                        let now = clock.fetch_add(100_000, tdvisor_base::sync::Ordering::SeqCst);
                        turns.look(me, now);
                    }
                    turns.leave(me, 0);
                });
            }
        });
        Arc::try_unwrap(log).unwrap().into_inner().unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_one_another() {
        let first = order(7, 3);
        assert_eq!(first.len(), 150);
        assert_eq!(first, order(7, 3));
        assert_ne!(first, order(8, 3));
    }

    #[test]
    fn a_sleeper_is_left_out_until_it_is_woken() {
        let turns = Turns::new(2, 1);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                turns.begin(1);
                let rest = turns.sleep(1, 0);
                turns.leave(1, 0);
                rest
            });
            turns.begin(0);
            // Until the other one sleeps it takes its turns; afterwards they come back at once.
            for now in 0..100 {
                turns.look(0, now * 1_000_000);
            }
            turns.wake(1);
            turns.leave(0, 0);
            assert_eq!(sleeper.join().unwrap(), Rest::Over);
        });
    }

    #[test]
    fn the_last_one_to_fall_asleep_moves_the_clock() {
        let turns = Turns::new(1, 1);
        turns.begin(0);
        assert_eq!(turns.sleep(0, 0), Rest::AllAsleep);
        turns.wake(0);
        turns.look(0, 0);
    }
}
