//! The pages in use, as the PAMT has them.

use std::collections::BTreeMap;

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::tdmr::PageType;

use super::{AuditFinding, Findings};
use crate::machine::Machine;
use crate::module::pamt::PamtEntry;
use crate::module::tdmr::Tdmr;

/// A page in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page {
    pub(super) page_type: PageType,
    pub(super) level: Level,
    pub(super) owner: Hpa,
}

/// All pages in use, by address.
#[derive(Default)]
pub(super) struct Pages(BTreeMap<Hpa, Page>);

impl Pages {
    pub(super) fn collect(machine: &Machine, findings: &mut Findings) -> Self {
        let mut pages = Self::default();
        for tdmr in machine.module.tdmrs.all() {
            for block in (tdmr.info.base..tdmr.end()).step_by(1 << 30) {
                if !tdmr.block_is_initialised(block) {
                    break;
                }
                pages.block(machine, tdmr, Hpa::new(block), findings);
            }
        }
        pages
    }

    fn block(&mut self, machine: &Machine, tdmr: &Tdmr, block: Hpa, findings: &mut Findings) {
        let memory = machine.memory();
        let large = tdmr.entry(memory, Level::L1G, block);
        let large = large.is_some_and(|entry| self.note(entry, Level::L1G, block, None, findings));
        for range in (block.get()..block.get() + (1 << 30)).step_by(1 << 21).map(Hpa::new) {
            let medium = tdmr.entry(memory, Level::L2M, range);
            let outer = large.then_some(block);
            let medium = medium.is_some_and(|entry| self.note(entry, Level::L2M, range, outer, findings));
            let outer = outer.or(medium.then_some(range));
            for (page, entry) in tdmr.small_entries(memory, range) {
                let _ = self.note(entry, Level::L4K, page, outer, findings);
            }
        }
    }

    /// Notes an entry; whether its page is in use.
    fn note(
        &mut self,
        entry: PamtEntry<'_>,
        level: Level,
        page: Hpa,
        outer: Option<Hpa>,
        findings: &mut Findings,
    ) -> bool {
        if entry.is_locked() {
            findings.push(AuditFinding::LockHeld(page));
        }
        let page_type = entry.page_type();
        if matches!(page_type, PageType::NDA | PageType::RSVD) {
            return false;
        }
        if outer.is_some() {
            findings.push(AuditFinding::NestedPage(page));
        }
        self.0.insert(page, Page { page_type, level, owner: entry.owner() });
        true
    }

    pub(super) fn get(&self, page: Hpa) -> Option<Page> {
        self.0.get(&page).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Hpa, Page)> {
        self.0.iter().map(|(at, page)| (*at, *page))
    }

    /// The pages of a TD, its TDR excluded.
    pub(super) fn of(&self, tdr: Hpa) -> impl Iterator<Item = (Hpa, Page)> {
        self.iter().filter(move |(_, page)| page.owner == tdr && page.page_type != PageType::TDR)
    }
}
