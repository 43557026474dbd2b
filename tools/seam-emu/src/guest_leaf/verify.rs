//! TDG.MR.VERIFYREPORT (22): whether a REPORTMACSTRUCT was made on this platform. RCX its 256 bytes.

use tdx_module_iface::tdg::align;
use tdx_module_iface::{Operand, Status, StatusCode};

use super::memory::{Use, check_operand, locate};
use super::report::{CPUSVN, EMULATED_CPUSVN, MAC_OFFSET, MAC_STRUCT_BYTES, mac};
use super::{Call, Step};
use crate::guest::GuestState;
use crate::machine::Machine;

pub(super) fn verify(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = state.gprs.rcx;
    let gpa = check_operand(call, rcx, align::REPORTMACSTRUCT, Operand::RCX)?;
    let place = locate(call, state, gpa, Use::Read)?;
    let bytes: [u8; MAC_STRUCT_BYTES] = call.read(place)?;
    check(call.vcpu.machine, &bytes)?;
    Ok(())
}

/// Whether a REPORTMACSTRUCT was made on this machine.
pub(crate) fn check(machine: &Machine, bytes: &[u8; MAC_STRUCT_BYTES]) -> Result<(), Status> {
    if bytes.get(CPUSVN) != Some(EMULATED_CPUSVN.as_slice()) {
        return Err(Status::new(StatusCode::INVALID_CPUSVN));
    }
    let (signed, tag) = bytes.split_at(MAC_OFFSET);
    if mac(machine, signed) != tag {
        return Err(Status::new(StatusCode::INVALID_REPORTMACSTRUCT));
    }
    Ok(())
}
