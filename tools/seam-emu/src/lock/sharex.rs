//! The shared/exclusive try-lock word.

use tdvisor_base::sync::{AtomicU64, Ordering, preemption_point};

const EXCLUSIVE: u64 = 1;
const HOST_PRIORITY: u64 = 1 << 1;
const ONE_SHARED: u64 = 1 << 2;
const SHARED_MASK: u64 = 0x3fff << 2;
const LOCK_MASK: u64 = 0xffff;

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// With others of the same mode.
    Shared,
    /// Alone.
    Exclusive,
}

/// Who takes a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A SEAMCALL.
    Host,
    /// A TDCALL, or the handling of a VM exit.
    Guest,
}

/// Why a lock was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Busy {
    /// Somebody holds it.
    Held,
    /// The lock may be free, but a host attempt comes first.
    HostPriority,
}

/// Whether a lock lets the host overtake guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostPriority {
    /// Plain: both sides are equal.
    No,
    /// A host attempt that loses keeps guests away.
    Yes,
}

/// A lock: the low sixteen bits of a word. The upper bits belong to the object and are preserved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TryLock<'m> {
    word: &'m AtomicU64,
    priority: HostPriority,
}

impl<'m> TryLock<'m> {
    pub(crate) const fn new(word: &'m AtomicU64, priority: HostPriority) -> Self {
        Self { word, priority }
    }

    /// Takes the lock, or says who is in the way.
    pub(crate) fn acquire(self, mode: Mode, side: Side) -> Result<Guard<'m>, Busy> {
        preemption_point();
        let mut current = self.word.load(Ordering::Relaxed);
        loop {
            let (next, outcome) = self.step(current, mode, side);
            if next == current {
                return outcome.map(|()| Guard { word: self.word, mode });
            }
            match self.word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return outcome.map(|()| Guard { word: self.word, mode }),
                Err(found) => current = found,
            }
        }
    }

    /// Whether somebody holds it.
    pub(crate) fn is_held(self) -> bool {
        self.word.load(Ordering::Acquire) & (EXCLUSIVE | SHARED_MASK) != 0
    }

    /// What an attempt makes of the word.
    fn step(self, word: u64, mode: Mode, side: Side) -> (u64, Result<(), Busy>) {
        let has_priority = self.priority == HostPriority::Yes;
        if side == Side::Guest && has_priority && word & HOST_PRIORITY != 0 {
            return (word, Err(Busy::HostPriority));
        }
        let free = match mode {
            Mode::Shared => word & EXCLUSIVE == 0 && word & SHARED_MASK != SHARED_MASK,
            Mode::Exclusive => word & (EXCLUSIVE | SHARED_MASK) == 0,
        };
        if !free {
            let marked = if side == Side::Host && has_priority { word | HOST_PRIORITY } else { word };
            return (marked, Err(Busy::Held));
        }
        let cleared = if side == Side::Host { word & !HOST_PRIORITY } else { word };
        let taken = match mode {
            Mode::Shared => cleared + ONE_SHARED,
            Mode::Exclusive => cleared | EXCLUSIVE,
        };
        (taken, Ok(()))
    }
}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Guard<'m> {
    word: &'m AtomicU64,
    mode: Mode,
}

