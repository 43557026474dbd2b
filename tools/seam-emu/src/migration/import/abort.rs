//! TDH.IMPORT.ABORT (80): the import is given up; the token says so to the sender, whose TD may run on then. RCX TDR, R8
//! MBMD, R10 zero.

use tdx_module_iface::{Gprs, Operand, Status, TdhLeaf};

use super::super::mbmd::{BundleKind, Mbmd, MbmdBuffer};
use super::super::session::Session;
use super::super::stream;
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

pub(crate) fn abort(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::IMPORT_ABORT) })?;
    if regs.r10 != 0 {
        return Err(invalid(Operand::R10));
    }
    let buffer = MbmdBuffer::new(call, regs.r8)?;
    let stream = stream::lock_backward(&tdcs)?;
    let session = Session(&tdcs);
    stream.initialize_once();
    stream.end_interruption();
    let mut token = Mbmd::new(BundleKind::AbortToken, session.version(), 0);
    token.counter = stream.next().into();
    token.iv_counter = stream.next_iv().into();
    token.tag = token.lone_tag(BundleKind::AbortToken, &session.sending_key());
    buffer.write(call, &token);
    stream.set_next(stream.next().wrapping_add(1));
    // The call did what it should; the TD is lost all the same.
    Err(session.fail(Status::SUCCESS))
}
