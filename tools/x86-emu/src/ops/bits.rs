//! Single bits, bit scans and byte swaps.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::memory::FromBytes;
use crate::op::{Handler, Intent, Op};
use crate::stop::Step;
use x86_arch::Width;
use x86_arch::flags::{self, Flags};

trait BitOp: 'static {
    const WRITES: bool = true;
    fn apply(value: u64, bit: u64) -> u64;
}
struct Bt;
struct Bts;
struct Btr;
struct Btc;
impl BitOp for Bt {
    const WRITES: bool = false;
    fn apply(value: u64, _: u64) -> u64 {
        value
    }
}
impl BitOp for Bts {
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}
impl BitOp for Btr {
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}
impl BitOp for Btc {
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// The bit offset comes from `src`, or from the immediate where `aux` is 1. A register offset into memory
/// reaches beyond the operand: it is signed and counts from the operand's address.
fn bit<W: Width + FromBytes, O: BitOp>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let number = if op.aux == 1 { op.imm } else { W::read(&cpu.state.regs, op.src).sext64() };
    let mask = 1u64 << (number & u64::from(W::BITS - 1));
    let test = |flags: &mut Flags, a: W| {
        flags.set_cf(a.to64() & mask != 0);
        W::from64(O::apply(a.to64(), mask))
    };
    if !op.has_memory() {
        let old = W::read(&cpu.state.regs, op.dst);
        let new = test(&mut cpu.state.flags, old);
        if O::WRITES {
            W::write(&mut cpu.state.regs, op.dst, new);
        }
        return Ok(());
    }
    let mut offset = cpu.effective(op);
    if op.aux == 0 {
        let words = (number as i64) >> W::BITS.trailing_zeros();
        offset = offset.wrapping_add((words as u64).wrapping_mul(W::BYTES));
        offset &= op.address_mask();
    }
    let intent = if O::WRITES { Intent::Write } else { Intent::Read };
    let linear = cpu.linear_in(op, offset, W::BYTES, intent)?;
    if !O::WRITES {
        let value: W = cpu.load(env, linear)?;
        test(&mut cpu.state.flags, value);
        Ok(())
    } else if op.locked() {
        cpu.modify_locked(env, linear, test)
    } else {
        cpu.modify(env, linear, test)
    }
}

/// BSF and BSR: a zero source sets ZF and leaves the destination as it was (the documented behaviour of
/// AMD, and that of Intel's processors).
fn bsf<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.source(env, op)?;
    scan(cpu, op, value, u64::from(value.to64().trailing_zeros()));
    Ok(())
}

fn bsr<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.source(env, op)?;
    scan(cpu, op, value, 63u64.wrapping_sub(u64::from(value.to64().leading_zeros())));
    Ok(())
}

fn scan<W: Width>(cpu: &mut Cpu, op: &Op, value: W, index: u64) {
    let zero = value.to64() == 0;
    if !zero {
        W::write(&mut cpu.state.regs, op.dst, W::from64(index));
    }
    cpu.state.flags.set_zf(zero);
}

fn lzcnt<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let count = u64::from(value.leading_zeros() - (64 - W::BITS));
    W::write(&mut cpu.state.regs, op.dst, W::from64(count));
    count_flags(&mut cpu.state.flags, value == 0, count == 0);
    Ok(())
}

fn count_flags(flags: &mut Flags, carry: bool, zero: bool) {
    let set = if carry { flags::CF } else { 0 } | if zero { flags::ZF } else { 0 };
    flags.replace(flags::CF | flags::ZF, set);
}

fn popcnt<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    W::write(&mut cpu.state.regs, op.dst, W::from64(u64::from(value.count_ones())));
    cpu.state.flags.replace(flags::ARITHMETIC, if value == 0 { flags::ZF } else { 0 });
    Ok(())
}

fn swapped<W: Width>(value: W) -> W {
    W::from64(value.to64().swap_bytes() >> (64 - W::BITS))
}

/// The manual leaves the result of 16 bits undefined; processors make it zero.
fn bswap16(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    u16::write(&mut cpu.state.regs, op.dst, 0);
    Ok(())
}
fn bswap<W: Width + FromBytes>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let value = W::read(&cpu.state.regs, op.dst);
    W::write(&mut cpu.state.regs, op.dst, swapped(value));
    Ok(())
}

fn movbe<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.source_or_register(env, op)?;
    cpu.write_target(env, op, swapped(value))
}

/// CRC-32C over `W`, bit by bit (polynomial 0x11EDC6F41, reflected).
fn crc32<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value: W = cpu.source(env, op)?;
    let mut crc = cpu.state.regs.slot(op.dst) as u32;
    for byte in value.to64().to_le_bytes().iter().take(W::BYTES as usize) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 };
        }
    }
    cpu.state.regs.set_slot(op.dst, u64::from(crc));
    Ok(())
}

impl Cpu {
    /// The source where the destination may be memory: then it is register `src`.
    fn source_or_register<W: Width + FromBytes>(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
    ) -> Result<W, crate::stop::Stop> {
        if op.writes_memory() { Ok(W::read(&self.state.regs, op.src)) } else { self.source(env, op) }
    }
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let size = width(i, 0);
    let run = match i.mnemonic() {
        Mnemonic::Bt => by_width!(size, bit, Bt),
        Mnemonic::Bts => by_width!(size, bit, Bts),
        Mnemonic::Btr => by_width!(size, bit, Btr),
        Mnemonic::Btc => by_width!(size, bit, Btc),
        Mnemonic::Bsf => by_width!(size, bsf),
        Mnemonic::Bsr => by_width!(size, bsr),
        Mnemonic::Lzcnt => by_width!(size, lzcnt),
        Mnemonic::Popcnt => by_width!(size, popcnt),
        Mnemonic::Bswap if size == 2 => Some(bswap16 as Handler),
        Mnemonic::Bswap => by_width!(size, bswap),
        Mnemonic::Movbe => by_width!(size, movbe),
        Mnemonic::Crc32 => by_width!(width(i, 1), crc32),
        _ => None,
    }?;
    let mut op = operands(i, run, long);
    if i.op_count() == 2 && i.op1_kind() == OpKind::Immediate8 {
        op.aux = 1;
    }
    Some(Decoded::plain(op))
}
