//! TDH.MEM.PAGE.PROMOTE (23): merges 512 pages into one of the next larger size. RCX GPA and level (2M, 1G) of the
//! result, RDX TDR; RCX receives the Secure-EPT page that is free now, and in version 1 R9 to R11 those of the
//! L2 VMs (all ones: none).

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{GpaLevel, Gprs, Operand, StatusCode, TdhLeaf};

use super::{Context, LARGE, Operands, context, implicit_entry, lock_implicit, target};
use crate::host::steps::{
    check_blocked, check_entry_state, check_tracked, lock_entry, op_states, report_entry, sept_states,
    tdmr_of,
};
use crate::host::{Call, Step, at, invalid, plain};
use crate::l2::Vm;
use crate::lock::Mode;
use crate::td::l2::{self, L2Attributes, Merged, Use};
use crate::td::sept::{SeptLock, SeptSlot};

pub(in crate::host) fn page_promote(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    let operands = Operands::take(regs);
    if version > 0 {
        [regs.r9, regs.r10, regs.r11] = [u64::MAX; 3];
    }
    if version > 1 {
        return Err(invalid(Operand::RAX));
    }
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_PAGE_PROMOTE) })?;
    let target = target(&context.tdcs, operands.rcx, LARGE, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_PAGE_PROMOTE) })?;
    check_blocked(&context.tdcs, regs, &slot)?;
    let table = target.entry.entry().hpa();
    let bepoch = implicit_entry(call, table, Level::L4K).map_or(0, |entry| entry.bepoch());
    check_tracked(&context.tdcs, bepoch, Operand::RCX)?;
    let level = target.what.level();
    let below = level.down().ok_or(invalid(Operand::RCX))?;
    let children = lock_children(&context, table, below)?;
    let refused = |regs: &mut Gprs| {
        report_entry(regs, &slot);
        at(StatusCode::EPT_INVALID_PROMOTE_CONDITIONS, Operand::RCX)
    };
    let MergedPage { large, state, aliases } =
        merged_page(&children, level).ok_or_else(|| refused(&mut *regs))?;
    // Before the tables of L2 VMs are looked at, and before anything changes.
    if call.interrupted() {
        operands.restore(regs);
        return Err(plain(StatusCode::INTERRUPTED_RESTARTABLE));
    }
    let l2_attributes = l2_aliases(&context, target.what, aliases).ok_or_else(|| refused(&mut *regs))?;
    let page = lock_implicit(call, large, level, Operand::RCX)?;
    let table_page = lock_implicit(call, table, Level::L4K, Operand::RCX)?;
    let tdmr = tdmr_of(call, large, Operand::RCX)?;
    for index in 0..512u64 {
        let piece = large.wrapping_add(index * below.bytes());
        if let Some(entry) = tdmr.entry(call.machine.memory(), below, piece) {
            entry.free();
        }
    }
    // The merged page keeps the BEPOCH that its entry had from earlier times, as recorded.
    let older_bepoch = page.entry.bepoch();
    page.entry.assign(PageType::REG, context.owner.tdr.hpa);
    page.entry.set_bepoch(older_bepoch);
    drop(children);
    table_page.entry.free();
    context.owner.tdr.remove_children(1);
    let (entry, how) = match state.is_pending() {
        true => (SeptEntry::pending(large), Use::Blocked),
        false => (SeptEntry::mapped(large), Use::Open),
    };
    target.entry.set(SeptEntry(entry.0 | aliases));
    call.table_left_td(context.owner.tdr.hpa, target.what.gpa(), slot.level, table);
    let l2 = l2::unlink_tables(&context.tdcs, target.what);
    for page in l2.into_iter().filter(|page| *page != u64::MAX) {
        if let Some(entry) = implicit_entry(call, Hpa::new(page), Level::L4K) {
            entry.free();
            context.owner.tdr.remove_children(1);
        }
    }
    for (vm, attributes) in l2_attributes {
        l2::map_merged(&context.tdcs, vm, target.what, large, attributes, how);
    }
    if version > 0 {
        [regs.r9, regs.r10, regs.r11] = l2;
    }
    regs.rcx = table.get();
    Ok(())
}

/// Locks all 512 children of a table page.
fn lock_children<'m>(context: &Context<'m>, table: Hpa, level: Level) -> Step<Vec<SeptLock<'m>>> {
    let words = context.tdcs.table(table).ok_or(at(StatusCode::EPT_WALK_FAILED, Operand::RCX))?;
    words.iter().map(|word| lock_entry(SeptSlot::new(word, level))).collect()
}

/// The large page that pieces make together.
struct MergedPage {
    large: Hpa,
    /// MAPPED or PENDING.
    state: SeptState,
    /// The alias bits of its entry.
    aliases: u64,
}

/// The children's page: all mapped or all pending, contiguous from an aligned address on, and of the same L2 VMs.
fn merged_page(children: &[SeptLock<'_>], level: Level) -> Option<MergedPage> {
    let first = children.first()?;
    let state = first.state();
    if !matches!(state, SeptState::Mapped | SeptState::Pending) {
        return None;
    }
    let step = level.down()?.bytes();
    // How much of a pending 2 MiB page the guest has accepted is not part of where the page is.
    let page_of = |child: &SeptLock<'_>| child.entry().hpa().align_down(step);
    let base = page_of(first);
    let aliases = first.entry().0 & SeptEntry::L2_ALIASES;
    let contiguous = (0u64..).zip(children).all(|(index, child)| {
        child.state() == state
            && page_of(child) == base.wrapping_add(index * step)
            && child.entry().0 & SeptEntry::L2_ALIASES == aliases
    });
    (base.is_aligned(level.bytes()) && contiguous).then_some(MergedPage { large: base, state, aliases })
}

/// The L2 VMs that map the pieces, with their attributes; `None` where those differ.
fn l2_aliases(context: &Context<'_>, what: GpaLevel, aliases: u64) -> Option<Vec<(Vm, L2Attributes)>> {
    let mut found = Vec::new();
    for vm in l2::vms(&context.tdcs) {
        match l2::merge(&context.tdcs, vm, what, aliases & l2::alias(vm) != 0) {
            Merged::Aliased(attributes) => found.push((vm, attributes)),
            Merged::NotAliased => {}
            Merged::Mixed => return None,
        }
    }
    Some(found)
}
