//! Private leaves on their way to another machine.
//!
//! # Protocol
//! While a guest runs on, its pages are sent one list after the other. Each 4 KiB leaf of the mirror says where its
//! page stands, and the external entry stands there too (58):
//!
//! | standing | writes | the receiver has |
//! |---|---|---|
//! | [`Standing::Plain`] | allowed | nothing |
//! | [`Standing::Held`] | not allowed | nothing |
//! | [`Standing::Sent`] | not allowed | what the page holds |
//! | [`Standing::Dirty`] | allowed | what the page held |
//! | [`Standing::DirtyHeld`] | not allowed | what the page held |
//!
//! - *Hold, send, give back* ([`Mmu::change_standings`]): under [`Exclusive`] the next leaves of a range whose standing
//!   is wanted are collected; the hook, which the caller gives, does with the external entries what it has to and says
//!   where each stands then; the mirror follows. So nothing is collected that a fault changes meanwhile.
//! - *A write* to a page that does not allow it faults: freeze → [`External::release_writes`] → publish with
//!   [`Standing::written`], under [`crate::Shared`] as every fault.
//!
//! The *dirty set* is in the leaves: what is to be sent is exactly what is not [`Standing::Sent`]. Nothing else
//! remembers it, so it cannot be lost.
//!
//! A leaf that is not plain is neither removed nor merged: whoever transfers gives it back first. A huge leaf has no
//! standing; it is split before.

use alloc::vec::Vec;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::error::MmuError;
use crate::external::External;
use crate::lock::Exclusive;
use crate::mmu::Mmu;
use crate::range::GfnRange;
use crate::table::TablePages;

/// Where a private page stands in a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// The page takes no part.
    Plain,
    /// Writes are blocked, for it to be sent for the first time.
    Held,
    /// The page was sent, and has not changed since.
    Sent,
    /// The page was sent, and may have changed since.
    Dirty,
    /// The page was sent and may have changed; writes are blocked, for it to be sent again.
    DirtyHeld,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Held, Self::Sent, Self::Dirty, Self::DirtyHeld];

    /// Whether the page may be written.
    pub const fn may_change(self) -> bool {
        matches!(self, Self::Plain | Self::Dirty)
    }

    /// Whether the receiver has the page, as it is or as it was.
    pub const fn was_sent(self) -> bool {
        matches!(self, Self::Sent | Self::Dirty | Self::DirtyHeld)
    }

    /// Whether the page has to be sent for the receiver to have what it holds.
    pub const fn is_due(self) -> bool {
        !matches!(self, Self::Sent)
    }

    /// Where the page stands once writes are blocked.
    #[must_use]
    pub const fn held(self) -> Self {
        match self {
            Self::Plain | Self::Held => Self::Held,
            Self::Sent => Self::Sent,
            Self::Dirty | Self::DirtyHeld => Self::DirtyHeld,
        }
    }

    /// Where the page stands once writes are allowed.
    #[must_use]
    pub const fn written(self) -> Self {
        match self {
            Self::Plain | Self::Held => Self::Plain,
            Self::Sent | Self::Dirty | Self::DirtyHeld => Self::Dirty,
        }
    }
}

/// A leaf in the hands of a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovingLeaf {
    /// The guest's frame.
    pub gfn: Gfn,
    /// The page that the leaf maps.
    pub pfn: Pfn,
    /// Where the page stands; a hook changes this for each leaf whose external entry it changed.
    pub standing: Standing,
}

/// How many leaves stand where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StandingCounts {
    /// Pages that take no part.
    pub plain: u64,
    /// Pages that were sent and have not changed.
    pub sent: u64,
    /// Pages that were sent and have to be sent again.
    pub dirty: u64,
    /// Pages that are held for their first sending.
    pub held: u64,
}

impl StandingCounts {
    /// Pages that have to be sent.
    pub const fn due(&self) -> u64 {
        self.plain + self.dirty + self.held
    }

    /// Pages that do not stand plain.
    pub const fn moving(&self) -> u64 {
        self.sent + self.dirty + self.held
    }
}

/// What one list came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Advance<T> {
    /// What the hook said; `None` where no leaf of the range was wanted.
    pub said: Option<T>,
    /// Where the rest of the range begins; its end when nothing is left.
    pub next: Gfn,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Hands the next wanted leaves of a range, `limit` at most and in ascending order, to a hook, and has the mirror
    /// follow what it did.
    ///
    /// # Errors
    /// As [`MmuError`]; [`MmuError::NotApplicable`] for a huge leaf. The hook was not called then.
    pub fn change_standings<T>(
        &self,
        guard: &mut Exclusive<'_>,
        range: GfnRange,
        limit: usize,
        wanted: impl Fn(Standing) -> bool,
        hook: impl FnOnce(&mut [MovingLeaf]) -> T,
    ) -> Result<Advance<T>, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        self.check_range(range)?;
        let (mut leaves, mut entries) = (Vec::new(), Vec::new());
        leaves.try_reserve_exact(limit).map_err(|_| MmuError::NoMemory)?;
        entries.try_reserve_exact(limit).map_err(|_| MmuError::NoMemory)?;
        let mut next = range.end();
        for found in self.mirror_walk(range) {
            let found = found.map_err(MmuError::Corrupt)?;
            if found.at.level() != Level::L4K {
                return Err(MmuError::NotApplicable(found.at));
            }
            let standing = found.value.standing();
            if !wanted(standing) {
                continue;
            }
            if leaves.len() == limit {
                next = found.at.gfn();
                break;
            }
            leaves.push(MovingLeaf { gfn: found.at.gfn(), pfn: found.value.pfn(), standing });
            entries.push(found);
        }
        if leaves.is_empty() {
            return Ok(Advance { said: None, next });
        }
        let said = hook(&mut leaves);
        for (found, leaf) in entries.iter().zip(&leaves) {
            found.entry.store(found.value.with_standing(leaf.standing).0, Ordering::Release);
        }
        Ok(Advance { said: Some(said), next })
    }

    /// How the leaves of the whole mirror stand. A huge leaf is plain, and counts as one.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], [`MmuError::Corrupt`].
    pub fn standings(&self, guard: &mut Exclusive<'_>) -> Result<StandingCounts, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        let mut counts = StandingCounts::default();
        for found in self.mirror_walk(GfnRange::new(Gfn::new(0), self.config.end)) {
            let place = match found.map_err(MmuError::Corrupt)?.value.standing() {
                Standing::Plain => &mut counts.plain,
                Standing::Held => &mut counts.held,
                Standing::Sent => &mut counts.sent,
                Standing::Dirty | Standing::DirtyHeld => &mut counts.dirty,
            };
            *place += 1;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_makes_due_what_was_sent_and_holding_makes_nothing_sent() {
        for standing in Standing::ALL {
            assert!(standing.written().may_change() && standing.written().is_due());
            assert!(!standing.held().may_change());
            assert_eq!(standing.written().was_sent(), standing.was_sent(), "{standing:?}");
            assert_eq!(standing.held().is_due(), standing.is_due(), "{standing:?}");
        }
    }
}
