//! The order of removal and split as types: block each entry, track all of them once, then finish each.
//!
//! # Protocol
//! ```text
//! Section::block(at)  -> Blocked            entry by entry, collected in a Batch<Blocked>
//! Section::track(Batch<Blocked>) -> Batch<Tracked>     one TRACK and one kick for all of them
//! Section::{remove, split, promote, free, unblock}(Tracked)
//! ```
//! A [`Tracked`] can only come out of [`Section::track`], so what needs a tracked entry cannot be called
//! with one that is merely blocked (11, 53); and since each token is used up, an entry is finished once.
//! A step that fails gives its token back: the entry is still what the token says.
//!
//! Removing an entry that is only blocked does not compile:
//! ```compile_fail
//! use mirror_ept::external::{External, phase::{Blocked, Section}};
//! use tdvisor_base::Pfn;
//! fn wrong<X: External>(section: &mut Section<'_, '_, X>, entry: Blocked) {
//!     let _ = section.remove(entry, Pfn::new(1));
//! }
//! ```
//! Nor does finishing one twice:
//! ```compile_fail
//! use mirror_ept::external::{External, phase::{Section, Tracked}};
//! use tdvisor_base::Pfn;
//! fn wrong<X: External>(section: &mut Section<'_, '_, X>, entry: Tracked) {
//!     let _ = section.remove(entry, Pfn::new(1));
//!     let _ = section.unblock(entry);
//! }
//! ```
//! The right order does:
//! ```
//! use mirror_ept::external::{External, phase::{Section, Tracked}};
//! use tdvisor_base::Pfn;
//! fn right<X: External>(section: &mut Section<'_, '_, X>, entry: Tracked) {
//!     if let Err((entry, _why)) = section.remove(entry, Pfn::new(1)) {
//!         let _ = section.unblock(entry);
//!     }
//! }
//! ```

use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::Pfn;

use super::{Blocking, External, HookError};
use crate::lock::Exclusive;
use crate::range::Position;
use crate::table::NoMemory;

/// An entry that is blocked: no new translation goes through it, old ones may still be in use.
#[derive(Debug)]
#[must_use = "a blocked entry stays blocked until it is tracked and finished"]
pub struct Blocked(Position);

impl Blocked {
    /// Which entry.
    pub const fn at(&self) -> Position {
        self.0
    }
}

/// An entry that is blocked and that no vCPU can still be using.
#[derive(Debug)]
#[must_use = "a tracked entry stays blocked until it is removed, split or unblocked"]
pub struct Tracked(Position);

impl Tracked {
    /// Which entry.
    pub const fn at(&self) -> Position {
        self.0
    }
}

/// Entries in one phase, in the order in which they were blocked.
#[must_use = "the entries in a batch stay blocked until each is finished"]
pub struct Batch<T> {
    entries: Vec<Position>,
    next: usize,
    phase: core::marker::PhantomData<T>,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.positions()).finish()
    }
}

impl<T> Batch<T> {
    /// How many entries are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len() - self.next
    }

    /// The entries in it.
    pub fn positions(&self) -> &[Position] {
        self.entries.get(self.next..).unwrap_or_default()
    }

    /// How many were taken out.
    pub(crate) const fn taken(&self) -> usize {
        self.next
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Batch<Blocked> {
    /// An empty batch with room for `entries`.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn with_room_for(entries: usize) -> Result<Self, NoMemory> {
        let mut list = Vec::new();
        list.try_reserve_exact(entries).map_err(|_| NoMemory)?;
        Ok(Self { entries: list, next: 0, phase: core::marker::PhantomData })
    }

    /// Adds an entry.
    #[inline]
    pub fn push(&mut self, entry: Blocked) {
        self.entries.push(entry.0);
    }
}

impl Batch<Tracked> {
    /// Takes the entry that was blocked first of those that are left.
    #[inline]
    pub fn take(&mut self) -> Option<Tracked> {
        let at = *self.entries.get(self.next)?;
        self.next += 1;
        Some(Tracked(at))
    }
}

/// What a failed step gives back: its token, and why.
pub type Back<T, X> = (T, HookError<<X as External>::Error>);

/// An exclusive section in which entries are blocked, tracked and finished.
pub struct Section<'s, 'g, X: External> {
    external: &'s X,
    guard: &'s mut Exclusive<'g>,
}

impl<X: External> fmt::Debug for Section<'_, '_, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Section")
    }
}

impl<'s, 'g, X: External> Section<'s, 'g, X> {
    /// Opens a section; the guard is what makes it one.
    pub fn new(external: &'s X, guard: &'s mut Exclusive<'g>) -> Self {
        Self { external, guard }
    }

    pub(crate) fn guard(&self) -> &Exclusive<'g> {
        self.guard
    }

    /// Blocks one entry.
    ///
    /// # Errors
    /// The hook's; the entry is then not blocked.
    #[inline]
    pub fn block(&mut self, at: Position, what: Blocking) -> Result<Blocked, HookError<X::Error>> {
        self.external.block(self.guard, at, what)?;
        Ok(Blocked(at))
    }

    /// Tracks a whole batch with one call.
    ///
    /// # Errors
    /// The batch and why; its entries are then still only blocked.
    pub fn track(&mut self, batch: Batch<Blocked>) -> Result<Batch<Tracked>, Back<Batch<Blocked>, X>> {
        match self.external.track(self.guard, &batch.entries) {
            Ok(()) => Ok(Batch { entries: batch.entries, next: 0, phase: core::marker::PhantomData }),
            Err(why) => Err((batch, why)),
        }
    }

    /// Removes a leaf.
    ///
    /// # Errors
    /// The token and why; the leaf is then still mapped and blocked.
    #[inline]
    pub fn remove(&mut self, entry: Tracked, pfn: Pfn) -> Result<(), Back<Tracked, X>> {
        self.external.remove_external_spte(self.guard, &entry, pfn).map_err(|why| (entry, why))
    }

    /// Splits a leaf into a table in `page`.
    ///
    /// # Errors
    /// The token and why; the leaf is then still mapped and blocked.
    #[inline]
    pub fn split(&mut self, entry: Tracked, pfn: Pfn, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external.split_external_spt(self.guard, &entry, pfn, page).map_err(|why| (entry, why))
    }

    /// Merges a table into a leaf.
    ///
    /// # Errors
    /// The token and why; the table is then still linked and blocked.
    pub fn promote(&mut self, entry: Tracked, pfn: Pfn, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external.promote_external_spt(self.guard, &entry, pfn, page).map_err(|why| (entry, why))
    }

    /// Unlinks an empty table.
    ///
    /// # Errors
    /// The token and why; the table is then still linked and blocked.
    pub fn free(&mut self, entry: Tracked, page: &mut X::Page) -> Result<(), Back<Tracked, X>> {
        self.external.free_external_spt(self.guard, &entry, page).map_err(|why| (entry, why))
    }

    /// Makes an entry usable again.
    ///
    /// # Errors
    /// The token and why; the entry is then still blocked.
    pub fn unblock(&mut self, entry: Tracked) -> Result<(), Back<Tracked, X>> {
        self.external.unblock(self.guard, &entry).map_err(|why| (entry, why))
    }
}
