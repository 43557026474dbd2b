//! Table pages for the MMU: direct tables in host memory, Secure-EPT pages for the module.

use alloc::sync::Arc;

use mirror_ept::table::{ExternalPage, NoMemory, Returned, Table, TablePages};
use tdvisor_base::{Level, Pfn};

use crate::platform::Platform;
use crate::td::core::TdCore;

/// A page for one Secure-EPT table. Not `Clone`: it is with its owner or with the module, never both.
#[derive(Debug)]
pub struct SeptPage {
    pfn: Pfn,
    /// The module gave it back, but the caches could not be cleaned of it.
    unclean: bool,
}

impl SeptPage {
    /// Withdraws the page: it is quarantined when it comes back.
    pub(super) fn mark_unclean(&mut self) {
        self.unclean = true;
    }
}

impl ExternalPage for SeptPage {
    fn pfn(&self) -> Pfn {
        self.pfn
    }
}

/// The supplier of one TD's table pages.
pub(crate) struct Tables<'h, P: Platform> {
    pub(crate) core: Arc<TdCore<'h, P>>,
}

impl<P: Platform> TablePages for Tables<'_, P> {
    type ExternalPage = SeptPage;

    fn alloc_direct(&self) -> Result<Pfn, NoMemory> {
        self.core.host.platform.allocate_page(Level::L4K).ok_or(NoMemory)
    }

    fn free_direct(&self, page: Pfn) {
        self.core.host.platform.free_page(page, Level::L4K);
    }

    fn direct_table(&self, page: Pfn) -> Option<&Table> {
        self.core.host.platform.table(page).ok()
    }

    fn reserve_external(&self) -> Result<SeptPage, NoMemory> {
        self.core.host.give_page().map(|pfn| SeptPage { pfn, unclean: false }).map_err(|_| NoMemory)
    }

    fn return_external(&self, page: SeptPage, state: Returned) {
        match state {
            _ if page.unclean => self.core.host.quarantine(page.pfn, Level::L4K),
            Returned::Unused => self.core.host.platform.free_page(page.pfn, Level::L4K),
            // Written under the TD's key by now, whether the module kept it or not (invariant 57).
            Returned::Scribbled | Returned::Removed => self.core.host.take_back(page.pfn),
        }
    }
}
