//! TDG.MR.RTMR.EXTEND (2): RCX 48 bytes of private memory, RDX which register.

use sha2::{Digest, Sha384};
use tdx_module_iface::Operand;
use tdx_module_iface::tdg::{NUM_RTMRS, align};

use super::memory::{Use, check_operand, locate};
use super::{Call, End, Step};
use crate::fields::layout::tdcs::RTMR;
use crate::guest::GuestState;
use crate::host::invalid;
use crate::lock::{Busy, Guard, Mode, Side};
use x86_arch::Gpr;

/// Bytes of a register.
const RTMR_BYTES: u64 = 48;

pub(super) fn extend(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (rcx, index) = (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx]);
    let gpa = check_operand(call, rcx, align::RTMR_DATA, Operand::RCX)?;
    let place = locate(call, state, gpa, Use::Read)?;
    if index >= NUM_RTMRS {
        return Err(invalid(Operand::RDX).into());
    }
    let _lock = lock(call, Mode::Exclusive)?;
    let data: [u8; RTMR_BYTES as usize] = call.read(place)?;
    let offset = RTMR + (index * RTMR_BYTES) as u32;
    let mut old = [0; RTMR_BYTES as usize];
    call.vcpu.tdcs.load_bytes(offset, &mut old);
    let new = Sha384::new().chain_update(old).chain_update(data).finalize();
    call.vcpu.tdcs.store_bytes(offset, &new);
    Ok(())
}

/// Takes the lock of the run-time measurements.
pub(super) fn lock<'m>(call: &Call<'_, '_, 'm>, mode: Mode) -> Step<Guard<'m>> {
    let lock = call.vcpu.tdcs.rtmr_lock().ok_or(End::Busy(Operand::RTMR, Busy::Held))?;
    lock.acquire(mode, Side::Guest).map_err(|busy| End::Busy(Operand::RTMR, busy))
}
