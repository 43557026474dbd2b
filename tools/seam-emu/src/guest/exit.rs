//! VM exits: what the processor reports when it leaves the guest (SDM volume 3, "VM Exits", appendix C).

use tdvisor_base::Gpa;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};

use x86_arch::Access;

/// Basic exit reasons that a TD can cause but never sees reported by name (SDM volume 3, appendix C).
#[expect(missing_docs, reason = "the names are those of the SDM's table of basic exit reasons")]
pub mod reason {
    use tdx_module_iface::exit::ExitReason;

    pub const GETSEC: ExitReason = ExitReason(11);
    pub const INVLPG: ExitReason = ExitReason(14);
    pub const RDTSC: ExitReason = ExitReason(16);
    pub const RSM: ExitReason = ExitReason(17);
    pub const VMCLEAR: ExitReason = ExitReason(19);
    pub const VMLAUNCH: ExitReason = ExitReason(20);
    pub const VMPTRLD: ExitReason = ExitReason(21);
    pub const VMPTRST: ExitReason = ExitReason(22);
    pub const VMREAD: ExitReason = ExitReason(23);
    pub const VMRESUME: ExitReason = ExitReason(24);
    pub const VMWRITE: ExitReason = ExitReason(25);
    pub const VMXOFF: ExitReason = ExitReason(26);
    pub const MONITOR_TRAP: ExitReason = ExitReason(37);
    pub const TPR_BELOW_THRESHOLD: ExitReason = ExitReason(43);
    pub const GDTR_IDTR_ACCESS: ExitReason = ExitReason(46);
    pub const LDTR_TR_ACCESS: ExitReason = ExitReason(47);
    pub const INVEPT: ExitReason = ExitReason(50);
    pub const RDTSCP: ExitReason = ExitReason(51);
    pub const INVVPID: ExitReason = ExitReason(53);
    pub const RDRAND: ExitReason = ExitReason(57);
    pub const INVPCID: ExitReason = ExitReason(58);
    pub const VMFUNC: ExitReason = ExitReason(59);
    pub const ENCLS: ExitReason = ExitReason(60);
    pub const RDSEED: ExitReason = ExitReason(61);
    pub const XSAVES: ExitReason = ExitReason(63);
    pub const XRSTORS: ExitReason = ExitReason(64);
    pub const UMWAIT: ExitReason = ExitReason(67);
    pub const TPAUSE: ExitReason = ExitReason(68);
    pub const LOADIWKEY: ExitReason = ExitReason(69);
    pub const ENCLV: ExitReason = ExitReason(70);
    pub const SGX_CONFLICT: ExitReason = ExitReason(71);
    /// Not of the SDM: the emulated processor met something that it does not implement. What it was is in
    /// [`Machine::limits`](crate::Machine::limits).
    pub const EMULATOR_LIMIT: ExitReason = ExitReason(u16::MAX);
    pub const ENQCMD: ExitReason = ExitReason(72);
    pub const ENQCMDS: ExitReason = ExitReason(73);
}

/// The exit-information fields of a VM exit. Fields that an exit does not define are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmExit {
    /// Why.
    pub reason: ExitReasonField,
    /// Exit qualification.
    pub qualification: u64,
    /// Guest-physical address of an EPT violation or misconfiguration.
    pub gpa: Gpa,
    /// Guest-linear address, where the qualification says that it is valid.
    pub gla: u64,
    /// VM-exit interruption information.
    pub interruption_info: u32,
    /// VM-exit interruption error code.
    pub interruption_error: u32,
    /// IDT-vectoring information: the event whose delivery was cut short.
    pub idt_vectoring_info: u32,
    /// IDT-vectoring error code.
    pub idt_vectoring_error: u32,
    /// VM-exit instruction length in bytes.
    pub instruction_length: u32,
    /// VM-exit instruction information.
    pub instruction_info: u32,
    /// Whether the EPT entry behind an EPT violation has its suppress-#VE bit set.
    pub suppress_ve: bool,
}

impl VmExit {
    /// An exit that defines nothing but its reason.
    pub const fn plain(reason: ExitReason) -> Self {
        Self {
            reason: ExitReasonField(reason.0 as u32),
            qualification: 0,
            gpa: Gpa::new(0),
            gla: 0,
            interruption_info: 0,
            interruption_error: 0,
            idt_vectoring_info: 0,
            idt_vectoring_error: 0,
            instruction_length: 0,
            instruction_info: 0,
            suppress_ve: true,
        }
    }

    /// An instruction of this length that exits.
    pub const fn instruction(reason: ExitReason, length: u32, qualification: u64) -> Self {
        let mut exit = Self::plain(reason);
        exit.instruction_length = length;
        exit.qualification = qualification;
        exit
    }

    /// A VM entry that failed: the guest did not run. `reason` without bit 31.
    pub const fn entry_failure(reason: ExitReason) -> Self {
        let mut exit = Self::plain(reason);
        exit.reason = ExitReasonField(reason.0 as u32 | ExitReasonField::ENTRY_FAILURE);
        exit
    }

    /// TDCALL.
    pub const fn tdcall() -> Self {
        Self::instruction(ExitReason::TDCALL, 4, 0)
    }

    /// An EPT violation at a translated linear address (qualification bits 7 and 8 set). `rights` are the
    /// rights that the EPT gives, in bits 2:0.
    pub const fn ept_violation(gpa: Gpa, gla: u64, access: Access, rights: u64) -> Self {
        let wanted = match access {
            Access::Read | Access::WalkRead => 1,
            Access::Write | Access::WalkWrite => 2,
            Access::Execute => 4,
        };
        let mut exit = Self::plain(ExitReason::EPT_VIOLATION);
        exit.qualification = 0x180 | wanted | (rights & 7) << 3;
        exit.gpa = gpa;
        exit.gla = gla;
        exit.instruction_length = 4;
        exit
    }
}
