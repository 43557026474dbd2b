//! TDH.MEM.*: a TD's private memory.
//!
//! All of these leaves but TRACK return details about an entry in RCX and RDX, and zero there where they have
//! none; both registers are taken on entry for that reason.

pub(super) mod page_add;
pub(super) mod page_aug;
pub(super) mod page_demote;
pub(super) mod page_promote;
pub(super) mod page_relocate;
pub(super) mod page_remove;
pub(super) mod range_block;
pub(super) mod range_unblock;
pub(super) mod rd_wr;
pub(super) mod sept_add;
pub(super) mod sept_rd;
pub(super) mod sept_remove;
pub(super) mod track;

use core::ops::RangeInclusive;

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::op_state::OpStates;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{GpaLevel, Gprs, Operand, StatusCode};

use super::steps::{
    LockedTdr, check_and_lock_state, gpa_level, lock_entry, lock_page, lock_tdr, lock_tree, private_hpa, walk,
};
use super::{Call, Step, at};
use crate::lock::{Guard, Mode, Side};
use crate::module::pamt::{self, PamtEntry, PamtPage};
use crate::td::Tdcs;
use crate::td::sept::SeptLock;

/// Levels of pages: 4K and up to 1G.
const PAGES: RangeInclusive<Level> = Level::L4K..=Level::L1G;
/// Levels of large pages.
const LARGE: RangeInclusive<Level> = Level::L2M..=Level::L1G;

/// RCX and RDX as the caller gave them; both registers are zero from here on.
pub(crate) struct Operands {
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
}

impl Operands {
    pub(crate) const fn take(regs: &mut Gprs) -> Self {
        Self { rcx: core::mem::replace(&mut regs.rcx, 0), rdx: core::mem::replace(&mut regs.rdx, 0) }
    }

    /// Gives them back: the caller repeats the call with the same operands.
    const fn restore(self, regs: &mut Gprs) {
        regs.rcx = self.rcx;
        regs.rdx = self.rdx;
    }
}

/// The TD of a memory leaf with the locks that all of them take.
pub(crate) struct Context<'m> {
    pub(crate) owner: LockedTdr<'m>,
    pub(crate) tdcs: Tdcs<'m>,
    _state: Guard<'m>,
}

/// TDR shared, OP_STATE shared and allowed.
pub(crate) fn context<'m>(call: &Call<'m>, tdr: u64, states: OpStates) -> Step<Context<'m>> {
    let owner = lock_tdr(call, tdr, Mode::Shared, Operand::RDX)?;
    let (tdcs, state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    Ok(Context { owner, tdcs, _state: state })
}

/// The entry that RCX names, locked, with the tree lock.
pub(crate) struct Target<'m> {
    pub(crate) what: GpaLevel,
    pub(crate) entry: SeptLock<'m>,
    _tree: Guard<'m>,
}

/// RCX, tree lock, walk, entry lock.
pub(crate) fn target<'m>(
    tdcs: &Tdcs<'m>,
    rcx: u64,
    levels: RangeInclusive<Level>,
    tree: Mode,
    regs: &mut Gprs,
) -> Step<Target<'m>> {
    let what = gpa_level(tdcs, rcx, levels)?;
    let tree = lock_tree(tdcs, tree)?;
    let slot = walk(tdcs, what, regs)?;
    let entry = lock_entry(slot)?;
    Ok(Target { what, entry, _tree: tree })
}

/// All levels up to the root's, from `lowest` on.
fn up_to_root(tdcs: &Tdcs<'_>, lowest: Level) -> RangeInclusive<Level> {
    lowest..=tdcs.root_level()
}

/// Locks a free page of `level` for a new use. A large page is free when all of its pieces are.
fn lock_free_range<'m>(
    call: &Call<'m>,
    pa: u64,
    level: Level,
    operand: Operand,
) -> Step<(Hpa, PamtPage<'m>)> {
    let hpa = private_hpa(call, pa, level.bytes(), operand)?;
    let page = lock_page(call, hpa, level, Mode::Exclusive, operand)?;
    let incorrect = at(StatusCode::PAGE_METADATA_INCORRECT, operand);
    if page.level != level || !page.entry.is_free() {
        return Err(incorrect);
    }
    if let Some(below) = level.down() {
        let tdmr = super::steps::tdmr_of(call, hpa, operand)?;
        let pieces = (0..512u64).map(|index| hpa.wrapping_add(index * below.bytes()));
        let memory = call.machine.memory();
        if tdmr.dynamic().is_some_and(|dynamic| dynamic.range_holds_entries(memory, hpa)) {
            return Err(incorrect);
        }
        for piece in pieces {
            // Without entries (dynamic PAMT) no piece can be in use.
            if !tdmr.entry(memory, below, piece).is_none_or(PamtEntry::is_free) {
                return Err(incorrect);
            }
        }
    }
    Ok((hpa, page))
}

/// The PAMT entry of a page that the Secure EPT points to, without a lock: the entry's lock protects it.
pub(crate) fn implicit_entry<'m>(call: &Call<'m>, hpa: Hpa, level: Level) -> Option<PamtEntry<'m>> {
    call.machine.module.tdmrs.of_page(hpa)?.entry(call.machine.memory(), level, hpa)
}

/// The PAMT entry of a page that the Secure EPT points to, locked exclusively.
pub(crate) fn lock_implicit<'m>(
    call: &Call<'m>,
    hpa: Hpa,
    level: Level,
    operand: Operand,
) -> Step<PamtPage<'m>> {
    let tdmr = super::steps::tdmr_of(call, hpa, operand)?;
    pamt::walk(call.machine.memory(), tdmr, hpa, level, Mode::Exclusive, Side::Host)
        .map_err(|_| super::busy(operand))
}

/// Fills a page with free Secure-EPT entries under the TD's key, and gives it to the TD.
fn make_sept_page(call: &Call<'_>, owner: &LockedTdr<'_>, hpa: Hpa, page: &PamtPage<'_>, fill: SeptEntry) {
    write_sept_page(call, owner, hpa, |_| fill);
    page.entry.assign(PageType::EPT, owner.tdr.hpa);
}

/// Writes all entries of a Secure-EPT page under the TD's key.
fn write_sept_page(call: &Call<'_>, owner: &LockedTdr<'_>, hpa: Hpa, entry: impl Fn(u64) -> SeptEntry) {
    use tdvisor_base::sync::Ordering;
    call.take_page(hpa, owner.tdr.key());
    if let Ok(table) = call.machine.memory().table(hpa.frame()) {
        for (index, word) in (0u64..).zip(table) {
            word.store(entry(index).0, Ordering::Release);
        }
    }
}
