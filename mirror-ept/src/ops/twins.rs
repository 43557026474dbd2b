//! The twins of linked tables, for an external side that keeps more at them than one page.

use crate::external::External;
use crate::lock::Exclusive;
use crate::mmu::Mmu;
use crate::range::Position;
use crate::table::TablePages;
use crate::table::find::Finder;

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Lends the twin of the private table that the entry at a position points to; `None` where there is no table, and for
    /// the guard of another MMU. The page that the twin stands for is not to be changed.
    pub fn with_twin<R>(
        &self,
        guard: &mut Exclusive<'_>,
        at: Position,
        work: impl FnOnce(&mut P::ExternalPage) -> R,
    ) -> Option<R> {
        if !guard.is_of(&self.core) {
            return None;
        }
        let (_, value) = Finder::new(self).entry(at).filter(|(_, value)| value.is_table(at.level()))?;
        self.slab.twin(value.table_ref())?.lock().as_mut().map(work)
    }
}
