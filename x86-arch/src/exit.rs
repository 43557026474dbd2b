//! Why a VM exit happened, and what an EPT violation says of the access.
//!
//! Source: SDM volume 3, appendix "VMX basic exit reasons", and "Exit qualification for EPT violations"; reasons 76 and 77
//! are those of SEAM.

use core::fmt;

use tdvisor_base::open_enum;

open_enum! {
    /// A VMX basic exit reason, bits 15:0 (SDM, "VMX Basic Exit Reasons"; 76 and 77 are TDX's).
    pub enum ExitReason : u16 {
        /// Exception or NMI.
        EXCEPTION_NMI = 0, "exception or NMI";
        /// External interrupt.
        EXTERNAL_INTERRUPT = 1, "external interrupt";
        /// Triple fault.
        TRIPLE_FAULT = 2, "triple fault";
        /// INIT signal.
        INIT = 3, "INIT signal";
        /// Start-up IPI.
        SIPI = 4, "start-up IPI";
        /// I/O system-management interrupt.
        IO_SMI = 5, "I/O SMI";
        /// Other system-management interrupt.
        OTHER_SMI = 6, "SMI";
        /// Interrupt window.
        INTERRUPT_WINDOW = 7, "interrupt window";
        /// NMI window.
        NMI_WINDOW = 8, "NMI window";
        /// Task switch.
        TASK_SWITCH = 9, "task switch";
        /// CPUID.
        CPUID = 10, "CPUID";
        /// HLT.
        HLT = 12, "HLT";
        /// INVD.
        INVD = 13, "INVD";
        /// RDPMC.
        RDPMC = 15, "RDPMC";
        /// VMCALL.
        VMCALL = 18, "VMCALL";
        /// VMXON.
        VMXON = 27, "VMXON";
        /// Control-register access.
        CR_ACCESS = 28, "control-register access";
        /// Debug-register access.
        DR_ACCESS = 29, "debug-register access";
        /// Port I/O.
        IO_INSTRUCTION = 30, "I/O instruction";
        /// RDMSR.
        RDMSR = 31, "RDMSR";
        /// WRMSR.
        WRMSR = 32, "WRMSR";
        /// VM entry failed: invalid guest state.
        ENTRY_FAIL_GUEST_STATE = 33, "invalid guest state";
        /// VM entry failed: MSR loading.
        ENTRY_FAIL_MSR = 34, "MSR loading";
        /// MWAIT.
        MWAIT = 36, "MWAIT";
        /// MONITOR.
        MONITOR = 39, "MONITOR";
        /// PAUSE.
        PAUSE = 40, "PAUSE";
        /// VM entry failed: machine check.
        ENTRY_FAIL_MACHINE_CHECK = 41, "machine check";
        /// APIC access.
        APIC_ACCESS = 44, "APIC access";
        /// Virtualised EOI.
        VIRTUALIZED_EOI = 45, "virtualised EOI";
        /// EPT violation.
        EPT_VIOLATION = 48, "EPT violation";
        /// EPT misconfiguration.
        EPT_MISCONFIG = 49, "EPT misconfiguration";
        /// VMX preemption timer.
        PREEMPTION_TIMER = 52, "VMX preemption timer";
        /// WBINVD or WBNOINVD.
        WBINVD = 54, "WBINVD";
        /// XSETBV.
        XSETBV = 55, "XSETBV";
        /// APIC write.
        APIC_WRITE = 56, "APIC write";
        /// PCONFIG.
        PCONFIG = 65, "PCONFIG";
        /// Bus lock.
        BUS_LOCK = 74, "bus lock";
        /// Instruction timeout.
        NOTIFY = 75, "notify window";
        /// SEAMCALL.
        SEAMCALL = 76, "SEAMCALL";
        /// TDCALL: a TD exit by TDG.VP.VMCALL.
        TDCALL = 77, "TDCALL";
    }
}

/// The 32-bit exit reason field: basic reason and architectural flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ExitReasonField(pub u32);

