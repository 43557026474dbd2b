//! Control instructions: they leave the instruction and data pointers alone.

use iced_x86::Mnemonic;
use x86_arch::{Event, X87State, cr0, vector};

use super::stack::{Stack, status};
use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::stop::Step;

/// Bits that the control word has; bit 6 always reads one.
const CONTROL_MASK: u16 = 0x1F7F;
const CONTROL_FIXED: u16 = 0x40;

/// The control word as the register holds it.
pub(in crate::ops) const fn control_word(image: u16) -> u16 {
    image & CONTROL_MASK | CONTROL_FIXED
}

/// What FNINIT leaves: the data registers keep their contents, marked empty.
pub(super) fn initialise(x87: &mut X87State) {
    *x87 = X87State { registers: x87.registers, ..X87State::default() };
}

fn fninit(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.check_fpu()?;
    initialise(&mut cpu.state.simd.x87);
    Ok(())
}

fn fnclex(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    const KEPT: u16 = 0x7F00;
    cpu.check_fpu()?;
    cpu.state.simd.x87.status &= KEPT;
    Ok(())
}

fn fwait(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    const MP_TS: u64 = cr0::MP | cr0::TS;
    if cpu.state.control.cr0 & MP_TS == MP_TS {
        return Err(cpu.raise(Event::exception(vector::NM)));
    }
    cpu.raise_pending_x87()
}

fn fnstcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_fpu()?;
    let value = cpu.state.simd.x87.control;
    cpu.store_operand(env, op, value)
}

fn fldcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let value: u16 = cpu.load_operand(env, op)?;
    cpu.state.simd.x87.control = control_word(value);
    cpu.state.simd.x87.refresh_summary();
    Ok(())
}

fn fnstsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_fpu()?;
    let value = cpu.state.simd.x87.status;
    cpu.write_target(env, op, value)
}

/// FINCSTP and FDECSTP turn the stack; no register is freed.
fn turn(cpu: &mut Cpu, by: u8) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    x87.set_top(x87.top().wrapping_add(by));
    x87.set_conditions(status::C1, 0);
    Ok(())
}
fn fincstp(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    turn(cpu, 1)
}
fn fdecstp(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    turn(cpu, u8::MAX)
}

fn ffree(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    cpu.state.simd.x87.free(op.dst);
    Ok(())
}
/// FFREEP (DF /0), which every processor has and no manual lists.
fn ffreep(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.begin_x87()?;
    let x87 = &mut cpu.state.simd.x87;
    x87.free(op.dst);
    x87.pop();
    Ok(())
}

fn fnop(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.begin_x87()
}

/// FNENI, FNDISI and FNSETPM of the 8087 and 80287 do nothing since the 80387.
fn obsolete(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Step {
    cpu.check_fpu()
}

pub(super) fn find(mnemonic: Mnemonic) -> Option<(Handler, u16)> {
    use Mnemonic as M;
    let run: Handler = match mnemonic {
        M::Fninit => fninit,
        M::Fnclex => fnclex,
        M::Wait => fwait,
        M::Fnstcw => fnstcw,
        M::Fldcw => fldcw,
        M::Fnstsw => fnstsw,
        M::Fincstp => fincstp,
        M::Fdecstp => fdecstp,
        M::Ffree => ffree,
        M::Ffreep => ffreep,
        M::Fnop => fnop,
        M::Fneni | M::Fndisi | M::Fnsetpm => obsolete,
        _ => return None,
    };
    Some((run, 0))
}
