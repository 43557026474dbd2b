//! The audit of a TD's private memory: mirror = S-EPT = PAMT.
//!
//! The mirror is compared with what the module says: TDH.MEM.SEPT.RD for each entry, TDH.PHYMEM.PAGE.RDMD for
//! each page that an entry refers to (type, owner and size). Everything is read through the module's own
//! interface, so the audit may be called on any machine, at any time. Of the trees of L2 VMs the host sees the table pages
//! that it gave (invariant 63); their entries are the module's and the guest's.

use mirror_ept::audit::Role;
use mirror_ept::{AuditReport, ExternalEntry, ExternalView, Position, Standing};
use tdvisor_base::{Level, Pfn};
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::sept::SeptState;
use tdx_module_iface::tdh;
use tdx_module_iface::tdmr::PageType;

use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};
use crate::td::core::TdCore;

/// HPA bits of a leaf as TDH.MEM.SEPT.RD shows it.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

struct ModuleView<'c, 'h, P: Platform> {
    core: &'c TdCore<'h, P>,
    lp: &'c mut P::Lp<'h>,
}

impl<P: Platform> ExternalView for ModuleView<'_, '_, P> {
    fn entry(&mut self, at: Position) -> ExternalEntry {
        let entry = GpaLevel::of_gfn(at.gfn(), at.level());
        let read = bounded(Bound::MANAGEMENT, || tdh::tdh_mem_sept_rd(self.lp, self.core.tdr, entry));
        // An entry that cannot be read is not what the mirror says, whatever that is.
        let Ok(info) = read else { return ExternalEntry::Blocked };
        match info.state() {
            Some(SeptState::Free | SeptState::Removed) => ExternalEntry::Free,
            Some(SeptState::NlMapped) => ExternalEntry::HiddenTable,
            Some(state) => {
                let page = Pfn::new((info.entry & ADDRESS) >> 12);
                match standing_of(state) {
                    Some(Standing::Plain) => ExternalEntry::Leaf(page),
                    Some(standing) => ExternalEntry::Moving(page, standing),
                    None => ExternalEntry::Blocked,
                }
            }
            None => ExternalEntry::Blocked,
        }
    }

    fn holds(&mut self, page: Pfn, at: Position, role: Role) -> bool {
        let (kind, size) = match role {
            Role::Leaf => (PageType::REG, at.level()),
            Role::Table => (PageType::EPT, Level::L4K),
        };
        let metadata = bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_page_rdmd(self.lp, page.base()));
        metadata.is_ok_and(|(page, _)| {
            page.page_type == kind && page.owner == self.core.tdr.hpa() && page.size == Some(size)
        })
    }
}

/// Where a leaf in this state stands in a transfer; `None` for what is no leaf that the guest may use.
const fn standing_of(state: SeptState) -> Option<Standing> {
    Some(match state {
        SeptState::Mapped | SeptState::Pending => Standing::Plain,
        SeptState::BlockedW | SeptState::PendingBlockedW => Standing::Held,
        SeptState::ExportedBlockedW | SeptState::PendingExportedBlockedW => Standing::Sent,
        SeptState::ExportedDirty | SeptState::PendingExportedDirty => Standing::Dirty,
        SeptState::ExportedDirtyBlockedW | SeptState::PendingExportedDirtyBlockedW => Standing::DirtyHeld,
        _ => return None,
    })
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Compares mirror, Secure EPT and PAMT entry by entry.
    ///
    /// # Errors
    /// The first difference, named by its invariant's number.
    pub fn audit(&self, seat: &mut Seat<'_, 'h, P>) -> Result<AuditReport, Error> {
        self.audit_l2_tables(seat)?;
        let view = ModuleView { core: &self.core, lp: &mut seat.ctx.lp };
        let mut guard = seat.participant.exclusive();
        Ok(self.mmu.audit(&mut guard, view)?)
    }
}
