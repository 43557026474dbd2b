//! Data movement without flags: MOV and its extending forms, LEA, XCHG, CMOVcc, SETcc, conversions of the
//! accumulator, and the flag instructions of one byte.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, Form, form, operands, width};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op, address, prefix};
use crate::stop::Step;
use x86_arch::{Width, flags};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;

fn mov_reg_reg<W: Width + FromBytes>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let value = W::read(&cpu.state.regs, op.src);
    W::write(&mut cpu.state.regs, op.dst, value);
    Ok(())
}
fn mov_reg_imm<W: Width + FromBytes>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    W::write(&mut cpu.state.regs, op.dst, W::from64(op.imm));
    Ok(())
}
fn mov_reg_mem<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if let Some(value) = cpu.quick_load_operand::<W>(env, op) {
        W::write(&mut cpu.state.regs, op.dst, value);
        return Ok(());
    }
    mov_reg_mem_slow::<W>(cpu, env, op)
}
#[inline(never)]
fn mov_reg_mem_slow<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.load_operand_slow(env, op)?;
    W::write(&mut cpu.state.regs, op.dst, value);
    Ok(())
}
fn mov_mem_reg<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = W::read(&cpu.state.regs, op.src);
    cpu.store_operand(env, op, value)
}
fn mov_mem_imm<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.store_operand(env, op, W::from64(op.imm))
}

fn mov(i: &Instruction) -> Option<Handler> {
    for n in 0..2 {
        let r = i.op_register(n);
        if i.op_kind(n) == OpKind::Register
            && (r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr())
        {
            return None;
        }
    }
    let size = width(i, 0);
    match form(i)? {
        Form::RegReg => by_width!(size, mov_reg_reg),
        Form::RegImm => by_width!(size, mov_reg_imm),
        Form::RegMem => by_width!(size, mov_reg_mem),
        Form::MemReg => by_width!(size, mov_mem_reg),
        Form::MemImm => by_width!(size, mov_mem_imm),
    }
}

fn zero_extend<S: Width + FromBytes, D: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: S = cpu.source(env, op)?;
    D::write(&mut cpu.state.regs, op.dst, D::from64(value.to64()));
    Ok(())
}
fn sign_extend<S: Width + FromBytes, D: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: S = cpu.source(env, op)?;
    D::write(&mut cpu.state.regs, op.dst, D::from64(value.sext64()));
    Ok(())
}

fn extend(i: &Instruction, signed: bool) -> Option<Handler> {
    match (signed, width(i, 0)) {
        (false, 2) => by_width!(width(i, 1), zero_extend, u16),
        (false, 4) => by_width!(width(i, 1), zero_extend, u32),
        (false, 8) => by_width!(width(i, 1), zero_extend, u64),
        (true, 2) => by_width!(width(i, 1), sign_extend, u16),
        (true, 4) => by_width!(width(i, 1), sign_extend, u32),
        (true, 8) => by_width!(width(i, 1), sign_extend, u64),
        _ => None,
    }
}

fn lea<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let address = cpu.effective(op);
    W::write(&mut cpu.state.regs, op.dst, W::from64(address));
    Ok(())
}

/// LEA with an address of 64 bits.
fn lea_wide<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let address = cpu.sum(op);
    W::write(&mut cpu.state.regs, op.dst, W::from64(address));
    Ok(())
}

fn xchg_reg_reg<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let (a, b) = (W::read(&cpu.state.regs, op.dst), W::read(&cpu.state.regs, op.src));
    W::write(&mut cpu.state.regs, op.dst, b);
    W::write(&mut cpu.state.regs, op.src, a);
    Ok(())
}
/// XCHG with memory is locked with or without the prefix.
fn xchg_mem<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let register = if op.writes_memory() { op.src } else { op.dst };
    let new = W::read(&cpu.state.regs, register);
    let linear = cpu.linear(op, W::BYTES, Intent::Write)?;
    let mut old = new;
    cpu.modify_locked(env, linear, |_, found: W| {
        old = found;
        new
    })?;
    W::write(&mut cpu.state.regs, register, old);
    Ok(())
}

fn cmov<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.source(env, op)?;
    let kept = W::read(&cpu.state.regs, op.dst);
    let value = if cpu.state.flags.condition(op.aux as u8) { value } else { kept };
    W::write(&mut cpu.state.regs, op.dst, value);
    Ok(())
}
fn setcc(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = u8::from(cpu.state.flags.condition(op.aux as u8));
    cpu.write_target(env, op, value)
}

/// CBW, CWDE, CDQE.
fn extend_accumulator<S: Width, D: Width>(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let value = S::read(&cpu.state.regs, RAX).sext64();
    D::write(&mut cpu.state.regs, RAX, D::from64(value));
    Ok(())
}
/// CWD, CDQ, CQO.
fn spread_sign<W: Width>(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let sign = (W::read(&cpu.state.regs, RAX).sext64() as i64 >> 63) as u64;
    W::write(&mut cpu.state.regs, RDX, W::from64(sign));
    Ok(())
}

/// NOP, and what is one on this CPU.
pub(crate) fn nothing(_: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    Ok(())
}
fn fence(_: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}
/// CLFLUSH and its kin: the line is translated as for a read.
fn flush_line(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.load_operand::<u8>(env, op).map(drop)
}

