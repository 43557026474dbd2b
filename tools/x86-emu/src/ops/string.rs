//! MOVS, STOS, LODS, SCAS and CMPS.
//!
//! # Invariants
//! - Registers move on with every iteration, so a fault or an interrupt between two leaves a state from
//!   which the instruction goes on.
//! - REP MOVS and REP STOS move whole pieces of pages where the direction is upwards and the pieces do not
//!   overlap in a way that the order of bytes would show.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use tdvisor_base::sync::Ordering;

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, segment_bits, width};
use crate::memory::{FromBytes, Target};
use crate::op::{Handler, Intent, Op, address, prefix};
use crate::paging::Want;
use crate::stop::{Reason, Step, Stop};
use x86_arch::{Seg, Width, flags};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Iterations after which other things get their turn.
const QUOTA: u32 = 1024;
const PAGE: u64 = 4096;

/// Writes a counter or index as wide as an address; a 16-bit one keeps the rest of its register.
pub(super) fn set_counter(cpu: &mut Cpu, op: &Op, register: u8, value: u64) {
    let kept = if op.prefix & prefix::ADDRESS16 != 0 { cpu.state.regs.slot(register) & !0xFFFF } else { 0 };
    cpu.state.regs.set_slot(register, kept | value & op.address_mask());
}

/// Moves an index register by a signed number of bytes.
fn advance(cpu: &mut Cpu, op: &Op, register: u8, bytes: u64) {
    let moved = if cpu.state.flags.rest() & flags::DF != 0 {
        cpu.state.regs.slot(register).wrapping_sub(bytes)
    } else {
        cpu.state.regs.slot(register).wrapping_add(bytes)
    };
    set_counter(cpu, op, register, moved);
}

fn source_linear(cpu: &mut Cpu, op: &Op, bytes: u64) -> Result<u64, Stop> {
    let offset = cpu.state.regs.slot(RSI) & op.address_mask();
    cpu.linear_in(op, offset, bytes, Intent::Read)
}

fn target_linear(cpu: &mut Cpu, op: &Op, bytes: u64, intent: Intent) -> Result<u64, Stop> {
    let offset = cpu.state.regs.slot(RDI) & op.address_mask();
    if op.address & address::CHECKED != 0 {
        return cpu.checked_linear(Seg::Es, offset, bytes, intent);
    }
    Ok(offset)
}

/// Whether a repetition ends after an iteration.
fn compared_enough(cpu: &Cpu, op: &Op) -> bool {
    if op.prefix & prefix::REP != 0 { !cpu.state.flags.zf() } else { cpu.state.flags.zf() }
}

/// Repeats `once`, which does one or more iterations and says how many.
fn repeat(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    compares: Repeat,
    once: impl Fn(&mut Cpu, &mut Env<'_>, &Op, u64) -> Result<u64, Stop>,
) -> Step {
    if op.prefix & (prefix::REP | prefix::REPNE) == 0 {
        return once(cpu, env, op, 1).map(drop);
    }
    let stepped = cpu.state.flags.rest() & flags::TF != 0;
    for _ in 0..QUOTA {
        let count = cpu.state.regs.slot(RCX) & op.address_mask();
        if count == 0 {
            return Ok(());
        }
        let done = once(cpu, env, op, if stepped { 1 } else { count })?;
        set_counter(cpu, op, RCX, count.wrapping_sub(done));
        if compares == Repeat::UntilCompared && compared_enough(cpu, op) {
            return Ok(());
        }
        if env.kick.load(Ordering::Relaxed) || cpu.attention || stepped {
            break;
        }
    }
    if cpu.state.regs.slot(RCX) & op.address_mask() == 0 {
        return Ok(());
    }
    // An event between two iterations pushes RF: what has begun does not meet its breakpoint again (SDM vol. 3,
    // "Instruction-Breakpoint Exception Condition").
    cpu.state.flags.set_rest(cpu.state.flags.rest() | flags::RF);
    Err(cpu.stop_for(Reason::Continue))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    UntilCount,
    UntilCompared,
}

/// How many elements fit between an address and the end of its page; 0 if even one does not.
fn elements<W: Width>(linear: u64) -> u64 {
    (PAGE - (linear & (PAGE - 1))) / W::BYTES
}

fn movs<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeat(cpu, env, op, Repeat::UntilCount, |cpu, env, op, count| {
        let from = source_linear(cpu, op, W::BYTES)?;
        let to = target_linear(cpu, op, W::BYTES, Intent::Write)?;
        let bulk = count.min(elements::<W>(from)).min(elements::<W>(to));
        if bulk > 4
            && op.address & (address::CHECKED | address::NARROW) == 0
            && cpu.state.flags.rest() & flags::DF == 0
            && copy_piece(cpu, env, from, to, bulk * W::BYTES)?
        {
            advance(cpu, op, RSI, bulk * W::BYTES);
            advance(cpu, op, RDI, bulk * W::BYTES);
            return Ok(bulk);
        }
        let value: W = cpu.load(env, from)?;
        cpu.store(env, to, value)?;
        advance(cpu, op, RSI, W::BYTES);
        advance(cpu, op, RDI, W::BYTES);
        Ok(1)
    })
}

