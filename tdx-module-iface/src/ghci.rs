//! GHCI: what a guest asks of its host through `TDG.VP.VMCALL`.
//!
//! R10 = 0 means a GHCI function, whose number is in R11 and whose arguments are in R12 to R15; the host
//! answers with a status in R10 and results from R11 on. A non-zero R10 is a vendor's own call (Linux KVM:
//! the hypercall number).

use tdvisor_base::{Gpa, open_enum};

use crate::exit::ExitReason;
use crate::regs::Gprs;

/// R10 of a call that this interface defines.
pub const STANDARD: u64 = 0;

open_enum! {
    /// The function number in R11. Numbers below 0x10000 are VMX exit reasons: the guest asks the host to do
    /// what the instruction would have done.
    pub enum Function : u64 {
        /// CPUID: R12 leaf, R13 subleaf; answers R12 EAX, R13 EBX, R14 ECX, R15 EDX.
        CPUID = ExitReason::CPUID.0 as u64, "Instruction.CPUID";
        /// HLT: R12 is non-zero where interrupts are blocked.
        HLT = ExitReason::HLT.0 as u64, "Instruction.HLT";
        /// Port I/O: R12 size 1, 2 or 4; R13 0 read, 1 write; R14 port; R15 data; answers R11 data.
        IO = ExitReason::IO_INSTRUCTION.0 as u64, "Instruction.IO";
        /// RDMSR: R12 index; answers R11 value.
        RDMSR = ExitReason::RDMSR.0 as u64, "Instruction.RDMSR";
        /// WRMSR: R12 index, R13 value.
        WRMSR = ExitReason::WRMSR.0 as u64, "Instruction.WRMSR";
        /// MMIO: R12 size 1, 2, 4 or 8; R13 0 read, 1 write; R14 shared GPA; R15 data; answers R11 data.
        MMIO = ExitReason::EPT_VIOLATION.0 as u64, "#VE.RequestMMIO";
        /// WBINVD.
        WBINVD = ExitReason::WBINVD.0 as u64, "Instruction.WBINVD";
        /// PCONFIG.
        PCONFIG = ExitReason::PCONFIG.0 as u64, "Instruction.PCONFIG";
        /// R12 leaf 0 or 1; answers R11 to R14.
        GET_TD_VM_CALL_INFO = 0x1_0000, "GetTdVmCallInfo";
        /// R12 GPA (the SHARED bit says to what), R13 bytes; on RETRY or error R11 is the first GPA not
        /// converted.
        MAP_GPA = 0x1_0001, "MapGPA";
        /// R12 shared GPA of the request buffer, R13 its bytes.
        GET_QUOTE = 0x1_0002, "GetQuote";
        /// R12 code, R13 GPA of details; the message is in the other exposed registers.
        REPORT_FATAL_ERROR = 0x1_0003, "ReportFatalError";
        /// R12 vector, 32 to 255.
        SETUP_EVENT_NOTIFY_INTERRUPT = 0x1_0004, "SetupEventNotifyInterrupt";
        /// R12 shared GPA of the command, R13 of the response, R14 vector, R15 timeout.
        SERVICE = 0x1_0005, "Service";
        /// Functions for a migration TD; see [`MigTdFunction`].
        MIG_TD = 0x1_0006, "MigTD";
    }
}

impl Function {
    /// Whether this is a request to carry out an instruction rather than a service of the host.
    pub const fn is_instruction(self) -> bool {
        self.0 < 0x1_0000
    }
}

open_enum! {
    /// The sub-function of [`Function::MIG_TD`].
    pub enum MigTdFunction : u64 {
        /// Wait for a migration request.
        WAIT_FOR_REQUEST = 1, "MigTD.WaitForRequest";
        /// Report the outcome of a request.
        REPORT_STATUS = 2, "MigTD.ReportStatus";
        /// Send to the peer.
        SEND = 3, "MigTD.Send";
        /// Receive from the peer.
        RECEIVE = 4, "MigTD.Receive";
    }
}

open_enum! {
    /// The host's answer in R10.
    pub enum CallStatus : u64 {
        /// Done.
        SUCCESS = 0, "SUCCESS";
        /// Partly done: call again, for MapGPA from the address in R11.
        RETRY = 1, "RETRY";
        /// An argument is not valid.
        INVALID_OPERAND = 0x8000_0000_0000_0000, "INVALID_OPERAND";
        /// The GPA is in use.
        GPA_INUSE = 0x8000_0000_0000_0001, "GPA_INUSE";
        /// An address or size is not aligned.
        ALIGN_ERROR = 0x8000_0000_0000_0002, "ALIGN_ERROR";
        /// The host does not offer the function.
        SUBFUNC_UNSUPPORTED = 0x8000_0000_0000_0003, "SUBFUNC_UNSUPPORTED";
    }
}

/// ReportFatalError, R12 bit 63: R13 holds the GPA of a message.
pub const FATAL_ERROR_GPA_VALID: u64 = 1 << 63;

/// ReportFatalError, low half of R12: the guest panicked.
pub const FATAL_ERROR_PANIC: u32 = 0;

/// Bytes of the message that ReportFatalError carries in registers.
pub const FATAL_MESSAGE_BYTES: usize = 64;

/// What ReportFatalError says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatalReport {
    /// R12: the code in bits 31:0; bit 63 says that `gpa` is valid.
    pub code: u64,
    /// R13: a shared page with a longer message, where the code says so.
    pub gpa: Option<Gpa>,
    /// The message in R14, R15, RBX, RDI, RSI, R8, R9, RDX, in this order.
    pub message: [u8; FATAL_MESSAGE_BYTES],
}

impl FatalReport {
    /// The report in the registers that a guest exposed.
    pub fn of(gprs: &Gprs) -> Self {
        let words = [gprs.r14, gprs.r15, gprs.rbx, gprs.rdi, gprs.rsi, gprs.r8, gprs.r9, gprs.rdx];
        let mut message = [0; FATAL_MESSAGE_BYTES];
        for (bytes, word) in message.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let gpa = (gprs.r12 & FATAL_ERROR_GPA_VALID != 0).then(|| Gpa::new(gprs.r13));
        Self { code: gprs.r12, gpa, message }
    }

    /// The message up to its first NUL, with what is not printable ASCII replaced.
    pub fn text(&self) -> impl Iterator<Item = char> + '_ {
        self.message
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' })
    }
}

/// The register mask that Linux exposes for GHCI calls: RDX, RBX, RSI, RDI and R8 to R15.
pub const LINUX_REGISTER_MASK: u16 = 0xffcc;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn known_numbers_print_their_names_and_unknown_ones_their_number() {
        assert_eq!(Function(0x10002).to_string(), "GetQuote");
        assert_eq!(Function(0x10099).to_string(), "Function(0x10099)");
        assert!(Function::MMIO.is_instruction());
        assert!(!Function::MAP_GPA.is_instruction());
        assert_eq!(CallStatus(1).to_string(), "RETRY");
    }
}
