//! Taking turns: a machine whose processors run one at a time, in an order that a seed decides.
//!
//! # Protocol
//! Every vCPU has a thread, as always, but only the one whose *turn* it is runs; the others wait. A turn ends at
//! points where the vCPU is outside of its guest and holds nothing ([`Lp::give_way`], [`Lp::wait_for_event`]),
//! so nobody ever waits for somebody whose turn it is not. The turns begin when all have come to their first such
//! point, which makes the order independent of how the host schedules threads.
//!
//! Time is virtual: it moves with the instructions that guests execute, and jumps to the next timer when every
//! vCPU sleeps. Where nobody has a timer either, the machine rests until something from outside wakes it.
//!
//! The turns can be held ([`Turns::hold`]): the turn that goes on is the last one, and time stands still, because nobody
//! executes an instruction and nobody looks for the next timer. When they are released, the turn passes on as it would have. So
//! a run that was held is the run that never was.
//!
//! The turns can also be *frozen* ([`Turns::freeze`]), for good: the turn that goes on is the last one, and everybody who waits
//! for a turn comes back without one, to leave. Where the turns stood can then be saved ([`Turns::save`]). Turns that are
//! restored begin when all who were there have come back ([`Turns::rejoin`]), with the one whose turn it would have been: so a
//! run that was frozen and went on elsewhere is the run that never was, too.
//!
//! The next in turn is the next in number that is not asleep; the seed decides how many instructions a turn has.
//! The same seed therefore gives the same run, call for call. A guest that waits in a loop of PAUSEs gives the rest of its
//! turn away.
//!
//! [`Lp::give_way`]: td_host::platform::Lp::give_way
//! [`Lp::wait_for_event`]: td_host::platform::Lp::wait_for_event

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use seam_emu::{Machine, Random};
use serde::{Deserialize, Serialize};
use td_host::platform::LpId;
use tdvisor_base::Ticks;

/// Instructions of one turn: at least, and the range above that.
const TURN_MIN: u64 = 20_000;
const TURN_SPREAD: u64 = 60_000;

/// Who runs.
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    members: Vec<Member>,
    /// The member whose turn it is; `None` before the turns begin, and while all are asleep.
    current: Option<usize>,
    begun: bool,
    random: Random,
    held: bool,
    /// Where the turns were held, or frozen.
    held_at: Option<HeldAt>,
    freeze: Freeze,
    /// Members of restored turns that have not come back yet.
    away: Vec<usize>,
}

/// Whether the turns stop for good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freeze {
    No,
    /// When the present turn ends.
    Wanted,
    Frozen,
}

/// Where frozen turns stood: as a snapshot holds it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedTurns {
    members: Vec<Member>,
    random: u64,
    at: Option<HeldAt>,
}