impl ExitReasonField {
    /// Bit 26: a bus lock preempted the exit.
    pub const BUS_LOCK: u32 = 1 << 26;
    /// Bit 31: VM-entry failure.
    pub const ENTRY_FAILURE: u32 = 1 << 31;

    /// Bits 15:0.
    pub const fn basic(self) -> ExitReason {
        ExitReason(self.0 as u16)
    }

    /// Bit 31.
    pub const fn is_entry_failure(self) -> bool {
        self.0 & Self::ENTRY_FAILURE != 0
    }

    /// Bit 26.
    pub const fn is_bus_lock_preempted(self) -> bool {
        self.0 & Self::BUS_LOCK != 0
    }
}

impl fmt::Display for ExitReasonField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let basic = self.basic();
        match basic.name() {
            Some(name) => write!(f, "{name} ({})", basic.0)?,
            None => write!(f, "exit reason {}", basic.0)?,
        }
        if self.is_entry_failure() {
            f.write_str(", VM-entry failure")?;
        }
        if self.is_bus_lock_preempted() {
            f.write_str(", after a bus lock")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ExitReasonField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {self}", self.0)
    }
}

/// The exit qualification of an EPT violation (SDM). The module clears bits 12:7 for the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct EptViolation(pub u64);

impl EptViolation {
    /// Bit 0: a data read.
    pub const READ: u64 = 1 << 0;
    /// Bit 1: a data write.
    pub const WRITE: u64 = 1 << 1;
    /// Bit 2: an instruction fetch.
    pub const FETCH: u64 = 1 << 2;
    /// Bit 3: the page was readable.
    pub const WAS_READABLE: u64 = 1 << 3;
    /// Bit 4: the page was writable.
    pub const WAS_WRITABLE: u64 = 1 << 4;
    /// Bit 5: the page was executable.
    pub const WAS_EXECUTABLE: u64 = 1 << 5;
    /// Bit 7: the guest-linear address is valid.
    pub const GLA_VALID: u64 = 1 << 7;
    /// Bit 8: the access was to the translation of a linear address, not to a paging structure.
    pub const GLA_TRANSLATED: u64 = 1 << 8;
    /// Bit 12: an IRET had unblocked NMIs before.
    pub const NMI_UNBLOCKED: u64 = 1 << 12;
    /// Bits 12:7, hidden from the host.
    pub const HIDDEN_FROM_HOST: u64 = 0x3f << 7;

    /// What the module shows to the host.
    #[must_use]
    pub const fn for_host(self) -> Self {
        Self(self.0 & !Self::HIDDEN_FROM_HOST)
    }

    /// Whether the access was a read.
    pub const fn is_read(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether the access was a write.
    pub const fn is_write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Whether the access was an instruction fetch.
    pub const fn is_fetch(self) -> bool {
        self.0 & Self::FETCH != 0
    }

    /// Whether the entry granted any access.
    pub const fn was_present(self) -> bool {
        self.0 & (Self::WAS_READABLE | Self::WAS_WRITABLE | Self::WAS_EXECUTABLE) != 0
    }
}

impl fmt::Display for EptViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (mask, name) in [(Self::READ, "read"), (Self::WRITE, "write"), (Self::FETCH, "fetch")] {
            if self.0 & mask != 0 {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        if separator.is_empty() {
            f.write_str("no access type")?;
        }
        if self.was_present() { f.write_str(" of a present page") } else { f.write_str(" of an absent page") }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn an_ept_violation_loses_its_hidden_bits_for_the_host() {
        let raw = EptViolation(0x182);
        assert_eq!(raw.for_host().0, 2);
        assert_eq!(raw.for_host().to_string(), "write of an absent page");
    }

    #[test]
    fn an_exit_reason_prints_its_flags() {
        assert_eq!(ExitReasonField(0x8000_0021).to_string(), "invalid guest state (33), VM-entry failure");
        assert_eq!(ExitReasonField(200).to_string(), "exit reason 200");
    }
}
