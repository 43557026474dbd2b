//! A guest's TDG.VP.VMCALL as a typed request, and the host's answer.
//!
//! Parsing decides nothing about permission: it only refuses what has no meaning (a size of three bytes).
//! Register numbers are those of the GHCI specification; see [`tdx_module_iface::ghci`].

use tdvisor_base::Gpa;
use tdvisor_vm::AccessSize;
use tdx_module_iface::Gprs;
use tdx_module_iface::ghci::{CallStatus, FatalReport, Function, STANDARD};

/// What a guest asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// What the host offers.
    GetTdVmCallInfo {
        /// 0: the base functions; 1: which functions beyond them.
        leaf: u64,
    },
    /// Convert memory; the SHARED bit of `gpa` says to what.
    MapGpa {
        /// First byte.
        gpa: Gpa,
        /// Bytes.
        size: u64,
    },
    /// Turn the TDREPORT in a shared buffer into a quote.
    GetQuote {
        /// The buffer, SHARED bit set.
        gpa: Gpa,
        /// The size of the buffer, bytes.
        size: u64,
    },
    /// The guest gives up.
    ReportFatalError(FatalReport),
    /// Which vector tells the guest that an asynchronous request is done.
    SetupEventNotifyInterrupt {
        /// 32 to 255.
        vector: u64,
    },
    /// CPUID values that the module does not virtualise.
    Cpuid {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
    },
    /// Wait for an interrupt.
    Hlt {
        /// The guest cannot take interrupts: only something else will wake it.
        interrupts_blocked: bool,
    },
    /// IN.
    PortRead {
        /// The port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: AccessSize,
    },
    /// OUT.
    PortWrite {
        /// The port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: AccessSize,
        /// What to write.
        value: u64,
    },
    /// RDMSR.
    ReadMsr {
        /// ECX.
        index: u32,
    },
    /// WRMSR.
    WriteMsr {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// A load from emulated memory.
    MmioRead {
        /// The address, SHARED bit included.
        gpa: Gpa,
        /// Bytes.
        size: AccessSize,
    },
    /// A store to emulated memory.
    MmioWrite {
        /// The address, SHARED bit included.
        gpa: Gpa,
        /// Bytes.
        size: AccessSize,
        /// What to write.
        value: u64,
    },
    /// WBINVD.
    Wbinvd,
    /// PCONFIG.
    Pconfig {
        /// EAX: what to configure.
        leaf: u32,
    },
    /// A vendor's hypercall: R10 was not zero.
    Vendor {
        /// R10.
        number: u64,
    },
    /// A function that has no meaning here.
    Unknown(Function),
    /// A known function with arguments that have no meaning.
    Malformed(Function),
}

impl Request {
    /// Reads a request from the registers that the guest exposed.
    pub fn parse(gprs: &Gprs) -> Self {
        if gprs.r10 != STANDARD {
            return Self::Vendor { number: gprs.r10 };
        }
        let function = Function(gprs.r11);
        Self::parse_standard(function, gprs).unwrap_or(Self::Malformed(function))
    }

    /// `None` for arguments without meaning.
    fn parse_standard(function: Function, gprs: &Gprs) -> Option<Self> {
        Some(match function {
            Function::GET_TD_VM_CALL_INFO => Self::GetTdVmCallInfo { leaf: gprs.r12 },
            Function::MAP_GPA => Self::MapGpa { gpa: Gpa::new(gprs.r12), size: gprs.r13 },
            Function::GET_QUOTE => Self::GetQuote { gpa: Gpa::new(gprs.r12), size: gprs.r13 },
            Function::REPORT_FATAL_ERROR => Self::ReportFatalError(FatalReport::of(gprs)),
            Function::SETUP_EVENT_NOTIFY_INTERRUPT => Self::SetupEventNotifyInterrupt { vector: gprs.r12 },
            Function::CPUID => Self::Cpuid { leaf: low_half(gprs.r12), subleaf: low_half(gprs.r13) },
            Function::HLT => Self::Hlt { interrupts_blocked: gprs.r12 != 0 },
            Function::IO => {
                let size = AccessSize::from_bytes(gprs.r12).filter(|size| *size != AccessSize::Quad)?;
                let port = u16::try_from(gprs.r14).ok()?;
                match direction(gprs.r13)? {
                    Direction::Read => Self::PortRead { port, size },
                    Direction::Write => Self::PortWrite { port, size, value: gprs.r15 },
                }
            }
            Function::RDMSR => Self::ReadMsr { index: u32::try_from(gprs.r12).ok()? },
            Function::WRMSR => Self::WriteMsr { index: u32::try_from(gprs.r12).ok()?, value: gprs.r13 },
            Function::MMIO => {
                let size = AccessSize::from_bytes(gprs.r12)?;
                let gpa = Gpa::new(gprs.r14);
                match direction(gprs.r13)? {
                    Direction::Read => Self::MmioRead { gpa, size },
                    Direction::Write => Self::MmioWrite { gpa, size, value: gprs.r15 },
                }
            }
            Function::WBINVD => Self::Wbinvd,
            Function::PCONFIG => Self::Pconfig { leaf: low_half(gprs.r12) },
            other => Self::Unknown(other),
        })
    }
}

