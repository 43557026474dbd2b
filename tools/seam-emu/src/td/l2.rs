//! The Secure EPTs of L2 VMs (TD partitioning), as far as their table pages go.
//!
//! An L2 tree has the shape of the TD's own. Its entries know five states; a free one is zero.

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdvisor_base::{Hpa, Level};
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::{Gprs, Status, StatusCode};

use super::Tdcs;
use crate::host::Step;
use crate::host::steps::GpaLevel;

/// A free entry.
pub(crate) const FREE: SeptEntry = SeptEntry(0);

/// Public state numbers of a free entry, of one that leads to a table, and of one that maps a page.
const PUBLIC_FREE: u64 = 0x40;
const PUBLIC_TABLE: u64 = 0xc4;

/// Whether a table that is there already will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    /// Yes.
    Allowed,
    /// No: the call fails.
    Refused,
}

/// Where a table is to be linked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct L2Target<'m>(&'m AtomicU64);

impl L2Target<'_> {
    /// Makes the entry point to a table page.
    pub(crate) fn link(&self, page: Hpa) {
        self.0.store(SeptEntry::table(page).0, Ordering::Release);
    }
}

/// Finds the entry of VM `vm` that RCX names.
fn walk<'m>(tdcs: &Tdcs<'m>, vm: u16, what: GpaLevel) -> Option<(&'m AtomicU64, Level)> {
    let mut table = tdcs.l2_sept_root(vm)?;
    let mut level = tdcs.root_level();
    loop {
        let word = tdcs.table(table)?.get(level.table_index(what.gpa.frame()))?;
        let entry = SeptEntry(word.load(Ordering::Acquire));
        if level <= what.level || !entry.has(SeptEntry::RWX) || entry.has(SeptEntry::LEAF) {
            return Some((word, level));
        }
        table = entry.hpa();
        level = level.down()?;
    }
}

/// The free entry into which a table page of VM `vm` goes; `None` where one is there and may be.
pub(crate) fn entry_for_table<'m>(
    tdcs: &Tdcs<'m>,
    vm: u16,
    what: GpaLevel,
    existing: Existing,
    regs: &mut Gprs,
) -> Step<Option<L2Target<'m>>> {
    let details = |level: Level| u32::from(vm) << 16 | u32::from(level.index());
    let Some((word, level)) = walk(tdcs, vm, what) else {
        return Err(Status::with_details(StatusCode::L2_SEPT_WALK_FAILED, details(what.level)));
    };
    let entry = SeptEntry(word.load(Ordering::Acquire));
    let free = entry.0 == FREE.0;
    let report = |regs: &mut Gprs| {
        regs.rcx = if free { SeptEntry::SUPPRESS_VE } else { entry.0 & SeptEntry::RWX };
        let state = if free { PUBLIC_FREE } else { PUBLIC_TABLE };
        regs.rdx = u64::from(level.index()) | state << 8 | u64::from(vm) << 16;
    };
    if level != what.level {
        report(regs);
        return Err(Status::with_details(StatusCode::L2_SEPT_WALK_FAILED, details(level)));
    }
    if free {
        return Ok(Some(L2Target(word)));
    }
    if existing == Existing::Allowed {
        return Ok(None);
    }
    report(regs);
    Err(Status::with_details(StatusCode::L2_SEPT_ENTRY_NOT_FREE, details(level)))
}

/// Unlinks the table pages of all L2 VMs at an entry; gives their addresses, all ones where there was none.
pub(crate) fn unlink_tables(tdcs: &Tdcs<'_>, what: GpaLevel) -> [u64; 3] {
    let mut pages = [u64::MAX; 3];
    for (vm, page) in (1u16..=tdcs.num_l2_vms()).zip(&mut pages) {
        if let Some((word, level)) = walk(tdcs, vm, what)
            && level == what.level
        {
            let entry = SeptEntry(word.load(Ordering::Acquire));
            if entry.0 & SeptEntry::RWX != 0 && !entry.has(SeptEntry::LEAF) {
                word.store(FREE.0, Ordering::Release);
                *page = entry.hpa().get();
            }
        }
    }
    pages
}
