//! TDG.MR.VERIFYREPORT (22): whether a REPORTMACSTRUCT was made on this platform. RCX its 256 bytes.

use tdx_module_iface::tdg::align;
use tdx_module_iface::{Operand, Status, StatusCode};

use super::memory::{Use, check_operand, locate};
use super::report::{CPUSVN, EMULATED_CPUSVN, MAC_OFFSET, MAC_STRUCT_BYTES, mac};
use super::{Call, Step};
use crate::guest::GuestState;

pub(super) fn verify(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = state.gprs.rcx;
    let gpa = check_operand(call, rcx, align::REPORTMACSTRUCT, Operand::RCX)?;
    let place = locate(call, state, gpa, Use::Read)?;
    let bytes: [u8; MAC_STRUCT_BYTES] = call.read(place)?;
    if bytes.get(CPUSVN) != Some(EMULATED_CPUSVN.as_slice()) {
        return Err(Status::new(StatusCode::INVALID_CPUSVN).into());
    }
    let (signed, tag) = bytes.split_at(MAC_OFFSET);
    if mac(call.vcpu.machine, signed) != tag {
        return Err(Status::new(StatusCode::INVALID_REPORTMACSTRUCT).into());
    }
    Ok(())
}
