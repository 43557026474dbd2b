//! What TDH.IMPORT.MEM does with one page.

use tdvisor_base::{Hpa, Level, PAGE_SIZE};
use tdx_module_iface::op_state::OpStates;
use tdx_module_iface::sept::{SeptEntry, SeptState, SeptStates};
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Operand, Status, StatusCode, TdhLeaf};

use super::super::export::mem::BUFFER_ADDRESS;
use super::super::export::page::NO_PAGE;
use super::super::gcm::{GcmKey, IV_BYTES, TAG_BYTES};
use super::super::gpa_list::{EntryStatus, GpaEntry, INVALID_ENTRY, Operation, lock_entry};
use super::super::operands::SharedPage;
use super::super::session::Session;
use crate::host::mem::{implicit_entry, lock_implicit};
use crate::host::steps::{LockedTdr, lock_free_page, sept_states};
use crate::host::{Call, at, invalid, plain};
use crate::td::Tdcs;
use crate::td::sept::SeptLock;

/// Bit 63 of BEPOCH: what follows is the session and the migration epoch of the last import.
const MIGRATION: u64 = 1 << 63;

/// How an entry fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// Nothing was asked for.
    Skip,
    /// The import ends, or what is left of it.
    End(EntryStatus, Status),
    /// The import ends while order counts. After that, the TD's host may have changed what the entry is about.
    EndInOrder(EntryStatus, Status),
}

