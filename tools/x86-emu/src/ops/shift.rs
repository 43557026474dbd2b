//! Shifts and rotates.
//!
//! A count of zero changes nothing, flags included. OF after a count other than one is undefined: what is
//! set here is what current processors of both vendors set for the last step.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::by_width;
use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands, width};
use crate::memory::FromBytes;
use crate::op::{Handler, Op};
use crate::stop::Step;
use x86_arch::{Width, flags::Flags};

trait Shift: 'static {
    /// `count` is masked to 5 or 6 bits and not zero.
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W;
}

struct Shl;
struct Shr;
struct Sar;
struct Rol;
struct Ror;
struct Rcl;
struct Rcr;

const fn top<W: Width>(value: u64) -> bool {
    value >> (W::BITS - 1) & 1 != 0
}

impl Shift for Shl {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let wide = u128::from(a.to64()) << count;
        let r = W::from64(wide as u64);
        let carry = wide >> W::BITS & 1 != 0;
        flags.result_with(r, carry, carry != top::<W>(r.to64()));
        r
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let a = a.to64();
        let before = a >> (count - 1);
        let r = W::from64(before >> 1);
        // Zero came in at the top; below it is, for a count of one, the top bit of the operand.
        flags.result_with(r, before & 1 != 0, r.to64() >> (W::BITS - 2) & 1 != 0);
        r
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let before = a.sext64() as i64 >> (count - 1);
        let r = W::from64((before >> 1) as u64);
        flags.result_with(r, before & 1 != 0, false);
        r
    }
}

impl Shift for Rol {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let n = count % W::BITS;
        let a = a.to64();
        let r = if n == 0 { a } else { W::from64(a << n | a >> (W::BITS - n)).to64() };
        let carry = r & 1 != 0;
        flags.set_cf_of(carry, carry != top::<W>(r));
        W::from64(r)
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let n = count % W::BITS;
        let a = a.to64();
        let r = if n == 0 { a } else { W::from64(a >> n | a << (W::BITS - n)).to64() };
        flags.set_cf_of(top::<W>(r), top::<W>(r) != top::<W>(r << 1));
        W::from64(r)
    }
}

/// Rotates the operand with CF as an extra top bit.
fn rotate_through<W: Width>(a: u64, carry: bool, left: u32) -> (u64, bool) {
    let bits = W::BITS + 1;
    let wide = u128::from(a) | u128::from(carry) << W::BITS;
    let rotated = wide << left | wide >> (bits - left);
    (W::from64(rotated as u64).to64(), rotated >> W::BITS & 1 != 0)
}

impl Shift for Rcl {
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        if n == 0 {
            let carry = flags.cf();
            flags.set_cf_of(carry, carry != top::<W>(a.to64()));
            return a;
        }
        let (r, carry) = rotate_through::<W>(a.to64(), flags.cf(), n);
        flags.set_cf_of(carry, carry != top::<W>(r));
        W::from64(r)
    }
}

impl Shift for Rcr {
    fn apply<W: Width>(flags: &mut Flags, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        let (r, carry) = if n == 0 {
            (a.to64(), flags.cf())
        } else {
            rotate_through::<W>(a.to64(), flags.cf(), W::BITS + 1 - n)
        };
        flags.set_cf_of(carry, top::<W>(r) != top::<W>(r << 1));
        W::from64(r)
    }
}

#[inline(always)]
fn masked<W: Width>(count: u64) -> u32 {
    count as u32 & if W::BITS == 64 { 63 } else { 31 }
}

#[inline(always)]
fn shift<W: Width + FromBytes, O: Shift>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, count: u32) -> Step {
    if count != 0 {
        return cpu.update(env, op, |flags, a: W| O::apply(flags, a, count));
    }
    // The operand is still accessed, and a 32-bit register still loses its upper half.
    cpu.update(env, op, |_, a: W| a)
}

fn by_immediate<W: Width + FromBytes, O: Shift>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    shift::<W, O>(cpu, env, op, masked::<W>(op.imm))
}

