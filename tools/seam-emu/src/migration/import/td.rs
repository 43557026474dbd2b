//! TDH.IMPORT.STATE.TD (86): the state of the TD as it was paused. RCX TDR, R8 MBMD, R9 page list, R10 stream and
//! command; RCX gets the field at fault.

use tdx_module_iface::metadata::StateList;
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer};
use super::super::operands::{Command, StreamCommand};
use super::super::session::Session;
use super::super::stream::{self, StateCall, StatePlace};
use super::list::Reader;
use super::state::{Section, StateImport};
use super::td_fields::TdTarget;
use crate::host::mem::Operands;
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::metadata::td::TdFields;

const MIN_PAGES: u64 = 1;

pub(crate) fn import(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let owner = lock_tdr(call, operands.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &owner.tdr;
    let tdcs = check_state(tdr, const { op_states(TdhLeaf::IMPORT_STATE_TD) })?;
    let command = StreamCommand::new(regs.r10, 1)?.command();
    let stream = stream::lock_forward(&tdcs, 0)?;
    if !stream.is_initialized() {
        return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    let session = Session(&tdcs);
    let import = StateImport {
        call,
        session,
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::TdState,
        what: StateCall { leaf: regs.rax, list: regs.r9, vcpu: 0 },
        operands: [operands.rcx, operands.rdx],
    };
    let place = match command {
        Command::New => begin(&import, regs.r8)?,
        Command::Resume => import.resume()?,
    };
    let fields = TdFields::new(call.machine, tdr, &tdcs);
    let td = TdTarget { call, fields, tdr, tdcs: &tdcs };
    let list = Section { reader: Reader::new(&td, StateList::Mutable), pages: u64::MAX };
    import.read(regs, MIN_PAGES, place, &[list])?;
    session.count_bundle();
    tdcs.set_op_state(OpState::StateImport);
    Ok(())
}

/// Whether the MBMD is the next of the session, and says nothing where its kind has nothing to say.
pub(super) fn is_next(import: &StateImport<'_, '_>, header: &Mbmd) -> bool {
    header.is_of(import.kind, import.session.version(), import.stream.number)
        && header.counter.get() == import.stream.expected()
        && header.epoch.get() == import.session.epoch()
}

fn begin(import: &StateImport<'_, '_>, r8: u64) -> Step<StatePlace> {
    let session = import.session;
    import.stream.end_interruption();
    let header = MbmdBuffer::new(import.call, r8).map_err(|status| session.fail(status))?.read(import.call);
    if !is_next(import, &header) || header.details.get() != 0 {
        return Err(session.fail(plain(StatusCode::INVALID_MBMD)));
    }
    Ok(import.begin(&header))
}
