//! Taking turns: what makes a run repeat.
//!
//! # Protocol
//! Processors have their threads, but one of them runs at a time; the others wait here. A turn ends at points where the
//! processor is between two instructions and holds no lock: between two slices of the host's code, or of a guest's. The
//! next in turn is the next in number that is awake; the seed decides how long a turn is, in ticks of the virtual
//! clock, which moves with the instructions that are executed.
//!
//! A processor that spins ([`Turns::spin`]) waits for somebody whose turn it is not: after a few PAUSEs the rest of its turn
//! passes at once, as if it had spun until then.
//!
//! A processor that sleeps is left out until it is woken, or until its timer is due: whoever ends a turn looks at the
//! timers of those who sleep. Where every processor sleeps, the last one to fall asleep moves the clock to the earliest
//! timer. Where there is no timer either, the machine rests until something from outside wakes a processor.
//!
//! Waking is not missed: who wakes rings the sleeper's bell first and comes here then; who is about to sleep looks at its
//! bell under the lock that waking takes.
//!
//! So the same seed gives the same run, instruction by instruction, as long as nothing comes from outside.

use std::sync::PoisonError;

use seam_emu::{Machine, Random};
use serde::{Deserialize, Serialize};

use crate::threads::{Condvar, Mutex, MutexGuard};

/// Ticks of one turn: at least, and the range above that.
const TURN_MIN: u64 = 160_000;
const TURN_SPREAD: u64 = 480_000;

/// PAUSEs in one turn after which the rest of it passes at once: enough for a short wait to end in the turn in which it
/// began, far fewer than a turn has instructions.
const SPINS: u32 = 64;

/// The clock that turns are measured with.
pub(crate) trait TurnClock {
    /// Ticks.
    fn now(&self) -> u64;
    /// Moves the clock forward to this many ticks; it never goes back.
    fn advance_to(&self, ticks: u64);
}

impl TurnClock for Machine {
    fn now(&self) -> u64 {
        self.tsc()
    }

    fn advance_to(&self, ticks: u64) {
        self.advance_tsc(ticks.saturating_sub(self.tsc()));
    }
}

/// Who runs.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// One for each processor: only the one whose turn it becomes is woken.
    changed: Box<[Condvar]>,
}

#[derive(Debug)]
struct State {
    members: Vec<Member>,
    current: Option<usize>,
    /// When the current turn is over.
    until: u64,
    /// PAUSEs of the current turn.
    spins: u32,
    random: Random,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Member {
    Awake,
    /// Until it is woken, or the clock reaches its timer.
    Asleep {
        timer: Option<u64>,
    },
    /// Will not run any more.
    Gone,
}

/// Whose turn it is, how long, and who sleeps: as a snapshot holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedTurns {
    members: Vec<Member>,
    current: Option<usize>,
    until: u64,
    spins: u32,
    random: u64,
}

impl Turns {
    /// Where the turns stand.
    pub(crate) fn save(&self) -> SavedTurns {
        let State { members, current, until, spins, random, over: _ } = &*self.lock();
        let (members, random) = (members.clone(), random.seed());
        SavedTurns { members, current: *current, until: *until, spins: *spins, random }
    }

    /// Goes on where the turns of as many processors stood; `None` where they were not as many. Nobody runs yet.
    pub(crate) fn restore(&self, saved: SavedTurns) -> Option<()> {
        let SavedTurns { members, current, until, spins, random } = saved;
        let processors = self.changed.len();
        if members.len() != processors || current.is_some_and(|current| current >= processors) {
            return None;
        }
        let random = Random::new(random);
        *self.lock() = State { members, current, until, spins, random, over: false };
        Some(())
    }

