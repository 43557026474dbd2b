//! TDH.EXPORT.RESTORE (66): pages of an aborted session belong to the running TD again. RCX list, RDX TDR; RCX gets
//! where the list goes on.

use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::super::gpa_list::{EntryStatus, GpaList, for_each_page};
use super::super::session::Session;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states, sept_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

/// The entry of a page that takes no part in a session any more.
pub(super) const fn plain_again(entry: SeptEntry, state: SeptState) -> SeptEntry {
    if state.is_pending() {
        entry.with_state(SeptState::Pending)
    } else {
        SeptEntry(entry.0 | SeptEntry::WRITE).with_state(SeptState::Mapped)
    }
}

pub(crate) fn restore(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let states = const { op_states(TdhLeaf::EXPORT_RESTORE) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let (list, status) = for_each_page(call, &tdcs, GpaList::new(regs.rcx), |entry| {
        let state = entry.state();
        if !const { sept_states(TdhLeaf::EXPORT_RESTORE) }.contains(state) {
            return Err(EntryStatus::StateIncorrect);
        }
        entry.set(plain_again(entry.entry(), state));
        Session(&tdcs).change_exported_pages(-1);
        Ok(())
    });
    regs.rcx = list.raw();
    Err(status)
}
