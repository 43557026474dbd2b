//! TDH.EXPORT.UNBLOCKW (75): a page may be written again; if it was exported, it is dirty then. RCX GPA (4K), RDX TDR.

use tdvisor_base::Level;
use tdx_module_iface::sept::{SeptEntry, SeptState, SeptStates};
use tdx_module_iface::{Gprs, TdhLeaf};

use super::super::session::Session;
use crate::host::mem::{Operands, context, target};
use crate::host::steps::{check_entry_state, op_states, sept_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

const fn unblocked(state: SeptState) -> SeptState {
    match state {
        SeptState::BlockedW => SeptState::Mapped,
        SeptState::PendingBlockedW => SeptState::Pending,
        _ if state.is_pending() => SeptState::PendingExportedDirty,
        _ => SeptState::ExportedDirty,
    }
}

pub(crate) fn unblockw(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::EXPORT_UNBLOCKW) })?;
    let target = target(&context.tdcs, operands.rcx, Level::L4K..=Level::L4K, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::EXPORT_UNBLOCKW) })?;
    let write = if state.is_pending() { 0 } else { SeptEntry::WRITE };
    target.entry.set(SeptEntry(target.entry.entry().0 | write).with_state(unblocked(state)));
    if SeptStates::ANY_EXPORTED_AND_NON_DIRTY.contains(state) {
        Session(&context.tdcs).change_dirty(1);
    }
    Ok(())
}
