//! TDH.MEM.RANGE.BLOCK (7): no new translation through an entry, leaf or table. RCX GPA and level, RDX TDR.
//!
//! Stamps the epoch into the PAMT entry of the page, or of the table's page.

use tdvisor_base::Level;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::{Operands, context, implicit_entry, target, up_to_root};
use crate::host::steps::{check_entry_state, op_states, report_entry, sept_states};
use crate::host::{Call, Step, at};
use crate::lock::Mode;
use crate::td::l2;

pub(in crate::host) fn range_block(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_RANGE_BLOCK) })?;
    let levels = up_to_root(&context.tdcs, Level::L4K);
    let target = target(&context.tdcs, operands.rcx, levels, Mode::Exclusive, regs)?;
    let slot = target.entry.slot();
    if slot.state().is_blocked() {
        report_entry(regs, &slot);
        return Err(at(StatusCode::GPA_RANGE_ALREADY_BLOCKED, Operand::RCX));
    }
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_RANGE_BLOCK) })?;
    let entry = target.entry.entry();
    let large = state.is_leaf() && slot.level != Level::L4K;
    let address = if large { entry.hpa().align_down(slot.level.bytes()) } else { entry.hpa() };
    let page_level = if state.is_leaf() { slot.level } else { Level::L4K };
    if let Some(page) = implicit_entry(call, address, page_level) {
        page.set_bepoch(context.tdcs.epoch());
    }
    let accept_progress = if large { SeptEntry::ACCEPT_COUNTER } else { 0 };
    let blocked = state.blocked().unwrap_or(state);
    let cleared = SeptEntry(entry.0 & !(SeptEntry::RWX | accept_progress));
    target.entry.set(cleared.with_state(blocked));
    l2::block(&context.tdcs, target.what);
    Ok(())
}
