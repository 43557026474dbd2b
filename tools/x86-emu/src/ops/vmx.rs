//! Instructions that belong to whoever owns the CPU: VMX, SEAM, SGX and the like.
//!
//! No memory operand is read here, and no privilege is checked where the instruction's own rules are
//! not those of this CPU.

use iced_x86::{Instruction, Mnemonic};
use x86_arch::Gpr;

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::exits::{InstructionExit, VmxInstruction, VmxOperands, VmxPlace};
use crate::op::{Op, address};
use crate::stop::Step;

const EXITS: [(Mnemonic, InstructionExit); 10] = [
    (Mnemonic::Tdcall, InstructionExit::Tdcall),
    (Mnemonic::Seamcall, InstructionExit::Seamcall),
    (Mnemonic::Seamret, InstructionExit::Seamret),
    (Mnemonic::Seamops, InstructionExit::Seamops),
    (Mnemonic::Vmcall, InstructionExit::Vmcall),
    (Mnemonic::Encls, InstructionExit::Sgx),
    (Mnemonic::Enclu, InstructionExit::Sgx),
    (Mnemonic::Enclv, InstructionExit::Sgx),
    (Mnemonic::Getsec, InstructionExit::Getsec),
    (Mnemonic::Getsecq, InstructionExit::Getsec),
];

const VMX: [(Mnemonic, VmxInstruction); 12] = [
    (Mnemonic::Vmxon, VmxInstruction::Vmxon),
    (Mnemonic::Vmxoff, VmxInstruction::Vmxoff),
    (Mnemonic::Vmclear, VmxInstruction::Vmclear),
    (Mnemonic::Vmptrld, VmxInstruction::Vmptrld),
    (Mnemonic::Vmptrst, VmxInstruction::Vmptrst),
    (Mnemonic::Vmread, VmxInstruction::Vmread),
    (Mnemonic::Vmwrite, VmxInstruction::Vmwrite),
    (Mnemonic::Vmlaunch, VmxInstruction::Vmlaunch),
    (Mnemonic::Vmresume, VmxInstruction::Vmresume),
    (Mnemonic::Vmfunc, VmxInstruction::Vmfunc),
    (Mnemonic::Invept, VmxInstruction::Invept),
    (Mnemonic::Invvpid, VmxInstruction::Invvpid),
];

fn exit(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    match EXITS.get(op.aux as usize) {
        Some((_, what)) => Err(cpu.instruction_exit(*what)),
        None => Err(cpu.undefined()),
    }
}

fn vmx(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let Some((_, what)) = VMX.get(op.aux as usize) else { return Err(cpu.undefined()) };
    // Of VMREAD alone the first operand is ModRM.rm and the second one ModRM.reg.
    let (register, rm) = match what {
        VmxInstruction::Vmread => (op.src, op.dst),
        _ => (op.dst, op.src),
    };
    let place = if op.has_memory() {
        let based = op.address & (address::BASED | address::CHECKED) != 0;
        let base = if based { cpu.state.segment(op.segment()).base } else { 0 };
        // The owner's checks come before those of the operand, so that it is not looked at here.
        VmxPlace::Memory(base.wrapping_add(cpu.effective(op)))
    } else {
        VmxPlace::Register(Gpr::from_index(rm))
    };
    let operands = VmxOperands { register: Gpr::from_index(register), place };
    Err(cpu.instruction_exit(InstructionExit::Vmx { what: *what, operands }))
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let mnemonic = i.mnemonic();
    if let Some(index) = EXITS.iter().position(|row| row.0 == mnemonic) {
        let mut op = Op::new(exit);
        op.aux = index as u16;
        return Some(Decoded::plain(op));
    }
    let index = VMX.iter().position(|row| row.0 == mnemonic)?;
    let mut op = operands(i, vmx, long);
    op.aux = index as u16;
    Some(Decoded::plain(op))
}
