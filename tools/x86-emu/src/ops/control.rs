//! Near branches, calls and returns, and software interrupts.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::op::{Handler, Op, address, prefix};
use crate::stop::{Step, Stop};
use x86_arch::{Event, EventKind, Width, vector};

const RCX: u8 = 1;

impl Cpu {
    /// Jumps to a target given relative to the block.
    #[inline(always)]
    pub(super) fn jump_relative(&mut self, target: u64) -> Step {
        let target = self.state.rip().wrapping_add(target);
        if self.is_long_mode() {
            self.state.set_rip(target);
            // Targets are canonical unless code runs at the edge of the canonical range: the fetch faults
            // there, with the state that the jump leaves.
            Ok(())
        } else {
            let target = target & 0xFFFF_FFFF;
            self.check_code_limit(target)?;
            self.state.set_rip(target);
            Ok(())
        }
    }

    /// Checks an absolute target of a near branch.
    #[inline(always)]
    pub(crate) fn check_target(&mut self, target: u64) -> Result<u64, Stop> {
        if self.is_long_mode() {
            if self.canonical(target) { Ok(target) } else { Err(self.general_protection(0)) }
        } else {
            let target = target & 0xFFFF_FFFF;
            self.check_code_limit(target)?;
            Ok(target)
        }
    }

    /// The address behind an operation, as a return address.
    #[inline(always)]
    pub(crate) fn return_address(&self, op: &Op) -> u64 {
        let next = self.state.rip().wrapping_add(op.end());
        if self.is_long_mode() { next } else { next & 0xFFFF_FFFF }
    }
}

fn jmp(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.jump_relative(op.imm)
}

/// SERIALIZE: what follows is fetched anew, so a block ends here, and a turn with it.
fn serialize(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    cpu.attention = true;
    cpu.jump_relative(op.end())
}

fn jcc<const CODE: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let target = if cpu.state.flags.condition(CODE) { op.imm } else { op.end() };
    cpu.jump_relative(target)
}

/// JCXZ and LOOP: `aux` is 0 for JrCXZ, 1 LOOP, 2 LOOPE, 3 LOOPNE. SIZE64 selects RCX, else ECX.
fn count_branch(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let wide = op.prefix & prefix::SIZE64 != 0;
    let mask = if wide { u64::MAX } else { 0xFFFF_FFFF };
    let count = cpu.state.regs.slot(RCX);
    let left = if op.aux == 0 { count } else { count.wrapping_sub(1) } & mask;
    let taken = match op.aux {
        0 => left == 0,
        1 => left != 0,
        2 => left != 0 && cpu.state.flags.zf(),
        _ => left != 0 && !cpu.state.flags.zf(),
    };
    cpu.jump_relative(if taken { op.imm } else { op.end() })?;
    if op.aux != 0 {
        cpu.state.regs.set_slot(RCX, left);
    }
    Ok(())
}

