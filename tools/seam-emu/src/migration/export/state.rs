//! What the leaves that export state share: a bundle whose pages are metadata lists.

use tdvisor_base::{Hpa, PAGE_SIZE};
use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer};
use super::super::operands::{Command, Entries, PageList, SharedPage};
use super::super::pending;
use super::super::session::Session;
use super::super::stream::{StateCall, StatePlace, Stream};
use crate::host::{Call, Step, invalid, plain};
use crate::metadata::List;

/// An export of state under way.
pub(super) struct StateExport<'a, 'm> {
    pub(super) call: &'a Call<'m>,
    pub(super) session: Session<'a, 'm>,
    pub(super) stream: &'a Stream<'m>,
    pub(super) tdr: Hpa,
    pub(super) kind: BundleKind,
    /// What a resumed call must repeat.
    pub(super) what: StateCall,
}

impl StateExport<'_, '_> {
    /// Begins a bundle.
    pub(super) fn begin(&self, details: u64) -> StatePlace {
        self.stream.end_interruption();
        let mut header = Mbmd::new(self.kind, self.session.version(), details);
        header.stream = self.stream.number.into();
        header.counter = self.stream.next().into();
        header.epoch = self.session.epoch().into();
        header.iv_counter = self.stream.next_iv().into();
        self.stream.set_mbmd(&header);
        StatePlace { done: 0, section: 0, field: FieldId::NULL }
    }

    /// Goes on with a bundle.
    pub(super) fn resume(&self) -> Step<StatePlace> {
        let refused = plain(StatusCode::INVALID_RESUMPTION);
        if !self.stream.is_interrupted() {
            return Err(refused);
        }
        self.stream.end_interruption();
        let (what, place) = self.stream.interrupted_state();
        if what == self.what { Ok(place) } else { Err(refused) }
    }

    /// Begins, or goes on with, a bundle as the command says.
    pub(super) fn place(&self, command: Command, details: u64) -> Step<StatePlace> {
        match command {
            Command::New => Ok(self.begin(details)),
            Command::Resume => self.resume(),
        }
    }

    /// Writes pages until the last of `sections` lists is complete, then the MBMD; RDX gets the number of pages. The
    /// buffer of the MBMD is asked for when all pages are written.
    pub(super) fn write(
        &self,
        regs: &mut Gprs,
        entries: Entries,
        mut place: StatePlace,
        sections: u8,
        list: impl Fn(u8, FieldId) -> Step<List>,
        buffer: impl FnOnce() -> Step<MbmdBuffer>,
    ) -> Step {
        let pending = &self.call.machine.module.pending_bundles;
        let mut header = self.stream.mbmd();
        let key = self.session.sending_key();
        let iv = header.run().iv();
        let mut all = pending.take(self.tdr, self.stream.number, place.done);
        loop {
            let target = entries.load(self.call, place.done);
            let target = SharedPage::new(self.call, target, Operand::MIG_BUFF_LIST_ENTRY)?;
            let List { mut bytes, next } = list(place.section, place.field)?;
            bytes.resize(PAGE_SIZE as usize, 0);
            target.write(self.call, &key.cipher(iv, all.len(), &bytes));
            all.append(&mut bytes);
            place.done += 1;
            place.field = next;
            if next == FieldId::NULL {
                place.section += 1;
                if place.section == sections {
                    break;
                }
            }
            if place.done > PageList::new(self.what.list).last() {
                return Err(invalid(Operand::R9));
            }
            if place.done <= pending::MAX_PAGES && self.call.interrupted() {
                self.stream.interrupt_state(&self.what, place);
                pending.keep(self.tdr, self.stream.number, all);
                regs.rdx = place.done;
                return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
            }
        }
        let buffer = buffer()?;
        header.tag = key.tag(iv, &header.covered(self.kind), &all);
        buffer.write(self.call, &header);
        regs.rdx = place.done;
        Ok(())
    }

    /// The bundle is complete: it counts.
    pub(super) fn count(&self) {
        self.session.count_bundle();
        self.stream.set_next(self.stream.next().wrapping_add(1));
    }
}
