//! BMI1, BMI2 and ADX (SDM vol. 2). Flags that the manual leaves undefined are those of a logical operation, or kept.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::memory::FromBytes;
use crate::op::{Handler, Op};
use crate::stop::Step;
use x86_arch::{Width, flags};

const RDX: u8 = 2;

/// The operand that only these instructions have: a second source in a register, whose number is in `aux`.
fn third<W: Width>(cpu: &Cpu, op: &Op) -> W {
    W::read(&cpu.state.regs, op.aux as u8)
}

fn andn<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = cpu.source::<W>(env, op)?.to64();
    let result = W::from64(!third::<W>(cpu, op).to64() & b);
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.logic(result);
    Ok(())
}

/// The low `count` bits; all from 64 on.
const fn low_bits(count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

fn bextr<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let control = third::<W>(cpu, op).to64();
    let (start, length) = (control as u8, control >> 8 & 0xFF);
    let field = value.checked_shr(start.into()).unwrap_or(0) & low_bits(length);
    let result = W::from64(field);
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.logic(result);
    Ok(())
}

fn bzhi<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let count = third::<W>(cpu, op).to64() & 0xFF;
    let result = W::from64(value & low_bits(count));
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.result_with(result, count >= u64::from(W::BITS), false);
    Ok(())
}

/// BLSI: the lowest bit that is set.
fn blsi<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let result = W::from64(value & value.wrapping_neg());
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.result_with(result, value != 0, false);
    Ok(())
}

/// BLSMSK: ones up to the lowest bit that is set.
fn blsmsk<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let result = W::from64(value ^ value.wrapping_sub(1));
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.result_with(result, value == 0, false);
    Ok(())
}

/// BLSR: without the lowest bit that is set.
fn blsr<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let result = W::from64(value & value.wrapping_sub(1));
    W::write(&mut cpu.state.regs, op.dst, result);
    cpu.state.flags.result_with(result, value == 0, false);
    Ok(())
}

fn tzcnt<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let count = u64::from(value.trailing_zeros().min(W::BITS));
    W::write(&mut cpu.state.regs, op.dst, W::from64(count));
    let carry = if value == 0 { flags::CF } else { 0 };
    let zero = if count == 0 { flags::ZF } else { 0 };
    cpu.state.flags.replace(flags::CF | flags::ZF, carry | zero);
    Ok(())
}

/// MULX: the high half goes to the first destination, which wins where both are one register.
fn mulx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let factor = cpu.source::<W>(env, op)?.to64();
    let product = u128::from(W::read(&cpu.state.regs, RDX).to64()) * u128::from(factor);
    W::write(&mut cpu.state.regs, op.aux as u8, W::from64(product as u64));
    W::write(&mut cpu.state.regs, op.dst, W::from64((product >> W::BITS) as u64));
    Ok(())
}

/// PDEP: the low bits of the second operand go where the mask has ones.
fn pdep<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let mut mask = cpu.source::<W>(env, op)?.to64();
    let mut bits = third::<W>(cpu, op).to64();
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if bits & 1 != 0 {
            result |= lowest;
        }
        bits >>= 1;
        mask ^= lowest;
    }
    W::write(&mut cpu.state.regs, op.dst, W::from64(result));
    Ok(())
}

/// PEXT: the bits of the second operand where the mask has ones, side by side.
fn pext<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let mut mask = cpu.source::<W>(env, op)?.to64();
    let bits = third::<W>(cpu, op).to64();
    let (mut result, mut at) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= u64::from(bits & lowest != 0) << at;
        at += 1;
        mask ^= lowest;
    }
    W::write(&mut cpu.state.regs, op.dst, W::from64(result));
    Ok(())
}

fn rorx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.source::<W>(env, op)?.to64();
    let count = op.imm as u32 & (W::BITS - 1);
    let turned = value >> count | value.checked_shl(W::BITS - count).unwrap_or(0);
    W::write(&mut cpu.state.regs, op.dst, W::from64(turned));
    Ok(())
}

/// SARX, SHLX and SHRX, by a function of the sign-extended value and the count.
fn shift_x<W: Width + FromBytes>(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    shift: fn(u64, u64, u32) -> u64,
) -> Step {
    let value = cpu.source::<W>(env, op)?;
    let count = third::<W>(cpu, op).to64() as u32 & (W::BITS - 1);
    let result = shift(value.to64(), value.sext64(), count);
    W::write(&mut cpu.state.regs, op.dst, W::from64(result));
    Ok(())
}
fn sarx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    shift_x::<W>(cpu, env, op, |_, signed, count| (signed as i64 >> count) as u64)
}
fn shlx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    shift_x::<W>(cpu, env, op, |value, _, count| value << count)
}
fn shrx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    shift_x::<W>(cpu, env, op, |value, _, count| value >> count)
}

/// ADCX and ADOX: an addition whose carry comes from and goes to one flag alone.
fn add_carrying<W: Width + FromBytes, const FLAG: u64>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = u128::from(cpu.source::<W>(env, op)?.to64());
    let a = u128::from(W::read(&cpu.state.regs, op.dst).to64());
    let sum = a + b + u128::from(cpu.state.flags.get() & FLAG != 0);
    W::write(&mut cpu.state.regs, op.dst, W::from64(sum as u64));
    let carry = sum >> W::BITS != 0;
    if FLAG == flags::CF {
        cpu.state.flags.set_cf(carry);
    } else {
        let kept = cpu.state.flags.cf();
        cpu.state.flags.set_cf_of(kept, carry);
    }
    Ok(())
}
fn adcx<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    add_carrying::<W, { flags::CF }>(cpu, env, op)
}
fn adox<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    add_carrying::<W, { flags::OF }>(cpu, env, op)
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    use Mnemonic as M;
    let size = width(i, 0);
    let run: Option<Handler> = match i.mnemonic() {
        M::Andn => by_width!(size, andn),
        M::Bextr => by_width!(size, bextr),
        M::Bzhi => by_width!(size, bzhi),
        M::Blsi => by_width!(size, blsi),
        M::Blsmsk => by_width!(size, blsmsk),
        M::Blsr => by_width!(size, blsr),
        M::Tzcnt => by_width!(size, tzcnt),
        M::Mulx => by_width!(size, mulx),
        M::Pdep => by_width!(size, pdep),
        M::Pext => by_width!(size, pext),
        M::Rorx => by_width!(size, rorx),
        M::Sarx => by_width!(size, sarx),
        M::Shlx => by_width!(size, shlx),
        M::Shrx => by_width!(size, shrx),
        M::Adcx => by_width!(size, adcx),
        M::Adox => by_width!(size, adox),
        _ => None,
    };
    let mut op = operands(i, run?, long);
    // The source that may be memory is `src`; the other one of three operands is the third.
    let number = |n: u32| i.op_register(n).full_register().number() as u8;
    if i.op_count() == 3 && i.op2_kind() != OpKind::Immediate8 {
        let last_is_plain = matches!(i.mnemonic(), M::Bextr | M::Bzhi | M::Sarx | M::Shlx | M::Shrx);
        let (plain, general) = if last_is_plain { (2, 1) } else { (1, 2) };
        op.aux = number(plain).into();
        if i.op_kind(general) == OpKind::Register {
            op.src = number(general);
        }
    }
    Some(Decoded::plain(op))
}
