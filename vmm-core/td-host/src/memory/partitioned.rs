//! Tables of L2 VMs (TD partitioning).
//!
//! # Protocol
//! The tree of an L2 VM has its tables where the TD's own tree has some; a leaf there is an alias of the TD's own at the same
//! place, which the guest makes and the module keeps. So the host's part is tables:
//!
//! | the TD's own tree | the trees of L2 VMs |
//! |---|---|
//! | a table is linked | nothing: a page for each VM waits with it ([`SeptPage`]) |
//! | TDG.MEM.PAGE.ATTR.WR wants an alias where a VM has no table | TDH.MEM.SEPT.ADD for that VM, level by level from above |
//! | a leaf is blocked, unblocked, removed | the module does the same with its aliases |
//! | a leaf is split (TDH.MEM.PAGE.DEMOTE) | VMs that have an alias get their waiting pages; the others' come back |
//! | a table is merged or unlinked | the tables of VMs at its place come back with it, and are cleaned |
//!
//! Everything happens under the exclusive guard, with one TRACK and one kick for a table and its aliases: the translations of
//! all VMs of a TD are of one epoch. A TD without L2 VMs makes the same calls as ever.

use alloc::vec::Vec;

use mirror_ept::external::HookError;
use mirror_ept::list::{ListedKind, Tree};
use mirror_ept::range::Position;
use mirror_ept::{MmuError, Step, Violation};
use tdvisor_base::{Gfn, Hpa, Level, Pfn};
use tdx_module_iface::TdhLeaf;
use tdx_module_iface::outcome::SeamError;
use tdx_module_iface::sept::SeptInfo;
use tdx_module_iface::tdh::{self, ExistingTable, SeptAddOutcome, SeptPages};
use tdx_module_iface::tdmr::PageType;

use super::hooks::{HookResult, SeptError, SeptHooks, entry_of};
use super::tables::{L2_VMS, L2Page, SeptPage};
use super::{GuestMemory, Seat};
use crate::error::Error;
use crate::platform::Platform;
use crate::retry::{Bound, bounded, pause};

/// Attempts at adding one table.
const ATTEMPTS: u32 = 1_000;

/// Continuations of one interrupted TDH.MEM.SEPT.ADD. It adds one page, so there is none as a rule.
const RESUMPTIONS: u32 = 16;

/// A table that a guest needs for an alias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MissingTables {
    /// The L2 VM, from 1 on.
    pub(crate) vm: u8,
    /// The page that the alias is for.
    pub(crate) gfn: Gfn,
    /// The level of the entry where the VM's tree ends.
    pub(crate) found: Level,
    /// The level of the page.
    pub(crate) wanted: Level,
}

impl<'h, P: Platform> SeptHooks<'h, P> {
    /// Links the waiting page of a VM as its table at a place where the TD has one.
    fn add_l2_table(&self, lp: &mut P::Lp<'h>, at: Position, twin: &mut SeptPage, vm: u8) -> HookResult {
        let Some(slot) = usize::from(vm).checked_sub(1).and_then(|index| twin.l2().get_mut(index)) else {
            return Ok(());
        };
        // Another vCPU may have been quicker.
        let L2Page::Spare(pfn) = *slot else { return Ok(()) };
        let hold = self.count(lp, pfn)?;
        let mut pages = [None; L2_VMS + 1];
        if let Some(page) = pages.get_mut(usize::from(vm)) {
            *page = Some(pfn.base());
        }
        let tdr = self.core.tdr;
        let added = self.in_section(lp, at, |lp| {
            let mut left = SeptPages::new(pages);
            for _ in 0..RESUMPTIONS {
                match tdh::tdh_mem_sept_add_l2(lp, tdr, entry_of(at), ExistingTable::Allow, left)? {
                    SeptAddOutcome::Done(done) => return Ok(Some(done)),
                    SeptAddOutcome::Interrupted(rest) => left = rest,
                }
            }
            Ok::<_, SeamError<SeptInfo>>(None)
        });
        let Some(done) = self.settle(lp, hold, added)? else {
            // Nobody knows whether the module took it.
            *slot = L2Page::Unclean(pfn);
            return Err(HookError::Fatal(SeptError::L2Page { leaf: TdhLeaf::MEM_SEPT_ADD, at }));
        };
        match done.unused(usize::from(vm)) {
            Some(_) => self.count_off(lp, pfn),
            None => *slot = L2Page::Linked(pfn),
        }
        Ok(())
    }