fn target_operand(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<u64, Stop> {
    let target = if op.prefix & prefix::SIZE64 != 0 {
        cpu.target::<u64>(env, op)?
    } else {
        cpu.target::<u32>(env, op)?.to64()
    };
    cpu.check_target(target)
}

fn jmp_indirect(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = target_operand(cpu, env, op)?;
    cpu.state.set_rip(target);
    Ok(())
}

fn call(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let back = cpu.return_address(op);
    if !cpu.is_long_mode() {
        let target = cpu.state.rip().wrapping_add(op.imm) & 0xFFFF_FFFF;
        cpu.check_code_limit(target)?;
    }
    cpu.push_native(env, back)?;
    cpu.jump_relative(op.imm)
}

fn call_indirect(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = target_operand(cpu, env, op)?;
    let back = cpu.return_address(op);
    cpu.push_native(env, back)?;
    cpu.state.set_rip(target);
    Ok(())
}

fn ret(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (target, stack) = cpu.peek_native(env)?;
    let target = cpu.check_target(target)?;
    cpu.set_stack(stack.wrapping_add(op.imm & 0xFFFF));
    cpu.state.set_rip(target);
    Ok(())
}

fn int(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    Err(cpu.raise(Event::software(op.imm as u8, op.len)))
}

fn int3(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    Err(cpu.raise(Event {
        vector: vector::BP,
        kind: EventKind::SoftwareException,
        error_code: None,
        instruction_length: op.len,
    }))
}

fn int1(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    Err(cpu.raise(Event {
        vector: vector::DB,
        kind: EventKind::PrivilegedSoftwareException,
        error_code: None,
        instruction_length: op.len,
    }))
}

fn into(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    if !cpu.state.flags.of() {
        return cpu.jump_relative(op.end());
    }
    Err(cpu.raise(Event {
        vector: vector::OF,
        kind: EventKind::SoftwareException,
        error_code: None,
        instruction_length: op.len,
    }))
}

fn ud(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Err(cpu.undefined())
}

fn conditional(code: u8) -> Handler {
    match code & 15 {
        0 => jcc::<0>,
        1 => jcc::<1>,
        2 => jcc::<2>,
        3 => jcc::<3>,
        4 => jcc::<4>,
        5 => jcc::<5>,
        6 => jcc::<6>,
        7 => jcc::<7>,
        8 => jcc::<8>,
        9 => jcc::<9>,
        10 => jcc::<10>,
        11 => jcc::<11>,
        12 => jcc::<12>,
        13 => jcc::<13>,
        14 => jcc::<14>,
        _ => jcc::<15>,
    }
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let direct = matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let indirect = matches!(i.op0_kind(), OpKind::Register | OpKind::Memory) && i.op_count() == 1;
    let mut aux = 0;
    let narrow = i.op0_kind() == OpKind::NearBranch16
        || matches!(i.mnemonic(), M::Jmp | M::Call) && indirect && width(i, 0) == 2;
    let run: Handler = match i.mnemonic() {
        _ if narrow => return super::near16::decode(i),
        M::Jmp if direct => jmp,
        M::Jmp if indirect && !i.is_jmp_far_indirect() => jmp_indirect,
        M::Call if direct => call,
        M::Call if indirect && !i.is_call_far_indirect() => call_indirect,
        M::Ret if i.op_count() == 0 || i.op0_kind() == OpKind::Immediate16 => {
            let native = if long { 8 } else { 4 };
            let size = i.stack_pointer_increment() - i.immediate16() as i32 * i32::from(i.op_count() != 0);
            if size != native {
                return super::near16::decode(i).filter(|_| !long);
            }
            ret
        }
        M::Jcxz => return super::near16::decode(i),
        M::Loop | M::Loope | M::Loopne if i.code().op_code().address_size() == 16 => {
            return super::near16::decode(i);
        }
        M::Jecxz | M::Jrcxz => count_branch,
        M::Loop | M::Loope | M::Loopne => {
            aux = match i.mnemonic() {
                M::Loop => 1,
                M::Loope => 2,
                _ => 3,
            };
            count_branch
        }
        M::Int => int,
        M::Int3 => int3,
        M::Int1 => int1,
        M::Into => into,
        M::Serialize => serialize,
        M::Ud0 | M::Ud1 | M::Ud2 => ud,
        _ if i.is_jcc_short_or_near() => conditional((i.condition_code() as u8).wrapping_sub(1)),
        _ => return None,
    };
    let mut op = operands(i, run, long);
    op.aux = aux;
    if i.op0_kind() != OpKind::Memory {
        // What can go wrong then concerns the stack.
        op.address = op.address & !address::SEGMENT | x86_arch::Seg::Ss as u8;
    }
    let count_is_rcx = i.code().op_code().address_size() == 64;
    let wide =
        if aux != 0 || i.mnemonic() == M::Jecxz || i.mnemonic() == M::Jrcxz { count_is_rcx } else { long };
    if wide {
        op.prefix |= prefix::SIZE64;
    }
    Some(Decoded::branch(op))
}
