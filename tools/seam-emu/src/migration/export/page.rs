//! What TDH.EXPORT.MEM does with one page.

use tdx_module_iface::TdhLeaf;
use tdx_module_iface::op_state::{OpState, OpStates};
use tdx_module_iface::sept::{SeptState, SeptStates};

use super::super::gpa_list::{EntryStatus, GpaEntry, Operation, lock_entry};
use super::super::session::Session;
use super::restore::plain_again;
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::host::steps::sept_states;
use crate::td::Tdcs;
use crate::td::sept::SeptLock;

/// Bit 63 of an entry of a list of pages: there is none.
pub(crate) const NO_PAGE: u64 = 1 << 63;

/// An entry under way.
pub(super) struct PageExport<'m> {
    /// As it is written back.
    pub(super) entry: GpaEntry,
    /// The entry of the list of buffers, as it is written back.
    pub(super) buffer: u64,
    /// The page, held until its contents are read; `None` where it has none that cross.
    pub(super) page: Option<SeptLock<'m>>,
}

/// Changes the state of a page as an entry asks; what could not be done is in the entry then.
pub(super) fn export<'m>(tdcs: &Tdcs<'m>, asked: GpaEntry, buffer: u64) -> (PageExport<'m>, EntryStatus) {
    if asked.operation() == Operation::Nothing {
        return failed(asked, buffer, EntryStatus::Skipped);
    }
    let Some(gpa) = asked.gpa(tdcs) else { return failed(asked, buffer, EntryStatus::Invalid) };
    let lock = lock_entry(tdcs, gpa).map_err(|status| (asked, status));
    match lock.and_then(|lock| change(tdcs, lock, asked, buffer)) {
        Ok(export) => (export, EntryStatus::Done),
        Err((entry, status)) => failed(entry, buffer, status),
    }
}

fn failed<'m>(entry: GpaEntry, buffer: u64, status: EntryStatus) -> (PageExport<'m>, EntryStatus) {
    (PageExport { entry: entry.failed(status), buffer: buffer | NO_PAGE, page: None }, status)
}

/// What an export would be to a page in this state: the first, or a later one.
fn operation(tdcs: &Tdcs<'_>, asked: Operation, state: SeptState) -> Result<Operation, EntryStatus> {
    let incorrect = EntryStatus::StateIncorrect;
    if !OpStates::EXPORT_IN_ORDER.contains(tdcs.op_state()) {
        return match asked {
            Operation::Cancel => Err(EntryStatus::OpStateIncorrect),
            _ if SeptStates::PAUSED_EXPORT_ALLOWED.contains(state) => Ok(Operation::Migrate),
            _ => Err(incorrect),
        };
    }
    if asked == Operation::Cancel {
        return if SeptStates::EXPORT_CANCEL_ALLOWED.contains(state) { Ok(asked) } else { Err(incorrect) };
    }
    let operation = if SeptStates::FIRST_TIME_EXPORT_ALLOWED.contains(state) {
        Operation::Migrate
    } else if SeptStates::ANY_EXPORTED_AND_DIRTY.contains(state) {
        Operation::Remigrate
    } else {
        return Err(incorrect);
    };
    if tdcs.op_state() == OpState::LiveExport {
        if !SeptStates::LIVE_EXPORT_ALLOWED.contains(state) {
            return Err(incorrect);
        }
        let blocked = tdcs.load_u64(tdcs::BW_EPOCH);
        if SeptStates::TLB_TRACKING_REQUIRED.contains(state) && !tdcs.is_tracked(blocked) {
            return Err(EntryStatus::NotTracked);
        }
    }
    Ok(operation)
}

fn change<'m>(
    tdcs: &Tdcs<'m>,
    lock: SeptLock<'m>,
    asked: GpaEntry,
    buffer: u64,
) -> Result<PageExport<'m>, (GpaEntry, EntryStatus)> {
    let state = lock.state();
    if !const { sept_states(TdhLeaf::EXPORT_MEM) }.contains(state) {
        return Err((asked, EntryStatus::StateIncorrect));
    }
    let operation = operation(tdcs, asked.operation(), state).map_err(|status| (asked, status))?;
    let entry = asked.with_operation(operation).of_page(state.is_pending());
    let session = Session(tdcs);
    let was_dirty = SeptStates::ANY_EXPORTED_AND_DIRTY.contains(state);
    let found = lock.entry();
    if operation == Operation::Cancel {
        lock.set(plain_again(found, state));
        session.change_exported_pages(-1);
    } else if state.is_pending() {
        lock.set(found.with_state(SeptState::PendingExportedBlockedW));
    } else if buffer & NO_PAGE != 0 {
        return Err((entry, EntryStatus::NoBuffer));
    } else {
        lock.set(found.with_state(SeptState::ExportedBlockedW));
    }
    if operation != Operation::Cancel && !SeptStates::ANY_EXPORTED.contains(state) {
        session.change_exported_pages(1);
    }
    if was_dirty {
        session.change_dirty(-1);
    }
    let has_content = operation != Operation::Cancel && !state.is_pending();
    let buffer = if has_content { buffer } else { buffer | NO_PAGE };
    Ok(PageExport { entry, buffer, page: has_content.then_some(lock) })
}
