//! TDG.MR.REPORT (4): RCX buffer for the TDREPORT, RDX 64 bytes of report data, R8 subtype (0).
//!
//! SEAMREPORT, which makes TEE_TCB_INFO, CPUSVN and the MAC on hardware, is the platform's; ours has values and
//! a MAC key of its own and says so by MRSEAM and MRSIGNERSEAM of zero.

use tdx_module_iface::Operand;
use tdx_module_iface::report::TdReport;
use tdx_module_iface::tdg::align;
use zerocopy::IntoBytes;

use super::memory::{Use, check_operand, locate};
use super::{Call, End, Step, rtmr};
use crate::guest::GuestState;
use crate::host::invalid;
use crate::lock::Mode;
use crate::machine::Machine;
use crate::servtd::td_info;
use crate::td::Tdcs;
use x86_arch::Gpr;

/// TEE_TCB_INFO.VALID: TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM and ATTRIBUTES are valid.
const TCB_INFO_VALID: u64 = 0x301ff;

/// The security version of the emulated processor.
pub(super) const EMULATED_CPUSVN: [u8; 16] = [1; 16];

pub(super) fn report(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (rcx, rdx, subtype) = (state.regs[Gpr::Rcx], state.regs[Gpr::Rdx], state.regs[Gpr::R8]);
    let buffer = check_operand(call, rcx, align::REPORT, Operand::RCX)?;
    let data = check_operand(call, rdx, align::REPORT_DATA, Operand::RDX)?;
    let data = locate(call, state, data, Use::Read)?;
    if subtype != 0 {
        return Err(invalid(Operand::R8).into());
    }
    let _lock = rtmr::lock(call, Mode::Shared)?;
    let buffer = locate(call, state, buffer, Use::ReadWrite)?;
    let report_data: [u8; 64] = call.read(data)?;
    if call.vcpu.env.interrupt_pending() {
        return Err(End::Again);
    }
    call.write(buffer, build(call.vcpu.machine, call.vcpu.tdcs, &report_data).as_bytes())
}

/// Puts a TDREPORT together.
fn build(machine: &Machine, td: &Tdcs<'_>, report_data: &[u8; 64]) -> TdReport {
    let mut report = TdReport::zeroed();
    report.mac.cpu_svn = EMULATED_CPUSVN;
    report.mac.report_data = *report_data;
    report.tee_tcb_info.valid = TCB_INFO_VALID.into();
    report.td_info = td_info(td);
    report.seal(&machine.module.report_key);
    report
}