/// Copies inside one source and one target page, if the order of bytes cannot matter.
fn copy_piece(cpu: &mut Cpu, env: &mut Env<'_>, from: u64, to: u64, bytes: u64) -> Result<bool, Stop> {
    if cpu.breakpoints.watch_page(from) || cpu.breakpoints.watch_page(to) {
        return Ok(false);
    }
    let view = cpu.view;
    let source = cpu.target_of(env, from, Want::Read, view)?;
    let target = cpu.target_of(env, to, Want::Write, view)?;
    let (Target::Memory(source), Target::Memory(target)) = (source, target) else { return Ok(false) };
    let distance = target.hpa.get().wrapping_sub(source.hpa.get());
    if distance < bytes {
        return Ok(false);
    }
    let mut buffer = [0u8; PAGE as usize];
    let Some(piece) = buffer.get_mut(..bytes as usize) else { return Ok(false) };
    if env.mem.read(source.hpa, source.key, piece).is_err() {
        return Ok(false);
    }
    match env.mem.write(target.hpa, target.key, piece) {
        Ok(effect) => cpu.note(effect),
        // Let the ordinary path name the fault.
        Err(_) => return Ok(false),
    }
    Ok(true)
}

fn stos<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeat(cpu, env, op, Repeat::UntilCount, |cpu, env, op, count| {
        let to = target_linear(cpu, op, W::BYTES, Intent::Write)?;
        let value = W::read(&cpu.state.regs, RAX);
        let bulk = count.min(elements::<W>(to));
        if bulk > 4
            && op.address & (address::CHECKED | address::NARROW) == 0
            && cpu.state.flags.rest() & flags::DF == 0
            && fill_piece(cpu, env, to, value, bulk * W::BYTES)?
        {
            advance(cpu, op, RDI, bulk * W::BYTES);
            return Ok(bulk);
        }
        cpu.store(env, to, value)?;
        advance(cpu, op, RDI, W::BYTES);
        Ok(1)
    })
}

fn fill_piece<W: Width>(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    to: u64,
    value: W,
    bytes: u64,
) -> Result<bool, Stop> {
    static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    if cpu.breakpoints.watch_page(to) {
        return Ok(false);
    }
    let view = cpu.view;
    let Target::Memory(target) = cpu.target_of(env, to, Want::Write, view)? else { return Ok(false) };
    if value.to64() == 0 {
        let Some(piece) = ZEROS.get(..bytes as usize) else { return Ok(false) };
        return Ok(match env.mem.write(target.hpa, target.key, piece) {
            Ok(effect) => {
                cpu.note(effect);
                true
            }
            Err(_) => false,
        });
    }
    let mut buffer = [0u8; PAGE as usize];
    let Some(piece) = buffer.get_mut(..bytes as usize) else { return Ok(false) };
    let pattern = value.to64().to_le_bytes();
    let element = pattern.get(..W::BYTES as usize).unwrap_or(&pattern);
    for chunk in piece.chunks_exact_mut(W::BYTES as usize) {
        chunk.copy_from_slice(element);
    }
    match env.mem.write(target.hpa, target.key, piece) {
        Ok(effect) => cpu.note(effect),
        Err(_) => return Ok(false),
    }
    Ok(true)
}

fn lods<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeat(cpu, env, op, Repeat::UntilCount, |cpu, env, op, _| {
        let from = source_linear(cpu, op, W::BYTES)?;
        let value: W = cpu.load(env, from)?;
        W::write(&mut cpu.state.regs, RAX, value);
        advance(cpu, op, RSI, W::BYTES);
        Ok(1)
    })
}

fn scas<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeat(cpu, env, op, Repeat::UntilCompared, |cpu, env, op, _| {
        let at = target_linear(cpu, op, W::BYTES, Intent::Read)?;
        let value: W = cpu.load(env, at)?;
        let accumulator = W::read(&cpu.state.regs, RAX);
        super::arith::sub_with(&mut cpu.state.flags, accumulator, value, 0);
        advance(cpu, op, RDI, W::BYTES);
        Ok(1)
    })
}

fn cmps<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeat(cpu, env, op, Repeat::UntilCompared, |cpu, env, op, _| {
        let from = source_linear(cpu, op, W::BYTES)?;
        let to = target_linear(cpu, op, W::BYTES, Intent::Read)?;
        let a: W = cpu.load(env, from)?;
        let b: W = cpu.load(env, to)?;
        super::arith::sub_with(&mut cpu.state.flags, a, b, 0);
        advance(cpu, op, RSI, W::BYTES);
        advance(cpu, op, RDI, W::BYTES);
        Ok(1)
    })
}

/// Whether the mnemonic's memory operands make it a string instruction, with their size and address size.
pub(super) fn string_operands(i: &Instruction) -> Option<(usize, OpKind)> {
    (0..i.op_count()).find_map(|n| match i.op_kind(n) {
        kind @ (OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI) => Some((width(i, n), kind)),
        _ => None,
    })
}

/// Fills in the address of an implicit string operand.
pub(super) fn string_address(i: &Instruction, kind: OpKind, long: bool, op: &mut Op) {
    let register = match i.segment_prefix() {
        Register::None => Register::DS,
        register => register,
    };
    op.address = segment_bits(register, long);
    op.set_address_size(match kind {
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => 8,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
        _ => 2,
    });
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let (size, kind) = string_operands(i)?;
    let run: Option<Handler> = match i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => by_width!(size, movs),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => by_width!(size, stos),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => by_width!(size, lods),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => by_width!(size, scas),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => by_width!(size, cmps),
        _ => None,
    };
    let mut op = operands(i, run?, long);
    string_address(i, kind, long, &mut op);
    Some(Decoded::plain(op))
}