impl Guard<'_> {
    /// The bits of the word that are not the lock.
    pub(crate) const fn payload_mask() -> u64 {
        !LOCK_MASK
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        preemption_point();
        match self.mode {
            Mode::Shared => self.word.fetch_sub(ONE_SHARED, Ordering::Release),
            Mode::Exclusive => self.word.fetch_and(!EXCLUSIVE, Ordering::Release),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(word: &AtomicU64) -> TryLock<'_> {
        TryLock::new(word, HostPriority::Yes)
    }

    #[test]
    fn shared_holders_keep_an_exclusive_one_out_and_the_other_way_round() {
        let word = AtomicU64::new(0xabcd_0000);
        let first = lock(&word).acquire(Mode::Shared, Side::Host).unwrap();
        let second = lock(&word).acquire(Mode::Shared, Side::Host).unwrap();
        assert_eq!(lock(&word).acquire(Mode::Exclusive, Side::Guest).unwrap_err(), Busy::Held);
        drop((first, second));
        let alone = lock(&word).acquire(Mode::Exclusive, Side::Host).unwrap();
        assert_eq!(lock(&word).acquire(Mode::Shared, Side::Guest).unwrap_err(), Busy::Held);
        drop(alone);
        assert_eq!(word.load(Ordering::Relaxed), 0xabcd_0000, "the object's bits are untouched");
    }

    #[test]
    fn after_a_host_lost_no_guest_gets_in_until_a_host_won() {
        let word = AtomicU64::new(0);
        let guest = lock(&word).acquire(Mode::Exclusive, Side::Guest).unwrap();
        assert_eq!(lock(&word).acquire(Mode::Exclusive, Side::Host).unwrap_err(), Busy::Held);
        drop(guest);
        assert_eq!(lock(&word).acquire(Mode::Shared, Side::Guest).unwrap_err(), Busy::HostPriority);
        drop(lock(&word).acquire(Mode::Exclusive, Side::Host).unwrap());
        assert!(lock(&word).acquire(Mode::Shared, Side::Guest).is_ok());
    }

    #[test]
    fn a_plain_lock_knows_no_priority() {
        let word = AtomicU64::new(0);
        let plain = TryLock::new(&word, HostPriority::No);
        let guest = plain.acquire(Mode::Shared, Side::Guest).unwrap();
        assert_eq!(plain.acquire(Mode::Exclusive, Side::Host).unwrap_err(), Busy::Held);
        drop(guest);
        assert!(plain.acquire(Mode::Exclusive, Side::Guest).is_ok());
    }

    /// Every lock word that there can be, with other bits of the object around it.
    fn words() -> impl Iterator<Item = u64> {
        const PAYLOADS: [u64; 3] = [0, 0x5a5a_5a5a_5a5a_0000, !LOCK_MASK];
        PAYLOADS.into_iter().flat_map(|payload| (0..=LOCK_MASK).map(move |word| payload | word))
    }

    /// Every word, and every attempt to take it.
    fn attempts() -> impl Iterator<Item = (u64, Mode, Side, HostPriority)> {
        words().flat_map(|word| {
            [Mode::Shared, Mode::Exclusive].into_iter().flat_map(move |mode| {
                [Side::Host, Side::Guest].into_iter().flat_map(move |side| {
                    [HostPriority::No, HostPriority::Yes].map(|priority| (word, mode, side, priority))
                })
            })
        })
    }

    fn step(word: u64, mode: Mode, side: Side, priority: HostPriority) -> (u64, Result<(), Busy>) {
        let unused = AtomicU64::new(0);
        TryLock::new(&unused, priority).step(word, mode, side)
    }

    /// Whether a word is one that locks get to: never held in both ways at once.
    const fn is_consistent(word: u64) -> bool {
        word & EXCLUSIVE == 0 || word & SHARED_MASK == 0
    }

    #[test]
    fn of_every_word_an_attempt_changes_no_bit_that_is_not_its_own() {
        for (word, mode, side, priority) in attempts() {
            let (next, outcome) = step(word, mode, side, priority);
            let at = || format!("{word:#x} {mode:?} {side:?} {priority:?}");
            assert_eq!(next & !LOCK_MASK, word & !LOCK_MASK, "{}: the object's bits", at());
            match outcome {
                Ok(()) => {
                    let priority_left = if side == Side::Host { 0 } else { word & HOST_PRIORITY };
                    let held = match mode {
                        Mode::Shared => (word & SHARED_MASK) + ONE_SHARED,
                        Mode::Exclusive => EXCLUSIVE,
                    };
                    assert_eq!(next & LOCK_MASK, priority_left | held, "{}", at());
                }
                Err(_) => {
                    let may_mark = side == Side::Host && priority == HostPriority::Yes;
                    let mark = if may_mark { HOST_PRIORITY } else { 0 };
                    assert_eq!(
                        next,
                        word | mark,
                        "{}: a host that lost leaves its mark, and nothing else",
                        at()
                    );
                }
            }
        }
    }

    #[test]
    fn of_every_word_exactly_those_get_in_that_nobody_is_in_the_way_of() {
        for (word, mode, side, priority) in attempts().filter(|attempt| is_consistent(attempt.0)) {
            let (next, outcome) = step(word, mode, side, priority);
            let at = || format!("{word:#x} {mode:?} {side:?} {priority:?}");
            let overtaken = side == Side::Guest && priority == HostPriority::Yes && word & HOST_PRIORITY != 0;
            let held = match mode {
                Mode::Shared => word & EXCLUSIVE != 0 || word & SHARED_MASK == SHARED_MASK,
                Mode::Exclusive => word & (EXCLUSIVE | SHARED_MASK) != 0,
            };
            let expected = match (overtaken, held) {
                (true, _) => Err(Busy::HostPriority),
                (false, true) => Err(Busy::Held),
                (false, false) => Ok(()),
            };
            assert_eq!(outcome, expected, "{}", at());
            assert!(is_consistent(next), "{}: {next:#x} is held in both ways", at());
        }
    }

    #[test]
    fn of_every_word_what_is_taken_is_given_back_by_letting_go() {
        for (word, mode, side, priority) in attempts() {
            let (next, outcome) = step(word, mode, side, priority);
            if outcome.is_ok() {
                let taken = AtomicU64::new(next);
                drop(Guard { word: &taken, mode });
                let left = taken.load(Ordering::Relaxed);
                assert_eq!(left & !HOST_PRIORITY, word & !HOST_PRIORITY, "{word:#x} {mode:?} {side:?}");
            }
        }
    }
}