/// A register, and a count that is not zero: most of all shifts.
fn register_by_immediate<W: Width, O: Shift>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    let count = masked::<W>(op.imm);
    cpu.update_register(op, |flags, a: W| O::apply(flags, a, count));
    Ok(())
}

fn by_cl<W: Width + FromBytes, O: Shift>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let count = masked::<W>(cpu.state.regs.slot(1));
    shift::<W, O>(cpu, env, op, count)
}

fn pick<O: Shift>(i: &Instruction) -> Option<Handler> {
    let size = width(i, 0);
    if i.op1_kind() == OpKind::Register {
        by_width!(size, by_cl, O)
    } else if i.op0_kind() == OpKind::Register && i.immediate8() & if size == 8 { 63 } else { 31 } != 0 {
        by_width!(size, register_by_immediate, O)
    } else {
        by_width!(size, by_immediate, O)
    }
}

fn double_left<W: Width>(flags: &mut Flags, a: W, b: W, count: u32) -> W {
    // 16-bit operands with a count above 16 go on rotating through both, as processors do.
    let (a, b) = (u128::from(a.to64()), u128::from(b.to64()));
    let wide = (a << W::BITS | b) << W::BITS | if W::BITS == 16 { a } else { 0 };
    let shifted = wide << count;
    let r = W::from64((shifted >> (2 * W::BITS)) as u64);
    let carry = if W::BITS == 64 { a >> (64 - count) & 1 != 0 } else { shifted >> (3 * W::BITS) & 1 != 0 };
    flags.result_with(r, carry, carry != top::<W>(r.to64()));
    r
}

fn double_right<W: Width>(flags: &mut Flags, a: W, b: W, count: u32) -> W {
    let (a, b) = (u128::from(a.to64()), u128::from(b.to64()));
    let wide = b << W::BITS | a | if W::BITS == 16 { a << 32 } else { 0 };
    let r = W::from64((wide >> count) as u64);
    let carry = wide >> (count - 1) & 1 != 0;
    flags.result_with(r, carry, top::<W>(r.to64()) != top::<W>(r.to64() << 1));
    r
}

fn shld<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let count = masked::<W>(if op.aux == 1 { cpu.state.regs.slot(1) } else { op.imm });
    let b = W::read(&cpu.state.regs, op.src);
    cpu.update(env, op, |flags, a: W| {
        if count == 0 {
            return a;
        }
        if W::BITS == 64 {
            let r = a.to64() << count | b.to64() >> (64 - count);
            let carry = a.to64() >> (64 - count) & 1 != 0;
            flags.result_with(W::from64(r), carry, carry != top::<W>(r));
            return W::from64(r);
        }
        double_left(flags, a, b, count)
    })
}

fn shrd<W: Width + FromBytes>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let count = masked::<W>(if op.aux == 1 { cpu.state.regs.slot(1) } else { op.imm });
    let b = W::read(&cpu.state.regs, op.src);
    cpu.update(env, op, |flags, a: W| if count == 0 { a } else { double_right(flags, a, b, count) })
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    let size = width(i, 0);
    let run = match i.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => pick::<Shl>(i),
        Mnemonic::Shr => pick::<Shr>(i),
        Mnemonic::Sar => pick::<Sar>(i),
        Mnemonic::Rol => pick::<Rol>(i),
        Mnemonic::Ror => pick::<Ror>(i),
        Mnemonic::Rcl => pick::<Rcl>(i),
        Mnemonic::Rcr => pick::<Rcr>(i),
        Mnemonic::Shld if size > 1 => by_width!(size, shld),
        Mnemonic::Shrd if size > 1 => by_width!(size, shrd),
        _ => None,
    }?;
    let mut op = operands(i, run, long);
    if i.op_count() == 3 && i.op2_kind() == OpKind::Register && i.op2_register() == Register::CL {
        op.aux = 1;
    }
    Some(Decoded::plain(op))
}
