//! Two-operand arithmetic and logic, and the one-operand INC, DEC, NEG and NOT.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, Form, form, operands, width};
use crate::memory::FromBytes;
use crate::op::{Handler, Op};
use crate::stop::Step;
use x86_arch::{Width, flags::Flags};

/// A function of two operands that sets the arithmetic flags.
trait Binary: 'static {
    /// Whether the result goes to the destination.
    const WRITES: bool = true;
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W;
}

struct Add;
struct Adc;
struct Sub;
struct Sbb;
struct Cmp;
struct And;
struct Or;
struct Xor;
struct Test;

#[inline(always)]
pub(super) fn add_with<W: Width>(flags: &mut Flags, a: W, b: W, carry: u64) -> W {
    let (a, b) = (a.to64(), b.to64());
    let r = a.wrapping_add(b).wrapping_add(carry);
    flags.arithmetic(W::from64(r), W::from64(a & b | (a | b) & !r));
    W::from64(r)
}

#[inline(always)]
pub(super) fn sub_with<W: Width>(flags: &mut Flags, a: W, b: W, borrow: u64) -> W {
    let (a, b) = (a.to64(), b.to64());
    let r = a.wrapping_sub(b).wrapping_sub(borrow);
    flags.arithmetic(W::from64(r), W::from64(!a & b | !(a ^ b) & r));
    W::from64(r)
}

impl Binary for Add {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        add_with(flags, a, b, 0)
    }
}
impl Binary for Adc {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let carry = u64::from(flags.cf());
        add_with(flags, a, b, carry)
    }
}
impl Binary for Sub {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        sub_with(flags, a, b, 0)
    }
}
impl Binary for Sbb {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let borrow = u64::from(flags.cf());
        sub_with(flags, a, b, borrow)
    }
}
impl Binary for Cmp {
    const WRITES: bool = false;
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        sub_with(flags, a, b, 0)
    }
}
impl Binary for And {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let r = W::from64(a.to64() & b.to64());
        flags.logic(r);
        r
    }
}
impl Binary for Or {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let r = W::from64(a.to64() | b.to64());
        flags.logic(r);
        r
    }
}
impl Binary for Xor {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let r = W::from64(a.to64() ^ b.to64());
        flags.logic(r);
        r
    }
}
impl Binary for Test {
    const WRITES: bool = false;
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, b: W) -> W {
        let r = W::from64(a.to64() & b.to64());
        flags.logic(r);
        r
    }
}

fn reg_reg<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let (a, b) = (W::read(&cpu.state.regs, op.dst), W::read(&cpu.state.regs, op.src));
    let r = O::apply(&mut cpu.state.flags, a, b);
    if O::WRITES {
        W::write(&mut cpu.state.regs, op.dst, r);
    }
    Ok(())
}

fn reg_imm<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let a = W::read(&cpu.state.regs, op.dst);
    let r = O::apply(&mut cpu.state.flags, a, W::from64(op.imm));
    if O::WRITES {
        W::write(&mut cpu.state.regs, op.dst, r);
    }
    Ok(())
}

fn reg_mem<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b: W = cpu.load_operand(env, op)?;
    let a = W::read(&cpu.state.regs, op.dst);
    let r = O::apply(&mut cpu.state.flags, a, b);
    if O::WRITES {
        W::write(&mut cpu.state.regs, op.dst, r);
    }
    Ok(())
}

#[inline(always)]
fn memory_with<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, b: W) -> Step {
    if O::WRITES {
        cpu.update(env, op, |flags, a| O::apply(flags, a, b))
    } else {
        let a: W = cpu.load_operand(env, op)?;
        O::apply(&mut cpu.state.flags, a, b);
        Ok(())
    }
}

fn mem_reg<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = W::read(&cpu.state.regs, op.src);
    memory_with::<W, O>(cpu, env, op, b)
}

fn mem_imm<W: Width + FromBytes, O: Binary>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    memory_with::<W, O>(cpu, env, op, W::from64(op.imm))
}

