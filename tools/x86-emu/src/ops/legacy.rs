//! Instructions that 64-bit mode does not have: decimal arithmetic, BOUND, ARPL and SALC (SDM vol. 2).
//!
//! Flags that the manual leaves undefined are those of a logical operation with the same result.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Handler, Intent, Op, prefix};
use crate::stop::Step;
use x86_arch::{Event, Width, flags, registers::HIGH_BYTES, vector};

const AL: u8 = 0;
const AH: u8 = HIGH_BYTES;
const RPL: u16 = 3;

fn al(cpu: &Cpu) -> u8 {
    u8::read(&cpu.state.regs, AL)
}

/// AL becomes `result`; SF, ZF and PF follow from it, OF is clear.
fn decimal_result(cpu: &mut Cpu, result: u8, carry: bool, auxiliary: bool) {
    u8::write(&mut cpu.state.regs, AL, result);
    cpu.state.flags.logic(result);
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    cpu.state.flags.replace(flags::CF | flags::AF, flag(carry, flags::CF) | flag(auxiliary, flags::AF));
}

/// DAA and DAS; `aux` is 1 to subtract.
fn decimal_adjust(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let (old, old_carry) = (al(cpu), cpu.state.flags.cf());
    let step =
        |value: u8, by: u8| if op.aux == 1 { value.overflowing_sub(by) } else { value.overflowing_add(by) };
    let auxiliary = old & 15 > 9 || cpu.state.flags.af();
    let (value, overflow) = if auxiliary { step(old, 6) } else { (old, false) };
    let high = old > 0x99 || old_carry;
    let carry = if op.aux == 1 { high || auxiliary && overflow } else { high };
    let value = if high { step(value, 0x60).0 } else { value };
    decimal_result(cpu, value, carry, auxiliary);
    Ok(())
}

/// AAA and AAS; `aux` is 1 to subtract.
fn ascii_adjust(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let adjusts = al(cpu) & 15 > 9 || cpu.state.flags.af();
    if adjusts {
        let ax = u16::read(&cpu.state.regs, AL);
        let moved = if op.aux == 1 { ax.wrapping_sub(0x106) } else { ax.wrapping_add(0x106) };
        u16::write(&mut cpu.state.regs, AL, moved);
    }
    let digit = al(cpu) & 15;
    decimal_result(cpu, digit, adjusts, adjusts);
    Ok(())
}

fn ascii_multiply(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let base = op.imm as u8;
    let value = al(cpu);
    let (Some(high), Some(low)) = (value.checked_div(base), value.checked_rem(base)) else {
        return Err(cpu.raise(Event::exception(vector::DE)));
    };
    u8::write(&mut cpu.state.regs, AH, high);
    decimal_result(cpu, low, false, false);
    Ok(())
}

fn ascii_divide(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let high = u8::read(&cpu.state.regs, AH);
    let value = al(cpu).wrapping_add(high.wrapping_mul(op.imm as u8));
    u8::write(&mut cpu.state.regs, AH, 0);
    decimal_result(cpu, value, false, false);
    Ok(())
}

/// SALC, which no manual has and every processor does: AL is filled with CF.
fn set_al(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    let value = if cpu.state.flags.cf() { 0xFF } else { 0 };
    u8::write(&mut cpu.state.regs, AL, value);
    Ok(())
}

/// BOUND: #BR unless the signed index lies between the two bounds in memory.
fn bound(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.operand_bytes());
    let linear = cpu.linear(op, 2 * bytes, Intent::Read)?;
    let (index, low, high) = if bytes == 2 {
        let low: u16 = cpu.load(env, linear)?;
        let high: u16 = cpu.load(env, linear.wrapping_add(2))?;
        (u16::read(&cpu.state.regs, op.dst).sext64(), low.sext64(), high.sext64())
    } else {
        let low: u32 = cpu.load(env, linear)?;
        let high: u32 = cpu.load(env, linear.wrapping_add(4))?;
        (u32::read(&cpu.state.regs, op.dst).sext64(), low.sext64(), high.sext64())
    };
    if (low as i64..=high as i64).contains(&(index as i64)) {
        return Ok(());
    }
    Err(cpu.raise(Event::exception(vector::BR)))
}

/// ARPL: raises the RPL of a selector to that of another.
fn adjust_rpl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let wanted = u16::read(&cpu.state.regs, op.src) & RPL;
    let selector: u16 = cpu.target(env, op)?;
    let raises = selector & RPL < wanted;
    if raises {
        cpu.write_target(env, op, selector & !RPL | wanted)?;
    }
    cpu.state.flags.set_zf(raises);
    Ok(())
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    if long {
        return None;
    }
    let (run, aux): (Handler, u16) = match i.mnemonic() {
        M::Daa => (decimal_adjust, 0),
        M::Das => (decimal_adjust, 1),
        M::Aaa => (ascii_adjust, 0),
        M::Aas => (ascii_adjust, 1),
        M::Aam => (ascii_multiply, 0),
        M::Aad => (ascii_divide, 0),
        M::Salc => (set_al, 0),
        M::Bound => (bound, 0),
        M::Arpl => (adjust_rpl, 0),
        _ => return None,
    };
    let mut op = operands(i, run, long);
    op.aux = aux;
    if i.mnemonic() == M::Bound && i.op0_register().size() == 2 {
        op.prefix |= prefix::SIZE16;
    }
    Some(Decoded::plain(op))
}
