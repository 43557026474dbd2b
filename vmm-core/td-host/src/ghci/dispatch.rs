//! From a request to what answers it.
//!
//! | request | answered by |
//! |---|---|
//! | GetTdVmCallInfo, MapGPA, GetQuote, SetupEventNotifyInterrupt, I/O, MMIO | whoever runs the vCPU: see [`VmExit`] |
//! | ReportFatalError | the TD ends |
//! | CPUID | [`super::cpuid`]: the hypervisor's own leaves |
//! | HLT | the run loop: the vCPU sleeps |
//! | RDMSR, WRMSR | [`super::msr`] |
//! | WBINVD | nothing: the module keeps TD memory coherent |
//! | PCONFIG | a refusal: no key of a TD is its guest's to choose, so no leaf is supported |

use tdvisor_base::Side;
use tdvisor_vm::topology::Topology;
use tdvisor_vm::{Answer, Partition, Transfer, VmExit};
use tdx_module_iface::ghci::CallStatus;

use super::{Reply, Request, cpuid, msr};
use crate::error::Error;
use crate::platform::Platform;
use crate::td::{Death, Ending, Td};
use crate::vcpu::Vcpu;

/// What the run loop does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// Enter the guest with this reply.
    Reply(Reply),
    /// Sleep until something happens, then enter with success.
    Halt(Wake),
    /// Somebody else has to answer.
    Exit(VmExit<Death>),
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

/// Answers one request of a vCPU, or says who has to.
pub(crate) fn respond<P: Platform>(
    td: &Td<'_, P>,
    vcpu: &Vcpu,
    request: &Request,
) -> Result<Response, Error> {
    let invalid = Response::Reply(Reply::status(CallStatus::INVALID_OPERAND));
    Ok(match *request {
        Request::GetTdVmCallInfo { leaf } => Response::Exit(VmExit::CallInfo { leaf }),
        Request::MapGpa { gpa, size } => Response::Exit(VmExit::MapGpa { gpa, size }),
        Request::GetQuote { gpa, size } => Response::Exit(VmExit::GetQuote { gpa, size }),
        Request::ReportFatalError(report) => {
            let message = report.text().collect();
            td.core().end(Ending::FatalError { code: (report.code & 0xffff_ffff) as u32, message });
            Response::End
        }
        Request::SetupEventNotifyInterrupt { vector } => Response::Exit(VmExit::EventNotify { vector }),
        Request::Cpuid { leaf, subleaf } => {
            let host = cpuid::Host {
                tsc_hz: td.tsc_hz(),
                topology: Topology { vcpus: td.vcpu_count() },
                x2apic_id: vcpu.index(),
            };
            let [eax, ebx, ecx, edx] = host.values(leaf, subleaf);
            Response::Reply(Reply::cpuid(eax, ebx, ecx, edx))
        }
        Request::Hlt { interrupts_blocked: false } => Response::Halt(Wake::Interrupt),
        Request::Hlt { interrupts_blocked: true } => Response::Halt(Wake::NmiOnly),
        Request::PortRead { port, size } => {
            Response::Exit(VmExit::Io { port, size, transfer: Transfer::Read })
        }
        Request::PortWrite { port, size, value } => {
            Response::Exit(VmExit::Io { port, size, transfer: Transfer::Write(value) })
        }
        Request::ReadMsr { index } => Response::Reply(msr::read(td, vcpu, index)),
        Request::WriteMsr { index, value } => Response::Reply(msr::write(td, vcpu, index, value)?),
        Request::MmioRead { gpa, size } => match td.shared_bit().split(gpa) {
            (Side::Shared, gpa) => Response::Exit(VmExit::Mmio { gpa, size, transfer: Transfer::Read }),
            // Private memory has no devices.
            (Side::Private, _) => invalid,
        },
        Request::MmioWrite { gpa, size, value } => match td.shared_bit().split(gpa) {
            (Side::Shared, gpa) => {
                Response::Exit(VmExit::Mmio { gpa, size, transfer: Transfer::Write(value) })
            }
            (Side::Private, _) => invalid,
        },
        Request::Wbinvd => Response::Reply(Reply::SUCCESS),
        // A processor without the leaf raises #GP: so does the guest for this answer.
        Request::Pconfig { leaf: _ } => invalid,
        Request::Vendor { .. } | Request::Unknown(_) => {
            Response::Reply(Reply::status(CallStatus::SUBFUNC_UNSUPPORTED))
        }
        Request::Malformed(_) => invalid,
    })
}

/// How a guest hears of what became of a request that somebody else answered.
pub(crate) fn reply_to(request: &Request, answer: Answer) -> Reply {
    let refusal = |status| match request {
        // It is told where the conversion stopped: at its first byte.
        Request::MapGpa { gpa, .. } => Reply::with_r11(status, gpa.get()),
        _ => Reply::status(status),
    };
    match answer {
        Answer::Done => Reply::SUCCESS,
        Answer::Value(value) => Reply::value(value),
        Answer::Retry(gpa) => Reply::with_r11(CallStatus::RETRY, gpa.get()),
        Answer::Invalid => refusal(CallStatus::INVALID_OPERAND),
        Answer::Misaligned => refusal(CallStatus::ALIGN_ERROR),
    }
}
