//! TDH.MR.FINALIZE (17): ends the measurement and lets the TD run. RCX TDR.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use crate::fields::layout::tdcs::{MRTD, NUM_VCPUS, SERVTD_HASH};
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn finalize(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::MR_FINALIZE) })?;
    if tdcs.load(NUM_VCPUS, Width::B4) == 0 {
        return Err(plain(StatusCode::NO_VCPUS));
    }
    tdcs.store_bytes(MRTD, &call.machine.module.finish_mrtd(owner.tdr.hpa));
    tdcs.store_bytes(SERVTD_HASH, &crate::servtd::bindings_hash(&tdcs));
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}
