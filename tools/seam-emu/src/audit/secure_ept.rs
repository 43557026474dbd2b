//! A TD's Secure EPT beside the PAMT, read past the module: also of a TD that the module calls dead.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::lifecycle::LifecycleState;
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::tdmr::{PageType, pages as sizes};

use crate::machine::Machine;
use crate::td::Tdr;

/// What the PAMT says of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PamtView {
    /// The page.
    pub page: Hpa,
    /// What the page is.
    pub page_type: PageType,
    /// The TDR of the page's owner.
    pub owner: Hpa,
    /// The page's size.
    pub level: Level,
    /// When the page was blocked, in the TD's epochs.
    pub bepoch: u64,
}

/// An entry of a Secure EPT that is not free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecureEptView {
    /// Where the entry's range begins.
    pub gpa: Gpa,
    /// The level of the entry.
    pub level: Level,
    /// The 64 bits of the entry.
    pub raw: u64,
    /// The state of the entry; `None` where there is no such state.
    pub state: Option<SeptState>,
    /// The page that it points to, if it points to one.
    pub page: Option<Hpa>,
    /// The PAMT's entry of the page that the S-EPT entry points to, if it has one.
    pub pamt: Option<PamtView>,
}

impl Machine {
    /// The entries of a TD's Secure EPT, tables before what is in them; empty where there is no such TD, or it has none yet
    /// or no more. Call it while no processor is inside a SEAMCALL.
    ///
    /// It shows where memory is, and nothing of what is in it.
    pub fn secure_ept(&self, tdr: Hpa) -> Vec<SecureEptView> {
        let mut all = Vec::new();
        if self.module.has_shut_down() || !self.is_tdr(tdr) {
            return all;
        }
        let Some(tdr) = Tdr::at(self.memory(), tdr) else { return all };
        let lives = matches!(tdr.lifecycle(), LifecycleState::KEYS_CONFIGURED | LifecycleState::BLOCKED);
        if !lives || tdr.num_tdcx() < sizes::TDCX_MIN {
            return all;
        }
        let tdcs = tdr.tdcs();
        if tdcs.op_state() != OpState::Uninitialized {
            self.list_secure_ept(tdcs.sept_root(), tdcs.root_level(), Gpa::new(0), &mut all);
        }
        all
    }

    fn is_tdr(&self, page: Hpa) -> bool {
        self.pamt_view(page, Level::L4K).is_some_and(|view| view.page_type == PageType::TDR)
    }

    fn list_secure_ept(&self, table: Hpa, level: Level, base: Gpa, all: &mut Vec<SecureEptView>) {
        let Ok(words) = self.memory().table(table.frame()) else { return };
        for (index, word) in (0u64..).zip(words) {
            let raw = word.load(Ordering::Acquire);
            let entry = SeptEntry(raw & !SeptEntry::HOST_PRIORITY);
            if entry == SeptEntry::FREE {
                continue;
            }
            let gpa = base.wrapping_add(index * level.bytes());
            let state = entry.state();
            let is_table = matches!(state, Some(SeptState::NlMapped | SeptState::NlBlocked));
            let is_leaf = state.is_some_and(|state| state.is_leaf());
            let page = match (is_table, is_leaf) {
                (true, _) => Some(entry.hpa()),
                (_, true) => Some(entry.hpa().align_down(level.bytes())),
                _ => None,
            };
            let size = if is_table { Level::L4K } else { level };
            let pamt = page.and_then(|page| self.pamt_view(page, size));
            all.push(SecureEptView { gpa, level, raw, state, page, pamt });
            if let (true, Some(below)) = (is_table, level.down()) {
                self.list_secure_ept(entry.hpa(), below, gpa, all);
            }
        }
    }

    /// The entry that describes a page: the largest in use, or the one of the size that is expected.
    pub(super) fn pamt_view(&self, page: Hpa, expected: Level) -> Option<PamtView> {
        let tdmr = self.module.tdmrs.of_page(page)?;
        let at = |level: Level| {
            let page = page.align_down(level.bytes());
            let entry = tdmr.entry(self.memory(), level, page)?;
            let (page_type, owner, bepoch) = (entry.page_type(), entry.owner(), entry.bepoch());
            Some(PamtView { page, page_type, owner, level, bepoch })
        };
        let in_use = |view: &PamtView| !matches!(view.page_type, PageType::NDA | PageType::RSVD);
        [Level::L1G, Level::L2M, Level::L4K].into_iter().filter_map(at).find(in_use).or_else(|| at(expected))
    }
}
