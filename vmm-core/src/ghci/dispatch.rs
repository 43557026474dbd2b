//! From a request to what answers it.
//!
//! | request | answered by |
//! |---|---|
//! | GetTdVmCallInfo | [`info`] |
//! | MapGPA | [`super::map_gpa`] |
//! | GetQuote | [`super::get_quote`] |
//! | ReportFatalError | the TD ends |
//! | SetupEventNotifyInterrupt | the vCPU remembers the vector |
//! | CPUID | zeros: the module virtualises what a TD needs to know |
//! | HLT | the run loop: the vCPU sleeps |
//! | I/O, MMIO | the device at the address |
//! | RDMSR, WRMSR | [`super::msr`] |
//! | WBINVD | nothing: the module keeps TD memory coherent |

use tdx_module_iface::ghci::CallStatus;

use super::get_quote::get_quote;
use super::map_gpa::map_gpa;
use super::{Reply, Request, msr};
use crate::devices::DeviceRequest;
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::Platform;
use crate::td::Td;
use crate::td::core::Ending;
use crate::vcpu::Vcpu;

/// What the run loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Enter the guest with this reply.
    Reply(Reply),
    /// Sleep until something happens, then enter with success.
    Halt,
    /// The TD is over.
    End,
}

/// Leaf 1 of GetTdVmCallInfo: GetQuote and SetupEventNotifyInterrupt are offered.
const OFFERED_BEYOND_BASE: u64 = 0b11;

/// Answers one request of a vCPU.
pub(crate) fn answer<'h, P: Platform>(
    td: &Td<'h, P>,
    vcpu: &Vcpu,
    seat: &mut Seat<'_, 'h, P>,
    request: &Request,
) -> Result<Answer, Error> {
    let shared_bit = td.shared_bit();
    Ok(Answer::Reply(match *request {
        Request::GetTdVmCallInfo { leaf } => info(leaf),
        Request::MapGpa { gpa, size } => map_gpa(seat, shared_bit, gpa, size)?,
        Request::GetQuote { gpa, size } => {
            let reply = get_quote(td.memory(), td.quotes(), shared_bit, gpa, size);
            if let (CallStatus::SUCCESS, Some(vector)) = (reply.status, vcpu.notify_vector()) {
                td.post_interrupt(vcpu.index(), vector)?;
            }
            reply
        }
        Request::ReportFatalError(report) => {
            let message = report.text().collect();
            td.core().end(Ending::FatalError { code: report.code as u32, message });
            return Ok(Answer::End);
        }
        Request::SetupEventNotifyInterrupt { vector } => match u8::try_from(vector) {
            Ok(vector @ 32..) => {
                vcpu.set_notify_vector(vector);
                Reply::SUCCESS
            }
            _ => Reply::status(CallStatus::INVALID_OPERAND),
        },
        Request::Cpuid { .. } => Reply::cpuid(0, 0, 0, 0),
        Request::Hlt { .. } => return Ok(Answer::Halt),
        Request::PortRead { port, size } => Reply::value(td.devices().ports.read(port, size)),
        Request::PortWrite { port, size, value } => {
            return Ok(after_device(td, td.devices().ports.write(port, size, value)));
        }
        Request::ReadMsr { index } => msr::read(index),
        Request::WriteMsr { index, value } => msr::write(index, value),
        Request::MmioRead { gpa, size } => match without_shared_bit(gpa, shared_bit) {
            Some(gpa) => Reply::value(td.devices().mmio.read(gpa, size)),
            None => Reply::status(CallStatus::INVALID_OPERAND),
        },
        Request::MmioWrite { gpa, size, value } => match without_shared_bit(gpa, shared_bit) {
            Some(gpa) => return Ok(after_device(td, td.devices().mmio.write(gpa, size, value))),
            None => Reply::status(CallStatus::INVALID_OPERAND),
        },
        Request::Wbinvd => Reply::SUCCESS,
        Request::Vendor { .. } | Request::Unknown(_) => Reply::status(CallStatus::SUBFUNC_UNSUPPORTED),
        Request::Malformed(_) => Reply::status(CallStatus::INVALID_OPERAND),
    }))
}

/// GetTdVmCallInfo: leaf 0 has nothing beyond success, leaf 1 lists what is offered beyond the base.
fn info(leaf: u64) -> Reply {
    match leaf {
        0 => Reply::SUCCESS,
        1 => Reply::value(OFFERED_BEYOND_BASE),
        _ => Reply::status(CallStatus::INVALID_OPERAND),
    }
}

fn after_device<P: Platform>(td: &Td<'_, P>, request: DeviceRequest) -> Answer {
    match request {
        DeviceRequest::None => Answer::Reply(Reply::SUCCESS),
        DeviceRequest::PowerOff { code } => {
            td.core().end(Ending::PoweredOff { code });
            Answer::End
        }
    }
}

/// An MMIO address without its SHARED bit; private memory has no devices.
fn without_shared_bit(gpa: base::Gpa, shared_bit: u64) -> Option<base::Gpa> {
    (gpa.get() & shared_bit != 0).then(|| base::Gpa::new(gpa.get() & !shared_bit))
}
