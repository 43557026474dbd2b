//! TDH.EXPORT.ABORT (64): the TD runs on here. RCX TDR, R8 MBMD with the receiver's abort token once the in-order phase
//! is done and zero before, R10 zero.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::session::{self, Session};
use super::super::stream;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;

pub(crate) fn abort(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let states = const { op_states(TdhLeaf::EXPORT_ABORT) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Exclusive)?;
    let _lock = session::lock(&tdcs, Mode::Exclusive)?;
    if regs.r10 != 0 {
        return Err(invalid(Operand::R10));
    }
    if tdcs.op_state() == OpState::PostExport {
        check_token(call, Session(&tdcs), regs.r8)?;
    } else if regs.r8 != 0 {
        return Err(invalid(Operand::R8));
    }
    stream::forget_all(&tdcs);
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}

/// The receiver says that it gave up: without that, the TD might run twice.
fn check_token(call: &Call<'_>, session: Session<'_, '_>, r8: u64) -> Step {
    let token = MbmdBuffer::new(call, r8)?.read(call);
    if !token.is_of(BundleKind::AbortToken, session.version(), 0) || token.details.get() != 0 {
        return Err(plain(StatusCode::INVALID_MBMD));
    }
    let stream = stream::lock_backward(session.0)?;
    stream.initialize_once();
    stream.end_interruption();
    token.check_lone_tag(BundleKind::AbortToken, &session.receiving_key())
}
