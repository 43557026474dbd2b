//! TDH.EXPORT.STATE.IMMUTABLE (72): begins a session. RCX TDR, R8 MBMD, R9 page list, R10 stream and command; RDX gets
//! the number of pages.

use tdx_module_iface::metadata::StateList;
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::td_params::attributes;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::operands::{Command, PageList, StreamCommand};
use super::super::session::{self, Session};
use super::super::stream::{self, StateCall, StatePlace};
use super::state::StateExport;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::metadata::sys::SysFields;
use crate::metadata::td::TdFields;
use crate::metadata::{Accessor, write_list};

/// Streams that a session needs: one for each direction.
pub(crate) const MIN_STREAMS: u64 = 2;
/// Fewest pages that a page list must have room for.
const MIN_PAGES: u64 = 3;
/// Pages of the module's own fields.
const SYS_PAGES: u64 = 1;
/// Most export sessions of a TD.
const MAX_EXPORTS: u32 = 0x7fff_ffff;
/// The lists of the bundle: the module's, the TD's.
const SYS: u8 = 0;
const LISTS: u8 = 2;

pub(crate) fn export(call: &Call<'_>, regs: &mut Gprs) -> Step {
    regs.rdx = 0;
    let owner = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let tdr = &owner.tdr;
    let states = const { op_states(TdhLeaf::EXPORT_STATE_IMMUTABLE) };
    let (tdcs, _state) = check_and_lock_state(tdr, states, Mode::Exclusive)?;
    let _lock = session::lock(&tdcs, Mode::Exclusive)?;
    let session = Session(&tdcs);
    if tdcs.attributes() & attributes::MIGRATABLE == 0 {
        return Err(plain(StatusCode::TD_NOT_MIGRATABLE));
    }
    if session.exported_pages() != 0 {
        return Err(plain(StatusCode::PREVIOUS_EXPORT_CLEANUP_INCOMPLETE));
    }
    if stream::count(&tdcs) < MIN_STREAMS {
        return Err(plain(StatusCode::MIN_MIGS_NOT_CREATED));
    }
    let buffer = MbmdBuffer::new(call, regs.r8)?;
    let command = StreamCommand::new(regs.r10, 1)?.command();
    let stream = stream::lock_forward(&tdcs, 0)?;
    let list = PageList::new(regs.r9);
    let export = StateExport {
        call,
        session,
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::ImmutableState,
        what: StateCall { leaf: regs.rax, list: list.raw(), vcpu: 0 },
    };
    let place = match command {
        Command::New => begin(&export, list)?,
        Command::Resume if !stream.is_initialized() => {
            return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
        }
        Command::Resume => export.resume()?,
    };
    let entries = list.check_address(call)?;
    let who = Accessor::Exporter(StateList::Immutable);
    let td_fields = TdFields::new(call.machine, tdr, &tdcs);
    let sys_fields = SysFields { config: call.machine.config() };
    let list_of = |section, field| match section {
        SYS => write_list(&sys_fields, who, field),
        _ => write_list(&td_fields, who, field),
    };
    export.write(regs, entries, place, LISTS, list_of, || Ok(buffer))?;
    session.set_total(1);
    stream.set_next(1);
    tdcs.set_op_state(OpState::LiveExport);
    Ok(())
}

/// Begins the session. From here on the key is used up, whatever comes of the call.
fn begin(export: &StateExport<'_, '_>, list: PageList) -> Step<StatePlace> {
    let (session, stream) = (export.session, export.stream);
    list.check_fields(MIN_PAGES)?;
    list.check_address(export.call)?;
    if !session.has_key() {
        return Err(plain(StatusCode::MIGRATION_DECRYPTION_KEY_NOT_SET));
    }
    session.begin(export.call);
    session.reset_dirty();
    stream.initialize();
    let place = export.begin((stream::forward_count(session.0)) | SYS_PAGES << 32);
    if session.exports() >= MAX_EXPORTS {
        return Err(plain(StatusCode::MAX_EXPORTS_EXCEEDED));
    }
    session.set_exports(session.exports() + 1);
    Ok(place)
}