    /// Turns of this many processors; the first begins.
    pub(crate) fn new(members: usize, seed: u64) -> Self {
        let state = State {
            members: vec![Member::Awake; members],
            current: Some(0),
            until: 0,
            spins: 0,
            random: Random::new(seed),
            over: false,
        };
        Self { state: Mutex::new(state), changed: (0..members).map(|_| Condvar::new()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first turn of a processor.
    pub(crate) fn begin(&self, me: usize) {
        self.await_turn(self.lock(), me);
    }

    /// Ends the processor's turn if its time is up, and returns when it has the next one.
    pub(crate) fn look(&self, me: usize, clock: &impl TurnClock) {
        let mut state = self.lock();
        if clock.now() < state.until && state.current == Some(me) {
            return;
        }
        state.next_after(me, clock.now());
        self.await_turn(state, me);
    }

    /// The processor waits for another one in a loop: it executed PAUSE.
    pub(crate) fn spin(&self, me: usize, clock: &impl TurnClock) {
        let mut state = self.lock();
        state.spins += 1;
        if state.spins < SPINS {
            return;
        }
        clock.advance_to(state.until);
        state.next_after(me, clock.now());
        self.await_turn(state, me);
    }

    /// The processor sleeps until it is woken, or until the clock reaches `timer`; not at all where `is_rung`, which is asked
    /// once.
    pub(crate) fn sleep(
        &self,
        me: usize,
        timer: Option<u64>,
        clock: &impl TurnClock,
        is_rung: impl FnOnce() -> bool,
    ) {
        let mut state = self.lock();
        if is_rung() {
            return;
        }
        if let Some(member) = state.members.get_mut(me) {
            *member = Member::Asleep { timer };
        }
        state.next_after(me, clock.now());
        if state.current.is_none()
            && let Some(earliest) = state.earliest_timer()
        {
            clock.advance_to(earliest);
            state.next_after(me, clock.now());
        }
        self.await_turn(state, me);
    }

    /// Wakes a processor.
    pub(crate) fn wake(&self, who: usize) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(who) else { return };
        if !matches!(member, Member::Asleep { .. }) {
            return;
        }
        *member = Member::Awake;
        if state.current.is_none() {
            state.current = Some(who);
            drop(state);
            self.notify(Some(who));
        }
    }

    /// The processor will not run any more.
    pub(crate) fn leave(&self, me: usize, clock: &impl TurnClock) {
        let mut state = self.lock();
        if let Some(member) = state.members.get_mut(me) {
            *member = Member::Gone;
        }
        if state.current == Some(me) {
            state.next_after(me, clock.now());
        }
        let next = state.current;
        drop(state);
        self.notify(next);
    }

    /// The machine has ended: nobody waits for a turn any more.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.iter().for_each(Condvar::notify_all);
    }

    fn notify(&self, who: Option<usize>) {
        if let Some(changed) = who.and_then(|who| self.changed.get(who)) {
            changed.notify_all();
        }
    }

    /// Waits for the processor's turn; somebody else's thread goes on meanwhile, if it is not its own already.
    fn await_turn(&self, mut state: MutexGuard<'_, State>, me: usize) {
        let Some(changed) = self.changed.get(me) else { return };
        if state.current != Some(me) {
            self.notify(state.current);
        }
        while !state.over && !state.has_turn(me) {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn has_turn(&self, me: usize) -> bool {
        self.current == Some(me) && self.members.get(me) == Some(&Member::Awake)
    }

    /// The earliest timer of those who sleep.
    fn earliest_timer(&self) -> Option<u64> {
        let timer = |member: &Member| match member {
            Member::Asleep { timer } => *timer,
            Member::Awake | Member::Gone => None,
        };
        self.members.iter().filter_map(timer).min()
    }

    /// A turn is over: those whose timer is due wake, and the next one in number that is awake begins its turn.
    fn next_after(&mut self, me: usize, now: u64) {
        for member in &mut self.members {
            if let Member::Asleep { timer: Some(timer) } = member
                && *timer <= now
            {
                *member = Member::Awake;
            }
        }
        let count = self.members.len();
        self.current = (1..=count)
            .map(|step| (me + step) % count)
            .find(|index| self.members.get(*index) == Some(&Member::Awake));
        self.spins = 0;
        self.until = now.saturating_add(TURN_MIN + self.random.next() % TURN_SPREAD);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tdvisor_base::sync::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct TestClock(AtomicU64);

    impl TurnClock for TestClock {
        fn now(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        fn advance_to(&self, ticks: u64) {
            self.0.fetch_max(ticks, Ordering::SeqCst);
        }
    }

    impl TestClock {
        fn pass(&self, ticks: u64) {
            self.0.fetch_add(ticks, Ordering::SeqCst);
        }
    }

    /// Lets `members` processors take turns for a number of steps and gives the order in which they came.
    fn order(seed: u64, members: usize) -> Vec<usize> {
        let turns = Arc::new(Turns::new(members, seed));
        let log = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::new(TestClock::default());
        std::thread::scope(|scope| {
            for me in 0..members {
                let (turns, log, clock) = (turns.clone(), log.clone(), clock.clone());
                scope.spawn(move || {
                    turns.begin(me);
                    for _ in 0..50 {
                        log.lock().unwrap().push(me);
                        clock.pass(100_000);
                        turns.look(me, &*clock);
                    }
                    turns.leave(me, &*clock);
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
        let (turns, clock) = (Turns::new(2, 1), TestClock::default());
        let woken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turns.begin(1);
                turns.sleep(1, None, &clock, || false);
                assert!(woken.load(Ordering::SeqCst), "it slept until it was woken");
                turns.leave(1, &clock);
            });
            turns.begin(0);
            // Until the other one sleeps it takes its turns; afterwards they come back at once.
            for _ in 0..100 {
                clock.pass(1_000_000);
                turns.look(0, &clock);
            }
            woken.store(true, Ordering::SeqCst);
            turns.wake(1);
            turns.leave(0, &clock);
        });
    }

    #[test]
    fn who_was_rung_before_it_sleeps_does_not_sleep() {
        let (turns, clock) = (Turns::new(1, 1), TestClock::default());
        turns.begin(0);
        turns.sleep(0, None, &clock, || true);
        turns.look(0, &clock);
    }

    #[test]
    fn the_last_one_to_fall_asleep_moves_the_clock_to_the_earliest_timer() {
        let (turns, clock) = (Turns::new(1, 1), TestClock::default());
        turns.begin(0);
        turns.sleep(0, Some(5_000_000), &clock, || false);
        assert_eq!(clock.now(), 5_000_000);
    }

    #[test]
    fn a_sleepers_timer_wakes_it_beside_one_that_never_sleeps() {
        let (turns, clock) = (Turns::new(2, 1), TestClock::default());
        let awake = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turns.begin(1);
                turns.sleep(1, Some(3_000_000), &clock, || false);
                assert!(clock.now() >= 3_000_000);
                awake.store(true, Ordering::SeqCst);
                turns.leave(1, &clock);
            });
            turns.begin(0);
            while !awake.load(Ordering::SeqCst) {
                clock.pass(100_000);
                assert!(clock.now() < 10_000_000, "the other one's timer was due long ago");
                turns.look(0, &clock);
            }
            turns.leave(0, &clock);
        });
    }

    #[test]
    fn the_turn_of_one_that_spins_passes_at_once() {
        let (turns, clock) = (Turns::new(1, 1), TestClock::default());
        turns.begin(0);
        turns.look(0, &clock);
        (1..SPINS).for_each(|_| turns.spin(0, &clock));
        assert_eq!(clock.now(), 0, "a short wait costs what it executes");
        turns.spin(0, &clock);
        assert!(clock.now() >= TURN_MIN);
    }
}