    /// TDH.MEM.PAGE.DEMOTE with the waiting pages of a table that is made: those of VMs that have an alias become tables.
    pub(super) fn demote_with_l2_tables(
        &self,
        lp: &mut P::Lp<'h>,
        page: &mut SeptPage,
        demote: impl FnOnce(&Self, &mut P::Lp<'h>, [Option<Hpa>; L2_VMS]) -> HookResult<[Option<Hpa>; L2_VMS]>,
    ) -> HookResult {
        let offered = page.l2().map(|page| match page {
            L2Page::Spare(pfn) => Some(pfn),
            _ => None,
        });
        let mut holds = [const { None }; L2_VMS];
        for (pfn, hold) in offered.into_iter().zip(&mut holds) {
            match pfn.map(|pfn| self.count(lp, pfn)).transpose() {
                Ok(counted) => *hold = counted,
                Err(error) => {
                    holds.into_iter().flatten().for_each(|hold| hold.undo(self.core.host, lp));
                    return Err(error);
                }
            }
        }
        let demoted = demote(self, lp, offered.map(|pfn| pfn.map(Pfn::base)));
        let unused = demoted.as_ref().copied().unwrap_or(offered.map(|pfn| pfn.map(Pfn::base)));
        for (((pfn, hold), unused), slot) in offered.into_iter().zip(holds).zip(unused).zip(page.l2()) {
            let (Some(pfn), Some(hold)) = (pfn, hold) else { continue };
            match unused {
                Some(_) => hold.undo(self.core.host, lp),
                None => {
                    hold.keep();
                    *slot = L2Page::Linked(pfn);
                }
            }
        }
        demoted.map(drop)
    }

    /// The tables of VMs that the module gave back with the TD's own.
    pub(super) fn take_l2_tables(
        &self,
        lp: &mut P::Lp<'h>,
        leaf: TdhLeaf,
        at: Position,
        page: &mut SeptPage,
        freed: [Option<Hpa>; L2_VMS],
    ) -> HookResult {
        for (slot, freed) in page.l2().iter_mut().zip(freed) {
            match (*slot, freed.map(Hpa::frame)) {
                (L2Page::Linked(pfn), Some(freed)) if freed == pfn => {
                    let clean = self.clean(lp, pfn, Level::L4K);
                    *slot = if clean { L2Page::Removed(pfn) } else { L2Page::Unclean(pfn) };
                }
                (L2Page::NoVm | L2Page::Spare(_) | L2Page::Removed(_) | L2Page::Unclean(_), None) => {}
                _ => return Err(HookError::Fatal(SeptError::L2Page { leaf, at })),
            }
        }
        Ok(())
    }
}

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// Adds the tables that an L2 VM needs for an alias, from above. Where the TD's own tree has no table, there is nothing to
    /// add: the guest tries again, and hears or says what is wrong.
    ///
    /// # Errors
    /// The TD cannot go on.
    pub(crate) fn add_l2_tables(
        &self,
        seat: &mut Seat<'_, 'h, P>,
        missing: MissingTables,
    ) -> Result<(), Error> {
        let hooks = SeptHooks { core: self.core.clone() };
        let Seat { participant, ctx, .. } = seat;
        let mut level = missing.found;
        while level > missing.wanted {
            let at = Position::of(missing.gfn, level);
            for attempt in 0..=ATTEMPTS {
                let mut guard = participant.exclusive();
                let added = self
                    .mmu
                    .with_twin(&mut guard, at, |twin| hooks.add_l2_table(&mut ctx.lp, at, twin, missing.vm));
                drop(guard);
                match added {
                    None => return Ok(()),
                    Some(Ok(())) => break,
                    Some(Err(error)) if error.is_retryable() && attempt < ATTEMPTS => pause(attempt),
                    Some(Err(HookError::NoMemory)) => return Err(Error::NoMemory),
                    Some(Err(HookError::Busy | HookError::Interrupted)) => {
                        return Err(Error::StayedBusy(missing.gfn));
                    }
                    Some(Err(why)) => return Err(MmuError::Hook { at, step: Step::Link, why }.into()),
                }
            }
            let Some(below) = level.down() else { break };
            level = below;
        }
        Ok(())
    }

    /// Compares what the host has of the tables of L2 VMs with the PAMT: each that is in use is a table page of the TD, each
    /// that waits is none.
    pub(super) fn audit_l2_tables(&self, seat: &mut Seat<'_, 'h, P>) -> Result<(), Error> {
        if self.core.l2_vms == 0 {
            return Ok(());
        }
        let Seat { participant, ctx, .. } = seat;
        let mut guard = participant.exclusive();
        let mut places = Vec::new();
        self.mmu.list(&mut guard, &mut |entry| {
            if entry.tree == Tree::Mirror && matches!(entry.kind, ListedKind::Table(_)) {
                places.push(entry.at);
            }
        });
        let tdr = self.core.tdr.hpa();
        for at in places {
            let pages = self.mmu.with_twin(&mut guard, at, |twin| *twin.l2());
            for page in pages.into_iter().flatten() {
                let (pfn, in_use) = match page {
                    L2Page::NoVm => continue,
                    L2Page::Linked(pfn) => (pfn, true),
                    L2Page::Spare(pfn) | L2Page::Removed(pfn) | L2Page::Unclean(pfn) => (pfn, false),
                };
                let read = bounded(Bound::MANAGEMENT, || tdh::tdh_phymem_page_rdmd(&mut ctx.lp, pfn.base()));
                let owned = read.is_ok_and(|(page, _)| page.page_type == PageType::EPT && page.owner == tdr);
                if owned != in_use {
                    let what = "a table of an L2 VM is not where the host has it";
                    return Err(Error::Audit(Violation {
                        invariant: 63,
                        at: Some(at),
                        what,
                        external: None,
                    }));
                }
            }
        }
        Ok(())
    }
}
