//! TDH.IMPORT.MEM (83): pages of a TD. RCX list, RDX TDR, R8 MBMD, R9 buffers, R10 stream and command, R11 and R12 lists
//! of tags, R13 list of new pages (all ones: the buffers become the pages); RCX gets where the list goes on.

use tdx_module_iface::op_state::OpStates;
use tdx_module_iface::{Gprs, Operand, Status, StatusCode, TdhLeaf};

use super::super::export::mem::{TagLists, check_resumption};
use super::super::export::page::NO_PAGE;
use super::super::gcm::TAG_BYTES;
use super::super::gpa_list::{EntryStatus, GpaEntry, GpaList, Problems};
use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer, Run};
use super::super::operands::{Command, Entries, StreamCommand, read_host};
use super::super::session::{self, OUT_OF_ORDER, Session};
use super::super::stream::{self, MemoryCall, Stream};
use super::page::{Failure, PageImport};
use crate::host::steps::{check_and_lock_state, lock_tdr, lock_tree, op_states};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;
use crate::td::Tdcs;

/// R13: there are no new pages.
const NONE: u64 = u64::MAX;

pub(crate) fn import(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let mut list = GpaList::new(regs.rcx);
    let result = import_list(call, regs, &mut list);
    regs.rcx = list.raw();
    Err(result?)
}

fn import_list(call: &Call<'_>, regs: &Gprs, list: &mut GpaList) -> Step<Status> {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let states = const { op_states(TdhLeaf::IMPORT_MEM) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let _lock = session::lock(&tdcs, Mode::Shared)?;
    let session = Session(&tdcs);
    let command = StreamCommand::new(regs.r10, stream::forward_count(&tdcs))?;
    let stream = stream::lock_forward(&tdcs, command.stream)?;
    let _tree = lock_tree(&tdcs, Mode::Shared)?;
    let entries = list.check(call)?;
    let buffers = Entries::new(call, regs.r9, Operand::R9)?;
    let tags = TagLists::new(call, *list, regs)?;
    let new_pages = match regs.r13 {
        NONE => None,
        list => Some(Entries::new(call, list, Operand::R13)?),
    };
    let mbmd = MbmdBuffer::new(call, regs.r8)?;
    let key = session.receiving_key();
    let mut what = MemoryCall {
        leaf: regs.rax,
        list: list.raw(),
        buffers: regs.r9,
        tags: [regs.r11, regs.r12],
        new_pages: regs.r13,
        epoch: session.epoch(),
    };
    match command.command() {
        Command::New => {
            if list.first() != 0 {
                return Err(invalid(Operand::RCX));
            }
            stream.initialize_once();
            stream.end_interruption();
            let header = mbmd.read(call);
            check_header(&tdcs, &stream, *list, &header)?;
            stream.set_iv_counter(header.iv_counter.get());
            header.check_lone_tag(BundleKind::Memory, &key)?;
            stream.set_expected(stream.expected().wrapping_add(1));
        }
        Command::Resume => check_resumption(&stream, &what)?,
    }
    let mut problems = Problems::default();
    for number in list.first()..=list.last() {
        *list = list.from(number);
        let entry = GpaEntry(entries.load(call, number));
        let run = Run { counter: stream.next_iv(), stream: stream.number };
        let page = PageImport {
            call,
            owner: &owner,
            tdcs: &tdcs,
            key: &key,
            iv: run.iv(),
            tag: tags.place(number).map_or([0; TAG_BYTES], |place| read_host(call, place)),
            entry,
            buffer: buffers.load(call, number),
            new_page: new_pages.map(|pages| pages.load(call, number)),
        };
        let result = page.run();
        let status = match result {
            Ok(()) => EntryStatus::Done,
            Err(Failure::Skip) => EntryStatus::Skipped,
            Err(Failure::End(status, _) | Failure::EndInOrder(status, _)) => status,
        };
        if result.is_err() {
            entries.store(call, number, entry.failed(status).0);
            if let (Some(pages), Some(page)) = (new_pages, page.new_page) {
                pages.store(call, number, page | NO_PAGE);
            }
        }
        match result {
            Err(Failure::End(_, status)) => return Err(session.abort(status)),
            Err(Failure::EndInOrder(_, status)) if is_in_order(&tdcs) => return Err(session.fail(status)),
            _ => problems.note(status),
        }
        if number < list.last() && call.interrupted() {
            *list = list.from(number + 1);
            what.list = list.raw();
            stream.interrupt_memory(&what);
            return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    *list = list.from(list.last() + 1);
    session.count_bundle();
    Ok(problems.status())
}

fn is_in_order(tdcs: &Tdcs<'_>) -> bool {
    OpStates::IMPORT_IN_ORDER.contains(tdcs.op_state())
}

/// Whether an MBMD is of this list, stream and epoch, and while order counts the next.
fn check_header(tdcs: &Tdcs<'_>, stream: &Stream<'_>, list: GpaList, header: &Mbmd) -> Step {
    let session = Session(tdcs);
    let epoch = header.epoch.get();
    let in_turn = match is_in_order(tdcs) {
        true => header.counter.get() == stream.expected(),
        false => epoch == OUT_OF_ORDER,
    };
    let valid = header.is_of(BundleKind::Memory, session.version(), stream.number)
        && epoch == session.epoch()
        && header.details.get() == list.last() + 1
        && in_turn;
    if valid { Ok(()) } else { Err(plain(StatusCode::INVALID_MBMD)) }
}
