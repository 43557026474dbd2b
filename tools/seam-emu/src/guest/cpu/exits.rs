//! What the CPU reports, as VM-exit information (SDM volume 3, "VM Exits", tables of exit qualifications).

use tdx_module_iface::exit::{EptViolation, ExitReason};
use x86_arch::{Event, InterruptionInfo, vector};
use x86_emu::exits::{CrAccess, CrOperation, DrAccess, TaskSwitch, TaskSwitchBy, VmxInstruction};
use x86_emu::{InstructionExit, Io, IoDirection, RefusedAccess, RefusedBy};

use crate::guest::{VmExit, reason};

/// An instruction that exits.
pub(super) fn instruction(what: InstructionExit, length: u8) -> VmExit {
    use InstructionExit as I;
    let plain = |reason: ExitReason| VmExit::instruction(reason, u32::from(length), 0);
    match what {
        I::Io(io) => port(&io, length),
        I::CrAccess(access) => {
            VmExit::instruction(ExitReason::CR_ACCESS, u32::from(length), control_register(&access))
        }
        I::DrAccess(access) => {
            VmExit::instruction(ExitReason::DR_ACCESS, u32::from(length), debug_register(&access))
        }
        I::Hlt => plain(ExitReason::HLT),
        I::Cpuid => plain(ExitReason::CPUID),
        I::Rdmsr { .. } => plain(ExitReason::RDMSR),
        I::Wrmsr { .. } => plain(ExitReason::WRMSR),
        I::Tdcall => plain(ExitReason::TDCALL),
        I::Seamcall | I::Seamret | I::Seamops => plain(ExitReason::SEAMCALL),
        I::Vmcall => plain(ExitReason::VMCALL),
        I::Vmx { what, .. } => plain(vmx(what)),
        I::Invd => plain(ExitReason::INVD),
        I::Wbinvd => plain(ExitReason::WBINVD),
        I::Monitor => plain(ExitReason::MONITOR),
        I::Mwait => plain(ExitReason::MWAIT),
        I::Pconfig => plain(ExitReason::PCONFIG),
        I::Sgx => plain(reason::ENCLS),
        I::Getsec => plain(reason::GETSEC),
        I::Rdpmc { .. } => plain(ExitReason::RDPMC),
        I::Xsetbv { .. } => plain(ExitReason::XSETBV),
        I::Pause => plain(ExitReason::PAUSE),
        I::TaskSwitch(switch) => task_switch(&switch, length),
    }
}

const fn vmx(which: VmxInstruction) -> ExitReason {
    match which {
        VmxInstruction::Vmxon => ExitReason::VMXON,
        VmxInstruction::Vmxoff => reason::VMXOFF,
        VmxInstruction::Vmclear => reason::VMCLEAR,
        VmxInstruction::Vmptrld => reason::VMPTRLD,
        VmxInstruction::Vmptrst => reason::VMPTRST,
        VmxInstruction::Vmread => reason::VMREAD,
        VmxInstruction::Vmwrite => reason::VMWRITE,
        VmxInstruction::Vmlaunch => reason::VMLAUNCH,
        VmxInstruction::Vmresume => reason::VMRESUME,
        VmxInstruction::Vmfunc => reason::VMFUNC,
        VmxInstruction::Invept => reason::INVEPT,
        VmxInstruction::Invvpid => reason::INVVPID,
    }
}

/// Bits 2:0 size - 1, 3 IN, 4 string, 5 REP, 6 immediate, 31:16 port.
fn port(io: &Io, length: u8) -> VmExit {
    const IN: u64 = 1 << 3;
    const STRING: u64 = 1 << 4;
    const REP: u64 = 1 << 5;
    const IMMEDIATE: u64 = 1 << 6;
    let mut qualification = u64::from(io.port) << 16 | u64::from(io.size.wrapping_sub(1) & 7);
    if io.direction == IoDirection::In {
        qualification |= IN;
    }
    if io.immediate {
        qualification |= IMMEDIATE;
    }
    let mut gla = 0;
    if let Some(string) = io.string {
        qualification |= STRING;
        if string.rep {
            qualification |= REP;
        }
        gla = string.address;
    }
    let mut exit = VmExit::instruction(ExitReason::IO_INSTRUCTION, u32::from(length), qualification);
    exit.gla = gla;
    exit
}

/// Bits 3:0 register, 5:4 kind (MOV to, MOV from, CLTS), 11:8 general register. LMSW reaches none of the bits
/// that a TD's module owns.
fn control_register(access: &CrAccess) -> u64 {
    const MOV_FROM: u64 = 1 << 4;
    const CLTS: u64 = 2 << 4;
    let register = u64::from(access.register);
    match access.operation {
        CrOperation::Write { gpr, .. } => register | u64::from(gpr) << 8,
        CrOperation::Read { gpr } => register | MOV_FROM | u64::from(gpr) << 8,
        CrOperation::Clts => CLTS,
    }
}

/// Bits 2:0 register, 4 MOV from, 11:8 general register.
fn debug_register(access: &DrAccess) -> u64 {
    let from = if access.write { 0 } else { 1 << 4 };
    u64::from(access.register) | from | u64::from(access.gpr) << 8
}

/// Bits 15:0 the TSS selector, 31:30 what asks for the switch. The event of a task gate in the IDT is under delivery.
fn task_switch(switch: &TaskSwitch, length: u8) -> VmExit {
    let source: u64 = match switch.by {
        TaskSwitchBy::Call => 0,
        TaskSwitchBy::Iret => 1,
        TaskSwitchBy::Jump => 2,
        TaskSwitchBy::Gate(_) => 3,
    };
    let qualification = u64::from(switch.selector) | source << 30;
    let mut exit = VmExit::instruction(ExitReason::TASK_SWITCH, u32::from(length), qualification);
    if let TaskSwitchBy::Gate(event) = switch.by {
        let vectoring = InterruptionInfo::pack(Some(event));
        exit.idt_vectoring_info = vectoring.info;
        exit.idt_vectoring_error = vectoring.error_code;
    }
    exit
}

/// An access that a second-stage walk or memory refused.
pub(super) fn refused(access: &RefusedAccess<VmExit>) -> VmExit {
    let mut exit = match access.by {
        RefusedBy::Memory(_) => {
            let mut exit = VmExit::plain(ExitReason::EXCEPTION_NMI);
            exit.interruption_info = InterruptionInfo::pack(Some(Event::exception(vector::MC))).info;
            exit
        }
        RefusedBy::Bus(mut exit) => {
            if exit.reason.basic() == ExitReason::EPT_VIOLATION {
                exit.gla = access.gla;
                exit.qualification |= EptViolation::GLA_VALID | EptViolation::GLA_TRANSLATED;
                if access.access.is_walk() {
                    exit.qualification &= !EptViolation::GLA_TRANSLATED;
                }
            }
            exit
        }
    };
    if access.idt_vectoring.is_some() {
        let vectoring = InterruptionInfo::pack(access.idt_vectoring);
        exit.idt_vectoring_info = vectoring.info;
        exit.idt_vectoring_error = vectoring.error_code;
        exit.instruction_length = vectoring.instruction_length;
    }
    exit
}
