//! Table pages for the MMU: direct tables in host memory, Secure-EPT pages for the module.

use alloc::sync::Arc;

use mirror_ept::table::{ExternalPage, NoMemory, Returned, Table, TablePages};
use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::{Level, Pfn};

use crate::platform::Platform;
use crate::td::config::MAX_L2_VMS;
use crate::td::core::TdCore;

/// A page for one Secure-EPT table. Not `Clone`: it is with its owner or with the module, never both.
///
/// In a TD with L2 VMs a page for the table of each VM at the same place goes with it, from the reservation on: so adding
/// one, or splitting a page that VMs have aliases of, needs no memory.
#[derive(Debug)]
pub struct SeptPage {
    pfn: Pfn,
    /// The module gave it back, but the caches could not be cleaned of it.
    unclean: bool,
    l2: [L2Page; L2_VMS],
}

/// L2 VMs at most.
pub(super) const L2_VMS: usize = MAX_L2_VMS as usize;

/// The page for the table of one L2 VM at the place of a table of the TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum L2Page {
    /// The TD has no such VM.
    NoVm,
    /// Not used yet.
    Spare(Pfn),
    /// A table of the VM's Secure EPT.
    Linked(Pfn),
    /// A page that was a table of the VM, and was cleaned.
    Removed(Pfn),
    /// The module gave it back, but the caches could not be cleaned of it.
    Unclean(Pfn),
}

impl SeptPage {
    /// The pages for the tables of L2 VMs, by VM from 1 on.
    pub(super) fn l2(&mut self) -> &mut [L2Page; L2_VMS] {
        &mut self.l2
    }

    /// The pages that are tables of L2 VMs.
    pub(crate) fn of_l2_vms(&self) -> impl Iterator<Item = Pfn> {
        self.l2.into_iter().filter_map(|page| match page {
            L2Page::Linked(pfn) => Some(pfn),
            _ => None,
        })
    }

    /// The pages for tables of L2 VMs that are not in use.
    pub(crate) fn spares(&self) -> impl Iterator<Item = Pfn> {
        self.l2.into_iter().filter_map(|page| match page {
            L2Page::Spare(pfn) => Some(pfn),
            _ => None,
        })
    }

    /// Writes the page and those of L2 VMs.
    pub(super) fn save(&self, out: &mut Numbers) {
        let Self { pfn, unclean, l2 } = self;
        out.put(pfn.get());
        out.put(*unclean);
        for page in l2 {
            let (what, page) = match *page {
                L2Page::NoVm => (0u8, None),
                L2Page::Spare(page) => (1, Some(page)),
                L2Page::Linked(page) => (2, Some(page)),
                L2Page::Removed(page) => (3, Some(page)),
                L2Page::Unclean(page) => (4, Some(page)),
            };
            out.put(what);
            out.put(page.map_or(0, Pfn::get));
        }
    }

    /// Reads what [`Self::save`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let (pfn, unclean) = (Pfn::new(reader.number()?), reader.flag()?);
        let mut l2 = [L2Page::NoVm; L2_VMS];
        for place in &mut l2 {
            let (what, page) = (reader.number()?, Pfn::new(reader.number()?));
            *place = match what {
                0 => L2Page::NoVm,
                1 => L2Page::Spare(page),
                2 => L2Page::Linked(page),
                3 => L2Page::Removed(page),
                4 => L2Page::Unclean(page),
                _ => return Err(BadNumbers),
            };
        }
        Ok(Self { pfn, unclean, l2 })
    }

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
        let host = self.core.host;
        let pfn = host.give_page().map_err(|_| NoMemory)?;
        let mut page = SeptPage { pfn, unclean: false, l2: [L2Page::NoVm; L2_VMS] };
        for l2 in page.l2.iter_mut().take(self.core.l2_vms.into()) {
            match host.give_page() {
                Ok(spare) => *l2 = L2Page::Spare(spare),
                Err(_) => {
                    self.return_external(page, Returned::Unused);
                    return Err(NoMemory);
                }
            }
        }
        Ok(page)
    }

    fn return_external(&self, page: SeptPage, state: Returned) {
        let host = self.core.host;
        for l2 in page.l2 {
            match (l2, state) {
                (L2Page::NoVm, _) => {}
                // A split that failed may have written to any page that it was offered (invariant 57).
                (L2Page::Spare(pfn), Returned::Scribbled) | (L2Page::Removed(pfn), _) => host.take_back(pfn),
                (L2Page::Spare(pfn), _) => host.platform.free_page(pfn, Level::L4K),
                // The table of a VM goes with the TD's own, or not at all.
                (L2Page::Linked(pfn) | L2Page::Unclean(pfn), _) => host.quarantine(pfn, Level::L4K),
            }
        }
        match state {
            _ if page.unclean => host.quarantine(page.pfn, Level::L4K),
            Returned::Unused => host.platform.free_page(page.pfn, Level::L4K),
            // Written under the TD's key by now, whether the module kept it or not (invariant 57).
            Returned::Scribbled | Returned::Removed => host.take_back(page.pfn),
        }
    }
}
