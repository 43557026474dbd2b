//! MOVDIR64B: 64 bytes from memory to an aligned line.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Env};
use crate::decode::{Decoded, operands};
use crate::op::{Intent, Op, address};
use crate::paging::Want;
use crate::stop::Step;
use x86_arch::Seg;

const LINE: u64 = 64;

/// The destination is ES and a register as wide as an address.
fn movdir64b(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let from = cpu.linear(op, LINE, Intent::Read)?;
    let mut line = [0u8; LINE as usize];
    let view = cpu.view;
    cpu.read_bytes(env, from, &mut line, Want::Read, view)?;
    let offset = cpu.state.regs.slot(op.dst) & op.imm;
    let to = if op.address & address::CHECKED != 0 {
        cpu.checked_linear(Seg::Es, offset, LINE, Intent::Write)?
    } else {
        offset
    };
    if to & (LINE - 1) != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.write_bytes(env, to, &line, view)
}

pub(super) fn decode(i: &Instruction, long: bool) -> Option<Decoded> {
    if i.mnemonic() != Mnemonic::Movdir64b {
        return None;
    }
    let mut op = operands(i, movdir64b, long);
    // The bits of the register that make the address.
    op.imm = match i.op0_register().size() {
        2 => 0xFFFF,
        4 => 0xFFFF_FFFF,
        _ => u64::MAX,
    };
    Some(Decoded::plain(op))
}
