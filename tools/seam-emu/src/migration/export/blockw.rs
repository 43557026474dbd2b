//! TDH.EXPORT.BLOCKW (65): no more writes to these pages until they are exported or given back. RCX list, RDX TDR; RCX
//! gets where the list goes on.

use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::super::gpa_list::{EntryStatus, GpaList, for_each_page};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

/// The state of a page that may be blocked, once it is.
const fn blocked(state: SeptState) -> Option<SeptState> {
    match state {
        SeptState::Mapped => Some(SeptState::BlockedW),
        SeptState::ExportedDirty => Some(SeptState::ExportedDirtyBlockedW),
        SeptState::Pending => Some(SeptState::PendingBlockedW),
        SeptState::PendingExportedDirty => Some(SeptState::PendingExportedDirtyBlockedW),
        _ => None,
    }
}

pub(crate) fn blockw(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let states = const { op_states(TdhLeaf::EXPORT_BLOCKW) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let (list, status) = for_each_page(call, &tdcs, GpaList::new(regs.rcx), |entry| {
        let state = blocked(entry.state()).ok_or(EntryStatus::StateIncorrect)?;
        entry.set(SeptEntry(entry.entry().0 & !SeptEntry::WRITE).with_state(state));
        tdcs.store_u64(tdcs::BW_EPOCH, tdcs.epoch());
        Ok(())
    });
    regs.rcx = list.raw();
    Err(status)
}

#[cfg(test)]
mod tests {
    use tdx_module_iface::sept::allow;

    use super::*;

    #[test]
    fn exactly_the_states_of_the_leafs_row_can_be_blocked() {
        let row = allow::tdh_allowed(TdhLeaf::EXPORT_BLOCKW).unwrap();
        for state in SeptState::ALL {
            assert_eq!(blocked(state).is_some(), row.contains(state), "{state}");
        }
    }
}