fn clc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.state.flags.set_cf(false);
    Ok(())
}
fn stc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.state.flags.set_cf(true);
    Ok(())
}
fn cmc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let carry = cpu.state.flags.cf();
    cpu.state.flags.set_cf(!carry);
    Ok(())
}
fn cld(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.state.flags.set_rest(cpu.state.flags.rest() & !flags::DF);
    Ok(())
}
fn std_flag(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.state.flags.set_rest(cpu.state.flags.rest() | flags::DF);
    Ok(())
}
const LAHF: u64 = flags::SF | flags::ZF | flags::AF | flags::PF | flags::CF;
fn lahf(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let value = cpu.state.flags.get() as u8;
    u8::write(&mut cpu.state.regs, x86_arch::registers::HIGH_BYTES, value);
    Ok(())
}
fn sahf(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let value = u64::from(u8::read(&cpu.state.regs, x86_arch::registers::HIGH_BYTES));
    cpu.state.flags.replace(LAHF, value);
    Ok(())
}

fn xlat(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let offset = cpu.state.regs.slot(RBX).wrapping_add(cpu.state.regs.slot(RAX) & 0xFF) & op.address_mask();
    let linear = cpu.linear_in(op, offset, 1, Intent::Read)?;
    let value: u8 = cpu.load(env, linear)?;
    u8::write(&mut cpu.state.regs, RAX, value);
    Ok(())
}

/// CMPXCHG8B and CMPXCHG16B; the halves are EDX:EAX and ECX:EBX or their 64-bit forms.
fn cmpxchg8b(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let pair =
        |cpu: &Cpu, high, low| cpu.state.regs.slot(high) << 32 | cpu.state.regs.slot(low) & 0xFFFF_FFFF;
    let expected = pair(cpu, RDX, RAX);
    let new = pair(cpu, RCX, RBX);
    let linear = cpu.linear(op, 8, Intent::Write)?;
    let found = cpu.exchange_if::<u64>(env, linear, expected, new)?;
    if found != expected {
        cpu.state.regs.set_slot(RAX, found & 0xFFFF_FFFF);
        cpu.state.regs.set_slot(RDX, found >> 32);
    }
    cpu.state.flags.set_zf(found == expected);
    Ok(())
}
fn cmpxchg16b(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let pair = |cpu: &Cpu, high, low| {
        u128::from(cpu.state.regs.slot(high)) << 64 | u128::from(cpu.state.regs.slot(low))
    };
    let expected = pair(cpu, RDX, RAX);
    let new = pair(cpu, RCX, RBX);
    let linear = cpu.linear(op, 16, Intent::Write)?;
    if linear & 15 != 0 {
        return Err(cpu.general_protection(0));
    }
    let found = cpu.exchange_if::<u128>(env, linear, expected, new)?;
    if found != expected {
        cpu.state.regs.set_slot(RAX, found as u64);
        cpu.state.regs.set_slot(RDX, (found >> 64) as u64);
    }
    cpu.state.flags.set_zf(found == expected);
    Ok(())
}

fn condition(i: &Instruction) -> u16 {
    // iced numbers conditions as the opcodes do, counting from 1.
    (i.condition_code() as u16).wrapping_sub(1)
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let size = width(i, 0);
    let conditional = condition(i);
    let run: Option<Handler> = match i.mnemonic() {
        M::Mov => mov(i),
        M::Movzx => extend(i, false),
        M::Movsx | M::Movsxd => extend(i, true),
        M::Lea => by_width!(size, lea),
        M::Xchg => match form(i)? {
            Form::RegReg => by_width!(size, xchg_reg_reg),
            _ => by_width!(size, xchg_mem),
        },
        M::Cmova
        | M::Cmovae
        | M::Cmovb
        | M::Cmovbe
        | M::Cmove
        | M::Cmovg
        | M::Cmovge
        | M::Cmovl
        | M::Cmovle
        | M::Cmovne
        | M::Cmovno
        | M::Cmovnp
        | M::Cmovns
        | M::Cmovo
        | M::Cmovp
        | M::Cmovs => {
            by_width!(size, cmov)
        }
        M::Seta
        | M::Setae
        | M::Setb
        | M::Setbe
        | M::Sete
        | M::Setg
        | M::Setge
        | M::Setl
        | M::Setle
        | M::Setne
        | M::Setno
        | M::Setnp
        | M::Setns
        | M::Seto
        | M::Setp
        | M::Sets => Some(setcc),
        M::Cbw => Some(extend_accumulator::<u8, u16>),
        M::Cwde => Some(extend_accumulator::<u16, u32>),
        M::Cdqe => Some(extend_accumulator::<u32, u64>),
        M::Cwd => Some(spread_sign::<u16>),
        M::Cdq => Some(spread_sign::<u32>),
        M::Cqo => Some(spread_sign::<u64>),
        M::Nop | M::Cldemote | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchnta => {
            Some(nothing)
        }
        M::Mfence | M::Lfence | M::Sfence => Some(fence),
        M::Clflush | M::Clflushopt | M::Clwb => Some(flush_line),
        M::Movnti | M::Movdiri => match size {
            4 => Some(mov_mem_reg::<u32>),
            _ => Some(mov_mem_reg::<u64>),
        },
        M::Clc => Some(clc),
        M::Stc => Some(stc),
        M::Cmc => Some(cmc),
        M::Cld => Some(cld),
        M::Std => Some(std_flag),
        M::Lahf => Some(lahf),
        M::Sahf => Some(sahf),
        M::Xlatb => Some(xlat),
        M::Cmpxchg8b => Some(cmpxchg8b),
        M::Cmpxchg16b => Some(cmpxchg16b),
        _ => None,
    };
    let mut op = operands(i, run?, long);
    op.aux = conditional;
    if i.mnemonic() == M::Xlatb {
        op.address = crate::decode::segment_bits(i.memory_segment(), long);
        op.set_address_size(i.memory_base().size());
    }
    if i.mnemonic() == M::Lea && op.address & address::NARROW == 0 {
        op.run = by_width!(size, lea_wide)?;
    }
    if size == 2 {
        op.prefix |= prefix::SIZE16;
    }
    Some(Decoded::plain(op))
}