fn binary<O: Binary>(i: &Instruction) -> Option<Handler> {
    let size = width(i, 0);
    match form(i)? {
        Form::RegReg => by_width!(size, reg_reg, O),
        Form::RegImm => by_width!(size, reg_imm, O),
        Form::RegMem => by_width!(size, reg_mem, O),
        Form::MemReg => by_width!(size, mem_reg, O),
        Form::MemImm => by_width!(size, mem_imm, O),
    }
}

/// One more, and the flags of it.
#[inline(always)]
fn incremented<W: Width>(flags: &mut Flags, a: W) -> W {
    let (a, b) = (a.to64(), 1);
    let r = a.wrapping_add(b);
    flags.arithmetic_keep_carry(W::from64(r), W::from64(a & b | (a | b) & !r));
    W::from64(r)
}

/// One less, and the flags of it.
#[inline(always)]
fn decremented<W: Width>(flags: &mut Flags, a: W) -> W {
    let (a, b) = (a.to64(), 1);
    let r = a.wrapping_sub(b);
    flags.arithmetic_keep_carry(W::from64(r), W::from64(!a & b | !(a ^ b) & r));
    W::from64(r)
}

fn inc<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.update(env, op, incremented::<W>)
}

fn inc_register<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.update_register(op, incremented::<W>);
    Ok(())
}

fn dec<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.update(env, op, decremented::<W>)
}

fn dec_register<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.update_register(op, decremented::<W>);
    Ok(())
}

fn neg<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.update(env, op, |flags, a: W| sub_with(flags, W::from64(0), a, 0))
}

fn not<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.update(env, op, |_, a: W| W::from64(!a.to64()))
}

fn xadd<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = W::read(&cpu.state.regs, op.src);
    if !op.writes_memory() {
        let old = W::read(&cpu.state.regs, op.dst);
        let sum = add_with(&mut cpu.state.flags, old, b, 0);
        // The sum is written last: it wins where both operands are one register.
        W::write(&mut cpu.state.regs, op.src, old);
        W::write(&mut cpu.state.regs, op.dst, sum);
        return Ok(());
    }
    let mut old = b;
    cpu.update(env, op, |flags, a: W| {
        old = a;
        add_with(flags, a, b, 0)
    })?;
    W::write(&mut cpu.state.regs, op.src, old);
    Ok(())
}

fn cmpxchg<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    const RAX: u8 = 0;
    let expected = W::read(&cpu.state.regs, RAX);
    let new = W::read(&cpu.state.regs, op.src);
    let mut found = expected;
    let mut equal = false;
    let mut compare = |flags: &mut Flags, old: W| {
        sub_with(flags, expected, old, 0);
        found = old;
        equal = old == expected;
        if equal { new } else { old }
    };
    if op.writes_memory() {
        cpu.update(env, op, compare)?;
    } else {
        let old = W::read(&cpu.state.regs, op.dst);
        let value = compare(&mut cpu.state.flags, old);
        if equal {
            W::write(&mut cpu.state.regs, op.dst, value);
        }
    }
    if !equal {
        W::write(&mut cpu.state.regs, RAX, found);
    }
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let size = width(i, 0);
    let run = match i.mnemonic() {
        Mnemonic::Add => binary::<Add>(i),
        Mnemonic::Adc => binary::<Adc>(i),
        Mnemonic::Sub => binary::<Sub>(i),
        Mnemonic::Sbb => binary::<Sbb>(i),
        Mnemonic::Cmp => binary::<Cmp>(i),
        Mnemonic::And => binary::<And>(i),
        Mnemonic::Or => binary::<Or>(i),
        Mnemonic::Xor => binary::<Xor>(i),
        Mnemonic::Test => binary::<Test>(i),
        Mnemonic::Inc if i.op0_kind() == OpKind::Register => by_width!(size, inc_register),
        Mnemonic::Inc => by_width!(size, inc),
        Mnemonic::Dec if i.op0_kind() == OpKind::Register => by_width!(size, dec_register),
        Mnemonic::Dec => by_width!(size, dec),
        Mnemonic::Neg => by_width!(size, neg),
        Mnemonic::Not => by_width!(size, not),
        Mnemonic::Xadd => by_width!(size, xadd),
        Mnemonic::Cmpxchg => by_width!(size, cmpxchg),
        _ => None,
    }?;
    Some(Decoded::plain(operands(i, run, long)))
}