/// What happens when held turns go on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum HeldAt {
    /// The turn passes on after this member.
    After(usize),
    /// All were asleep, and this one was woken first.
    Woken(usize),
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Member {
    presence: Presence,
    /// In ticks of the machine's virtual clock.
    timer: Option<u64>,
    timer_expired: bool,
    /// Somebody woke it: its next sleep is over before it begins.
    woken: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Presence {
    /// Has not come yet.
    #[default]
    Expected,
    Awake,
    Asleep,
    Gone,
}

impl Member {
    /// Whether it has come, and has not gone.
    const fn is_there(&self) -> bool {
        matches!(self.presence, Presence::Awake | Presence::Asleep)
    }
}

impl Turns {
    /// Turns for the processors from 1 to `members`, one vCPU each. Processor 0 is the host's own, and free.
    pub fn new(members: usize, seed: u64) -> Self {
        let state = State {
            members: vec![Member::default(); members],
            current: None,
            begun: false,
            random: Random::new(seed),
            held: false,
            held_at: None,
            freeze: Freeze::No,
            away: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Stops the turns for good when the present one ends.
    pub fn freeze(&self) {
        let mut state = self.lock();
        let nobody_has_a_turn = state.begun && state.current.is_none() && state.away.is_empty();
        state.freeze = match state.freeze {
            Freeze::No if nobody_has_a_turn => Freeze::Frozen,
            Freeze::No => Freeze::Wanted,
            already => already,
        };
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the turns have stopped for good.
    pub fn is_frozen(&self) -> bool {
        self.lock().freeze == Freeze::Frozen
    }

    /// Where the turns stood when they froze; `None` where they have not, or somebody is gone.
    pub fn save(&self) -> Option<SavedTurns> {
        let state = self.lock();
        let is_whole = state.freeze == Freeze::Frozen && state.members.iter().all(Member::is_there);
        is_whole.then(|| SavedTurns {
            members: state.members.clone(),
            random: state.random.seed(),
            at: state.held_at,
        })
    }

    /// Turns that go on where those of as many processors stood; `None` where they were not as many.
    pub fn restore(members: usize, saved: SavedTurns) -> Option<Self> {
        let SavedTurns { members: all, random, at } = saved;
        let is_member = at.is_none_or(|(HeldAt::After(index) | HeldAt::Woken(index))| index < members);
        if all.len() != members || !is_member || !all.iter().all(Member::is_there) {
            return None;
        }
        let state = State {
            members: all,
            current: None,
            begun: true,
            random: Random::new(random),
            held: false,
            held_at: at,
            freeze: Freeze::No,
            away: (0..members).collect(),
        };
        Some(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// A processor of restored turns is where it was when they froze; returns when that would have returned.
    pub fn rejoin(&self, lp: LpId, machine: &Machine) {
        let Some(me) = member_of(lp) else { return };
        let mut state = self.lock();
        if me < state.members.len() {
            state.come_back(me, machine);
            self.await_turn(state, me);
        }
    }

    /// Ends the turn of a processor and returns when it has the next one.
    pub fn give_way(&self, lp: LpId, machine: &Machine) {
        let Some(me) = member_of(lp) else { return };
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(me) else { return };
        member.presence = Presence::Awake;
        state.next_turn(me, machine);
        self.await_turn(state, me);
    }

    /// Puts a processor to sleep until it is woken or its timer expires. May return early.
    pub fn sleep(&self, lp: LpId, machine: &Machine) {
        let Some(me) = member_of(lp) else { return };
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(me) else { return };
        if !std::mem::take(&mut member.woken) && !member.timer_expired {
            member.presence = Presence::Asleep;
            state.next_turn(me, machine);
            self.await_turn(state, me);
        }
    }

    /// The processor's vCPU has ended, or never began.
    pub fn leave(&self, lp: LpId, machine: &Machine) {
        let Some(me) = member_of(lp) else { return };
        let mut state = self.lock();
        if state.freeze == Freeze::Frozen {
            return;
        }
        let Some(member) = state.members.get_mut(me) else { return };
        member.presence = Presence::Gone;
        state.come_back(me, machine);
        if state.current == Some(me) || !state.begun {
            state.next_turn(me, machine);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Wakes a processor, or keeps it from falling asleep.
    pub fn wake(&self, lp: LpId) {
        let Some(member) = member_of(lp) else { return };
        self.lock().wake(member);
        self.changed.notify_all();
    }

    /// Holds the turns, and waits until the one that goes on has ended: afterwards no vCPU is in its guest.
    pub fn hold(&self) {
        let mut state = self.lock();
        state.held = true;
        while state.current.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets held turns go on.
    pub fn release(&self, machine: &Machine) {
        let mut state = self.lock();
        if std::mem::take(&mut state.held) && state.freeze != Freeze::Frozen {
            state.go_on(machine);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Sets or cancels a processor's timer, in ticks of the virtual clock.
    pub fn set_timer(&self, lp: LpId, deadline: Option<Ticks>) {
        let mut state = self.lock();
        if let Some(member) = member_of(lp).and_then(|member| state.members.get_mut(member)) {
            member.timer = deadline.map(Ticks::get);
            member.timer_expired = false;
        }
    }

    /// Takes the expiry of the processor's timer.
    pub fn take_timer(&self, lp: LpId) -> bool {
        let mut state = self.lock();
        let member = member_of(lp).and_then(|member| state.members.get_mut(member));
        member.is_some_and(|member| std::mem::take(&mut member.timer_expired))
    }

    /// How many instructions the guest that is about to be entered has.
    pub fn quantum(&self, machine: &Machine) -> u64 {
        self.lock().quantum(machine)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_turn(&self, mut state: MutexGuard<'_, State>, me: usize) {
        self.changed.notify_all();
        while state.current != Some(me) && state.freeze != Freeze::Frozen {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

const fn member_of(lp: LpId) -> Option<usize> {
    (lp.0 as usize).checked_sub(1)
}

impl State {
    /// Passes the turn on after `me`, or begins the turns when the last one has come.
    fn next_turn(&mut self, me: usize, machine: &Machine) {
        if !self.begun {
            if self.members.iter().any(|member| member.presence == Presence::Expected) {
                return;
            }
            self.begun = true;
            return self.end_turn(self.members.len().saturating_sub(1), machine);
        }
        self.end_turn(me, machine);
    }

    fn end_turn(&mut self, me: usize, machine: &Machine) {
        if self.held || self.freeze != Freeze::No {
            self.current = None;
            self.held_at = Some(HeldAt::After(me));
            if self.freeze == Freeze::Wanted {
                self.freeze = Freeze::Frozen;
            }
        } else {
            self.pass_on(me, machine);
        }
    }

    /// Turns that were held, or were away, go on.
    fn go_on(&mut self, machine: &Machine) {
        match self.held_at.take() {
            Some(HeldAt::After(me)) => self.pass_on(me, machine),
            Some(HeldAt::Woken(index)) => self.current = Some(index),
            None => {}
        }
    }

    /// A member of restored turns is there again; the last one lets them go on.
    fn come_back(&mut self, me: usize, machine: &Machine) {
        let before = self.away.len();
        self.away.retain(|away| *away != me);
        if before != 0 && self.away.is_empty() && !self.held {
            match self.freeze {
                Freeze::Wanted => self.freeze = Freeze::Frozen,
                _ => self.go_on(machine),
            }
        }
    }

    fn pass_on(&mut self, me: usize, machine: &Machine) {
        self.current = self.first_awake_after(me);
        if self.current.is_none() {
            self.jump_to_next_timer(machine);
        }
    }

    fn first_awake_after(&self, me: usize) -> Option<usize> {
        let count = self.members.len();
        (1..=count)
            .map(|step| (me + step) % count)
            .find(|index| self.members.get(*index).is_some_and(|member| member.presence == Presence::Awake))
    }

    /// All sleep: the clock moves to the earliest timer.
    fn jump_to_next_timer(&mut self, machine: &Machine) {
        let timers =
            self.members.iter().enumerate().filter(|(_, member)| member.presence == Presence::Asleep);
        let Some((index, deadline)) =
            timers.filter_map(|(index, member)| Some((index, member.timer?))).min_by_key(|(_, at)| *at)
        else {
            return;
        };
        machine.advance_tsc(deadline.saturating_sub(machine.tsc()));
        self.expire_timers(machine);
        self.current = Some(index);
    }

    /// Expires what is due, and wakes those who sleep for it.
    fn expire_timers(&mut self, machine: &Machine) {
        let now = machine.tsc();
        for member in &mut self.members {
            if member.timer.is_some_and(|deadline| deadline <= now) {
                member.timer = None;
                member.timer_expired = true;
                if member.presence == Presence::Asleep {
                    member.presence = Presence::Awake;
                }
            }
        }
    }

    fn wake(&mut self, index: usize) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.woken = true;
        if member.presence == Presence::Asleep {
            member.presence = Presence::Awake;
            if self.begun && self.current.is_none() {
                match self.held || self.freeze != Freeze::No || !self.away.is_empty() {
                    true => self.held_at = self.held_at.or(Some(HeldAt::Woken(index))),
                    false => self.current = Some(index),
                }
            }
        }
    }

    /// What the seed says, but not past anybody's next timer.
    fn quantum(&mut self, machine: &Machine) -> u64 {
        self.expire_timers(machine);
        let turn = TURN_MIN + self.random.next() % TURN_SPREAD;
        let now = machine.tsc();
        let per_instruction = machine.config().tsc_ticks_per_instruction.max(1);
        let until_timer = self.members.iter().filter_map(|member| member.timer).min();
        until_timer.map_or(turn, |at| turn.min(at.saturating_sub(now).div_ceil(per_instruction)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use seam_emu::{MachineConfig, TscSource};

    use super::*;

    const MEMBERS: u32 = 3;
    const TURNS_OF_EACH: usize = 100;

    /// Lets members take turns, one of them asleep for a time, and gives the order in which they had theirs.
    fn order(beside: impl FnOnce(&Turns, &Machine, &AtomicBool) + Send) -> Vec<u32> {
        let machine =
            Machine::new(MachineConfig { tsc_source: TscSource::Virtual, ..MachineConfig::small() });
        let (turns, order) = (Turns::new(MEMBERS as usize, 1), Mutex::new(Vec::new()));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let members: Vec<_> = (1..=MEMBERS)
                .map(|number| {
                    let (machine, turns, order) = (&machine, &turns, &order);
                    scope.spawn(move || {
                        let lp = LpId(number);
                        for turn in 0..TURNS_OF_EACH {
                            turns.give_way(lp, machine);
                            order.lock().unwrap().push(number);
                            machine.advance_tsc(100);
                            if number == MEMBERS && turn % 10 == 0 {
                                turns.set_timer(lp, Some(Ticks::new(machine.tsc() + 5_000)));
                                turns.sleep(lp, machine);
                            }
                            turns.quantum(machine);
                        }
                        turns.leave(lp, machine);
                    })
                })
                .collect();
            let beside = scope.spawn(|| beside(&turns, &machine, &over));
            members.into_iter().for_each(|member| member.join().unwrap());
            over.store(true, Ordering::SeqCst);
            beside.join().unwrap();
        });
        order.into_inner().unwrap()
    }

    #[test]
    fn turns_that_were_held_come_in_the_order_of_those_that_were_not() {
        let plain = order(|_, _, _| {});
        assert_eq!(plain.len(), MEMBERS as usize * TURNS_OF_EACH);
        let held = order(|turns, machine, over| {
            while !over.load(Ordering::SeqCst) {
                turns.hold();
                let time = machine.tsc();
                std::thread::yield_now();
                assert_eq!(machine.tsc(), time, "somebody has a turn");
                turns.release(machine);
            }
        });
        assert_eq!(held, plain);
    }
}
