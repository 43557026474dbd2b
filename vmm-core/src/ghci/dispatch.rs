//! From a request to what answers it.
//!
//! | request | answered by |
//! |---|---|
//! | GetTdVmCallInfo | [`info`] |
//! | MapGPA | [`super::map_gpa`] |
//! | GetQuote | [`super::get_quote`] |
//! | ReportFatalError | the TD ends |
//! | SetupEventNotifyInterrupt | the vCPU remembers the vector |
//! | CPUID | [`super::cpuid`]: the hypervisor's own leaves |
//! | HLT | the run loop: the vCPU sleeps |
//! | I/O, MMIO | the device at the address |
//! | RDMSR, WRMSR | [`super::msr`] |
//! | WBINVD | nothing: the module keeps TD memory coherent |

use base::Side;
use tdx_module_iface::ghci::CallStatus;

use super::get_quote::get_quote;
use super::map_gpa::map_gpa;
use super::{Reply, Request, cpuid, msr};
use crate::devices::DeviceRequest;
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::Platform;
use crate::td::topology::Topology;
use crate::td::{Ending, Td};
use crate::vcpu::Vcpu;

/// What the run loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Enter the guest with this reply.
    Reply(Reply),
    /// Sleep until something happens, then enter with success.
    Halt(Wake),
    /// The TD is over.
    End,
}

/// What ends a guest's sleep, beside requests of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Any interrupt.
    Interrupt,
    /// An NMI only: the guest sleeps with interrupts blocked.
    NmiOnly,
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
        Request::MapGpa { gpa, size } => {
            map_gpa(seat, shared_bit, gpa, size, || td.core().ending().is_some())?
        }
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
        Request::Cpuid { leaf, subleaf } => {
            let host = cpuid::Host {
                tsc_hz: td.tsc_hz(),
                topology: Topology { vcpus: td.vcpus().len() as u32 },
                x2apic_id: vcpu.index(),
            };
            let [eax, ebx, ecx, edx] = host.values(leaf, subleaf);
            Reply::cpuid(eax, ebx, ecx, edx)
        }
        Request::Hlt { interrupts_blocked: false } => return Ok(Answer::Halt(Wake::Interrupt)),
        Request::Hlt { interrupts_blocked: true } => return Ok(Answer::Halt(Wake::NmiOnly)),
        Request::PortRead { port, size } => {
            let value = td.devices().ports.read(port, size);
            td.deliver_lines()?;
            Reply::value(value)
        }
        Request::PortWrite { port, size, value } => {
            let request = td.devices().ports.write(port, size, value, td.memory());
            return after_device(td, request);
        }
        Request::ReadMsr { index } => msr::read(td, vcpu, index),
        Request::WriteMsr { index, value } => msr::write(td, vcpu, index, value)?,
        Request::MmioRead { gpa, size } => match shared_bit.split(gpa) {
            (Side::Shared, gpa) => {
                let value = td.devices().mmio.read(gpa, size);
                td.deliver_lines()?;
                Reply::value(value)
            }
            // Private memory has no devices.
            (Side::Private, _) => Reply::status(CallStatus::INVALID_OPERAND),
        },
        Request::MmioWrite { gpa, size, value } => match shared_bit.split(gpa) {
            (Side::Shared, gpa) => {
                let request = td.devices().mmio.write(gpa, size, value, td.memory());
                return after_device(td, request);
            }
            (Side::Private, _) => Reply::status(CallStatus::INVALID_OPERAND),
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

/// What a write to a device leaves to do: interrupts that it raised, or the end of the TD.
fn after_device<P: Platform>(td: &Td<'_, P>, request: DeviceRequest) -> Result<Answer, Error> {
    td.core().end(match request {
        DeviceRequest::None => {
            td.deliver_lines()?;
            return Ok(Answer::Reply(Reply::SUCCESS));
        }
        DeviceRequest::PowerOff { code } => Ending::PoweredOff { code },
        DeviceRequest::Reset => Ending::Reset,
        DeviceRequest::Panicked => Ending::Panicked,
    });
    Ok(Answer::End)
}
