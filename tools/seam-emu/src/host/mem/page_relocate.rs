//! TDH.MEM.PAGE.RELOCATE (5): moves a blocked 4 KiB page to another place. RCX GPA, RDX TDR, R8 new page; RCX
//! receives the old page.

use tdvisor_base::Level;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::{Operands, context, lock_implicit, target};
use crate::host::steps::{
    check_blocked, check_entry_state, check_tracked, lock_free_page, op_states, sept_states,
};
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;
use crate::td::l2::{self, Use};

pub(in crate::host) fn page_relocate(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_PAGE_RELOCATE) })?;
    let target = target(&context.tdcs, operands.rcx, Level::L4K..=Level::L4K, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_PAGE_RELOCATE) })?;
    let old = target.entry.entry().hpa();
    if old.get() == regs.r8 {
        return Err(invalid(Operand::R8));
    }
    let source = lock_implicit(call, old, Level::L4K, Operand::RCX)?;
    check_blocked(&context.tdcs, regs, &slot)?;
    check_tracked(&context.tdcs, source.entry.bepoch(), Operand::RCX)?;
    let (hpa, page) = lock_free_page(call, regs.r8, Operand::R8)?;
    let owner = &context.owner.tdr;
    if !state.is_pending() {
        call.copy_inside_td(old, hpa, owner.key());
    }
    page.entry.assign(PageType::REG, owner.hpa);
    let unblocked = state.unblocked().unwrap_or(state);
    let entry = if state.is_pending() { SeptEntry::pending(hpa) } else { SeptEntry::mapped(hpa) };
    let aliases = target.entry.entry().0 & SeptEntry::L2_ALIASES;
    target.entry.set(SeptEntry(entry.with_state(unblocked).0 | aliases));
    let how = if state.is_pending() { Use::Blocked } else { Use::Open };
    l2::relocate_aliases(&context.tdcs, SeptEntry(aliases), target.what, hpa, how);
    source.entry.free();
    call.page_left_td(owner.hpa, old, Level::L4K);
    regs.rcx = old.get();
    Ok(())
}
