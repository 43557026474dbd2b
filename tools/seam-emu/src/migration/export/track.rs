//! TDH.EXPORT.TRACK (71): begins a migration epoch, or ends the in-order phase (R10 bit 63). RCX TDR, R8 MBMD, R10
//! stream and command.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer};
use super::super::operands::StreamCommand;
use super::super::session::{self, OUT_OF_ORDER, Session};
use super::super::stream;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(crate) fn track(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let states = const { op_states(TdhLeaf::EXPORT_TRACK) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Exclusive)?;
    let _lock = session::lock(&tdcs, Mode::Exclusive)?;
    let session = Session(&tdcs);
    let in_order_is_done = StreamCommand::new(regs.r10, 1)?.flag;
    let buffer = MbmdBuffer::new(call, regs.r8)?;
    let stream = stream::lock_forward(&tdcs, 0)?;
    if !stream.is_initialized() {
        return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    if in_order_is_done {
        if tdcs.op_state() != OpState::PausedExport {
            return Err(plain(StatusCode::OP_STATE_INCORRECT));
        }
        if session.dirty() != 0 {
            return Err(plain(StatusCode::EXPORTED_DIRTY_PAGES_REMAIN));
        }
        session.set_epoch(OUT_OF_ORDER);
        tdcs.set_op_state(OpState::PostExport);
    } else {
        if session.epoch() >= OUT_OF_ORDER - 1 {
            return Err(plain(StatusCode::MIGRATION_EPOCH_OVERFLOW));
        }
        session.set_epoch(session.epoch() + 1);
    }
    stream.end_interruption();
    session.count_bundle();
    let mut token = Mbmd::new(BundleKind::EpochToken, session.version(), session.total());
    token.epoch = session.epoch().into();
    token.iv_counter = stream.next_iv().into();
    token.tag = token.lone_tag(BundleKind::EpochToken, &session.sending_key());
    buffer.write(call, &token);
    stream.set_next(1);
    Ok(())
}
