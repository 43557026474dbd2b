//! TDH.IMPORT.STATE.IMMUTABLE (85): begins an import. RCX TDR, R8 MBMD, R9 page list, R10 stream and command; RCX gets
//! the field at fault.

use tdx_module_iface::metadata::StateList;
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::export::immutable::MIN_STREAMS;
use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer};
use super::super::operands::{Command, StreamCommand};
use super::super::session::Session;
use super::super::stream::{self, StateCall, StatePlace};
use super::list::Reader;
use super::state::{Section, StateImport};
use super::td_fields::{SysTarget, TdTarget};
use crate::host::mem::Operands;
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;
use crate::metadata::sys::SysFields;
use crate::metadata::td::TdFields;

/// Fewest pages of the TD's own.
const MIN_TD_PAGES: u64 = 1;

/// The part of the MBMD that says what its kind says.
#[derive(Clone, Copy)]
struct Details {
    streams: u64,
    sys_pages: u64,
    reserved: u64,
}

impl Details {
    const fn new(header: &Mbmd) -> Self {
        let raw = header.details.get();
        Self { streams: raw & 0xffff, sys_pages: raw >> 32 & 0xff, reserved: raw & !0x00ff_0000_ffff }
    }
}

pub(crate) fn import(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let owner = lock_tdr(call, operands.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &owner.tdr;
    let tdcs = check_state(tdr, const { op_states(TdhLeaf::IMPORT_STATE_IMMUTABLE) })?;
    if stream::count(&tdcs) < MIN_STREAMS {
        return Err(plain(StatusCode::MIN_MIGS_NOT_CREATED));
    }
    let command = StreamCommand::new(regs.r10, 1)?.command();
    let stream = stream::lock_forward(&tdcs, 0)?;
    let session = Session(&tdcs);
    let import = StateImport {
        call,
        session,
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::ImmutableState,
        what: StateCall { leaf: regs.rax, list: regs.r9, vcpu: 0 },
        operands: [operands.rcx, operands.rdx],
    };
    let place = match command {
        Command::New => begin(&import, regs.r8)?,
        Command::Resume if !stream.is_initialized() => {
            return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
        }
        Command::Resume => import.resume()?,
    };
    let sys_pages = Details::new(&stream.mbmd()).sys_pages;
    let sys = SysTarget { fields: SysFields { config: call.machine.config() } };
    let fields = TdFields::new(call.machine, tdr, &tdcs);
    let td = TdTarget { call, fields, tdr, tdcs: &tdcs };
    let sections = [
        Section { reader: Reader::new(&sys, StateList::Immutable), pages: sys_pages },
        Section { reader: Reader::new(&td, StateList::Immutable), pages: u64::MAX },
    ];
    import.read(regs, MIN_TD_PAGES + sys_pages, place, &sections)?;
    if !td.finish_immutable() {
        return Err(session.fail(invalid(Operand::RDX)));
    }
    session.set_total(1);
    tdcs.set_op_state(OpState::MemoryImport);
    Ok(())
}

/// Begins the session. From here on the key is used up, and whatever is wrong ends the import.
fn begin(import: &StateImport<'_, '_>, r8: u64) -> Step<StatePlace> {
    let session = import.session;
    if !session.has_key() {
        return Err(plain(StatusCode::MIGRATION_DECRYPTION_KEY_NOT_SET));
    }
    session.begin(import.call);
    import.stream.initialize();
    let header = MbmdBuffer::new(import.call, r8).map_err(|status| session.fail(status))?.read(import.call);
    let details = Details::new(&header);
    let valid = header.is_of(BundleKind::ImmutableState, session.version(), 0)
        && header.counter.get() == 0
        && header.epoch.get() == 0
        && details.reserved == 0
        && details.sys_pages != 0;
    if !valid {
        return Err(session.fail(plain(StatusCode::INVALID_MBMD)));
    }
    if details.streams > stream::forward_count(session.0) {
        return Err(session.fail(plain(StatusCode::NUM_MIGS_HIGHER_THAN_CREATED)));
    }
    Ok(import.begin(&header))
}
