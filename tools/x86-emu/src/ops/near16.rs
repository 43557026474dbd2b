//! Near branches outside 64-bit mode whose operand or counter is 16 bits wide (SDM vol. 2, Jcc, JMP, CALL, RET, LOOP).
//!
//! A branch that is taken clears the upper half of EIP; one that is not taken goes on at the next instruction.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Handler, Op, address, prefix};
use crate::stop::Step;
use x86_arch::{Seg, Width};

const RCX: u8 = 1;
const TARGET: u64 = 0xFFFF;
/// Bits of `aux` of a branch by a counter: what ends it.
const LOOP: u16 = 1;
const LOOPE: u16 = 2;
const LOOPNE: u16 = 3;
const KIND: u16 = 3;
/// The target of a branch by a counter is 16 bits wide.
const NARROW_TARGET: u16 = 4;

impl Cpu {
    fn jump16(&mut self, target: u64) -> Step {
        let target = target & TARGET;
        self.check_code_limit(target)?;
        self.state.set_rip(target);
        Ok(())
    }

    fn jump16_relative(&mut self, op: &Op) -> Step {
        self.jump16(self.state.rip().wrapping_add(op.imm))
    }
}

fn jmp(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.jump16_relative(op)
}

/// `aux` is the condition.
fn jcc(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if cpu.state.flags.condition(op.aux as u8) {
        cpu.jump16_relative(op)
    } else {
        cpu.jump_relative(op.end())
    }
}

fn count_branch(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let narrow_counter = op.prefix & prefix::ADDRESS16 != 0;
    let mask = if narrow_counter { 0xFFFF } else { 0xFFFF_FFFF };
    let kind = op.aux & KIND;
    let count = cpu.state.regs.slot(RCX);
    let left = if kind == 0 { count } else { count.wrapping_sub(1) } & mask;
    let taken = match kind {
        0 => left == 0,
        LOOP => left != 0,
        LOOPE => left != 0 && cpu.state.flags.zf(),
        _ => left != 0 && !cpu.state.flags.zf(),
    };
    if taken && op.aux & NARROW_TARGET != 0 {
        cpu.jump16_relative(op)?;
    } else {
        cpu.jump_relative(if taken { op.imm } else { op.end() })?;
    }
    if kind == 0 {
        return Ok(());
    }
    if narrow_counter {
        u16::write(&mut cpu.state.regs, RCX, left as u16);
    } else {
        cpu.state.regs.set_slot(RCX, left);
    }
    Ok(())
}

fn jmp_indirect(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target: u16 = cpu.target(env, op)?;
    cpu.jump16(target.into())
}

fn call(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = cpu.state.rip().wrapping_add(op.imm);
    call_to(cpu, env, op, target)
}

fn call_indirect(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target: u16 = cpu.target(env, op)?;
    call_to(cpu, env, op, target.into())
}

fn call_to(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, target: u64) -> Step {
    let back = cpu.return_address(op);
    cpu.check_code_limit(target & TARGET)?;
    cpu.push(env, back as u16)?;
    cpu.jump16(target)
}

fn ret(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (target, stack) = cpu.peek::<u16>(env)?;
    cpu.check_code_limit(target.into())?;
    cpu.set_stack(stack.wrapping_add(op.imm & 0xFFFF));
    cpu.jump16(target.into())
}

pub(super) fn decode(i: &Instruction) -> Option<Decoded> {
    use Mnemonic as M;
    let direct = i.op0_kind() == OpKind::NearBranch16;
    let mut aux = (i.condition_code() as u16).wrapping_sub(1);
    let mut counts = |kind: u16| {
        aux = kind | if direct { NARROW_TARGET } else { 0 };
        count_branch as Handler
    };
    let run: Handler = match i.mnemonic() {
        M::Jmp if direct => jmp,
        M::Jmp => jmp_indirect,
        M::Call if direct => call,
        M::Call => call_indirect,
        M::Ret => ret,
        M::Jcxz | M::Jecxz => counts(0),
        M::Loop => counts(LOOP),
        M::Loope => counts(LOOPE),
        M::Loopne => counts(LOOPNE),
        _ if i.is_jcc_short_or_near() => jcc,
        _ => return None,
    };
    let mut op = operands(i, run, false);
    op.aux = aux;
    if i.op0_kind() != OpKind::Memory {
        // What can go wrong then concerns the stack.
        op.address = op.address & !address::SEGMENT | Seg::Ss as u8;
    }
    let counting = matches!(i.mnemonic(), M::Jcxz | M::Jecxz | M::Loop | M::Loope | M::Loopne);
    if counting && i.code().op_code().address_size() == 16 {
        op.prefix |= prefix::ADDRESS16;
    }
    Some(Decoded::branch(op))
}
