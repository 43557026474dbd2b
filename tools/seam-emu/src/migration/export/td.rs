//! TDH.EXPORT.STATE.TD (73): the state of a paused TD. RCX TDR, R8 MBMD, R9 page list, R10 stream and command; RDX gets
//! the number of pages.

use tdx_module_iface::metadata::StateList;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::operands::{Command, PageList, StreamCommand};
use super::super::session::Session;
use super::super::stream::{self, StateCall};
use super::state::StateExport;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::metadata::td::TdFields;
use crate::metadata::{Accessor, write_list};

/// Fewest pages that a page list must have room for.
const MIN_PAGES: u64 = 2;

pub(crate) fn export(call: &Call<'_>, regs: &mut Gprs) -> Step {
    regs.rdx = 0;
    let owner = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let tdr = &owner.tdr;
    let states = const { op_states(TdhLeaf::EXPORT_STATE_TD) };
    let (tdcs, _state) = check_and_lock_state(tdr, states, Mode::Exclusive)?;
    let command = StreamCommand::new(regs.r10, 1)?.command();
    let stream = stream::lock_forward(&tdcs, 0)?;
    if !stream.is_initialized() {
        return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    let list = PageList::new(regs.r9);
    if command == Command::New {
        list.check_fields(MIN_PAGES)?;
    }
    let export = StateExport {
        call,
        session: Session(&tdcs),
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::TdState,
        what: StateCall { leaf: regs.rax, list: list.raw(), vcpu: 0 },
    };
    let place = export.place(command, 0)?;
    let entries = list.check_address(call)?;
    let fields = TdFields::new(call.machine, tdr, &tdcs);
    let list_of = |_, field| write_list(&fields, Accessor::Exporter(StateList::Mutable), field);
    let mbmd = regs.r8;
    export.write(regs, entries, place, 1, list_of, || MbmdBuffer::new(call, mbmd))?;
    export.count();
    Ok(())
}
