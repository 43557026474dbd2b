//! Private leaves that arrive from another machine.
//!
//! # Protocol
//! A list of pages arrives at once, and the external side takes it as a whole or in part. Tables are linked before,
//! under [`crate::Shared`] ([`Mmu::link_down`]). Then, under [`Exclusive`]:
//! 1. Every entry of the list is frozen: an entry that is named twice, is not what the list takes it for, or has no
//!    table above it refuses the list, and every entry has its old value again.
//! 2. The hook, which the caller gives, has the external side take the pages, and says for each whether it did.
//! 3. What was taken is published; the other entries get their old values back (7).
//!
//! So a page is mapped in the mirror exactly if the external side took it, whatever the sender put into the list (1, 2).

use alloc::vec::Vec;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::error::MmuError;
use crate::external::External;
use crate::find::Finder;
use crate::lock::{Exclusive, Tree};
use crate::mmu::Mmu;
use crate::range::Position;
use crate::spte::Spte;
use crate::table::TablePages;

/// A page of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArrivingLeaf {
    /// The guest's frame.
    pub gfn: Gfn,
    /// The page that it is to get, if it has none; `None` for one that arrives again.
    pub new: Option<Pfn>,
    /// Whether the external side took it: for the hook to say.
    pub taken: bool,
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Has a hook map, or map again, a list of 4 KiB leaves.
    ///
    /// # Errors
    /// As [`MmuError`]; [`MmuError::NotApplicable`] names the entry that refuses the list. The hook was not called then.
    pub fn arrive<T>(
        &self,
        guard: &mut Exclusive<'_>,
        list: &mut [ArrivingLeaf],
        hook: impl FnOnce(&mut [ArrivingLeaf]) -> T,
    ) -> Result<T, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        self.check_alive()?;
        let mut frozen = Vec::new();
        frozen.try_reserve_exact(list.len()).map_err(|_| MmuError::NoMemory)?;
        let mut finder = Finder::new(self);
        let mut refused = None;
        for leaf in list.iter() {
            if let Err(error) = self.check_gfn(leaf.gfn) {
                refused = Some(error);
                break;
            }
            let at = Position::of(leaf.gfn, Level::L4K);
            let fits = |value: Spte| match leaf.new {
                Some(_) => value == Spte::ABSENT,
                None => value.is_leaf(Level::L4K),
            };
            match finder.entry(at) {
                Some((entry, value)) if fits(value) => {
                    entry.store(Spte::FROZEN.0, Ordering::Relaxed);
                    frozen.push((entry, value));
                }
                _ => {
                    refused = Some(MmuError::NotApplicable(at));
                    break;
                }
            }
        }
        if let Some(error) = refused {
            for (entry, old) in frozen {
                entry.store(old.0, Ordering::Release);
            }
            return Err(error);
        }
        list.iter_mut().for_each(|leaf| leaf.taken = false);
        let said = hook(list);
        for ((entry, old), leaf) in frozen.into_iter().zip(list.iter()) {
            match leaf.new {
                Some(pfn) if leaf.taken => {
                    entry.store(Spte::mirror_leaf(pfn, Level::L4K).0, Ordering::Release);
                    guard.counters().add_leaf(Tree::Mirror, Level::L4K);
                }
                _ => entry.store(old.0, Ordering::Release),
            }
        }
        Ok(said)
    }
}
