//! TDG.MR.VERIFYREPORT (22): whether a REPORTMACSTRUCT was made on this platform. RCX its 256 bytes.

use tdx_module_iface::report::ReportMac;
use tdx_module_iface::tdg::align;
use tdx_module_iface::{Operand, Status, StatusCode};

use super::memory::{Use, check_operand, locate};
use super::report::EMULATED_CPUSVN;
use super::{Call, Step};
use crate::guest::GuestState;
use crate::machine::Machine;
use x86_arch::Gpr;

pub(super) fn verify(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let rcx = state.regs[Gpr::Rcx];
    let gpa = check_operand(call, rcx, align::REPORTMACSTRUCT, Operand::RCX)?;
    let place = locate(call, state, gpa, Use::Read)?;
    let bytes: [u8; size_of::<ReportMac>()] = call.read(place)?;
    check(call.vcpu.machine, &zerocopy::transmute!(bytes))?;
    Ok(())
}

/// Whether a REPORTMACSTRUCT was made on this machine.
pub(crate) fn check(machine: &Machine, report: &ReportMac) -> Result<(), Status> {
    if report.cpu_svn != EMULATED_CPUSVN {
        return Err(Status::new(StatusCode::INVALID_CPUSVN));
    }
    let invalid = |_| Status::new(StatusCode::INVALID_REPORTMACSTRUCT);
    report.check(&machine.module.report_key).map_err(invalid)
}
