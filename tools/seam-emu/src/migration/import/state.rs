//! What the leaves that import state share: a bundle whose pages are metadata lists.

use tdvisor_base::Hpa;
use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand, Status, StatusCode};

use super::super::mbmd::{BundleKind, Mbmd};
use super::super::operands::{PageList, SharedPage};
use super::super::pending;
use super::super::session::Session;
use super::super::stream::{StateCall, StatePlace, Stream};
use super::list::{Page, Reader, TOO_LONG, is_too_long};
use crate::host::{Call, Step, plain};

/// An import of state under way.
pub(super) struct StateImport<'a, 'm> {
    pub(super) call: &'a Call<'m>,
    pub(super) session: Session<'a, 'm>,
    pub(super) stream: &'a Stream<'m>,
    pub(super) tdr: Hpa,
    pub(super) kind: BundleKind,
    /// What a resumed call must repeat.
    pub(super) what: StateCall,
    /// RCX and RDX, which an interrupted call gets back.
    pub(super) operands: [u64; 2],
}

/// A list of the bundle, and how many of the pages, from the first of the bundle on, end with it.
pub(super) struct Section<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) pages: u64,
}

impl StateImport<'_, '_> {
    /// Begins with a bundle whose MBMD is what it should be.
    pub(super) fn begin(&self, header: &Mbmd) -> StatePlace {
        self.stream.set_mbmd(header);
        self.stream.set_expected(self.stream.expected().wrapping_add(1));
        self.stream.set_fault(None);
        StatePlace { done: 0, section: 0, field: FieldId::NULL }
    }

    /// Goes on with a bundle. Another call in its place ends the import.
    pub(super) fn resume(&self) -> Step<StatePlace> {
        let refused = plain(StatusCode::INVALID_RESUMPTION);
        if !self.stream.is_interrupted() {
            return Err(refused);
        }
        self.stream.end_interruption();
        let (what, place) = self.stream.interrupted_state();
        if what == self.what { Ok(place) } else { Err(self.session.fail(refused)) }
    }

    /// Reads all pages; then the tag says whether they were worth it. Before that nothing of what is wrong with them is
    /// told.
    pub(super) fn read(
        &self,
        regs: &mut Gprs,
        min_pages: u64,
        mut place: StatePlace,
        sections: &[Section<'_>],
    ) -> Step {
        let fail = |status: Status| self.session.fail(status);
        let list = PageList::new(self.what.list);
        list.check_fields(min_pages).map_err(fail)?;
        let entries = list.check_address(self.call).map_err(fail)?;
        let pending = &self.call.machine.module.pending_bundles;
        let header = self.stream.mbmd();
        let key = self.session.receiving_key();
        let iv = header.run().iv();
        let mut all = pending.take(self.tdr, self.stream.number, place.done);
        while place.done <= list.last() {
            let source = entries.load(self.call, place.done);
            let source = SharedPage::new(self.call, source, Operand::PAGE).map_err(|_| fail(PAGE))?;
            let plain_page = key.cipher(iv, all.len(), &source.read(self.call));
            self.take_page(&mut place, sections, list.last(), &plain_page);
            all.extend(plain_page);
            if place.done <= list.last() && place.done <= pending::MAX_PAGES && self.call.interrupted() {
                self.stream.interrupt_state(&self.what, place);
                pending.keep(self.tdr, self.stream.number, all);
                [regs.rcx, regs.rdx] = self.operands;
                return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
            }
        }
        if header.tag != key.tag(iv, &header.covered(self.kind), &all) {
            return Err(fail(plain(StatusCode::INCORRECT_MBMD_MAC)));
        }
        if let Some((status, field)) = self.stream.fault() {
            regs.rcx = field;
            return Err(fail(status));
        }
        Ok(())
    }

    /// Takes the values of a page, and remembers the first thing that is wrong with it.
    fn take_page(&self, place: &mut StatePlace, sections: &[Section<'_>], last: u64, plain: &[u8]) {
        let fault_first = |fault: super::list::Fault| {
            if self.stream.fault().is_none() {
                self.stream.set_fault(Some((fault.status, fault.field)));
            }
        };
        let number = place.done;
        place.done += 1;
        let Ok(page) = <&Page>::try_from(plain) else { return };
        let Some(section) = sections.get(usize::from(place.section)) else { return };
        if is_too_long(page) {
            fault_first(TOO_LONG);
        }
        let ends = number == last.min(section.pages.saturating_sub(1));
        place.field = section.reader.read(page, place.field, ends).unwrap_or_else(|fault| {
            fault_first(fault);
            FieldId::NULL
        });
        if number + 1 == section.pages {
            place.section += 1;
            place.field = FieldId::NULL;
        }
    }
}

const PAGE: Status = crate::host::invalid(Operand::PAGE);