/// A page that is imported.
pub(super) struct PageImport<'a, 'm> {
    pub(super) call: &'a Call<'m>,
    pub(super) owner: &'a LockedTdr<'m>,
    pub(super) tdcs: &'a Tdcs<'m>,
    pub(super) key: &'a GcmKey,
    pub(super) iv: [u8; IV_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
    pub(super) entry: GpaEntry,
    /// The entry of the list of buffers.
    pub(super) buffer: u64,
    /// The entry of the list of new pages; without one the buffer becomes the page.
    pub(super) new_page: Option<u64>,
}

const fn about_entry(code: StatusCode) -> Status {
    at(code, Operand::GPA_LIST_ENTRY)
}

const fn incorrect_state() -> (EntryStatus, Status) {
    (EntryStatus::StateIncorrect, about_entry(StatusCode::EPT_ENTRY_STATE_INCORRECT))
}

const fn end((entry, status): (EntryStatus, Status)) -> Failure {
    Failure::End(entry, status)
}

const fn end_in_order((entry, status): (EntryStatus, Status)) -> Failure {
    Failure::EndInOrder(entry, status)
}

const NO_BUFFER: Failure = Failure::End(EntryStatus::NoBuffer, invalid(Operand::MIG_BUFF_LIST_ENTRY));

impl<'m> PageImport<'_, 'm> {
    /// Does what the entry asks for.
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.entry.operation() == Operation::Nothing {
            self.open(Vec::new())?;
            let valid = self.entry.is_valid();
            return Err(if valid { Failure::Skip } else { end((EntryStatus::Invalid, INVALID_ENTRY)) });
        }
        let gpa = self.entry.gpa(self.tdcs).ok_or(end((EntryStatus::Invalid, INVALID_ENTRY)))?;
        let lock = lock_entry(self.tdcs, gpa).map_err(|status| {
            let code = match status {
                EntryStatus::WalkFailed => StatusCode::EPT_WALK_FAILED,
                _ => StatusCode::OPERAND_BUSY,
            };
            end_in_order((status, about_entry(code)))
        })?;
        if !const { sept_states(TdhLeaf::IMPORT_MEM) }.contains(lock.state()) {
            return Err(end_in_order(incorrect_state()));
        }
        let in_order = OpStates::IMPORT_IN_ORDER.contains(self.tdcs.op_state());
        if !in_order && self.entry.operation() != Operation::Migrate {
            let status = plain(StatusCode::OP_STATE_INCORRECT);
            return Err(Failure::End(EntryStatus::OpStateIncorrect, status));
        }
        let source = self.source()?;
        match self.entry.operation() {
            Operation::Migrate => self.migrate(&lock, source),
            Operation::Remigrate => self.remigrate(&lock, source),
            _ => self.cancel(&lock),
        }
    }

    /// The page's ciphertext, where it has contents.
    fn source(&self) -> Result<Option<SharedPage>, Failure> {
        if self.entry.operation() == Operation::Cancel || self.entry.is_pending() {
            return Ok(None);
        }
        if self.buffer & NO_PAGE != 0 {
            return Err(NO_BUFFER);
        }
        let page = SharedPage::new(self.call, self.buffer & BUFFER_ADDRESS, Operand::MIG_BUFF_LIST_ENTRY);
        page.map(Some).map_err(|status| Failure::End(EntryStatus::NoBuffer, status))
    }

    /// The plaintext of what the entry's run holds.
    fn open(&self, mut data: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let aad = self.entry.0.to_le_bytes();
        match self.key.open(self.iv, &aad, &mut data, self.tag) {
            Ok(()) => Ok(data),
            Err(_) => Err(Failure::End(EntryStatus::WrongTag, about_entry(StatusCode::INVALID_PAGE_MAC))),
        }
    }

    fn contents(&self, source: Option<SharedPage>) -> Result<Vec<u8>, Failure> {
        self.open(source.map_or_else(Vec::new, |page| page.read(self.call).to_vec()))
    }

    fn epoch(&self) -> u32 {
        Session(self.tdcs).epoch()
    }

    fn sept_entry(&self, page: Hpa) -> SeptEntry {
        if self.entry.is_pending() { SeptEntry::pending(page) } else { SeptEntry::mapped(page) }
    }

    /// The first import of a page.
    fn migrate(&self, lock: &SeptLock<'_>, source: Option<SharedPage>) -> Result<(), Failure> {
        if !SeptStates::FIRST_TIME_IMPORT_ALLOWED.contains(lock.state()) {
            return Err(end_in_order(incorrect_state()));
        }
        let removed = lock.entry().removed_epoch().filter(|_| lock.state() == SeptState::Removed);
        if removed.is_some_and(|epoch| epoch >= self.epoch()) {
            let status = about_entry(StatusCode::DISALLOWED_IMPORT_OVER_REMOVED);
            return Err(Failure::End(EntryStatus::OverRemoved, status));
        }
        let target = self.target()?;
        let (hpa, page) = lock_free_page(self.call, target, Operand::NEW_PAGE_LIST_ENTRY)
            .map_err(|status| end_in_order((EntryStatus::NoNewPage, status)))?;
        let contents = self.contents(source)?;
        let key = self.owner.tdr.key();
        if !contents.is_empty() {
            self.call.take_page(hpa, key);
            let _ = self.call.machine.memory().write(hpa, key, &contents);
        }
        page.entry.assign(PageType::REG, self.owner.tdr.hpa);
        let exports = u64::from(Session(self.tdcs).exports());
        page.entry.set_bepoch(MIGRATION | exports << 32 & !MIGRATION | u64::from(self.epoch()));
        self.owner.tdr.add_children(1);
        lock.set(self.sept_entry(hpa));
        Ok(())
    }

    /// The address of the page that the TD gets.
    fn target(&self) -> Result<u64, Failure> {
        if let Some(page) = self.new_page.filter(|page| page & NO_PAGE == 0) {
            let config = self.call.machine.config();
            let too_wide = config.max_pa < 64 && page >> config.max_pa != 0;
            if !page.is_multiple_of(PAGE_SIZE) || too_wide || config.hkid_of(page) != 0 {
                let status = invalid(Operand::NEW_PAGE_LIST_ENTRY);
                return Err(Failure::End(EntryStatus::NoNewPage, status));
            }
            return Ok(page);
        }
        if self.buffer & NO_PAGE != 0 {
            return Err(NO_BUFFER);
        }
        Ok(self.call.machine.split_pa(self.buffer).0.get())
    }

    /// The epoch of the last import of a page is over.
    fn check_epoch(&self, bepoch: u64) -> Result<(), Failure> {
        if bepoch as u32 >= self.epoch() {
            let status = about_entry(StatusCode::MIGRATED_IN_CURRENT_EPOCH);
            return Err(Failure::End(EntryStatus::MigratedInEpoch, status));
        }
        Ok(())
    }

    /// A later import of a page.
    fn remigrate(&self, lock: &SeptLock<'_>, source: Option<SharedPage>) -> Result<(), Failure> {
        if !SeptStates::RE_IMPORT_ALLOWED.contains(lock.state()) {
            return Err(end(incorrect_state()));
        }
        let hpa = lock.entry().hpa();
        let page = implicit_entry(self.call, hpa, Level::L4K).ok_or(end(incorrect_state()))?;
        let bepoch = page.bepoch();
        self.check_epoch(bepoch)?;
        if self.entry.is_pending() && lock.state() != SeptState::Pending {
            let status = about_entry(StatusCode::IMPORT_MISMATCH);
            return Err(Failure::End(EntryStatus::StateIncorrect, status));
        }
        let contents = self.contents(source)?;
        let key = self.owner.tdr.key();
        if !contents.is_empty() {
            if lock.state() == SeptState::Pending {
                self.call.take_page(hpa, key);
            }
            let _ = self.call.machine.memory().write(hpa, key, &contents);
        }
        lock.set(self.sept_entry(hpa));
        page.set_bepoch(bepoch & !u64::from(u32::MAX) | u64::from(self.epoch()));
        Ok(())
    }

    /// A page does not belong to the TD any more.
    fn cancel(&self, lock: &SeptLock<'_>) -> Result<(), Failure> {
        if !SeptStates::IMPORT_CANCEL_ALLOWED.contains(lock.state()) {
            return Err(end(incorrect_state()));
        }
        self.open(Vec::new())?;
        let hpa = lock.entry().hpa();
        let page = lock_implicit(self.call, hpa, Level::L4K, Operand::GPA_LIST_ENTRY)
            .map_err(|status| Failure::End(EntryStatus::PageBusy, status))?;
        self.check_epoch(page.entry.bepoch())?;
        lock.set(SeptEntry::removed_in(self.epoch()));
        page.entry.free();
        self.owner.tdr.remove_children(1);
        self.call.page_left_td(self.owner.tdr.hpa, hpa, Level::L4K);
        Ok(())
    }
}
