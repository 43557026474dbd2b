//! Instructions that belong to whoever owns the CPU: VMX, SEAM, SGX and the like.
//!
//! None of their operands is read here, and no privilege is checked where the instruction's own rules are
//! not those of this CPU.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Env};
use crate::decode::Decoded;
use crate::exits::{InstructionExit, VmxInstruction};
use crate::op::Op;
use crate::stop::Step;

const EXITS: [(Mnemonic, InstructionExit); 22] = [
    (Mnemonic::Tdcall, InstructionExit::Tdcall),
    (Mnemonic::Seamcall, InstructionExit::Seamcall),
    (Mnemonic::Seamret, InstructionExit::Seamret),
    (Mnemonic::Seamops, InstructionExit::Seamops),
    (Mnemonic::Vmcall, InstructionExit::Vmcall),
    (Mnemonic::Vmxon, InstructionExit::Vmx(VmxInstruction::Vmxon)),
    (Mnemonic::Vmxoff, InstructionExit::Vmx(VmxInstruction::Vmxoff)),
    (Mnemonic::Vmclear, InstructionExit::Vmx(VmxInstruction::Vmclear)),
    (Mnemonic::Vmptrld, InstructionExit::Vmx(VmxInstruction::Vmptrld)),
    (Mnemonic::Vmptrst, InstructionExit::Vmx(VmxInstruction::Vmptrst)),
    (Mnemonic::Vmread, InstructionExit::Vmx(VmxInstruction::Vmread)),
    (Mnemonic::Vmwrite, InstructionExit::Vmx(VmxInstruction::Vmwrite)),
    (Mnemonic::Vmlaunch, InstructionExit::Vmx(VmxInstruction::Vmlaunch)),
    (Mnemonic::Vmresume, InstructionExit::Vmx(VmxInstruction::Vmresume)),
    (Mnemonic::Vmfunc, InstructionExit::Vmx(VmxInstruction::Vmfunc)),
    (Mnemonic::Invept, InstructionExit::Vmx(VmxInstruction::Invept)),
    (Mnemonic::Invvpid, InstructionExit::Vmx(VmxInstruction::Invvpid)),
    (Mnemonic::Encls, InstructionExit::Sgx),
    (Mnemonic::Enclu, InstructionExit::Sgx),
    (Mnemonic::Enclv, InstructionExit::Sgx),
    (Mnemonic::Getsec, InstructionExit::Getsec),
    (Mnemonic::Getsecq, InstructionExit::Getsec),
];

fn exit(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    match EXITS.get(op.aux as usize) {
        Some((_, what)) => Err(cpu.instruction_exit(*what)),
        None => Err(cpu.undefined()),
    }
}

pub(super) fn decode(i: &Instruction) -> Option<Decoded> {
    let index = EXITS.iter().position(|(mnemonic, _)| *mnemonic == i.mnemonic())?;
    let mut op = Op::new(exit);
    op.aux = index as u16;
    Some(Decoded::plain(op))
}
