//! TDH.MEM.TRACK (38): opens a new TD epoch. RCX TDR.

use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use crate::fields::FieldStore;
use crate::fields::layout::tdcs::TD_EPOCH;
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, busy, plain};
use crate::lock::{Mode, Side};

pub(in crate::host) fn track(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let states = const { op_states(TdhLeaf::MEM_TRACK) };
    let (tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let refused = busy(Operand::TD_EPOCH);
    let lock = tdcs.epoch_lock().ok_or(refused)?;
    let _epoch_lock = lock.acquire(Mode::Exclusive, Side::Host).map_err(|_| refused)?;
    let epoch = tdcs.epoch();
    if tdcs.refcount(epoch.wrapping_sub(1)) != 0 {
        return Err(plain(StatusCode::PREVIOUS_TLB_EPOCH_BUSY));
    }
    tdcs.store_u64(TD_EPOCH, epoch.wrapping_add(1));
    Ok(())
}
