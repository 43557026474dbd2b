//! VZEROUPPER and VZEROALL.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Env};
use crate::op::{Handler, Op};
use crate::stop::Step;

/// The registers that the mode reaches; `aux` is 1 in 64-bit code.
const fn reached(op: &Op) -> usize {
    if op.aux == 0 { 8 } else { 16 }
}

fn vzeroupper(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_avx()?;
    cpu.state.simd.ymm_high.iter_mut().take(reached(op)).for_each(|high| *high = 0);
    Ok(())
}

fn vzeroall(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    vzeroupper(cpu, env, op)?;
    cpu.state.simd.xmm.iter_mut().take(reached(op)).for_each(|low| *low = 0);
    Ok(())
}

pub(super) fn handler(i: &Instruction) -> Option<Handler> {
    match i.mnemonic() {
        Mnemonic::Vzeroupper => Some(vzeroupper),
        Mnemonic::Vzeroall => Some(vzeroall),
        _ => None,
    }
}
