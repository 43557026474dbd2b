//! TDH.MEM.PAGE.REMOVE (29): takes a page out of the TD. RCX GPA and level, RDX TDR; RCX receives the page.
//!
//! The contents stay where they are, under the TD's key; the host writes the cache back and clears the page.

use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::{Operands, PAGES, context, lock_implicit, target};
use crate::host::steps::{check_blocked, check_entry_state, check_tracked, op_states, sept_states};
use crate::host::{Call, Step};
use crate::lock::Mode;
use crate::migration::session::Session;
use crate::td::l2;
use tdx_module_iface::op_state::OpStates;

pub(in crate::host) fn page_remove(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_PAGE_REMOVE) })?;
    let target = target(&context.tdcs, operands.rcx, PAGES, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_PAGE_REMOVE) })?;
    check_blocked(&context.tdcs, regs, &slot)?;
    let level = target.what.level();
    let hpa = target.entry.entry().hpa().align_down(level.bytes());
    let page = lock_implicit(call, hpa, level, Operand::RCX)?;
    check_tracked(&context.tdcs, page.entry.bepoch(), Operand::RCX)?;
    let importing = OpStates::IMPORT_IN_PROGRESS.contains(context.tdcs.op_state());
    l2::remove_aliases(&context.tdcs, target.entry.entry(), target.what);
    target.entry.set(if importing {
        // Nothing of this epoch may be imported over it.
        SeptEntry::removed_in(Session(&context.tdcs).epoch())
    } else {
        SeptEntry::FREE
    });
    page.entry.free();
    context.owner.tdr.remove_children(level.frames());
    call.page_left_td(context.owner.tdr.hpa, hpa, level);
    regs.rcx = hpa.get();
    Ok(())
}
