//! Replacing the direct tree at once.
//!
//! # Protocol
//! When many shared mappings become void together (a memory slot is deleted or moved), they are not removed
//! one by one under the lock. Under [`Exclusive`] an empty root takes the place of the old one, which becomes
//! an [`InvalidRoot`]: unreachable for faults and aging, owned by one caller. That caller has every vCPU
//! load the new root's pointer, and takes the old tree apart at leisure with [`Mmu::zap_invalid_root`]: leaves
//! first, then one flush, then the tables, which wait for their grace period (an ager may still be in them).
//!
//! Pages mapped by the old root count as mapped until that is done (28): a vCPU that has not loaded the new
//! pointer still uses them. The mirror has no such operation: what it maps must be removed entry by entry.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gfn, Level, Pfn};

use crate::cache::TableCache;
use crate::error::MmuError;
use crate::external::External;
use crate::lock::{Exclusive, Shared, Tree};
use crate::mmu::Mmu;
use crate::range::GfnRange;
use crate::slab;
use crate::spte::Spte;
use crate::table::{TablePages, TableRef};

/// A direct root that was replaced. Its pages are still mapped for vCPUs that have not noticed.
#[derive(Debug)]
#[must_use = "the pages mapped by the old root stay in use until it is zapped"]
pub struct InvalidRoot(TableRef);

impl InvalidRoot {
    /// The page of the old root.
    pub const fn pfn(&self) -> Pfn {
        self.0.pfn()
    }
}

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Puts an empty direct root in place of the present one. Have every vCPU load [`Mmu::direct_root`] next.
    ///
    /// # Errors
    /// [`MmuError::NeedTables`] where the cache holds no direct table, [`MmuError::NoMemory`],
    /// [`MmuError::ForeignGuard`]; the root is then as it was.
    pub fn invalidate_direct_root(
        &self,
        guard: &mut Exclusive<'_>,
        cache: &mut TableCache<P::ExternalPage>,
    ) -> Result<InvalidRoot, MmuError<X::Error>> {
        if !guard.is_of(&self.core) {
            return Err(MmuError::ForeignGuard);
        }
        let page = cache.direct.pop().ok_or(MmuError::NoMemory)?;
        let Some(table) = self.direct_table(TableRef::from_pfn(page)) else {
            return Err(MmuError::NoMemory);
        };
        slab::fill(table, Spte::ABSENT);
        let old = self.direct_root.swap(page.get(), Ordering::AcqRel);
        self.device_tables.store(0, Ordering::Relaxed);
        Ok(InvalidRoot(TableRef::new(old)))
    }

    /// Takes a replaced tree apart, beside faults in the new one.
    ///
    /// # Errors
    /// [`MmuError::ForeignGuard`], with the root given back.
    pub fn zap_invalid_root(
        &self,
        guard: &Shared<'_>,
        root: InvalidRoot,
    ) -> Result<(), (InvalidRoot, MmuError<X::Error>)> {
        if !guard.is_of(&self.core) {
            return Err((root, MmuError::ForeignGuard));
        }
        self.clear_leaves(guard, root.0, self.config.root_level);
        self.external.flush_direct(GfnRange::new(Gfn::new(0), self.config.end));
        self.retire_tree(guard, root.0, self.config.root_level);
        self.retire_direct(root.0);
        Ok(())
    }

    /// Makes every leaf of a tree that is ours absent.
    fn clear_leaves(&self, guard: &Shared<'_>, table: TableRef, level: Level) {
        let Some(entries) = self.direct_table(table) else { return };
        for entry in entries {
            let value = Spte(entry.load(Ordering::Acquire));
            if value.is_leaf(level) {
                entry.swap(Spte::ABSENT.0, Ordering::AcqRel);
                guard.counters().sub_leaves(Tree::Direct, level, 1);
            } else if value.is_table(level)
                && let Some(below) = level.down()
            {
                self.clear_leaves(guard, value.table_ref(), below);
            }
        }
    }

    /// Retires every table below one.
    fn retire_tree(&self, guard: &Shared<'_>, table: TableRef, level: Level) {
        let (Some(entries), Some(below)) = (self.direct_table(table), level.down()) else { return };
        for entry in entries {
            let value = Spte(entry.load(Ordering::Acquire));
            if value.is_table(level) {
                self.retire_tree(guard, value.table_ref(), below);
                guard.counters().sub_table(Tree::Direct);
                self.retire_direct(value.table_ref());
            }
        }
    }
}
