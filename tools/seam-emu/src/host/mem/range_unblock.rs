//! TDH.MEM.RANGE.UNBLOCK (39): takes a block back. RCX GPA and level, RDX TDR.
//!
//! Needs the block to be tracked; which operand is named where it is not depends on the release.

use tdvisor_base::Level;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::{Gprs, TdhLeaf};

use super::{Operands, context, implicit_entry, target, up_to_root};
use crate::host::steps::{check_entry_state, check_tracked, op_states, sept_states};
use crate::host::{Call, Step};
use crate::lock::Mode;
use crate::td::l2;

pub(in crate::host) fn range_unblock(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_RANGE_UNBLOCK) })?;
    let levels = up_to_root(&context.tdcs, Level::L4K);
    let target = target(&context.tdcs, operands.rcx, levels, Mode::Exclusive, regs)?;
    let slot = target.entry.slot();
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_RANGE_UNBLOCK) })?;
    let entry = target.entry.entry();
    let page_level = if state.is_leaf() { slot.level } else { Level::L4K };
    let bepoch = implicit_entry(call, entry.hpa(), page_level).map_or(0, |page| page.bepoch());
    check_tracked(&context.tdcs, bepoch, call.machine.config().profile.rules().untracked_unblock)?;
    let unblocked = state.unblocked().unwrap_or(state);
    let rights = if unblocked.is_pending() { 0 } else { SeptEntry::RWX };
    target.entry.set(SeptEntry(entry.with_state(unblocked).0 | rights));
    // What aliases a pending page waits for the page to be accepted.
    if !unblocked.is_pending() {
        l2::unblock(&context.tdcs, target.what);
    }
    Ok(())
}
