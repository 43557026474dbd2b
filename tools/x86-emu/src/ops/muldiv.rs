//! Multiplication and division.

use iced_x86::{Instruction, Mnemonic};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::memory::FromBytes;
use crate::op::{Op, address};
use crate::stop::Step;
use x86_arch::{Event, Width, registers::HIGH_BYTES, vector};

const RAX: u8 = 0;
const RDX: u8 = 2;

/// Reads the double-width accumulator: AX, or DX:AX and its larger forms.
fn accumulator<W: Width>(cpu: &Cpu) -> u128 {
    let low = u128::from(W::read(&cpu.state.regs, RAX).to64());
    let high = if W::BITS == 8 {
        u8::read(&cpu.state.regs, HIGH_BYTES).to64()
    } else {
        W::read(&cpu.state.regs, RDX).to64()
    };
    low | u128::from(high) << W::BITS
}

fn set_accumulator<W: Width>(cpu: &mut Cpu, low: u64, high: u64) {
    if W::BITS == 8 {
        u16::write(&mut cpu.state.regs, RAX, (low & 0xFF | high << 8) as u16);
    } else {
        W::write(&mut cpu.state.regs, RAX, W::from64(low));
        W::write(&mut cpu.state.regs, RDX, W::from64(high));
    }
}

/// One-operand instructions name their operand first: as a source it is memory or `dst`.
fn mul<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b: W = cpu.target(env, op)?;
    let product = u128::from(W::read(&cpu.state.regs, RAX).to64()) * u128::from(b.to64());
    let low = W::from64(product as u64);
    let high = (product >> W::BITS) as u64;
    set_accumulator::<W>(cpu, low.to64(), high);
    cpu.state.flags.result_with(low, high != 0, high != 0);
    Ok(())
}

fn signed_product<W: Width>(a: W, b: W) -> (W, u64, bool) {
    let product = i128::from(a.sext64() as i64) * i128::from(b.sext64() as i64);
    let low = W::from64(product as u64);
    let lost = i128::from(low.sext64() as i64) != product;
    (low, (product >> W::BITS) as u64, lost)
}

fn imul_wide<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b: W = cpu.target(env, op)?;
    let (low, high, lost) = signed_product(W::read(&cpu.state.regs, RAX), b);
    set_accumulator::<W>(cpu, low.to64(), high);
    cpu.state.flags.result_with(low, lost, lost);
    Ok(())
}

fn imul_two<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b: W = cpu.source(env, op)?;
    let (low, _, lost) = signed_product(W::read(&cpu.state.regs, op.dst), b);
    W::write(&mut cpu.state.regs, op.dst, low);
    cpu.state.flags.result_with(low, lost, lost);
    Ok(())
}

fn imul_three<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let a: W = cpu.source(env, op)?;
    let (low, _, lost) = signed_product(a, W::from64(op.imm));
    W::write(&mut cpu.state.regs, op.dst, low);
    cpu.state.flags.result_with(low, lost, lost);
    Ok(())
}

fn div<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let divisor = u128::from(cpu.target::<W>(env, op)?.to64());
    let dividend = accumulator::<W>(cpu);
    match (dividend.checked_div(divisor), dividend.checked_rem(divisor)) {
        (Some(quotient), Some(remainder)) if quotient >> W::BITS == 0 => {
            set_accumulator::<W>(cpu, quotient as u64, remainder as u64);
            Ok(())
        }
        _ => Err(cpu.raise(Event::exception(vector::DE))),
    }
}

fn idiv<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let divisor = i128::from(cpu.target::<W>(env, op)?.sext64() as i64);
    let unused = 128 - 2 * W::BITS;
    let dividend = ((accumulator::<W>(cpu) << unused) as i128) >> unused;
    match (dividend.checked_div(divisor), dividend.checked_rem(divisor)) {
        (Some(quotient), Some(remainder))
            if i128::from(W::from64(quotient as u64).sext64() as i64) == quotient =>
        {
            set_accumulator::<W>(cpu, quotient as u64, remainder as u64);
            Ok(())
        }
        _ => Err(cpu.raise(Event::exception(vector::DE))),
    }
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let size = width(i, 0);
    let run = match (i.mnemonic(), i.op_count()) {
        (Mnemonic::Mul, _) => by_width!(size, mul),
        (Mnemonic::Imul, 1) => by_width!(size, imul_wide),
        (Mnemonic::Imul, 2) => by_width!(size, imul_two),
        (Mnemonic::Imul, 3) => by_width!(size, imul_three),
        (Mnemonic::Div, _) => by_width!(size, div),
        (Mnemonic::Idiv, _) => by_width!(size, idiv),
        _ => None,
    }?;
    let mut op = operands(i, run, long);
    if i.op_count() > 1 {
        op.address &= !address::MEMORY_DST;
    }
    Some(Decoded::plain(op))
}
