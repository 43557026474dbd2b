//! TDH.EXPORT.PAUSE (70): the TD stops for good, unless the session is aborted. RCX TDR.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

pub(crate) fn pause(call: &Call<'_>, regs: &Gprs) -> Step {
    // A running VCPU holds the TDR shared.
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::EXPORT_PAUSE) })?;
    // Should the TD run again, no VCPU keeps translations from before.
    tdcs.store_u64(tdcs::TD_EPOCH, tdcs.epoch().wrapping_add(1));
    tdcs.set_op_state(OpState::PausedExport);
    Ok(())
}
