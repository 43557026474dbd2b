//! TDH.EXPORT.MEM (68): pages of a TD. RCX list, RDX TDR, R8 MBMD, R9 buffers, R10 stream and command, R11 and R12 lists
//! of tags; RCX gets where the list goes on, RDX the pages that were written.

use tdvisor_base::{Hpa, PAGE_SIZE};
use tdx_module_iface::{Gprs, Operand, Status, StatusCode, TdhLeaf};

use super::super::gcm::{GcmKey, TAG_BYTES};
use super::super::gpa_list::{EntryStatus, GpaEntry, GpaList, INVALID_ENTRY, Problems};
use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer, Run};
use super::super::operands::{Command, Entries, SharedPage, StreamCommand};
use super::super::session::{self, Session};
use super::super::stream::{self, MemoryCall, Stream};
use super::page::{NO_PAGE, export as export_page};
use crate::host::steps::{check_and_lock_state, lock_tdr, lock_tree, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

/// Tags in one page of them.
pub(crate) const TAGS_PER_PAGE: u64 = PAGE_SIZE / TAG_BYTES as u64;

/// The pages of tags that a list needs, those of entries below and from 256 on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TagLists([Option<u64>; 2]);

impl TagLists {
    /// Checks R11 and R12, as far as the list gets to them.
    pub(crate) fn new(call: &Call<'_>, list: GpaList, regs: &Gprs) -> Step<Self> {
        let low = list.first() < TAGS_PER_PAGE;
        let high = list.last() >= TAGS_PER_PAGE;
        let mut lists = [None; 2];
        for (slot, needed, pa, operand) in
            [(0, low, regs.r11, Operand::R11), (1, high, regs.r12, Operand::R12)]
        {
            if needed {
                SharedPage::new(call, pa, operand)?;
                if let Some(list) = lists.get_mut(slot) {
                    *list = Some(pa);
                }
            }
        }
        Ok(Self(lists))
    }

    /// How many there are.
    fn count(&self) -> u64 {
        self.0.iter().flatten().count() as u64
    }

    /// Where the tag of an entry lies.
    pub(crate) fn place(&self, entry: u64) -> Option<u64> {
        let list = self.0.get((entry / TAGS_PER_PAGE) as usize).copied().flatten()?;
        Some(list + entry % TAGS_PER_PAGE * TAG_BYTES as u64)
    }
}

pub(crate) fn export(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let mut list = GpaList::new(regs.rcx);
    let result = export_list(call, regs, &mut list);
    regs.rcx = list.raw();
    Err(result?)
}

fn export_list(call: &Call<'_>, regs: &mut Gprs, list: &mut GpaList) -> Step<Status> {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let states = const { op_states(TdhLeaf::EXPORT_MEM) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let _lock = session::lock(&tdcs, Mode::Shared)?;
    let session = Session(&tdcs);
    let command = StreamCommand::new(regs.r10, stream::forward_count(&tdcs))?;
    let stream = stream::lock_forward(&tdcs, command.stream)?;
    let _tree = lock_tree(&tdcs, Mode::Shared)?;
    let entries = list.check(call)?;
    let buffers = Entries::new(call, regs.r9, Operand::R9)?;
    let tags = TagLists::new(call, *list, regs)?;
    let mbmd = MbmdBuffer::new(call, regs.r8)?;
    let key = session.sending_key();
    let mut what = MemoryCall {
        leaf: regs.rax,
        list: list.raw(),
        buffers: regs.r9,
        tags: [regs.r11, regs.r12],
        new_pages: 0,
        epoch: session.epoch(),
    };
    match command.command() {
        Command::New => {
            if list.first() != 0 {
                return Err(crate::host::invalid(Operand::RCX));
            }
            stream.initialize_once();
            stream.end_interruption();
            stream.set_pages_done(1 + tags.count());
            mbmd.write(call, &head(session, &stream, *list, &key));
        }
        Command::Resume => check_resumption(&stream, &what)?,
    }
    let mut problems = Problems::default();
    for number in list.first()..=list.last() {
        *list = list.from(number);
        let asked = GpaEntry(entries.load(call, number));
        let (page, status) = export_page(&tdcs, asked, buffers.load(call, number));
        if status == EntryStatus::Invalid || (status == EntryStatus::Skipped && !asked.is_valid()) {
            entries.store(call, number, asked.failed(EntryStatus::Invalid).0);
            return Err(INVALID_ENTRY);
        }
        problems.note(status);
        let run = Run { counter: stream.next_iv(), stream: stream.number };
        let mut content = Vec::new();
        let mut target = None;
        if let Some(lock) = &page.page {
            content = vec![0; PAGE_SIZE as usize];
            let _ = call.read_td(lock.entry().hpa(), owner.tdr.key(), &mut content);
            let buffer = page.buffer & BUFFER_ADDRESS;
            target = Some(SharedPage::new(call, buffer, Operand::MIG_BUFF_LIST_ENTRY)?);
        }
        let tag = key.seal(run.iv(), &page.entry.0.to_le_bytes(), &mut content);
        if let Some(target) = target {
            target.write(call, &content);
            stream.set_pages_done(stream.pages_done() + 1);
        }
        if let Some(place) = tags.place(number) {
            let _ = call.machine.host_write(Hpa::new(place), &tag);
        }
        buffers.store(call, number, page.buffer);
        entries.store(call, number, page.entry.0);
        drop(page);
        if number < list.last() && call.interrupted() {
            *list = list.from(number + 1);
            what.list = list.raw();
            stream.interrupt_memory(&what);
            return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    *list = list.from(list.last() + 1);
    session.count_bundle();
    stream.set_next(stream.next().wrapping_add(1));
    regs.rdx = stream.pages_done();
    Ok(problems.status())
}

/// The address in an entry of the list of buffers.
pub(crate) const BUFFER_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const _: () = assert!(BUFFER_ADDRESS & NO_PAGE == 0);

/// The MBMD of a new bundle.
fn head(session: Session<'_, '_>, stream: &Stream<'_>, list: GpaList, key: &GcmKey) -> Mbmd {
    let mut header = Mbmd::new(BundleKind::Memory, session.version(), list.last() + 1);
    header.stream = stream.number.into();
    header.counter = stream.next().into();
    header.epoch = session.epoch().into();
    header.iv_counter = stream.next_iv().into();
    header.tag = header.lone_tag(BundleKind::Memory, key);
    header
}

/// Whether a call is the one that was interrupted.
pub(crate) fn check_resumption(stream: &Stream<'_>, what: &MemoryCall) -> Step {
    if !stream.is_initialized() {
        return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    let refused = plain(StatusCode::INVALID_RESUMPTION);
    if !stream.is_interrupted() {
        return Err(refused);
    }
    stream.end_interruption();
    if stream.interrupted_memory() == *what { Ok(()) } else { Err(refused) }
}