/// A 32-bit register, as a guest exposes it in a 64-bit one.
const fn low_half(register: u64) -> u32 {
    (register & 0xffff_ffff) as u32
}

enum Direction {
    Read,
    Write,
}

fn direction(value: u64) -> Option<Direction> {
    match value {
        0 => Some(Direction::Read),
        1 => Some(Direction::Write),
        _ => None,
    }
}

/// The host's answer: R10, and results in R11 to R15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// R10.
    pub status: CallStatus,
    /// R11 to R15.
    pub results: [u64; 5],
}

impl Reply {
    /// Success without results.
    pub const SUCCESS: Self = Self::status(CallStatus::SUCCESS);

    /// A status without results.
    pub const fn status(status: CallStatus) -> Self {
        Self { status, results: [0; 5] }
    }

    /// Success with one result in R11.
    pub const fn value(r11: u64) -> Self {
        Self { status: CallStatus::SUCCESS, results: [r11, 0, 0, 0, 0] }
    }

    /// A status with a result in R11.
    pub const fn with_r11(status: CallStatus, r11: u64) -> Self {
        Self { status, results: [r11, 0, 0, 0, 0] }
    }

    /// Success with CPUID values in R12 to R15.
    pub fn cpuid(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Self {
        Self { status: CallStatus::SUCCESS, results: [0, eax.into(), ebx.into(), ecx.into(), edx.into()] }
    }

    /// Puts the answer into the registers of the next VP.ENTER.
    pub fn store(&self, gprs: &mut Gprs) {
        gprs.r10 = self.status.0;
        [gprs.r11, gprs.r12, gprs.r13, gprs.r14, gprs.r15] = self.results;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: Function, r12: u64, r13: u64, r14: u64, r15: u64) -> Request {
        Request::parse(&Gprs { r11: function.0, r12, r13, r14, r15, ..Gprs::ZERO })
    }

    #[test]
    fn port_accesses_have_one_two_or_four_bytes_and_a_direction() {
        assert_eq!(
            call(Function::IO, 1, 1, 0x3f8, 0x41),
            Request::PortWrite { port: 0x3f8, size: AccessSize::Byte, value: 0x41 }
        );
        assert_eq!(
            call(Function::IO, 4, 0, 0xcf8, 0),
            Request::PortRead { port: 0xcf8, size: AccessSize::Double }
        );
        for bad in [(3, 0, 0), (8, 0, 0), (1, 2, 0), (1, 0, 0x1_0000)] {
            assert_eq!(
                call(Function::IO, bad.0, bad.1, bad.2, 0),
                Request::Malformed(Function::IO),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_guest_that_configures_keys_names_the_leaf() {
        assert_eq!(call(Function::PCONFIG, 0, 1, 2, 3), Request::Pconfig { leaf: 0 });
    }

    #[test]
    fn what_the_host_does_not_know_keeps_its_number() {
        let unknown = Request::parse(&Gprs { r11: 0x1_0077, ..Gprs::ZERO });
        assert_eq!(unknown, Request::Unknown(Function(0x1_0077)));
        assert_eq!(Request::parse(&Gprs { r10: 9, ..Gprs::ZERO }), Request::Vendor { number: 9 });
    }

    #[test]
    fn a_fatal_report_carries_its_text_in_registers() {
        let gprs = Gprs {
            r11: Function::REPORT_FATAL_ERROR.0,
            r14: u64::from_le_bytes(*b"out of m"),
            r15: u64::from_le_bytes(*b"emory\x01\0\0"),
            ..Gprs::ZERO
        };
        let Request::ReportFatalError(report) = Request::parse(&gprs) else { panic!("not a report") };
        assert_eq!(report.text().collect::<alloc::string::String>(), "out of memory?");
        assert_eq!(report.gpa, None);
    }
}
