//! TDH.IMPORT.COMMIT (82): the TD may run here, before all of its memory is there. TDH.IMPORT.END (81): all of it is
//! there. RCX TDR.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::super::session::Session;
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

pub(crate) fn commit(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::IMPORT_COMMIT) })?;
    Session(&tdcs).count_import();
    tdcs.set_op_state(OpState::LiveImport);
    Ok(())
}

pub(crate) fn end(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::IMPORT_END) })?;
    if tdcs.op_state() != OpState::LiveImport {
        Session(&tdcs).count_import();
    }
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}
